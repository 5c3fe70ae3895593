//! Control, Scaling and Performance, ours and others'.

use page::chart::number;
use page::html::Html;
use page::table::{Kind, Table};

use super::NONE;
use crate::bootstrap::Estimate;
use crate::config::PublishedMetrics;
use crate::points::{self, Line};
use crate::report::{Curve, TaskResult};

/// The metrics of a task's curves, each above what others have published of it, and those of
/// others' lines.
pub fn html(task: &TaskResult, lines: &[Line]) -> Html {
    let columns = ["budgets", "Scaling", "Performance", "Control"].map(|head| (head, Kind::Number));
    let mut table = Table::new(&[&[("", Kind::Text)], &columns[..]].concat());
    for Curve { name, budgets, metrics, published } in &task.curves {
        table.row([
            name.clone(),
            number(budgets.len() as f64),
            shown(metrics.scaling, |slope| format!("{slope:+.1}")),
            shown(metrics.performance, |best| format!("{best:.1}%")),
            shown(metrics.control, |kept| format!("{kept:.1}%")),
        ]);
        let PublishedMetrics { control, scaling, performance } = published;
        if *published != PublishedMetrics::default() {
            table.row([
                format!("{name}, published"),
                String::new(),
                scaling.map_or(NONE.into(), |slope| format!("{slope:+}")),
                performance.map_or(NONE.into(), |best| format!("{best}%")),
                control.map_or(NONE.into(), |kept| format!("{kept}%")),
            ]);
        }
    }
    for line in lines.iter().filter(|line| line.published && line.points.len() > 1) {
        // Of others' points it is not known what was asked.
        table.row(of_line(line).into_iter().chain([NONE.to_owned()]));
    }
    table.html()
}

/// With its interval.
fn shown(estimate: Option<Estimate>, text: fn(f64) -> String) -> String {
    estimate.map_or(NONE.into(), |Estimate { value, interval: [low, high] }| {
        let plain = |value: f64| text(value).trim_end_matches('%').to_owned();
        format!("{} ({} to {})", text(value), plain(low), plain(high))
    })
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
