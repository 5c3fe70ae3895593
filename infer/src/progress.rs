//! How far a run is: a bar on a terminal, a line every ten seconds elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The progress of a known number of things.
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    started: Instant,
    spoke: Instant,
}

impl Progress {
    /// `count` things to do, called `what`.
    pub fn new(count: usize, what: &'static str) -> Self {
        let hidden = !std::io::stderr().is_terminal();
        let bar = if hidden { ProgressBar::hidden() } else { ProgressBar::new(count as u64) };
        bar.set_length(count as u64);
        let template = format!("{{bar:40}} {{pos}} of {{len}} {what}, {{eta}} left");
        bar.set_style(ProgressStyle::with_template(&template).expect("a constant template"));
        Progress { bar, what, started: Instant::now(), spoke: Instant::now() }
    }

    /// One more is done.
    pub fn finished_one(&mut self) {
        self.bar.inc(1);
        if self.bar.is_hidden() && self.spoke.elapsed() > Duration::from_secs(10) {
            self.spoke = Instant::now();
            let (done, count) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let left = self.started.elapsed().as_secs_f64() * (count as f64 / done as f64 - 1.0);
            eprintln!("{done} of {count} {}, about {left:.0} s left", self.what);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
