//! `infer generate`: prompts in, tokens and texts out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use model::chat::Chat;
use record::publish::{self, Manifest, OutputFolder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::budget::{Ending, Spec};
use crate::config::{self, Budget, Endpoint, Engine, Generation, Model};
use crate::engine::Request;
use crate::journal::{self, Journal};
use crate::run;

/// A whole run; the annotated example is `configs/infer/generate.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder to publish.
    pub output: PathBuf,
    /// For sampling at a temperature above 0.
    pub seed: u64,
    /// A folder that keeps every finished completion for later runs. Without it they are kept
    /// beside the output until it is published.
    pub cache: Option<PathBuf>,
    /// The weights, or only the tokenizer if there is an endpoint.
    pub model: Model,
    /// How much is written at once.
    #[serde(default)]
    pub engine: Engine,
    /// A server that writes instead of weights on this machine.
    pub endpoint: Option<Endpoint>,
    /// What is continued.
    pub prompts: Prompts,
    /// Limits, sampling, and the strings of the format.
    pub generation: Generation,
    /// Completions of each prompt under each budget.
    #[serde(default = "one")]
    pub samples: usize,
    /// Also the log-probabilities of the sampled tokens and of so many likeliest ones.
    pub logprobs: Option<usize>,
    /// Each prompt is continued under each of these; once and without forcing if there is none.
    #[serde(default, rename = "budget")]
    pub budgets: Vec<Budget>,
}

/// `[prompts]`: a JSONL file with a prompt a line.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompts {
    /// The file.
    pub path: PathBuf,
    /// The column of the prompt: a text, or a list of token ids.
    pub prompt: String,
    /// The column that names a row in the output.
    pub id: Option<String>,
    /// Only the first rows of the file.
    pub limit: Option<usize>,
    /// Whether a text is a user's message, to be put into the model's chat template. Otherwise it
    /// is continued as it is.
    pub chat: bool,
}

/// A line of `completions.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// The row of the prompts' file, from 0.
    pub row: usize,
    /// The row's own name, if the prompts have such a column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// The budget's name, if there are budgets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
    /// Which of the prompt's completions, from 0.
    pub sample: usize,
    /// Ids of the prompt.
    pub prompt_tokens: usize,
    /// The text behind the prompt, forced parts included, up to a stop.
    pub text: String,
    /// Its ids.
    pub token_ids: Vec<i64>,
    /// How thinking ended, if it was forced: `stop`, `length` or `context`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking_ending: Option<Ending>,
    /// How it all ended.
    pub ending: Ending,
    /// Of the sampled ids, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<Logprob>>,
}

/// A sampled id's log-probability.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Logprob {
    /// Its place in `token_ids`.
    pub at: usize,
    /// The natural logarithm.
    pub logprob: f64,
    /// The likeliest ids with theirs, likeliest first.
    pub top: Vec<(i64, f64)>,
}

/// A row of the prompts' file.
struct Prompt {
    id: Option<Value>,
    ids: Arc<[i64]>,
}

fn one() -> usize {
    1
}

impl Config {
    /// Refuses values that TOML's types let through.
    pub fn check(&self) -> Result<()> {
        ensure!(self.samples > 0, "samples is 0: nothing would be written");
        let greedy = |budget| self.generation.sampling(budget).temperature == 0.0;
        let all_greedy = match self.budgets.is_empty() {
            true => greedy(None),
            false => self.budgets.iter().all(|budget| greedy(Some(budget))),
        };
        ensure!(
            self.samples == 1 || !all_greedy,
            "samples is {}, but at temperature 0 all completions of a prompt are the same; set \
             generation.temperature",
            self.samples
        );
        let suffix = self.budgets.iter().any(|budget| budget.prompt_suffix.is_some());
        ensure!(!suffix, "prompt_suffix is for `infer eval`: put the text into the prompts");
        config::check(&self.model, &self.engine, &self.generation, &self.budgets)
    }
}

/// Runs the config at `path` with the overrides `sets` and publishes its output folder.
pub fn run(path: &Path, sets: &[String], overwrite: bool) -> Result<()> {
    let (config, table) = record::config::load::<Config>(path, sets)?;
    config.check().with_context(|| path.display().to_string())?;
    let folder = model::hub::model_folder(&config.model.path)
        .context("no model to write with (train first, or name its folder in model.path)")?;
    let output = OutputFolder::create(&config.output, overwrite)?;
    let chat = run::chat(&config.model, &folder)?;
    let prompts = prompts(&config.prompts, &chat)?;
    let forces = config.prompts.chat && config.budgets.iter().any(Budget::forces_thinking);
    let opens = !config.generation.thinking_start.is_empty();
    ensure!(!(forces && opens && chat.opens_thinking()), run::OPENED);
    let plain = [Budget::default()];
    let budgets = if config.budgets.is_empty() { &plain[..] } else { &config.budgets };
    let (keys, longest) = (&config.generation, config.model.max_model_len);
    let specs = config::specs(keys, budgets, longest, &chat.tokenizer)
        .with_context(|| path.display().to_string())?;
    let (requests, mut lines) = requests(&config, budgets, &specs, &prompts)?;
    let mut weights = publish::input(&folder, None)?;
    weights.path = config.model.path.clone(); // not the place of a hub model in this cache
    let file = publish::input(&config.prompts.path, Some(prompts.len() as u64))?;
    let endpoint = config.endpoint.as_ref();
    let who = run::who_answers(&config.model, &config.engine, endpoint, &weights);
    let kept = journal::folder(&config.output, config.cache.as_ref())?;
    let mut journal = Journal::open(&kept, 0, who, true)?;
    let completions = journal.answer(&requests, || {
        run::answerer(&config.model, &config.engine, endpoint, &folder, &chat)
    })?;
    for (line, completion) in lines.iter_mut().zip(completions) {
        let outcome = completion.outcome;
        (line.text, line.token_ids) = (completion.text, outcome.ids);
        (line.thinking_ending, line.ending) = (outcome.thinking_ending, outcome.ending);
        let written = line.token_ids.len();
        let logprobs = completion.logprobs.into_iter().filter(|scored| scored.at < written);
        let logprobs = logprobs.map(|s| Logprob { at: s.at, logprob: s.logprob, top: s.top });
        line.logprobs = config.logprobs.map(|_| logprobs.collect());
    }
    record::jsonl::write(&output.path().join("completions.jsonl"), &lines)?;
    output.finish(Manifest {
        tool: "infer".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        command: publish::command(),
        config: table,
        inputs: vec![weights, file],
        seeds: [("sampling".to_string(), config.seed)].into(),
        files: Default::default(),
    })?;
    if config.cache.is_none() {
        journal.remove()?;
    }
    println!("everything is in {}", config.output.display());
    Ok(())
}

/// Reads the prompts, in the file's order.
fn prompts(keys: &Prompts, chat: &Chat) -> Result<Vec<Prompt>> {
    let place = keys.path.display();
    let rows = record::jsonl::read_numbered::<Map<String, Value>>(&keys.path)
        .context("cannot read the prompts")?;
    let mut prompts = Vec::new();
    for row in rows.take(keys.limit.unwrap_or(usize::MAX)) {
        let (line, row) = row?;
        let column = &keys.prompt;
        let ids = match row.get(column) {
            Some(Value::String(text)) if keys.chat => chat.prompt(text)?,
            Some(Value::String(text)) => chat.tokenizer.encode_text(text)?,
            Some(Value::Array(_)) => serde_json::from_value(row[column].clone())
                .with_context(|| format!("{place} line {line}: `{column}` is no list of ids"))?,
            Some(_) => bail!("{place} line {line}: `{column}` is neither a text nor a list of ids"),
            None => bail!("{place} line {line}: there is no column `{column}`"),
        };
        let known = ids.iter().all(|id| (0..chat.tokenizer.vocab_size()).contains(id));
        ensure!(
            !ids.is_empty() && known,
            "{place} line {line}: `{column}` is empty or has an id \
            that the tokenizer does not have"
        );
        let id = keys.id.as_ref().and_then(|column| row.get(column)).cloned();
        prompts.push(Prompt { id, ids: ids.into() });
    }
    ensure!(!prompts.is_empty(), "{place}: there are no prompts");
    Ok(prompts)
}

/// What is asked, and the lines that it will fill: by row, then budget, then sample.
fn requests(
    config: &Config,
    budgets: &[Budget],
    specs: &[Arc<Spec>],
    prompts: &[Prompt],
) -> Result<(Vec<Request>, Vec<Line>)> {
    let (mut requests, mut lines) = (Vec::new(), Vec::new());
    for (row, prompt) in prompts.iter().enumerate() {
        for (budget, spec) in budgets.iter().zip(specs) {
            ensure!(
                spec.least_len(prompt.ids.len()) < spec.max_model_len,
                "row {row} of {} has {} tokens, which leave no room to write in \
                 model.max_model_len = {}; raise it or leave the row out",
                config.prompts.path.display(),
                prompt.ids.len(),
                spec.max_model_len
            );
            if let Some((most, room)) = spec.too_much_thinking(prompt.ids.len(), 1) {
                bail!(
                    "budget {:?}: behind {most} tokens of thinking no answer to row {row} of {} \
                     fits: model.max_model_len is {}, which leaves {room} for thinking; raise it, \
                     or lower the budget",
                    budget.name,
                    config.prompts.path.display(),
                    spec.max_model_len
                );
            }
            for sample in 0..config.samples {
                // The draws know neither the row nor the budget: a prompt's completions do not
                // depend on the rest of the file, and budgets share what they have in common.
                let purpose = ["generate", &format!("{:?}", prompt.ids), &sample.to_string()];
                requests.push(Request {
                    name: format!("row {row}, sample {sample}"),
                    prompt: Arc::clone(&prompt.ids),
                    spec: Arc::clone(spec),
                    sampling: config.generation.sampling(Some(budget)),
                    seed: record::seed::rng(config.seed, &purpose).next_u64(),
                    stop: config.generation.stop.clone(),
                    logprobs: config.logprobs,
                    prompt_logprobs: None,
                    logit_bias: vec![],
                });
                lines.push(Line {
                    row,
                    id: prompt.id.clone(),
                    budget: (!config.budgets.is_empty()).then(|| budget.name.clone()),
                    sample,
                    prompt_tokens: prompt.ids.len(),
                    text: String::new(),
                    token_ids: Vec::new(),
                    thinking_ending: None,
                    ending: Ending::Stop,
                    logprobs: None,
                });
            }
        }
    }
    Ok((requests, lines))
}
