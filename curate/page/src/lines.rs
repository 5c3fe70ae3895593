//! Lines through points, with a band around them where an interval is known.

use crate::chart::{Axis, LINE, Scale, WIDTH, axes, label, legend, number, places, series, svg};
use crate::html::Html;

const HEIGHT: f64 = 330.0;
const LEFT: f64 = 60.0;

/// How one quantity goes with another.
#[derive(Debug, Clone)]
pub struct Lines {
    /// What the chart shows.
    pub title: String,
    /// Names of the axes, with their units.
    pub axes: (String, String),
    /// Of the x axis; the other one is linear.
    pub scale: Scale,
    /// The lines. Points that are not finite, or not above zero on [`Scale::Log2`], are left out.
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// What the legend calls it.
    pub name: String,
    /// From left to right.
    pub points: Vec<Point>,
    /// Something to compare with, not our own measurement.
    pub dashed: bool,
}

/// One measurement.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Point {
    /// Where on the x axis.
    pub x: f64,
    /// Where on the y axis.
    pub y: f64,
    /// Lower and upper end of its interval.
    pub band: Option<(f64, f64)>,
}

impl Lines {
    /// The chart.
    pub fn html(&self) -> Html {
        let shown: Vec<Vec<Point>> = self.lines.iter().map(|line| self.shown(line)).collect();
        let points = || shown.iter().flatten();
        let x = Axis::around(points().map(|point| point.x), self.scale, false);
        let ends = points().flat_map(|point| {
            let (low, high) = point.band.unwrap_or((point.y, point.y));
            [point.y, low, high]
        });
        let y = Axis::around(ends, Scale::Linear, false).between(HEIGHT, 2.0 * LINE + 12.0);
        let x = x.between(LEFT, WIDTH - 30.0);

        let names: Vec<&str> = self.lines.iter().map(|line| line.name.as_str()).collect();
        let mut marks = legend(&names, LEFT, 12.0);
        marks.extend(axes(&x, &y, (&self.axes.0, &self.axes.1)));
        // Bands lie under all lines, or one would hide another.
        let lines = || std::iter::zip(&self.lines, &shown).enumerate();
        marks.extend(lines().filter_map(|(nth, (_, points))| band(points, &x, &y, nth)));
        for (nth, (line, points)) in lines() {
            marks.push(path(points, &x, &y, nth, line.dashed));
            marks.extend(points.iter().map(|point| mark(point, &line.name, &x, &y, nth)));
        }
        if shown.iter().all(Vec::is_empty) {
            let middle = ((x.from + x.to) / 2.0, (y.from + y.to) / 2.0);
            marks.push(label(middle.0, middle.1, "label middle", "no points"));
        }
        svg(&self.title, HEIGHT + 2.0 * LINE + 12.0, marks)
    }

    /// The points that have a place.
    fn shown(&self, line: &Line) -> Vec<Point> {
        let has_place = |point: &&Point| {
            let finite = point.x.is_finite() && point.y.is_finite();
            finite && (self.scale == Scale::Linear || point.x > 0.0)
        };
        let known = |band: &(f64, f64)| band.0.is_finite() && band.1.is_finite();
        let clean = |point: &Point| Point { band: point.band.filter(known), ..*point };
        line.points.iter().filter(has_place).map(clean).collect()
    }
}

/// From the upper ends there to the lower ends back; points without an interval are passed over.
fn band(points: &[Point], x: &Axis, y: &Axis, nth: usize) -> Option<Html> {
    let known: Vec<_> = points.iter().filter_map(|point| Some((point.x, point.band?))).collect();
    let there = known.iter().map(|(at, band)| (*at, band.1));
    let back = known.iter().rev().map(|(at, band)| (*at, band.0));
    let outline = there.chain(back).map(|(at, end)| place(x, y, at, end)).collect::<Vec<_>>();
    let path = format!("M{}Z", outline.join("L"));
    let class = format!("band {}", series(nth));
    (known.len() > 1).then(|| Html::element("path", &[("class", &class), ("d", &path)], ""))
}

fn path(points: &[Point], x: &Axis, y: &Axis, nth: usize, dashed: bool) -> Html {
    let places: Vec<_> = points.iter().map(|point| place(x, y, point.x, point.y)).collect();
    let path = if places.is_empty() { String::new() } else { format!("M{}", places.join("L")) };
    let class = format!("line {}{}", series(nth), if dashed { " dashed" } else { "" });
    Html::element("path", &[("class", &class), ("d", &path)], "")
}

fn mark(point: &Point, name: &str, x: &Axis, y: &Axis, nth: usize) -> Html {
    let interval = match point.band {
        Some((low, high)) => format!(" ({} to {})", number(low), number(high)),
        None => String::new(),
    };
    let title = format!("{name}: {} at {}{interval}", number(point.y), number(point.x));
    let (cx, cy) = (places(x.place(point.x)), places(y.place(point.y)));
    let class = format!("fill {}", series(nth));
    let attributes = [("class", class.as_str()), ("cx", &cx), ("cy", &cy), ("r", "3.5")];
    Html::element("circle", &attributes, Html::plain("title", title))
}

fn place(x: &Axis, y: &Axis, at: f64, value: f64) -> String {
    format!("{} {}", places(x.place(at)), places(y.place(value)))
}
