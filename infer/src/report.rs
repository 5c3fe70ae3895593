//! What an evaluation leaves behind: samples, results, and the table for people.

mod curves;
mod summary;
pub(crate) mod together;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use record::jsonl;
use record::question::question_hash;
use record::row::Attempt;
use serde::{Deserialize, Serialize};

use crate::bootstrap::{Answers, Resamples, SEED};
use crate::budget::{Ending, MaxTokens};
use crate::config::{Budget, Measured};
use crate::metrics::{self, Asked};
use crate::task::Task;
pub use curves::Curve;
pub use summary::summary;
pub use together::Together;

/// The file of all samples in an evaluation's folder.
pub const SAMPLES: &str = "samples.jsonl";

/// One answer to a question under a budget; a line of `samples.jsonl`, which has them by task, then
/// budget, then question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The task's name.
    pub task: String,
    /// The budget's name.
    pub budget: String,
    /// The row of the task's table, from 0.
    pub doc_id: usize,
    /// Which of the answers to this question under this budget, from 0.
    pub repeat: usize,
    /// The row's own name, if the task has such a column.
    pub id: Option<String>,
    /// The user message, without the budget's `prompt_suffix`.
    pub question: String,
    /// The expected answer.
    pub target: String,
    /// The text the model was given.
    pub prompt: String,
    /// The text behind the prompt, forced parts included, without the final stop.
    pub completion: String,
    /// Ids of `prompt`.
    pub prompt_tokens: usize,
    /// Ids of thinking without the delimiters, ignore strings included.
    ///
    /// Differs from s1: its statistics tokenise the logged text again and leave out the first and
    /// the last line of the thinking; these counts are of the ids themselves.
    pub thinking_tokens: usize,
    /// Sampled ids of answer; a forced `Final Answer:` and the final stop do not count.
    pub answer_tokens: usize,
    /// `stop`, `length` or `context`; null in plain generation.
    pub thinking_ending: Option<Ending>,
    /// As `thinking_ending`, of the whole sequence.
    pub ending: Ending,
    /// How many times thinking was begun: 1 without rejection sampling.
    pub tries: usize,
    /// [`grading::extract()`] of the completion, in the task's mode.
    pub extracted: Option<String>,
    /// Is `extracted` the target, under the task's grading?
    pub correct: bool,
    /// Which rule decided.
    pub rule: String,
    /// The bytes of `completion` that were forced, not written by the model: delimiters, texts in
    /// the place of ignored ends.
    #[serde(default)]
    pub forced: Vec<[usize; 2]>,
    /// The ids behind the prompt.
    pub token_ids: Vec<i64>,
}

/// All samples of an evaluation's published folder, in their order.
pub fn read_samples(folder: &Path) -> Result<Vec<Sample>> {
    let place = || format!("is {} the folder of an `infer eval`?", folder.display());
    let file = folder.join(SAMPLES);
    jsonl::read(&file).with_context(place)?.collect()
}

/// All of `results.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// `model.path` of the config.
    pub model: String,
    /// Answers to each question under each budget.
    pub repeats: usize,
    /// In the config's order.
    pub tasks: Vec<TaskResult>,
}

/// One task's part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The task's name.
    pub task: String,
    /// How many there are.
    pub questions: usize,
    /// In the config's order.
    pub budgets: Vec<BudgetResult>,
    /// The paper's metrics of the budgets that belong together; none with fewer than two budgets
    /// that force thinking.
    pub curves: Vec<Curve>,
}

/// One budget's row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetResult {
    /// The budget's.
    pub name: String,
    /// What it has in common with those it is drawn in one line with.
    pub line: String,
    /// The budget's `max_tokens_thinking`.
    pub limit: Option<String>,
    /// What was asked of the mean thinking tokens, for Control.
    pub asked: Asked,
    /// Answers.
    pub n: usize,
    /// Of these, right.
    pub correct: usize,
    /// `correct / n`.
    pub accuracy: f64,
    /// 95% Wilson interval of the accuracy, over questions: the answers to one are no news of
    /// another.
    pub interval: [f64; 2],
    /// 95% bootstrap interval of the accuracy, over questions.
    pub bootstrap: [f64; 2],
    /// The accuracy in percent that others have published.
    pub published: Option<f64>,
    /// Of [`Sample::thinking_tokens`].
    pub mean_thinking_tokens: f64,
    /// Of [`Sample::answer_tokens`].
    pub mean_answer_tokens: f64,
    /// Of [`Sample::tries`].
    pub mean_tries: f64,
    /// Steps that the model counts down in its thinking; null where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_steps: Option<f64>,
    /// Thinking that the model ended, after all ignored ends.
    pub thinking_stopped: usize,
    /// Thinking that reached its budget.
    pub thinking_cut: usize,
    /// Answers that reached max_gen_toks.
    pub answer_cut: usize,
    /// Sequences that filled the context.
    ///
    /// Differs from s1: its statistics call a response too long from 32,760 tokens on, prompt
    /// included.
    pub overlong: usize,
    /// Completions with neither `Answer:` nor `\boxed`, s1's rule; some are right all the same.
    pub no_answer: usize,
    /// What several answers to each question are worth together; empty with one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub together: Vec<Together>,
    /// How many answers each rule of grading decided.
    pub rules: BTreeMap<String, usize>,
}

/// Adds up a task's samples, equally many for each budget, in the budgets' order and by question.
///
/// # Errors
/// When a budget's limit is neither a number nor `auto`.
pub fn task_result(
    task: &Task,
    budgets: &[Budget],
    measured: &[Measured],
    samples: &[Sample],
) -> Result<TaskResult> {
    let of_budgets: Vec<&[Sample]> = samples.chunks(samples.len() / budgets.len()).collect();
    let answers = budgets.iter().zip(&of_budgets).map(|(budget, own)| answers(budget, own));
    let mut answers = answers.collect::<Result<Vec<Answers>>>()?;
    compare_thinking(budgets, &mut answers);
    let questions = answers[0].right.len();
    let resamples = Resamples::new(SEED, questions);
    let row = |n: usize| budget_result(task, &budgets[n], of_budgets[n], &answers[n], &resamples);
    let rows: Vec<BudgetResult> = (0..budgets.len()).map(row).collect();
    let curves = curves::curves(&task.name, budgets, measured, &answers, &resamples);
    Ok(TaskResult { task: task.name.clone(), questions, budgets: rows, curves })
}

/// What prompts for less or more thinking than under another budget have asked for. Measured once:
/// an interval of Control does not draw the other budget's questions again.
fn compare_thinking(budgets: &[Budget], answers: &mut [Answers]) {
    let mean = |own: &Answers| own.thinking_tokens.iter().sum::<f64>() / own.right.len() as f64;
    let means: Vec<f64> = answers.iter().map(mean).collect();
    let of = |name: &Option<String>| {
        let nth = budgets.iter().position(|budget| Some(&budget.name) == name.as_ref())?;
        Some(means[nth])
    };
    for (budget, Answers { asked, .. }) in budgets.iter().zip(answers) {
        asked.most = of(&budget.asked_below).or(asked.most);
        asked.least = of(&budget.asked_above).or(asked.least);
    }
}

/// The answers as attempts, for `curate featurise`; each by the model under its budget.
pub fn attempts(model: &str, samples: &[Sample]) -> Vec<Attempt> {
    let attempt = |sample: &Sample| Attempt {
        question_hash: question_hash(&sample.question),
        model: format!("{model} ({})", sample.budget),
        attempt: sample.completion.clone(),
        grade: Some(sample.correct),
        reason: Some(sample.rule.clone()),
    };
    samples.iter().map(attempt).collect()
}

/// What a budget's samples say of each question.
fn answers(budget: &Budget, samples: &[Sample]) -> Result<Answers> {
    let max = match budget.max_tokens()? {
        Some(MaxTokens::Count(count)) => Some(count),
        Some(MaxTokens::Auto) | None => None,
    };
    let asked = Asked {
        least: budget.min_tokens_thinking.map(|least| least as f64),
        most: budget.asked.or(max).map(|most| most as f64),
    };
    let mut answers = Answers { asked, ..Answers::default() };
    for question in samples.chunk_by(|a, b| a.doc_id == b.doc_id) {
        let mean = |value: fn(&Sample) -> usize| {
            question.iter().map(value).sum::<usize>() as f64 / question.len() as f64
        };
        answers.right.push(mean(|sample| sample.correct.into()));
        answers.thinking_tokens.push(mean(|sample| sample.thinking_tokens));
    }
    Ok(answers)
}

fn budget_result(
    task: &Task,
    budget: &Budget,
    samples: &[Sample],
    answers: &Answers,
    resamples: &Resamples,
) -> BudgetResult {
    let questions = answers.right.len();
    let n = samples.len();
    let count = |holds: &dyn Fn(&Sample) -> bool| samples.iter().filter(|s| holds(s)).count();
    let mean = |tokens: &dyn Fn(&Sample) -> usize| {
        samples.iter().map(tokens).sum::<usize>() as f64 / n as f64
    };
    let correct = count(&|s| s.correct);
    let mut rules = BTreeMap::new();
    for sample in samples {
        *rules.entry(sample.rule.clone()).or_default() += 1;
    }
    let limit = budget.max_tokens_thinking.as_ref();
    BudgetResult {
        name: budget.name.clone(),
        line: curves::line(budget),
        limit: limit.map(|limit| limit.as_str().map_or(limit.to_string(), String::from)),
        asked: answers.asked,
        n,
        correct,
        accuracy: correct as f64 / n as f64,
        interval: metrics::wilson(correct as f64 * questions as f64 / n as f64, questions),
        bootstrap: resamples.mean(&answers.right).interval,
        published: budget.published.get(&task.name).copied(),
        mean_thinking_tokens: mean(&|s| s.thinking_tokens),
        mean_answer_tokens: mean(&|s| s.answer_tokens),
        mean_tries: mean(&|s| s.tries),
        mean_steps: Some(mean(&steps)).filter(|steps| *steps > 0.0),
        thinking_stopped: count(&|s| s.thinking_ending == Some(Ending::Stop)),
        thinking_cut: count(&|s| s.thinking_ending == Some(Ending::Length)),
        answer_cut: count(&|s| s.ending == Ending::Length),
        overlong: count(&|s| s.ending == Ending::Context),
        no_answer: count(&|s| {
            !s.completion.contains("Answer:") && !s.completion.contains("\\boxed")
        }),
        together: together::together(task, budget, samples, n / questions),
        rules,
    }
}

/// Steps of thinking as step-conditional models count them down, by s1's own mark.
fn steps(sample: &Sample) -> usize {
    let thinking = sample.completion.split("<|im_start|>answer").next().unwrap_or_default();
    thinking.matches(" steps left\n").count()
}
