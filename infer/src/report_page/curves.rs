//! Control, Scaling and Performance, ours and others'.

use page::chart::number;
use page::html::Html;
use page::table::{Kind, Table};

use super::{NONE, range};
use crate::bootstrap::Estimate;
use crate::points::{self, Line};
use crate::report::{Curve, TaskResult};

/// The metrics of a task's curves, and those of others' lines.
pub fn html(task: &TaskResult, lines: &[Line]) -> Html {
    let mut columns = vec![("", Kind::Text), ("budgets", Kind::Number)];
    for metric in ["Scaling", "Performance", "Control"] {
        columns.extend([metric, "published"].map(|head| (head, Kind::Number)));
    }
    let mut rows: Vec<Vec<String>> = task.curves.iter().map(row).collect();
    for line in lines.iter().filter(|line| line.published && line.points.len() > 1) {
        let [name, budgets, scaling, performance] = of_line(line);
        let none = || NONE.to_owned();
        // Of others' points it is not known what was asked.
        rows.push(vec![name, budgets, none(), scaling, none(), performance, none(), none()]);
    }
    let says = |column: &usize| rows.iter().any(|row| row[*column] != NONE);
    let kept: Vec<usize> = (0..columns.len()).filter(says).collect();
    let mut table = Table::new(&kept.iter().map(|&at| columns[at]).collect::<Vec<_>>());
    rows.iter().for_each(|row| table.row(kept.iter().map(|&at| row[at].clone())));
    table.html()
}

fn row(curve: &Curve) -> Vec<String> {
    let Curve { name, budgets, metrics, published } = curve;
    let shown = |estimate: Option<Estimate>, signed: bool| match estimate {
        None => NONE.to_owned(),
        Some(Estimate { value, interval: [low, high] }) if signed => {
            format!("{value:+.1} ({low:+.1} to {high:+.1})")
        }
        Some(Estimate { value, interval }) => format!("{value:.1}% ({})", range(interval)),
    };
    let other = |value: Option<f64>| value.map_or(NONE.into(), |value| format!("{value}%"));
    vec![
        name.clone(),
        number(budgets.len() as f64),
        shown(metrics.scaling, true),
        published.scaling.map_or(NONE.into(), |slope| format!("{slope:+}")),
        shown(metrics.performance, false),
        other(published.performance),
        shown(metrics.control, false),
        other(published.control),
    ]
}

/// The metrics of lines from several places.
pub fn lines(lines: &[Line]) -> Html {
    let columns = ["points", "Scaling", "Performance"].map(|head| (head, Kind::Number));
    let mut table = Table::new(&[&[("", Kind::Text)], &columns[..]].concat());
    lines.iter().filter(|line| line.points.len() > 1).for_each(|line| table.row(of_line(line)));
    table.html()
}

/// Name, points, Scaling and Performance.
fn of_line(line: &Line) -> [String; 4] {
    let (scaling, performance) = points::metrics(line);
    [
        line.name.clone(),
        number(line.points.len() as f64),
        scaling.map_or(NONE.into(), |slope| format!("{slope:+.1}")),
        performance.map_or(NONE.into(), |best| format!("{best:.1}%")),
    ]
}
