//! `summary.txt`, which is also printed.

use std::fmt::Write as _;

use super::{Curve, Results, TaskResult, Together};
use crate::bootstrap::Estimate;
use crate::config::{Budget, Config};

const HEADER: [&str; 15] = [
    "budget",
    "limit",
    "ends ignored",
    "right",
    "accuracy",
    "95% interval",
    "published",
    "thinking",
    "answer",
    "tries",
    "steps",
    "a step",
    "finished",
    "cut off",
    "no answer",
];

/// What the columns mean; the one for ignored ends stands only under a table that has them.
const LEGEND: &str = "\
limit: tokens of thinking at most; thinking, answer: mean tokens written
finished, cut off: answers whose thinking the model ended, or that reached the limit
no answer: texts with neither \"Answer:\" nor \\boxed; they are graded whole
";
const IGNORED: &str =
    "ends ignored: times that an end of thinking is replaced, and by which text\n";
const TRIES: &str = "tries: mean times that thinking was begun until it stayed within its limit\n";
const STEPS: &str = "\
steps, a step: mean steps that the model counted down, and tokens of thinking for each
";

/// The content of `summary.txt`.
pub fn summary(config: &Config, budgets: &[Budget], results: &Results) -> String {
    let mut text = String::new();
    let mut overlong = 0;
    for task in &results.tasks {
        let answers = match results.repeats {
            1 => String::new(),
            repeats => format!(", {repeats} answers to each"),
        };
        let _ = writeln!(
            text,
            "task {}: {} questions{answers}, model {}\n\n{}",
            task.task,
            task.questions,
            results.model,
            table(config, budgets, task)
        );
        overlong += task.budgets.iter().map(|row| row.overlong).sum::<usize>();
        text += &together_table(task);
        text += &metrics_lines(task);
    }
    text += LEGEND;
    if budgets.iter().any(|budget| budget.thinking_n_ignore.is_some()) {
        text += IGNORED;
    }
    let rows = || results.tasks.iter().flat_map(|task| &task.budgets);
    if rows().any(|row| row.mean_tries > 1.0) {
        text += TRIES;
    }
    if rows().any(|row| row.mean_steps.is_some()) {
        text += STEPS;
    }
    if overlong > 0 {
        let limit = config.model.max_model_len;
        let _ = writeln!(text, "{overlong} answers ended where the context of {limit} was full");
    }
    text
}

/// A row for each budget.
fn table(config: &Config, budgets: &[Budget], task: &TaskResult) -> String {
    let mut rows = vec![HEADER.map(String::from)];
    for (budget, row) in budgets.iter().zip(&task.budgets) {
        let limit = match &budget.max_tokens_thinking {
            Some(toml::Value::String(word)) => word.clone(),
            Some(count) => count.to_string(),
            None if budget.forces_thinking() => {
                config.generation.max_gen_toks.map_or("task's".into(), |count| count.to_string())
            }
            None => "-".into(),
        };
        let ignore = match (budget.thinking_n_ignore, &budget.thinking_n_ignore_str) {
            (None, _) => "-".into(),
            (Some(n), None) => format!("{n}x"),
            (Some(n), Some(text)) => format!("{n}x {text}"),
        };
        let [low, high] = row.interval.map(|end| 100.0 * end);
        rows.push([
            row.name.clone(),
            limit,
            ignore,
            format!("{} of {}", row.correct, row.n),
            format!("{:.1}%", 100.0 * row.accuracy),
            format!("{low:.1} to {high:.1}"),
            row.published.map_or("-".into(), |published| format!("{published:.1}%")),
            format!("{:.1}", row.mean_thinking_tokens),
            format!("{:.1}", row.mean_answer_tokens),
            if row.mean_tries > 1.0 { format!("{:.1}", row.mean_tries) } else { "-".into() },
            row.mean_steps.map_or("-".into(), |steps| format!("{steps:.1}")),
            row.mean_steps
                .map_or("-".into(), |steps| format!("{:.1}", row.mean_thinking_tokens / steps)),
            row.thinking_stopped.to_string(),
            row.thinking_cut.to_string(),
            row.no_answer.to_string(),
        ]);
    }
    aligned(&rows)
}

/// What several answers are worth together, where there are several.
fn together_table(task: &TaskResult) -> String {
    let heads = ["budget", "answers", "tokens", "one right", "majority", "published", "pass@k"];
    let mut rows = vec![heads.map(String::from)];
    for row in &task.budgets {
        let share = |value: f64| format!("{:.1}%", 100.0 * value);
        rows.extend(row.together.iter().map(|at| {
            let Together { k, cov, maj, pass, tokens, published } = *at;
            let published = published.map_or("-".into(), |percent| format!("{percent:.1}%"));
            let tokens = format!("{tokens:.0}");
            [
                row.name.clone(),
                k.to_string(),
                tokens,
                share(cov),
                share(maj),
                published,
                share(pass),
            ]
        }));
    }
    if rows.len() > 1 { aligned(&rows) + "\n" } else { String::new() }
}

/// For each curve a line for each metric that it has.
fn metrics_lines(task: &TaskResult) -> String {
    let mut text = String::new();
    for Curve { name, budgets, metrics, published } in &task.curves {
        let _ = writeln!(text, "{name}, {} budgets", budgets.len());
        let mut line = |name: &str, estimate: Option<Estimate>, other: Option<f64>, meaning| {
            if let Some(Estimate { value, interval: [low, high] }) = estimate {
                let other = other.map_or_else(String::new, |other| format!("; published: {other}"));
                let _ =
                    writeln!(text, "  {name} {value:.1} ({low:.1} to {high:.1}) {meaning}{other}");
            }
        };
        line("control    ", metrics.control, published.control, "% of the limits were kept");
        let meaning = "points of accuracy for each doubling of thinking";
        line("scaling    ", metrics.scaling, published.scaling, meaning);
        line("performance", metrics.performance, published.performance, "% is the best accuracy");
    }
    if !text.is_empty() {
        text += "in brackets: 95% of bootstrap draws of the questions\n\n";
    }
    text
}

/// Columns side by side: the first to the left, the others to the right; without those that hold
/// nothing but `-`.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let says_nothing = |column: usize| rows[1..].iter().all(|row| row[column] == "-");
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            if says_nothing(column) {
                continue;
            }
            let width = width(column).unwrap_or(0);
            let _ = match column {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}
