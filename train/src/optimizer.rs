//! AdamW on this rank's slices, and s1's learning-rate schedule.

use std::ops::Range;

use anyhow::Result;
use c10d::aten::{AdamWSlot, AdamWStep, fused_adamw};
use tch::Tensor;

use crate::config::Optimizer;
use crate::shards::{Shard, Shards};

/// AdamW as `torch.optim.AdamW`, decoupled weight decay on matrices only: norms and biases are
/// left alone, as transformers 5's trainer groups them.
///
/// Differs from s1: transformers 4.46, which s1 pins, may have decayed the norms' weights too; at
/// s1's rate and decay that is a factor of 1 - 1e-9 a step.
pub struct AdamW {
    settings: Optimizer,
    /// Steps taken.
    pub steps: u64,
    /// Per unit: first and second moments, fp32, in the slice's shape.
    pub moments: Vec<(Tensor, Tensor)>,
}

impl AdamW {
    /// No steps taken, all moments 0.
    pub fn new(shards: &Shards, settings: &Optimizer) -> Self {
        let zeros = |shard: &Shard| (shard.master.zeros_like(), shard.master.zeros_like());
        let moments = shards.shards.iter().map(zeros).collect();
        Self { settings: settings.clone(), steps: 0, moments }
    }

    /// Updates the master weights by their gradients, and clears these.
    pub fn step(&mut self, shards: &Shards, learning_rate: f64) -> Result<()> {
        self.steps += 1;
        let (mut vectors, mut matrices) = (Vec::new(), Vec::new());
        for (shard, moments) in shards.shards.iter().zip(&self.moments) {
            let part = shard.master.numel() as i64;
            let start = part * shards.group.rank() as i64;
            let boundary = (shard.unit.decayed().start - start).clamp(0, part);
            vectors.extend(slot(shard, moments, 0..boundary));
            matrices.extend(slot(shard, moments, boundary..part));
        }
        let Optimizer { beta1, beta2, eps, weight_decay, .. } = self.settings;
        let step = self.steps;
        let numbers = AdamWStep { step, learning_rate, beta1, beta2, weight_decay, eps };
        fused_adamw(&vectors, AdamWStep { weight_decay: 0.0, ..numbers })?;
        fused_adamw(&matrices, numbers)?;
        for shard in &shards.shards {
            let _ = shard.grad.shallow_clone().zero_();
        }
        Ok(())
    }
}

/// Views of `range` of a slice, if there is anything in it.
fn slot(shard: &Shard, (m, v): &(Tensor, Tensor), range: Range<i64>) -> Option<AdamWSlot> {
    let length = range.end - range.start;
    let cut = |t: &Tensor| t.narrow(0, range.start, length);
    let views = || (cut(&shard.master), cut(&shard.grad), cut(m), cut(v));
    (length > 0).then(views).map(|(param, grad, m, v)| AdamWSlot { param, grad, m, v })
}

/// The rate of step `step` (from 0) of `steps`: linear from 0 over the warm-up, then cosine to 0,
/// as transformers' `get_cosine_schedule_with_warmup`. Its first step's rate is 0.
pub fn learning_rate(peak: f64, warmup_ratio: f64, step: usize, steps: usize) -> f64 {
    let warmup = warmup_steps(warmup_ratio, steps);
    if step < warmup {
        return peak * step as f64 / warmup.max(1) as f64;
    }
    let progress = (step - warmup) as f64 / (steps - warmup).max(1) as f64;
    peak * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
}

/// Steps with a rising rate.
pub fn warmup_steps(warmup_ratio: f64, steps: usize) -> usize {
    (warmup_ratio * steps as f64).ceil() as usize
}
