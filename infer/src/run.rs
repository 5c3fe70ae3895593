//! `infer eval`: from config to published folder.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use model::chat::Chat;
use model::{Config as ModelConfig, Qwen2};
use record::publish::{self, Manifest, OutputFolder};
use tch::Kind;

use crate::budget::Spec;
use crate::config::{self, Config, Device, Dtype};
use crate::engine::{Qwen2Decoder, Sampler, generate};
use crate::report::{self, Results, Sample};
use crate::task::{self, Question};

/// Runs the config at `path` with the overrides `sets`, publishes its output folder and prints the
/// table.
pub fn eval(path: &Path, sets: &[String], overwrite: bool) -> Result<()> {
    let (config, table) = record::config::load::<Config>(path, sets)?;
    config.check().with_context(|| path.display().to_string())?;
    let device = device(config.model.device)?;
    let folder = model::hub::model_folder(&config.model.path)
        .context("no model to evaluate (train first, or name its folder in model.path)")?;
    let output = OutputFolder::create(&config.output, overwrite)?;
    let questions = task::load(&config.task)?;
    let model = || format!("model.path {:?}", config.model.path);
    let chat = Chat::read(&folder).with_context(model)?;
    let positions = ModelConfig::read(&folder).with_context(model)?.max_position_embeddings;
    ensure!(
        config.model.max_model_len as i64 <= positions,
        "model.max_model_len is {}, but this model has {positions} positions; lower it",
        config.model.max_model_len
    );
    let specs =
        config::specs(&config, &chat.tokenizer).with_context(|| path.display().to_string())?;
    let evaluation = Evaluation::new(&config, &chat, &specs, &questions)?;
    let mut weights = publish::input(&folder, None)?;
    weights.path = config.model.path.clone(); // not the place of a hub model in this cache
    let inputs = vec![weights, publish::input(&config.task.path, Some(questions.len() as u64))?];
    let models = load_models(&config, &folder, device).with_context(model)?;
    let samples = evaluation.answer_all(models)?;

    let per_budget: Vec<&[Sample]> = samples.chunks(questions.len()).collect();
    let mut rows = Vec::new();
    for (budget, samples) in config.budgets.iter().zip(per_budget) {
        let file = output.path().join(format!("samples_{}.jsonl", budget.name));
        record::jsonl::write(&file, samples)?;
        rows.push(report::budget_result(budget, samples));
    }
    let results = Results {
        task: config.task.name.clone(),
        model: config.model.path.clone(),
        questions: questions.len(),
        curve: report::curve(&config.budgets, &rows)?,
        budgets: rows,
    };
    let summary = report::summary(&config, &results);
    output.write("results.json", &(serde_json::to_string_pretty(&results)? + "\n"))?;
    output.write("summary.txt", &summary)?;
    output.finish(Manifest {
        tool: "infer".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        command: publish::command(),
        config: table,
        inputs,
        seeds: config::seeds(&config),
        files: Default::default(),
    })?;
    print!("{summary}");
    println!("everything is in {}", config.output.display());
    Ok(())
}

/// libtorch's device. Its CUDA half must be loaded by hand: linkers leave out what no symbol needs.
fn device(asked: Device) -> Result<tch::Device> {
    if asked == Device::Cpu {
        return Ok(tch::Device::Cpu);
    }
    ensure!(
        c10d::aten::load_cuda() && tch::Cuda::is_available(),
        "model.device is cuda, but this libtorch sees no GPU; use cpu, or `just setup cuda`"
    );
    Ok(tch::Device::Cuda(0))
}

/// One model for each thread, all over the same weights.
fn load_models(config: &Config, folder: &Path, device: tch::Device) -> Result<Vec<Qwen2>> {
    let kind = match config.model.dtype {
        Dtype::Float32 => Kind::Float,
        Dtype::BFloat16 => Kind::BFloat16,
    };
    let model = Qwen2::load(folder, device, kind)?;
    let default_threads =
        if device.is_cuda() { 1 } else { std::thread::available_parallelism()?.get() };
    let threads = config.model.threads.unwrap_or(default_threads);
    Ok((0..threads).map(|_| model.share()).collect())
}

/// Every question under every budget, as jobs that any thread can take.
struct Evaluation<'a> {
    config: &'a Config,
    chat: &'a Chat,
    specs: &'a [Spec],
    questions: &'a [Question],
    /// The ids of every question's prompt.
    prompts: Vec<Vec<i64>>,
}

impl<'a> Evaluation<'a> {
    fn new(
        config: &'a Config,
        chat: &'a Chat,
        specs: &'a [Spec],
        questions: &'a [Question],
    ) -> Result<Self> {
        let prompts = questions.iter().map(|q| chat.prompt(&q.question)).collect::<Result<_>>()?;
        let evaluation = Evaluation { config, chat, specs, questions, prompts };
        evaluation.check_room()?;
        Ok(evaluation)
    }

    /// A context that holds no answer, and an `auto` that leaves no thinking at all, are mistakes
    /// in the config: wrong answers and a budget of 0 would hide them.
    fn check_room(&self) -> Result<()> {
        for (budget, spec) in self.config.budgets.iter().zip(self.specs) {
            let auto = matches!(&budget.max_tokens_thinking, Some(toml::Value::String(_)));
            for (question, prompt) in self.questions.iter().zip(&self.prompts) {
                let taken = spec.least_len(prompt.len());
                ensure!(
                    taken < spec.max_model_len,
                    "budget {:?}: no answer to question {} fits: model.max_model_len is {}, of \
                     which its prompt and the delimiters take {taken}; raise model.max_model_len \
                     or leave this question out of {}",
                    budget.name,
                    question.doc_id,
                    spec.max_model_len,
                    self.config.task.path.display()
                );
                ensure!(
                    !auto || spec.max_tokens_thinking(prompt.len()) > Some(0),
                    "budget {:?}: auto leaves no thinking for question {}: max_gen_toks is {}, of \
                     which its prompt takes {}, the answer 100 and the delimiters a few; raise \
                     generation.max_gen_toks or give a number",
                    budget.name,
                    question.doc_id,
                    spec.max_gen_toks,
                    prompt.len()
                );
            }
        }
        Ok(())
    }

    /// The samples of all questions for the first budget, then the second, and so on: the same
    /// whatever the number of models, each of which gets a thread.
    fn answer_all(&self, models: Vec<Qwen2>) -> Result<Vec<Sample>> {
        let jobs = self.specs.len() * self.questions.len();
        eprintln!(
            "task {}: {} questions under {} budgets, {} at once; the longest prompt has {} tokens",
            self.config.task.name,
            self.questions.len(),
            self.specs.len(),
            models.len(),
            self.prompts.iter().map(Vec::len).max().unwrap_or(0)
        );
        let progress = Progress::new(jobs);
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<Option<Result<Sample>>>> =
            Mutex::new((0..jobs).map(|_| None).collect());
        std::thread::scope(|scope| {
            for model in models {
                scope.spawn(|| {
                    let model = model;
                    // One thread a sequence: sums are always added up in the same order.
                    tch::set_num_threads(1);
                    loop {
                        let job = next.fetch_add(1, Ordering::Relaxed);
                        if job >= jobs {
                            return;
                        }
                        let sample = self.answer(&model, job);
                        if sample.is_err() {
                            next.store(jobs, Ordering::Relaxed); // the others finish theirs
                        }
                        let mut done = done.lock().expect("no thread panics while it writes");
                        done[job] = Some(sample);
                        progress.finished(done.iter().flatten().count());
                    }
                });
            }
        });
        progress.bar.finish_and_clear();
        let done = done.into_inner().expect("no thread panicked");
        done.into_iter().flatten().collect()
    }

    /// Answers and judges one question under one budget.
    fn answer(&self, model: &Qwen2, job: usize) -> Result<Sample> {
        let (budget, row) = (job / self.questions.len(), job % self.questions.len());
        let (question, prompt) = (&self.questions[row], &self.prompts[row]);
        let (budget, spec) = (&self.config.budgets[budget], &self.specs[budget]);
        let hash = record::question::question_hash(&question.question);
        let rng = record::seed::rng(self.config.seed, &["infer", &budget.name, &hash]);
        let tokenizer = &self.chat.tokenizer;
        let vocab_size = tokenizer.vocab_size() as usize;
        let mut sampler = Sampler::new(self.config.temperature(budget), vocab_size, rng);
        let outcome = generate(&mut Qwen2Decoder::new(model), &mut sampler, spec, prompt)
            .with_context(|| format!("question {} under budget {:?}", row, budget.name))?;
        let completion = tokenizer.decode(&outcome.ids)?;
        let mode = self.config.task.extract.mode();
        let extracted = grading::extract(&completion, mode).map(|found| found.text);
        let verdict = task::grade(self.config.task.grading, extracted.as_deref(), &question.target);
        Ok(Sample {
            doc_id: question.doc_id,
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
            extracted,
            correct: verdict.equal,
            rule: verdict.rule,
            token_ids: outcome.ids,
        })
    }
}

/// A bar on a terminal, a line every ten seconds elsewhere.
struct Progress {
    bar: ProgressBar,
    started: Instant,
    spoke: Mutex<Instant>,
}

impl Progress {
    fn new(jobs: usize) -> Self {
        let hidden = !std::io::stderr().is_terminal();
        let bar = if hidden { ProgressBar::hidden() } else { ProgressBar::new(jobs as u64) };
        bar.set_length(jobs as u64);
        let style = ProgressStyle::with_template("{bar:40} {pos} of {len} answers, {eta} left");
        bar.set_style(style.expect("a constant template"));
        Progress { bar, started: Instant::now(), spoke: Mutex::new(Instant::now()) }
    }

    fn finished(&self, done: usize) {
        self.bar.set_position(done as u64);
        let mut spoke = self.spoke.lock().expect("no thread panics while it speaks");
        if self.bar.is_hidden() && spoke.elapsed() > Duration::from_secs(10) {
            *spoke = Instant::now();
            let jobs = self.bar.length().unwrap_or(0) as f64;
            let left = self.started.elapsed().as_secs_f64() * (jobs / done as f64 - 1.0);
            eprintln!("{done} of {jobs} answers, about {left:.0} s left");
        }
    }
}
