//! Accuracy at mean thinking tokens, as others publish it and as our evaluations find it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::metrics::{self, wilson};
use crate::report::{Results, TaskResult};

/// A line of a points file; other columns are left alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Who answered.
    pub model: String,
    /// What was asked: a task's name, whatever the case, spaces and punctuation.
    pub benchmark: String,
    /// What was varied; points that share it with model and benchmark are one line.
    pub intervention: String,
    /// How far; a number or a text.
    pub setting: serde_json::Value,
    /// The share of right answers, 0 to 1.
    pub accuracy: f64,
    /// Mean thinking tokens.
    pub mean_tokens: f64,
    /// Questions. Without their number there is no interval.
    pub n: Option<usize>,
}

/// Points to draw through.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// For the legend.
    pub name: String,
    /// Others measured it.
    pub published: bool,
    /// In the order of their thinking tokens.
    pub points: Vec<Point>,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The setting, or the budget's limit or name.
    pub name: String,
    /// Mean thinking tokens.
    pub thinking_tokens: f64,
    /// In percent.
    pub accuracy: f64,
    /// 95% Wilson interval of the accuracy in percent.
    pub interval: Option<[f64; 2]>,
    /// Questions.
    pub n: Option<usize>,
}

/// The rows of a points file, JSONL.
///
/// # Errors
/// Name the file, the line and what is wrong with it.
pub fn read(path: &Path) -> Result<Vec<Published>> {
    let mut rows = Vec::new();
    for row in record::jsonl::read_numbered::<Published>(path)? {
        let (line, row) = row?;
        let place = || format!("{} line {line}", path.display());
        let Published { accuracy, mean_tokens, n, .. } = row;
        ensure!(
            (0.0..=1.0).contains(&accuracy),
            "{}: accuracy is {accuracy}; a share from 0 to 1 is wanted",
            place()
        );
        ensure!(
            mean_tokens.is_finite() && mean_tokens >= 0.0 && n != Some(0),
            "{}: mean_tokens is {mean_tokens} and n is {n:?}; neither can be so",
            place()
        );
        rows.push(row);
    }
    ensure!(!rows.is_empty(), "{}: there are no points in it", path.display());
    Ok(rows)
}

/// `results.json` of an evaluation's folder.
///
/// # Errors
/// When the folder is none of `infer eval`.
pub fn read_results(folder: &Path) -> Result<Results> {
    let file = folder.join("results.json");
    let place = || format!("cannot read {}: is it of an `infer eval`?", file.display());
    let text = std::fs::read_to_string(&file).with_context(place)?;
    serde_json::from_str(&text).with_context(place)
}

/// Do these names of a task mean the same? `GPQA Diamond` and `gpqa_diamond` do.
pub fn same_task(a: &str, b: &str) -> bool {
    let letters = |name: &str| {
        let plain = name.chars().filter(|c| c.is_alphanumeric());
        plain.flat_map(char::to_lowercase).collect::<String>()
    };
    letters(a) == letters(b)
}

/// The lines of the rows about a task.
pub fn published(rows: &[Published], task: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for row in rows.iter().filter(|row| same_task(&row.benchmark, task)) {
        let name = format!("{}, {}", short(&row.model), row.intervention);
        let point = Point {
            name: row.setting.as_str().map_or_else(|| row.setting.to_string(), String::from),
            thinking_tokens: row.mean_tokens,
            accuracy: 100.0 * row.accuracy,
            interval: row.n.map(|n| percent(wilson(row.accuracy * n as f64, n))),
            n: row.n,
        };
        add(&mut lines, name, true, point);
    }
    lines
}

/// The lines of a task's results.
pub fn measured(task: &TaskResult) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for row in &task.budgets {
        let point = Point {
            // What else is in the budget's name, the line's says.
            name: row.limit.clone().unwrap_or_else(|| row.name.clone()),
            thinking_tokens: row.mean_thinking_tokens,
            accuracy: 100.0 * row.accuracy,
            interval: Some(percent(row.interval)),
            n: Some(task.questions),
        };
        add(&mut lines, row.line.clone(), false, point);
    }
    lines
}

fn add(lines: &mut Vec<Line>, name: String, published: bool, point: Point) {
    let known = lines.iter().position(|line| line.name == name);
    let place = known.unwrap_or_else(|| {
        lines.push(Line { name, published, points: Vec::new() });
        lines.len() - 1
    });
    let points = &mut lines[place].points;
    let before = points.partition_point(|other| other.thinking_tokens <= point.thinking_tokens);
    points.insert(before, point);
}

/// Scaling and Performance of a line's points.
pub fn metrics(line: &Line) -> (Option<f64>, Option<f64>) {
    let point = |point: &Point| metrics::Point {
        thinking_tokens: point.thinking_tokens,
        accuracy: point.accuracy,
        asked: metrics::Asked::default(),
    };
    let points: Vec<_> = line.points.iter().map(point).collect();
    (metrics::scaling(&points), metrics::performance(&points))
}

/// A model's name without what stands before the last `/`.
pub fn short(model: &str) -> &str {
    let model = model.trim_end_matches('/');
    model.rsplit('/').next().unwrap_or(model)
}

/// Both ends as percentages.
pub fn percent(interval: [f64; 2]) -> [f64; 2] {
    interval.map(|end| 100.0 * end)
}
