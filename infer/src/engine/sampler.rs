//! From logits to the next id.

use anyhow::{Context, Result};
use record::seed::{self, Rng};

use super::request::{Sampling, Scored};

/// How one request's next id is chosen. What it draws depends on its seed and on how often it drew
/// before, on nothing else.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    bias: Vec<(i64, f64)>,
    rng: Rng,
}

impl Sampler {
    /// `bias` is added to the logits of its ids; `seed` is used only at a temperature above 0.
    pub fn new(sampling: Sampling, bias: &[(i64, f64)], seed: u64) -> Self {
        let bias = bias.to_vec();
        Sampler { sampling, bias, rng: seed::rng(seed, &["sampling"]) }
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
        if penalty != 1.0 || !banned.is_empty() || !self.bias.is_empty() {
            changed = logits.to_vec();
            let known = |id: &&i64| (0..logits.len() as i64).contains(*id);
            for &id in ids.iter().filter(known).filter(|_| penalty != 1.0) {
                let logit = logits[id as usize];
                changed[id as usize] = if logit > 0.0 { logit / penalty } else { logit * penalty };
            }
            for (id, bias) in self.bias.iter().filter(|(id, _)| known(&id)) {
                let bias = if *bias <= -100.0 { f64::NEG_INFINITY } else { *bias };
                changed[*id as usize] += bias as f32;
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
        let mut weights = self.weights(allowed, highest);
        let threshold = self.threshold(&weights);
        if threshold > 0.0 {
            weights.iter_mut().filter(|w| **w < threshold).for_each(|weight| *weight = 0.0);
        }
        // In pieces: which one is found by its sum, then the id in it.
        let sum = |piece: &[f32]| piece.iter().map(|&weight| f64::from(weight)).sum::<f64>();
        let sums: Vec<f64> = weights.chunks(PIECE).map(sum).collect();
        let mut left = self.rng.uniform() * sums.iter().sum::<f64>();
        let piece = sums.iter().position(|sum| {
            left -= sum;
            left < 0.0
        });
        let Some(piece) = piece else {
            return Ok(best); // rounding left a crumb behind the last weight
        };
        left += sums[piece];
        let first = piece * PIECE;
        let mut last = best;
        for (id, &weight) in weights[first..].iter().take(PIECE).enumerate() {
            if weight > 0.0 {
                last = (first + id) as i64;
                left -= f64::from(weight);
                if left < 0.0 {
                    break;
                }
            }
        }
        Ok(last)
    }

    /// Probabilities at the temperature, as shares of the likeliest id's.
    fn weights(&self, logits: &[f32], highest: f32) -> Vec<f32> {
        let scale = (1.0 / self.sampling.temperature) as f32;
        logits.iter().map(|&logit| exp((logit - highest) * scale)).collect()
    }

    /// The least weight that `top_k`, `top_p` and `min_p` leave. Equals stay together.
    fn threshold(&self, weights: &[f32]) -> f32 {
        let Sampling { top_k, top_p, min_p, .. } = self.sampling;
        let min_p = min_p as f32;
        if top_k == 0 && top_p >= 1.0 {
            return min_p;
        }
        let descending = |a: &f32, b: &f32| b.total_cmp(a);
        let mut left: Vec<f32> = weights.iter().copied().filter(|&w| w > 0.0).collect();
        if top_k > 0 && top_k < left.len() {
            let (_, kth, _) = left.select_nth_unstable_by(top_k - 1, descending);
            let kth = *kth;
            left.retain(|&weight| weight >= kth);
        }
        let all: f64 = left.iter().map(|&weight| f64::from(weight)).sum();
        let (mut sorted, mut mass) = (0, 0.0);
        // Sorted in growing pieces: the first ids have most of the mass.
        while sorted < left.len() && mass < top_p * all {
            let end = left.len().min(64.max(4 * sorted));
            if end < left.len() {
                left[sorted..].select_nth_unstable_by(end - 1 - sorted, descending);
            }
            left[sorted..end].sort_unstable_by(descending);
            while sorted < end && mass < top_p * all {
                mass += f64::from(left[sorted]);
                sorted += 1;
            }
        }
        left[sorted.max(1) - 1].max(min_p)
    }
}

/// Weights that are summed together.
const PIECE: usize = 256;

/// The exponential of a number up to 0 to 2e-7 of itself; 0 below -87 and for NaN. The same on
/// every machine, and fast over many numbers.
fn exp(x: f32) -> f32 {
    if x.is_nan() || x < -87.0 {
        return 0.0;
    }
    let power = x * std::f32::consts::LOG2_E;
    let whole = power.floor();
    // 2^part by its series, part in 0..1 shifted to the middle of -0.5..0.5.
    let part = (power - whole - 0.5) * std::f32::consts::LN_2;
    let series = 1.0
        + part
            * (1.0
                + part / 2.0
                    * (1.0
                        + part / 3.0
                            * (1.0 + part / 4.0 * (1.0 + part / 5.0 * (1.0 + part / 6.0)))));
    series * std::f32::consts::SQRT_2 * f32::from_bits(((whole as i32 + 127) as u32) << 23)
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
        id,
        logprob: logprob(id),
        top: order.into_iter().map(|id| (id, logprob(id))).collect(),
    }
}
