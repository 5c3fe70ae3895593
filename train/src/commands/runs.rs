//! `train runs`: which checkpoints there are, how old and large they are, and in which state.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use record::{lock, publish};

use crate::checkpoints::{self, Checkpoints};
use crate::folder::RunFolder;
use crate::words::{duration, size};

/// The table for a run's folder, or for all runs in a folder.
pub fn runs(folder: &Path) -> Result<String> {
    if RunFolder::new(folder).config().is_ok() {
        return run(folder);
    }
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut inside = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    inside.retain(|path| RunFolder::new(path).config().is_ok());
    ensure!(!inside.is_empty(), "{} is no run's folder, and holds none", folder.display());
    inside.sort();
    inside.iter().map(|path| run(path)).collect()
}

fn run(folder: &Path) -> Result<String> {
    let run = RunFolder::new(folder);
    // Only asked: taking the lock would be in the way of a run that begins just now.
    let state = match lock::holder(folder) {
        _ if run.is_finished() => "finished".to_owned(),
        Ok(None) => "stopped; `train resume` goes on with it".to_owned(),
        Ok(Some(owner)) => format!("running: {owner} is writing it"),
        Err(error) => format!("perhaps running: {error:#}"),
    };
    let mut text = format!("{}  {state}\n", folder.display());
    for checkpoint in Checkpoints::of(folder).list_all()? {
        let name = checkpoint.file_name().unwrap_or_default().to_string_lossy();
        let state = match publish::looks_whole(&checkpoint) {
            _ if checkpoints::is_aside(&checkpoint) => "put aside: it was damaged",
            true => "whole",
            false => "damaged",
        };
        let (bytes, age) = match size_and_age(&checkpoint) {
            // Pruned meanwhile.
            Err(_) if !checkpoint.exists() => continue,
            found => found?,
        };
        let (size, age) = (size(bytes as f64), duration(age.as_secs_f64()));
        writeln!(text, "  {name:<20} {age:>12} old {size:>10}  {state}")?;
    }
    Ok(text)
}

/// Of all files in a folder, together and since the last change.
fn size_and_age(folder: &Path) -> Result<(u64, Duration)> {
    let (mut bytes, mut age) = (0, Duration::MAX);
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let file = entry?.metadata()?;
        bytes += file.len();
        age = age.min(SystemTime::now().duration_since(file.modified()?).unwrap_or_default());
    }
    Ok((bytes, age))
}
