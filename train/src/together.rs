//! Waiting for other ranks outside collectives: for work whose time no timeout can bound.
//!
//! Notes go through the group's store. Who waits looks after the others meanwhile: a rank whose
//! process is gone is an error at once, and a request to leave is passed on.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use c10d::{Group, Store};
use record::process::Process;

use crate::fault;
use crate::signals;
use crate::trace::{self, Health};

/// How often a waiting rank looks.
const PAUSE: Duration = Duration::from_millis(5);
/// How often it looks after the others' processes.
const CHECK: Duration = Duration::from_millis(250);
/// How often it says that it waits.
const SAY: Duration = Duration::from_secs(60);

/// The note that some rank is asked to leave.
const ASKED: &str = "asked";

/// This rank among all others; copies are the same rank.
#[derive(Clone)]
pub struct Together {
    /// 0 to `world_size` - 1.
    pub rank: usize,
    /// How many ranks there are.
    pub world_size: usize,
    store: Store,
    ranks: Arc<OnceLock<PathBuf>>,
}

impl Together {
    /// The ranks of `world`.
    pub fn new(world: &Group) -> Result<Self> {
        let (rank, world_size) = (world.rank(), world.world_size());
        let store = world.store("together")?;
        store.set(&process_key(rank), &serde_json::to_string(&fault::process())?)?;
        Ok(Self { rank, world_size, store, ranks: Arc::default() })
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
    /// A rank is gone, or the store with the rank that serves it.
    pub fn wait_for<T>(&self, key: &str, accept: impl Fn(&str) -> Option<T>) -> Result<T> {
        let (mut checked, mut said) = (Instant::now(), Instant::now());
        loop {
            if let Some(found) = self.store.get(key)?.as_deref().and_then(&accept) {
                return Ok(found);
            }
            if checked.elapsed() > CHECK {
                checked = Instant::now();
                (0..self.world_size).try_for_each(|rank| self.is_there(rank))?;
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

    /// Refuses to wait for a rank whose process is gone although others may need it.
    fn is_there(&self, rank: usize) -> Result<()> {
        let Some(process) = self.process(rank)? else { return Ok(()) };
        let is_gone = process.health(&fault::process()) == Health::Gone;
        if is_gone && self.store.get(&parted_key(rank))?.is_none() {
            let notes = self.ranks.get().map(|ranks| trace::read(ranks)).unwrap_or_default();
            match notes.iter().find(|note| note.rank == rank) {
                Some(note) => bail!("{}: it is gone", note.describe()),
                None => bail!("rank {rank} ({process}) is gone"),
            }
        }
        Ok(())
    }

    /// Waits for all ranks; what each of them said, in their order. A `name` is used once.
    pub fn meet(&self, name: &str, word: &str) -> Result<Vec<String>> {
        let key = |rank: usize| format!("{name}/{rank}");
        self.tell(&key(self.rank), word)?;
        let word = |rank| self.wait_for(&key(rank), |text| Some(text.to_owned()));
        (0..self.world_size).map(word).collect()
    }
}

fn parted_key(rank: usize) -> String {
    format!("parted/{rank}")
}

fn process_key(rank: usize) -> String {
    format!("process/{rank}")
}
