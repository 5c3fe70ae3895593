//! Decoding: many sequences in one forward over cached keys and values, each token computed once.
//!
//! Shapes as in `qwen2.rs`; T tokens of all segments of a pass together. To be read beside its
//! `DecoderLayer::forward`, which this is without gradients and with prepared weights.

use std::path::Path;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use crate::cache::Cache;
use crate::qwen2::{DecoderLayer, embedding, final_unit, rms_norm};
use crate::{Checkpoint, Config, Layout, Rope, rope};

/// A model made ready for decoding. Its numbers are fp32 on the CPU, whatever kind its weights are
/// stored in; on a GPU they have the weights' kind.
#[derive(Debug)]
pub struct Decoder {
    config: Config,
    /// None where the head's rows are the embedding's.
    embed_tokens: Option<Tensor>, // [V, H]
    layers: Vec<Layer>,
    norm: Tensor, // [H]
    lm_head: Matrix,
    rope: Rope,
}

#[derive(Debug)]
struct Layer {
    input_layernorm: Tensor,
    post_attention_layernorm: Tensor,
    qkv_proj: Matrix,
    o_proj: Matrix,
    gate_up_proj: Matrix,
    down_proj: Matrix,
}

/// A weight, and what multiplies by it.
#[derive(Debug)]
struct Matrix {
    weight: Tensor,
    bias: Option<Tensor>,
}

/// New tokens of one sequence in a pass.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// The tokens, at least one.
    pub ids: &'a [i64],
    /// The tokens of the sequence that are in the cache already.
    pub start: usize,
    /// The sequence's blocks, with room for `start + ids.len()` positions. Those that this pass
    /// writes to are no other sequence's.
    pub blocks: &'a [usize],
    /// Whether the logits after the last of `ids` are wanted.
    pub logits: bool,
}

impl Matrix {
    fn new(weight: &Tensor, bias: Option<&Tensor>) -> Self {
        Matrix { weight: weight.shallow_clone(), bias: bias.map(Tensor::shallow_clone) }
    }

    /// `[T, in]` to `[T, out]`.
    fn apply(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }

    /// The rows `ids` of the weight.
    fn rows(&self, ids: &Tensor) -> Tensor {
        crate::qwen2::embed(&self.weight, ids)
    }
}

impl Decoder {
    /// Loads a Hugging Face folder, its weights converted to `kind`.
    pub fn load(folder: &Path, device: Device, kind: Kind) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let checkpoint = Checkpoint::open(folder)?;
        let config = checkpoint.config().clone();
        let units = Layout::new(&config).units;
        // On the CPU a weight of any kind is multiplied in fp32; bf16 only rounds it.
        let read = |unit| -> Result<Tensor> {
            let flat = checkpoint.read_unit(unit, kind)?;
            Ok(if device == Device::Cpu {
                flat.to_kind(Kind::Float)
            } else {
                flat.to_device(device)
            })
        };
        let (first, rest) = units.split_first().expect("an embedding unit");
        let (last, layers) = rest.split_last().expect("a final unit");
        let layers = layers
            .iter()
            .map(|unit| Ok(Layer::new(&config, &read(unit)?)))
            .collect::<Result<_>>()?;
        let embed_tokens = embedding(&config, &read(first)?);
        let (norm, head) = final_unit(&config, &read(last)?);
        let rope = Rope::new(&config, config.max_position_embeddings, device);
        let (lm_head, embed_tokens) = match head {
            Some(head) => (Matrix::new(&head, None), Some(embed_tokens)),
            None => (Matrix::new(&embed_tokens, None), None),
        };
        Ok(Self { config, embed_tokens, layers, norm, lm_head, rope })
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A cache of `blocks` blocks of `block_len` positions for this model's sequences.
    pub fn new_cache(&self, blocks: usize, block_len: usize) -> Cache {
        Cache::new(&self.config, blocks, block_len, (self.norm.kind(), self.norm.device()))
    }

    /// The bytes of one block of such a cache.
    pub fn block_bytes(&self, block_len: usize) -> usize {
        Cache::block_bytes(&self.config, block_len, self.norm.kind())
    }

    /// Appends each segment's tokens to its sequence in `cache` and returns the logits after the
    /// last token of each segment that wants them, `[segments that want, V]` in fp32.
    pub fn pass(&self, cache: &mut Cache, segments: &[Segment]) -> Tensor {
        let _guard = tch::no_grad_guard();
        let device = self.norm.device();
        let block_len = cache.block_len();
        let (mut ids, mut positions, mut places, mut wanted) = (vec![], vec![], vec![], vec![]);
        for segment in segments {
            assert!(!segment.ids.is_empty(), "a segment without tokens");
            let range = segment.start..segment.start + segment.ids.len();
            ids.extend(segment.ids);
            places.extend(range.clone().map(|p| (segment.blocks[p / block_len], p % block_len)));
            positions.extend(range.map(|p| p as i64));
            if segment.logits {
                wanted.push(ids.len() as i64 - 1);
            }
        }
        let upload = |values: &[i64]| Tensor::from_slice(values).to_device(device);
        let places = cache.places(&places);
        let mut x = self.embed(&upload(&ids)); // [T, H]
        let rotation = self.rope.at(&upload(&positions), x.kind());
        for (n, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&self.config, &x, &rotation, |query, key, value| {
                cache.write(n, &places, &key, &value);
                attend(&query, cache, n, segments)
            });
        }
        if wanted.len() < ids.len() {
            x = x.index_select(0, &upload(&wanted));
        }
        let normed = rms_norm(&x, &self.norm, self.config.rms_norm_eps);
        self.lm_head.apply(&normed).to_kind(Kind::Float)
    }

    fn embed(&self, ids: &Tensor) -> Tensor {
        match &self.embed_tokens {
            Some(weight) => crate::qwen2::embed(weight, ids),
            None => self.lm_head.rows(ids),
        }
    }
}

impl Layer {
    fn new(config: &Config, flat: &Tensor) -> Self {
        let layer = DecoderLayer::from_flat(config, flat);
        Self {
            input_layernorm: layer.input_layernorm.copy(),
            post_attention_layernorm: layer.post_attention_layernorm.copy(),
            qkv_proj: Matrix::new(&layer.qkv_proj, Some(&layer.qkv_bias)),
            o_proj: Matrix::new(&layer.o_proj, None),
            gate_up_proj: Matrix::new(&layer.gate_up_proj, None),
            down_proj: Matrix::new(&layer.down_proj, None),
        }
    }

    /// The residual stream after this layer, `[T, H]` to `[T, H]`.
    fn forward(
        &self,
        config: &Config,
        x: &Tensor,
        rotation: &(Tensor, Tensor),
        attend: impl FnOnce(Tensor, Tensor, Tensor) -> Tensor,
    ) -> Tensor {
        let (heads, kv, d) =
            (config.num_attention_heads, config.num_key_value_heads, config.head_dim());
        let normed = rms_norm(x, &self.input_layernorm, config.rms_norm_eps);
        let qkv = self.qkv_proj.apply(&normed).view([-1, heads + 2 * kv, d]);
        let qkv = qkv.split_with_sizes([heads, kv, kv], 1);
        let (query, key) = (rope::rotate(&qkv[0], rotation), rope::rotate(&qkv[1], rotation));
        let attended = attend(query, key, qkv[2].shallow_clone()).reshape([-1, heads * d]);
        let x = x + self.o_proj.apply(&attended);

        let normed = rms_norm(&x, &self.post_attention_layernorm, config.rms_norm_eps);
        let gate_up = self.gate_up_proj.apply(&normed).chunk(2, -1); // [T, I] x 2
        let inner = gate_up[0].silu() * &gate_up[1];
        x + self.down_proj.apply(&inner)
    }
}

/// Attends from each segment's queries (`[T, heads, D]`) to all tokens of its sequence up to them.
fn attend(query: &Tensor, cache: &Cache, layer: usize, segments: &[Segment]) -> Tensor {
    let mut from = 0;
    let attended: Vec<Tensor> = segments
        .iter()
        .map(|segment| {
            let query = query.narrow(0, from, segment.ids.len() as i64);
            from += segment.ids.len() as i64;
            attend_one(&query, cache, layer, segment)
        })
        .collect();
    Tensor::cat(&attended, 0)
}

/// [`attend`] for one segment by libtorch's own attention.
fn attend_one(query: &Tensor, cache: &Cache, layer: usize, segment: &Segment) -> Tensor {
    let (new, len) = (segment.ids.len() as i64, (segment.start + segment.ids.len()) as i64);
    let gather = |part: usize| {
        let blocks = segment.blocks.iter().map(|&block| &cache.block(layer, block)[part]);
        let used = (len as usize).div_ceil(cache.block_len());
        let parts: Vec<&Tensor> = blocks.take(used).collect();
        let all = if parts.len() == 1 { parts[0].shallow_clone() } else { Tensor::cat(&parts, 1) };
        all.narrow(1, 0, len) // [kv heads, len, D]
    };
    let (keys, values) = (gather(0), gather(1));
    let (heads, kv, d) = (query.size()[1], keys.size()[0], query.size()[2]);
    // Each key/value head is a batch whose group of query heads sees one copy of it.
    let query = query.view([new, kv, heads / kv, d]).permute([1, 2, 0, 3]);
    let shared = |t: &Tensor| t.unsqueeze(1).expand([kv, heads / kv, len, d], false);
    let mask = (new > 1)
        .then(|| Tensor::ones([new, len], (Kind::Bool, query.device())).tril(segment.start as i64));
    let attended = Tensor::scaled_dot_product_attention(
        &query,
        &shared(&keys),
        &shared(&values),
        mask.as_ref(),
        0.0,
        false,
        None,
        false,
    ); // [kv, group, new, D]
    attended.permute([2, 0, 1, 3]).reshape([new, heads, d])
}
