//! The examples' order over the epochs, and one rank's share of a global batch.

use model::Config as ModelConfig;
use model::chat::Example;
use tch::{Device, Tensor};

use crate::balance;
use crate::config::{Batch, Config, LossAverage};
pub use crate::examples::Examples;
use crate::mesh::Mesh;

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

/// Some examples packed into one pass: attention stays inside each, positions restart. On a rank
/// that shares the pass with others, its part of the tokens.
#[derive(Debug)]
pub struct MicroBatch {
    /// `[T]`, this rank's tokens of all segments behind one another.
    pub ids: Tensor,
    /// `[T]`, each token's place in its own segment.
    pub positions: Tensor,
    /// Where segments begin and end, over the tokens of all ranks of the group: 0, …, T x ranks.
    pub cu_seqlens: Vec<i64>,
    /// `[N]`, the rows of the hidden state that predict a trained token; at least one.
    pub predicts: Tensor,
    /// `[N]`, the tokens they are to predict.
    pub targets: Tensor,
    /// `[N]` fp32, each target's share of the loss; they sum to 1 over a global batch.
    pub weights: Tensor,
    /// The largest N of the ranks that share the pass.
    pub most_targets: i64,
}

/// Which part of each micro-batch a rank computes.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// This rank's place among those that share micro-batches.
    pub rank: usize,
    /// How many there are.
    pub ranks: usize,
}

impl Part {
    /// The whole micro-batch.
    pub const WHOLE: Self = Self { rank: 0, ranks: 1 };
}

impl MicroBatch {
    /// Packs `examples`, each with the weight of its trained tokens in the loss. What is missing
    /// to equal parts, or to a first token, is filled with tokens that weigh nothing.
    pub fn pack(examples: &[(&Example, f64)], part: Part, device: Device) -> Self {
        let (mut ids, mut positions, mut cu_seqlens) = (Vec::new(), Vec::new(), vec![0]);
        let (mut predicts, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (example, weight) in examples {
            let (start, length) = (ids.len() as i64, example.ids.len());
            for trained in example.trained.iter().cloned() {
                predicts.extend(trained.clone().map(|t| start + t as i64 - 1));
                targets.extend_from_slice(&example.ids[trained.clone()]);
                weights.extend(trained.map(|_| *weight as f32));
            }
            ids.extend_from_slice(&example.ids);
            positions.extend(0..length as i64);
            cu_seqlens.push(ids.len() as i64);
        }
        let filled = ids.len().max(1).next_multiple_of(part.ranks);
        if filled > ids.len() {
            positions.extend(0..(filled - ids.len()) as i64);
            ids.resize(filled, 0);
            cu_seqlens.push(filled as i64);
        }
        let share = filled / part.ranks;
        let before = |rank| predicts.partition_point(|&row| row < (share * rank) as i64);
        let most = (0..part.ranks).map(|rank| before(rank + 1) - before(rank)).max();
        let mine = share * part.rank..share * (part.rank + 1);
        let (first, end) = (before(part.rank), before(part.rank + 1));
        let mut predicts: Vec<i64> =
            predicts[first..end].iter().map(|row| row - mine.start as i64).collect();
        let (mut targets, mut weights) =
            (targets[first..end].to_vec(), weights[first..end].to_vec());
        if predicts.is_empty() {
            predicts.push(0);
            targets.push(0);
            weights.push(0.0);
        }
        let to = |values: &[i64]| Tensor::from_slice(values).to_device(device);
        Self {
            ids: to(&ids[mine.clone()]),
            positions: to(&positions[mine]),
            cu_seqlens,
            predicts: to(&predicts),
            targets: to(&targets),
            weights: Tensor::from_slice(&weights).to_device(device),
            most_targets: most.unwrap_or(0).max(1) as i64,
        }
    }
}

/// What each trained token of each example of a global batch weighs in its loss: 1 / (the
/// example's trained tokens x examples), so that every example counts the same, or 1 / all trained
/// tokens.
pub fn weights(batch: &[&Example], average: LossAverage) -> Vec<f64> {
    let all: usize = batch.iter().map(|example| example.trained_tokens()).sum();
    let weight = |example: &&Example| match average {
        LossAverage::Example => 1.0 / (example.trained_tokens() * batch.len()) as f64,
        LossAverage::Token => 1.0 / all as f64,
    };
    batch.iter().map(weight).collect()
}

/// This rank's micro-batches of one optimizer step: [`balance::share`] spreads the examples over
/// the groups, each packs its own.
pub fn micro_batches(
    batch: &[&Example],
    how: &Batch,
    model: &ModelConfig,
    mesh: &Mesh,
    device: Device,
) -> Vec<MicroBatch> {
    let lengths: Vec<usize> = batch.iter().map(|example| example.ids.len()).collect();
    let weights = weights(batch, how.loss_average);
    let shares = balance::share(&lengths, model, mesh.data_groups(), how.micro_batch_tokens);
    let part = Part { rank: mesh.sequence.rank(), ranks: mesh.sequence.world_size() };
    let pack = |places: &Vec<usize>| {
        let examples: Vec<_> = places.iter().map(|&at| (batch[at], weights[at])).collect();
        MicroBatch::pack(&examples, part, device)
    };
    shares[mesh.data_group()].iter().map(pack).collect()
}
