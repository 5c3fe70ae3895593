//! A run's checkpoints: which there are, which is whole, which may go.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use record::{disk, publish};

use crate::config;

/// The folder `checkpoints` of a run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

/// One that was published.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Steps that were done.
    pub step: usize,
    /// Where it is.
    pub path: PathBuf,
}

impl Checkpoints {
    /// Those of the run in the folder `run`.
    pub fn of(run: &Path) -> Self {
        Self { folder: run.join("checkpoints") }
    }

    /// Where the checkpoint after `step` steps is or comes to be.
    pub fn path(&self, step: usize) -> PathBuf {
        self.folder.join(format!("step-{step:06}"))
    }

    /// All that were published and not put aside, damaged ones among them, the oldest first.
    pub fn list(&self) -> Result<Vec<Checkpoint>> {
        let of = |path: PathBuf| {
            let step = path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()?;
            Some(Checkpoint { step, path })
        };
        let mut found: Vec<_> = self.list_all()?.into_iter().filter_map(of).collect();
        found.sort_by_key(|checkpoint| checkpoint.step);
        Ok(found)
    }

    /// The same with those that were put aside, by their names.
    pub fn list_all(&self) -> Result<Vec<PathBuf>> {
        if !self.folder.is_dir() {
            return Ok(Vec::new());
        }
        let place = || self.folder.display().to_string();
        let entries = fs::read_dir(&self.folder).with_context(place)?;
        let paths = entries.map(|entry| Ok(entry?.path()));
        let mut paths = paths.collect::<Result<Vec<_>>>().with_context(place)?;
        let visible = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-"))
        };
        paths.retain(visible);
        paths.sort();
        Ok(paths)
    }

    /// Makes the folder, and removes what a dead run left half-written. The caller holds the run's
    /// lock.
    pub fn open(&self) -> Result<()> {
        if !self.folder.is_dir() {
            disk::make_folder(&self.folder)?;
            disk::sync_folder(self.folder.parent().expect("it lies in the run's folder"))?;
        }
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(".step-") {
                disk::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Puts a damaged checkpoint aside, so that none of its name is in the way.
    pub fn put_aside(&self, damaged: &Checkpoint) -> Result<PathBuf> {
        let aside = damaged.path.with_extension("damaged");
        disk::remove(&aside)?;
        disk::rename(&damaged.path, &aside)?;
        Ok(aside)
    }

    /// Removes what need not be kept: all but the last `keep_last` whole ones, and those whose
    /// step is a multiple of `keep_every`.
    pub fn prune(&self, keep: &config::Checkpoint) -> Result<()> {
        let mut whole = 0;
        for checkpoint in self.list()?.iter().rev() {
            let kept_for_good =
                keep.keep_every > 0 && checkpoint.step.is_multiple_of(keep.keep_every);
            if whole >= keep.keep_last && !kept_for_good {
                publish::remove(&checkpoint.path)?;
            } else if publish::looks_whole(&checkpoint.path) {
                whole += 1;
            }
        }
        Ok(())
    }
}
