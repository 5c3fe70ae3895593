//! What people read in a terminal: columns, and texts of strangers that cannot steer it.

use std::fmt::Write;

use crate::html::visible;

/// At most `width` characters of `text` on one line, an ellipsis for the rest.
pub fn line(text: &str, width: usize) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = visible(&words);
    if shown.chars().count() <= width {
        return shown.into_owned();
    }
    let head: String = shown.chars().take(width - 1).collect();
    format!("{head}…")
}

/// `text` with all its lines, each moved in by two spaces.
pub fn block(text: &str) -> String {
    let lines = text.split('\n').map(|line| format!("  {}\n", visible(line)));
    lines.map(|line| if line.trim().is_empty() { "\n".to_owned() } else { line }).collect()
}

/// Rows of cells in columns, two spaces between; columns of numbers alone are flush right.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let width = |column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    // The first row is the heads.
    let right: Vec<bool> =
        (0..count).map(|column| cells(column).skip(1).all(|cell| is_number(cell))).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            // Writing to a string cannot fail.
            let _ = match right[column] {
                true => write!(line, "{cell:>width$}  "),
                false => write!(line, "{cell:<width$}  "),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn is_number(cell: &str) -> bool {
    cell.chars().all(|c| c.is_ascii_digit() || ",.%-–".contains(c))
}

/// `12,345`.
pub fn count(count: usize) -> String {
    crate::chart::number(count as f64)
}

/// `1 token`, `12,345 tokens`.
pub fn tokens(length: usize) -> String {
    format!("{} token{}", count(length), if length == 1 { "" } else { "s" })
}

/// `rows of all` in percent with one place, `0.0` of nothing.
pub fn percent(rows: usize, all: usize) -> String {
    format!("{:.1}%", 100.0 * rows as f64 / all.max(1) as f64)
}
