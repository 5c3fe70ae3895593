//! Decoding: one sequence at a time over a key/value cache, each id computed exactly once.

use anyhow::{Result, bail};
use record::seed::Rng;

use crate::budget::{Action, Forcing, Outcome, Spec};

/// Something that continues one sequence of token ids.
pub trait Decoder {
    /// Appends `ids` (at least one) to the sequence and returns the logits of the id after them,
    /// one for each row of the model's vocabulary.
    fn extend(&mut self, ids: &[i64]) -> Result<Vec<f32>>;
}

/// How the next id is chosen from the logits.
#[derive(Debug)]
pub struct Sampler {
    /// 0 takes the likeliest id, the first of equals.
    temperature: f64,
    /// Ids from here on are rows of the model that its tokenizer has no text for; they are never
    /// chosen (vLLM refuses a sequence in which they occur).
    vocab_size: usize,
    rng: Rng,
}

impl Sampler {
    /// `rng` is used only at a temperature above 0.
    pub fn new(temperature: f64, vocab_size: usize, rng: Rng) -> Self {
        Sampler { temperature, vocab_size, rng }
    }

    /// Chooses an id that is not `banned`.
    ///
    /// # Errors
    /// When no id has a usable logit: the model computes NaN.
    pub fn pick(&mut self, logits: &[f32], banned: &[i64]) -> Result<i64> {
        let known = &logits[..logits.len().min(self.vocab_size)];
        let allowed = |id: usize| !banned.contains(&(id as i64));
        let mut best: Option<(usize, f32)> = None;
        for (id, &logit) in known.iter().enumerate() {
            if best.is_none_or(|(_, highest)| logit > highest) && !logit.is_nan() && allowed(id) {
                best = Some((id, logit));
            }
        }
        let Some((best, highest)) = best.filter(|(_, logit)| logit.is_finite()) else {
            bail!(
                "the model's logits hold no finite number; is the checkpoint whole, and dtype \
                 float32?"
            )
        };
        if self.temperature == 0.0 {
            return Ok(best as i64);
        }
        let weight = |id: usize, logit: f32| {
            let scaled = f64::from(logit - highest) / self.temperature;
            if scaled.is_nan() || !allowed(id) { 0.0 } else { scaled.exp() }
        };
        let weights: Vec<f64> = known.iter().enumerate().map(|(id, &l)| weight(id, l)).collect();
        let mut left = self.rng.uniform() * weights.iter().sum::<f64>();
        for (id, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return Ok(id as i64);
            }
        }
        Ok(best as i64) // rounding left a crumb behind the last weight
    }
}

/// Decodes one request from its prompt to its end.
///
/// Forced ids go through the decoder like sampled ones, as a small prefill behind what it has seen
/// already: nothing is computed twice, and what nothing is sampled after is not computed at all.
pub fn generate(
    decoder: &mut impl Decoder,
    sampler: &mut Sampler,
    spec: &Spec,
    prompt: &[i64],
) -> Result<Outcome> {
    let (mut forcing, mut action) = Forcing::start(spec, prompt.len());
    let mut unseen = prompt.to_vec();
    let mut logits = Vec::new();
    while let Action::Extend(ids) = action {
        unseen.extend(ids);
        // Nothing is unseen after an end of thinking that was ignored without a string: the next
        // id is drawn from the same logits, this time with the stops banned.
        if !unseen.is_empty() {
            logits = decoder.extend(&unseen)?;
            unseen.clear();
        }
        let id = sampler.pick(&logits, forcing.banned())?;
        action = forcing.accept(id);
    }
    Ok(forcing.outcome())
}

/// A Qwen2 model with the cache of one sequence.
pub struct Qwen2Decoder<'a> {
    model: &'a model::Qwen2,
    cache: model::Cache,
}

impl<'a> Qwen2Decoder<'a> {
    /// An empty sequence.
    pub fn new(model: &'a model::Qwen2) -> Self {
        Qwen2Decoder { model, cache: model.new_cache() }
    }
}

impl Decoder for Qwen2Decoder<'_> {
    fn extend(&mut self, ids: &[i64]) -> Result<Vec<f32>> {
        let logits = self.model.extend(&mut self.cache, ids); // [V]
        Ok(Vec::try_from(&logits)?)
    }
}
