//! `train verify`: are the bytes those that were written, and can all of it be loaded?

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use model::{Checkpoint, Layout};
use record::publish;
use tch::Kind;

use crate::checkpoints::{self, Checkpoints};
use crate::folder::RunFolder;
use crate::state;

/// A line for each published folder: those of a run, or the one that is named.
///
/// # Errors
/// Something is damaged; the text says what is, and what is whole.
pub fn verify(folder: &Path) -> Result<String> {
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    let is_run = RunFolder::new(folder).config().is_ok();
    if is_run {
        folders = Checkpoints::of(folder).list_all()?;
        let model = folder.join("checkpoint");
        folders.extend(model.exists().then_some(model));
    }
    let (mut text, mut damaged) = (String::new(), 0);
    for folder in &folders {
        if is_run && checkpoints::is_aside(folder) {
            writeln!(text, "{}  put aside, and not looked at", folder.display())?;
            continue;
        }
        match one(folder) {
            // Pruned meanwhile.
            Err(_) if is_run && !folder.exists() => {}
            Ok(what) => writeln!(text, "{}  {what}", folder.display())?,
            Err(error) => {
                damaged += 1;
                writeln!(text, "{}  DAMAGED: {error:#}", folder.display())?;
            }
        }
    }
    if damaged > 0 {
        bail!("{damaged} of {} are damaged\n{}", folders.len(), text.trim_end());
    }
    if folders.is_empty() { Ok("nothing is saved yet\n".into()) } else { Ok(text) }
}

fn one(folder: &Path) -> Result<String> {
    let published = publish::verify(folder)?;
    let files = published.manifest.files.len();
    let what = if folder.join(state::FILE).exists() {
        let state = state::check(folder)?;
        format!("step {}, example {}", state.step, state.example)
    } else if folder.join("config.json").exists() {
        let model = Checkpoint::open(folder)?;
        for unit in &Layout::new(model.config()).units {
            drop(model.read_unit(unit, Kind::Float)?);
        }
        "a model that loads".into()
    } else {
        "no model".into()
    };
    Ok(format!("whole: {files} files, {what}, digest {}", published.digest))
}
