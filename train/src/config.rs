//! The run file: every number that shapes a training run.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// One training run, read by `record::config::load`; unknown keys are errors.
#[derive(Debug, Clone, Deserialize, Serialize)]
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
    /// What is kept, recomputed or moved away when memory is short.
    #[serde(default)]
    pub memory: Memory,
    /// What a step does about numbers that cannot be right.
    #[serde(default)]
    pub guard: Guard,
    /// How often the run is saved, and what is kept.
    #[serde(default)]
    pub checkpoint: Checkpoint,
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
        ensure!(self.data.block_size > 0, "data.block_size = 0: an example needs tokens");
        let Batch { global_batch, micro_batch_tokens, .. } = self.batch;
        ensure!(global_batch > 0, "batch.global_batch = 0: a step needs examples");
        ensure!(micro_batch_tokens > 0, "batch.micro_batch_tokens = 0: a pass needs tokens");
        if let Some(gib) = self.memory.limit_gib {
            within("memory.limit_gib", gib, gib > 0.0, "above 0")?;
        }
        if let Some(LossSpike { window, factor }) = self.guard.loss_spike {
            within("guard.loss_spike.factor", factor, factor > 1.0, "above 1")?;
            ensure!(window >= 4, "guard.loss_spike.window = {window}: it must be 4 or more");
        }
        let Checkpoint { every_steps, keep_last, .. } = self.checkpoint;
        ensure!(every_steps > 0, "checkpoint.every_steps = 0: it must be 1 or more");
        ensure!(
            keep_last >= 2,
            "checkpoint.keep_last = {keep_last}: keep 2 or more, so that one is left when a disk \
             damages the other"
        );
        self.distributed.check(world_size)
    }
}

/// What is trained on.
#[derive(Debug, Clone, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `question`, `thinking_trajectories` and `attempt`, as in s1K; texts, nothing in them is
    /// special.
    #[default]
    S1,
    /// `text`, as in s1K_tokenized: a chat template's output, its control tokens spelled out.
    Text,
    /// `text` as it is, every token but the first trained: pre-training. Control tokens are as they
    /// are spelled.
    Plain,
    /// `messages`, each with `role` and `content`; nothing in a content is special.
    Messages,
}

/// Whether the question says how long to think (the paper's appendix E.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// The folder's weights.
    Checkpoint,
    /// Fresh weights of the folder's shape, drawn as transformers draws them.
    Random,
}

/// The kind of exported weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LossAverage {
    /// Every example, however long: what s1's micro-batch of one example a rank amounts to.
    #[default]
    Example,
    /// Every trained token, as transformers 4.46 has it under gradient accumulation.
    Token,
}

/// AdamW and clipping, in torch's words.
#[derive(Debug, Clone, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Passes over all examples.
    pub epochs: usize,
    /// Share of all steps with a rising rate.
    pub warmup_ratio: f64,
}

/// How ranks deal with one another.
#[derive(Debug, Clone, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// Leaves out the update of a step whose loss jumps.
    pub loss_spike: Option<LossSpike>,
    /// After every so many steps weights and moments are digested, compared among the copies of
    /// the model, and digested again before the next update: a bit that flipped stops the run.
    /// 0: never. Each time costs two readings of what the optimizer holds.
    pub digest_every: usize,
}

/// A step's loss or gradient norm is a spike when it is above `factor` times the median of the
/// last `window` steps that were taken, once half of them are there. After `window / 2` spikes in
/// a row the run stops.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LossSpike {
    /// Steps looked back on.
    pub window: usize,
    /// Above 1.
    pub factor: f64,
}

/// How often the run is saved, and what is kept. The last step is always saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoint {
    /// Steps from one save to the next.
    pub every_steps: usize,
    /// How many of the last checkpoints stay.
    pub keep_last: usize,
    /// Those whose step is a multiple of this stay for good; 0: none.
    pub keep_every: usize,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { every_steps: 50, keep_last: 2, keep_every: 0 }
    }
}
