//! An evaluation by several processes: each answers a share of the prompts with a model of its own,
//! and leaves its completions in the run's journal.
//!
//! Whoever starts them shows the progress of all, then finds every answer in the journal; so the results are those of
//! one process, and after a kill any number of processes goes on.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use c10d::Children;

use crate::config::{Device, Model};
use crate::engine::{Request, parallel};
use crate::progress::Progress;

/// Set in the processes that [`launch`] starts: which share, of how many, and [`Share::who`].
const SHARE: &str = "S1_INFER_SHARE";

/// What this process has to do, if [`launch`] started it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Its number, from 0.
    pub rank: usize,
    /// How many there are.
    pub ranks: usize,
    /// Who answers, as the journal has it.
    pub who: String,
}

impl Share {
    /// That of this process, which ends when the one that started it does.
    pub fn of_this_process() -> Result<Option<Share>> {
        let Ok(text) = std::env::var(SHARE) else { return Ok(None) };
        let mut parts = text.splitn(3, ' ');
        let mut number = || parts.next()?.parse().ok();
        let place = || format!("{SHARE}={text}: set by hand?");
        let (rank, ranks) = (number().with_context(place)?, number().with_context(place)?);
        let who = parts.next().with_context(place)?.to_string();
        thread::spawn(|| {
            // It ends when nobody holds its other end any more.
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            c10d::aten::exit_at_once(1);
        });
        Ok(Some(Share { rank, ranks, who }))
    }

    /// Its part of the requests. Those with one prompt stay together: they share its computation.
    pub fn of(&self, requests: Vec<Request>) -> Vec<Request> {
        let mut prompts: BTreeMap<Vec<i64>, usize> = BTreeMap::new();
        let mut is_own = |request: &Request| {
            let next = prompts.len();
            *prompts.entry(request.prompt.to_vec()).or_insert(next) % self.ranks == self.rank
        };
        requests.into_iter().filter(|request| is_own(request)).collect()
    }
}

/// Starts this program again for each share, with the same arguments, and waits for all. Each gets
/// its part of the cores, or GPUs of its own. `answers` are those that all together write.
///
/// # Errors
/// When one fails, whose own message stands above; the others are stopped.
pub fn launch(ranks: usize, who: &str, model: &Model, answers: usize) -> Result<()> {
    let gpus = if model.device == Device::Cuda { model.tensor_parallel } else { 0 };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores / ranks / model.tensor_parallel).max(1);
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    let visible: Vec<&str> = visible.split(',').filter(|gpu| !gpu.is_empty()).collect();
    let (sender, lines) = mpsc::channel();
    let mut children = Children::default();
    for rank in 0..ranks {
        let mut command = parallel::again()?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if model.threads.is_none() {
            // As an argument, it also reaches the ranks of a model over several.
            command.args(["--set", &format!("model.threads={threads}")]);
        }
        command.env(SHARE, format!("{rank} {ranks} {who}"));
        if gpus > 0 {
            let gpu = |n: usize| visible.get(n).map_or(n.to_string(), |gpu| gpu.to_string());
            let own: Vec<String> = (rank * gpus..(rank + 1) * gpus).map(gpu).collect();
            command.env("CUDA_VISIBLE_DEVICES", own.join(","));
        }
        let mut child = command.spawn().with_context(|| format!("starting rank {rank}"))?;
        let output = BufReader::new(child.stdout.take().context("it was piped")?);
        children.0.push(child);
        let sender = sender.clone();
        thread::spawn(move || {
            for line in output.lines().map_while(std::io::Result::ok) {
                let _ = sender.send((rank, line));
            }
        });
    }
    let mut progress = Progress::new(answers, "answers");
    progress.told_when_stopped();
    loop {
        let ended = children.ended()?;
        lines.try_iter().for_each(|(rank, line)| progress.relay(rank, &line));
        if let Some((rank, status)) = ended.iter().find(|(_, status)| !status.success()) {
            bail!("rank {rank} ended with {status}; the others were stopped");
        }
        if ended.len() == ranks {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
}
