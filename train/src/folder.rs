//! A run's folder and what it tells people: refusals, the over-long rows, the summary.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use record::disk;
use record::lock::Lock;
use record::publish::{self, OutputFolder};

use crate::checkpoints::Checkpoints;
use crate::data::{Examples, Order};
use crate::progress::Metrics;
use crate::step::Trainer;
use crate::words::{counted, size};

/// A run's folder: logs grow in it while training, `checkpoint/` appears whole at the end, and the
/// summary last.
pub struct RunFolder {
    /// Where it is.
    pub path: PathBuf,
}

/// Marks a run's folder and says what it runs.
const RUN_FILE: &str = "run.toml";
/// On how many ranks it began.
const WORLD_SIZE: &str = "world_size.txt";
/// Marks a run that reached its end.
const SUMMARY: &str = "summary.txt";

impl RunFolder {
    /// The folder that a config names; nothing is touched.
    pub fn new(output: impl Into<PathBuf>) -> Self {
        Self { path: output.into() }
    }

    /// Where earlier runs wait until the new one has reached its end: those that do, and the next
    /// free name.
    fn aside(&self) -> (Vec<PathBuf>, PathBuf) {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let name = |n: usize| match n {
            1 => self.path.with_file_name(format!("{name}.replaced")),
            n => self.path.with_file_name(format!("{name}.replaced-{n}")),
        };
        let waiting: Vec<PathBuf> = (1..).map(name).take_while(|path| path.exists()).collect();
        let next = name(waiting.len() + 1);
        (waiting, next)
    }

    /// The run's config file.
    ///
    /// # Errors
    /// There is none: this is no run's folder.
    pub fn config(&self) -> Result<PathBuf> {
        let (file, place) = (self.path.join(RUN_FILE), self.path.display());
        ensure!(
            file.exists(),
            "{place} is not a run's folder ({RUN_FILE} is not in it); name the output of a run"
        );
        Ok(file)
    }

    /// Whether the run reached its end.
    pub fn is_finished(&self) -> bool {
        self.path.join(SUMMARY).exists()
    }

    /// Where ranks note what they do.
    pub fn ranks(&self) -> PathBuf {
        self.path.join("ranks")
    }

    /// Takes the folder for this process alone.
    ///
    /// # Errors
    /// Another process has it; the text names its id and host.
    pub fn lock(&self) -> Result<Lock> {
        let parent = self.parent();
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        Lock::take(&self.path)
    }

    fn parent(&self) -> &Path {
        let parent = self.path.parent().filter(|parent| *parent != Path::new(""));
        parent.unwrap_or(Path::new("."))
    }

    /// An empty folder for the ranks' notes.
    pub fn clear_ranks(&self) -> Result<()> {
        disk::remove(&self.ranks())?;
        disk::make_folder(&self.ranks())
    }

    /// Refuses a folder that holds something, unless it is an earlier run's and to be replaced.
    pub fn check(&self, overwrite: bool) -> Result<()> {
        let place = self.path.display();
        ensure!(!self.path.is_file(), "output {place} is a file; name a folder");
        let filled = |mut entries: fs::ReadDir| entries.next().is_some();
        if !fs::read_dir(&self.path).is_ok_and(filled) {
            return Ok(());
        }
        ensure!(
            overwrite,
            "{place} exists; pass --overwrite to replace it, or --set output=... for another; \
             `train resume {place}` goes on with it"
        );
        ensure!(
            self.path.join(RUN_FILE).exists(),
            "{place} is not a run's folder ({RUN_FILE} is not in it); remove it yourself or choose \
             another output"
        );
        Ok(())
    }

    /// Starts the folder anew; it appears with all that is known now. An earlier run that saved
    /// anything is only moved aside, until this one has reached its end; one that did not is
    /// removed.
    pub fn create(
        &self,
        table: &toml::Table,
        examples: &Examples,
        world_size: usize,
    ) -> Result<()> {
        publish::clear_leftovers(&self.path)?;
        let checkpoints = Checkpoints::of(&self.path);
        if self.is_finished() || !checkpoints.list_all()?.is_empty() {
            let (_, aside) = self.aside();
            let step = checkpoints.list()?.last().map_or(0, |newest| newest.step);
            disk::rename(&self.path, &aside)?;
            let aside = aside.display();
            eprintln!("replaces  the run at step {step}, which waits in {aside} until the end");
        } else if self.path.exists() {
            publish::remove(&self.path)?;
        }
        let new = publish::partial(&self.path)?;
        disk::make_folder(&new)?;
        let text = format!("# The effective config of this run.\n{}", toml::to_string(table)?);
        disk::write(&new.join(RUN_FILE), text.as_bytes())?;
        disk::write(&new.join(WORLD_SIZE), format!("{world_size}\n").as_bytes())?;
        if !examples.over_long.is_empty() {
            let lines = examples.over_long.join("\n") + "\n";
            disk::write(&new.join("over_long.txt"), lines.as_bytes())?;
            let count = counted(examples.over_long.len(), "example");
            eprintln!("over-long {count}, listed in {}/over_long.txt", self.path.display());
        }
        // What is saved later is on the disk only if the way to it is.
        disk::sync_folder(&new)?;
        disk::rename(&new, &self.path)?;
        disk::sync_folder(self.parent())
    }

    /// How many ranks the run began on.
    ///
    /// # Errors
    /// The folder does not say it: it was not made by [`RunFolder::create`].
    pub fn world_size(&self) -> Result<usize> {
        let text = fs::read_to_string(self.path.join(WORLD_SIZE)).unwrap_or_default();
        text.trim().parse().with_context(|| {
            let place = self.path.display();
            format!("{place} does not say how many ranks the run had; pass --ranks")
        })
    }

    /// Where the finished model grows until it is whole.
    pub fn checkpoint(&self) -> Result<OutputFolder> {
        OutputFolder::create(&self.path.join("checkpoint"), true)
    }

    /// Writes and prints the table at the end; the replaced run may go now.
    pub fn summarise(
        &self,
        trainer: &Trainer,
        examples: &Examples,
        order: &Order,
        history: &[Metrics],
        planned: f64,
        time: Duration,
    ) -> Result<()> {
        let tail = &history[history.len().saturating_sub(10)..];
        let last = tail.iter().map(|metrics| metrics.loss).sum::<f64>() / tail.len() as f64;
        let place = self.path.display();
        let text = format!(
            "parameters       {}\n\
             examples         {} ({} tokens, {} trained)\n\
             steps            {} of {} examples, on {}\n\
             memory           {} at the peak of rank 0, {} planned\n\
             loss             first step {:.4}, mean of the last {} steps {last:.4}\n\
             guard            {} steps left out as spikes, {} computed again\n\
             checkpoint       {place}/checkpoint\n\
             metrics          {place}/metrics.jsonl, {place}/tensorboard\n",
            trainer.shards.config.num_parameters(),
            examples.examples.len(),
            examples.tokens(),
            examples.trained_tokens(),
            order.steps(),
            order.global_batch(),
            counted(trainer.shards.mesh.world.world_size(), "rank"),
            size(c10d::memory::peak(trainer.shards.placement.device) as f64),
            size(planned),
            history.first().map_or(f64::NAN, |metrics| metrics.loss),
            tail.len(),
            history.iter().filter(|metrics| metrics.skipped).count(),
            history.iter().filter(|metrics| metrics.recomputed).count()
        );
        disk::replace(&self.path.join(SUMMARY), text.as_bytes())?;
        self.aside().0.iter().rev().try_for_each(|replaced| disk::remove(replaced))?;
        let seconds = time.as_secs_f64();
        let tokens = history.last().map_or(0, |metrics| metrics.tokens);
        println!("{text}time             {seconds:.1} s, {:.0} tokens/s", tokens as f64 / seconds);
        Ok(())
    }
}

/// Whether `path` exists inside `folder`, links resolved.
pub fn lies_in(path: &Path, folder: &Path) -> bool {
    let (path, folder) = (fs::canonicalize(path), fs::canonicalize(folder));
    matches!((path, folder), (Ok(path), Ok(folder)) if path.starts_with(&folder))
}
