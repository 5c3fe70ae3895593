//! `[generation]` and `[[budget]]`: limits, sampling and the strings of the format, and how these
//! strings become token ids.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use model::Tokenizer;
use serde::Deserialize;

use crate::budget::{MaxTokens, Procedure, Spec, Thinking};
use crate::engine::Sampling;
use crate::task::Task;

/// `[generation]`: limits, sampling and the strings of the format.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Ids of answer at most; also the thinking budget where none is given. Default: the task's.
    pub max_gen_toks: Option<usize>,
    /// 0 is greedy. Default: the task's, or 0.
    pub temperature: Option<f64>,
    /// Only so many of the likeliest tokens; 0 for all.
    #[serde(default)]
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability.
    #[serde(default = "one")]
    pub top_p: f64,
    /// Only tokens with at least this share of the likeliest one's probability.
    #[serde(default)]
    pub min_p: f64,
    /// Above 1, tokens that occurred become less likely.
    #[serde(default = "one")]
    pub repetition_penalty: f64,
    /// Texts that end the answer, and are cut off it.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Single tokens that end the answer, and thinking too.
    #[serde(default = "default_until")]
    pub until: Vec<String>,
    /// Opens thinking; empty where the chat template does.
    #[serde(default = "default_thinking_start")]
    pub thinking_start: String,
    /// Opens the answer.
    #[serde(default = "default_thinking_end")]
    pub thinking_end: String,
    /// Opens the answer when the budget ran out; a new line comes before it, unless there is one.
    /// Default: `thinking_end`, a new line and `Final Answer:`.
    pub thinking_end_max: Option<String>,
    /// Texts that end thinking, each of one token or several.
    #[serde(default = "default_until_thinking")]
    pub until_thinking: Vec<String>,
    /// Which of s1's two procedures.
    #[serde(default)]
    pub procedure: Procedure,
}

/// How much to think; the keys are those of s1's harness. A name alone is plain generation.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Also in the name of the samples file.
    pub name: String,
    /// An integer or "auto".
    pub max_tokens_thinking: Option<toml::Value>,
    /// Thinking cannot end before so many ids.
    pub min_tokens_thinking: Option<usize>,
    /// Ends of thinking that are ignored.
    pub thinking_n_ignore: Option<usize>,
    /// What stands in the place of each; nothing by default.
    pub thinking_n_ignore_str: Option<String>,
    /// Rejection sampling: thinking that does not end within `max_tokens_thinking` is sampled anew,
    /// so many times at most.
    pub rejection_tries: Option<usize>,
    /// Instead of the temperature of `[generation]`.
    pub temperature: Option<f64>,
    /// Put behind every question, inside the user message.
    pub prompt_suffix: Option<String>,
    /// Tokens of thinking that `prompt_suffix` asks for at most; in the place of the limit when
    /// Control is counted.
    pub asked: Option<usize>,
    /// Or the name of a budget: `prompt_suffix` asks for less thinking than under that one, as the
    /// paper's prompt for short thinking does.
    pub asked_below: Option<String>,
    /// The same for more thinking, as the paper's prompt for long thinking asks.
    pub asked_above: Option<String>,
    /// The accuracy in percent that others have published for it, by the task's name.
    #[serde(default)]
    pub published: BTreeMap<String, f64>,
    /// The same of the majority of so many answers: pairs of their number and the percentage.
    #[serde(default)]
    pub published_majority: BTreeMap<String, Vec<(usize, f64)>>,
}

fn one() -> f64 {
    1.0
}

fn default_until() -> Vec<String> {
    vec!["<|im_end|>".into()]
}

fn default_thinking_start() -> String {
    "<|im_start|>think".into()
}

fn default_thinking_end() -> String {
    "<|im_start|>answer".into()
}

fn default_until_thinking() -> Vec<String> {
    vec!["<|im_start|>".into()]
}

impl Generation {
    /// With the task's own settings where these say nothing.
    pub fn of(&self, task: &Task) -> Self {
        Generation {
            max_gen_toks: self.max_gen_toks.or(task.max_gen_toks),
            temperature: self.temperature.or(task.temperature),
            ..self.clone()
        }
    }

    /// Ids of answer at most.
    ///
    /// # Errors
    /// When nobody said it.
    pub fn max_gen_toks(&self) -> Result<usize> {
        self.max_gen_toks.context("generation.max_gen_toks is missing: tokens of answer at most")
    }

    /// How ids are drawn, under a budget if there is one.
    pub fn sampling(&self, budget: Option<&Budget>) -> Sampling {
        Sampling {
            temperature: budget.and_then(|b| b.temperature).or(self.temperature).unwrap_or(0.0),
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
        }
    }

    /// What stands behind thinking that ended by itself, or whose budget ran out.
    fn closing(&self, ran_out: bool) -> String {
        match (self.procedure, ran_out) {
            (Procedure::Readme, _) => String::new(), // the model opens its answer itself
            (Procedure::Harness, false) => self.thinking_end.clone(),
            (Procedure::Harness, true) => self
                .thinking_end_max
                .clone()
                .unwrap_or_else(|| format!("{}\nFinal Answer:", self.thinking_end)),
        }
    }
}

impl Budget {
    pub(super) fn check(&self, procedure: Procedure, sampling: &Sampling) -> Result<()> {
        let most = self.max_tokens()?;
        ensure!(
            self.thinking_n_ignore_str.is_none() || self.thinking_n_ignore.is_some(),
            "thinking_n_ignore_str without thinking_n_ignore: say how many ends to ignore"
        );
        ensure!(
            self.min_tokens_thinking.is_none() || self.thinking_n_ignore.is_none(),
            "min_tokens_thinking with thinking_n_ignore: ignoring sets the minimum to 1; drop one"
        );
        if let (Some(least), Some(MaxTokens::Count(most))) = (self.min_tokens_thinking, most) {
            ensure!(
                least <= most,
                "min_tokens_thinking is {least}, more than max_tokens_thinking, which is {most}"
            );
        }
        ensure!(
            self.min_tokens_thinking.is_none() || procedure == Procedure::Harness,
            "min_tokens_thinking: the README's procedure knows no minimum; drop one"
        );
        let Some(tries) = self.rejection_tries else { return Ok(()) };
        ensure!(tries > 0, "rejection_tries is 0: nothing would be sampled");
        ensure!(
            !matches!(most, None | Some(MaxTokens::Count(0))),
            "rejection_tries without a max_tokens_thinking to stay within"
        );
        ensure!(
            sampling.temperature > 0.0,
            "rejection_tries at temperature 0: every try would be the same; s1 has temperature 1"
        );
        ensure!(
            self.thinking_n_ignore.is_none() && procedure == Procedure::Harness,
            "rejection_tries goes neither with thinking_n_ignore nor with the README's procedure"
        );
        Ok(())
    }

    /// Is any thinking forced? As in the harness, any of the thinking keys does it.
    pub fn forces_thinking(&self) -> bool {
        self.max_tokens_thinking.is_some()
            || self.min_tokens_thinking.is_some()
            || self.thinking_n_ignore.is_some()
    }

    /// The key `max_tokens_thinking` as it was meant.
    pub fn max_tokens(&self) -> Result<Option<MaxTokens>> {
        Ok(match &self.max_tokens_thinking {
            None => None,
            Some(toml::Value::String(word)) if word == "auto" => Some(MaxTokens::Auto),
            Some(toml::Value::Integer(count)) if *count >= 0 => {
                Some(MaxTokens::Count(*count as usize))
            }
            Some(other) => bail!("max_tokens_thinking = {other}: give 0, 1, 2, … or \"auto\""),
        })
    }
}

/// The [`Spec`] of every budget, in the config's order.
///
/// # Errors
/// When a stop is not a single token of this tokenizer.
pub fn specs(
    keys: &Generation,
    budgets: &[Budget],
    max_model_len: usize,
    tokenizer: &Tokenizer,
) -> Result<Vec<Arc<Spec>>> {
    let max_gen_toks = keys.max_gen_toks()?;
    let single = |text: &String| -> Result<i64> {
        match tokenizer.encode_fixed(text)?[..] {
            [id] => Ok(id),
            ref ids => bail!(
                "the stop {text:?} is {} tokens of this checkpoint's tokenizer; a stop must be \
                 exactly one, such as <|im_end|>",
                ids.len()
            ),
        }
    };
    let until = keys.until.iter().map(single).collect::<Result<Vec<_>>>();
    let until = until.context("generation.until")?;
    let (mut until_thinking, mut until_texts) = (Vec::new(), Vec::new());
    for text in &keys.until_thinking {
        match tokenizer.encode_fixed(text)?[..] {
            [id] => until_thinking.push(id),
            _ => until_texts.push(text.clone()),
        }
    }
    until_thinking.extend(&until);
    let ends_line = ends_line(tokenizer)?;
    let thinking = |budget: &Budget| -> Result<Thinking> {
        let fallback = MaxTokens::Count(max_gen_toks); // the harness's default
        let ignore = budget.thinking_n_ignore_str.as_deref().unwrap_or_default();
        let closing = keys.closing(true);
        // The harness's own exception, for delimiters that bring their new line along.
        let brings = keys.thinking_start.starts_with('\n') || closing.starts_with('\n');
        let newline = if brings || closing.is_empty() { "" } else { "\n" };
        let min_tokens = match budget.thinking_n_ignore {
            Some(_) => 1,
            None => budget.min_tokens_thinking.unwrap_or(0),
        };
        Ok(Thinking {
            max_tokens: budget.max_tokens()?.unwrap_or(fallback),
            min_tokens,
            until: until_thinking.clone(),
            until_texts: until_texts.clone(),
            n_ignore: budget.thinking_n_ignore.unwrap_or(0),
            ignore: tokenizer.encode_text(ignore)?,
            thinking_end_max: tokenizer.encode_fixed(&closing)?,
            newline: tokenizer.encode_text(newline)?,
            ends_line: ends_line.clone(),
            procedure: keys.procedure,
            tries: budget.rejection_tries,
        })
    };
    let spec = |budget: &Budget| -> Result<Arc<Spec>> {
        let forces = budget.forces_thinking();
        let thinking_end = if forces { keys.closing(false) } else { keys.thinking_end.clone() };
        Ok(Arc::new(Spec {
            thinking_start: tokenizer.encode_fixed(&keys.thinking_start)?,
            thinking_end: tokenizer.encode_fixed(&thinking_end)?,
            thinking: forces.then(|| thinking(budget)).transpose()?,
            until: until.clone(),
            min_gen_toks: 0,
            max_gen_toks,
            max_model_len,
        }))
    };
    budgets.iter().map(spec).collect()
}

/// Every id whose text ends with a new line.
fn ends_line(tokenizer: &Tokenizer) -> Result<BTreeSet<i64>> {
    let mut ids = BTreeSet::new();
    for id in 0..tokenizer.vocab_size() {
        if tokenizer.decode(&[id])?.ends_with('\n') {
            ids.insert(id);
        }
    }
    Ok(ids)
}
