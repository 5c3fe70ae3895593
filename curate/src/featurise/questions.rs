//! The pool's different questions with what is known of each, and the attempts at them.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use rayon::prelude::*;
use record::publish::{Input, input};
use record::row::{Attempt, Features, Row};
use record::table;

use super::CHUNK;
use super::grade::Verdict;
use super::prompt::Texts;
use crate::progress;
use crate::tokens::Tokens;

/// One question of the pool, without its trace.
#[derive(Debug, Clone, Default)]
pub(super) struct Question {
    pub question: String,
    pub solution: Option<String>,
    pub source_type: String,
    /// The teacher's answer.
    pub attempt: Option<String>,
    /// The teacher, if this run asked it.
    pub teacher: Option<String>,
    /// What is known so far.
    pub features: Features,
    has_trace: bool,
    /// Tokens of the pool's trace, as counted here.
    counted: Option<i64>,
}

impl Question {
    fn new(row: &Row, tokens: &Tokens) -> Result<Self> {
        let trace = row.thinking_trajectories.first().filter(|trace| !trace.trim().is_empty());
        let counted = trace.map(|trace| tokens.count(trace)).transpose()?;
        Ok(Self {
            question: row.question.clone(),
            solution: row.solution.clone().filter(|solution| !solution.trim().is_empty()),
            source_type: row.source_type.clone(),
            attempt: row.attempt.clone(),
            teacher: None,
            has_trace: trace.is_some(),
            counted,
            features: Features {
                question_hash: row.hash(),
                domain: row.domain.clone(),
                isgeminicorrect: row.isgeminicorrect,
                isqwen7bcorrect: row.isqwen7bcorrect,
                isqwen32bcorrect: row.isqwen32bcorrect,
                gemini_length: row.gemini_length,
            },
        })
    }

    /// The length of the pool's trace becomes known, unless the pool says it.
    pub fn measure(&mut self) {
        let length = &mut self.features.gemini_length;
        *length = length.or(self.counted);
    }

    /// Has it a trace and an answer?
    pub fn answered(&self) -> bool {
        self.has_trace && self.attempt.is_some()
    }

    /// Empty where there is none.
    pub fn solution(&self) -> &str {
        self.solution.as_deref().unwrap_or_default()
    }

    /// What a prompt about it needs.
    pub fn asking(&self) -> (String, Texts<'_>) {
        let (question, solution) = (self.question.as_str(), self.solution());
        (self.features.question_hash.clone(), Texts { question, solution, attempt: "" })
    }
}

/// A model's answer on its way to a grade.
#[derive(Debug, Clone)]
pub(super) struct Tried {
    /// Its place among the questions.
    pub question: usize,
    pub column: Column,
    pub model: String,
    pub text: String,
    /// What became its grade.
    pub verdict: Option<Verdict>,
}

impl Tried {
    pub fn asking<'a>(&'a self, questions: &'a [Question]) -> (String, Texts<'a>) {
        let (hash, texts) = questions[self.question].asking();
        let of = match self.column {
            Column::Teacher => "teacher",
            Column::Qwen7b => "7b",
            Column::Qwen32b => "32b",
        };
        (format!("{hash}-{of}"), Texts { attempt: &self.text, ..texts })
    }

    pub fn row(self, questions: &[Question]) -> Attempt {
        let verdict = self.verdict.unwrap_or(Verdict { right: None, why: String::new() });
        Attempt {
            question_hash: questions[self.question].features.question_hash.clone(),
            model: self.model,
            attempt: self.text,
            grade: verdict.right,
            reason: Some(verdict.why),
        }
    }
}

/// The grades of a question, by whose answer they are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Column {
    Teacher,
    Qwen7b,
    Qwen32b,
}

impl Column {
    pub fn name(self) -> &'static str {
        match self {
            Column::Teacher => "isgeminicorrect",
            Column::Qwen7b => "isqwen7bcorrect",
            Column::Qwen32b => "isqwen32bcorrect",
        }
    }

    pub fn grade(self, of: &Features) -> Option<bool> {
        match self {
            Column::Teacher => of.isgeminicorrect,
            Column::Qwen7b => of.isqwen7bcorrect,
            Column::Qwen32b => of.isqwen32bcorrect,
        }
    }

    /// Sets the grade, unless the pool had one.
    pub fn set(self, of: &mut Features, right: Option<bool>) {
        let grade = match self {
            Column::Teacher => &mut of.isgeminicorrect,
            Column::Qwen7b => &mut of.isqwen7bcorrect,
            Column::Qwen32b => &mut of.isqwen32bcorrect,
        };
        *grade = grade.or(right);
    }
}

/// The different questions of the pool, in its order; of equal ones the first. Traces are counted
/// on the way and not kept.
pub(super) fn read_pool(
    files: &[PathBuf],
    tokens: &Tokens,
    inputs: &mut Vec<Input>,
) -> Result<Vec<Question>> {
    let mut questions = Vec::new();
    let mut seen = HashSet::new();
    for file in files {
        ensure!(
            file.exists(),
            "{} does not exist: pool.files names it, relative to the current directory; \
             curate/README.md says what a pool holds",
            file.display()
        );
        let mut rows = table::stream_rows(file)?;
        let bar = progress::bar("counting tokens", table::count_rows(file)?);
        let mut count = 0;
        loop {
            let chunk = rows.by_ref().take(CHUNK).collect::<Result<Vec<Row>>>()?;
            if chunk.is_empty() {
                break;
            }
            bar.advance(chunk.len());
            count += chunk.len() as u64;
            let read: Vec<Question> =
                chunk.par_iter().map(|row| Question::new(row, tokens)).collect::<Result<_>>()?;
            let new = |of: &Question| seen.insert(of.features.question_hash.clone());
            questions.extend(read.into_iter().filter(new));
        }
        inputs.push(input(file, Some(count))?);
        progress::line(&format!("{} ({count} questions)", file.display()));
    }
    ensure!(!questions.is_empty(), "the pool has no rows: is pool.files right?");
    Ok(questions)
}
