//! Which tensors make up the model, and where each lies in its unit's flat buffer.
//!
//! A unit is what training gathers and frees at once: the embedding, each decoder layer, and the
//! final norm with the head. Inside a unit the vectors (norms, biases) come first and the matrices
//! after them, so that weight decay is one range; tensors that the forward fuses (q, k, v; gate,
//! up) are neighbours, so that the fused weight is one view.

use std::ops::Range;

use crate::Config;

/// One tensor of the checkpoint inside its unit's flat buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// The checkpoint's key.
    pub name: String,
    /// As in the checkpoint.
    pub shape: Vec<i64>,
    /// Elements before it in the flat buffer.
    pub offset: i64,
}

impl Param {
    /// Elements of the tensor.
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }
}

/// Parameters that live in one flat buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// `embed`, `layers.N` or `final`.
    pub name: String,
    /// In the order of their offsets, without gaps.
    pub params: Vec<Param>,
}

impl Unit {
    fn new(name: String, prefix: &str, tensors: &[(&str, Vec<i64>)]) -> Self {
        let mut offset = 0;
        let place = |(key, shape): &(&str, Vec<i64>)| {
            let name = format!("{prefix}{key}");
            let param = Param { name, shape: shape.clone(), offset };
            offset += param.numel();
            param
        };
        Self { name, params: tensors.iter().map(place).collect() }
    }

    /// Elements of the flat buffer.
    pub fn numel(&self) -> i64 {
        self.params.iter().map(Param::numel).sum()
    }

    /// The elements that weight decay applies to: the matrices.
    pub fn decayed(&self) -> Range<i64> {
        let matrix = self.params.iter().find(|param| param.shape.len() > 1);
        matrix.map_or(self.numel(), |param| param.offset)..self.numel()
    }
}

/// All units in forward order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The embedding, then the layers, then the final unit.
    pub units: Vec<Unit>,
}

impl Layout {
    /// The layout of a model of this shape.
    pub fn new(config: &Config) -> Self {
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let embed = ("model.embed_tokens.weight", vec![vocab, hidden]);
        let mut last = vec![("model.norm.weight", vec![hidden])];
        if !config.tie_word_embeddings {
            last.push(("lm_head.weight", vec![vocab, hidden]));
        }
        let mut units = vec![Unit::new("embed".into(), "", &[embed])];
        units.extend((0..config.num_hidden_layers).map(|n| layer(config, n)));
        units.push(Unit::new("final".into(), "", &last));
        Self { units }
    }

    /// All tensors of the checkpoint.
    pub fn params(&self) -> impl Iterator<Item = &Param> {
        self.units.iter().flat_map(|unit| &unit.params)
    }
}

fn layer(config: &Config, n: i64) -> Unit {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let q = config.num_attention_heads * config.head_dim();
    let kv = config.num_key_value_heads * config.head_dim();
    Unit::new(
        format!("layers.{n}"),
        &format!("model.layers.{n}."),
        &[
            ("input_layernorm.weight", vec![hidden]),
            ("post_attention_layernorm.weight", vec![hidden]),
            ("self_attn.q_proj.bias", vec![q]),
            ("self_attn.k_proj.bias", vec![kv]),
            ("self_attn.v_proj.bias", vec![kv]),
            ("self_attn.q_proj.weight", vec![q, hidden]),
            ("self_attn.k_proj.weight", vec![kv, hidden]),
            ("self_attn.v_proj.weight", vec![kv, hidden]),
            ("self_attn.o_proj.weight", vec![hidden, q]),
            ("mlp.gate_proj.weight", vec![inner, hidden]),
            ("mlp.up_proj.weight", vec![inner, hidden]),
            ("mlp.down_proj.weight", vec![hidden, inner]),
        ],
    )
}
