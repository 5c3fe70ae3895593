//! Saving while training goes on.
//!
//! A save begins with a copy of this rank's slices in the host's memory; a thread does the rest.
//! Every writing rank writes its file into the checkpoint's hidden folder and leaves a note of its
//! digest; rank 0's thread waits for all notes, adds state and manifest, publishes by a rename,
//! prunes, and tells the others. Nothing is called saved before that, on any rank; what fails on
//! any rank is given up on all, and the older checkpoints stay.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use record::disk;
use record::publish::{Digest, Input, Manifest, OutputFolder, partial};

use crate::checkpoints::Checkpoints;
use crate::config;
use crate::fault;
use crate::mesh::Mesh;
use crate::slices::{Snapshot, file_name};
use crate::state::{self, State};
use crate::step::Trainer;
use crate::together::Together;

/// What all checkpoints of a run say of their making. The inputs' digests are reckoned in a thread,
/// since that reads all of the base model.
pub struct Provenance {
    manifest: Manifest,
    reckon: Arc<Reckon>,
    made: Mutex<Making>,
}

type Reckon = dyn Fn() -> Result<Vec<Input>> + Send + Sync;

enum Making {
    Running(JoinHandle<Result<Vec<Input>>>),
    Done(Vec<Input>),
    Failed,
}

impl Provenance {
    /// `manifest`, whose inputs are known already.
    pub fn known(manifest: Manifest) -> Self {
        let made = Mutex::new(Making::Done(manifest.inputs.clone()));
        Self { manifest, reckon: Arc::new(|| Ok(Vec::new())), made }
    }

    /// `manifest` with the inputs that `reckon` finds.
    pub fn reckon(
        manifest: Manifest,
        reckon: impl Fn() -> Result<Vec<Input>> + Send + Sync + 'static,
    ) -> Self {
        let reckon: Arc<Reckon> = Arc::new(reckon);
        let work = reckon.clone();
        let running = thread::Builder::new().spawn(move || work());
        let made = Mutex::new(running.map_or(Making::Failed, Making::Running));
        Self { manifest, reckon, made }
    }

    /// Waits for it. What could not be reckoned is tried once more; a run is worth more than the
    /// digests of its inputs, so if that fails too it is said, and they are [`UNKNOWN`] this time.
    pub fn get(&self) -> Manifest {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let first = match std::mem::replace(&mut *made, Making::Failed) {
            Making::Running(thread) => thread.join().unwrap_or_else(|_| Err(anyhow!("a panic"))),
            Making::Done(inputs) => Ok(inputs),
            Making::Failed => Err(anyhow!("not reckoned")),
        };
        let inputs = first.or_else(|_| (self.reckon)()).map_or_else(
            |error| {
                eprintln!("the inputs' digests are unknown as yet: {error:#}");
                vec![Input { path: UNKNOWN.into(), sha256: UNKNOWN.into(), rows: None }]
            },
            |inputs| {
                *made = Making::Done(inputs.clone());
                inputs
            },
        );
        Manifest { inputs, ..self.manifest.clone() }
    }
}

/// An input that could not be digested.
pub const UNKNOWN: &str = "unknown";

/// Saves one checkpoint at a time.
pub struct Saver {
    together: Together,
    checkpoints: Checkpoints,
    keep: config::Checkpoint,
    /// On rank 0.
    provenance: Option<Arc<Provenance>>,
    /// Which slice file this rank writes, of how many, if it writes one.
    slice: Option<usize>,
    slices: usize,
    begun: usize,
    running: Option<(usize, JoinHandle<Result<String>>)>,
    /// The last step that is saved.
    saved: Option<usize>,
}

impl Saver {
    /// For the run whose checkpoints these are; `saved` is the step that it goes on from.
    pub fn new(
        together: &Together,
        mesh: &Mesh,
        checkpoints: &Checkpoints,
        keep: &config::Checkpoint,
        provenance: Option<Arc<Provenance>>,
        saved: Option<usize>,
    ) -> Self {
        let writes = mesh.replicas.rank() == 0;
        Self {
            together: together.clone(),
            checkpoints: checkpoints.clone(),
            keep: *keep,
            provenance,
            slice: writes.then(|| mesh.shard.rank()),
            slices: mesh.shard.world_size(),
            begun: 0,
            running: None,
            saved,
        }
    }

    /// Begins to save, on all ranks at the same step. Waits first for a save that still runs.
    ///
    /// # Errors
    /// When a rank is lost. A save that fails otherwise is only told.
    pub fn begin(&mut self, trainer: &Trainer, state: State) -> Result<()> {
        self.finish()?;
        if self.saved == Some(state.step) {
            return Ok(());
        }
        self.begun += 1;
        let save = Save {
            together: self.together.clone(),
            checkpoints: self.checkpoints.clone(),
            keep: self.keep,
            provenance: self.provenance.clone(),
            slice: self.slice,
            slices: self.slices,
            number: self.begun,
            snapshot: self.slice.map(|_| state::snapshot(trainer)),
            state,
        };
        let step = save.state.step;
        let thread = thread::Builder::new().spawn(move || save.run());
        self.running = Some((step, thread.context("no thread to save in")?));
        Ok(())
    }

    /// Waits for a save that runs; whether the last one that was begun is on the disk.
    ///
    /// # Errors
    /// As [`Saver::begin`].
    pub fn finish(&mut self) -> Result<bool> {
        let Some((step, thread)) = self.running.take() else {
            return Ok(self.saved.is_some());
        };
        let outcome = thread.join().map_err(|_| anyhow!("the save of step {step} panicked"))?;
        let trouble = outcome?;
        if trouble.is_empty() {
            self.saved = Some(step);
        }
        Ok(trouble.is_empty())
    }
}

/// One save on one rank, from the copy to the common outcome.
struct Save {
    together: Together,
    checkpoints: Checkpoints,
    keep: config::Checkpoint,
    provenance: Option<Arc<Provenance>>,
    slice: Option<usize>,
    slices: usize,
    /// Of this run's saves, the same on all ranks.
    number: usize,
    snapshot: Option<Snapshot>,
    state: State,
}

/// Rank 0's note: [`OPEN`] when there is a folder to write into, in the end [`DONE`] or what went
/// wrong. All notes begin with the save's number, and stand until the save after the next: rank 0
/// may begin the next before the others have read how this one ended.
const OUTCOME: &str = "save";
const OPEN: &str = "open";
const DONE: &str = "done";

impl Save {
    /// What went wrong, the same on all ranks; empty if nothing did.
    ///
    /// # Errors
    /// A rank is lost, or the store.
    fn run(self) -> Result<String> {
        match self.provenance.clone() {
            Some(provenance) => {
                let trouble = match self.lead(&provenance)? {
                    Ok(()) => String::new(),
                    Err(error) => {
                        let step = self.state.step;
                        eprintln!("step {step} is NOT saved, older checkpoints stay: {error:#}");
                        format!("{error:#}")
                    }
                };
                self.tell(OUTCOME, if trouble.is_empty() { DONE } else { &trouble })?;
                Ok(trouble)
            }
            None => self.follow(),
        }
    }

    /// Rank 0's part. The outer error is a lost rank, the inner one what went wrong on the disk.
    fn lead(&self, provenance: &Provenance) -> Result<Result<()>> {
        let dest = self.checkpoints.path(self.state.step);
        let folder = match OutputFolder::create(&dest, true) {
            Ok(folder) => folder,
            Err(error) => return Ok(Err(error)),
        };
        self.tell(OUTCOME, OPEN)?;
        let mut written = vec![self.write(folder.path())];
        for slice in 1..self.slices {
            written.push(self.wait_for(&slice_key(slice)).map(|note| parse(&note))?);
        }
        Ok(self.publish(folder, written, provenance))
    }

    fn publish(
        &self,
        folder: OutputFolder,
        written: Vec<Result<Digest>>,
        provenance: &Provenance,
    ) -> Result<()> {
        let mut files = BTreeMap::new();
        for (slice, digest) in written.into_iter().enumerate() {
            files.insert(file_name(slice, self.slices), digest?);
        }
        let text = self.state.text()?;
        let digest = disk::write(&folder.path().join(state::FILE), text.as_bytes())?;
        files.insert(state::FILE.into(), digest);
        folder.finish(Manifest { files, ..provenance.get() })?;
        // The new one stands; an old one that cannot be removed is tried again next time.
        self.checkpoints.prune(&self.keep).unwrap_or_else(|error| eprintln!("{error:#}"));
        Ok(())
    }

    /// Any other rank's part.
    fn follow(&self) -> Result<String> {
        let mut outcome = self.wait_for(OUTCOME)?;
        if outcome == OPEN {
            if let Some(slice) = self.slice {
                let folder = partial(&self.checkpoints.path(self.state.step));
                let note = match folder.and_then(|folder| self.write(&folder)) {
                    Ok(Digest { bytes, blake3 }) => format!("ok {bytes} {blake3}"),
                    Err(error) => format!("rank {}: {error:#}", self.together.rank),
                };
                self.tell(&slice_key(slice), &note)?;
            }
            outcome = self.wait(OUTCOME, |word| word != OPEN)?;
        }
        Ok(if outcome == DONE { String::new() } else { outcome })
    }

    /// Writes this rank's slices.
    fn write(&self, folder: &Path) -> Result<Digest> {
        fault::strike(self.together.rank, self.state.step, "write");
        let (slice, snapshot) = self.slice.zip(self.snapshot.as_ref()).expect("this rank writes");
        snapshot.write(&folder.join(file_name(slice, self.slices)))
    }

    fn tell(&self, key: &str, word: &str) -> Result<()> {
        self.together.tell(&self.key(key), &format!("{} {word}", self.number))
    }

    fn key(&self, key: &str) -> String {
        format!("{key}/{}", self.number % 2)
    }

    fn wait_for(&self, key: &str) -> Result<String> {
        self.wait(key, |_| true)
    }

    /// Waits for a word of this save.
    fn wait(&self, key: &str, accept: impl Fn(&str) -> bool) -> Result<String> {
        self.together.wait_for(&self.key(key), |note| {
            let (number, word) = note.split_once(' ')?;
            (number == self.number.to_string() && accept(word)).then(|| word.to_owned())
        })
    }
}

fn slice_key(slice: usize) -> String {
    format!("slice/{slice}")
}

/// What a rank left about its slices: `ok BYTES BLAKE3` or what went wrong.
fn parse(note: &str) -> Result<Digest> {
    let written = || {
        let (bytes, blake3) = note.strip_prefix("ok ")?.split_once(' ')?;
        Some(Digest { bytes: bytes.parse().ok()?, blake3: blake3.to_owned() })
    };
    written().with_context(|| note.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// What is said at three saves, when the first `failures` readings of the inputs fail.
    #[track_caller]
    fn check(failures: usize, expected: [&str; 3]) {
        let times = AtomicUsize::new(0);
        let provenance = Provenance::reckon(Manifest::default(), move || {
            let failed = times.fetch_add(1, Ordering::SeqCst) < failures;
            anyhow::ensure!(!failed, "no answer");
            Ok(vec![Input { path: "base".into(), sha256: "known".into(), rows: None }])
        });
        let said = [(); 3].map(|()| provenance.get().inputs[0].sha256.clone());
        assert_eq!(said, expected);
    }

    #[test]
    fn inputs_that_cannot_be_read_cost_no_checkpoint() {
        check(0, ["known"; 3]);
        check(1, ["known"; 3]);
        check(2, [UNKNOWN, "known", "known"]);
        check(4, [UNKNOWN, UNKNOWN, UNKNOWN]);
    }
}
