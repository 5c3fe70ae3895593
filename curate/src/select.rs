//! `curate select`: more sets from a pool that went down the funnel before, one a criterion.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use record::publish::{Input, OutputFolder, input};
use serde::Deserialize;

use crate::config::{Config, Criterion};
use crate::progress;
use crate::sets::{self, Order, Source};

/// The arguments of `curate select`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// A folder of `curate run`, such as runs/s1k/curate.
    pub from: PathBuf,
    /// The criteria: TOML files such as configs/curate/ablations/longest.toml.
    #[arg(required = true)]
    pub criteria: Vec<PathBuf>,
    /// Override one value of every criterion, such as selection.target=200; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub sets: Vec<String>,
    /// Replace output folders that exist.
    #[arg(long)]
    pub overwrite: bool,
    /// Do everything but publish: the summaries say what would come out.
    #[arg(long)]
    pub dry_run: bool,
}

/// Makes one set a criterion from the lineage of a run, and returns their summaries.
///
/// The stages before the selection are taken as that run judged them, so a criterion whose
/// candidates are those after a later stage than the run's own is refused. The pool's files must
/// still be those of the run; only selected rows are read from them.
pub fn run(args: &Args) -> Result<String> {
    let (run, files) = read_run(&args.from)?;
    let mut orders = Vec::new();
    let mut outputs = BTreeSet::new();
    for path in &args.criteria {
        let place = || path.display().to_string();
        let (criterion, config): (Criterion, toml::Table) = record::config::load(path, &args.sets)?;
        let Criterion { output, seed, selection } = criterion;
        selection.check().with_context(place)?;
        ensure!(
            selection.after <= run.config.selection.after,
            "{}: selection.after is a stage that {} did not apply: run it with a later \
             selection.after",
            path.display(),
            args.from.display()
        );
        ensure!(
            outputs.insert(output.clone()),
            "{}: output {} is that of another criterion too: choose one for each",
            path.display(),
            output.display()
        );
        let folder = OutputFolder::create(&output, args.overwrite || args.dry_run)?;
        orders.push(Order { folder, selection, seed, config });
    }
    let lineage = args.from.join("lineage.parquet");
    let mut inputs = vec![input(&lineage, Some(files.iter().map(|(_, rows)| *rows as u64).sum()))?];
    for (file, rows) in &files {
        inputs.push(unchanged(&run, file, *rows, &args.from)?);
    }
    let notes =
        vec![format!("The stages before the selection are those of {}.", args.from.display())];
    let source = Source { lineage: &lineage, pool: &files, inputs, notes };
    progress::line(&format!("selecting by {} criteria", orders.len()));
    let made = sets::make(&source, orders)?;
    let mut text = String::new();
    for (set, path) in made.into_iter().zip(&args.criteria) {
        text += &format!("== {}\n\n{}\n", path.display(), set.summary);
        if !args.dry_run {
            set.publish(&source)?;
        }
    }
    Ok(text)
}

/// What a run's manifest says of it.
#[derive(Debug, Deserialize)]
struct Run {
    config: Config,
    inputs: Vec<Read>,
}

#[derive(Debug, Deserialize)]
struct Read {
    path: String,
    sha256: String,
    rows: Option<usize>,
}

/// The run, and the files of its pool with their rows.
fn read_run(folder: &Path) -> Result<(Run, Vec<(PathBuf, usize)>)> {
    let path = folder.join("manifest.json");
    let text = fs::read(&path).with_context(|| {
        format!("cannot read {}: name a folder that `curate run` published", path.display())
    })?;
    let run: Run = serde_json::from_slice(&text).with_context(|| {
        format!("{} is not of `curate run`: name the folder of a run", path.display())
    })?;
    let rows = |file: &PathBuf| {
        let shown = file.display().to_string();
        let read = run.inputs.iter().find(|read| read.path == shown);
        let rows = read.and_then(|read| read.rows);
        let rows = rows.with_context(|| format!("{}: no rows of {shown}", path.display()))?;
        Ok((file.clone(), rows))
    };
    let files = run.config.pool.files.iter().map(rows).collect::<Result<_>>()?;
    Ok((run, files))
}

/// The input for the manifest, which must have the digest that the run saw.
fn unchanged(run: &Run, file: &Path, rows: usize, from: &Path) -> Result<Input> {
    let found = input(file, Some(rows as u64)).context("a file of the pool")?;
    let known = run.inputs.iter().any(|read| read.sha256 == found.sha256);
    ensure!(
        known,
        "{} has changed since {} was made from it: run that again",
        file.display(),
        from.display()
    );
    Ok(found)
}
