//! `curate run`: a survey of the pool, then one set of what is left.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use record::publish::OutputFolder;

use crate::config::Config;
use crate::progress;
use crate::sets::{self, Order, Source};
use crate::survey::survey;

/// The arguments of `curate run`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// The run: a TOML file such as configs/curate/s1k.toml.
    pub config: PathBuf,
    /// Override one value of the config, such as selection.target=200; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub sets: Vec<String>,
    /// Replace the output folder if it exists.
    #[arg(long)]
    pub overwrite: bool,
    /// Do everything but publish: the summary says what would come out.
    #[arg(long)]
    pub dry_run: bool,
}

/// Runs a config with its `--set` overrides and returns the summary.
///
/// Publishes `output` ([`sets::make`] says what it holds), or nothing at all. Refuses an existing
/// `output` unless `overwrite`.
pub fn run(args: &Args) -> Result<String> {
    let (config, effective): (Config, toml::Table) =
        record::config::load(&args.config, &args.sets)?;
    config.check().with_context(|| format!("{}", args.config.display()))?;
    let folder = OutputFolder::create(&config.output, args.overwrite || args.dry_run)?;
    let lineage = folder.path().join("survey.parquet");
    let found = survey(&config, &lineage)?;
    let source =
        Source { lineage: &lineage, pool: &found.pool, inputs: found.inputs, notes: found.notes };
    let order = Order { folder, selection: config.selection, seed: config.seed, config: effective };
    progress::line("selecting");
    let mut made = sets::make(&source, vec![order])?;
    fs::remove_file(&lineage).with_context(|| lineage.display().to_string())?;
    let set = made.remove(0);
    let summary = set.summary.clone();
    if !args.dry_run {
        set.publish(&source)?;
    }
    Ok(summary)
}
