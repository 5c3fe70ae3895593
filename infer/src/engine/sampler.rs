//! From logits to the next id.

use anyhow::{Context, Result};
use record::seed::{self, Rng};

use super::request::{Sampling, Scored};

/// How one request's next id is chosen. What it draws depends on its seed and on how often it drew
/// before, on nothing else.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    rng: Rng,
}

impl Sampler {
    /// `seed` is used only at a temperature above 0.
    pub fn new(sampling: Sampling, seed: u64) -> Self {
        Sampler { sampling, rng: seed::rng(seed, &["sampling"]) }
    }

    /// Chooses an id that is not `banned`; `logits` has one for each id, and `ids` are those so
    /// far.
    ///
    /// # Errors
    /// When no id has a usable logit: the model computes NaN.
    pub fn pick(&mut self, logits: &[f32], ids: &[i64], banned: &[i64]) -> Result<i64> {
        let penalty = self.sampling.repetition_penalty as f32;
        let mut changed;
        let mut allowed = logits;
        if penalty != 1.0 || !banned.is_empty() {
            changed = logits.to_vec();
            let known = |id: &&i64| (0..logits.len() as i64).contains(*id);
            for &id in ids.iter().filter(known).filter(|_| penalty != 1.0) {
                let logit = logits[id as usize];
                changed[id as usize] = if logit > 0.0 { logit / penalty } else { logit * penalty };
            }
            banned.iter().filter(known).for_each(|&id| changed[id as usize] = f32::NEG_INFINITY);
            allowed = &changed;
        }
        let (best, highest) = likeliest(allowed).context(
            "the model's logits hold no finite number; is the checkpoint whole, and dtype float32?",
        )?;
        if self.sampling.temperature == 0.0 {
            return Ok(best);
        }
        let weights = self.weights(allowed, highest);
        let threshold = self.threshold(&weights);
        let weight = |weight: f64| if weight >= threshold { weight } else { 0.0 };
        let mut left = self.rng.uniform() * weights.iter().map(|&w| weight(w)).sum::<f64>();
        for (id, &own) in weights.iter().enumerate() {
            left -= weight(own);
            if left < 0.0 {
                return Ok(id as i64);
            }
        }
        Ok(best) // rounding left a crumb behind the last weight
    }

    /// Probabilities at the temperature, as shares of the likeliest id's.
    fn weights(&self, logits: &[f32], highest: f32) -> Vec<f64> {
        let weight = |logit: &f32| {
            let scaled = f64::from(logit - highest) / self.sampling.temperature;
            if scaled.is_nan() { 0.0 } else { scaled.exp() }
        };
        logits.iter().map(weight).collect()
    }

    /// The least weight that `top_k`, `top_p` and `min_p` leave. Equals stay together.
    fn threshold(&self, weights: &[f64]) -> f64 {
        let Sampling { top_k, top_p, min_p, .. } = self.sampling;
        if top_k == 0 && top_p >= 1.0 {
            return min_p;
        }
        let descending = |a: &f64, b: &f64| b.total_cmp(a);
        let mut left: Vec<f64> = weights.iter().copied().filter(|&w| w > 0.0).collect();
        if top_k > 0 && top_k < left.len() {
            let (_, kth, _) = left.select_nth_unstable_by(top_k - 1, descending);
            let kth = *kth;
            left.retain(|&weight| weight >= kth);
        }
        let all: f64 = left.iter().sum();
        let (mut sorted, mut mass) = (0, 0.0);
        // Sorted in growing pieces: the first ids have most of the mass.
        while sorted < left.len() && mass < top_p * all {
            let end = left.len().min(64.max(4 * sorted));
            if end < left.len() {
                left[sorted..].select_nth_unstable_by(end - 1 - sorted, descending);
            }
            left[sorted..end].sort_unstable_by(descending);
            while sorted < end && mass < top_p * all {
                mass += left[sorted];
                sorted += 1;
            }
        }
        left[sorted.max(1) - 1].max(min_p)
    }
}

/// The likeliest id, the first of equals, and its logit; none without a finite one.
fn likeliest(logits: &[f32]) -> Option<(i64, f32)> {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let higher = |a: f32, b: f32| if b > a { b } else { a }; // NaN is never higher
    let pieces = logits.chunks_exact(lanes.len());
    let rest = pieces.remainder();
    for piece in pieces {
        for (lane, &logit) in lanes.iter_mut().zip(piece) {
            *lane = higher(*lane, logit);
        }
    }
    let highest = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, higher);
    let found = logits.iter().position(|&logit| logit == highest)?;
    highest.is_finite().then_some((found as i64, highest))
}

/// The log-probability of `id`, which stands at `at`, and the `n` likeliest ids.
pub fn score(logits: &[f32], id: i64, at: usize, n: usize) -> Scored {
    let highest = likeliest(logits).map_or(0.0, |(_, logit)| f64::from(logit));
    let usable = logits.iter().map(|&logit| f64::from(logit) - highest).filter(|l| !l.is_nan());
    let normaliser = highest + usable.map(f64::exp).sum::<f64>().ln();
    let logprob = |id: i64| f64::from(logits[id as usize]) - normaliser;
    let mut order: Vec<i64> = (0..logits.len() as i64).collect();
    let logit = |id: &i64| {
        let logit = logits[*id as usize];
        if logit.is_nan() { f32::NEG_INFINITY } else { logit }
    };
    let n = n.min(order.len());
    let before = |a: &i64, b: &i64| logit(b).total_cmp(&logit(a)).then(a.cmp(b));
    if n > 0 && n < order.len() {
        order.select_nth_unstable_by(n - 1, before);
    }
    order.truncate(n);
    order.sort_unstable_by(before);
    Scored {
        at,
        logprob: logprob(id),
        top: order.into_iter().map(|id| (id, logprob(id))).collect(),
    }
}
