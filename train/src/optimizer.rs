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

    /// Updates the master weights by their gradients times `scale`.
    pub fn step(
        &mut self,
        shards: &Shards,
        grads: &[Option<Tensor>],
        scale: f64,
        learning_rate: f64,
    ) -> Result<()> {
        self.steps += 1;
        let Optimizer { beta1, beta2, eps, weight_decay, .. } = self.settings;
        let step = self.steps;
        let numbers = AdamWStep { step, learning_rate, beta1, beta2, weight_decay, eps };
        for ((shard, moments), grad) in shards.shards.iter().zip(&self.moments).zip(grads) {
            let mut grad = grad.as_ref().expect("every unit has a gradient").shallow_clone();
            if scale < 1.0 {
                let _ = grad.g_mul_scalar_(scale);
            }
            let grad = grad.to_device(shard.master.device());
            let part = shard.master.numel() as i64;
            let start = part * shards.mesh.shard.rank() as i64;
            let boundary = (shard.unit.decayed().start - start).clamp(0, part);
            let vectors = slot(shard, &grad, moments, 0..boundary);
            let matrices = slot(shard, &grad, moments, boundary..part);
            fused_adamw(&vectors, AdamWStep { weight_decay: 0.0, ..numbers })?;
            fused_adamw(&matrices, numbers)?;
        }
        Ok(())
    }
}

/// Views of `range` of a slice, if there is anything in it.
fn slot(
    shard: &Shard,
    grad: &Tensor,
    (m, v): &(Tensor, Tensor),
    range: Range<i64>,
) -> Vec<AdamWSlot> {
    let length = range.end - range.start;
    let cut = |t: &Tensor| t.narrow(0, range.start, length);
    let views = || (cut(&shard.master), cut(grad), cut(m), cut(v));
    let slot = (length > 0).then(views);
    slot.map(|(param, grad, m, v)| AdamWSlot { param, grad, m, v }).into_iter().collect()
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
