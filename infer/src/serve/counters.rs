//! What a server did, in Prometheus' text format.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::budget::Outcome;

/// A number that tasks and the engine's thread change.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// So many fewer.
    pub fn sub(&self, fewer: u64) {
        self.0.fetch_sub(fewer, Ordering::Relaxed);
    }

    /// So many now.
    pub fn set(&self, now: u64) {
        self.0.store(now, Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts since the server began, and what is so now.
#[derive(Debug, Default)]
pub struct Counters {
    /// Branches that the engine works at.
    pub running: Count,
    /// Branches that wait for a slot.
    pub waiting: Count,
    /// Passes of the model.
    pub steps: Count,
    /// Connections that are open.
    pub connections: Count,
    /// Ids of prompts.
    pub prompts: Count,
    /// Ids behind prompts, thinking and forced ones included.
    pub completions: Count,
    /// Those of forced thinking.
    pub reasoning: Count,
    /// Those that were not sampled.
    pub forced: Count,
    /// Completions that came to their end.
    pub done: Count,
    /// Completions whose client went away.
    pub cancelled: Count,
    /// Requests that came when too many waited.
    pub refused: Count,
    /// Replies by status, and the seconds that they took.
    replies: Mutex<Vec<(u16, u64, f64)>>,
}

impl Counters {
    /// Counts a completion.
    pub fn finished(&self, outcome: &Outcome) {
        self.done.add(1);
        self.completions.add(outcome.ids.len() as u64);
        if outcome.thinking_ending.is_some() {
            self.reasoning.add(outcome.thinking.len() as u64);
        }
        self.forced.add(outcome.forced.iter().map(|range| range.len() as u64).sum());
    }

    /// Counts a reply whose head was ready after `took`.
    pub fn replied(&self, status: u16, took: Duration) {
        let Ok(mut replies) = self.replies.lock() else { return };
        let at = replies.binary_search_by_key(&status, |(status, ..)| *status);
        let at = at.unwrap_or_else(|at| {
            replies.insert(at, (status, 0, 0.0));
            at
        });
        replies[at].1 += 1;
        replies[at].2 += took.as_secs_f64();
    }

    /// The text that `/metrics` shows.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut one = |name: &str, kind: &str, help: &str, count: &Count| {
            let _ = writeln!(
                text,
                "# HELP s1_{name} {help}\n# TYPE s1_{name} {kind}\ns1_{name} {}",
                count.get()
            );
        };
        let gauge = "gauge";
        one("requests_running", gauge, "Sequences that are being written.", &self.running);
        one("requests_waiting", gauge, "Sequences that wait for a slot.", &self.waiting);
        one("connections", gauge, "Open connections.", &self.connections);
        let counter = "counter";
        one("engine_steps_total", counter, "Passes of the model.", &self.steps);
        one("prompt_tokens_total", counter, "Tokens of prompts.", &self.prompts);
        one("completion_tokens_total", counter, "Tokens of completions.", &self.completions);
        one("reasoning_tokens_total", counter, "Those of forced thinking.", &self.reasoning);
        one("forced_tokens_total", counter, "Those that were forced.", &self.forced);
        one("completions_total", counter, "Completions that were finished.", &self.done);
        one("cancelled_total", counter, "Completions whose client left.", &self.cancelled);
        one("queue_full_total", counter, "Requests refused for a full queue.", &self.refused);
        let replies = self.replies.lock().map(|replies| replies.clone()).unwrap_or_default();
        text += "# HELP s1_replies_total Replies by status.\n# TYPE s1_replies_total counter\n";
        for (status, count, _) in &replies {
            let _ = writeln!(text, "s1_replies_total{{status=\"{status}\"}} {count}");
        }
        text += "# HELP s1_reply_seconds Seconds until a reply began.\n";
        text += "# TYPE s1_reply_seconds summary\n";
        let seconds: f64 = replies.iter().map(|(_, _, seconds)| seconds).sum();
        let count: u64 = replies.iter().map(|(_, count, _)| count).sum();
        let _ = writeln!(text, "s1_reply_seconds_sum {seconds}\ns1_reply_seconds_count {count}");
        text
    }
}
