//! A run's checkpoints: which there are, which is whole, which may go.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use record::disk;
use record::publish::{self, Damaged, Published};

use crate::together::Together;
use crate::{config, fault};

/// How a rank's word begins that could not look at a checkpoint.
const UNREAD: &str = "cannot: ";

/// The folder `checkpoints` of a run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

/// Whether a checkpoint's folder was put aside as damaged.
pub fn is_aside(checkpoint: &Path) -> bool {
    checkpoint.extension().is_some_and(|extension| extension == ASIDE)
}

const ASIDE: &str = "damaged";

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
        self.clear()
    }

    /// Removes what is hidden: half-written, or half removed.
    fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(".step-") {
                disk::remove(&path)?;
            }
        }
        Ok(())
    }

    /// The newest checkpoint that is whole; every rank verifies a share of its files. Damaged ones
    /// are put aside. Rank 0 says which there are: the others may see another list.
    ///
    /// # Errors
    /// A rank cannot read one, which says nothing against it; or there were some and none is whole.
    pub fn newest(&self, together: &Together) -> Result<Option<(Checkpoint, Published)>> {
        let rank = together.rank;
        let mine = if rank == 0 { self.list()? } else { Vec::new() };
        let steps: Vec<String> = mine.iter().map(|found| found.step.to_string()).collect();
        let steps = together.meet("checkpoints", &steps.join(" "))?.swap_remove(0);
        for step in steps.split_whitespace().rev() {
            let step = step.parse()?;
            let checkpoint = Checkpoint { step, path: self.path(step) };
            let found = publish::verify_share(&checkpoint.path, rank, together.world_size);
            let word = match &found {
                Ok(_) => String::new(),
                Err(error) if error.is::<Damaged>() => format!("{error:#}"),
                Err(error) => {
                    format!("{UNREAD}rank {rank} on {}: {error:#}", fault::process().host)
                }
            };
            let words = together.meet(&format!("verified/{step}"), &word)?;
            if let Some(unread) = words.iter().find_map(|word| word.strip_prefix(UNREAD)) {
                bail!(
                    "{unread}\nEvery rank must be able to read the run's folder; nothing is changed"
                );
            }
            match words.into_iter().find(|word| !word.is_empty()) {
                None => return Ok(Some((checkpoint, found?))),
                Some(damage) if rank == 0 => {
                    let aside = self.put_aside(&checkpoint)?;
                    eprintln!("damaged   {damage}; it is now {}", aside.display());
                }
                Some(_) => {}
            }
        }
        let all = if rank == 0 { self.list_all()? } else { Vec::new() };
        let aside = all.iter().filter(|path| is_aside(path)).count();
        let aside = together.meet("aside", &aside.to_string())?.swap_remove(0);
        ensure!(
            aside == "0",
            "none of the run's checkpoints is whole ({aside} put aside as {}): bring one back as \
             it was, or remove them, and the run begins anew",
            self.path(0).with_file_name("step-*.damaged").display()
        );
        Ok(None)
    }

    /// Puts a damaged checkpoint aside, so that none of its name is in the way.
    pub fn put_aside(&self, damaged: &Checkpoint) -> Result<PathBuf> {
        let aside = damaged.path.with_extension(ASIDE);
        disk::remove(&aside)?;
        disk::rename(&damaged.path, &aside)?;
        Ok(aside)
    }

    /// Removes what need not be kept: all but the last `keep_last` whole ones and those whose step
    /// is a multiple of `keep_every`; what was put aside before the last whole ones; and what an
    /// earlier removal left. No save runs meanwhile.
    pub fn prune(&self, keep: &config::Checkpoint) -> Result<()> {
        self.clear()?;
        let mut whole = 0;
        let mut oldest = 0;
        for checkpoint in self.list()?.iter().rev() {
            let kept_for_good =
                keep.keep_every > 0 && checkpoint.step.is_multiple_of(keep.keep_every);
            if whole >= keep.keep_last && !kept_for_good {
                publish::remove(&checkpoint.path)?;
            } else if whole < keep.keep_last && publish::looks_whole(&checkpoint.path) {
                (whole, oldest) = (whole + 1, checkpoint.step);
            }
        }
        let is_old = |path: &PathBuf| {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let step = name.strip_prefix("step-").and_then(|step| step.parse::<usize>().ok());
            path.extension().is_some() && step.is_some_and(|step| step < oldest)
        };
        let mut aside = self.list_all()?;
        aside.retain(|path| whole >= keep.keep_last && is_old(path));
        aside.iter().try_for_each(|path| disk::remove(path))
    }
}
