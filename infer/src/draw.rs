//! `infer draw`: curves of several evaluations, and of others' papers, in one picture.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::points::{self, Line};
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
    for source in &args.sources {
        if source.is_dir() {
            let results = points::read_results(source)?;
            for task in &results.tasks {
                let mut lines = points::measured(task);
                let model = points::short(&results.model);
                lines.iter_mut().for_each(|line| line.name = format!("{model}, {}", line.name));
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
