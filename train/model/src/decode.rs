//! Decoding: many sequences in one forward over cached keys and values, each token computed once.
//!
//! Shapes as in `qwen2.rs`; T tokens of all segments of a pass together. To be read beside its
//! `DecoderLayer::forward`, which this is without gradients and with prepared weights.
//!
//! Several ranks can share a model that is too large for one (tensor parallelism, as Megatron-LM):
//! each has some of the heads and of the MLP's columns, with the keys and values of its heads, and
//! their contributions to the residual stream are added up twice a layer. Embedding and norms are on
//! all of them, the head is computed by rank 0.

use std::path::Path;

use anyhow::{Error, Result, ensure};
use c10d::Group;
use c10d::fused;
use c10d::kernels::{self, Cached, PackedLinear, Sequence};
use tch::{Device, Kind, Tensor};

use crate::cache::Cache;
use crate::qwen2::{DecoderLayer, embed, embedding, final_unit};
use crate::{Checkpoint, Config, Layout, Rope};

/// A model made ready for decoding. Its numbers are fp32 on the CPU, whatever kind its weights are
/// stored in; on a GPU they have the weights' kind.
#[derive(Debug)]
pub struct Decoder {
    config: Config,
    /// None where the head's rows are the embedding's.
    embed_tokens: Option<Tensor>, // [V, H]
    layers: Vec<Layer>,
    norm: Tensor, // [H]
    /// None where neither logits nor embedding come of it: untied, above rank 0.
    lm_head: Option<Matrix>,
    rope: Rope,
    part: Part,
}

/// What one rank has of every layer.
struct Part {
    /// The ranks that share the model.
    ranks: Group,
    heads: i64,
    kv_heads: i64,
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
enum Matrix {
    /// On the CPU: our own kernel, in which a row's result does not depend on the others.
    Packed(PackedLinear),
    /// On a GPU: libtorch's. Not run so far.
    Plain(Tensor, Option<Tensor>),
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
    /// The logits after so many of `ids`, the last ones, are wanted.
    pub logits: usize,
}

impl Matrix {
    fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        Ok(if weight.device() == Device::Cpu {
            Matrix::Packed(PackedLinear::pack(weight, bias)?)
        } else {
            Matrix::Plain(weight.shallow_clone(), bias.map(Tensor::shallow_clone))
        })
    }

    /// `[T, in]` to `[T, out]`.
    fn apply(&self, x: &Tensor) -> Tensor {
        match self {
            Matrix::Packed(packed) => packed.apply(x),
            Matrix::Plain(weight, bias) => x.linear(weight, bias.as_ref()),
        }
    }

    /// The rows `ids` of the weight.
    fn rows(&self, ids: &Tensor) -> Tensor {
        match self {
            Matrix::Packed(packed) => packed.rows(ids),
            Matrix::Plain(weight, _) => embed(weight, ids),
        }
    }
}

impl Part {
    /// # Errors
    /// When heads or MLP cannot be divided among so many ranks.
    fn new(config: &Config, ranks: Group) -> Result<Self> {
        let n = ranks.world_size() as i64;
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        ensure!(
            heads % n == 0 && kv_heads % n == 0 && config.intermediate_size % n == 0,
            "{n} ranks cannot share a model of {heads} heads, {kv_heads} key and value heads and \
             an MLP of {}: each must be a multiple of the ranks",
            config.intermediate_size
        );
        Ok(Self { ranks, heads: heads / n, kv_heads: kv_heads / n })
    }

    /// This rank's share of a weight along `dim`, which holds parts of these sizes, each divided
    /// among the ranks.
    fn share(&self, weight: &Tensor, dim: i64, sizes: &[i64]) -> Tensor {
        let (n, rank) = (self.ranks.world_size() as i64, self.ranks.rank() as i64);
        if n == 1 {
            return weight.shallow_clone();
        }
        let parts = weight.split_with_sizes(sizes, dim);
        let mine = parts
            .iter()
            .zip(sizes)
            .map(|(part, size)| part.narrow(dim, rank * (size / n), size / n));
        Tensor::cat(&mine.collect::<Vec<_>>(), dim)
    }

    /// The sum of all ranks' `x`, added up in their order: an all-reduce's order would depend on
    /// the batch, and a request's tokens must not.
    fn sum(&self, x: Tensor) -> Result<Tensor> {
        let n = self.ranks.world_size() as i64;
        if n == 1 {
            return Ok(x);
        }
        let all = Tensor::empty([n * x.numel() as i64], (x.kind(), x.device()));
        self.ranks.all_gather_into(&all, &x.contiguous().view(-1))?.wait()?;
        let all = all.view([&[n], x.size().as_slice()].concat().as_slice());
        let mut sum = all.get(0);
        for rank in 1..n {
            sum += all.get(rank);
        }
        Ok(sum)
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ranks, heads, kv_heads } = self;
        write!(f, "rank {} of {}: {heads}, {kv_heads}", ranks.rank(), ranks.world_size())
    }
}

impl Decoder {
    /// Loads a Hugging Face folder, its weights converted to `kind`.
    pub fn load(folder: &Path, device: Device, kind: Kind) -> Result<Self> {
        Self::load_part(folder, device, kind, Group::solo())
    }

    /// This rank's part of the model. All of `ranks` call it, and then [`Decoder::pass`] with the
    /// same segments.
    ///
    /// # Errors
    /// A broken folder, or a model that cannot be divided among the ranks.
    pub fn load_part(folder: &Path, device: Device, kind: Kind, ranks: Group) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let checkpoint = Checkpoint::open(folder)?;
        let config = checkpoint.config().clone();
        let part = Part::new(&config, ranks)?;
        let units = Layout::new(&config).units;
        let read = |unit| Ok::<_, Error>(checkpoint.read_unit(unit, kind)?.to_device(device));
        let (first, rest) = units.split_first().expect("an embedding unit");
        let (last, layers) = rest.split_last().expect("a final unit");
        let layer = |unit| Layer::new(&config, &read(unit)?, &part);
        let layers = layers.iter().map(layer).collect::<Result<_>>()?;
        let embed_tokens = embedding(&config, &read(first)?);
        let (norm, head) = final_unit(&config, &read(last)?);
        let rope = Rope::new(&config, config.max_position_embeddings, device);
        let (lm_head, embed_tokens) = match head {
            Some(_) if part.ranks.rank() > 0 => (None, Some(embed_tokens)),
            Some(head) => (Some(Matrix::new(&head, None)?), Some(embed_tokens)),
            None => (Some(Matrix::new(&embed_tokens, None)?), None),
        };
        let norm = activations(&norm);
        Ok(Self { config, embed_tokens, layers, norm, lm_head, rope, part })
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The ranks that share the model, this one alone as a rule.
    pub fn ranks(&self) -> &Group {
        &self.part.ranks
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.norm.device()
    }

    /// A cache of `blocks` blocks of `block_len` positions for this model's sequences.
    pub fn new_cache(&self, blocks: usize, block_len: usize) -> Cache {
        let options = (self.norm.kind(), self.norm.device());
        Cache::new(&self.config, self.part.kv_heads, blocks, block_len, options)
    }

    /// The bytes of one block of such a cache, on this rank.
    pub fn block_bytes(&self, block_len: usize) -> usize {
        Cache::block_bytes(&self.config, self.part.kv_heads, block_len, self.norm.kind())
    }

    /// Appends each segment's tokens to its sequence in `cache` and returns the logits that
    /// the segments want, in their order, `[rows wanted, V]` in fp32; of several ranks only the
    /// first has them, the others get `[0, V]`.
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn pass(&self, cache: &mut Cache, segments: &[Segment]) -> Result<Tensor> {
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
            wanted.extend((ids.len() - segment.logits..ids.len()).map(|row| row as i64));
        }
        let upload = |values: &[i64]| Tensor::from_slice(values).to_device(device);
        let places = cache.places(&places);
        let mut x = self.embed(&upload(&ids)); // [T, H]
        let rotation = self.rope.at(&upload(&positions), x.kind());
        for (n, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&self.config, &self.part, &x, &rotation, |query, key, value| {
                cache.write(n, &places, &key, &value);
                attend(&query, cache, n, segments)
            })?;
        }
        let (0, Some(lm_head)) = (self.part.ranks.rank(), &self.lm_head) else {
            return Ok(Tensor::empty([0, self.config.vocab_size], (Kind::Float, device)));
        };
        if wanted.len() < ids.len() {
            x = x.index_select(0, &upload(&wanted));
        }
        let normed = fused::rms_norm(&x, &self.norm, self.config.rms_norm_eps);
        Ok(lm_head.apply(&normed).to_kind(Kind::Float))
    }

    fn embed(&self, ids: &Tensor) -> Tensor {
        match (&self.embed_tokens, &self.lm_head) {
            (Some(weight), _) => activations(&embed(weight, ids)),
            (None, Some(head)) => head.rows(ids),
            (None, None) => unreachable!("a head without rows of its own has the embedding's"),
        }
    }
}

impl Layer {
    fn new(config: &Config, flat: &Tensor, part: &Part) -> Result<Self> {
        let layer = DecoderLayer::from_flat(config, flat);
        let d = config.head_dim();
        let (q, kv) = (config.num_attention_heads * d, config.num_key_value_heads * d);
        let inner = config.intermediate_size;
        let (qkv_proj, qkv_bias) = (&layer.qkv_proj, &layer.qkv_bias);
        let qkv = |t: &Tensor| part.share(t, 0, &[q, kv, kv]);
        Ok(Self {
            input_layernorm: activations(&layer.input_layernorm),
            post_attention_layernorm: activations(&layer.post_attention_layernorm),
            qkv_proj: Matrix::new(&qkv(qkv_proj), Some(&qkv(qkv_bias)))?,
            o_proj: Matrix::new(&part.share(&layer.o_proj, 1, &[q]), None)?,
            gate_up_proj: Matrix::new(&part.share(&layer.gate_up_proj, 0, &[inner; 2]), None)?,
            down_proj: Matrix::new(&part.share(&layer.down_proj, 1, &[inner]), None)?,
        })
    }

    /// The residual stream after this layer, `[T, H]` to `[T, H]`.
    fn forward(
        &self,
        config: &Config,
        part: &Part,
        x: &Tensor,
        rotation: &(Tensor, Tensor),
        attend: impl FnOnce(Tensor, Tensor, Tensor) -> Tensor,
    ) -> Result<Tensor> {
        let &Part { heads, kv_heads, .. } = part;
        let normed = fused::rms_norm(x, &self.input_layernorm, config.rms_norm_eps);
        let qkv = self.qkv_proj.apply(&normed); // [T, Q+2K]
        let (query, key, value) = fused::rope(&qkv, rotation, heads, kv_heads);
        let attended = attend(query, key, value).reshape([-1, heads * config.head_dim()]);
        let attended = part.sum(self.o_proj.apply(&attended))?;

        let (x, normed) =
            fused::add_rms_norm(x, &attended, &self.post_attention_layernorm, config.rms_norm_eps);
        let gate_up = self.gate_up_proj.apply(&normed); // [T, 2I]
        Ok(x + part.sum(self.down_proj.apply(&fused::swiglu(&gate_up)))?)
    }
}

/// A copy in the kind that activations have where it is.
fn activations(t: &Tensor) -> Tensor {
    if t.device() == Device::Cpu { t.to_kind(Kind::Float).copy() } else { t.copy() }
}

/// Attends from each segment's queries (`[T, heads, D]`) to all tokens of its sequence up to them.
fn attend(query: &Tensor, cache: &Cache, layer: usize, segments: &[Segment]) -> Tensor {
    if query.device() != Device::Cpu {
        let lengths: Vec<i64> = segments.iter().map(|segment| segment.ids.len() as i64).collect();
        let queries = query.split_with_sizes(&lengths, 0);
        let one = |(query, segment)| attend_one(query, cache, layer, segment);
        return Tensor::cat(&queries.iter().zip(segments).map(one).collect::<Vec<_>>(), 0);
    }
    let pieces: Vec<Vec<Cached>> = segments.iter().map(|s| cache.pieces(layer, s)).collect();
    let sequences: Vec<Sequence> = segments
        .iter()
        .zip(&pieces)
        .map(|(segment, pieces)| Sequence { queries: segment.ids.len(), pieces })
        .collect();
    let scale = (query.size()[2] as f32).sqrt().recip();
    kernels::attend(&query.contiguous(), &sequences, scale)
}

/// [`attend`] for one segment by libtorch's own attention, on a GPU. Not run so far.
fn attend_one(query: &Tensor, cache: &Cache, layer: usize, segment: &Segment) -> Tensor {
    let pieces = cache.pieces(layer, segment);
    let gather = |part: fn(&Cached) -> Tensor| {
        let parts: Vec<Tensor> = pieces.iter().map(part).collect();
        if parts.len() == 1 { parts[0].shallow_clone() } else { Tensor::cat(&parts, 1) }
    };
    let keys = gather(|piece| piece.keys.narrow(1, 0, piece.len as i64)); // [kv heads, len, D]
    let values = gather(|piece| piece.values.narrow(1, 0, piece.len as i64));
    let (new, heads, d) = query.size3().expect("[T, heads, D]");
    let (kv, len, _) = keys.size3().expect("[kv heads, len, D]");
    // Each key/value head is a batch whose group of query heads sees one copy of it.
    let query = query.view([new, kv, heads / kv, d]).permute([1, 2, 0, 3]);
    let shared = |t: &Tensor| t.unsqueeze(1).expand([kv, heads / kv, len, d], false);
    let (keys, values) = (shared(&keys), shared(&values));
    let mask = (new > 1)
        .then(|| Tensor::ones([new, len], (Kind::Bool, query.device())).tril(segment.start as i64));
    let mask = mask.as_ref();
    let attended =
        Tensor::scaled_dot_product_attention(&query, &keys, &values, mask, 0.0, false, None, false);
    attended.permute([2, 0, 1, 3]).reshape([new, heads, d]) // from [kv, group, new, D]
}
