//! What the charts share: axes with round ticks, the legend, and numbers as people write them.
//!
//! A chart is one `svg` element without scripts or outside parts. Its colours are the page's, so it
//! follows light, dark and paper; marks carry their values as titles, which browsers show on hover.

use crate::html::Html;

/// Width of every chart in its own units; a page scales it to fit.
pub(crate) const WIDTH: f64 = 760.0;
/// Height of one line of text.
pub(crate) const LINE: f64 = 16.0;

/// How an axis maps values to places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences are equally far apart.
    Linear,
    /// Doublings are equally far apart; values must be above zero.
    Log2,
}

/// One axis: values from `low` to `high` lie between the places `from` and `to`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    scale: Scale,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

impl Axis {
    /// Around `values`, widened to round numbers; a linear axis of a chart of amounts begins at 0.
    pub(crate) fn around(values: impl Iterator<Item = f64>, scale: Scale, from_zero: bool) -> Self {
        let zero = from_zero.then_some(0.0);
        let (low, high) =
            values.chain(zero).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        // Without values any axis will do.
        let (low, high) = if low <= high { (low, high) } else { (1.0, 2.0) };
        let (low, high) = match scale {
            // A quarter of a doubling is room for a mark.
            Scale::Log2 => (low / 2f64.powf(0.25), high * 2f64.powf(0.25)),
            Scale::Linear => {
                let step = step(high - low);
                ((low / step).floor() * step, (high / step).ceil() * step)
            }
        };
        let high = if high > low { high } else { low + low.abs().max(1.0) };
        Self { scale, low, high, from: 0.0, to: 1.0 }
    }

    /// Between these places.
    pub(crate) fn between(self, from: f64, to: f64) -> Self {
        Self { from, to, ..self }
    }

    /// Where `value` lies.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log2 => (value / self.low).log2() / (self.high / self.low).log2(),
        };
        self.from + share * (self.to - self.from)
    }

    /// Round values along the axis.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => self.multiples(step(self.high - self.low)),
            Scale::Log2 => {
                let (first, last) =
                    (self.low.log2().ceil() as i32, self.high.log2().floor() as i32);
                // Fewer than two say nothing of the scale.
                if last <= first {
                    return self.multiples(step(self.high - self.low));
                }
                let labels = (self.to - self.from).abs() / 50.0;
                let every = (f64::from(last - first) / labels).ceil().max(1.0);
                (first..=last)
                    .step_by(every as usize)
                    .map(|power| f64::from(power).exp2())
                    .collect()
            }
        }
    }

    /// The multiples of `step` on the axis.
    fn multiples(&self, step: f64) -> Vec<f64> {
        // The tolerance keeps an end that is a multiple but for a rounding error.
        let first = (self.low / step - 1e-9).ceil();
        let count = (self.high / step + 1e-9 - first).floor() as usize;
        (0..=count).map(|nth| (first + nth as f64) * step).collect()
    }
}

/// 1, 2 or 5 times a power of ten that cuts `span` into about six.
pub(crate) fn step(span: f64) -> f64 {
    let rough = span.max(1e-9) / 6.0;
    let power = 10f64.powf(rough.log10().floor());
    // The tolerance keeps a span of exactly 6 steps from going one up by a rounding error.
    [1.0, 2.0, 5.0]
        .map(|times| times * power)
        .into_iter()
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(10.0 * power)
}

/// `12,345,678`, and at most two places behind the point.
pub fn number(value: f64) -> String {
    let rounded = (value * 100.0).round() / 100.0;
    let text = format!("{}", rounded.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if rounded < 0.0 { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{grouped}{point}{fraction}")
}

/// A chart of the usual width with its caption.
pub(crate) fn figure(title: &str, height: f64, marks: Vec<Html>) -> Html {
    Html::plain("figure", [Html::plain("figcaption", title), svg(title, (WIDTH, height), marks)])
}

/// The drawing of this size around its marks; `title` is what it shows, for those who hear it.
pub(crate) fn svg(title: &str, (width, height): (f64, f64), marks: Vec<Html>) -> Html {
    let size = format!("0 0 {width} {}", height.ceil());
    let attributes = [("viewBox", size.as_str()), ("role", "img"), ("aria-label", title)];
    Html::element("svg", &attributes, marks)
}

/// Text at a place, of a class that the style sheet knows (`end` and `middle` set its anchor).
pub(crate) fn label(x: f64, y: f64, class: &str, text: &str) -> Html {
    let place = [("x", places(x)), ("y", places(y))];
    let attributes = [("x", place[0].1.as_str()), ("y", place[1].1.as_str()), ("class", class)];
    Html::element("text", &attributes, text)
}

/// A straight line.
pub(crate) fn line(class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> Html {
    let path = format!("M{} {}L{} {}", places(x1), places(y1), places(x2), places(y2));
    Html::element("path", &[("class", class), ("d", &path)], "")
}

/// A filled rectangle with a title to hover for.
pub(crate) fn rectangle(class: &str, (x, y): (f64, f64), size: (f64, f64), title: &str) -> Html {
    let (x, y, width, height) = (places(x), places(y), places(size.0), places(size.1));
    let attributes =
        [("class", class), ("x", &x), ("y", &y), ("width", &width), ("height", &height)];
    Html::element("rect", &attributes, Html::plain("title", title))
}

/// A number of an attribute: a tenth of a unit is finer than any screen.
pub(crate) fn places(value: f64) -> String {
    format!("{value:.1}")
}

/// The class of the `nth` series; colours begin anew after the last.
pub(crate) fn series(nth: usize) -> String {
    format!("series{}", nth % 6)
}

/// One line with a patch of colour for each name; nothing for a single one.
pub(crate) fn legend(names: &[&str], left: f64, y: f64) -> Vec<Html> {
    let mut marks = Vec::new();
    let mut x = left;
    for (nth, name) in names.iter().enumerate().filter(|_| names.len() > 1) {
        marks.push(rectangle(&format!("fill {}", series(nth)), (x, y - 9.0), (10.0, 10.0), name));
        marks.push(label(x + 15.0, y, "label", name));
        x += 30.0 + width_of(name);
    }
    marks
}

/// About how wide a text is.
pub(crate) fn width_of(text: &str) -> f64 {
    text.chars().count() as f64 * 6.6
}

/// Both axes with their ticks, grid and names; the y axis, and where the grid begins, is at `left`.
pub(crate) fn axes(x: &Axis, y: &Axis, left: f64, names: (&str, &str)) -> Vec<Html> {
    let mut marks = Vec::new();
    for tick in y.ticks() {
        let at = y.place(tick);
        marks.push(line("grid", (left, at), (x.to, at)));
        marks.push(label(left - 6.0, at + 4.0, "label end", &number(tick)));
    }
    for tick in x.ticks() {
        let at = x.place(tick);
        marks.push(line("tick", (at, y.from), (at, y.from + 4.0)));
        marks.push(label(at, y.from + LINE + 2.0, "label middle", &number(tick)));
    }
    marks.push(line("axis", (left, y.from), (x.to, y.from)));
    marks.push(label((left + x.to) / 2.0, y.from + 2.0 * LINE + 6.0, "label middle", names.0));
    marks.push(label(left - 40.0, y.to - 12.0, "label", names.1));
    marks
}
