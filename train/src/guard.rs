//! The loss-spike guard: a step far above its predecessors is not taken, a lasting rise stops the
//! run.

use std::collections::VecDeque;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::config::LossSpike;

/// What the guard remembers; part of a checkpoint, so that a resumed run decides alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpikeGuard {
    #[serde(skip)]
    limits: Option<LossSpike>,
    /// Steps left out since the last one that was taken.
    pub in_a_row: usize,
    /// Loss and gradient norm of the last steps that were taken, oldest first.
    pub window: VecDeque<(f64, f64)>,
}

impl SpikeGuard {
    /// Nothing remembered; without limits it never finds a spike.
    pub fn new(limits: Option<LossSpike>) -> Self {
        Self { limits, in_a_row: 0, window: VecDeque::new() }
    }

    /// Remembers what `saved` did; the limits stay this run's own.
    pub fn restore(&mut self, saved: &Self) {
        *self = Self { limits: self.limits, ..saved.clone() };
    }

    /// Whether a step is a spike: its loss or its gradient norm is above `factor` times the median
    /// of the last `window` steps that were taken. A spike is not among those, so outliers leave
    /// no trace in the median. Every rank decides alike.
    ///
    /// # Errors
    /// This is spike number `window / 2` in a row: no outlier but another level, at which every
    /// later step would be left out too.
    pub fn is_spike(&mut self, loss: f64, grad_norm: f64) -> Result<bool> {
        let Some(LossSpike { window, factor }) = self.limits else { return Ok(false) };
        let median = |pick: fn(&(f64, f64)) -> f64| {
            let mut past: Vec<f64> = self.window.iter().map(pick).collect();
            past.sort_by(f64::total_cmp);
            past.get(past.len() / 2).copied().unwrap_or(f64::INFINITY)
        };
        let usual = [
            ("loss", loss, median(|step| step.0)),
            ("gradient norm", grad_norm, median(|step| step.1)),
        ];
        let far = usual.iter().find(|(_, value, median)| *value > factor * median);
        if let Some((what, value, median)) = far
            && 2 * self.window.len() >= window
        {
            self.in_a_row += 1;
            if self.in_a_row < window / 2 {
                return Ok(true);
            }
            bail!(
                "{} steps in a row were left out as spikes: the {what} is {value:.4}, and was \
                 {median:.4} (median) in the last {} steps that were taken; guard.loss_spike \
                 allows {factor} times that\nthis is no outlier but another level: look at the \
                 examples from here on, or lower optimizer.learning_rate; if the level is right, \
                 raise guard.loss_spike.factor or remove guard.loss_spike in the run's run.toml; \
                 then `train resume` it",
                self.in_a_row,
                self.window.len()
            );
        }
        self.in_a_row = 0;
        if self.window.len() == window {
            self.window.pop_front();
        }
        self.window.push_back((loss, grad_norm));
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LossSpike = LossSpike { window: 8, factor: 1.5 };

    /// Runs a guard over losses: `T` taken, `S` left out, `!` stopped.
    fn decisions(guard: &mut SpikeGuard, losses: &[f64]) -> String {
        let mut found = String::new();
        for &loss in losses {
            match guard.is_spike(loss, 1.0) {
                Ok(false) => found.push('T'),
                Ok(true) => found.push('S'),
                Err(error) => {
                    let error = format!("{error:#}");
                    assert!(error.contains("the loss is") && error.contains("factor"), "{error}");
                    found.push('!');
                    break;
                }
            }
        }
        found
    }

    /// Each letter a step: `.` at the usual level, `^` above.
    #[track_caller]
    fn check(steps: &str, expected: &str) {
        let losses: Vec<f64> = steps.chars().map(|c| if c == '^' { 5.0 } else { 2.0 }).collect();
        let found = decisions(&mut SpikeGuard::new(Some(LIMITS)), &losses);
        assert_eq!(found, expected, "{steps}");
        // Saved and resumed before any step it decides alike.
        for at in 0..expected.len() {
            let mut first = SpikeGuard::new(Some(LIMITS));
            let mut both = decisions(&mut first, &losses[..at]);
            let text = toml::to_string(&first).unwrap();
            let mut second = SpikeGuard::new(Some(LIMITS));
            second.restore(&toml::from_str(&text).unwrap());
            both += &decisions(&mut second, &losses[at..]);
            assert_eq!(both, expected, "{steps}, resumed at {at}");
        }
    }

    #[test]
    fn outliers_are_left_out_and_a_lasting_rise_stops() {
        check("..........", "TTTTTTTTTT");
        check("^^^.......", "TTTTTTTTTT"); // before half the window is there nothing is a spike
        check(".....^....", "TTTTTSTTTT");
        check(".....^^^..", "TTTTTSSSTT");
        check(".....^.^.^", "TTTTTSTSTS");
        check(".....^^.^^", "TTTTTSSTSS");
        check(".....^^^^^", "TTTTTSSS!");
        check("....^^^^^^", "TTTTSSS!");
    }
}
