//! Qwen2.5's chat template and s1's thinking format, as tokens.
//!
//! One turn is `<|im_start|>role\ncontent<|im_end|>\n`. s1 opens an assistant's thinking with
//! `<|im_start|>think` and its answer with `<|im_start|>answer` (s1's `data/tokenization.py`).

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::tokenizer::{Piece, Tokenizer};

/// Opens a turn, and in s1 also thinking and answer.
pub const IM_START: &str = "<|im_start|>";
/// Closes a turn.
pub const IM_END: &str = "<|im_end|>";

/// Turns questions and examples into ids for one model.
#[derive(Debug, Clone)]
pub struct Chat {
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
    /// The system text that the model's template inserts when a conversation has none.
    system: Option<String>,
}

/// The ids of one training example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The whole conversation.
    pub ids: Vec<i64>,
    /// The trained positions: ascending, apart, none empty, none with position 0, which nothing
    /// could predict. In s1's format one range, from just after `<|im_start|>assistant\n` to the
    /// end, the closing `<|im_end|>` and its newline included.
    pub trained: Vec<Range<usize>>,
}

impl Example {
    /// A conversation of one turn, trained from a position to its end.
    pub fn new(ids: Vec<i64>, trained_from: usize) -> Self {
        let trained = std::iter::once(trained_from.max(1)..ids.len()).collect();
        Self { ids, trained }
    }

    /// Tokens that the loss is on.
    pub fn trained_tokens(&self) -> usize {
        self.trained.iter().map(Range::len).sum()
    }

    /// Keeps the first `length` tokens.
    pub fn truncate(&mut self, length: usize) {
        self.ids.truncate(length);
        self.trained.retain_mut(|range| {
            range.end = range.end.min(length);
            range.start < range.end
        });
    }
}

impl Chat {
    /// Reads `tokenizer.json` and the chat template (`chat_template.jinja`, or the entry of
    /// `tokenizer_config.json`) in `folder`.
    ///
    /// # Errors
    /// When a file is missing or the template is not ChatML.
    pub fn read(folder: &Path) -> Result<Self> {
        let tokenizer = Tokenizer::read(folder)?;
        let (path, template) = read_template(folder)?;
        if !template.contains(IM_START) || !template.contains(IM_END) {
            bail!("{}: the chat template is not ChatML ({IM_START} … {IM_END})", path.display());
        }
        Ok(Self { tokenizer, system: default_system(&template) })
    }

    /// The prompt for a question: system turn if the template has a default, user turn, and
    /// `<|im_start|>assistant\n`.
    pub fn prompt(&self, question: &str) -> Result<Vec<i64>> {
        self.tokenizer.encode(&self.prompt_pieces(question))
    }

    /// A question with its thinking and answer, as s1 trains it. `thinking` and `answer` are
    /// already stripped and prefixed as s1 does.
    pub fn example(&self, question: &str, thinking: &str, answer: &str) -> Result<Example> {
        let mut ids = self.prompt(question)?;
        let trained_from = ids.len();
        ids.extend(self.tokenizer.encode(&[
            Piece::Control(IM_START),
            Piece::Text("think\n"),
            Piece::Text(thinking),
            Piece::Text("\n"),
            Piece::Control(IM_START),
            Piece::Text("answer\n"),
            Piece::Text(answer),
            Piece::Control(IM_END),
            Piece::Text("\n"),
        ])?);
        Ok(Example::new(ids, trained_from))
    }

    fn prompt_pieces<'a>(&'a self, question: &'a str) -> Vec<Piece<'a>> {
        let turn = |role: &'a str, content: &'a str| {
            [
                Piece::Control(IM_START),
                Piece::Text(role),
                Piece::Text(content),
                Piece::Control(IM_END),
                Piece::Text("\n"),
            ]
        };
        let mut pieces = Vec::new();
        if let Some(system) = &self.system {
            pieces.extend(turn("system\n", system));
        }
        pieces.extend(turn("user\n", question));
        pieces.extend([Piece::Control(IM_START), Piece::Text("assistant\n")]);
        pieces
    }
}

fn read_template(folder: &Path) -> Result<(std::path::PathBuf, String)> {
    let path = folder.join("chat_template.jinja");
    if path.exists() {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        return Ok((path, text));
    }
    let path = folder.join("tokenizer_config.json");
    let text = fs::read_to_string(&path).with_context(|| {
        format!("{}: a whole Hugging Face model folder has this file", path.display())
    })?;
    let json: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let template = json["chat_template"].as_str().with_context(|| {
        format!("{}: it has no `chat_template`; copy the base model's file", path.display())
    })?;
    Ok((path, template.to_string()))
}

/// The system text written out in a ChatML template: what stands between `<|im_start|>system`
/// with its new line (as itself or as Jinja's escape) and `<|im_end|>` inside one string literal.
/// What is put together from several literals (a caller's own system text) is none.
fn default_system(template: &str) -> Option<String> {
    let unescaped = template.replace("\\n", "\n").replace("\\\\", "\\").replace("\\'", "\u{2}");
    let opening = format!("{IM_START}system\n");
    let literals = unescaped.split(&opening).skip(1);
    let mut texts = literals.filter_map(|rest| rest.split_once(IM_END)).map(|(text, _)| text);
    let text = texts.find(|text| !text.is_empty() && !text.contains(['\'', '{']))?;
    Some(text.replace('\u{2}', "'"))
}
