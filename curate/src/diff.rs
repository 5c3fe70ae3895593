//! `curate diff`: which questions only one of two sets has, and why the other lost them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use page::terminal::{columns, count, line};
use record::row::Lineage;
use record::table;

use crate::funnel::{SELECTED, Stage};
use crate::outcome;

/// The arguments of `curate diff`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// An output folder of `curate run` or `curate select`, or a table of questions.
    pub a: PathBuf,
    /// Another one.
    pub b: PathBuf,
    /// Rows to list of each side; 0 for all.
    #[arg(long, default_value_t = 20)]
    pub rows: usize,
}

/// What became of a question in a set that lacks it: stage and reason, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Loss {
    cause: String,
    evidence: String,
}

/// The rows of one set, by hash: those that are in it.
type Selected = BTreeMap<String, Lineage>;

/// The comparison as text: counts, then each side's own rows by the reason the other lost them.
pub fn run(args: &Args) -> Result<String> {
    let (a, b) = (selected(&args.a)?, selected(&args.b)?);
    let both = a.keys().filter(|hash| b.contains_key(*hash)).count();
    let (only_a, only_b) = (a.len() - both, b.len() - both);
    let shown = [&args.a, &args.b].map(|path| line(&path.display().to_string(), 200));
    let rows = [
        ["".to_owned(), "questions".to_owned(), "only here".to_owned()],
        [format!("A  {}", shown[0]), count(a.len()), count(only_a)],
        [format!("B  {}", shown[1]), count(b.len()), count(only_b)],
        ["in both".to_owned(), count(both), String::new()],
    ];
    let mut text = columns(&rows.map(Vec::from));
    text += &side("A", &a, ("B", &b), &args.b, args.rows)?;
    text += &side("B", &b, ("A", &a), &args.a, args.rows)?;
    Ok(text)
}

/// The questions of a set: of a folder those selected, of a table all.
fn selected(path: &Path) -> Result<Selected> {
    let mut rows = Selected::new();
    if path.is_dir() {
        for row in outcome::lineage(path)? {
            let mut row = row?;
            if row.stage == SELECTED {
                row.question = line(&row.question, 60);
                rows.insert(row.question_hash.clone(), row);
            }
        }
        return Ok(rows);
    }
    for row in table::stream_questions(path)? {
        let mut row = row?;
        row.question = line(&row.question, 60);
        rows.insert(row.question_hash.clone(), row);
    }
    Ok(rows)
}

/// What the set at `path` says about each of these questions, all of which it lacks.
fn losses(path: &Path, hashes: &BTreeSet<&str>) -> Result<BTreeMap<String, Loss>> {
    let mut found = BTreeMap::<String, Loss>::new();
    if !path.is_dir() {
        return Ok(found);
    }
    for row in outcome::lineage(path)? {
        let row = row?;
        if !hashes.contains(row.question_hash.as_str()) {
            continue;
        }
        // Of a question that is there twice, the copy that stayed has the better reason.
        let is_copy = row.stage == Stage::Deduplicate.name();
        if is_copy && found.contains_key(&row.question_hash) {
            continue;
        }
        let cause = line(&format!("{}: {}", row.stage, row.reason), 100);
        let evidence = line(row.evidence.as_deref().unwrap_or_default(), 100);
        found.insert(row.question_hash, Loss { cause, evidence });
    }
    Ok(found)
}

/// The rows that only `name` has, grouped by how `other` lost them.
fn side(
    name: &str,
    own: &Selected,
    (other, its): (&str, &Selected),
    its_path: &Path,
    limit: usize,
) -> Result<String> {
    let only: Vec<&Lineage> =
        own.values().filter(|row| !its.contains_key(&row.question_hash)).collect();
    if only.is_empty() {
        return Ok(format!("\nnothing is only in {name}\n"));
    }
    let losses = losses(its_path, &only.iter().map(|row| row.question_hash.as_str()).collect())?;
    let absent = Loss { cause: format!("not in {other}'s pool"), evidence: String::new() };
    let absent = if its_path.is_dir() { absent } else { Loss { cause: "absent".into(), ..absent } };
    let loss = |row: &Lineage| losses.get(&row.question_hash).unwrap_or(&absent);

    let mut causes = BTreeMap::<&str, usize>::new();
    for row in &only {
        *causes.entry(&loss(row).cause).or_default() += 1;
    }
    let mut by_count: Vec<_> = causes.into_iter().collect();
    by_count.sort_by_key(|(cause, rows)| (Reverse(*rows), *cause));
    let mut text = format!("\nonly in {name}: {}, which {other} lost so\n", count(only.len()));
    let heads = ["rows".to_owned(), format!("in {other}")];
    let rows = by_count.iter().map(|(cause, rows)| vec![count(*rows), cause.to_string()]);
    let rows: Vec<Vec<String>> = std::iter::once(heads.to_vec()).chain(rows).collect();
    text += &indented(&columns(&rows));

    let limit = if limit == 0 { only.len() } else { limit };
    let heads = ["hash", "tokens", "domain", "question", "lost at"].map(String::from).to_vec();
    let mut rows = vec![heads];
    for row in only.iter().take(limit) {
        let Loss { cause, evidence } = loss(row);
        let found =
            if evidence.is_empty() { cause.clone() } else { format!("{cause}: {evidence}") };
        rows.push(vec![
            row.question_hash.clone(),
            row.gemini_length.map_or("–".to_owned(), |tokens| count(tokens as usize)),
            line(row.domain.as_deref().unwrap_or("–"), 24),
            line(&row.question, 40),
            found,
        ]);
    }
    text.push('\n');
    text += &indented(&columns(&rows));
    if only.len() > limit {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  and {} more; --rows 0 lists all", count(only.len() - limit));
    }
    Ok(text)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
