//! The TOML of an evaluation run.

mod generation;
mod metrics;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::task::Task;
pub use generation::{Budget, Generation, specs};
pub use metrics::{Measured, PublishedMetrics};

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
    /// Budgets that are measured together, besides those that differ in their limit alone.
    #[serde(default)]
    pub metrics: Vec<Measured>,
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
    /// Memory of each rank for keys and values, in GiB; on the CPU only what is used of it is
    /// taken. Default: 4, or what one sequence of the greatest length takes, if that is more.
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

fn once() -> usize {
    1
}

fn none_ignored() -> Vec<usize> {
    vec![0]
}

impl Config {
    /// Refuses values that TOML's types let through; reads the tasks' files, not their tables.
    pub fn check(&self) -> Result<()> {
        ensure!(self.repeats > 0, "repeats is 0: nothing would be asked");
        ensure!(self.limit != Some(0), "limit is 0: nothing would be asked");
        let budgets = self.budgets();
        ensure!(!budgets.is_empty(), "there is no [[budget]]: add at least one, with a name");
        self.metrics.iter().try_for_each(|metrics| metrics.check(&budgets))?;
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
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(
        model.threads.is_none_or(|threads| (1..=cores).contains(&threads)),
        "model.threads is {}, and this process may use {cores} cores; leave it out for all of them",
        model.threads.unwrap_or_default()
    );
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
        check_name("budget", name)?;
        ensure!(names.insert(name), "two budgets are named {name:?}");
        for other in budget.asked_below.iter().chain(&budget.asked_above) {
            ensure!(
                other != name && budgets.iter().any(|budget| budget.name == *other),
                "budget {name:?}: asked_below and asked_above name another budget of this config, \
                 and {other:?} is none"
            );
        }
        let sampling = generation.sampling(Some(budget));
        budget
            .check(generation.procedure, &sampling)
            .and(sampling.check())
            .with_context(|| format!("budget {name:?}"))?;
    }
    Ok(())
}

/// Refuses a name of a `what` that cannot be part of a file's name.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    ensure!(
        (1..=100).contains(&name.len()) && !name.starts_with('.') && name.chars().all(legal),
        "{what} name {name:?}: it names files, so use 1 to 100 letters, digits, `-`, `_` and `.`"
    );
    Ok(())
}

/// Every seed of the run by what it seeds, for the manifest.
pub fn seeds(config: &Config) -> BTreeMap<String, u64> {
    BTreeMap::from([("sampling".to_string(), config.seed)])
}
