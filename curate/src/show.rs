//! `curate show`: the questions of a set, and one of them whole.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use page::terminal::{block, columns, count, line};
use record::row::Row;
use record::table;

use crate::funnel::SELECTED;
use crate::outcome::{self, Funnel};
use crate::why;

/// The arguments of `curate show`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// An output folder of `curate run` or `curate select`.
    pub folder: PathBuf,
    /// Show this question whole, with its trace and answer: its hash, the hash's first digits, or
    /// row:N for row N of the pool.
    pub id: Option<String>,
    /// List the questions that this stage dropped instead of the selected ones.
    #[arg(long, value_name = "STAGE", default_value = SELECTED, conflicts_with = "id")]
    pub stage: String,
    /// Questions to list; 0 for all.
    #[arg(long, default_value_t = 20, conflicts_with = "id")]
    pub rows: usize,
}

/// The list, or the one question.
pub fn run(args: &Args) -> Result<String> {
    match &args.id {
        Some(id) => one(&args.folder, id),
        None => list(args),
    }
}

fn list(args: &Args) -> Result<String> {
    let stages = Funnel::read(&args.folder)?.stages;
    let known = stages.iter().map(|stage| stage.stage.as_str()).chain([SELECTED]);
    let known: Vec<&str> = known.collect();
    ensure!(
        known.contains(&args.stage.as_str()),
        "there is no stage \"{}\"; this run has: {}",
        line(&args.stage, 40),
        known.join(", ")
    );
    let is_selected = args.stage == SELECTED;
    let last = if is_selected { "phase" } else { "reason" };
    let heads = ["row", "hash", "tokens", "domain", "source", "question", last];
    let mut rows = vec![heads.map(String::from).to_vec()];
    let mut found = 0;
    for row in outcome::lineage(&args.folder)? {
        let row = row?;
        if row.stage != args.stage {
            continue;
        }
        found += 1;
        if args.rows > 0 && found > args.rows {
            continue;
        }
        let why = if is_selected { row.phase.unwrap_or_default() } else { row.reason };
        rows.push(vec![
            count(row.row as usize),
            row.question_hash,
            row.gemini_length.map_or("–".to_owned(), |tokens| count(tokens as usize)),
            line(row.domain.as_deref().unwrap_or("–"), 24),
            line(&row.source_type, 30),
            line(&row.question, 50),
            line(&why, 50),
        ]);
    }
    let mut text = columns(&rows);
    let listed = rows.len() - 1;
    if found > listed {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "and {} more; --rows 0 lists all", count(found - listed));
    }
    Ok(text)
}

fn one(folder: &Path, id: &str) -> Result<String> {
    let wanted = why::Args { folder: folder.to_path_buf(), id: id.to_owned() };
    let (rows, _) = why::find(&wanted)?;
    let lineage = rows.iter().find(|row| row.stage == SELECTED).unwrap_or(&rows[0]);
    let hash = &lineage.question_hash;
    let mut text = format!(
        "{hash}, {}\n\nquestion\n{}",
        line(&lineage.source_type, 60),
        block(&lineage.question)
    );
    if lineage.stage != SELECTED {
        let (stage, reason) = (line(&lineage.stage, 40), line(&lineage.reason, 100));
        let folder = folder.display();
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            text,
            "\nIt was not selected ({stage}: {reason}), so the folder holds no more of it; \
             `curate why {folder} {hash}` tells its way."
        );
        return Ok(text);
    }
    for row in table::stream_rows(&folder.join("selected.parquet"))? {
        let row = row?;
        if row.hash() == *hash {
            return Ok(text + &answer(&row));
        }
    }
    anyhow::bail!(
        "{} lacks the question {hash}, which the lineage says is selected",
        folder.join("selected.parquet").display()
    )
}

/// What a selected row has besides its question.
fn answer(row: &Row) -> String {
    let missing = || "none".to_owned();
    let mut text = format!("\ntrace\n{}", block(&row.thinking_trajectories.join("\n")));
    let _ = write!(text, "\nanswer\n{}", block(&row.attempt.clone().unwrap_or_else(missing)));
    let _ = write!(text, "\nsolution\n{}", block(&row.solution.clone().unwrap_or_else(missing)));
    text
}
