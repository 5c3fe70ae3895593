//! Qwen2's forward over packed tokens; to be read beside transformers' `modeling_qwen2.py`.
//!
//! Shapes: T tokens of all segments together, H hidden, Q query heads x D, K key/value heads x D,
//! I intermediate, V vocabulary.

use std::cell::OnceCell;

use anyhow::Result;
use c10d::aten::attend_segments_flash;
use c10d::fused;
use tch::{Device, Kind, Tensor};

use crate::{Checkpoint, Config, Layout, Rope, Unit};

/// The weights of one decoder layer: views into its unit's flat buffer.
#[derive(Debug)]
pub struct DecoderLayer {
    pub(crate) input_layernorm: Tensor,          // [H]
    pub(crate) post_attention_layernorm: Tensor, // [H]
    pub(crate) qkv_bias: Tensor,                 // [Q+2K]
    pub(crate) qkv_proj: Tensor,                 // [Q+2K, H]
    pub(crate) o_proj: Tensor,                   // [H, Q]
    pub(crate) gate_up_proj: Tensor,             // [2I, H]
    pub(crate) down_proj: Tensor,                // [H, I]
}

impl DecoderLayer {
    /// Cuts the flat buffer of a layer's [`Unit`] (padding after its end is ignored). One split
    /// rather than many slices: its backward is one concatenation.
    pub fn from_flat(config: &Config, flat: &Tensor) -> Self {
        let (h, inner) = (config.hidden_size, config.intermediate_size);
        let q = config.num_attention_heads * config.head_dim();
        let qkv = q + 2 * config.num_key_value_heads * config.head_dim();
        let mut sizes = vec![h, h, qkv, qkv * h, h * q, 2 * inner * h, h * inner];
        sizes.push(flat.numel() as i64 - sizes.iter().sum::<i64>());
        let p = flat.split_with_sizes(&sizes, 0);
        Self {
            input_layernorm: p[0].shallow_clone(),
            post_attention_layernorm: p[1].shallow_clone(),
            qkv_bias: p[2].shallow_clone(),
            qkv_proj: p[3].view([qkv, h]),
            o_proj: p[4].view([h, q]),
            gate_up_proj: p[5].view([2 * inner, h]),
            down_proj: p[6].view([h, inner]),
        }
    }

    /// The residual stream after this layer, `[T, H]` to `[T, H]`. `rotation` is [`Rope::at`] of
    /// the tokens' positions; `attend` maps queries `[T, heads, D]`, keys and values
    /// `[T, kv heads, D]` to `[T, heads, D]`: it decides which token sees which.
    pub fn forward(
        &self,
        config: &Config,
        x: &Tensor,
        rotation: &(Tensor, Tensor),
        attend: impl FnOnce(Tensor, Tensor, Tensor) -> Tensor,
    ) -> Tensor {
        let (heads, kv, d) =
            (config.num_attention_heads, config.num_key_value_heads, config.head_dim());
        let normed = fused::rms_norm(x, &self.input_layernorm, config.rms_norm_eps);
        let qkv = normed.linear(&self.qkv_proj, Some(&self.qkv_bias)); // [T, Q+2K]
        let (query, key, value) = fused::rope(&qkv, rotation, heads, kv);
        let attended = attend(query, key, value).reshape([-1, heads * d]);
        let attended = attended.linear(&self.o_proj, None::<Tensor>);

        let (x, normed) =
            fused::add_rms_norm(x, &attended, &self.post_attention_layernorm, config.rms_norm_eps);
        let gate_up = normed.linear(&self.gate_up_proj, None::<Tensor>); // [T, 2I]
        x + fused::swiglu_linear(&gate_up, &self.down_proj)
    }
}

/// Attention within each segment and never across: segment i is the tokens
/// `cu_seqlens[i]..cu_seqlens[i + 1]`, each seeing itself and what stands before it.
pub fn attend_segments(cu_seqlens: &[i64]) -> impl Fn(Tensor, Tensor, Tensor) -> Tensor + use<> {
    let lengths: Vec<i64> = cu_seqlens.windows(2).map(|bounds| bounds[1] - bounds[0]).collect();
    let bounds = Tensor::from_slice(cu_seqlens).to_kind(Kind::Int);
    let on_device = OnceCell::new();
    move |query, key, value| {
        if query.device().is_cuda() && query.kind() == Kind::BFloat16 {
            let bounds = on_device.get_or_init(|| bounds.to_device(query.device()));
            let longest = lengths.iter().copied().max().unwrap_or(0);
            let attended = attend_segments_flash(&query, &key, &value, bounds, longest);
            return attended.unwrap_or_else(|error| panic!("{error:#}"));
        }
        // One split rather than many slices: its backward is one concatenation.
        let split = |t: Tensor| t.transpose(0, 1).unsqueeze(0).split_with_sizes(&lengths, 2);
        let (queries, keys, values) = (split(query), split(key), split(value));
        let one = |n: usize| {
            let attended = sdpa(&queries[n], &keys[n], &values[n], None, true); // [1, heads, t, D]
            attended.squeeze_dim(0).transpose(0, 1)
        };
        let parts: Vec<Tensor> = (0..lengths.len()).map(one).collect();
        Tensor::cat(&parts, 0)
    }
}

/// Scaled dot-product attention over `[1, heads, t, D]`, key/value heads shared by groups.
pub(crate) fn sdpa(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    causal: bool,
) -> Tensor {
    let shared = q.size()[1] != k.size()[1];
    Tensor::scaled_dot_product_attention(q, k, v, mask, 0.0, causal, None, shared)
}

/// A whole model in memory, with the forward that training has; [`crate::Decoder`] writes with it.
#[derive(Debug)]
pub struct Qwen2 {
    /// The model's shape.
    pub config: Config,
    embed_tokens: Tensor, // [V, H]
    layers: Vec<DecoderLayer>,
    norm: Tensor,    // [H]
    lm_head: Tensor, // [V, H]
    rope: Rope,
}

impl Qwen2 {
    /// Loads a Hugging Face folder, its weights converted to `kind`.
    pub fn load(folder: &std::path::Path, device: Device, kind: Kind) -> Result<Self> {
        let checkpoint = Checkpoint::open(folder)?;
        let read = |unit: &Unit| Ok(checkpoint.read_unit(unit, kind)?.to_device(device));
        let flats =
            Layout::new(checkpoint.config()).units.iter().map(read).collect::<Result<_>>()?;
        Ok(Self::from_flats(checkpoint.config().clone(), flats))
    }

    /// A model over its units' flat buffers, in [`Layout`]'s order.
    pub fn from_flats(config: Config, flats: Vec<Tensor>) -> Self {
        let (first, rest) = flats.split_first().expect("an embedding unit");
        let (last, layers) = rest.split_last().expect("a final unit");
        let (embed_tokens, (norm, head)) = (embedding(&config, first), final_unit(&config, last));
        let layers = layers.iter().map(|flat| DecoderLayer::from_flat(&config, flat)).collect();
        let lm_head = head.unwrap_or_else(|| embed_tokens.shallow_clone());
        let rope = Rope::new(&config, config.max_position_embeddings, first.device());
        Self { config, embed_tokens, layers, norm, lm_head, rope }
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.norm.device()
    }

    /// The logits of every token of a packed batch, `[T, V]` in fp32; no cache.
    pub fn logits(&self, ids: &[i64], cu_seqlens: &[i64]) -> Tensor {
        let _guard = tch::no_grad_guard();
        let positions: Vec<i64> = cu_seqlens.windows(2).flat_map(|s| 0..s[1] - s[0]).collect();
        let attend = attend_segments(cu_seqlens);
        let x = self.hidden(ids, &positions, |_, q, k, v| attend(q, k, v));
        self.head(&x)
    }

    fn hidden(
        &self,
        ids: &[i64],
        positions: &[i64],
        mut attend: impl FnMut(usize, Tensor, Tensor, Tensor) -> Tensor,
    ) -> Tensor {
        let device = self.device();
        let mut x = embed(&self.embed_tokens, &Tensor::from_slice(ids).to_device(device));
        let positions = Tensor::from_slice(positions).to_device(device);
        let rotation = self.rope.at(&positions, x.kind());
        for (n, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&self.config, &x, &rotation, |q, k, v| attend(n, q, k, v));
        }
        x
    }

    fn head(&self, x: &Tensor) -> Tensor {
        let normed = fused::rms_norm(x, &self.norm, self.config.rms_norm_eps);
        normed.linear(&self.lm_head, None::<Tensor>).to_kind(Kind::Float)
    }
}

/// Rows of `embed_tokens` for `ids`, `[T]` to `[T, H]`.
pub fn embed(embed_tokens: &Tensor, ids: &Tensor) -> Tensor {
    Tensor::embedding(embed_tokens, ids, -1, false, false)
}

/// The embedding matrix `[V, H]` in the `embed` unit's flat buffer.
pub fn embedding(config: &Config, flat: &Tensor) -> Tensor {
    let numel = config.vocab_size * config.hidden_size;
    flat.narrow(0, 0, numel).view([config.vocab_size, config.hidden_size])
}

/// The final norm's weight `[H]`, and the head `[V, H]` unless it is the embedding.
pub fn final_unit(config: &Config, flat: &Tensor) -> (Tensor, Option<Tensor>) {
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let head = if config.tie_word_embeddings { 0 } else { vocab * hidden };
    let padding = flat.numel() as i64 - hidden - head;
    let parts = flat.split_with_sizes([hidden, head, padding], 0);
    let lm_head = (head > 0).then(|| parts[1].view([vocab, hidden]));
    (parts[0].shallow_clone(), lm_head)
}
