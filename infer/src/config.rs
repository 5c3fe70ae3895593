//! The TOML of an evaluation run, and how its strings become token ids.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use model::Tokenizer;
use serde::Deserialize;

use crate::budget::{MaxTokens, Procedure, Spec, Thinking};
use crate::engine::Sampling;
use crate::task::Task;

/// A whole run; the annotated example is `configs/infer/aime24.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder to publish.
    pub output: PathBuf,
    /// For sampling at a temperature above 0.
    pub seed: u64,
    /// Who answers.
    pub model: Model,
    /// How much is answered at once.
    #[serde(default)]
    pub engine: Engine,
    /// A server that answers instead of weights on this machine.
    pub endpoint: Option<Endpoint>,
    /// A folder that keeps every finished completion for later runs, each under all that it
    /// depends on. Without it they are kept beside the output until it is published.
    pub cache: Option<PathBuf>,
    /// What is asked: files such as those of `configs/tasks`.
    #[serde(default)]
    pub tasks: Vec<PathBuf>,
    /// Instead of `tasks`: one, written here.
    pub task: Option<Task>,
    /// Only the first rows of each task.
    pub limit: Option<usize>,
    /// Answers to each question under each budget.
    #[serde(default = "once")]
    pub repeats: usize,
    /// Files of published points to stand beside ours.
    #[serde(default)]
    pub published: Vec<PathBuf>,
    /// What holds for every budget.
    pub generation: Generation,
    /// One evaluation each, in this order.
    #[serde(default, rename = "budget")]
    pub budgets: Vec<Budget>,
    /// Budgets behind those: every limit with every number of ignored ends.
    pub curve: Option<Grid>,
}

/// `[curve]`: a grid of budgets.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Integers or "auto".
    pub max_tokens_thinking: Vec<toml::Value>,
    /// Ends of thinking that are ignored.
    #[serde(default = "none_ignored")]
    pub thinking_n_ignore: Vec<usize>,
    /// What stands in the place of each; nothing by default.
    pub thinking_n_ignore_str: Option<String>,
}

/// `[model]`: the weights, and where and how they run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// A folder in Hugging Face layout, or a repository of the hub (`owner/name`).
    pub path: String,
    /// Where the model runs.
    pub device: Device,
    /// The kind that weights and activations have, whatever the checkpoint stores.
    pub dtype: Dtype,
    /// Ids of prompt, thinking and answer together at most (vLLM's name).
    pub max_model_len: usize,
    /// Threads that compute together on the CPU. The results do not depend on it. Default: as many
    /// as the machine has cores.
    pub threads: Option<usize>,
    /// Ranks that share the model, each with its part of every layer and of the cache: for one
    /// that is too large for a device. They are started here unless a launcher has done it.
    #[serde(default = "one_rank")]
    pub tensor_parallel: usize,
}

fn one_rank() -> usize {
    1
}

/// `[engine]`: how much is done at once. On the CPU the results do not depend on it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Sequences that are written at once.
    pub slots: usize,
    /// Memory for keys and values at most, in GiB; less is taken if all slots need less. Default:
    /// 4, or what one sequence of the greatest length takes, if that is more.
    pub cache_gib: Option<f64>,
    /// Tokens of prompts and forced continuations in one pass at most.
    pub prefill_chunk: usize,
}

impl Default for Engine {
    fn default() -> Self {
        Engine { slots: 16, cache_gib: None, prefill_chunk: 256 }
    }
}

/// `[endpoint]`: an OpenAI-compatible server, asked for completions.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The file of its replies, so that none is paid twice.
    pub cache: PathBuf,
    /// Whether it takes prompts as token ids and gives ids back, as vLLM does; else text is sent,
    /// and replies are tokenised here.
    pub token_ids: bool,
    /// The server, its model and its limits.
    pub server: endpoint::Settings,
}

/// `model.device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// All cores, see [`Model::threads`].
    Cpu,
    /// A GPU for each rank, the first for one; an error where libtorch sees none.
    Cuda,
}

impl Device {
    /// As the config has it.
    pub fn name(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Cuda => "cuda",
        }
    }
}

/// `model.dtype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE single precision, s1's own choice for its scores.
    Float32,
    /// Half the memory; some greedy answers differ.
    BFloat16,
}

impl Dtype {
    /// As the config has it.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Float32 => "float32",
            Dtype::BFloat16 => "bfloat16",
        }
    }
}

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
    /// The accuracy in percent that others have published for it, by the task's name.
    #[serde(default)]
    pub published: BTreeMap<String, f64>,
}

fn one() -> f64 {
    1.0
}

fn once() -> usize {
    1
}

fn none_ignored() -> Vec<usize> {
    vec![0]
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

impl Config {
    /// Refuses values that TOML's types let through; reads the tasks' files, not their tables.
    pub fn check(&self) -> Result<()> {
        ensure!(self.repeats > 0, "repeats is 0: nothing would be asked");
        ensure!(self.limit != Some(0), "limit is 0: nothing would be asked");
        let budgets = self.budgets();
        ensure!(!budgets.is_empty(), "there is no [[budget]]: add at least one, with a name");
        let tasks = self.tasks()?;
        let greedy = |t: &Task| self.generation.of(t).sampling(None).temperature == 0.0;
        let greedy = |t: &Task| greedy(t) && budgets.iter().all(|b| b.temperature.is_none());
        if let (2.., Some(task)) = (self.repeats, tasks.iter().find(|task| greedy(task))) {
            bail!(
                "repeats is {}, but at temperature 0 all answers to a question of task {} are the \
                 same; set generation.temperature",
                self.repeats,
                task.name
            );
        }
        for task in tasks {
            check(&self.model, &self.engine, &self.generation.of(&task), &budgets)
                .with_context(|| format!("task {}", task.name))?;
        }
        Ok(())
    }

    /// The tasks in the order in which they are asked.
    ///
    /// # Errors
    /// Name the file that is no task, or two tasks with one name.
    pub fn tasks(&self) -> Result<Vec<Task>> {
        ensure!(
            self.tasks.is_empty() == self.task.is_some(),
            "what is to be asked? Give either `tasks`, a list of files, or a section [task]"
        );
        let read = |path: &PathBuf| Ok(record::config::load::<Task>(path, &[])?.0);
        let mut tasks = self.tasks.iter().map(read).collect::<Result<Vec<Task>>>()?;
        tasks.extend(self.task.clone());
        let mut names = BTreeSet::new();
        for task in &tasks {
            task.check()?;
            ensure!(names.insert(task.name.clone()), "two tasks are named {:?}", task.name);
        }
        Ok(tasks)
    }

    /// The budgets: those that are written out, and those of the grid.
    pub fn budgets(&self) -> Vec<Budget> {
        let grid = self.curve.iter().flat_map(Grid::budgets);
        self.budgets.iter().cloned().chain(grid).collect()
    }
}

impl Grid {
    fn budgets(&self) -> Vec<Budget> {
        let mut budgets = Vec::new();
        for n in &self.thinking_n_ignore {
            for limit in &self.max_tokens_thinking {
                let name = limit.as_str().map_or_else(|| limit.to_string(), String::from);
                let ignores = *n > 0;
                budgets.push(Budget {
                    name: if ignores { format!("{name}-ignore{n}") } else { name },
                    max_tokens_thinking: Some(limit.clone()),
                    thinking_n_ignore: ignores.then_some(*n),
                    thinking_n_ignore_str: self.thinking_n_ignore_str.clone().filter(|_| ignores),
                    ..Budget::default()
                });
            }
        }
        budgets
    }
}

/// Refuses values of these sections that TOML's types let through.
pub fn check(
    model: &Model,
    engine: &Engine,
    generation: &Generation,
    budgets: &[Budget],
) -> Result<()> {
    ensure!(model.threads != Some(0), "model.threads is 0; leave it out for all cores");
    ensure!(model.tensor_parallel > 0, "model.tensor_parallel is 0; 1 is a model on one rank");
    ensure!(engine.slots > 0, "engine.slots is 0: nothing would be written");
    ensure!(engine.prefill_chunk > 0, "engine.prefill_chunk is 0: no prompt would be read");
    ensure!(generation.max_gen_toks()? > 0, "generation.max_gen_toks is 0: no answer fits");
    ensure!(!generation.until.is_empty(), "generation.until is empty: nothing would stop");
    ensure!(!generation.stop.iter().any(String::is_empty), "generation.stop holds an empty text");
    let empty = generation.until_thinking.iter().any(String::is_empty);
    ensure!(!empty, "generation.until_thinking holds an empty text");
    generation.sampling(None).check().context("generation")?;
    let mut names = BTreeSet::new();
    for budget in budgets {
        let name = &budget.name;
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        ensure!(
            !name.is_empty() && !name.starts_with('.') && name.chars().all(legal),
            "budget name {name:?}: it names a file, so use letters, digits, `-`, `_` and `.`"
        );
        ensure!(names.insert(name), "two budgets are named {name:?}");
        let sampling = generation.sampling(Some(budget));
        budget
            .check(generation.procedure, &sampling)
            .and(sampling.check())
            .with_context(|| format!("budget {name:?}"))?;
    }
    Ok(())
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
    fn check(&self, procedure: Procedure, sampling: &Sampling) -> Result<()> {
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

/// Every seed of the run by what it seeds, for the manifest.
pub fn seeds(config: &Config) -> BTreeMap<String, u64> {
    BTreeMap::from([("sampling".to_string(), config.seed)])
}
