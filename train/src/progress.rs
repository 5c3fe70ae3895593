//! What a run shows while it goes: a bar or plain lines, `metrics.jsonl`, TensorBoard events.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tensorboard_rs::summary_writer::SummaryWriter;

/// Without a terminal, a line this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// One optimizer step, a line of `metrics.jsonl`. No clock: the same run gives the same lines.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
}

/// The outputs of rank 0.
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
    metrics: BufWriter<File>,
    tensorboard: SummaryWriter,
    steps: usize,
    start: Instant,
    printed: Instant,
    history: Vec<Metrics>,
}

impl Progress {
    /// Starts the logs of a run of `steps` steps in `folder`.
    pub fn new(folder: &Path, steps: usize) -> Result<Self> {
        let path = folder.join("metrics.jsonl");
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        let events = folder.join("tensorboard");
        std::fs::create_dir_all(&events).with_context(|| events.display().to_string())?;
        let style = ProgressStyle::with_template("{bar:30} step {pos}/{len}  {msg}  {eta} left")?;
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(steps as u64) } else { ProgressBar::hidden() };
        Ok(Self {
            bar: bar.with_style(style),
            terminal,
            metrics: BufWriter::new(file),
            tensorboard: SummaryWriter::new(&events),
            steps,
            start: Instant::now(),
            printed: Instant::now(),
            history: Vec::new(),
        })
    }

    /// Records a finished step.
    pub fn step(&mut self, metrics: Metrics) -> Result<()> {
        let step = metrics.step;
        serde_json::to_writer(&mut self.metrics, &metrics)?;
        self.metrics.write_all(b"\n").and_then(|()| self.metrics.flush())?;
        let speed = metrics.tokens as f64 / self.start.elapsed().as_secs_f64();
        for (tag, value) in [
            ("train/loss", metrics.loss),
            ("train/grad_norm", metrics.grad_norm),
            ("train/learning_rate", metrics.learning_rate),
            ("train/epoch", metrics.epoch),
            ("train/tokens_per_second", speed),
        ] {
            self.tensorboard.add_scalar(tag, value as f32, step);
        }
        let text = format!("loss {:.4}  {speed:.0} tokens/s", metrics.loss);
        self.bar.set_position(step as u64);
        self.bar.set_message(text.clone());
        if !self.terminal && (self.printed.elapsed() > PLAIN_INTERVAL || step == self.steps) {
            self.printed = Instant::now();
            let left = self.start.elapsed().mul_f64((self.steps - step) as f64 / step as f64);
            eprintln!("step {step}/{}  {text}  {} s left", self.steps, left.as_secs());
        }
        self.history.push(metrics);
        Ok(())
    }

    /// Closes the logs; returns every step's metrics and the time they took.
    pub fn finish(mut self) -> Result<(Vec<Metrics>, Duration)> {
        self.bar.finish_and_clear();
        self.metrics.flush()?;
        self.tensorboard.flush();
        Ok((self.history, self.start.elapsed()))
    }
}
