//! Whom to name when ranks fail: the one that failed by itself, or that the others waited for.
//!
//! A rank that fails by itself says why, in its last note and in the store, while its connections
//! still stand; only then do the others' collectives fail.
//! Ranks of this machine are looked at: is the process there, how far is its note. All are listened
//! to: every rank whose collective fails leaves its last note in the store, so who leaves none is
//! lost or stuck.

use std::fmt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};

use crate::together::Together;
use crate::trace::{self, Health, Note, Trace};

/// In the message of a failed collective (see `c10d::Group`) or of a lost store (`c10d::Store`).
const OF_OTHERS: [&str; 8] = [
    "ing the note",
    "all_gather",
    "reduce_scatter",
    "all_reduce",
    "broadcast",
    "all_to_all",
    "exchange",
    "barrier",
];
/// A killed process closes its connections a little before it is gone, and all ranks' timeouts do
/// not end at once.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is wrong on every rank shows on all within this time.
const AGREEMENT: Duration = Duration::from_millis(500);

/// In an error's chain: the ranks that are to blame for it.
#[derive(Debug)]
pub struct Culprits(pub String);

impl std::error::Error for Culprits {}

/// In an error's chain: another rank has the same to say.
#[derive(Debug)]
pub struct Said;

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another rank says it")
    }
}

impl fmt::Display for Culprits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Adds to a failure which rank is to blame; `ranks` holds the notes.
pub fn name(error: Error, trace: &Trace, ranks: &Path, together: &Together) -> Error {
    let text = format!("{error:#}");
    let Some(mine) = trace.last() else { return error };
    if !OF_OTHERS.iter().any(|name| text.contains(name)) {
        let is_named = error.is::<Culprits>();
        return if is_named { error } else { own(error, &text, trace, ranks, together) };
    }
    // In a thread: a store whose rank is stopped answers nothing, and for long.
    let (sender, heard) = mpsc::channel();
    let others = together.clone();
    thread::spawn(move || sender.send(listen(&others, &mine)));
    let start = Instant::now();
    let culprits = loop {
        let notes = trace::read(ranks);
        let lost = lost(&notes);
        if !lost.is_empty() {
            break lost;
        }
        if start.elapsed() > PATIENCE {
            break apart(notes, heard.recv_timeout(PATIENCE / 4).ok().and_then(Result::ok));
        }
        thread::sleep(Duration::from_millis(20));
    };
    if culprits.is_empty() { error } else { error.context(Culprits(culprits.join("\n"))) }
}

/// A failure of this rank itself. What is wrong on every rank is said once, by the lowest.
fn own(error: Error, text: &str, trace: &Trace, ranks: &Path, together: &Together) -> Error {
    trace.fail(text);
    let note = trace.last().and_then(|note| serde_json::to_string(&note).ok());
    // Without a store the others see it in the run's folder, if they see that.
    let _ = note.map(|note| together.tell(&key(together.rank), &note));
    if together.rank == 0 {
        return error;
    }
    let start = Instant::now();
    while start.elapsed() < AGREEMENT {
        let notes = trace::read(ranks);
        if notes.iter().any(|note| note.rank < together.rank && note.failed.is_some()) {
            return error.context(Said);
        }
        thread::sleep(Duration::from_millis(20));
    }
    error.context(Culprits(format!("rank {} failed", together.rank)))
}

/// The other ranks, whether each is on another machine, and what it left if it left something.
type Heard = Vec<(usize, bool, Option<Note>)>;

/// Leaves this rank's note and waits for those of all others.
///
/// # Errors
/// The store is lost. When that happens while this rank waits, it takes what it has heard.
fn listen(together: &Together, mine: &Note) -> Result<Heard> {
    together.tell(&key(together.rank), &serde_json::to_string(mine)?)?;
    let mut heard: Heard = Vec::new();
    for rank in (0..together.world_size).filter(|rank| *rank != together.rank) {
        let process = together.process(rank)?;
        let is_apart = process.is_some_and(|process| !process.is_beside(&mine.process));
        heard.push((rank, is_apart, None));
    }
    let start = Instant::now();
    while start.elapsed() < 3 * PATIENCE / 4 {
        for (rank, _, note) in heard.iter_mut().filter(|(.., note)| note.is_none()) {
            match together.read(&key(*rank)) {
                Ok(text) => *note = text.and_then(|text| serde_json::from_str(&text).ok()),
                Err(_) => return Ok(heard),
            }
        }
        if heard.iter().all(|(.., note)| note.is_some()) {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(heard)
}

fn key(rank: usize) -> String {
    format!("failed/{rank}")
}

/// Ranks of other machines that left nothing, else those that are behind, else those of this
/// machine that left nothing. Without a store it is rank 0, which serves it, or what rank 0 found
/// before it ended.
fn apart(mut notes: Vec<Note>, heard: Option<Heard>) -> Vec<String> {
    let what = match heard {
        Some(_) => "no word from it",
        None => "no word from it; if it named a rank before it ended, it is that one",
    };
    let (mut silent, mut silent_here) = (Vec::new(), Vec::new());
    for (rank, is_apart, note) in heard.unwrap_or(vec![(0, true, None)]) {
        let old = notes.iter().position(|old| old.rank == rank);
        match (note, old) {
            (Some(note), Some(old)) => notes[old] = note,
            (Some(note), None) => notes.push(note),
            (None, Some(old)) if is_apart => silent.push(notes.swap_remove(old).blame(what)),
            (None, Some(old)) => silent_here.push(notes[old].blame(what)),
            (None, None) => silent.push(format!("rank {rank}: {what}")),
        }
    }
    match failed(&notes) {
        failed if !failed.is_empty() => failed,
        _ if !silent.is_empty() => silent,
        _ => match behind(&notes) {
            behind if !behind.is_empty() => behind,
            _ => silent_here,
        },
    }
}

fn here(notes: &[Note]) -> Vec<&Note> {
    notes.iter().filter(|note| note.stage != trace::Stage::Left).collect()
}

/// Ranks that failed by themselves, each as a line.
fn failed(notes: &[Note]) -> Vec<String> {
    notes.iter().filter(|note| note.failed.is_some()).map(|note| note.blame("")).collect()
}

/// Ranks that failed, else ranks of this machine that are gone, else ranks that are stopped.
pub fn lost(notes: &[Note]) -> Vec<String> {
    let failed = failed(notes);
    if !failed.is_empty() {
        return failed;
    }
    for (wanted, what) in [(Health::Gone, "it is gone"), (Health::Stopped, "it is stopped")] {
        let found = here(notes).into_iter().filter(|note| note.health() == wanted);
        let lines: Vec<_> = found.map(|note| format!("{}: {what}", note.describe())).collect();
        if !lines.is_empty() {
            return lines;
        }
    }
    Vec::new()
}

/// The ranks that made the fewest notes, if not all made as many.
fn behind(notes: &[Note]) -> Vec<String> {
    let here = here(notes);
    let least = here.iter().map(|note| note.notes).min();
    if here.iter().all(|note| Some(note.notes) == least) {
        return Vec::new();
    }
    let behind = here.iter().filter(|note| Some(note.notes) == least);
    behind.map(|note| format!("{}: it is behind the others", note.describe())).collect()
}
