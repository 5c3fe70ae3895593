//! How many layers may keep their graph in the memory that a micro-batch leaves free.

use model::Config;
use tch::Kind;

use crate::data::MicroBatch;
use crate::loss;
use crate::shards::{Placement, Shards};

/// Bytes a token of a layer whose graph is kept, beyond the layer's input: two normed inputs and
/// the second norm's own (H each), q, k and v, attention's output, gate and up.
pub fn kept_bytes(config: &Config, kind: Kind) -> i64 {
    let q = config.num_attention_heads * config.head_dim();
    let kv = config.num_key_value_heads * config.head_dim();
    let elements = 3 * config.hidden_size + 2 * q + 2 * kv + 2 * config.intermediate_size;
    elements * kind.elt_size_in_bytes() as i64
}

/// Bytes that a pass over `tokens` tokens, `targets` of them trained, needs at its peak when no
/// graph is kept, beyond what is there before it.
pub fn pass_bytes(config: &Config, placement: &Placement, tokens: i64, targets: i64) -> i64 {
    let element = placement.compute.elt_size_in_bytes() as i64;
    let layout = model::Layout::new(config);
    let largest = layout.units.iter().map(model::Unit::numel).max().unwrap_or(0);
    let layer = layout.units[1].numel();
    let inputs = config.num_hidden_layers * tokens * config.hidden_size * element;
    let logits = targets.min(loss::chunk(placement.device)) * config.vocab_size * 4;
    // At the head: two units gathered, its gradient in fp32, a chunk of logits. In a layer: three
    // gathered, two gradients, one graph alive.
    let head = 2 * largest * element + largest * 4 + logits;
    let within =
        3 * layer * element + 2 * layer * 4 + 2 * tokens * kept_bytes(config, placement.compute);
    inputs + head.max(within)
}

/// How many of the last layers keep their graph for `batch`.
pub fn kept_layers(shards: &Shards, batch: &MicroBatch, limit: Option<usize>) -> usize {
    let device = shards.placement.device;
    let free = match limit {
        Some(limit) => limit as i64 - c10d::memory::allocated(device) as i64,
        // A tenth stays free; ranks on a CPU share its memory.
        None => {
            let sharing = if device.is_cuda() { 1 } else { shards.mesh.world.world_size() as i64 };
            (c10d::memory::available(device) as f64 * 0.9) as i64 / sharing
        }
    };
    let (tokens, targets) = (batch.ids.size()[0], batch.targets.size()[0]);
    // Gradients of all units grow during the pass.
    let grads: i64 = shards.shards.iter().map(|shard| shard.master.numel() as i64 * 4).sum();
    let spare = free - grads - pass_bytes(&shards.config, &shards.placement, tokens, targets);
    let each = (tokens * kept_bytes(&shards.config, shards.placement.compute)).max(1);
    (spare / each).clamp(0, shards.last() as i64 - 1) as usize
}
