//! Hugging Face's `config.json` of a Qwen2 model, with Hugging Face's names.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// The shape of a Qwen2 model. Keys of `config.json` that change nothing here are ignored; those
/// that would change the forward in a way that is not built are errors.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Config {
    /// Rows of the embedding; at least the tokenizer's ids.
    pub vocab_size: i64,
    /// Width of the residual stream.
    pub hidden_size: i64,
    /// Width inside an MLP.
    pub intermediate_size: i64,
    /// Decoder layers.
    pub num_hidden_layers: i64,
    /// Query heads.
    pub num_attention_heads: i64,
    /// Key and value heads, each shared by a group of query heads.
    pub num_key_value_heads: i64,
    /// The longest sequence the model was made for.
    pub max_position_embeddings: i64,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f64,
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_parameters: Option<RopeParameters>,
    /// Whether the head is the embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Standard deviation of freshly drawn matrices.
    #[serde(default = "default_initializer_range")]
    pub initializer_range: f64,
    #[serde(default)]
    model_type: Option<String>,
    #[serde(default)]
    hidden_act: Option<String>,
    #[serde(default)]
    use_sliding_window: bool,
    #[serde(default)]
    rope_scaling: Option<serde_json::Value>,
}

/// transformers 5 writes theta here; 4 wrote it at the top level.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct RopeParameters {
    rope_theta: f64,
    #[serde(default)]
    rope_type: Option<String>,
}

fn default_initializer_range() -> f64 {
    0.02
}

impl Config {
    /// Reads `config.json` in `folder`.
    ///
    /// # Errors
    /// When the file is missing, lacks a key, or describes another architecture.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let text = fs::read_to_string(&path).with_context(|| {
            format!("{}: a model folder in Hugging Face layout has this file", path.display())
        })?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Parses the text of a `config.json`.
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = serde_json::from_str(text).context("not a Qwen2 config.json")?;
        let model_type = config.model_type.as_deref().unwrap_or("missing");
        ensure!(model_type == "qwen2", "model_type is `{model_type}`; only `qwen2` is built");
        if let Some(act) = config.hidden_act.as_deref().filter(|act| *act != "silu") {
            bail!("hidden_act is `{act}`; Qwen2 has `silu`");
        }
        ensure!(!config.use_sliding_window, "use_sliding_window = true is not built");
        let rope_type = config.rope_parameters.as_ref().and_then(|p| p.rope_type.as_deref());
        ensure!(
            config.rope_scaling.is_none() && rope_type.is_none_or(|t| t == "default"),
            "scaled RoPE (rope_scaling) is not built; remove it to run within the trained context"
        );
        let (heads, kv) = (config.num_attention_heads, config.num_key_value_heads);
        ensure!(
            heads > 0 && kv > 0 && heads % kv == 0 && config.hidden_size % heads == 0,
            "hidden_size {}, num_attention_heads {heads}, num_key_value_heads {kv}: each must \
             divide the one before",
            config.hidden_size
        );
        Ok(config)
    }

    /// Width of one head.
    pub fn head_dim(&self) -> i64 {
        self.hidden_size / self.num_attention_heads
    }

    /// The base of RoPE's frequencies.
    pub fn rope_theta(&self) -> f64 {
        let nested = self.rope_parameters.as_ref().map(|parameters| parameters.rope_theta);
        nested.or(self.rope_theta).unwrap_or(10_000.0)
    }

    /// Parameters of the whole model, a tied head counted once.
    pub fn num_parameters(&self) -> i64 {
        crate::Layout::new(self).units.iter().map(crate::Unit::numel).sum()
    }
}
