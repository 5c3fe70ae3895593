//! `report.html`: what more thinking brings, on one page.
//!
//! The whiskers are Wilson's intervals, which published points have too; the tables have the
//! bootstrap's beside them, and the metrics have the bootstrap's alone.

mod curves;
mod lengths;
mod samples;
mod together;

use anyhow::{Context, Result};
use page::chart::{Scale, number};
use page::document::{Page, details, figures, paragraph, verbatim};
use page::html::Html;
use page::lines::{self, Lines};
use page::table::{Kind, Table};

use crate::bootstrap::{Estimate, Metrics};
use crate::points::{self, Line, Published, percent};
use crate::report::{BudgetResult, Curve, Results, Sample, TaskResult};

/// The page of an evaluation that ran with `config`.
pub fn html(
    results: &Results,
    samples: &[Sample],
    published: &[Published],
    config: &toml::Table,
) -> Result<String> {
    let title = format!("{} under thinking budgets", results.model);
    let mut page = Page::new(&title, lead(results));
    for task in &results.tasks {
        page.section(&task.task, section(task, published));
    }
    page.section("Lengths", lengths::html(&results.tasks, samples));
    page.section("Samples", samples::html(&results.tasks, samples));
    let config = toml::to_string_pretty(config).context("the config cannot be written as TOML")?;
    let words = "Every number that shaped this evaluation, with the overrides of the command line.";
    page.section("Config", [paragraph(words), details("The run's TOML", verbatim(&config))]);
    Ok(page.html())
}

/// The page of lines from several places, each task with its own.
pub fn drawing(title: &str, tasks: &[(String, Vec<Line>)]) -> String {
    let mut page = Page::new(title, Html::default());
    for (task, lines) in tasks {
        let mut table = Table::new(&[
            ("line", Kind::Text),
            ("point", Kind::Text),
            ("thinking", Kind::Number),
            ("accuracy", Kind::Number),
            ("95% Wilson", Kind::Number),
            ("questions", Kind::Number),
        ]);
        for (line, point) in
            lines.iter().flat_map(|line| line.points.iter().map(move |p| (line, p)))
        {
            table.row([
                line.name.clone(),
                point.name.clone(),
                number(point.thinking_tokens.round()),
                format!("{:.1}%", point.accuracy),
                point.interval.map_or(NONE.into(), range),
                point.n.map_or(NONE.into(), |n| number(n as f64)),
            ]);
        }
        let table = details("All points", table.html());
        page.section(task, [chart(lines), curves::lines(lines), table, paragraph(READING)]);
    }
    page.html()
}

/// Stands where there is nothing to say.
const NONE: &str = "–";

const READING: &str = "\
The bars at the points are 95% Wilson intervals over the questions; dashed lines are others' \
measurements. Thinking that is 0 has no place on a logarithmic axis and stands left of it.";

const METRICS: &str = "\
Metrics are of budgets that differ in their limit alone, and of those that the config names. Control is the share of the limits that mean thinking kept to; Scaling the mean slope between all \
pairs of budgets, in points of accuracy for each doubling of the thinking; Performance the best \
accuracy. Their 95% intervals come from drawing the questions anew 10,000 times, all budgets on \
the same draws; the best of several budgets flatters, and so does its interval.";

/// What was asked, in a sentence.
fn lead(results: &Results) -> Html {
    let answers = match results.repeats {
        1 => String::new(),
        repeats => format!(", {repeats} answers to each question"),
    };
    let tasks = results.tasks.iter().map(|task| {
        let (questions, budgets) = (task.questions, task.budgets.len());
        format!("{questions} questions of {} under {budgets} budgets", task.task)
    });
    let tasks = tasks.collect::<Vec<_>>().join("; ");
    Html::element("p", &[("class", "quiet")], format!("{}: {tasks}{answers}.", results.model))
}

/// One task: its numbers, its curve and its table.
fn section(task: &TaskResult, published: &[Published]) -> Html {
    let mut lines = points::measured(task);
    lines.extend(points::published(published, &task.task));
    let words = format!("{READING} {METRICS}");
    let headline = headline(task);
    [
        figures(&headline.iter().map(|(n, what)| (n.clone(), what.as_str())).collect::<Vec<_>>()),
        chart(&lines),
        curves::html(task, &lines),
        Html::plain("h3", "All budgets"),
        table(task),
        paragraph(words),
        together::html(task),
    ]
    .into()
}

/// The numbers to see first.
fn headline(task: &TaskResult) -> Vec<(String, String)> {
    let mut numbers = vec![(number(task.questions as f64), "questions".to_owned())];
    let best = task.budgets.iter().map(|row| 100.0 * row.accuracy).max_by(f64::total_cmp);
    numbers.extend(best.map(|best| (format!("{best:.1}%"), "best accuracy".to_owned())));
    let Some(Curve { name, metrics: Metrics { control, scaling, .. }, .. }) = task.curves.first()
    else {
        return numbers;
    };
    let slope = |estimate: Estimate| format!("{:+.1}", estimate.value);
    numbers.extend(scaling.map(|e| (slope(e), format!("points a doubling of thinking, {name}"))));
    numbers.extend(
        control.map(|e| (format!("{:.0}%", e.value), format!("of the limits kept, {name}"))),
    );
    numbers
}

/// Accuracy against thinking.
fn chart(lines: &[Line]) -> Html {
    accuracy(lines, "Accuracy against thinking", "mean thinking tokens")
}

/// Accuracy against so many of the tokens.
fn accuracy(lines: &[Line], title: &str, tokens: &str) -> Html {
    let line = |line: &Line| lines::Line {
        name: line.name.clone(),
        dashed: line.published,
        points: line
            .points
            .iter()
            .map(|point| lines::Point {
                x: point.thinking_tokens,
                y: point.accuracy,
                interval: point.interval.map(|[low, high]| (low, high)),
                name: point.name.clone(),
            })
            .collect(),
    };
    let lines = Lines {
        title: title.to_owned(),
        axes: (format!("{tokens}, log scale"), "accuracy in %".to_owned()),
        scale: Scale::Log2,
        lines: lines.iter().map(line).collect(),
    };
    lines.html()
}

/// `36.7 to 70.0`.
fn range([low, high]: [f64; 2]) -> String {
    format!("{low:.1} to {high:.1}")
}

/// A row for each budget; columns that say nothing are left out.
fn table(task: &TaskResult) -> Html {
    type Cell = fn(&BudgetResult) -> String;
    let columns: [(&str, Kind, Cell); 17] = [
        ("budget", Kind::Text, |row| row.name.clone()),
        ("limit", Kind::Number, |row| row.limit.clone().unwrap_or(NONE.into())),
        ("kind", Kind::Text, |row| row.line.clone()),
        ("accuracy", Kind::Number, |row| format!("{:.1}%", 100.0 * row.accuracy)),
        ("95% Wilson", Kind::Number, |row| range(percent(row.interval))),
        ("95% bootstrap", Kind::Number, |row| range(percent(row.bootstrap))),
        ("published", Kind::Number, |row| {
            row.published.map_or(NONE.into(), |published| format!("{published:.1}%"))
        }),
        ("right", Kind::Number, |row| format!("{} of {}", row.correct, row.n)),
        ("thinking", Kind::Number, |row| format!("{:.1}", row.mean_thinking_tokens)),
        ("answer", Kind::Number, |row| format!("{:.1}", row.mean_answer_tokens)),
        ("tries", Kind::Number, |row| match row.mean_tries {
            tries if tries > 1.0 => format!("{tries:.1}"),
            _ => NONE.into(),
        }),
        ("steps", Kind::Number, |row| {
            row.mean_steps.map_or(NONE.into(), |steps| format!("{steps:.1}"))
        }),
        ("tokens a step", Kind::Number, |row| {
            let tokens = row.mean_steps.map(|steps| row.mean_thinking_tokens / steps);
            tokens.map_or(NONE.into(), |tokens| format!("{tokens:.1}"))
        }),
        ("thinking ended", Kind::Number, |row| count(row.thinking_stopped)),
        ("thinking cut", Kind::Number, |row| count(row.thinking_cut)),
        ("answer cut", Kind::Number, |row| count(row.answer_cut)),
        ("no answer", Kind::Number, |row| count(row.no_answer)),
    ];
    let says = |cell: &Cell| task.budgets.iter().any(|row| cell(row) != NONE);
    let columns: Vec<_> = columns.into_iter().filter(|(_, _, cell)| says(cell)).collect();
    let heads: Vec<_> = columns.iter().map(|(head, kind, _)| (*head, *kind)).collect();
    let mut table = Table::new(&heads);
    for row in &task.budgets {
        table.row(columns.iter().map(|(_, _, cell)| cell(row)));
    }
    table.html()
}

/// Of answers; none is not worth a digit.
fn count(count: usize) -> String {
    if count == 0 { NONE.into() } else { number(count as f64) }
}
