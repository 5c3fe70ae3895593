//! `train export`: a Hugging Face folder from a checkpoint, without the run.

use std::path::PathBuf;

use anyhow::{Context, Result};
use model::Config as ModelConfig;
use record::publish::{self, Manifest, OutputFolder};

use crate::checkpoints::Checkpoints;
use crate::config::{Config, SaveDtype};
use crate::folder::RunFolder;
use crate::state;

/// What `train export` was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The run's folder.
    pub folder: PathBuf,
    /// The checkpoint's name; else the newest that is whole.
    pub checkpoint: Option<String>,
    /// The weights' kind; else as the run's config says.
    pub dtype: Option<SaveDtype>,
    /// The new folder; else `exported/CHECKPOINT` in the run's.
    pub output: Option<PathBuf>,
    /// Replace an earlier export.
    pub overwrite: bool,
}

/// Exports; what was made.
pub fn export(request: &Request) -> Result<String> {
    let run = RunFolder::new(&request.folder);
    let (config, _) = record::config::load::<Config>(&run.config()?, &[])?;
    let checkpoints = Checkpoints::of(&run.path);
    let checkpoint = match &request.checkpoint {
        Some(name) => {
            let all = checkpoints.list_all()?;
            let name_of = |path: &PathBuf| {
                path.file_name().unwrap_or_default().to_string_lossy().into_owned()
            };
            let names: Vec<String> = all.iter().map(name_of).collect();
            let found = names.iter().position(|found| found == name);
            let place = found.with_context(|| {
                format!(
                    "--checkpoint {name}: there is none of this name; there are: {}",
                    if names.is_empty() { "none".into() } else { names.join(", ") }
                )
            })?;
            all[place].clone()
        }
        None => {
            let whole = checkpoints.list()?.into_iter().rev();
            let mut whole = whole.filter(|found| publish::looks_whole(&found.path));
            whole.next().context("no checkpoint is saved yet")?.path
        }
    };
    let published = publish::verify(&checkpoint)?;
    let name = checkpoint.file_name().unwrap_or_default();
    let output = request.output.clone();
    let output = output.unwrap_or_else(|| run.path.join("exported").join(name));
    let base = model::hub::model_folder(&config.model.path)?;
    let dtype = request.dtype.unwrap_or(config.model.save_dtype);
    let folder = OutputFolder::create(&output, request.overwrite)?;
    let weights = state::weights(&checkpoint)?;
    crate::export::export(&ModelConfig::read(&base)?, weights, dtype, &base, folder.path(), None)?;
    let command = publish::command();
    folder.finish(Manifest { files: Default::default(), command, ..published.manifest })?;
    Ok(format!("{}  from {}\n", output.display(), checkpoint.display()))
}
