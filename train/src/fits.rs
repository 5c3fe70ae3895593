//! Whether a run fits, asked before anything large is loaded: into a rank's memory by the planner's
//! arithmetic, and onto the disk that it saves to.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::checkpoints::Checkpoints;
use crate::config::Config;
use crate::data::{Examples, Order};
use crate::plan::lengths::Lengths;
use crate::plan::{self, Job, OnDisk, memory, report};
use crate::together::Together;
use crate::words::size;

/// What the planner says of a run that fits.
#[derive(Debug)]
pub struct Planned {
    /// The highest peak of a rank.
    pub bytes: f64,
    /// The same in a line.
    pub text: String,
}

/// Rank 0 looks whether `job`, the run of `config`, fits, and every rank hears what it found; rank
/// 0 alone gets the plan.
///
/// # Errors
/// The run does not fit; the text says what to set.
pub fn check(
    config: &Config,
    job: &Job,
    examples: &Examples,
    order: &Order,
    together: &Together,
) -> Result<Option<Planned>> {
    let look = || -> Result<Planned> {
        check_disk(config, job, order)?;
        check_memory(job, examples, order)
    };
    let found = (together.rank == 0).then(look).transpose();
    let word = found.as_ref().err().map_or_else(String::new, |error| format!("{error:#}"));
    let words = together.meet("fits", &word)?;
    match found {
        Ok(_) if !words[0].is_empty() => bail!("{}", words[0]),
        found => found,
    }
}

fn check_memory(job: &Job, examples: &Examples, order: &Order) -> Result<Planned> {
    let (lengths, batches) = (Lengths::of(examples, ""), plan::batches(order));
    let peak = memory::largest(job, &lengths, &batches);
    if peak.bytes() > job.limit {
        let of_cut =
            |job: &Job, length: usize| memory::largest(job, &lengths.cut(length), &batches).bytes();
        bail!(report::refused(job, &peak, &plan::cures(job, lengths.longest(), of_cut)));
    }
    Ok(Planned { bytes: peak.bytes(), text: report::planned(job, &peak) })
}

fn check_disk(config: &Config, job: &Job, order: &Order) -> Result<()> {
    let output = Path::new(&config.output);
    let there = Checkpoints::of(output).list()?.len();
    let all = OnDisk::of(config, job, order.steps());
    let (needed, free) = (all.bytes(there), free(output)?);
    ensure!(
        needed <= free,
        "the disk of {} has {} free, but up to {} checkpoints of {} each (those that checkpoint \
         keeps and one that is being written), {there} of them there, and the model need {} more: \
         make room, or choose another place with --set output=...",
        output.display(),
        size(free),
        all.checkpoints,
        size(all.checkpoint),
        size(needed)
    );
    Ok(())
}

/// Bytes that this user may still write where `path` is or comes to be.
fn free(path: &Path) -> Result<f64> {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let found = rustix::fs::statvfs(there);
    let found = found.with_context(|| format!("free space of {}", there.display()))?;
    Ok((found.f_bavail * found.f_frsize) as f64)
}
