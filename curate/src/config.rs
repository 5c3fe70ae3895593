//! The config of one curation run: every number that shapes its result, none of them hidden.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::collect::Place;
use crate::deduplicate::Keep;
use crate::funnel::Stage;
use crate::near_duplicates;

/// `configs/curate/s1k.toml` is the annotated example, with the source of each number.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder to publish.
    pub output: PathBuf,
    /// Seed of the selection's draws; no other stage draws.
    pub seed: u64,
    /// `[pool]`
    pub pool: Pool,
    /// `[decontaminate]`
    pub decontaminate: Decontaminate,
    /// `[quality]`
    pub quality: Quality,
    /// `[difficulty]`
    pub difficulty: Difficulty,
    /// `[selection]`
    pub selection: Selection,
}

/// One more selection from a pool that went down the funnel before, for `curate select`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Criterion {
    /// The folder to publish.
    pub output: PathBuf,
    /// Seed of the selection's draws.
    pub seed: u64,
    /// `[selection]`
    pub selection: Selection,
}

/// The questions to begin with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Parquet or JSONL files with s1's columns, taken one after the other.
    pub files: Vec<PathBuf>,
    /// Side tables of features, joined by `question_hash`, or by `question` without one; their
    /// values win over the pool's, and those of a later table over an earlier one's.
    #[serde(default)]
    pub features: Vec<PathBuf>,
    /// Of rows with the same question, the one that stays.
    #[serde(default)]
    pub keep: Keep,
}

/// What was held out: questions that share a passage with it are dropped.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decontaminate {
    /// Length in words of the shared passage that makes a question contaminated.
    pub ngram: usize,
    /// Whether the questions kept from a source count as held out for the sources after it.
    pub earlier_sources: bool,
    /// The held-out sets.
    pub benchmarks: Vec<BenchmarkTable>,
    /// `[decontaminate.stricter]`: what goes beyond s1, if anything.
    pub stricter: Option<near_duplicates::Settings>,
}

/// One held-out set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchmarkTable {
    /// What the report calls it.
    pub name: String,
    /// Its files: Parquet, JSONL or CSV, of this machine or of the hub.
    pub from: Place,
    /// The column that holds the question text.
    pub column: String,
}

/// Which questions are whole and clean.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// Whether a row without its three grades is incomplete, as in s1. Without them phase 1 finds
    /// nothing, and no question is known to be too easy.
    pub grades_required: bool,
    /// A question with an `[asy]` diagram stays when its `source_type` contains one of these.
    pub diagrams_allowed_from: Vec<String>,
}

/// Which questions teach nothing.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difficulty {
    /// A question is too easy when any of these is true of it; an empty list keeps all.
    pub too_easy_if: Vec<Grade>,
}

/// The grades of the two models whose success makes a question too easy, by their column names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Qwen2.5-7B-Instruct solves it.
    IsQwen7bCorrect,
    /// Qwen2.5-32B-Instruct solves it.
    IsQwen32bCorrect,
}

/// How the examples are drawn from what is left.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// The rule.
    pub algorithm: Algorithm,
    /// The rows that passed this stage and those before it are the candidates.
    #[serde(default)]
    pub after: After,
    /// Examples to select; `full` has none.
    pub target: Option<usize>,
    /// Whether to be content with fewer when fewer are left; otherwise that is an error.
    #[serde(default)]
    pub allow_fewer: bool,
    /// So many examples come from phases 1 and 2; only `released-code` reads it.
    pub uniform_until: Option<usize>,
    /// The rows that phase 1 takes at once; only `released-code` and `paper-text` read it.
    #[serde(default)]
    pub seeded: Vec<Seeded>,
    /// The shape of phase 3's draws; only `released-code` reads it.
    pub benchmark: Option<Benchmark>,
}

/// s1 describes its selection twice, and differently; and compares it with simpler ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// What made the published s1K: domains uniformly, then in the benchmarks' proportions.
    ReleasedCode,
    /// Algorithm 1 of the paper: domains uniformly to the end.
    PaperText,
    /// Every row equally likely (1K-random).
    Random,
    /// Domains uniformly, and every row of a domain equally likely (1K-diverse).
    Diverse,
    /// The longest traces (1K-longest).
    Longest,
    /// Everything (59K-full).
    Full,
}

/// The last stage before the selection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum After {
    /// Every row with a trace and an answer.
    Answered,
    /// Of these the ones with all features and no broken text.
    Quality,
    /// Of these the ones that no graded model solves.
    #[default]
    Difficulty,
}

/// A source whose correctly solved rows are taken at once.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seeded {
    /// The whole `source_type`, or its beginning.
    pub source_type: String,
    /// Only traces of more tokens than this; absent means any length.
    pub longer_than: Option<i64>,
}

/// Phase 3 draws a domain in proportion to what these two sources hold of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Benchmark {
    /// `source_type`, or its beginning, of the rows counted as they are.
    pub aime: String,
    /// `source_type`, or its beginning, of the rows counted in proportion to AIME's.
    pub gpqa: String,
    /// GPQA's total weight as a share of AIME's.
    pub gpqa_to_aime: f64,
}

impl Config {
    /// What the types cannot say; errors name the key and the cure.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.pool.files.is_empty(), "pool.files is empty: name at least one file");
        ensure!(self.decontaminate.ngram > 0, "decontaminate.ngram must be at least 1");
        for BenchmarkTable { name, .. } in &self.decontaminate.benchmarks {
            ensure!(
                !name.contains(';'),
                "the benchmark's name \"{name}\" must not hold a semicolon: it parts reasons"
            );
        }
        self.decontaminate.stricter.as_ref().map_or(Ok(()), near_duplicates::Settings::check)?;
        self.selection.check()
    }
}

impl Selection {
    /// As [`Config::check`].
    pub fn check(&self) -> Result<()> {
        if self.algorithm == Algorithm::Full {
            return Ok(());
        }
        let target = self.target.context("selection.target is missing: how many to select?")?;
        ensure!(target > 0, "selection.target must be at least 1");
        if self.algorithm != Algorithm::ReleasedCode {
            return Ok(());
        }
        let needs = |key| format!("selection.{key} is missing: \"released-code\" needs it");
        let uniform_until = self.uniform_until.with_context(|| needs("uniform_until"))?;
        let benchmark = self.benchmark.as_ref().with_context(|| needs("benchmark"))?;
        ensure!(
            uniform_until <= target,
            "selection.uniform_until = {uniform_until} is beyond selection.target = {target}: \
             lower it (s1 has 700 of 1000), or choose selection.algorithm = \"paper-text\""
        );
        let share = benchmark.gpqa_to_aime;
        ensure!(
            share.is_finite() && share >= 0.0,
            "selection.benchmark.gpqa_to_aime = {share} must be a share, 0 or more"
        );
        Ok(())
    }
}

impl After {
    /// Its last stage in the funnel.
    pub fn stage(self) -> Stage {
        match self {
            After::Answered => Stage::Answered,
            After::Quality => Stage::Patterns,
            After::Difficulty => Stage::Difficulty,
        }
    }
}
