//! `infer compare`: is B better than A, on the same questions?

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use page::terminal::{columns, count, line};

use crate::bootstrap::{Resamples, SEED};
use crate::report::{Sample, read_samples};

/// The arguments of `infer compare`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// An output folder of `infer eval`.
    pub a: PathBuf,
    /// Another one, with the same questions.
    pub b: PathBuf,
}

/// A question's answers under one budget.
#[derive(Debug, Clone, Default)]
struct Answers {
    question: String,
    target: String,
    right: usize,
    thinking_tokens: usize,
    n: usize,
}

/// Task and budget, as the first folder has them.
type Key = (String, String);
/// In the samples' order.
type Groups = Vec<(Key, BTreeMap<usize, Answers>)>;

/// The table: a row for each task and budget that both folders have.
///
/// # Errors
/// When the folders have no task and budget in common, or have asked different questions; names
/// the first that differs.
pub fn run(args: &Args) -> Result<String> {
    let (a, b) = (grouped(&read_samples(&args.a)?), grouped(&read_samples(&args.b)?));
    let heads = [
        "task",
        "budget",
        "questions",
        "A",
        "B",
        "B - A",
        "95% interval",
        "p",
        "only A right",
        "only B right",
        "thinking A",
        "thinking B",
    ];
    let mut rows = vec![heads.map(String::from).to_vec()];
    for (key, in_a) in &a {
        if let Some((_, in_b)) = b.iter().find(|(other, _)| other == key) {
            same_questions(key, in_a, in_b)?;
            rows.push(row(key, in_a, in_b));
        }
    }
    ensure!(rows.len() > 1, "nothing to compare: A has {}; B has {}", names(&a), names(&b));
    let mut text = format!("A  {}\nB  {}\n\n", line_of(&args.a), line_of(&args.b));
    text += &columns(&rows);
    let alone = |own: &Groups, other: &Groups| {
        let alone = own.iter().filter(|(key, _)| !other.iter().any(|(other, _)| other == key));
        alone.map(|(key, _)| name(key)).collect::<Vec<_>>().join(", ")
    };
    for (who, missing) in [("A", alone(&a, &b)), ("B", alone(&b, &a))] {
        if !missing.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\nonly in {who}: {missing}");
        }
    }
    text += LEGEND;
    Ok(text)
}

const LEGEND: &str = "
B - A: points of accuracy, with the 95% interval of a paired bootstrap over the questions
p: how often so large a difference comes from questions on which A and B do not differ
only A right, only B right: questions with more right answers in one of the two
";

/// Answers by task and budget, then by question.
fn grouped(samples: &[Sample]) -> Groups {
    let mut groups: Groups = Vec::new();
    for sample in samples {
        let key = (sample.task.clone(), sample.budget.clone());
        if groups.last().is_none_or(|(last, _)| *last != key) {
            groups.push((key, BTreeMap::new()));
        }
        let (_, group) = groups.last_mut().expect("one was pushed");
        let answers = group.entry(sample.doc_id).or_default();
        answers.question.clone_from(&sample.question);
        answers.target.clone_from(&sample.target);
        answers.right += usize::from(sample.correct);
        answers.thinking_tokens += sample.thinking_tokens;
        answers.n += 1;
    }
    groups
}

/// Refuses to compare answers to different questions.
fn same_questions(
    key: &Key,
    a: &BTreeMap<usize, Answers>,
    b: &BTreeMap<usize, Answers>,
) -> Result<()> {
    let cure = "evaluate both with the same tasks and the same `limit`";
    let name = name(key);
    ensure!(
        a.len() == b.len(),
        "{name}: A has {} questions and B has {}; {cure}",
        a.len(),
        b.len()
    );
    for ((id_a, in_a), (id_b, in_b)) in a.iter().zip(b) {
        let same = (id_a, &in_a.question, &in_a.target) == (id_b, &in_b.question, &in_b.target);
        ensure!(
            same,
            "{name}: A has question {id_a} {:?} with answer {:?}, where B has question {id_b} {:?} \
             with answer {:?}; {cure}",
            line(&in_a.question, 60),
            line(&in_a.target, 20),
            line(&in_b.question, 60),
            line(&in_b.target, 20)
        );
    }
    Ok(())
}

fn row(key: &Key, a: &BTreeMap<usize, Answers>, b: &BTreeMap<usize, Answers>) -> Vec<String> {
    let shares = |of: &BTreeMap<usize, Answers>| {
        of.values().map(|answers| 100.0 * answers.right as f64 / answers.n as f64).collect()
    };
    let (in_a, in_b): (Vec<f64>, Vec<f64>) = (shares(a), shares(b));
    let difference = Resamples::new(SEED, a.len()).difference(&in_a, &in_b);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let tokens = |of: &BTreeMap<usize, Answers>| {
        let sum: usize = of.values().map(|answers| answers.thinking_tokens).sum();
        let n: usize = of.values().map(|answers| answers.n).sum();
        count((sum as f64 / n as f64).round() as usize)
    };
    let pairs = || in_a.iter().zip(&in_b);
    let [low, high] = difference.mean.interval;
    vec![
        line(&key.0, 30),
        line(&key.1, 30),
        count(a.len()),
        format!("{:.1}%", mean(&in_a)),
        format!("{:.1}%", mean(&in_b)),
        format!("{:+.1}", difference.mean.value),
        format!("{low:+.1} to {high:+.1}"),
        if difference.p < 0.001 { "<0.001".into() } else { format!("{:.3}", difference.p) },
        count(pairs().filter(|(a, b)| a > b).count()),
        count(pairs().filter(|(a, b)| b > a).count()),
        tokens(a),
        tokens(b),
    ]
}

fn name((task, budget): &Key) -> String {
    format!("task {} under budget {}", line(task, 40), line(budget, 40))
}

fn names(groups: &Groups) -> String {
    let all: Vec<String> = groups.iter().map(|(key, _)| name(key)).collect();
    if all.is_empty() { "no answers".to_owned() } else { all.join(", ") }
}

fn line_of(folder: &std::path::Path) -> String {
    line(&folder.display().to_string(), 200)
}
