//! Texts that end thinking or the answer, wherever their tokens begin and end.

use anyhow::Result;
use model::Tokenizer;

use crate::budget::{Action, Forcing};

/// The stop texts of one request.
#[derive(Debug, Clone)]
pub struct Stop {
    /// Those of the answer; those of thinking are in the request's spec.
    texts: Vec<String>,
    /// Bytes at the end of the sequence's text from the stop text on, once there is one.
    cut: usize,
}

impl Stop {
    /// Nothing is found yet; these texts end the answer.
    pub fn new(texts: &[String]) -> Self {
        Stop { texts: texts.to_vec(), cut: 0 }
    }

    /// Hands a sampled id to the machine, and tells it of a stop text that the id completes.
    pub fn accept(
        &mut self,
        id: i64,
        forcing: &mut Forcing,
        tokenizer: &Tokenizer,
    ) -> Result<Action> {
        let texts = forcing.round().until_texts;
        if let Some((len, kept)) = end(forcing.round_ids(), id, texts, tokenizer)? {
            return Ok(forcing.accept_end(id, len, &kept));
        }
        let action = forcing.accept(id);
        let longest = self.texts.iter().map(String::len).max();
        let Some(longest) = longest.filter(|_| forcing.round().min_tokens == 0) else {
            return Ok(action);
        };
        let ids = forcing.answer();
        // An id has at least a byte of text.
        let text = tokenizer.decode(&ids[ids.len().saturating_sub(longest + 1)..])?;
        let Some(first) = self.texts.iter().filter_map(|stop| text.find(stop)).min() else {
            return Ok(action);
        };
        self.cut = text.len() - first;
        forcing.stop_answer();
        Ok(Action::Stop)
    }

    /// The text of a finished sequence's `ids`, without its stop text.
    pub fn text(&self, ids: &[i64], tokenizer: &Tokenizer) -> Result<String> {
        let mut text = tokenizer.decode(ids)?;
        text.truncate(text.len() - self.cut);
        Ok(text)
    }
}

/// If `id` completes one of the `texts`: how many of the last ids hold it, `id` included, and the
/// ids of what the first of these has before it.
fn end(
    ids: &[i64],
    id: i64,
    texts: &[String],
    tokenizer: &Tokenizer,
) -> Result<Option<(usize, Vec<i64>)>> {
    let Some(longest) = texts.iter().map(String::len).max() else {
        return Ok(None);
    };
    let tail = [&ids[ids.len().saturating_sub(longest)..], &[id]].concat();
    let find = |text: &str| texts.iter().filter_map(|stop| text.find(stop.as_str())).min();
    if find(&tokenizer.decode(&tail)?).is_none() {
        return Ok(None);
    }
    for len in 1..=tail.len() {
        let text = tokenizer.decode(&tail[tail.len() - len..])?;
        if let Some(at) = find(&text) {
            return Ok(Some((len, tokenizer.encode_text(&text[..at])?)));
        }
    }
    Ok(None)
}
