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

/// `ask`: the two questions of s1's judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// Is the extracted answer the expected one, written in another way?
    Answer,
    /// Which of the choices A to D does the extracted answer name?
    Letter,
}

/// What is read of a line of `samples_<budget>.jsonl`.
#[derive(Debug, Clone, Deserialize)]
struct Sample {
    doc_id: usize,
    question: String,
    target: String,
    extracted: Option<String>,
    correct: bool,
    rule: String,
}

/// A line of `judged_<budget>.jsonl`.
#[derive(Debug, Clone, Serialize)]
pub struct Judged {
    /// The row of the task's file, from 0.
    pub doc_id: usize,
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
    let output = OutputFolder::create(&config.output, overwrite)?;
    let files = sample_files(&config.results)?;
    let mut budgets = Vec::new();
    for (budget, file) in &files {
        let samples = record::jsonl::read_numbered::<Sample>(file)?;
        let samples = samples.map(|row| Ok(row?.1)).collect::<Result<Vec<Sample>>>()?;
        let judged: Vec<Judged> = samples.iter().map(by_rules).collect();
        budgets.push((budget.clone(), samples, judged));
    }
    let client = Client::open(config.judge.clone(), &config.cache)?;
    let totals = ask(&config, &client, &mut budgets)?;

    let mut rows = Vec::new();
    for (budget, _, judged) in &budgets {
        record::jsonl::write(&output.path().join(format!("judged_{budget}.jsonl")), judged)?;
        rows.push(scores(budget, judged));
    }
    let summary = summary(&config, &rows, &totals);
    output.write("results.json", &(serde_json::to_string_pretty(&rows)? + "\n"))?;
    output.write("summary.txt", &summary)?;
    output.finish(Manifest {
        tool: "infer".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        command: publish::command(),
        config: table,
        inputs: files
            .values()
            .map(|file| publish::input(file, None))
            .collect::<Result<Vec<_>>>()?,
        seeds: BTreeMap::new(),
        files: BTreeMap::new(),
    })?;
    print!("{summary}");
    println!("everything is in {}", config.output.display());
    Ok(())
}

/// The evaluation's samples by budget.
fn sample_files(results: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let entries = std::fs::read_dir(results).with_context(|| {
        format!("{}: `results` names a folder of infer eval", results.display())
    })?;
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let budget = name.strip_prefix("samples_").and_then(|name| name.strip_suffix(".jsonl"));
        if let Some(budget) = budget {
            files.insert(budget.to_string(), path.clone());
        }
    }
    ensure!(!files.is_empty(), "{}: there is no samples_<budget>.jsonl in it", results.display());
    Ok(files)
}

/// What stands without a judge: right by the rules, or nothing there to be judged.
fn by_rules(sample: &Sample) -> Judged {
    let settled = sample.correct || sample.extracted.is_none();
    Judged {
        doc_id: sample.doc_id,
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
    budgets: &mut [(String, Vec<Sample>, Vec<Judged>)],
) -> Result<Totals> {
    let mut requests = Vec::new();
    let mut places = BTreeMap::new();
    for (budget, (name, samples, judged)) in budgets.iter().enumerate() {
        for (row, sample) in samples.iter().enumerate() {
            let Some(given) = sample.extracted.as_deref() else { continue };
            if judged[row].judged_correct.is_none() {
                let id = format!("{name}/{}", sample.doc_id);
                let mut request =
                    Request::new(&id, messages(config.ask, sample, given), config.max_tokens);
                request.temperature = config.temperature;
                places.insert(id, (budget, row));
                requests.push(request);
            }
        }
    }
    eprintln!("judge: {} answers that the rules call wrong", requests.len());
    client.run(requests, |request, reply| {
        let (budget, row) = places[&request.id];
        let target = budgets[budget].1[row].target.clone();
        let judged = &mut budgets[budget].2[row];
        match reply {
            Ok(reply) => {
                judged.judged_correct = match config.ask {
                    Ask::Answer => {
                        verdict::index(&reply, 1).map(|choice| choice == Choice::Option(0))
                    }
                    Ask::Letter => verdict::letter(&reply, "ABCD-").map(|letter| {
                        grading::choice(&target, grading::Mode::Strict) == Some(letter)
                    }),
                };
                judged.judge_reply = Some(reply.text);
            }
            Err(failure) => eprintln!("judge: {}: {failure}", request.id),
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

fn scores(budget: &str, judged: &[Judged]) -> Scores {
    let count = |holds: &dyn Fn(&Judged) -> bool| judged.iter().filter(|row| holds(row)).count();
    Scores {
        budget: budget.to_string(),
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
        "{:<16} {:>8} {:>12} {:>12} {:>10}",
        "budget", "answers", "by rules", "with judge", "undecided"
    );
    for row in rows {
        let percent = |count: usize| format!("{:.1}%", 100.0 * count as f64 / row.n.max(1) as f64);
        let _ = writeln!(
            text,
            "{:<16} {:>8} {:>12} {:>12} {:>10}",
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
