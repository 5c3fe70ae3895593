//! How long a text is in a model's tokens: exactly the count of Hugging Face's tokenizer, faster.
//!
//! `fastokens` does the counting; the tests prove its ids equal to those of `tokenizers`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use fastokens::tiktoken::TiktokenConfig;
use fastokens::{Nfc, Normalizer};
use serde_json::Value;

/// Qwen2.5's pattern of words, as in its `tokenizer.json`; a `.tiktoken` file does not hold it.
const QWEN_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The tokens that Qwen2.5 adds to its 151,643 ranks, in the order of their ids.
const QWEN_ADDED: [&str; 22] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
];
const QWEN_RANKS: usize = 151_643;

/// A model's tokenizer, for counting.
pub struct Tokens(fastokens::Tokenizer);

impl Tokens {
    /// Reads a Hugging Face `tokenizer.json`, or Qwen's ranks as `qwen.tiktoken` has them (the same
    /// tokenizer in a quarter of the bytes). All models of Qwen2.5 share one.
    pub fn open(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| {
            format!(
                "{}: lengths are counted with this file: name the tokenizer.json of a Qwen2.5 \
                 model, or a qwen.tiktoken",
                path.display()
            )
        })?;
        let tokens = match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => from_json(&text),
            Some("tiktoken") => from_ranks(&text),
            _ => bail!("{}: a tokenizer's name ends in .json or .tiktoken", path.display()),
        };
        Ok(Self(tokens.with_context(|| path.display().to_string())?))
    }

    /// The ids of `text` as `tokenizer.encode(text)` has them: names of control tokens mean them,
    /// and nothing is added in front or behind.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        self.0.encode(text).map_err(|error| anyhow!("cannot count tokens: {error}"))
    }

    /// The number of [`Tokens::ids`]; `gemini_length` is that of the trace.
    ///
    /// Source: simplescaling/s1 `data/featurization.py`.
    pub fn count(&self, text: &str) -> Result<i64> {
        Ok(self.ids(text)?.len() as i64)
    }
}

fn from_json(text: &str) -> Result<fastokens::Tokenizer> {
    let mut json: Value = serde_json::from_str(text).context("not JSON")?;
    ensure!(json.is_object(), "not a Hugging Face tokenizer: a JSON object is expected");
    // State that a tokenizer saved after training may carry; it would change lengths silently.
    json["truncation"] = Value::Null;
    json["padding"] = Value::Null;
    fastokens::Tokenizer::from_json(json).map_err(|e| anyhow!("not a usable tokenizer: {e}"))
}

fn from_ranks(text: &str) -> Result<fastokens::Tokenizer> {
    let ranks = text.lines().filter(|line| !line.trim().is_empty()).count();
    ensure!(
        ranks == QWEN_RANKS,
        "{ranks} ranks where Qwen2.5 has {QWEN_RANKS}: name a qwen.tiktoken, or a tokenizer.json"
    );
    let added = QWEN_ADDED.iter().zip(QWEN_RANKS as u32..);
    let added = added.map(|(name, id)| (name.to_string(), id)).collect();
    let config = TiktokenConfig::new(QWEN_WORDS, added);
    let mut tokens = fastokens::Tokenizer::from_tiktoken_str(text, config)
        .map_err(|error| anyhow!("{error}"))?;
    tokens.set_normalizer(Some(Normalizer::Nfc(Nfc)));
    Ok(tokens)
}
