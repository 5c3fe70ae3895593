//! Lines through points, with a whisker on each point whose interval is known.
//!
//! A chart is drawn twice, for wide screens and for phones; the style sheet shows the one that
//! fits. On a logarithmic axis points at 0 stand apart, left of a break in the axis.

use crate::chart::{Axis, LINE, Scale, axes, line, number, places, series, svg};
use crate::html::Html;

const HEIGHT: f64 = 360.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 14.0;
/// What points at 0 take of a logarithmic axis.
const GUTTER: f64 = 44.0;
/// Height and half width of a character of a point's name, about.
const NAME: (f64, f64) = (12.0, 3.4);

/// Where a point's name may stand, right and up being 1: first where a rising line is not.
const PLACES: [(f64, f64); 4] = [(1.0, -1.0), (-1.0, 1.0), (1.0, 1.0), (-1.0, -1.0)];

/// How one quantity goes with another.
#[derive(Debug, Clone)]
pub struct Lines {
    /// What the chart shows.
    pub title: String,
    /// Names of the axes, with their units.
    pub axes: (String, String),
    /// Of the x axis; the other one is linear.
    pub scale: Scale,
    /// The lines. Points that are not finite, or below zero on [`Scale::Log2`], are left out.
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
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Point {
    /// Where on the x axis.
    pub x: f64,
    /// Where on the y axis.
    pub y: f64,
    /// Lower and upper end of its interval.
    pub interval: Option<(f64, f64)>,
    /// Stands beside it where there is room; may be empty.
    pub name: String,
}

impl Lines {
    /// The chart.
    pub fn html(&self) -> Html {
        let charts = [("wide", 760.0), ("narrow", 360.0)];
        let charts = charts
            .map(|(class, width)| Html::element("div", &[("class", class)], self.chart(width)));
        Html::plain(
            "figure",
            [Html::plain("figcaption", &self.title), self.legend(), charts.into()],
        )
    }

    /// A sample of each line with its name; nothing for a single one.
    fn legend(&self) -> Html {
        if self.lines.len() < 2 {
            return Html::default();
        }
        let entry = |(nth, line): (usize, &Line)| {
            let class = format!("sample {}{}", series(nth), dashed(line));
            Html::plain(
                "li",
                [Html::element("span", &[("class", &class)], ""), (&line.name).into()],
            )
        };
        let entries: Html = self.lines.iter().enumerate().map(entry).collect();
        Html::element("ul", &[("class", "legend")], entries)
    }

    fn chart(&self, width: f64) -> Html {
        let shown: Vec<Vec<Point>> = self.lines.iter().map(|line| self.shown(line)).collect();
        let points = || shown.iter().flatten();
        let ends = points().flat_map(|point| {
            let (low, high) = point.interval.unwrap_or((point.y, point.y));
            [point.y, low, high]
        });
        let y = Axis::around(ends, Scale::Linear, false).between(HEIGHT, 2.0 * LINE);
        let apart = self.scale == Scale::Log2 && points().any(|point| point.x == 0.0);
        let gutter = if apart { GUTTER } else { 0.0 };
        let on_axis = points().map(|point| point.x).filter(|x| !apart || *x > 0.0);
        let x = Axis::around(on_axis, self.scale, false).between(LEFT + gutter, width - RIGHT);
        let frame = Frame { x, y, zero: apart.then_some(LEFT + GUTTER / 3.0) };

        let mut marks = axes(&x, &y, LEFT, (&self.axes.0, &self.axes.1));
        marks.extend(frame.zero.map(|zero| gap(zero, y.from)));
        let lines = || std::iter::zip(&self.lines, &shown).enumerate();
        // Whiskers lie under all lines, and lines under all points, or one would hide another.
        for (nth, (_, points)) in lines() {
            marks.extend(points.iter().filter_map(|point| frame.whisker(point, nth)));
        }
        for (nth, (line, points)) in lines() {
            marks.extend(frame.path(points, &format!("{}{}", series(nth), dashed(line))));
        }
        for (nth, (line, points)) in lines() {
            let class = format!("{}{}", series(nth), dashed(line));
            marks.extend(points.iter().map(|point| frame.mark(point, &line.name, &class)));
        }
        marks.extend(frame.names(&shown, width));
        if points().next().is_none() {
            let middle = ((x.from + x.to) / 2.0, (y.from + y.to) / 2.0);
            marks.push(crate::chart::label(middle.0, middle.1, "label middle", "no points"));
        }
        svg(&self.title, (width, HEIGHT + 2.0 * LINE + 12.0), marks)
    }

    /// The points that have a place, with the intervals that have one.
    fn shown(&self, line: &Line) -> Vec<Point> {
        let has_place = |point: &&Point| {
            let finite = point.x.is_finite() && point.y.is_finite();
            finite && (self.scale == Scale::Linear || point.x >= 0.0)
        };
        let known = |(low, high): &(f64, f64)| low.is_finite() && high.is_finite();
        let clean =
            |point: &Point| Point { interval: point.interval.filter(known), ..point.clone() };
        line.points.iter().filter(has_place).map(clean).collect()
    }
}

fn dashed(line: &Line) -> &'static str {
    if line.dashed { " dashed" } else { "" }
}

/// The tick of 0, and the break between it and the axis.
fn gap(zero: f64, y: f64) -> Html {
    let at = zero + GUTTER / 2.5;
    [
        line("tick", (zero, y), (zero, y + 4.0)),
        crate::chart::label(zero, y + LINE + 2.0, "label middle", "0"),
        line("break", (at - 3.0, y), (at + 3.0, y)),
        line("axis", (at - 6.0, y + 5.0), (at, y - 5.0)),
        line("axis", (at, y + 5.0), (at + 6.0, y - 5.0)),
    ]
    .into()
}

/// Where things lie.
struct Frame {
    x: Axis,
    y: Axis,
    /// Where 0 lies on an axis that has no place for it.
    zero: Option<f64>,
}

impl Frame {
    fn at(&self, point: &Point) -> (f64, f64) {
        let x = self.zero.filter(|_| point.x == 0.0).unwrap_or_else(|| self.x.place(point.x));
        (x, self.y.place(point.y))
    }

    fn whisker(&self, point: &Point, nth: usize) -> Option<Html> {
        let (low, high) =
            point.interval.filter(|(low, high)| low.is_finite() && high.is_finite())?;
        let x = self.at(point).0;
        let (left, right) = (places(x - 3.0), places(x + 3.0));
        let [low, high] = [low, high].map(|end| places(self.y.place(end)));
        let path =
            format!("M{left} {low}H{right}M{left} {high}H{right}M{} {low}V{high}", places(x));
        let class = format!("whisker {}", series(nth));
        Some(Html::element("path", &[("class", &class), ("d", &path)], ""))
    }

    /// From point to point; thinner over the break in the axis.
    fn path(&self, points: &[Point], class: &str) -> Vec<Html> {
        let through = |points: &[Point], kind: &str| {
            let place = |point: &Point| {
                let (x, y) = self.at(point);
                format!("{} {}", places(x), places(y))
            };
            let path = points.iter().map(place).collect::<Vec<_>>().join("L");
            let class = format!("{kind} {class}");
            Html::element("path", &[("class", &class), ("d", &format!("M{path}"))], "")
        };
        let apart = points.iter().take_while(|point| self.zero.is_some() && point.x == 0.0).count();
        let mut paths = Vec::new();
        if apart > 0 && points.len() > apart {
            paths.push(through(&points[apart - 1..=apart], "line over"));
        }
        if points.len() > apart + 1 {
            paths.push(through(&points[apart..], "line"));
        }
        paths
    }

    fn mark(&self, point: &Point, line: &str, class: &str) -> Html {
        let interval = match point.interval {
            Some((low, high)) => format!(" ({} to {})", number(low), number(high)),
            None => String::new(),
        };
        let of = if point.name.is_empty() { String::new() } else { format!(", {}", point.name) };
        let title = format!("{line}{of}: {} at {}{interval}", number(point.y), number(point.x));
        let (x, y) = self.at(point);
        let (cx, cy, class) = (places(x), places(y), format!("point {class}"));
        let attributes = [("class", class.as_str()), ("cx", &cx), ("cy", &cy), ("r", "4")];
        Html::element("circle", &attributes, Html::plain("title", title))
    }

    /// The points' names, each in the first free place around its point; without one it has none.
    fn names(&self, lines: &[Vec<Point>], width: f64) -> Vec<Html> {
        let points = || lines.iter().flatten();
        // Left, top, right and bottom of what is taken.
        let around = |(x, y): (f64, f64)| [x - 5.0, y - 5.0, x + 5.0, y + 5.0];
        let mut taken: Vec<[f64; 4]> = points().map(|point| around(self.at(point))).collect();
        let mut marks = Vec::new();
        for point in points().filter(|point| !point.name.is_empty()) {
            let (x, y) = self.at(point);
            let long = 2.0 * NAME.1 * point.name.chars().count() as f64;
            for (side, up) in PLACES {
                let near = x + side * 6.0;
                let (left, right) =
                    if side > 0.0 { (near, near + long) } else { (near - long, near) };
                let bottom = if up > 0.0 { y - 6.0 } else { y + 5.0 + NAME.0 };
                let area = [left, bottom - NAME.0, right, bottom];
                let inside = left > LEFT && right < width && area[1] > self.y.to;
                if inside && bottom < self.y.from && !taken.iter().any(|other| meet(area, *other)) {
                    taken.push(area);
                    marks.push(crate::chart::label(left, bottom - 2.0, "name", &point.name));
                    break;
                }
            }
        }
        marks
    }
}

fn meet(a: [f64; 4], b: [f64; 4]) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}
