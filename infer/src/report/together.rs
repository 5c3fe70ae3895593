//! What several answers to each question are worth together: cov@k, maj@k and pass@k of a budget.

use serde::{Deserialize, Serialize};

use super::Sample;
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
}

/// At the powers of two; `samples` are by question, then repeat.
pub(super) fn together(samples: &[Sample], repeats: usize) -> Vec<Together> {
    let questions = (samples.len() / repeats) as f64;
    let share = |holds: bool| f64::from(u8::from(holds)) / questions;
    let mut all: Vec<Together> = Vec::new();
    for answers in samples.chunks(repeats) {
        let votes: Vec<Vote> = answers.iter().map(vote).collect();
        let right = votes.iter().filter(|vote| vote.correct).count();
        for (place, at) in votes::at_powers_of_two(&votes).into_iter().enumerate() {
            let AtK { k, cov, maj } = at;
            if all.len() == place {
                all.push(Together { k, cov: 0.0, maj: 0.0, pass: 0.0 });
            }
            all[place].cov += share(cov);
            all[place].maj += share(maj);
            all[place].pass += votes::pass_at(k, right, repeats) / questions;
        }
    }
    all
}

fn vote(sample: &Sample) -> Vote<'_> {
    Vote { answer: sample.extracted.as_deref(), correct: sample.correct }
}
