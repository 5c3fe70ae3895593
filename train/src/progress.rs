//! What a run shows while it goes: a bar or plain lines, `metrics.jsonl`, TensorBoard events.

use std::collections::VecDeque;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use record::disk::{self, NewFile};
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::events::Events;
use crate::words::{GIB, size};

/// Without a terminal, a line this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Speed and time left are of the last steps: so many, and as many as this time has.
const WINDOW_STEPS: usize = 20;
const WINDOW_TIME: Duration = Duration::from_secs(60);

/// Dense bf16 FLOP/s of an H100 SXM and an H200 (NVIDIA's data sheets), the unit of MFU.
const H100_PEAK: f64 = 989e12;

/// One optimizer step, a line of `metrics.jsonl`. No clock: the same run gives the same lines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// From 1.
    pub step: usize,
    /// Passes over the examples after this step.
    pub epoch: f64,
    /// Mean over the global batch's examples of their mean loss per trained token.
    pub loss: f64,
    /// Before clipping.
    pub grad_norm: f64,
    /// Of this step.
    pub learning_rate: f64,
    /// Tokens seen so far, prompts included.
    pub tokens: usize,
    /// The first try was not finite, this is the second.
    pub recomputed: bool,
    /// A loss spike: the update was left out.
    pub skipped: bool,
}

/// Tokens and FLOPs a second, and seconds of a step.
struct Speed {
    tokens: f64,
    flops: f64,
    step: f64,
}

/// The outputs of rank 0. A disk that fails them is told and costs no training.
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
    path: PathBuf,
    /// All of `metrics.jsonl`.
    lines: String,
    /// The file; none after a failure, until all of it can be written anew.
    metrics: Option<NewFile>,
    /// None after a failure.
    events: Option<Events>,
    steps: usize,
    /// Where the window begins, and each step in it.
    marks: VecDeque<Mark>,
    start: Instant,
    printed: Instant,
    device: Device,
    history: Vec<Metrics>,
}

/// What was done at a time.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    tokens: usize,
    flops: f64,
}

impl Progress {
    /// Opens the logs of a run of `steps` steps in `folder`; of an earlier part of the run the
    /// first `done` steps stay.
    pub fn new(folder: &Path, steps: usize, done: usize, device: Device) -> Result<Self> {
        let path = folder.join("metrics.jsonl");
        let (history, lines) = first(&path, done).with_context(|| path.display().to_string())?;
        let events = Events::create(&folder.join("tensorboard"));
        let metrics = disk::replace(&path, lines.as_bytes());
        let style = ProgressStyle::with_template("{bar:30} step {pos}/{len}  {msg}")?;
        let terminal = std::io::stderr().is_terminal();
        let tokens = history.last().map_or(0, |metrics| metrics.tokens);
        let bar = if terminal { ProgressBar::new(steps as u64) } else { ProgressBar::hidden() };
        Ok(Self {
            bar: bar.with_style(style),
            terminal,
            metrics: told(metrics, LOGS),
            path,
            lines,
            events: told(events, EVENTS),
            steps,
            marks: [Mark { at: Instant::now(), tokens, flops: 0.0 }].into(),
            start: Instant::now(),
            printed: Instant::now(),
            device,
            history,
        })
    }

    /// Records a finished step; `flops` are the model's, forward and backward, on one rank.
    pub fn step(&mut self, metrics: Metrics, flops: f64) {
        let step = metrics.step;
        self.log(&metrics);
        let Speed { tokens: speed, flops, step: a_step } = self.speed(metrics.tokens, flops);
        let memory = c10d::memory::peak(self.device) as f64;
        let values = [
            ("train/loss", metrics.loss),
            ("train/grad_norm", metrics.grad_norm),
            ("train/learning_rate", metrics.learning_rate),
            ("train/epoch", metrics.epoch),
            ("train/tokens_per_second", speed),
            ("train/tflops_per_rank", flops / 1e12),
            ("train/peak_memory_gib", memory / GIB),
        ];
        if let Some(mut events) = self.events.take() {
            let written = events.step(step, &values).map(|()| events);
            self.events = told(written, EVENTS);
        }
        if metrics.recomputed || metrics.skipped {
            let what = match metrics.skipped {
                true => "a spike: its update is left out",
                false => "not finite at first: computed again",
            };
            self.bar.suspend(|| eprintln!("step {step}: {what} (loss {:.4})", metrics.loss));
        }
        let text = format!(
            "loss {:.4}  grad {:.3}  lr {:.2e}  {speed:.0} tokens/s  {}  {}  {:.0} s left",
            metrics.loss,
            metrics.grad_norm,
            metrics.learning_rate,
            self.rate(flops),
            size(memory),
            (self.steps - step) as f64 * a_step
        );
        self.bar.set_position(step as u64);
        self.bar.set_message(text.clone());
        if !self.terminal && (self.printed.elapsed() > PLAIN_INTERVAL || step == self.steps) {
            self.printed = Instant::now();
            eprintln!("step {step}/{}  {text}", self.steps);
        }
        self.history.push(metrics);
    }

    /// Writes a step's line; after a failure all lines.
    fn log(&mut self, metrics: &Metrics) {
        let line = serde_json::to_string(metrics).expect("numbers and flags") + "\n";
        self.lines += &line;
        self.metrics = match self.metrics.take() {
            Some(mut file) => told(file.append(line.as_bytes()).map(|()| file), LOGS),
            // It was told.
            None => disk::replace(&self.path, self.lines.as_bytes()).ok(),
        };
    }

    /// Marks a step that ends now, and measures over the window.
    fn speed(&mut self, tokens: usize, flops: f64) -> Speed {
        let last = self.marks.back().expect("the start is marked").flops;
        let now = Mark { at: Instant::now(), tokens, flops: last + flops };
        self.marks.push_back(now);
        while self.marks.len() > WINDOW_STEPS + 1 && now.at - self.marks[1].at >= WINDOW_TIME {
            self.marks.pop_front();
        }
        let first = self.marks[0];
        let seconds = (now.at - first.at).as_secs_f64();
        Speed {
            tokens: (tokens - first.tokens) as f64 / seconds,
            flops: (now.flops - first.flops) / seconds,
            step: seconds / (self.marks.len() - 1) as f64,
        }
    }

    /// Work a second on one rank: of an H100's or H200's peak on a GPU, in plain figures on a CPU.
    fn rate(&self, flops: f64) -> String {
        match self.device.is_cuda() {
            true => format!("MFU {:.1}%", 100.0 * flops / H100_PEAK),
            false => format!("{:.1} GFLOP/s", flops / 1e9),
        }
    }

    /// Brings the metrics to the disk; after a failure all of them.
    pub fn sync(&mut self) {
        let synced = self.metrics.take().and_then(|file| told(file.sync().map(|()| file), LOGS));
        self.metrics = synced.or_else(|| disk::replace(&self.path, self.lines.as_bytes()).ok());
    }

    /// Closes the logs; returns every step's metrics and the time they took.
    pub fn finish(mut self) -> (Vec<Metrics>, Duration) {
        self.bar.finish_and_clear();
        self.sync();
        (self.history, self.start.elapsed())
    }
}

/// What follows when a log cannot be written.
const LOGS: &str = "training goes on, and the whole of it is written when that is possible again";
const EVENTS: &str = "training goes on without TensorBoard's events";

/// Says that a log failed, and what follows.
fn told<T>(written: Result<T>, follows: &str) -> Option<T> {
    written.map_err(|error| eprintln!("{error:#}; {follows}")).ok()
}

/// The first `count` lines of `path` and what they say; fewer if the disk was full when they were
/// written. As they stand: a number that is read and written again may differ in its last digit.
fn first(path: &Path, count: usize) -> Result<(Vec<Metrics>, String)> {
    if count == 0 || !path.exists() {
        return Ok(Default::default());
    }
    let text = fs::read_to_string(path)?;
    let read = |line| Some((serde_json::from_str::<Metrics>(line).ok()?, line));
    Ok(text.split_inclusive('\n').take(count).map_while(read).unzip())
}
