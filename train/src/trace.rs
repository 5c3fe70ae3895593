//! What every rank is doing: for messages about what went wrong on one of them.
//!
//! A rank notes its place before every piece of work that others wait for, in a small file of its
//! own in the run's folder (`ranks/`, a JSON line). When a rank is lost or stuck, the others read
//! all files and name it ([`crate::culprits`]).

use std::cell::{Cell, OnceCell};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use model::Layout;
pub use record::process::Health;
use record::process::Process;
use serde::{Deserialize, Serialize};

use crate::fault;

/// A stage of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Between steps.
    Idle,
    /// Running a unit forward.
    Forward,
    /// Running a unit's backward, its forward again included.
    Backward,
    /// Summing loss and norm over the ranks.
    Sum,
    /// Updating the weights.
    Update,
    /// Beginning a checkpoint, or waiting for it.
    Save,
    /// Writing the finished model, or waiting for it.
    Export,
    /// Ended, and said why.
    Left,
}

/// Where a rank is in its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The step, from 1; 0 before the first.
    pub step: usize,
    /// The stage.
    pub stage: Stage,
    /// The unit, in the layout's order.
    pub unit: usize,
    /// Tokens of the micro-batch on this rank.
    pub tokens: i64,
}

/// Notes where a rank is; the last note stands when something fails.
#[derive(Debug)]
pub struct Trace {
    place: Cell<Place>,
    notes: Cell<u64>,
    failed: OnceCell<String>,
    file: Option<NoteFile>,
}

#[derive(Debug)]
struct NoteFile {
    rank: usize,
    process: Process,
    units: Vec<String>,
    file: File,
}

/// A rank's last note.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Whose it is.
    pub rank: usize,
    /// Its process.
    pub process: Process,
    /// As in [`Place`].
    pub step: usize,
    /// As in [`Place`].
    pub stage: Stage,
    /// The unit's name.
    pub unit: String,
    /// As in [`Place`].
    pub tokens: i64,
    /// How many notes it made; all ranks make the same.
    pub notes: u64,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Why it ended, if no other rank is to blame for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// The length of every note but the last, so that one overwrites the one before.
const NOTE_BYTES: usize = 600;
/// Of an error's text; what is longer is cut.
const FAILED_CHARS: usize = 4000;

impl Default for Trace {
    fn default() -> Self {
        let place = Place { step: 0, stage: Stage::Idle, unit: 0, tokens: 0 };
        Self { place: Cell::new(place), notes: Cell::new(0), failed: OnceCell::new(), file: None }
    }
}

impl Trace {
    /// From here on notes go to `rank`'s file in the folder `ranks`.
    pub fn open(&mut self, ranks: &Path, rank: usize, layout: &Layout) -> Result<()> {
        let path = ranks.join(format!("{rank:05}.json"));
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        let units = layout.units.iter().map(|unit| unit.name.clone()).collect();
        self.file = Some(NoteFile { rank, process: fault::process(), units, file });
        self.write();
        Ok(())
    }

    /// The step (from 1) that the following notes are of.
    pub fn step(&self, step: usize) {
        self.place.set(Place { step, ..self.place.get() });
    }

    /// This rank fails for a reason of its own: its last note, where it stands.
    pub fn fail(&self, why: &str) {
        let _ = self.failed.set(why.chars().take(FAILED_CHARS).collect());
        self.write();
    }

    /// This rank now does this.
    pub fn note(&self, stage: Stage, unit: usize, tokens: i64) {
        if self.failed.get().is_some() {
            return;
        }
        self.place.set(Place { stage, unit, tokens, ..self.place.get() });
        self.notes.set(self.notes.get() + 1);
        self.write();
    }

    /// The last note.
    pub fn place(&self) -> Place {
        self.place.get()
    }

    /// This rank's note as it stands; none before [`Trace::open`].
    pub fn last(&self) -> Option<Note> {
        let NoteFile { rank, process, units, .. } = self.file.as_ref()?;
        let Place { step, stage, unit, tokens } = self.place.get();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Note {
            rank: *rank,
            process: process.clone(),
            step,
            stage,
            unit: units.get(unit).cloned().unwrap_or_default(),
            tokens,
            notes: self.notes.get(),
            unix_ms: since.as_millis() as u64,
            failed: self.failed.get().cloned(),
        })
    }

    /// One write into the page cache, a few microseconds; nothing waits for the disk.
    fn write(&self) {
        let (Some(NoteFile { file, .. }), Some(note)) = (&self.file, self.last()) else { return };
        let mut line = serde_json::to_vec(&note).unwrap_or_default();
        line.resize(line.len().max(NOTE_BYTES - 1), b' ');
        line.push(b'\n');
        // A note that cannot be written is missed only when something else has failed too.
        let _ = file.write_all_at(&line, 0);
        fault::strike(note.rank, note.step, note.stage.name());
    }
}

impl Stage {
    /// As in the notes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Sum => "sum",
            Self::Update => "update",
            Self::Save => "save",
            Self::Export => "export",
            Self::Left => "left",
        }
    }

    fn describe(self, unit: &str, tokens: i64) -> String {
        match self {
            Self::Idle => "between steps".into(),
            Self::Forward => format!("{unit} (forward) at {tokens} tokens"),
            Self::Backward => format!("{unit} (backward) at {tokens} tokens"),
            Self::Sum => "the sum of loss and norm".into(),
            Self::Update => format!("the update of {unit}"),
            Self::Save => "the save of a checkpoint".into(),
            Self::Export => "the export of the model".into(),
            Self::Left => "its end".into(),
        }
    }
}

impl Place {
    /// `layers.31 (backward) at 32768 tokens`, with the units' names of a model's layout.
    pub fn describe(&self, layout: &Layout) -> String {
        let unit = layout.units.get(self.unit).map_or("?", |unit| unit.name.as_str());
        self.stage.describe(unit, self.tokens)
    }
}

impl Note {
    /// How its process is, as far as that can be told from here.
    pub fn health(&self) -> Health {
        self.process.health(&fault::process())
    }

    /// Who it is, and what is the matter: why it failed, else `what`.
    pub fn blame(&self, what: &str) -> String {
        match &self.failed {
            Some(why) => format!("{}: it failed: {why}", self.describe()),
            None => format!("{}: {what}", self.describe()),
        }
    }

    /// `rank 1 (process 7 on host), last seen in step 3, layers.1 (backward) at 128 tokens`.
    pub fn describe(&self) -> String {
        format!(
            "rank {} ({}), last seen in step {}, {}",
            self.rank,
            self.process,
            self.step,
            self.stage.describe(&self.unit, self.tokens)
        )
    }
}

/// The last notes of all ranks of a run that have any.
pub fn read(ranks: &Path) -> Vec<Note> {
    let entries = fs::read_dir(ranks).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let note = |path: PathBuf| serde_json::from_slice(&fs::read(path).ok()?).ok();
    paths.into_iter().filter_map(note).collect()
}
