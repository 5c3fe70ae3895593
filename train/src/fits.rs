//! Whether a run fits, asked before anything large is loaded: into a rank's memory by the planner's
//! arithmetic, and onto the disk that it saves to.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use c10d::Group;
use model::Config as Model;
use tch::Device;

use crate::checkpoints::Checkpoints;
use crate::config::{Config, SaveDtype};
use crate::data::{Examples, Order};
use crate::plan::lengths::Lengths;
use crate::plan::{self, Job, memory, report};
use crate::together::Together;

/// Bytes of a parameter in a checkpoint: the master weight and both moments.
const SAVED: u64 = 12;

/// What the planner says of a run that fits.
#[derive(Debug)]
pub struct Planned {
    /// The highest peak of a rank.
    pub bytes: f64,
    /// The same in a line.
    pub text: String,
}

/// Rank 0 looks, and every rank hears what it found; rank 0 alone gets the plan.
///
/// # Errors
/// The run does not fit; the text says what to set.
pub fn check(
    config: &Config,
    model: &Model,
    examples: &Examples,
    (device, world): (Device, &Group),
    together: &Together,
) -> Result<Option<Planned>> {
    let order = Order::new(config, examples.examples.len());
    let look = || -> Result<Planned> {
        check_disk(config, model, &order)?;
        check_memory(config, model, examples, &order, (device, world))
    };
    let found = (together.rank == 0).then(look).transpose();
    let word = found.as_ref().err().map_or_else(String::new, |error| format!("{error:#}"));
    let words = together.meet("fits", &word)?;
    match found {
        Ok(_) if !words[0].is_empty() => bail!("{}", words[0]),
        found => found,
    }
}

fn check_memory(
    config: &Config,
    model: &Model,
    examples: &Examples,
    order: &Order,
    (device, world): (Device, &Group),
) -> Result<Planned> {
    let job = Job::before(config, model.clone(), device, world)?;
    let (lengths, batches) = (Lengths::of(examples, ""), plan::batches(order));
    let peak = memory::largest(&job, &lengths, &batches);
    if peak.bytes() > job.limit {
        let of_cut =
            |job: &Job, length: usize| memory::largest(job, &lengths.cut(length), &batches).bytes();
        bail!(report::refused(&job, &peak, &plan::cures(&job, lengths.longest(), of_cut)));
    }
    Ok(Planned { bytes: peak.bytes(), text: report::planned(&job, &peak) })
}

/// While a checkpoint is written the last `keep_last` are still there.
fn check_disk(config: &Config, model: &Model, order: &Order) -> Result<()> {
    let kept = &config.checkpoint;
    let saves = order.steps().div_ceil(kept.every_steps).min(kept.keep_last + 1);
    let output = Path::new(&config.output);
    let there = Checkpoints::of(output).list()?.len();
    let parameters = model.num_parameters() as u64;
    let element = match config.model.save_dtype {
        SaveDtype::Float32 => 4,
        SaveDtype::Bfloat16 => 2,
    };
    let missing = saves.saturating_sub(there) as u64;
    let needed = missing * SAVED * parameters + element * parameters;
    let free = free(output)?;
    let gb = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
    ensure!(
        needed <= free,
        "the disk of {} has {} free, but up to {missing} checkpoints of {} each (the last \
         checkpoint.keep_last = {} and one that is being written) and the model need {}: make \
         room, or choose another place with --set output=...",
        output.display(),
        gb(free),
        gb(SAVED * parameters),
        kept.keep_last,
        gb(needed)
    );
    Ok(())
}

/// Bytes that this user may still write where `path` is or comes to be.
fn free(path: &Path) -> Result<u64> {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let found = rustix::fs::statvfs(there);
    let found = found.with_context(|| format!("free space of {}", there.display()))?;
    Ok(found.f_bavail * found.f_frsize)
}
