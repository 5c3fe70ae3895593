//! `infer eval`: from config to published folder.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use model::Config as ModelConfig;
use model::chat::Chat;
use record::publish::{self, Input, Manifest, OutputFolder};
use record::question::question_hash;

use crate::budget::Spec;
use crate::config::{self, Budget, Config, Device, Generation};
use crate::engine::{Completion, Generate, Request, local};
use crate::forced;
use crate::journal::{self, Journal};
use crate::lm_eval::{self, Part};
use crate::points::{self, Published};
use crate::remote::Remote;
use crate::report::{self, Results, SAMPLES, Sample};
use crate::report_page;
use crate::shares::{self, Share};
use crate::task::{self, Question, Task};

/// Runs the config at `path` with the overrides `sets`, publishes its output folder and prints the
/// table. Several `ranks` are processes of this program that answer a share of the questions each.
pub fn eval(path: &Path, sets: &[String], overwrite: bool, ranks: usize) -> Result<()> {
    let (config, table) = record::config::load::<Config>(path, sets)?;
    config.check().with_context(|| path.display().to_string())?;
    let folder = model::hub::model_folder(&config.model.path)
        .context("no model to evaluate (train first, or name its folder in model.path)")?;
    if let Some(share) = Share::of_this_process()? {
        return answer_share(&config, &folder, &share);
    }
    check_ranks(&config, ranks)?;
    let output = OutputFolder::create(&config.output, overwrite)?;
    let chat = chat(&config.model, &folder)?;
    let evaluation = Evaluation::new(&config, &chat).with_context(|| path.display().to_string())?;
    evaluation.announce();
    let published = config.published.iter().map(|file| points::read(file));
    let published: Vec<Published> = published.collect::<Result<Vec<_>>>()?.concat();
    let mut weights = publish::input(&folder, None)?;
    weights.path = config.model.path.clone(); // not the place of a hub model in this cache
    let who = who_answers(&config.model, &config.engine, config.endpoint.as_ref(), &weights);
    let kept = journal::folder(&config.output, config.cache.as_ref())?;
    let mut journal = Journal::open(&kept, ranks, who.clone(), true)?;
    let requests = evaluation.requests();
    let missing = if ranks > 1 { journal.missing(&requests)? } else { 0 };
    if missing > 0 {
        shares::launch(ranks, &who, &config.model, missing)?;
    }
    let completions = journal.answer(&requests, || {
        answerer(&config.model, &config.engine, config.endpoint.as_ref(), &folder, &chat)
    })?;
    let jobs = evaluation.jobs().zip(completions);
    let samples = jobs.map(|(job, done)| evaluation.sample(job, done));
    let samples = samples.collect::<Result<Vec<Sample>>>()?;

    let results = evaluation.results(&samples)?;
    let summary = report::summary(&config, &evaluation.budgets, &results);
    record::jsonl::write(&output.path().join(SAMPLES), &samples)?;
    evaluation.write_for_lm_eval(output.path(), &samples, &results)?;
    let attempts = report::attempts(&results.model, &samples);
    record::table::write_attempts(&output.path().join("attempts.parquet"), &attempts)?;
    output.write("results.json", &(serde_json::to_string_pretty(&results)? + "\n"))?;
    output.write("summary.txt", &summary)?;
    let page = report_page::html(&results, &samples, &published, &table)?;
    output.write("report.html", &page)?;
    let tables = evaluation.tasks.iter().flat_map(|task| task.inputs.clone());
    let points = config.published.iter().map(|file| publish::input(file, None));
    let points = points.collect::<Result<Vec<Input>>>()?;
    output.finish(Manifest {
        tool: "infer".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        command: publish::command(),
        config: table,
        inputs: [weights].into_iter().chain(tables).chain(points).collect(),
        seeds: config::seeds(&config),
        files: Default::default(),
    })?;
    if config.cache.is_none() {
        journal.remove()?;
    }
    print!("{summary}");
    println!("everything is in {0}; open {0}/report.html", config.output.display());
    Ok(())
}

/// Refuses ranks that would be in each other's way.
fn check_ranks(config: &Config, ranks: usize) -> Result<()> {
    ensure!(ranks > 0, "--ranks 0: nobody would answer");
    ensure!(
        ranks == 1 || config.endpoint.is_none(),
        "--ranks {ranks} with [endpoint]: one process asks a server for all; raise \
         endpoint.server.concurrency instead"
    );
    ensure!(
        ranks == 1 || std::env::var_os("RANK").is_none(),
        "--ranks {ranks} under a launcher that has set RANK: run it alone; it starts its processes"
    );
    Ok(())
}

/// Answers a share of the questions into the journal of the process that asked for it.
fn answer_share(config: &Config, folder: &Path, share: &Share) -> Result<()> {
    let chat = chat(&config.model, folder)?;
    let evaluation = Evaluation::new(config, &chat)?;
    let kept = journal::folder(&config.output, config.cache.as_ref())?;
    let mut journal = Journal::open(&kept, share.rank, share.who.clone(), false)?;
    let answers = journal.answer(&share.of(evaluation.requests()), || {
        answerer(&config.model, &config.engine, config.endpoint.as_ref(), folder, &chat)
    });
    answers.map(drop).with_context(|| format!("rank {}", share.rank))
}

/// All that a completion depends on besides its request.
pub fn who_answers(
    model: &config::Model,
    engine: &config::Engine,
    endpoint: Option<&config::Endpoint>,
    weights: &Input,
) -> String {
    let config::Model { path: _, device, dtype, max_model_len: _, threads: _, tensor_parallel } =
        model;
    let weights = &weights.sha256;
    // Where the kernels of this program compute, what else is asked changes nothing.
    let own_kernels = *device == Device::Cpu && c10d::kernels::Isa::best().is_some();
    let batch = (!own_kernels).then_some((engine.slots, engine.prefill_chunk));
    match endpoint {
        None => format!("{weights} {device:?} {dtype:?} on {tensor_parallel} ranks, {batch:?}"),
        Some(endpoint) => {
            let (server, ids) = (&endpoint.server, endpoint.token_ids);
            format!("{} {} ids: {ids}, tokenizer {weights}", server.base_url, server.model)
        }
    }
}

/// [`eval`] of a config that has a grid of budgets.
pub fn curve(path: &Path, sets: &[String], overwrite: bool, ranks: usize) -> Result<()> {
    let (config, _) = record::config::load::<Config>(path, sets)?;
    ensure!(
        config.curve.is_some(),
        "{}: there is no section [curve], a grid of budgets such as that of \
         configs/real/curve.toml; without one use `infer eval`",
        path.display()
    );
    eval(path, sets, overwrite, ranks)
}

/// The tokenizer of a model that has room for what the config asks, and its template if it has one.
pub fn chat(model: &config::Model, folder: &Path) -> Result<Chat> {
    let place = || format!("model.path {:?}", model.path);
    let chat = Chat::read(folder).with_context(place)?;
    let shape = ModelConfig::read(folder).with_context(place)?;
    let (ids, rows) = (chat.tokenizer.vocab_size(), shape.vocab_size);
    ensure!(
        ids <= rows,
        "model.path {:?}: tokenizer.json has ids up to {}, but the model has only {rows} rows for \
         them; the folder mixes two models: take the tokenizer that the weights were trained with",
        model.path,
        ids - 1
    );
    let positions = shape.max_position_embeddings;
    ensure!(
        model.max_model_len as i64 <= positions,
        "model.max_model_len is {}, but this model has {positions} positions; lower it",
        model.max_model_len
    );
    Ok(chat)
}

/// Who answers: the weights in `folder`, or a server with the same tokenizer.
pub fn answerer(
    model: &config::Model,
    engine: &config::Engine,
    endpoint: Option<&config::Endpoint>,
    folder: &Path,
    chat: &Chat,
) -> Result<Box<dyn Generate>> {
    let tokenizer = Arc::new(chat.tokenizer.clone());
    Ok(match endpoint {
        Some(endpoint) => Box::new(Remote::open(endpoint, tokenizer)?),
        None => Box::new(local::load(folder, tokenizer, model, engine)?),
    })
}

/// A config that would open thinking where the template has done it.
pub const OPENED: &str = "the model's chat template opens thinking itself: set \
    generation.thinking_start = \"\", and thinking_end and until_thinking to what ends it there";

/// Every question of every task under every budget.
struct Evaluation<'a> {
    config: &'a Config,
    chat: &'a Chat,
    budgets: Vec<Budget>,
    tasks: Vec<Asked>,
}

/// A task with all that is asked about it.
struct Asked {
    task: Task,
    /// Its tables, for the manifest.
    inputs: Vec<Input>,
    /// The config's section with the task's own settings.
    generation: Generation,
    questions: Vec<Question>,
    /// One for each budget.
    specs: Vec<Arc<Spec>>,
    /// The ids of the prompts, for each budget one for each question.
    prompts: Vec<Vec<Arc<[i64]>>>,
}

/// The place of a sample: which task, budget and question, and which of the answers.
#[derive(Debug, Clone, Copy)]
struct Job {
    task: usize,
    budget: usize,
    question: usize,
    repeat: usize,
}

impl<'a> Evaluation<'a> {
    fn new(config: &'a Config, chat: &'a Chat) -> Result<Self> {
        let budgets = config.budgets();
        let ask = |task| Asked::new(config, task, &budgets, chat);
        let tasks = config.tasks()?.into_iter().map(ask).collect::<Result<Vec<Asked>>>()?;
        Ok(Evaluation { config, chat, budgets, tasks })
    }

    /// Says what is asked.
    fn announce(&self) {
        for asked in &self.tasks {
            eprintln!(
                "task {}: {} questions under {} budgets; the longest prompt has {} tokens",
                asked.task.name,
                asked.questions.len(),
                self.budgets.len(),
                asked.prompts.iter().flatten().map(|prompt| prompt.len()).max().unwrap_or(0)
            );
        }
    }

    /// All that is asked, in the samples' order.
    fn requests(&self) -> Vec<Request> {
        self.jobs().map(|job| self.request(job)).collect()
    }

    /// All samples' places, in the samples' order.
    fn jobs(&self) -> impl Iterator<Item = Job> {
        let (budgets, repeats) = (self.budgets.len(), self.config.repeats);
        self.tasks.iter().enumerate().flat_map(move |(task, asked)| {
            let questions = asked.questions.len();
            (0..budgets * questions * repeats).map(move |n| Job {
                task,
                budget: n / repeats / questions,
                question: n / repeats % questions,
                repeat: n % repeats,
            })
        })
    }

    /// What is asked for a sample. Equal questions draw alike under every budget, so that budgets
    /// differ in nothing but the budget, and share what they have in common.
    fn request(&self, job: Job) -> Request {
        let Job { task, budget, question, repeat } = job;
        let asked = &self.tasks[task];
        let of = &asked.questions[question];
        let (hash, repeat) = (question_hash(&of.question), repeat.to_string());
        let (task, budget_name) = (&asked.task.name, &self.budgets[budget].name);
        Request {
            name: format!("task {task}, question {} under budget {budget_name:?}", of.doc_id),
            prompt: Arc::clone(&asked.prompts[budget][question]),
            spec: Arc::clone(&asked.specs[budget]),
            sampling: asked.generation.sampling(Some(&self.budgets[budget])),
            seed: record::seed::rng(self.config.seed, &["infer", &hash, &repeat]).next_u64(),
            stop: asked.generation.stop.clone(),
            logprobs: None,
            prompt_logprobs: None,
            logit_bias: vec![],
        }
    }

    /// Judges one completion.
    fn sample(&self, job: Job, completion: Completion) -> Result<Sample> {
        let Asked { task, questions, prompts, .. } = &self.tasks[job.task];
        let (question, prompt) = (&questions[job.question], &prompts[job.budget][job.question]);
        let Completion { outcome, text: completion, .. } = completion;
        let tokenizer = &self.chat.tokenizer;
        let forced = forced::spans(tokenizer, &completion, &outcome.ids, &outcome.forced)?;
        let extracted = grading::extract(&completion, task.extract.mode()).map(|found| found.text);
        let verdict = task::grade(task.grading, extracted.as_deref(), &question.target);
        Ok(Sample {
            task: task.name.clone(),
            budget: self.budgets[job.budget].name.clone(),
            doc_id: question.doc_id,
            repeat: job.repeat,
            id: question.id.clone(),
            question: question.question.clone(),
            target: question.target.clone(),
            prompt: tokenizer.decode(prompt)?,
            completion,
            prompt_tokens: prompt.len(),
            thinking_tokens: outcome.thinking.len(),
            answer_tokens: outcome.answer.len(),
            thinking_ending: outcome.thinking_ending,
            ending: outcome.ending,
            tries: outcome.tries,
            extracted,
            correct: verdict.equal,
            rule: verdict.rule.to_string(),
            forced,
            token_ids: outcome.ids,
        })
    }

    /// Every task under every budget, with its samples, in the samples' order.
    fn parts<'b>(
        &self,
        samples: &'b [Sample],
    ) -> impl Iterator<Item = (&Asked, &Budget, &'b [Sample])> {
        let mut left = samples;
        self.tasks.iter().flat_map(move |asked| {
            let (own, others) =
                left.split_at(asked.questions.len() * self.config.repeats * self.budgets.len());
            left = others;
            let chunks = own.chunks(own.len() / self.budgets.len());
            self.budgets.iter().zip(chunks).map(move |(budget, samples)| (asked, budget, samples))
        })
    }

    /// What all samples say.
    fn results(&self, samples: &[Sample]) -> Result<Results> {
        let (budgets, measured) = (&self.budgets, &self.config.metrics);
        let tasks = self.tasks.iter().zip(samples.chunk_by(|a, b| a.task == b.task));
        let tasks =
            tasks.map(|(asked, own)| report::task_result(&asked.task, budgets, measured, own));
        let tasks = tasks.collect::<Result<Vec<_>>>()?;
        let (model, repeats) = (self.config.model.path.clone(), self.config.repeats);
        Ok(Results { model, repeats, tasks })
    }

    fn write_for_lm_eval(
        &self,
        folder: &Path,
        samples: &[Sample],
        results: &Results,
    ) -> Result<()> {
        let mut files = lm_eval::Files::new(self.config)?;
        let rows = results.tasks.iter().flat_map(|task| &task.budgets);
        for ((asked, budget, samples), row) in self.parts(samples).zip(rows) {
            let Asked { task, generation, questions, .. } = asked;
            files.add(folder, &Part { task, generation, budget, questions, samples, row })?;
        }
        files.finish(folder)
    }
}

impl Asked {
    fn new(config: &Config, task: Task, budgets: &[Budget], chat: &Chat) -> Result<Self> {
        let files = task.files()?;
        let questions = task.load(&files, config.limit)?;
        let generation = config.generation.of(&task);
        let forces = budgets.iter().any(Budget::forces_thinking);
        ensure!(!forces || !chat.opens_thinking() || generation.thinking_start.is_empty(), OPENED);
        let longest = config.model.max_model_len;
        let specs = config::specs(&generation, budgets, longest, &chat.tokenizer)?;
        let prompt = |budget: &Budget, question: &Question| -> Result<Arc<[i64]>> {
            let suffix = budget.prompt_suffix.as_deref().unwrap_or_default();
            Ok(chat.prompt(&format!("{}{suffix}", question.question))?.into())
        };
        let prompts = budgets.iter().map(|budget| {
            questions.iter().map(|question| prompt(budget, question)).collect::<Result<Vec<_>>>()
        });
        let prompts = prompts.collect::<Result<Vec<_>>>()?;
        let inputs = files.iter().map(|file| {
            let mut input = publish::input(file, None)?;
            if files.len() == 1 && config.limit.is_none() {
                input.rows = Some(questions.len() as u64);
            }
            Ok(input)
        });
        let inputs = inputs.collect::<Result<Vec<Input>>>()?;
        let asked = Asked { task, inputs, generation, questions, specs, prompts };
        asked.check_room(budgets)?;
        Ok(asked)
    }

    /// A context that holds no answer, or none behind so much thinking, and an `auto` that leaves no
    /// thinking at all, are mistakes in the config: wrong answers and a budget of 0 would hide them.
    fn check_room(&self, budgets: &[Budget]) -> Result<()> {
        for ((budget, spec), prompts) in budgets.iter().zip(&self.specs).zip(&self.prompts) {
            let auto = matches!(&budget.max_tokens_thinking, Some(toml::Value::String(_)));
            for (question, prompt) in self.questions.iter().zip(prompts) {
                let taken = spec.least_len(prompt.len());
                ensure!(
                    taken < spec.max_model_len,
                    "budget {:?}: no answer to question {} of task {} fits: model.max_model_len is \
                     {}, of which its prompt and the delimiters take {taken}; raise \
                     model.max_model_len or leave this question out of {}",
                    budget.name,
                    question.doc_id,
                    self.task.name,
                    spec.max_model_len,
                    self.task.dataset
                );
                if let Some((most, room)) = spec.too_much_thinking(prompt.len(), 1) {
                    bail!(
                        "budget {:?}: behind {most} tokens of thinking no answer to question {} of \
                         task {} fits: model.max_model_len is {}, which leaves {room} for thinking; \
                         raise it, or lower the budget",
                        budget.name,
                        question.doc_id,
                        self.task.name,
                        spec.max_model_len
                    );
                }
                ensure!(
                    !auto || spec.max_tokens_thinking(prompt.len()) > Some(0),
                    "budget {:?}: auto leaves no thinking for question {} of task {}: max_gen_toks \
                     is {}, of which its prompt takes {}, the answer 100 and the delimiters a few; \
                     raise generation.max_gen_toks or give a number",
                    budget.name,
                    question.doc_id,
                    self.task.name,
                    spec.max_gen_toks,
                    prompt.len()
                );
            }
        }
        Ok(())
    }
}
