//! What is asked of an engine or a server, and what comes back.

use std::sync::Arc;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::budget::{Outcome, Spec};

/// How ids are drawn from logits, in transformers' words and order: the penalty, the temperature,
/// then whatever `top_k`, `top_p` and `min_p` leave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest id, the first of equals.
    pub temperature: f64,
    /// Only so many of the likeliest ids; 0 for all.
    pub top_k: usize,
    /// Only the likeliest ids that together have this probability.
    pub top_p: f64,
    /// Only ids with at least this share of the likeliest one's probability.
    pub min_p: f64,
    /// Divides the positive logits of ids that occurred, prompt included, and multiplies the
    /// others; 1 changes nothing.
    pub repetition_penalty: f64,
}

/// A prompt to continue, and how. The same request has the same completion, whatever else is asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// What errors call it.
    pub name: String,
    /// The ids to continue, at least one.
    pub prompt: Arc<[i64]>,
    /// Limits, stops and budget forcing.
    pub spec: Arc<Spec>,
    /// How ids are drawn.
    pub sampling: Sampling,
    /// What decides the draws at a temperature above 0.
    pub seed: u64,
    /// Added to the logits of these ids, -100 and less forbids an id; empty changes nothing.
    pub logit_bias: Vec<(i64, f64)>,
    /// Texts that end the answer; they are cut off the completion's text, not off its ids.
    pub stop: Vec<String>,
    /// `Some(n)`: also the log-probabilities of the sampled ids and of the `n` likeliest.
    pub logprobs: Option<usize>,
    /// The same of the prompt's ids, from the second on.
    pub prompt_logprobs: Option<usize>,
}

/// A finished request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The ids behind the prompt, and how they came to an end.
    pub outcome: Outcome,
    /// The text of the ids, up to a stop text.
    pub text: String,
    /// Of the ids that were sampled; empty unless asked for. The id that ended the answer, if one
    /// did, is the last, at the place behind all ids.
    pub logprobs: Vec<Scored>,
    /// Of the prompt's ids, by their places in it; empty unless asked for.
    pub prompt_logprobs: Vec<Scored>,
}

/// An id under the model's own distribution, before penalty and temperature, over the
/// tokenizer's ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// Its place in the outcome's ids, or in the prompt's.
    pub at: usize,
    /// The id.
    pub id: i64,
    /// Its natural log-probability.
    pub logprob: f64,
    /// The likeliest ids and their log-probabilities, likeliest first.
    pub top: Vec<(i64, f64)>,
}

/// Who continues prompts: the engine of this program, or a server.
pub trait Generate {
    /// Answers every request, and hands each over exactly once by its place in `requests`, in the
    /// order in which they finish.
    ///
    /// # Errors
    /// When a request cannot be answered, or `each` returns an error; the rest is then dropped.
    fn generate(
        &mut self,
        requests: &[Request],
        each: &mut dyn FnMut(usize, Completion) -> Result<()>,
    ) -> Result<()>;

    /// What it did so far, for people.
    fn summary(&self) -> String;
}

impl Sampling {
    /// The likeliest id, always.
    pub const GREEDY: Sampling =
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 };

    /// Refuses numbers without a meaning.
    pub fn check(&self) -> Result<()> {
        let Sampling { temperature, top_p, min_p, repetition_penalty, .. } = *self;
        ensure!(
            temperature.is_finite() && temperature >= 0.0,
            "temperature {temperature} is not 0 or above"
        );
        ensure!(top_p > 0.0 && top_p <= 1.0, "top_p {top_p} is not above 0 and at most 1");
        ensure!((0.0..=1.0).contains(&min_p), "min_p {min_p} is not from 0 to 1");
        ensure!(
            repetition_penalty.is_finite() && repetition_penalty > 0.0,
            "repetition_penalty {repetition_penalty} is not above 0"
        );
        Ok(())
    }
}
