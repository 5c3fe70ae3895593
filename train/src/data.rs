//! The examples' order over the epochs, and one rank's share of a global batch.

use model::chat::Example;
use tch::{Device, Tensor};

use crate::config::Config;
pub use crate::examples::Examples;

/// Which examples each optimizer step sees.
#[derive(Debug, Clone)]
pub struct Order {
    seed: u64,
    examples: usize,
    global_batch: usize,
    epochs: usize,
}

impl Order {
    /// The order of a run over so many examples.
    pub fn new(config: &Config, examples: usize) -> Self {
        let (global_batch, epochs) = (config.batch.global_batch, config.schedule.epochs);
        Self { seed: config.seed, examples, global_batch, epochs }
    }

    /// Examples in a step.
    pub fn global_batch(&self) -> usize {
        self.global_batch
    }

    /// Steps in which every example is seen once.
    pub fn steps_per_epoch(&self) -> usize {
        self.examples.div_ceil(self.global_batch)
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> usize {
        self.steps_per_epoch() * self.epochs
    }

    /// The examples of step `step` (from 0), each epoch a fresh permutation. The last batch of an
    /// epoch is refilled from the epoch's start, as accelerate's `even_batches` does.
    ///
    /// Differs from s1: the permutation is drawn from ChaCha, not from PyTorch's generator.
    pub fn step(&self, step: usize) -> Vec<usize> {
        let (epoch, position) = (step / self.steps_per_epoch(), step % self.steps_per_epoch());
        let mut order: Vec<usize> = (0..self.examples).collect();
        record::seed::rng(self.seed, &["order", &epoch.to_string()]).shuffle(&mut order);
        let start = position * self.global_batch;
        (start..start + self.global_batch).map(|i| order[i % self.examples]).collect()
    }
}

/// Some examples packed into one pass: attention stays inside each, positions restart.
#[derive(Debug)]
pub struct MicroBatch {
    /// `[T]`, all segments behind one another.
    pub ids: Tensor,
    /// `[T]`, each token's place in its own segment.
    pub positions: Tensor,
    /// Where segments begin and end: 0, …, T.
    pub cu_seqlens: Vec<i64>,
    /// `[N]`, the rows of the hidden state that predict a trained token.
    pub predicts: Tensor,
    /// `[N]`, the tokens they are to predict.
    pub targets: Tensor,
    /// `[N]` fp32, each target's share of the loss; they sum to 1 over a global batch.
    pub weights: Tensor,
}

impl MicroBatch {
    /// Packs `examples`, each with the weight 1 / (its trained tokens x `global_batch`): every
    /// example counts the same, as in the original.
    pub fn pack(examples: &[&Example], global_batch: usize, device: Device) -> Self {
        let (mut ids, mut positions, mut cu_seqlens) = (Vec::new(), Vec::new(), vec![0]);
        let (mut predicts, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for example in examples {
            let (start, length) = (ids.len() as i64, example.ids.len());
            let weight = 1.0 / (example.trained_tokens() as f64 * global_batch as f64);
            for trained in example.trained.iter().cloned() {
                predicts.extend(trained.clone().map(|t| start + t as i64 - 1));
                targets.extend_from_slice(&example.ids[trained.clone()]);
                weights.extend(trained.map(|_| weight as f32));
            }
            ids.extend_from_slice(&example.ids);
            positions.extend(0..length as i64);
            cu_seqlens.push(ids.len() as i64);
        }
        let to = |values: &[i64]| Tensor::from_slice(values).to_device(device);
        let weights = Tensor::from_slice(&weights).to_device(device);
        let (predicts, targets) = (to(&predicts), to(&targets));
        Self { ids: to(&ids), positions: to(&positions), cu_seqlens, predicts, targets, weights }
    }
}

/// The micro-batches of `rank`: the global batch is dealt from longest to shortest, back and
/// forth over the ranks, so that all have nearly the same work; each rank packs its share.
pub fn share<'a>(
    batch: &[&'a Example],
    micro_batch: usize,
    rank: usize,
    world_size: usize,
) -> Vec<Vec<&'a Example>> {
    let mut sorted = batch.to_vec();
    sorted.sort_by_key(|example| std::cmp::Reverse(example.ids.len()));
    let dealt_to = |place: usize| match (place / world_size, place % world_size) {
        (round, at) if round % 2 == 0 => at,
        (_, at) => world_size - 1 - at,
    };
    let mine = sorted.iter().enumerate().filter(|(place, _)| dealt_to(*place) == rank);
    let mine: Vec<&Example> = mine.map(|(_, example)| *example).collect();
    mine.chunks(micro_batch).map(<[&Example]>::to_vec).collect()
}
