//! The run file: every number that shapes a training run.

use serde::Deserialize;

/// One training run, read by `record::config::load`; unknown keys are errors.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Fixes the order of examples and random weights.
    pub seed: u64,
    /// The run's folder: metrics, TensorBoard events, and at the end `checkpoint/`.
    pub output: String,
    pub data: Data,
    pub model: Model,
    pub batch: Batch,
    pub optimizer: Optimizer,
    pub schedule: Schedule,
    #[serde(default)]
    pub distributed: Distributed,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// A Parquet or JSONL table with question, thinking_trajectories and attempt.
    pub examples: String,
    /// The longest example, in tokens.
    pub block_size: usize,
    /// What happens to longer ones.
    pub over_long: OverLong,
}

/// Differs from s1: TRL cuts silently; here the choice is named and every cut row is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverLong {
    /// Keep the first `block_size` tokens: the answer is lost, as in the original.
    Truncate,
    /// Leave the example out.
    Drop,
    /// Refuse to start.
    Error,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// A folder in Hugging Face layout, or `owner/name` on the hub.
    pub path: String,
    pub init: Init,
    /// The kind of the exported weights.
    #[serde(default = "float32")]
    pub save_dtype: SaveDtype,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// The folder's weights.
    Checkpoint,
    /// Fresh weights of the folder's shape, drawn as transformers draws them.
    Random,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SaveDtype {
    Float32,
    Bfloat16,
}

fn float32() -> SaveDtype {
    SaveDtype::Float32
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Examples in one optimizer step, over all ranks.
    pub global_batch: usize,
    /// Examples packed into one pass on one rank.
    pub micro_batch: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    pub max_grad_norm: f64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    pub epochs: usize,
    /// Share of all steps with a rising rate.
    pub warmup_ratio: f64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distributed {
    /// How long a rank waits for the others before it gives up.
    pub timeout_seconds: u64,
}

impl Default for Distributed {
    fn default() -> Self {
        Self { timeout_seconds: 600 }
    }
}
