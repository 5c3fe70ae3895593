//! `curate why`: the whole way of one question through the funnel.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use page::terminal::{block, columns, count, line, tokens};
use record::row::Lineage;

use crate::funnel::SELECTED;
use crate::outcome::{self, Funnel, is_candidate};

/// The arguments of `curate why`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// An output folder of `curate run` or `curate select`.
    pub folder: PathBuf,
    /// The question's hash, its first digits, or row:N for row N of the pool.
    pub id: String,
}

/// Selected rows of the same domain that are listed.
const RIVALS: usize = 15;

/// Everything that the folder knows about the question.
pub fn run(args: &Args) -> Result<String> {
    let funnel = Funnel::read(&args.folder)?;
    let (rows, pool) = find(args)?;
    let mut text = String::new();
    for row in &rows {
        text += &facts(row, pool);
        text += &path(row, &funnel);
        if is_candidate(row) {
            text += &rivals(row, args)?;
        }
        text.push('\n');
    }
    text += &format!("question\n{}", block(&rows[0].question));
    Ok(text)
}

/// The rows that the id names, which share one question, and how many the pool has.
pub fn find(args: &Args) -> Result<(Vec<Lineage>, usize)> {
    let id = Id::parse(&args.id)?;
    let (mut rows, mut pool) = (Vec::<Lineage>::new(), 0);
    for row in outcome::lineage(&args.folder)? {
        let row = row?;
        pool += 1;
        if id.names(&row) {
            rows.push(row);
        }
    }
    let shown = (args.folder.display(), line(&args.id, 40));
    let first = rows.first().with_context(|| {
        format!(
            "{} has no question {} among its {} rows: `curate show {0}` lists questions",
            shown.0,
            shown.1,
            count(pool)
        )
    })?;
    let other = rows.iter().find(|row| row.question_hash != first.question_hash);
    if let Some(other) = other {
        anyhow::bail!(
            "{} begins more than one hash, such as {} and {}: give more digits",
            shown.1,
            first.question_hash,
            other.question_hash
        );
    }
    Ok((rows, pool))
}

/// What people name a row by.
enum Id {
    Row(i64),
    Hash(String),
}

impl Id {
    fn parse(text: &str) -> Result<Self> {
        if let Some(row) = text.strip_prefix("row:") {
            let row = row.parse().ok().filter(|row| *row > 0);
            return Ok(Id::Row(row.with_context(|| {
                format!("{}: behind row: stands a number, the first row is 1", line(text, 40))
            })?));
        }
        let hash = text.to_ascii_lowercase();
        let is_hash = (4..=16).contains(&hash.len()) && hash.bytes().all(|c| c.is_ascii_hexdigit());
        ensure!(
            is_hash,
            "{} is no question's id: give 4 to 16 hexadecimal digits of its hash, or row:N",
            line(text, 40)
        );
        Ok(Id::Hash(hash))
    }

    fn names(&self, row: &Lineage) -> bool {
        match self {
            Id::Row(number) => row.row == *number,
            Id::Hash(digits) => row.question_hash.starts_with(digits),
        }
    }
}

/// Who the row is, and its features.
fn facts(row: &Lineage, pool: usize) -> String {
    let grade = |grade: Option<bool>| match grade {
        Some(true) => "right",
        Some(false) => "wrong",
        None => "not graded",
    };
    let domain = row.domain.as_ref().map_or("unknown".to_owned(), |domain| line(domain, 70));
    let length = row.gemini_length.map_or("no length".to_owned(), |length| tokens(length as usize));
    let source = format!("{} ({})", line(&row.source_type, 60), line(&row.cot_type, 20));
    format!(
        "{}, row {} of {}\n  source       {source}\n  domain       {domain}\n  \
         trace        {length}; the teacher's answer is {}\n  \
         difficulty   Qwen2.5-7B: {}, Qwen2.5-32B: {}\n\n",
        row.question_hash,
        count(row.row as usize),
        count(pool),
        grade(row.isgeminicorrect),
        grade(row.isqwen7bcorrect),
        grade(row.isqwen32bcorrect)
    )
}

/// Stage by stage: passed, dropped, not reached.
fn path(row: &Lineage, funnel: &Funnel) -> String {
    let width = funnel.stages.iter().map(|stage| stage.stage.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut left = false;
    for stage in &funnel.stages {
        let here = stage.stage == row.stage;
        let verdict = match (left, here) {
            (true, _) => "not reached".to_owned(),
            (false, true) => format!("DROPPED: {}", line(&row.reason, 100)),
            (false, false) => "passed".to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {:width$}   {verdict}", stage.stage);
        if let Some(evidence) = row.evidence.as_ref().filter(|_| here) {
            let _ = writeln!(text, "  {:width$}   {}", "", line(evidence, 300));
        }
        left |= here;
    }
    if row.stage == SELECTED {
        let phase = row.phase.as_deref().unwrap_or_default();
        let draw =
            row.draw.map_or(String::new(), |draw| format!(", pick {}", count(draw as usize)));
        let picked = format!("{phase}{draw}");
        let _ = writeln!(text, "  {:width$}   {}", SELECTED, line(&picked, 100));
    }
    text
}

/// Its place in its domain, and the rows that were selected there.
fn rivals(row: &Lineage, args: &Args) -> Result<String> {
    let (mut candidates, mut selected) = (0, Vec::new());
    for other in outcome::lineage(&args.folder)? {
        let mut other = other?;
        if is_candidate(&other) && other.domain == row.domain {
            candidates += 1;
            if other.stage == SELECTED {
                other.question = line(&other.question, 50);
                selected.push(other);
            }
        }
    }
    selected.sort_by_key(|other| (other.rank, other.row));
    let domain = row.domain.as_ref().map_or("no domain".to_owned(), |domain| line(domain, 70));
    let rank = row.rank.map_or("unknown".to_owned(), |rank| count(rank as usize));
    let mut text = format!(
        "\n{domain}: {} candidates, {} selected; this one has rank {rank} (0 is the longest \
         trace)\n",
        count(candidates),
        count(selected.len())
    );
    if selected.is_empty() {
        return Ok(text);
    }
    let mut table = vec![["rank", "tokens", "pick", "phase", "hash", "question"].map(String::from)];
    let optional = |value: Option<i64>| value.map_or("–".to_owned(), |v| count(v as usize));
    for other in selected.iter().take(RIVALS) {
        table.push([
            optional(other.rank),
            optional(other.gemini_length),
            optional(other.draw),
            line(other.phase.as_deref().unwrap_or("–"), 20),
            other.question_hash.clone(),
            other.question.clone(),
        ]);
    }
    let rows: Vec<Vec<String>> = table.into_iter().map(Vec::from).collect();
    for row in columns(&rows).lines() {
        let _ = writeln!(text, "  {row}");
    }
    if selected.len() > RIVALS {
        let _ = writeln!(text, "  and {} more", count(selected.len() - RIVALS));
    }
    Ok(text)
}
