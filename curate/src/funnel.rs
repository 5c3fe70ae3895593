//! The funnel's books: every row that enters leaves with one verdict, and the counts must close.

use anyhow::{Result, ensure};
use serde::Serialize;

/// The stages a row passes, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The same question is there already.
    Deduplicate,
    /// It shares a passage with a held-out question.
    Decontaminate,
    /// The teacher gave no answer.
    Answered,
    /// A feature is missing.
    Complete,
    /// Its text is broken or needs a picture.
    Patterns,
    /// A graded model solves it.
    Difficulty,
    /// The selection did not draw it.
    Diversity,
}

impl Stage {
    /// The name in `dropped.parquet`, `funnel.json` and the summary.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Deduplicate => "deduplicate",
            Stage::Decontaminate => "decontaminate",
            Stage::Answered => "quality: answered",
            Stage::Complete => "quality: complete",
            Stage::Patterns => "quality: patterns",
            Stage::Difficulty => "difficulty",
            Stage::Diversity => "diversity",
        }
    }
}

/// Why a row leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The rule that caught it: few different texts, counted in the report.
    pub cause: String,
    /// What it caught, in this row; may be empty.
    pub detail: String,
}

impl Reason {
    /// A reason with its detail, which may be empty.
    pub fn new(cause: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { cause: cause.into(), detail: detail.into() }
    }

    /// Cause and detail in one line, as `dropped.parquet` has it.
    pub fn text(&self) -> String {
        if self.detail.is_empty() {
            return self.cause.clone();
        }
        format!("{}: {}", self.cause, self.detail)
    }
}

/// A row that left, and where.
#[derive(Debug, Clone)]
pub struct Dropped {
    /// Number of the row in the pool, from 0 through all its files (people are shown it from 1).
    pub row: usize,
    /// The stage that dropped it.
    pub stage: Stage,
    /// That stage's reason.
    pub reason: Reason,
}

/// What one stage did.
#[derive(Debug, Clone, Serialize)]
pub struct Count {
    /// Its name.
    pub stage: &'static str,
    /// Rows that reached it.
    pub rows_in: usize,
    /// Rows that it dropped.
    pub dropped: usize,
    /// Rows that it let through.
    pub kept: usize,
}

/// The rows still in the funnel, the rows that left it, and what each stage did.
#[derive(Debug, Clone)]
pub struct Funnel {
    /// Rows of the pool.
    pub rows_in: usize,
    /// Pool row numbers, ascending.
    pub kept: Vec<usize>,
    /// In the order they left.
    pub dropped: Vec<Dropped>,
    /// One a stage, in order.
    pub counts: Vec<Count>,
}

impl Funnel {
    /// With every row of a pool of `rows_in` still in it.
    pub fn new(rows_in: usize) -> Self {
        Self { rows_in, kept: (0..rows_in).collect(), dropped: Vec::new(), counts: Vec::new() }
    }

    /// Books one stage: `verdicts[i]` is about row `kept[i]`, and `None` keeps it.
    pub fn apply(&mut self, stage: Stage, verdicts: Vec<Option<Reason>>) {
        assert_eq!(verdicts.len(), self.kept.len(), "one verdict for each row at {}", stage.name());
        let rows_in = self.kept.len();
        let before = std::mem::take(&mut self.kept);
        for (row, verdict) in before.into_iter().zip(verdicts) {
            match verdict {
                None => self.kept.push(row),
                Some(reason) => self.dropped.push(Dropped { row, stage, reason }),
            }
        }
        let kept = self.kept.len();
        self.counts.push(Count { stage: stage.name(), rows_in, dropped: rows_in - kept, kept });
    }
}

/// Fails unless each of the rows `0..rows_in` is either selected or dropped, and that once.
///
/// The numbers come from the tables as they were written, not from the running counts.
pub fn adds_up(
    rows_in: usize,
    selected: impl IntoIterator<Item = usize>,
    dropped: impl IntoIterator<Item = usize>,
) -> Result<()> {
    let mut verdicts = vec![0usize; rows_in];
    for row in selected.into_iter().chain(dropped) {
        ensure!(row < rows_in, "the funnel does not add up: row {} of {rows_in}", row + 1);
        verdicts[row] += 1;
    }
    for (row, &count) in verdicts.iter().enumerate() {
        ensure!(
            count == 1,
            "the funnel does not add up: pool row {} left it with {count} verdicts, not 1; \
             this is a fault of curate, and nothing was published",
            row + 1
        );
    }
    Ok(())
}
