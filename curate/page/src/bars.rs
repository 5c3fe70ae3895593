//! Horizontal bars: one group a row, one bar a series.

use crate::chart::{LINE, WIDTH, figure, label, legend, places, rectangle, series};
use crate::html::Html;

/// Amounts by name.
#[derive(Debug, Clone, Default)]
pub struct Bars {
    /// What the chart shows.
    pub title: String,
    /// What each bar of a group stands for; a single one needs no legend.
    pub series: Vec<String>,
    /// The groups, top to bottom.
    pub rows: Vec<Group>,
}

/// The bars of one row.
#[derive(Debug, Clone)]
pub struct Group {
    /// The row's name; a long one is cut, and whole when hovered for.
    pub label: String,
    /// One a series: the length, and the text at the bar's end. `None` takes no room.
    pub bars: Vec<Option<(f64, String)>>,
}

const BAR: f64 = 13.0;
const LABELS: f64 = 250.0;
/// Room for the text at the end of the longest bar.
const VALUES: f64 = 110.0;
const LABEL_CHARACTERS: usize = 34;

impl Bars {
    /// The chart. Lengths are finite, not negative, and begin at zero.
    pub fn html(&self) -> Html {
        let lengths = self.rows.iter().flat_map(|row| &row.bars).flatten().map(|bar| bar.0);
        let longest = lengths.fold(0.0, f64::max);
        let unit = if longest > 0.0 { (WIDTH - LABELS - VALUES) / longest } else { 0.0 };

        let names: Vec<&str> = self.series.iter().map(String::as_str).collect();
        let mut marks = legend(&names, LABELS, 12.0);
        let mut y = if marks.is_empty() { 2.0 } else { LINE + 8.0 };
        for row in &self.rows {
            let bars =
                row.bars.iter().enumerate().filter_map(|(nth, bar)| Some((nth, bar.as_ref()?)));
            let height = bars.clone().count() as f64 * BAR;
            marks.push(row_label(&row.label, y + height / 2.0 + 4.0));
            for (nth, (length, text)) in bars {
                let size = (length * unit, BAR - 1.0);
                let class = format!("fill {}", series(nth));
                let title = format!("{}: {text}", row.label);
                marks.push(rectangle(&class, (LABELS, y), size, &title));
                marks.push(label(LABELS + size.0 + 5.0, y + BAR - 3.0, "label", text));
                y += BAR;
            }
            y += 6.0;
        }
        figure(&self.title, y, marks)
    }
}

fn row_label(text: &str, y: f64) -> Html {
    let whole = text.chars().count() <= LABEL_CHARACTERS;
    let cut: String = text.chars().take(LABEL_CHARACTERS - 1).collect();
    let shown = if whole { text.to_owned() } else { format!("{cut}…") };
    let (x, y) = ((LABELS - 8.0).to_string(), places(y));
    let attributes = [("x", x.as_str()), ("y", y.as_str()), ("class", "label end")];
    Html::element("text", &attributes, [shown.into(), Html::plain("title", text)])
}
