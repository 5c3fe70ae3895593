//! `infer eval`: from config to published folder.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use model::Config as ModelConfig;
use model::chat::Chat;
use record::publish::{self, Manifest, OutputFolder};

use crate::budget::Spec;
use crate::config::{self, Config, Generation};
use crate::engine::{Completion, Generate, Request, local};
use crate::progress::Progress;
use crate::remote::Remote;
use crate::report::{self, Results, Sample};
use crate::task::{self, Question};

/// Runs the config at `path` with the overrides `sets`, publishes its output folder and prints the
/// table.
pub fn eval(path: &Path, sets: &[String], overwrite: bool) -> Result<()> {
    let (config, table) = record::config::load::<Config>(path, sets)?;
    config.check().with_context(|| path.display().to_string())?;
    let folder = model::hub::model_folder(&config.model.path)
        .context("no model to evaluate (train first, or name its folder in model.path)")?;
    let output = OutputFolder::create(&config.output, overwrite)?;
    let questions = task::load(&config.task)?;
    let chat = chat(&config.model, &folder)?;
    let specs = config::specs(
        &config.generation,
        &config.budgets,
        config.model.max_model_len,
        &chat.tokenizer,
    )
    .with_context(|| path.display().to_string())?;
    let evaluation = Evaluation::new(&config, &chat, &specs, &questions)?;
    let mut weights = publish::input(&folder, None)?;
    weights.path = config.model.path.clone(); // not the place of a hub model in this cache
    let inputs = vec![weights, publish::input(&config.task.path, Some(questions.len() as u64))?];
    let mut answerer =
        answerer(&config.model, &config.engine, config.endpoint.as_ref(), &folder, &chat)?;
    let samples = evaluation.answer_all(answerer.as_mut())?;
    eprintln!("{}", answerer.summary());

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

/// The tokenizer and template of a model that has room for what the config asks.
pub fn chat(model: &config::Model, folder: &Path) -> Result<Chat> {
    let place = || format!("model.path {:?}", model.path);
    let chat = Chat::read(folder).with_context(place)?;
    let positions = ModelConfig::read(folder).with_context(place)?.max_position_embeddings;
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

/// Every question under every budget, as requests.
struct Evaluation<'a> {
    config: &'a Config,
    chat: &'a Chat,
    specs: &'a [Arc<Spec>],
    questions: &'a [Question],
    /// The ids of every question's prompt.
    prompts: Vec<Arc<[i64]>>,
}

impl<'a> Evaluation<'a> {
    fn new(
        config: &'a Config,
        chat: &'a Chat,
        specs: &'a [Arc<Spec>],
        questions: &'a [Question],
    ) -> Result<Self> {
        let prompts = questions
            .iter()
            .map(|q| Ok(chat.prompt(&q.question)?.into()))
            .collect::<Result<_>>()?;
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

    /// The samples of all questions for the first budget, then the second, and so on.
    fn answer_all(&self, answerer: &mut dyn Generate) -> Result<Vec<Sample>> {
        eprintln!(
            "task {}: {} questions under {} budgets; the longest prompt has {} tokens",
            self.config.task.name,
            self.questions.len(),
            self.specs.len(),
            self.prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0)
        );
        let requests = self.requests();
        let mut samples: Vec<Option<Sample>> = requests.iter().map(|_| None).collect();
        let mut progress = Progress::new(requests.len(), "answers");
        answerer.generate(&requests, &mut |job, completion| {
            samples[job] = Some(self.sample(job, completion)?);
            progress.finished_one();
            Ok(())
        })?;
        Ok(samples.into_iter().map(|sample| sample.expect("each is answered once")).collect())
    }

    /// A request for each sample. Equal questions draw alike under every budget, so that budgets
    /// differ in nothing but the budget, and share what they have in common.
    fn requests(&self) -> Vec<Request> {
        let Generation { stop, .. } = &self.config.generation;
        let mut requests = Vec::new();
        for (budget, spec) in self.config.budgets.iter().zip(self.specs) {
            for (question, prompt) in self.questions.iter().zip(&self.prompts) {
                let hash = record::question::question_hash(&question.question);
                requests.push(Request {
                    name: format!("question {} under budget {:?}", question.doc_id, budget.name),
                    prompt: Arc::clone(prompt),
                    spec: Arc::clone(spec),
                    sampling: self.config.generation.sampling(Some(budget)),
                    seed: record::seed::rng(self.config.seed, &["infer", &hash]).next_u64(),
                    stop: stop.clone(),
                    logprobs: None,
                });
            }
        }
        requests
    }

    /// Judges one completion.
    fn sample(&self, job: usize, completion: Completion) -> Result<Sample> {
        let row = job % self.questions.len();
        let (question, prompt) = (&self.questions[row], &self.prompts[row]);
        let tokenizer = &self.chat.tokenizer;
        let Completion { outcome, text: completion, .. } = completion;
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
