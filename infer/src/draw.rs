//! `infer draw`: curves of several evaluations, and of others' papers, in one picture.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::points::{self, Line};
use crate::report::Results;
use crate::report_page;

/// The arguments of `infer draw`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Output folders of `infer eval`, and points files such as data/published.jsonl.
    #[arg(required = true)]
    pub sources: Vec<PathBuf>,
    /// The page to write.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Only this task.
    #[arg(long)]
    pub task: Option<String>,
    /// Replace the page if it exists.
    #[arg(long)]
    pub overwrite: bool,
}

/// Writes the page and says where it is.
pub fn run(args: &Args) -> Result<String> {
    let shown = args.out.display();
    ensure!(
        args.overwrite || !args.out.exists(),
        "{shown} exists: name another file, or replace it with --overwrite"
    );
    let mut tasks: Vec<(String, Vec<Line>)> = Vec::new();
    let mut add = |task: &str, mut lines: Vec<Line>| {
        if args.task.as_ref().is_some_and(|wanted| !points::same_task(wanted, task)) {
            return;
        }
        match tasks.iter_mut().find(|(known, _)| points::same_task(known, task)) {
            Some((_, known)) => known.append(&mut lines),
            None => tasks.push((task.to_owned(), lines)),
        }
    };
    let folders = args.sources.iter().filter(|source| source.is_dir());
    let folders: Vec<&PathBuf> = folders.collect();
    let results = folders.iter().map(|folder| points::read_results(folder));
    let results = results.collect::<Result<Vec<_>>>()?;
    let mut measured = results.iter().zip(names(&folders, &results));
    for source in &args.sources {
        if source.is_dir() {
            let (results, name) = measured.next().expect("every folder was read");
            for task in &results.tasks {
                let mut lines = points::measured(task);
                lines.iter_mut().for_each(|line| line.name = format!("{name}, {}", line.name));
                add(&task.task, lines);
            }
        } else {
            let rows = points::read(source)?;
            for (nth, row) in rows.iter().enumerate() {
                let is_new = |other: &points::Published| {
                    !points::same_task(&other.benchmark, &row.benchmark)
                };
                if rows[..nth].iter().all(is_new) {
                    add(&row.benchmark, points::published(&rows, &row.benchmark));
                }
            }
        }
    }
    ensure!(!tasks.is_empty(), "no source has points of task {:?}", args.task);
    let html = report_page::drawing("Accuracy under thinking budgets", &tasks);
    std::fs::write(&args.out, html).with_context(|| format!("cannot write {shown}"))?;
    Ok(format!("{shown}\n"))
}

/// A name for each folder that no other has: the end of its model's path, or of its own where one
/// model was evaluated twice.
fn names(folders: &[&PathBuf], results: &[Results]) -> Vec<String> {
    let models: Vec<&str> = results.iter().map(|results| results.model.as_str()).collect();
    let once = |model: &&str| models.iter().filter(|other| *other == model).count() == 1;
    if models.iter().all(once) {
        return told_apart(&models);
    }
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    told_apart(&folders.iter().map(String::as_str).collect::<Vec<_>>())
}

/// For each path its shortest end that is no other's.
fn told_apart(paths: &[&str]) -> Vec<String> {
    let end = |path: &str, parts: usize| {
        let all: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        all[all.len().saturating_sub(parts)..].join("/")
    };
    let name = |path: &&str| {
        let alone = |parts: &usize| {
            paths.iter().all(|other| other == path || end(other, *parts) != end(path, *parts))
        };
        let parts = path.split('/').count();
        end(path, (1..parts).find(alone).unwrap_or(parts))
    };
    paths.iter().map(name).collect()
}
