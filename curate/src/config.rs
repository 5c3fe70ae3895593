//! The config of one curation run: every number that shapes its result, none of them hidden.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::Deserialize;

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

/// The questions to begin with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Parquet or JSONL files with s1's columns, taken one after the other.
    pub files: Vec<PathBuf>,
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
    pub benchmarks: Vec<BenchmarkFile>,
}

/// One held-out set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchmarkFile {
    /// What the report calls it.
    pub name: String,
    /// Parquet or JSONL.
    pub file: PathBuf,
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
    /// Which of s1's two descriptions to follow.
    pub algorithm: Algorithm,
    /// Examples to select.
    pub target: usize,
    /// Whether to be content with fewer when fewer are left; otherwise that is an error.
    pub allow_fewer: bool,
    /// So many examples come from phases 1 and 2; `Algorithm::PaperText` does not read it.
    pub uniform_until: usize,
    /// The rows that phase 1 takes at once.
    pub seeded: Vec<Seeded>,
    /// The shape of phase 3's draws; `Algorithm::PaperText` does not read it.
    pub benchmark: Benchmark,
}

/// s1 describes its selection twice, and differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// What made the published s1K: domains uniformly, then in the benchmarks' proportions.
    ReleasedCode,
    /// Algorithm 1 of the paper: domains uniformly to the end.
    PaperText,
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
        let Selection { algorithm, target, uniform_until, .. } = self.selection;
        ensure!(!self.pool.files.is_empty(), "pool.files is empty: name at least one file");
        ensure!(self.decontaminate.ngram > 0, "decontaminate.ngram must be at least 1");
        ensure!(target > 0, "selection.target must be at least 1");
        ensure!(
            algorithm == Algorithm::PaperText || uniform_until <= target,
            "selection.uniform_until = {uniform_until} is beyond selection.target = {target}: \
             lower it (s1 has 700 of 1000), or choose selection.algorithm = \"paper-text\""
        );
        let share = self.selection.benchmark.gpqa_to_aime;
        ensure!(
            share.is_finite() && share >= 0.0,
            "selection.benchmark.gpqa_to_aime = {share} must be a share, 0 or more"
        );
        Ok(())
    }
}
