//! Everything a step reads, by name: what a checkpoint holds beside the slices.
//!
//! Masters and moments are in the slices, the config and its seeds in the manifest. Randomness is
//! drawn by name (seed, purpose, epoch) and never from a generator that runs on, so there is no
//! generator's state; the learning rate follows from the step.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use model::Unit;
use model::chat::Example;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::config::Config;
use crate::guard::SpikeGuard;
use crate::shards::Shards;
use crate::slices::{PARTS, Slices, Snapshot};
use crate::step::Trainer;

/// The state's file in a checkpoint.
pub const FILE: &str = "state.toml";

/// Where a run stands between two steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Optimizer steps that are done; the next one is this, counted from 0.
    pub step: usize,
    /// Examples that were trained on: the place in the order of all epochs.
    pub example: usize,
    /// Tokens that were seen.
    pub tokens: usize,
    /// Updates that the optimizer made: steps without those that were left out.
    pub updates: u64,
    /// Slice files of the checkpoint.
    pub slices: usize,
    /// Ranks that wrote it.
    pub world_size: usize,
    /// Copies of the model that they held.
    pub replicate: usize,
    /// BLAKE3 of the tokenised examples, in their table's order.
    pub examples: String,
    /// BLAKE3 of the model's shape ([`shape`]).
    pub model: String,
    /// What the loss-spike guard remembers.
    pub guard: SpikeGuard,
}

impl State {
    /// Refuses other examples (`digest`) or another model than those it was trained with.
    pub fn check(&self, digest: &str, model: &model::Config, config: &Config) -> Result<()> {
        ensure!(
            self.examples == digest,
            "{}: the examples are not those that this run was trained on (BLAKE3 of their tokens \
             {digest}, then {}): put the old ones back, or start a new run",
            config.data.examples,
            self.examples
        );
        ensure!(
            self.model == shape(model),
            "{}: the model's config.json is not the one that this run was trained with: put the \
             old one back, or start a new run",
            config.model.path
        );
        Ok(())
    }

    /// The state of `trainer` after `step` steps, on which `tokens` were seen.
    pub fn of(
        trainer: &Trainer,
        config: &Config,
        step: usize,
        tokens: usize,
        examples: &str,
    ) -> Self {
        let mesh = &trainer.shards.mesh;
        Self {
            step,
            example: step * config.batch.global_batch,
            tokens,
            updates: trainer.adamw.steps,
            slices: mesh.shard.world_size(),
            world_size: mesh.world.world_size(),
            replicate: mesh.replicas.world_size(),
            examples: examples.to_owned(),
            model: shape(&trainer.shards.config),
            guard: trainer.guard.clone(),
        }
    }

    /// Reads a checkpoint's state.
    pub fn read(checkpoint: &Path) -> Result<Self> {
        let path = checkpoint.join(FILE);
        let place = || path.display().to_string();
        let text = fs::read_to_string(&path).with_context(place)?;
        toml::from_str(&text).with_context(place)
    }

    /// The text of the state's file.
    pub fn text(&self) -> Result<String> {
        Ok(format!("# Where this training run stands.\n{}", toml::to_string(self)?))
    }

    /// Sets `trainer` to where the run of `checkpoint` stood; its weights need not be loaded.
    pub fn restore(&self, checkpoint: &Path, trainer: &mut Trainer) -> Result<()> {
        let slices = Slices::open(checkpoint, self.slices)?;
        for (shard, (m, v)) in trainer.shards.shards.iter().zip(&trainer.adamw.moments) {
            let range = mine(&trainer.shards, shard.master.numel());
            for (part, tensor) in PARTS.into_iter().zip([&shard.master, m, v]) {
                let unit = &shard.unit;
                let found = slices.read(&unit.name, part, unit.numel() as usize, range.clone())?;
                tensor.shallow_clone().copy_(&found);
            }
        }
        trainer.shards.publish_masters();
        trainer.adamw.steps = self.updates;
        trainer.guard.restore(&self.guard);
        trainer.digests.forget();
        Ok(())
    }
}

/// This rank's range of a flat buffer of which every rank has `part` elements.
fn mine(shards: &Shards, part: usize) -> Range<usize> {
    let rank = shards.mesh.shard.rank();
    rank * part..(rank + 1) * part
}

/// A copy of this rank's masters and moments.
pub fn snapshot(trainer: &Trainer) -> Snapshot {
    let shards = trainer.shards.shards.iter().zip(&trainer.adamw.moments);
    Snapshot::copy(shards.flat_map(|(shard, (m, v))| {
        let tensors = [&shard.master, m, v].map(Tensor::shallow_clone);
        let name = |part| format!("{}.{part}", shard.unit.name);
        PARTS.map(name).into_iter().zip(tensors)
    }))
}

/// The weights of a checkpoint, unit by unit: a function from a unit to its flat buffer, fp32.
pub fn weights(checkpoint: &Path) -> Result<impl Fn(&Unit) -> Result<Tensor> + use<>> {
    let state = State::read(checkpoint)?;
    let slices = Slices::open(checkpoint, state.slices)?;
    Ok(move |unit: &Unit| {
        let numel = unit.numel() as usize;
        slices.read(&unit.name, PARTS[0], numel, 0..numel)
    })
}

/// Whether the state and every element of every slice can be read, and is a number.
pub fn check(checkpoint: &Path) -> Result<State> {
    let state = State::read(checkpoint)?;
    let slices = Slices::open(checkpoint, state.slices)?;
    for (unit, part, numel) in slices.contents()? {
        let found = slices.read(&unit, &part, numel, 0..numel)?;
        ensure!(
            found.isfinite().all().int64_value(&[]) == 1,
            "{}: {unit}.{part} has elements that are not finite",
            checkpoint.display()
        );
    }
    Ok(state)
}

/// What identifies a model's shape: everything that its `config.json` tells a step.
pub fn shape(model: &model::Config) -> String {
    blake3::hash(format!("{model:?}").as_bytes()).to_hex().to_string()
}

/// What identifies the tokenised examples.
pub fn digest(examples: &[Example]) -> String {
    let mut text = blake3::Hasher::new();
    for example in examples {
        for id in &example.ids {
            text.update(&id.to_le_bytes());
        }
        text.update(format!("{:?};", example.trained).as_bytes());
    }
    text.finalize().to_hex().to_string()
}
