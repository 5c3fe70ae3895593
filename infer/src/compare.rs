//! `infer compare`: is B better than A, on the same questions?

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use page::terminal::{columns, count, line};

use crate::bootstrap::{Resamples, SEED};
use crate::metrics::sign_flip;
use crate::points::read_results;
use crate::report::{BudgetResult, Results, Sample, read_samples};

/// The arguments of `infer compare`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// An output folder of `infer eval`, or one of its budgets as FOLDER:BUDGET.
    pub a: String,
    /// Another one, with the same questions; or another budget, perhaps of the same folder.
    pub b: String,
}

/// What is compared: a folder's answers, all or those under one budget.
struct Side {
    folder: PathBuf,
    budget: Option<String>,
    groups: Groups,
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

/// The table: a row for each task and budget that both folders have, or for each task under the two
/// budgets that were named.
///
/// # Errors
/// When the folders have no task and budget in common, or have asked different questions; names
/// the first that differs.
pub fn run(args: &Args) -> Result<String> {
    let (a, b) = (Side::read(&args.a)?, Side::read(&args.b)?);
    ensure!(
        a.budget.is_some() == b.budget.is_some(),
        "only one side names a budget; name one on both, FOLDER:BUDGET, or none"
    );
    let named = a.budget.is_some();
    let pair = |(task, budget): &Key, (other, another): &Key| {
        task == other && (named || budget == another)
    };
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
    for (key, in_a) in &a.groups {
        if let Some((other, in_b)) = b.groups.iter().find(|(other, _)| pair(key, other)) {
            same_questions(key, in_a, in_b)?;
            rows.push(row(key, other, in_a, in_b));
        }
    }
    let hint = "two budgets are compared as FOLDER:BUDGET FOLDER:BUDGET";
    ensure!(
        rows.len() > 1,
        "nothing to compare, for no task and budget is in both; {hint}\nA has {}\nB has {}",
        names(&a.groups),
        names(&b.groups)
    );
    let mut text = format!("A  {}\nB  {}\n\n", line(&args.a, 200), line(&args.b, 200));
    text += &columns(&rows);
    let alone = |own: &Side, other: &Side| -> Groups {
        let is_alone = |(key, _): &&_| !other.groups.iter().any(|(other, _)| pair(key, other));
        own.groups.iter().filter(is_alone).cloned().collect()
    };
    for (who, missing) in [("A", alone(&a, &b)), ("B", alone(&b, &a))] {
        if !missing.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\nonly in {who}: {}", names(&missing));
        }
    }
    if !named {
        text += &other_budgets(&a.folder, &b.folder);
    }
    text += LEGEND;
    Ok(text)
}

const LEGEND: &str = "
B - A: points of accuracy, with the 95% interval of a paired bootstrap over the questions
p: how often so large a difference, either way, comes about when for each question a coin says which
   of its two results is A's; the exact sign-flip test (McNemar's, where a question has one answer)
only A right, only B right: questions with more right answers in one of the two
";

impl Side {
    fn read(text: &str) -> Result<Self> {
        let is_folder = |text: &str| Path::new(text).is_dir();
        let split = text.rsplit_once(':').filter(|(folder, _)| is_folder(folder));
        let Some((folder, budget)) = split.filter(|_| !is_folder(text)) else {
            let groups = grouped(&read_samples(Path::new(text))?);
            return Ok(Side { folder: text.into(), budget: None, groups });
        };
        let all = grouped(&read_samples(Path::new(folder))?);
        let own = |((_, name), _): &&(Key, _)| name == budget;
        let groups: Groups = all.iter().filter(own).cloned().collect();
        if groups.is_empty() {
            bail!("{} has no budget {budget:?}; it has {}", line(folder, 200), names(&all));
        }
        Ok(Side { folder: folder.into(), budget: Some(budget.into()), groups })
    }
}

/// Says which budgets have one name in both folders, but not one meaning. Folders without results
/// say nothing.
fn other_budgets(a: &Path, b: &Path) -> String {
    let (Ok(a), Ok(b)) = (read_results(a), read_results(b)) else { return String::new() };
    let mut text = String::new();
    let rows = |of: &Results| -> Vec<BudgetResult> {
        of.tasks.iter().flat_map(|task| task.budgets.clone()).collect()
    };
    let told = |row: &BudgetResult| {
        let limit = row.limit.as_deref().unwrap_or("none");
        format!("limit {}, {}", line(limit, 20), line(&row.line, 60))
    };
    let mut known = BTreeSet::new();
    for row in rows(&a) {
        let other = rows(&b).into_iter().find(|other| other.name == row.name);
        let Some(other) = other.filter(|other| told(other) != told(&row)) else { continue };
        if known.insert(row.name.clone()) {
            let (name, ours, theirs) = (line(&row.name, 40), told(&row), told(&other));
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\nwarning: {name} is {ours} in A, but {theirs} in B");
        }
    }
    text
}

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

fn row(
    key: &Key,
    other: &Key,
    a: &BTreeMap<usize, Answers>,
    b: &BTreeMap<usize, Answers>,
) -> Vec<String> {
    let shares = |of: &BTreeMap<usize, Answers>| {
        of.values().map(|answers| 100.0 * answers.right as f64 / answers.n as f64).collect()
    };
    let (in_a, in_b): (Vec<f64>, Vec<f64>) = (shares(a), shares(b));
    let differences: Vec<f64> = in_b.iter().zip(&in_a).map(|(b, a)| b - a).collect();
    let difference = Resamples::new(SEED, a.len()).mean(&differences);
    // Of shares over one denominator.
    let whole = |(a, b): (&Answers, &Answers)| (b.right * a.n) as i64 - (a.right * b.n) as i64;
    let p = sign_flip(&a.values().zip(b.values()).map(whole).collect::<Vec<i64>>());
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let tokens = |of: &BTreeMap<usize, Answers>| {
        let sum: usize = of.values().map(|answers| answers.thinking_tokens).sum();
        let n: usize = of.values().map(|answers| answers.n).sum();
        count((sum as f64 / n as f64).round() as usize)
    };
    let pairs = || in_a.iter().zip(&in_b);
    let [low, high] = difference.interval;
    let budget = line(&key.1, 30);
    vec![
        line(&key.0, 30),
        if key == other { budget } else { format!("{budget}, {}", line(&other.1, 30)) },
        count(a.len()),
        format!("{:.1}%", mean(&in_a)),
        format!("{:.1}%", mean(&in_b)),
        format!("{:+.1}", difference.value),
        format!("{low:+.1} to {high:+.1}"),
        if p < 0.001 { "<0.001".into() } else { format!("{p:.3}") },
        count(pairs().filter(|(a, b)| a > b).count()),
        count(pairs().filter(|(a, b)| b > a).count()),
        tokens(a),
        tokens(b),
    ]
}

fn name((task, budget): &Key) -> String {
    format!("task {} under budget {}", line(task, 40), line(budget, 40))
}

/// Each task with its budgets.
fn names(groups: &Groups) -> String {
    let task = |own: &[(Key, _)]| {
        let budgets: Vec<String> = own.iter().map(|((_, budget), _)| line(budget, 40)).collect();
        format!("task {} under {}", line(&own[0].0.0, 40), budgets.join(", "))
    };
    let tasks: Vec<String> = groups.chunk_by(|a, b| a.0.0 == b.0.0).map(task).collect();
    if tasks.is_empty() { "no answers".to_owned() } else { tasks.join("; ") }
}
