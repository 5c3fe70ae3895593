//! Waiting for other ranks outside collectives: for work whose time no timeout can bound.
//!
//! Notes go through the group's store. A thread of every rank makes a beat there, whatever the
//! rank works at. Who waits looks after the others meanwhile: a rank whose process is gone is an
//! error at once, one without beats (it is stopped, or its machine is lost) after the timeout; a
//! request to leave is passed on. Until training begins, that thread also leaves when any rank is
//! asked to.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use c10d::aten::exit_at_once;
use c10d::{Group, Store};
use record::process::Process;

use crate::culprits::{self, Culprits};
use crate::fault;
use crate::signals::{self, AGAIN};
use crate::trace::{self, Health};

/// How often a waiting rank looks.
const PAUSE: Duration = Duration::from_millis(5);
/// How often it looks after the others, and how often a rank makes a beat.
const CHECK: Duration = Duration::from_millis(250);
/// A rank is silent for at least so long before it counts as lost; a busy machine's may pause.
const SILENCE: Duration = Duration::from_secs(3);
/// How long rank 0 waits for the others when it leaves before training has begun.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often it says that it waits.
const SAY: Duration = Duration::from_secs(60);

/// The note that some rank is asked to leave.
const ASKED: &str = "asked";
/// Where ranks meet to begin, and what one says that leaves instead.
const READY: &str = "ready";
const LEFT: &str = "left";

/// This rank among all others; copies are the same rank.
#[derive(Clone)]
pub struct Together {
    /// 0 to `world_size` - 1.
    pub rank: usize,
    /// How many ranks there are.
    pub world_size: usize,
    store: Store,
    ranks: Arc<OnceLock<PathBuf>>,
    silence: Duration,
    /// Training has not begun.
    is_starting: Arc<AtomicBool>,
}

/// How many looks ago a rank's last beat was new. Counted in looks, not in time: when the whole
/// machine pauses, nobody is to blame.
#[derive(Default, Clone)]
struct Pulse {
    beat: Option<String>,
    looks: u32,
}

impl Together {
    /// The ranks of `world`.
    pub fn new(world: &Group) -> Result<Self> {
        let (rank, world_size) = (world.rank(), world.world_size());
        let store = world.store("together")?;
        store.set(&process_key(rank), &serde_json::to_string(&fault::process())?)?;
        let together = Self {
            rank,
            world_size,
            store,
            ranks: Arc::default(),
            silence: world.timeout().max(SILENCE),
            is_starting: Arc::new(AtomicBool::new(true)),
        };
        signals::leave_at_once(false);
        let this = together.clone();
        thread::Builder::new().spawn(move || this.beat()).context("starting a thread")?;
        Ok(together)
    }

    /// While there is a store: a process is one rank of one run. Who waits says that it is lost.
    fn beat(&self) {
        for beat in 0u64.. {
            let told = self.tell(&beat_key(self.rank), &beat.to_string());
            if self.is_starting.load(Ordering::SeqCst) {
                if signals::asked() {
                    let _ = self.tell(ASKED, "");
                }
                if self.asked().unwrap_or_else(|_| signals::asked()) {
                    self.leave();
                }
            } else if told.is_err() {
                return;
            }
            thread::sleep(CHECK);
        }
    }

    /// Leaves before there is anything to save; rank 0, which may serve the store, as the last.
    fn leave(&self) -> ! {
        let _ = self.tell(&format!("{READY}/{}", self.rank), LEFT);
        let _ = self.tell(&parted_key(self.rank), "");
        let parted = |rank| !matches!(self.read(&parted_key(rank)), Ok(None));
        let start = Instant::now();
        while self.rank == 0 && start.elapsed() < FAREWELL && !(1..self.world_size).all(parted) {
            thread::sleep(PAUSE);
        }
        exit_at_once(AGAIN.into());
    }

    /// From here on this rank leaves only at the end of a step. Waits for all ranks; whether they
    /// are to train, and not to leave.
    pub fn begin(&self) -> Result<bool> {
        self.is_starting.store(false, Ordering::SeqCst);
        let words = self.meet(READY, if signals::asked() { LEFT } else { "" })?;
        Ok(words.iter().all(|word| word != LEFT))
    }

    /// From here on the other ranks note in `ranks` what they do.
    pub fn watch(&self, ranks: PathBuf) {
        let _ = self.ranks.set(ranks);
    }

    /// Leaves a note for whoever waits for `key`.
    pub fn tell(&self, key: &str, text: &str) -> Result<()> {
        self.store.set(key, text)
    }

    /// The note that stands under `key` now.
    pub fn read(&self, key: &str) -> Result<Option<String>> {
        self.store.get(key)
    }

    /// A rank's process, once it is there.
    pub fn process(&self, rank: usize) -> Result<Option<Process>> {
        let process = self.store.get(&process_key(rank))?;
        Ok(process.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    /// Whether this rank, or one that waits, is asked to leave.
    pub fn asked(&self) -> Result<bool> {
        Ok(signals::asked() || self.store.get(ASKED)?.is_some())
    }

    /// Waits until the note `key` is one that `accept` makes something of.
    ///
    /// # Errors
    /// A rank is gone or silent, or the store is lost with the rank that serves it.
    pub fn wait_for<T>(&self, key: &str, accept: impl Fn(&str) -> Option<T>) -> Result<T> {
        let (mut checked, mut said) = (Instant::now(), Instant::now());
        let mut pulses = vec![Pulse::default(); self.world_size];
        loop {
            if let Some(found) = self.store.get(key)?.as_deref().and_then(&accept) {
                return Ok(found);
            }
            if checked.elapsed() > CHECK {
                checked = Instant::now();
                for (rank, pulse) in pulses.iter_mut().enumerate() {
                    self.is_there(rank, pulse)?;
                }
                if signals::asked() {
                    self.tell(ASKED, "")?;
                }
            }
            if said.elapsed() > SAY && self.rank == 0 {
                said = Instant::now();
                eprintln!("rank 0 waits for {key}");
            }
            thread::sleep(PAUSE);
        }
    }

    /// The end: this rank needs the others no more. Rank 0, which may serve the store, waits until
    /// all have said so.
    pub fn part(&self) -> Result<()> {
        self.tell(&parted_key(self.rank), "")?;
        let others = 1..if self.rank == 0 { self.world_size } else { 1 };
        others.into_iter().try_for_each(|rank| self.wait_for(&parted_key(rank), |_| Some(())))
    }

    /// Refuses to wait for a rank that is gone or silent although others may need it.
    fn is_there(&self, rank: usize, pulse: &mut Pulse) -> Result<()> {
        let beat = self.store.get(&beat_key(rank))?;
        pulse.looks = if beat == pulse.beat { pulse.looks + 1 } else { 0 };
        pulse.beat = beat;
        let Some(process) = self.process(rank)? else { return Ok(()) };
        let is_gone = process.health(&fault::process()) == Health::Gone;
        let is_silent = pulse.looks * CHECK > self.silence;
        if !(is_gone || is_silent) || self.store.get(&parted_key(rank))?.is_some() {
            return Ok(());
        }
        let notes = self.ranks.get().map(|ranks| trace::read(ranks)).unwrap_or_default();
        let what = if is_gone { "it is gone" } else { "no word from it" };
        // It may have ended because of another.
        let mut blame = culprits::lost(&notes);
        if blame.is_empty() {
            blame.push(match notes.iter().find(|note| note.rank == rank) {
                Some(note) => note.blame(what),
                None => format!("rank {rank} ({process}): {what}"),
            });
        }
        Err(Culprits(blame.join("\n")).into())
    }

    /// Waits for all ranks; what each of them said, in their order. A `name` is used once.
    pub fn meet(&self, name: &str, word: &str) -> Result<Vec<String>> {
        while self.is_starting.load(Ordering::SeqCst) && signals::asked() {
            // The thread with the beat leaves.
            thread::sleep(PAUSE);
        }
        let key = |rank: usize| format!("{name}/{rank}");
        self.tell(&key(self.rank), word)?;
        let word = |rank| self.wait_for(&key(rank), |text| Some(text.to_owned()));
        (0..self.world_size).map(word).collect()
    }
}

fn parted_key(rank: usize) -> String {
    format!("parted/{rank}")
}

fn beat_key(rank: usize) -> String {
    format!("beat/{rank}")
}

fn process_key(rank: usize) -> String {
    format!("process/{rank}")
}
