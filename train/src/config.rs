//! The run file: every number that shapes a training run.

use anyhow::{Result, ensure};
use serde::Deserialize;

/// One training run, read by `record::config::load`; unknown keys are errors.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Fixes the order of examples and random weights.
    pub seed: u64,
    /// The run's folder: metrics, TensorBoard events, and at the end `checkpoint/`.
    pub output: String,
    /// What is trained on.
    pub data: Data,
    /// What is trained.
    pub model: Model,
    /// How examples become optimizer steps.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Examples in one optimizer step, over all ranks.
    pub global_batch: usize,
    /// Tokens packed into one pass of one rank, or of one group of `sequence_parallel` ranks; an
    /// example that is longer passes alone.
    pub micro_batch_tokens: usize,
    /// What weighs the same in a step's loss.
    #[serde(default)]
    pub loss_average: LossAverage,
}

/// What weighs the same in a step's loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossAverage {
    /// Every example, however long: what s1's micro-batch of one example a rank amounts to.
    #[default]
    Example,
    /// Every trained token, as transformers 4.46 has it under gradient accumulation.
    Token,
}

/// AdamW and clipping, in torch's words.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// The highest rate, at the end of the warm-up.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled, on matrices only.
    pub weight_decay: f64,
    /// A larger gradient is scaled down to this norm.
    pub max_grad_norm: f64,
}

/// How long, and at which rates: linear warm-up, then cosine to 0.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Passes over all examples.
    pub epochs: usize,
    /// Share of all steps with a rising rate.
    pub warmup_ratio: f64,
}

/// How ranks deal with one another.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Distributed {
    /// How long a rank waits for the others before it gives up.
    pub timeout_seconds: u64,
    /// Neighbouring ranks that share each packed micro-batch: tokens are cut among them, and
    /// attention exchanges tokens for heads (Ulysses, arXiv 2309.14509).
    pub sequence_parallel: usize,
    /// Whole copies of the sharded model; parameters are sharded over world size / replicate
    /// neighbouring ranks (FSDP's hybrid sharding).
    pub replicate: usize,
    /// The kind that gradients are summed over ranks in.
    pub reduce_dtype: ReduceDtype,
}

/// The kind that gradients are summed over ranks in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReduceDtype {
    /// Exact sums of what the layers computed.
    Float32,
    /// Half the traffic.
    Bfloat16,
}

impl Default for Distributed {
    fn default() -> Self {
        Self {
            timeout_seconds: 600,
            sequence_parallel: 1,
            replicate: 1,
            reduce_dtype: ReduceDtype::Float32,
        }
    }
}

impl Distributed {
    fn check(&self, world_size: usize) -> Result<()> {
        let Self { timeout_seconds, sequence_parallel, replicate, .. } = *self;
        ensure!(timeout_seconds > 0, "distributed.timeout_seconds must be above 0");
        ensure!(
            replicate > 0 && world_size.is_multiple_of(replicate),
            "distributed.replicate = {replicate} must divide the {world_size} ranks"
        );
        ensure!(
            sequence_parallel > 0 && (world_size / replicate).is_multiple_of(sequence_parallel),
            "distributed.sequence_parallel = {sequence_parallel} must divide the ranks of one \
             copy, {world_size} / distributed.replicate = {}",
            world_size / replicate
        );
        Ok(())
    }
}

/// What is kept, recomputed or moved away when memory is short.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// Which layers run a second time for their backward.
    pub recompute: Recompute,
    /// What lives in the host's memory instead of the device's.
    pub offload: Offload,
    /// What a rank may use on its device, in GiB; without it, what is free there.
    pub limit_gib: Option<f64>,
}

/// Which layers run a second time for their backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// As few as the memory left beside a micro-batch demands.
    #[default]
    Auto,
    /// Every layer: the least memory.
    All,
    /// None: a third less work.
    None,
}

/// What lives in the host's memory instead of the device's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offload {
    /// Nothing.
    #[default]
    None,
    /// Master weights and moments; the update runs on the host.
    Optimizer,
}

/// What a step does about numbers that cannot be right. Loss and gradients that are not finite
/// always stop a run before the update.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// Leaves out the update of a step whose loss jumps.
    pub loss_spike: Option<LossSpike>,
}

/// A step's loss or gradient norm is a spike when it is above `factor` times the median of the
/// last `window` steps, once half of them are there.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossSpike {
    /// Steps looked back on.
    pub window: usize,
    /// Above 1.
    pub factor: f64,
}
