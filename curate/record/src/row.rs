//! The rows of every table, field for field as their columns are called in the files.

use serde::{Deserialize, Serialize};

use crate::question::question_hash;

/// One question with everything known about it: a row of the pool, of s1K, of its features.
///
/// The fields are s1's columns, in s1's order; `None` (and an empty `thinking_trajectories`) is
/// null in a file.
#[derive(Debug, Clone, Default, PartialEq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Reference solution of the source, or its bare answer; some sources have none.
    pub solution: Option<String>,
    /// What the model is asked, verbatim.
    pub question: String,
    /// `math`, `science`, `health science`, `english`, `coding` or `crossword`.
    pub cot_type: String,
    /// Data set and subset the question comes from, such as `Idavidrein/gpqa`.
    pub source_type: String,
    /// The rest of the source's own row, as Python prints a dict (not JSON).
    pub metadata: String,
    /// Always null in s1's own files.
    pub cot: Option<String>,
    /// The teacher's reasoning; one string in practice.
    pub thinking_trajectories: Vec<String>,
    /// The teacher's answer after the reasoning.
    pub attempt: Option<String>,
    /// Title of the question's MSC class.
    pub domain: Option<String>,
    /// Is the teacher's `attempt` right?
    pub isgeminicorrect: Option<bool>,
    /// Does Qwen2.5-7B-Instruct solve it (then it is too easy)?
    pub isqwen7bcorrect: Option<bool>,
    /// Does Qwen2.5-32B-Instruct solve it (then it is too easy)?
    pub isqwen32bcorrect: Option<bool>,
    /// Length of the reasoning in tokens of the Qwen2.5 tokenizer.
    pub gemini_length: Option<i64>,
    /// The training example as text ([`crate::example::text`]), as in s1K_tokenized.
    pub text: Option<String>,
}

impl Row {
    /// The question's id, [`question_hash`] of its text.
    pub fn hash(&self) -> String {
        question_hash(&self.question)
    }
}

/// A row of the pool without its long texts: what decides whether it stays.
///
/// The fields are those of [`Row`] with the same names; `has_trace` and `has_attempt` stand for the
/// two long ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outline {
    /// What the model is asked, verbatim.
    pub question: String,
    /// Data set and subset the question comes from.
    pub source_type: String,
    /// As in the pool.
    pub cot_type: String,
    /// Has `thinking_trajectories` anything but white space?
    pub has_trace: bool,
    /// Is there an `attempt`?
    pub has_attempt: bool,
    /// Title of the question's MSC class.
    pub domain: Option<String>,
    /// Is the teacher's `attempt` right?
    pub isgeminicorrect: Option<bool>,
    /// Does Qwen2.5-7B-Instruct solve it?
    pub isqwen7bcorrect: Option<bool>,
    /// Does Qwen2.5-32B-Instruct solve it?
    pub isqwen32bcorrect: Option<bool>,
    /// Length of the reasoning in tokens of the Qwen2.5 tokenizer.
    pub gemini_length: Option<i64>,
}

impl From<&Row> for Outline {
    fn from(row: &Row) -> Self {
        let said = |trace: &String| !trace.trim().is_empty();
        Outline {
            question: row.question.clone(),
            source_type: row.source_type.clone(),
            cot_type: row.cot_type.clone(),
            has_trace: row.thinking_trajectories.iter().any(said),
            has_attempt: row.attempt.is_some(),
            domain: row.domain.clone(),
            isgeminicorrect: row.isgeminicorrect,
            isqwen7bcorrect: row.isqwen7bcorrect,
            isqwen32bcorrect: row.isqwen32bcorrect,
            gemini_length: row.gemini_length,
        }
    }
}

/// One answer of one model to one question, with its verdict.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempt {
    /// The question's id.
    pub question_hash: String,
    /// The model that answered, by its Hugging Face or vendor's name.
    pub model: String,
    /// What it wrote.
    pub attempt: String,
    /// Is it right? `None`: not graded, or the grader cannot tell.
    pub grade: Option<bool>,
    /// Why the grader says so.
    pub reason: Option<String>,
}

/// What is known of a question besides its text: a row of a side table, joined by hash.
///
/// The fields are those of [`Row`] with the same names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Features {
    /// The question's id.
    pub question_hash: String,
    /// Title of the question's MSC class.
    pub domain: Option<String>,
    /// Is the teacher's `attempt` right?
    pub isgeminicorrect: Option<bool>,
    /// Does Qwen2.5-7B-Instruct solve it?
    pub isqwen7bcorrect: Option<bool>,
    /// Does Qwen2.5-32B-Instruct solve it?
    pub isqwen32bcorrect: Option<bool>,
    /// Length of the reasoning in tokens of the Qwen2.5 tokenizer.
    pub gemini_length: Option<i64>,
}

/// One question's way through the funnel: a curation has one such row for every row of its pool,
/// in the pool's order.
#[derive(Debug, Clone, Default, PartialEq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Lineage {
    /// Row in the pool, counted on through all its files; the first is 1.
    pub row: i64,
    /// The question's id.
    pub question_hash: String,
    /// Data set and subset it comes from.
    pub source_type: String,
    /// As in the pool.
    pub cot_type: String,
    /// Its text, verbatim.
    pub question: String,
    /// Title of its MSC class.
    pub domain: Option<String>,
    /// Length of the reasoning in tokens of the Qwen2.5 tokenizer.
    pub gemini_length: Option<i64>,
    /// Is the teacher's `attempt` right?
    pub isgeminicorrect: Option<bool>,
    /// Does Qwen2.5-7B-Instruct solve it?
    pub isqwen7bcorrect: Option<bool>,
    /// Does Qwen2.5-32B-Instruct solve it?
    pub isqwen32bcorrect: Option<bool>,
    /// `selected`, or the name of the stage that dropped it.
    pub stage: String,
    /// Why, in one of few different texts: the rules that caught it, parted by `; `.
    pub reason: String,
    /// What they caught in this row, such as the shared words and the benchmark's row.
    pub evidence: Option<String>,
    /// Of those that reached the selection: its place among its domain's traces, 0 the longest.
    pub rank: Option<i64>,
    /// Of the selected ones: what it was picked for, such as `seeded` or `uniform`.
    pub phase: Option<String>,
    /// Of the selected ones: when it was picked; the first is 1.
    pub draw: Option<i64>,
}
