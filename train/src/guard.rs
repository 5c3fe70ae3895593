//! The loss-spike guard: a step far above its predecessors is not taken.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::config::LossSpike;

/// What the guard remembers; part of a checkpoint, so that a resumed run decides alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpikeGuard {
    #[serde(skip)]
    limits: Option<LossSpike>,
    /// Loss and gradient norm of the last steps that were taken, oldest first.
    pub window: VecDeque<(f64, f64)>,
}

impl SpikeGuard {
    /// Nothing remembered; without limits it never finds a spike.
    pub fn new(limits: Option<LossSpike>) -> Self {
        Self { limits, window: VecDeque::new() }
    }

    /// Whether a step is a spike: its loss or its gradient norm is above `factor` times the median
    /// of the last `window` steps. A spike is not remembered. Every rank decides alike.
    pub fn is_spike(&mut self, loss: f64, grad_norm: f64) -> bool {
        let Some(LossSpike { window, factor }) = self.limits else { return false };
        let far = |value: f64, pick: fn(&(f64, f64)) -> f64| {
            let mut past: Vec<f64> = self.window.iter().map(pick).collect();
            past.sort_by(f64::total_cmp);
            value > factor * past[past.len() / 2]
        };
        let full = 2 * self.window.len() >= window;
        if full && (far(loss, |step| step.0) || far(grad_norm, |step| step.1)) {
            return true;
        }
        if self.window.len() == window {
            self.window.pop_front();
        }
        self.window.push_back((loss, grad_norm));
        false
    }
}
