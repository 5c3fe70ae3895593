//! Histograms: how often which values occur, several sets over each other.

use crate::chart::{
    Axis, LINE, Scale, WIDTH, axes, figure, legend, number, places, rectangle, series, step,
};
use crate::html::Html;

/// Bins are as many as fit this number, their width being round.
const BINS: f64 = 40.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 60.0;

/// Sets of values, each shown by the shares of its values in equally wide bins: sets of different
/// sizes can be compared.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    /// What the chart shows.
    pub title: String,
    /// What the values are, with their unit.
    pub values: String,
    /// The sets by name. Values that are not finite are left out.
    pub sets: Vec<(String, Vec<f64>)>,
}

impl Histogram {
    /// The chart.
    pub fn html(&self) -> Html {
        let all = || self.sets.iter().flat_map(|set| &set.1).copied().filter(|x| x.is_finite());
        let x = Axis::around(all(), Scale::Linear, false).between(LEFT, WIDTH - 20.0);
        let width = step((x.high - x.low) / BINS * 6.0);
        let bins = ((x.high - x.low) / width).ceil() as usize;
        let shares: Vec<Vec<f64>> =
            self.sets.iter().map(|set| shares(&set.1, x.low, width, bins)).collect();
        let tops = shares.iter().flatten().copied();
        let y = Axis::around(tops, Scale::Linear, true).between(HEIGHT, 2.0 * LINE + 12.0);

        let names: Vec<&str> = self.sets.iter().map(|set| set.0.as_str()).collect();
        let mut marks = legend(&names, LEFT, 12.0);
        marks.extend(axes(&x, &y, LEFT, (&self.values, "% of the set")));
        for (nth, shares) in shares.iter().enumerate() {
            marks.push(steps(&x, &y, (x.low, width), shares, nth));
        }
        for bin in 0..bins {
            let low = x.low + bin as f64 * width;
            let share =
                |(name, shares): (&&str, &Vec<f64>)| format!("{name} {}%", number(shares[bin]));
            let parts: Vec<_> = std::iter::zip(&names, &shares).map(share).collect();
            let title = format!("{} to {}: {}", number(low), number(low + width), parts.join(", "));
            let left = x.place(low);
            let size = (x.place((low + width).min(x.high)) - left, y.from - y.to);
            marks.push(rectangle("hover", (left, y.to), size, &title));
        }
        figure(&self.title, HEIGHT + 2.0 * LINE + 12.0, marks)
    }
}

/// For each bin the percentage of the values that lie in it.
fn shares(values: &[f64], low: f64, width: f64, bins: usize) -> Vec<f64> {
    let mut counts = vec![0usize; bins];
    for value in values.iter().filter(|value| value.is_finite()) {
        let bin = ((value - low) / width).floor() as usize;
        // The highest value may close the last bin.
        counts[bin.min(bins - 1)] += 1;
    }
    let whole = counts.iter().sum::<usize>().max(1) as f64;
    counts.iter().map(|&count| 100.0 * count as f64 / whole).collect()
}

/// The outline of the bins as one filled path.
fn steps(x: &Axis, y: &Axis, (low, width): (f64, f64), shares: &[f64], nth: usize) -> Html {
    let mut path = format!("M{} {}", places(x.place(low)), places(y.from));
    for (bin, share) in shares.iter().enumerate() {
        let (left, right) = (low + bin as f64 * width, low + (bin + 1) as f64 * width);
        let top = places(y.place(*share));
        let [left, right] = [left, right.min(x.high)].map(|edge| places(x.place(edge)));
        path += &format!("L{left} {top}L{right} {top}");
    }
    path += &format!("L{} {}Z", places(x.to), places(y.from));
    Html::element("path", &[("class", &format!("area {}", series(nth))), ("d", &path)], "")
}
