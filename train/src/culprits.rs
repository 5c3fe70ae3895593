//! Whom to name when a collective fails: the rank that the others waited for.
//!
//! Ranks of this machine are looked at: is the process there, how far is its note. Ranks of other
//! machines are listened to: every rank whose collective fails leaves its last note in the store,
//! so who leaves none is lost or stuck.

use std::fmt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};

use crate::together::Together;
use crate::trace::{self, Health, Note, Trace};

/// How a failed collective's message begins (see `c10d::Group`).
const COLLECTIVES: [&str; 7] = [
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

/// In an error's chain: the ranks that are to blame for it.
#[derive(Debug)]
pub struct Culprits(String);

impl fmt::Display for Culprits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Adds to the failure of a collective which rank is to blame; `ranks` holds the notes.
pub fn name(error: Error, trace: &Trace, ranks: &Path, together: &Together) -> Error {
    let text = format!("{error:#}");
    let is_collective = COLLECTIVES.iter().any(|name| text.contains(name));
    let Some(mine) = trace.last().filter(|_| is_collective) else { return error };
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

/// What ranks of other machines left, each if it left something.
type Heard = Vec<(usize, Option<Note>)>;

/// Leaves this rank's note and waits for those of all ranks of other machines.
///
/// # Errors
/// The store is lost. When that happens while this rank waits, it takes what it has heard.
fn listen(together: &Together, mine: &Note) -> Result<Heard> {
    together.tell(&key(together.rank), &serde_json::to_string(mine)?)?;
    let mut heard: Heard = Vec::new();
    for rank in 0..together.world_size {
        if together.process(rank)?.is_some_and(|process| !process.is_beside(&mine.process)) {
            heard.push((rank, None));
        }
    }
    let start = Instant::now();
    while start.elapsed() < 3 * PATIENCE / 4 {
        for (rank, note) in heard.iter_mut().filter(|(_, note)| note.is_none()) {
            match together.read(&key(*rank)) {
                Ok(text) => *note = text.and_then(|text| serde_json::from_str(&text).ok()),
                Err(_) => return Ok(heard),
            }
        }
        if heard.iter().all(|(_, note)| note.is_some()) {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(heard)
}

fn key(rank: usize) -> String {
    format!("failed/{rank}")
}

/// Ranks of other machines that left nothing, else those that are behind. Without a store it is
/// rank 0, which serves it, or what rank 0 found before it ended.
fn apart(mut notes: Vec<Note>, heard: Option<Heard>) -> Vec<String> {
    let what = match heard {
        Some(_) => "no word from it",
        None => "no word from it; if it named a rank before it ended, it is that one",
    };
    let mut silent = Vec::new();
    for (rank, note) in heard.unwrap_or(vec![(0, None)]) {
        let old = notes.iter().position(|old| old.rank == rank).map(|at| notes.swap_remove(at));
        match (note, old) {
            (Some(note), _) => notes.push(note),
            (None, Some(old)) => silent.push(format!("{}: {what}", old.describe())),
            (None, None) => silent.push(format!("rank {rank}: {what}")),
        }
    }
    if silent.is_empty() { behind(&notes) } else { silent }
}

fn here(notes: &[Note]) -> Vec<&Note> {
    notes.iter().filter(|note| note.stage != trace::Stage::Left).collect()
}

/// Ranks of this machine that are gone, else ranks that are stopped, each as a line.
fn lost(notes: &[Note]) -> Vec<String> {
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
