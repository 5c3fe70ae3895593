//! A Hugging Face `tokenizer.json`, with control tokens kept apart from text.
//!
//! What users or models wrote is always encoded as plain text: `<|im_end|>` inside a question is
//! ten characters, not the end of a turn. Control tokens come only from [`Piece::Control`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

/// A part of a conversation's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Exactly one control token, by its name, such as `<|im_start|>`.
    Control(&'a str),
    /// Text in which nothing is special. Neighbouring texts are encoded as one.
    Text(&'a str),
}

/// Text to ids and back.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    /// The tokenizer without its added tokens, so that text can never become one.
    text: tokenizers::Tokenizer,
    control: BTreeMap<String, i64>,
    names: BTreeMap<i64, String>,
    /// Control tokens that say so themselves: readers of a text leave them out.
    special: BTreeSet<i64>,
    vocab_size: i64,
    gaps: Vec<i64>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` in `folder`.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let bytes = fs::read(&path).with_context(|| {
            format!("{}: a whole Hugging Face model folder has this file", path.display())
        })?;
        Self::parse(&bytes).with_context(|| path.display().to_string())
    }

    /// Parses the content of a `tokenizer.json`.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let mut json: Value = serde_json::from_slice(json).context("not JSON")?;
        ensure!(json.is_object(), "not a Hugging Face tokenizer: a JSON object is expected");
        let added = json.get_mut("added_tokens").map(Value::take).unwrap_or_default();
        json["added_tokens"] = Value::Array(Vec::new());
        // State that a tokenizer saved after training may carry; it would cut texts silently.
        json["truncation"] = Value::Null;
        json["padding"] = Value::Null;
        let bytes = serde_json::to_vec(&json)?;
        let text = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|e| anyhow!("not a Hugging Face tokenizer: {e}"))?;
        let (mut control, mut special) = (BTreeMap::new(), BTreeSet::new());
        for token in added.as_array().into_iter().flatten() {
            let entry = token["content"].as_str().zip(token["id"].as_i64());
            let (content, id) = entry.context("an added token lacks content or id")?;
            control.insert(content.to_string(), id);
            if token["special"] == true {
                special.insert(id);
            }
        }
        let names: BTreeMap<i64, String> =
            control.iter().map(|(name, id)| (*id, name.clone())).collect();
        let known: BTreeSet<i64> = text.get_vocab(false).into_values().map(i64::from).collect();
        let last = |ids: Option<&i64>| ids.map_or(0, |id| id + 1);
        let vocab_size = last(names.keys().last()).max(last(known.last()));
        let has = |id: &i64| known.contains(id) || names.contains_key(id);
        let gaps = (0..vocab_size).filter(|id| !has(id)).collect();
        Ok(Self { text, control, names, special, vocab_size, gaps })
    }

    /// The ids are `0..vocab_size`; a model's embedding may have more rows, which mean nothing.
    pub fn vocab_size(&self) -> i64 {
        self.vocab_size
    }

    /// Ids below [`Tokenizer::vocab_size`] that no token has, ascending; none as a rule.
    pub fn gaps(&self) -> &[i64] {
        &self.gaps
    }

    /// The id of a control token.
    pub fn control(&self, name: &str) -> Result<i64> {
        let id = self.control.get(name).copied();
        id.with_context(|| format!("the tokenizer has no token `{name}`"))
    }

    /// Whether `skip_special_tokens` of other libraries leaves the id out of a text.
    pub fn is_special(&self, id: i64) -> bool {
        self.special.contains(&id)
    }

    /// The ids of `pieces`.
    pub fn encode(&self, pieces: &[Piece]) -> Result<Vec<i64>> {
        let mut ids = Vec::new();
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Control(name) => {
                    self.encode_into(&mut ids, &std::mem::take(&mut text))?;
                    ids.push(self.control(name)?);
                }
            }
        }
        self.encode_into(&mut ids, &text)?;
        Ok(ids)
    }

    /// The ids of plain text.
    pub fn encode_text(&self, text: &str) -> Result<Vec<i64>> {
        self.encode(&[Piece::Text(text)])
    }

    /// The ids of a trusted fixed text, in which the names of control tokens mean them; for what
    /// stands in a config or in code, never for what users or models wrote.
    pub fn encode_fixed(&self, text: &str) -> Result<Vec<i64>> {
        self.encode(&self.cut_fixed(text))
    }

    fn cut_fixed<'a>(&'a self, text: &'a str) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            let rest = &text[at..];
            let found = self.control.keys().filter(|name| rest.starts_with(name.as_str()));
            match found.max_by_key(|name| name.len()) {
                Some(name) => {
                    pieces.extend([Piece::Text(&text[start..at]), Piece::Control(name)]);
                    at += name.len();
                    start = at;
                }
                None => at += rest.chars().next().map_or(1, char::len_utf8),
            }
        }
        pieces.push(Piece::Text(&text[start..]));
        pieces
    }

    fn encode_into(&self, ids: &mut Vec<i64>, text: &str) -> Result<()> {
        if !text.is_empty() {
            let encoding = self.text.encode_fast(text, false).map_err(|e| anyhow!("{e}"))?;
            ids.extend(encoding.get_ids().iter().map(|&id| i64::from(id)));
        }
        Ok(())
    }

    /// The text of `ids`, control tokens by their names. Bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// When an id is not below [`Tokenizer::vocab_size`].
    pub fn decode(&self, ids: &[i64]) -> Result<String> {
        let mut text = String::new();
        for run in ids.chunk_by(|a, b| self.names.contains_key(a) == self.names.contains_key(b)) {
            if self.names.contains_key(&run[0]) {
                run.iter().for_each(|id| text.push_str(&self.names[id]));
                continue;
            }
            let plain: Vec<u32> = run.iter().map(|&id| id as u32).collect();
            if let Some(id) = run.iter().find(|id| !(0..self.vocab_size).contains(*id)) {
                anyhow::bail!("id {id} is not below the vocabulary size {}", self.vocab_size);
            }
            text.push_str(&self.text.decode(&plain, false).map_err(|e| anyhow!("{e}"))?);
        }
        Ok(text)
    }
}
