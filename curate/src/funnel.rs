//! The funnel's books: every row that enters leaves with one verdict, and the counts must close.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use record::row::{Lineage, Row};
use serde::Serialize;

/// What stands for a stage in the lineage of a row that stayed to the end.
pub const SELECTED: &str = "selected";

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
    /// In their order.
    pub const ALL: [Stage; 7] = [
        Stage::Deduplicate,
        Stage::Decontaminate,
        Stage::Answered,
        Stage::Complete,
        Stage::Patterns,
        Stage::Difficulty,
        Stage::Diversity,
    ];

    /// The name in `lineage.parquet`, `funnel.json` and the summary.
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

    /// The stage that the `stage` of a lineage names; `None` is the row that was selected.
    pub fn of_lineage(name: &str) -> Result<Option<Stage>> {
        if name == SELECTED {
            return Ok(None);
        }
        let stage = Stage::ALL.into_iter().find(|stage| stage.name() == name);
        Ok(Some(stage.with_context(|| format!("`{name}` is no stage of this program"))?))
    }
}

/// Why a row leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The rule that caught it, several parted by `; `: few different texts, counted in the report.
    pub cause: String,
    /// What it caught, in this row; may be empty.
    pub detail: String,
}

impl Reason {
    /// A reason with its detail, which may be empty.
    pub fn new(cause: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { cause: cause.into(), detail: detail.into() }
    }

    /// Cause and detail in one line, for people.
    pub fn text(&self) -> String {
        if self.detail.is_empty() {
            return self.cause.clone();
        }
        format!("{}: {}", self.cause, self.detail)
    }
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

/// How many rows left the funnel where, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Funnel {
    /// Rows of the pool.
    pub rows_in: usize,
    /// Rows that stayed to the end.
    pub selected: usize,
    /// Dropped rows by stage and reason; the reasons of a stage add up to what it dropped.
    pub causes: BTreeMap<Stage, BTreeMap<String, usize>>,
}

impl Funnel {
    /// Books a row; `None` as its stage is the end of the funnel.
    pub fn book(&mut self, stage: Option<Stage>, reason: &str) {
        self.rows_in += 1;
        let Some(stage) = stage else {
            self.selected += 1;
            return;
        };
        let causes = self.causes.entry(stage).or_default();
        match causes.get_mut(reason) {
            Some(rows) => *rows += 1,
            None => drop(causes.insert(reason.to_string(), 1)),
        }
    }

    /// What each of `stages` did, in that order.
    pub fn counts(&self, stages: impl IntoIterator<Item = Stage>) -> Vec<Count> {
        let mut rows_in = self.rows_in;
        let count = |stage: Stage| {
            let dropped = self.causes.get(&stage).map_or(0, |causes| causes.values().sum());
            let count = Count { stage: stage.name(), rows_in, dropped, kept: rows_in - dropped };
            rows_in = count.kept;
            count
        };
        stages.into_iter().map(count).collect()
    }

    /// In how many rows each rule of a stage caught something, alone or with others.
    pub fn rules(&self, stage: Stage) -> BTreeMap<&str, usize> {
        let mut rules = BTreeMap::new();
        for (cause, rows) in self.causes.get(&stage).into_iter().flatten() {
            for rule in cause.split("; ") {
                *rules.entry(rule).or_insert(0) += rows;
            }
        }
        rules
    }
}

/// The books of the two tables of a folder, from the tables as they were written.
///
/// Fails unless the lineage has every row of the pool, `1..=rows_in`, once and in order, each with
/// a stage that is known, and the selected rows are those that the lineage says, in its order.
pub fn adds_up(
    rows_in: usize,
    lineage: impl IntoIterator<Item = Result<Lineage>>,
    selected: impl IntoIterator<Item = Result<Row>>,
) -> Result<Funnel> {
    let fault = "this is a fault of curate, and nothing was published";
    let (mut funnel, mut selected) = (Funnel::default(), selected.into_iter());
    for row in lineage {
        let row = row?;
        let expected = funnel.rows_in as i64 + 1;
        let number = row.row;
        ensure!(
            number == expected,
            "the funnel does not add up: row {number} in the place of row {expected}; {fault}"
        );
        let stage = Stage::of_lineage(&row.stage).with_context(|| format!("row {number}"))?;
        if stage.is_none() {
            let hash = selected.next().transpose()?.map(|row| row.hash());
            ensure!(
                hash.as_ref() == Some(&row.question_hash),
                "the funnel does not add up: row {number}, {}, is selected, but {} stands in its \
                 place; {fault}",
                row.question_hash,
                hash.as_deref().unwrap_or("no row"),
            );
        }
        funnel.book(stage, &row.reason);
    }
    let found = funnel.rows_in;
    ensure!(
        found == rows_in,
        "the funnel does not add up: {found} of {rows_in} rows have a verdict; {fault}"
    );
    let more = selected.next().transpose()?.map(|row| row.hash());
    ensure!(
        more.is_none(),
        "the funnel does not add up: {} is among the selected rows without a verdict; {fault}",
        more.unwrap_or_default()
    );
    Ok(funnel)
}
