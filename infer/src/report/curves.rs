//! Budgets that are measured together: those of one line, and those that the config names.

use serde::{Deserialize, Serialize};

use crate::bootstrap::{Answers, Metrics, Resamples};
use crate::budget::MaxTokens;
use crate::config::{Budget, Measured, PublishedMetrics};

/// The paper's metrics of some budgets that force thinking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// That of the line, or of the config.
    pub name: String,
    /// Names, in the config's order.
    pub budgets: Vec<String>,
    /// Of these budgets.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// What others have published of them.
    pub published: PublishedMetrics,
}

/// Those that the config names, then the lines of several budgets; where there are neither, all
/// budgets. A slope between lines means nothing: they lie beside each other.
pub(super) fn curves(
    task: &str,
    budgets: &[Budget],
    measured: &[Measured],
    answers: &[Answers],
    resamples: &Resamples,
) -> Vec<Curve> {
    let forced: Vec<usize> = (0..budgets.len()).filter(|&n| budgets[n].forces_thinking()).collect();
    let mut curves: Vec<(&str, Vec<usize>, PublishedMetrics)> = Vec::new();
    for Measured { name, budgets: own, published } in measured {
        let own = forced.iter().copied().filter(|&n| own.contains(&budgets[n].name));
        curves.push((name, own.collect(), published.get(task).copied().unwrap_or_default()));
    }
    let lines: Vec<String> = budgets.iter().map(line).collect();
    for (at, &first) in forced.iter().enumerate() {
        let is_first = forced[..at].iter().all(|&n| lines[n] != lines[first]);
        let own = forced.iter().copied().filter(|&n| lines[n] == lines[first]);
        let own: Vec<usize> = own.collect();
        if is_first && own.len() > 1 && curves.iter().all(|(_, known, _)| *known != own) {
            curves.push((&lines[first], own, PublishedMetrics::default()));
        }
    }
    if curves.is_empty() && forced.len() > 1 {
        curves.push(("all that force thinking", forced, PublishedMetrics::default()));
    }
    let curve = |(name, own, published): (&str, Vec<usize>, _)| {
        let answers: Vec<Answers> = own.iter().map(|&n| answers[n].clone()).collect();
        Curve {
            name: name.to_owned(),
            budgets: own.iter().map(|&n| budgets[n].name.clone()).collect(),
            metrics: resamples.metrics(&answers),
            published,
        }
    };
    curves.into_iter().map(curve).collect()
}

/// The name of the line through budgets that differ in their limit alone.
pub(super) fn line(budget: &Budget) -> String {
    let mut kinds = Vec::new();
    match (budget.thinking_n_ignore.unwrap_or(0), &budget.thinking_n_ignore_str) {
        (0, _) if budget.forces_thinking() => kinds.push("no end ignored".to_owned()),
        (0, _) => kinds.push("nothing forced".to_owned()),
        (n, None) => kinds.push(format!("{n}x ignored")),
        (n, Some(text)) => kinds.push(format!("{n}x {text}")),
    }
    if budget.rejection_tries.is_some() {
        kinds.push("rejection sampling".to_owned());
    }
    if budget.prompt_suffix.is_some() {
        let enforced = matches!(budget.max_tokens(), Ok(Some(MaxTokens::Count(_))));
        let kind = if enforced { "asked and enforced" } else { "asked in the prompt" };
        kinds.push(kind.to_owned());
    }
    kinds.join(", ")
}
