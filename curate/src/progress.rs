//! What a person sees of long work: a bar on a terminal, plain lines anywhere else.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A line about what is going on.
pub fn line(text: &str) {
    eprintln!("curate: {text}");
}

/// A bar over `total` rows (unknown for JSONL); cleared when it is dropped, and hidden where
/// nobody would see it move.
pub fn bar(what: &str, total: Option<u64>) -> Bar {
    if !std::io::stderr().is_terminal() {
        return Bar(ProgressBar::hidden());
    }
    let (bar, form) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{msg} {wide_bar} {human_pos} of {human_len} rows, {eta} left",
        ),
        None => (ProgressBar::no_length(), "{msg} {human_pos} rows, {elapsed}"),
    };
    bar.set_style(ProgressStyle::with_template(form).expect("the template is a valid one"));
    bar.set_message(what.to_string());
    Bar(bar)
}

/// A bar on the screen.
pub struct Bar(ProgressBar);

impl Bar {
    /// So many rows more are done.
    pub fn advance(&self, rows: usize) {
        self.0.inc(rows as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
