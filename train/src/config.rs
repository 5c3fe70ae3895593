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
    pub batch: Batch,
    /// AdamW and clipping.
    pub optimizer: Optimizer,
    /// How long, and at which rates.
    pub schedule: Schedule,
    /// How ranks deal with one another.
    #[serde(default)]
    pub distributed: Distributed,
}

impl Config {
    /// Refuses numbers that no run can mean, by their keys.
    pub fn check(&self, world_size: usize) -> Result<()> {
        let Optimizer { learning_rate, beta1, beta2, eps, weight_decay, max_grad_norm } =
            self.optimizer;
        let within = |key: &str, value: f64, fits: bool, range: &str| {
            ensure!(fits && value.is_finite(), "{key} = {value}: it must be {range}");
            Ok(())
        };
        within("optimizer.learning_rate", learning_rate, learning_rate > 0.0, "above 0")?;
        within("optimizer.beta1", beta1, (0.0..1.0).contains(&beta1), "from 0 to below 1")?;
        within("optimizer.beta2", beta2, (0.0..1.0).contains(&beta2), "from 0 to below 1")?;
        within("optimizer.eps", eps, eps > 0.0, "above 0")?;
        within("optimizer.weight_decay", weight_decay, weight_decay >= 0.0, "0 or more")?;
        within("optimizer.max_grad_norm", max_grad_norm, max_grad_norm > 0.0, "above 0")?;
        let warmup = self.schedule.warmup_ratio;
        within("schedule.warmup_ratio", warmup, (0.0..=1.0).contains(&warmup), "from 0 to 1")?;
        ensure!(self.schedule.epochs > 0, "schedule.epochs = 0: nothing would be trained");
        ensure!(
            self.distributed.timeout_seconds > 0,
            "distributed.timeout_seconds must be above 0"
        );
        let Batch { global_batch, micro_batch } = self.batch;
        ensure!(
            global_batch > 0
                && micro_batch > 0
                && global_batch.is_multiple_of(world_size * micro_batch),
            "batch.global_batch = {global_batch} must be a multiple of ranks x batch.micro_batch = \
             {world_size} x {micro_batch}: change one of the three"
        );
        Ok(())
    }
}

/// What is trained on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// A Parquet or JSONL table, a folder of Parquet files, or a data set of the hub
    /// (`owner/name`, or `owner/name@revision`).
    pub examples: String,
    /// What the table's rows are.
    #[serde(default)]
    pub format: Format,
    /// Whether the question says how long to think, as in s1's conditional models.
    #[serde(default)]
    pub control: Control,
    /// The longest example, in tokens.
    pub block_size: usize,
    /// What happens to longer ones.
    pub over_long: OverLong,
}

/// What the rows of a table are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `question`, `thinking_trajectories` and `attempt`, as in s1K; texts, nothing in them is
    /// special.
    #[default]
    S1,
    /// `text`, as in s1K_tokenized: a chat template's output, its control tokens spelled out.
    Text,
    /// `messages`, each with `role` and `content`; nothing in a content is special.
    Messages,
}

/// Whether the question says how long to think (the paper's appendix E.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// It does not.
    #[default]
    None,
    /// "Think for up to N tokens."
    Tokens,
    /// "Think for up to N steps.", and each step of the reasoning says how many are left.
    Steps,
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

/// What is trained.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// A folder in Hugging Face layout, or `owner/name` on the hub.
    pub path: String,
    /// Which weights training starts from.
    pub init: Init,
    /// The kind of the exported weights.
    #[serde(default = "float32")]
    pub save_dtype: SaveDtype,
}

/// Which weights training starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// The folder's weights.
    Checkpoint,
    /// Fresh weights of the folder's shape, drawn as transformers draws them.
    Random,
}

/// The kind of exported weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SaveDtype {
    /// The master weights, to the bit.
    Float32,
    /// Half the size; what the published Qwen2.5 weights are.
    Bfloat16,
}

fn float32() -> SaveDtype {
    SaveDtype::Float32
}

/// How examples become optimizer steps.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Examples in one optimizer step, over all ranks.
    pub global_batch: usize,
    /// Examples packed into one pass on one rank.
    pub micro_batch: usize,
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
