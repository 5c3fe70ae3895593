//! What several answers to each question are worth together: cov@k, maj@k and pass@k of a budget.

use serde::{Deserialize, Serialize};

use super::Sample;
use crate::config::Budget;
use crate::task::{self, Grading, Task};
use crate::votes::{self, AtK, Vote};

/// What the first `k` answers to a question are worth together, as shares of the questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Together {
    /// So many answers.
    pub k: usize,
    /// cov@k: one of them is right.
    pub cov: f64,
    /// maj@k: the most frequent of them is right.
    pub maj: f64,
    /// pass@k: one of `k` drawn from all answers is right; unbiased.
    pub pass: f64,
    /// Tokens that are written for them, thinking and answers, as a mean over the questions.
    pub tokens: f64,
    /// The maj@k in percent that others have published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<f64>,
}

/// At the powers of two; `samples` are by question, then repeat.
pub(super) fn together(
    task: &Task,
    budget: &Budget,
    samples: &[Sample],
    repeats: usize,
) -> Vec<Together> {
    let questions = (samples.len() / repeats) as f64;
    let share = |holds: bool| f64::from(u8::from(holds)) / questions;
    let known = budget.published_majority.get(&task.name);
    let published = |k| known?.iter().find(|(at, _)| *at == k).map(|(_, percent)| *percent);
    let mut all: Vec<Together> = Vec::new();
    for answers in samples.chunks(repeats) {
        let right = answers.iter().filter(|answer| answer.correct).count();
        for (place, at) in at_powers_of_two(task.grading, answers).into_iter().enumerate() {
            let AtK { k, cov, maj } = at;
            if all.len() == place {
                let published = published(k);
                all.push(Together { k, cov: 0.0, maj: 0.0, pass: 0.0, tokens: 0.0, published });
            }
            let written = answers[..k].iter().map(|one| one.thinking_tokens + one.answer_tokens);
            all[place].cov += share(cov);
            all[place].maj += share(maj);
            all[place].pass += votes::pass_at(k, right, repeats) / questions;
            all[place].tokens += written.sum::<usize>() as f64 / questions;
        }
    }
    all
}

/// cov@k and maj@k of the answers to one question.
///
/// An answer votes for the expected one if it is right, else for the first of the answers that says
/// the same under the task's grading: s1 likewise counts what its rules and its judge have made one.
/// What is empty, or names no choice where one was asked for, does not vote.
pub(crate) fn at_powers_of_two(grading: Grading, answers: &[Sample]) -> Vec<AtK> {
    let same = |a: &str, b: &str| task::grade(grading, Some(a), b).equal;
    let mut known: Vec<&str> = Vec::new();
    let mut votes = Vec::new();
    for sample in answers {
        let said = sample.extracted.as_deref().filter(|said| !said.trim().is_empty());
        let answer = match said {
            Some(_) if sample.correct => Some(sample.target.as_str()),
            Some(said) if same(said, said) => {
                let first = known.iter().copied().find(|known| same(said, known));
                known.extend(first.is_none().then_some(said));
                first.or(Some(said))
            }
            _ => None,
        };
        votes.push(Vote { answer, correct: sample.correct });
    }
    votes::at_powers_of_two(&votes)
}
