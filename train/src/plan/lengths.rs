//! How long the examples are that a plan is made for.

use crate::balance::{Spread, modelled_lengths};
use crate::data::Examples;

/// Part of a modelled example that is its question and the chat's frame, in tokens: s1K's
/// questions have about 100.
const PROMPT: usize = 130;

/// The examples' lengths, and where they come from.
#[derive(Debug, Clone)]
pub struct Lengths {
    /// Of each example.
    pub tokens: Vec<usize>,
    /// Of each example, those that the loss is on.
    pub trained: Vec<usize>,
    /// For people.
    pub source: String,
}

impl Lengths {
    /// Of the data themselves.
    pub fn of(examples: &Examples, table: &str) -> Self {
        let all = || examples.examples.iter();
        Self {
            tokens: all().map(|example| example.ids.len()).collect(),
            trained: all().map(|example| example.trained_tokens()).collect(),
            source: format!("those of {table}"),
        }
    }

    /// Of a published set as they are modelled, scaled to `mean` if that is given, cut at
    /// `block_size`.
    pub fn modelled(
        spread: Spread,
        mean: Option<usize>,
        examples: usize,
        block_size: usize,
    ) -> Self {
        let whole = modelled_lengths(spread, mean, examples);
        let tokens: Vec<usize> = whole.iter().map(|&length| length.min(block_size)).collect();
        let trained = tokens.iter().map(|&length| length.saturating_sub(PROMPT).max(1)).collect();
        let mut source = format!("modelled as those of {}", spread.name());
        if let Some(mean) = mean {
            source += &format!(", scaled to a mean of {mean}");
        }
        let over = whole.iter().filter(|&&length| length > block_size).count();
        if over > 0 {
            source += &format!("; {over} of them cut at data.block_size = {block_size}");
        }
        Self { tokens, trained, source }
    }

    /// The same, longer ones cut to `length`.
    pub fn cut(&self, length: usize) -> Self {
        let cut = |of: &[usize]| of.iter().map(|&count| count.min(length)).collect();
        Self { tokens: cut(&self.tokens), trained: cut(&self.trained), ..self.clone() }
    }

    /// The mean length.
    pub fn mean(&self) -> f64 {
        self.tokens.iter().sum::<usize>() as f64 / self.tokens.len() as f64
    }

    /// The longest.
    pub fn longest(&self) -> usize {
        self.tokens.iter().copied().max().unwrap_or(0)
    }
}
