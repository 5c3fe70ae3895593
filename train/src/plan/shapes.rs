//! The shapes of the published Qwen2.5 models, so that a plan needs no download.

use anyhow::Result;
use model::Config;

/// Name, hidden, intermediate, layers, heads, key/value heads, rows of the embedding, tied head;
/// from each model's `config.json`.
type Shape = (&'static str, i64, i64, i64, i64, i64, i64, bool);

const SHAPES: [Shape; 7] = [
    ("0.5b", 896, 4864, 24, 14, 2, 151_936, true),
    ("1.5b", 1536, 8960, 28, 12, 2, 151_936, true),
    ("3b", 2048, 11_008, 36, 16, 2, 151_936, true),
    ("7b", 3584, 18_944, 28, 28, 4, 152_064, false),
    ("14b", 5120, 13_824, 48, 40, 8, 152_064, false),
    ("32b", 5120, 27_648, 64, 40, 8, 152_064, false),
    ("72b", 8192, 29_568, 80, 64, 8, 152_064, false),
];

/// The shape of `owner/name`, if that is a published Qwen2.5 (or a fine-tune of one that says so
/// in its name, such as s1.1-32B).
pub fn published(name: &str) -> Option<Config> {
    let lower = name.rsplit('/').next()?.to_ascii_lowercase();
    let family = lower.starts_with("qwen2.5-") || lower.starts_with("s1");
    let mut parts = lower.split(['-', '@']);
    let shape = parts.find_map(|part| SHAPES.iter().find(|shape| shape.0 == part))?;
    family.then(|| parse(shape).expect("the table holds Qwen2 shapes"))
}

fn parse((_, hidden, inner, layers, heads, kv, vocab, tied): &Shape) -> Result<Config> {
    Config::parse(&format!(
        r#"{{"model_type": "qwen2", "vocab_size": {vocab}, "hidden_size": {hidden},
            "intermediate_size": {inner}, "num_hidden_layers": {layers},
            "num_attention_heads": {heads}, "num_key_value_heads": {kv},
            "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
            "tie_word_embeddings": {tied}}}"#
    ))
}
