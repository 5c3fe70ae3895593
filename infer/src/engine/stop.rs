//! Texts that end an answer, wherever their tokens begin and end.

use anyhow::Result;
use model::Tokenizer;

use crate::budget::Forcing;

/// The stop texts of one request.
#[derive(Debug, Clone)]
pub struct Stop {
    texts: Vec<String>,
    /// Bytes at the end of the sequence's text from the stop text on, once there is one.
    cut: usize,
}

impl Stop {
    /// Nothing is found yet.
    pub fn new(texts: &[String]) -> Self {
        Stop { texts: texts.to_vec(), cut: 0 }
    }

    /// Looks whether the last id of the answer has completed a stop text, and ends the answer then.
    pub fn look(&mut self, forcing: &mut Forcing, tokenizer: &Tokenizer) -> Result<bool> {
        let Some(longest) = self.texts.iter().map(String::len).max() else {
            return Ok(false);
        };
        let ids = forcing.answer();
        // An id has at least a byte of text.
        let text = tokenizer.decode(&ids[ids.len().saturating_sub(longest + 1)..])?;
        let Some(first) = self.texts.iter().filter_map(|stop| text.find(stop)).min() else {
            return Ok(false);
        };
        self.cut = text.len() - first;
        forcing.stop_answer();
        Ok(true)
    }

    /// The text of a finished sequence's `ids`, without its stop text.
    pub fn text(&self, ids: &[i64], tokenizer: &Tokenizer) -> Result<String> {
        let mut text = tokenizer.decode(ids)?;
        text.truncate(text.len() - self.cut);
        Ok(text)
    }
}
