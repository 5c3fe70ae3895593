//! How far a run is: a bar on a terminal, a line every ten seconds elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The progress of a known number of things.
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    /// Tokens of what is done.
    tokens: usize,
    started: Instant,
    spoke: Instant,
}

impl Progress {
    /// `count` things to do, called `what`.
    pub fn new(count: usize, what: &'static str) -> Self {
        let hidden = !std::io::stderr().is_terminal();
        let bar = if hidden { ProgressBar::hidden() } else { ProgressBar::new(count as u64) };
        bar.set_length(count as u64);
        let template = format!("{{bar:40}} {{pos}} of {{len}} {what}, {{msg}}{{eta}} left");
        bar.set_style(ProgressStyle::with_template(&template).expect("a constant template"));
        Progress { bar, what, tokens: 0, started: Instant::now(), spoke: Instant::now() }
    }

    /// One more is done, with so many tokens.
    pub fn finished(&mut self, tokens: usize) {
        self.tokens += tokens;
        let seconds = self.started.elapsed().as_secs_f64();
        let speed = self.tokens as f64 / seconds.max(1e-3);
        self.bar.set_message(format!("{speed:.0} tokens/s, "));
        self.bar.inc(1);
        if self.bar.is_hidden() && self.spoke.elapsed() > Duration::from_secs(10) {
            self.spoke = Instant::now();
            let (done, count) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let left = seconds * (count as f64 / done as f64 - 1.0);
            let what = self.what;
            eprintln!("{done} of {count} {what}, {speed:.0} tokens/s, about {left:.0} s left");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
