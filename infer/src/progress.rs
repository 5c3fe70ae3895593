//! How far a run is: a bar on a terminal, a line every ten seconds elsewhere. Of several processes
//! that share the work, the one that started the others shows it for all.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The progress that is spoken of when this process is to stop.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// The progress of a known number of things.
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    /// Nothing is shown here: the process that started this one is told, on standard output.
    is_told: bool,
    /// Tokens of what is done.
    tokens: usize,
    started: Instant,
    spoke: Instant,
}

impl Progress {
    /// `count` things to do, called `what`.
    pub fn new(count: usize, what: &'static str) -> Self {
        let hidden = count == 0 || !std::io::stderr().is_terminal();
        let bar = if hidden { ProgressBar::hidden() } else { ProgressBar::new(count as u64) };
        bar.set_length(count as u64);
        let template = format!("{{bar:40}} {{pos}} of {{len}} {what}, {{msg}}{{eta}} left");
        bar.set_style(ProgressStyle::with_template(&template).expect("a constant template"));
        let now = Instant::now();
        Progress { bar, what, is_told: false, tokens: 0, started: now, spoke: now }
    }

    /// That of a process whose part of the things another one shows, by [`Progress::relay`].
    pub fn told() -> Self {
        let mut progress = Progress::new(0, "");
        (progress.bar, progress.is_told) = (ProgressBar::hidden(), true);
        progress
    }

    /// When SIGINT or SIGTERM comes, says before the process ends that what is done is kept.
    pub fn told_when_stopped(&self) {
        static WATCH: Once = Once::new();
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.bar.clone());
        WATCH.call_once(|| {
            // Who cannot be told so is stopped as any program.
            if let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) {
                std::thread::spawn(move || signals.forever().for_each(stop));
            }
        });
    }

    /// One more is done, with so many tokens.
    pub fn finished(&mut self, tokens: usize) {
        if self.is_told {
            return self.say(&tokens.to_string());
        }
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

    /// A line for whoever watches.
    pub fn say(&self, line: &str) {
        if self.is_told {
            // Whom nobody listens to ends soon.
            let _ = writeln!(std::io::stdout(), "{line}");
        } else {
            self.bar.suspend(|| eprintln!("{line}"));
        }
    }

    /// What the process with this rank told: tokens of one more thing, or something to say.
    pub fn relay(&mut self, rank: usize, line: &str) {
        match line.parse() {
            Ok(tokens) => self.finished(tokens),
            Err(_) => self.say(&format!("rank {rank}: {line}")),
        }
    }
}

/// Ends the process as the signal would, with a word.
fn stop(signal: i32) {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(bar) = shown {
        let (done, count) = (bar.position(), bar.length().unwrap_or(0));
        bar.finish_and_clear();
        eprintln!(
            "stopped: {done} of {count} answers that were missing are there now, and all are kept; \
             the same command goes on"
        );
    }
    c10d::aten::exit_at_once(128 + signal);
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
