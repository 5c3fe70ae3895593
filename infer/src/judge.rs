//! `infer judge`: a second opinion on a published evaluation, from a language model.
//!
//! Never needed: an evaluation is scored by rules. Those answers that the rules call wrong are shown
//! to a judge as s1 does it, and both scores stand side by side.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use endpoint::verdict::{self, Choice};
use endpoint::{Client, Message, Request, Settings, Totals, judge};
use record::publish::{self, Manifest, OutputFolder};
use serde::{Deserialize, Serialize};

use crate::progress::Progress;
use crate::report::{self, SAMPLES, Sample};

/// A whole run; the annotated example is `configs/infer/judge.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder to publish.
    pub output: PathBuf,
    /// The published folder of an evaluation.
    pub results: PathBuf,
    /// The file of the judge's replies, so that none is paid twice.
    pub cache: PathBuf,
    /// What the judge is asked.
    pub ask: Ask,
    /// Tokens of a reply at most.
    pub max_tokens: u32,
    /// Differs from s1: 0.5 there, so its scores move from run to run.
    pub temperature: f64,
    /// The server and the model.
    pub judge: Settings,
}

impl Config {
    /// Refuses values that TOML's types let through.
    pub fn check(&self) -> Result<()> {
        let temperature = self.temperature;
        ensure!(
            temperature.is_finite() && temperature >= 0.0,
            "temperature is {temperature}: it must be 0 or more"
        );
        ensure!(self.max_tokens > 0, "max_tokens is 0: the judge could say nothing");
        self.judge.check().context("judge")
    }
}

/// `ask`: the two questions of s1's judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// Is the extracted answer the expected one, written in another way?
    Answer,
    /// Which of the choices A to D does the extracted answer name?
    Letter,
}

/// A line of `judged.jsonl`.
#[derive(Debug, Clone, Serialize)]
pub struct Judged {
    /// The task's name.
    pub task: String,
    /// The budget's name.
    pub budget: String,
    /// The row of the task's table, from 0.
    pub doc_id: usize,
    /// Which of the answers to this question under this budget, from 0.
    pub repeat: usize,
    /// The expected answer.
    pub target: String,
    /// What the evaluation extracted.
    pub extracted: Option<String>,
    /// Is it right by the evaluation's rules?
    pub correct: bool,
    /// The rule that decided.
    pub rule: String,
    /// Is it right by rules or judge? Null when the judge failed or gave no verdict.
    pub judged_correct: Option<bool>,
    /// What the judge wrote; null when it was not asked.
    pub judge_reply: Option<String>,
}

/// A row of `results.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scores {
    /// The task's name.
    pub task: String,
    /// The budget's name.
    pub budget: String,
    /// Answers in all.
    pub n: usize,
    /// Right by the rules.
    pub correct: usize,
    /// Right by rules or judge.
    pub judged_correct: usize,
    /// Answers on which there is no verdict of the judge; they count as wrong.
    pub undecided: usize,
}

/// Runs the config at `path` with the overrides `sets`, publishes its output folder and prints the
/// table.
pub fn run(path: &Path, sets: &[String], overwrite: bool) -> Result<()> {
    let (config, table) = record::config::load::<Config>(path, sets)?;
    config.check().with_context(|| path.display().to_string())?;
    let output = OutputFolder::create(&config.output, overwrite)?;
    let samples = report::read_samples(&config.results)?;
    let mut judged: Vec<Judged> = samples.iter().map(by_rules).collect();
    let client = Client::open(config.judge.clone(), &config.cache)?;
    client.check_key()?;
    let totals = ask(&config, &client, &samples, &mut judged)?;
    record::jsonl::write(&output.path().join("judged.jsonl"), &judged)?;
    let of_budget = |a: &Judged, b: &Judged| (&a.task, &a.budget) == (&b.task, &b.budget);
    let rows: Vec<Scores> = judged.chunk_by(of_budget).map(scores).collect();
    let summary = summary(&config, &rows, &totals);
    output.write("results.json", &(serde_json::to_string_pretty(&rows)? + "\n"))?;
    output.write("summary.txt", &summary)?;
    output.finish(Manifest {
        tool: "infer".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        command: publish::command(),
        config: table,
        inputs: vec![publish::input(&config.results.join(SAMPLES), None)?],
        seeds: BTreeMap::new(),
        files: BTreeMap::new(),
    })?;
    print!("{summary}");
    println!("everything is in {}", config.output.display());
    Ok(())
}

/// What stands without a judge: right by the rules, or nothing there to be judged.
fn by_rules(sample: &Sample) -> Judged {
    let settled = sample.correct || sample.extracted.is_none();
    Judged {
        task: sample.task.clone(),
        budget: sample.budget.clone(),
        doc_id: sample.doc_id,
        repeat: sample.repeat,
        target: sample.target.clone(),
        extracted: sample.extracted.clone(),
        correct: sample.correct,
        rule: sample.rule.clone(),
        judged_correct: settled.then_some(sample.correct),
        judge_reply: None,
    }
}

/// Asks about every answer that the rules call wrong.
fn ask(
    config: &Config,
    client: &Client,
    samples: &[Sample],
    judged: &mut [Judged],
) -> Result<Totals> {
    let mut requests = Vec::new();
    for (row, sample) in samples.iter().enumerate() {
        let Some(given) = sample.extracted.as_deref() else { continue };
        if judged[row].judged_correct.is_none() {
            let messages = messages(config.ask, sample, given);
            let mut request = Request::new(row.to_string(), messages, config.max_tokens);
            request.temperature = config.temperature;
            requests.push(request);
        }
    }
    let mut progress = Progress::new(requests.len(), "verdicts");
    progress.say(&format!("judge: {} answers that the rules call wrong", requests.len()));
    client.run(requests, |request, reply| {
        let row: usize = request.id.parse().expect("it is a row's number");
        let judged = &mut judged[row];
        match reply {
            Ok(reply) => {
                judged.judged_correct = match config.ask {
                    Ask::Answer => {
                        verdict::index(&reply, 1).map(|choice| choice == Choice::Option(0))
                    }
                    Ask::Letter => verdict::letter(&reply, "ABCD-").map(|letter| {
                        grading::choice(&judged.target, grading::Mode::Strict) == Some(letter)
                    }),
                };
                progress.finished(reply.usage.completion_tokens as usize);
                judged.judge_reply = Some(reply.text);
            }
            Err(failure) => {
                let Judged { task, budget, doc_id, .. } = judged;
                let which = format!("task {task}, budget {budget}, question {doc_id}");
                progress.say(&format!("judge: {which}: {failure}"));
                progress.finished(0);
            }
        }
        Ok(())
    })
}

fn messages(ask: Ask, sample: &Sample, given: &str) -> Vec<Message> {
    match ask {
        Ask::Answer => judge::same_answer(given, &[&sample.target]),
        Ask::Letter => judge::chosen_letter(&sample.question, given),
    }
}

/// Of one budget's answers, of which there is at least one.
fn scores(judged: &[Judged]) -> Scores {
    let count = |holds: &dyn Fn(&Judged) -> bool| judged.iter().filter(|row| holds(row)).count();
    Scores {
        task: judged[0].task.clone(),
        budget: judged[0].budget.clone(),
        n: judged.len(),
        correct: count(&|row| row.correct),
        judged_correct: count(&|row| row.judged_correct == Some(true)),
        undecided: count(&|row| row.judged_correct.is_none()),
    }
}

fn summary(config: &Config, rows: &[Scores], totals: &Totals) -> String {
    let mut text = format!("judge {} on {}\n\n", config.judge.model, config.results.display());
    let _ = writeln!(
        text,
        "{:<20} {:<16} {:>8} {:>12} {:>12} {:>10}",
        "task", "budget", "answers", "by rules", "with judge", "undecided"
    );
    for row in rows {
        let percent = |count: usize| format!("{:.1}%", 100.0 * count as f64 / row.n.max(1) as f64);
        let _ = writeln!(
            text,
            "{:<20} {:<16} {:>8} {:>12} {:>12} {:>10}",
            row.task,
            row.budget,
            row.n,
            percent(row.correct),
            percent(row.judged_correct),
            row.undecided
        );
    }
    let asked = totals.requests;
    let _ = writeln!(
        text,
        "\n{asked} answers that the rules call wrong were shown to the judge; an undecided one \
         counts as wrong"
    );
    text
}
