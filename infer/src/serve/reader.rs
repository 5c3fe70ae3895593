//! From ids to text, as they come: thinking apart from the answer, no character in halves, and
//! nothing that a stop text may still cut off.

use std::sync::Arc;

use anyhow::Result;
use model::Tokenizer;

use crate::budget::Outcome;
use crate::engine::Completion;

/// A character has four bytes, and a token one: what is still in halves then is no character.
const MOST_HALVES: usize = 8;

/// Which of a completion's two texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nothing is written yet, and thinking may be opened.
    Opening,
    Reasoning,
    Content,
}

/// What opens and closes thinking, in token ids.
#[derive(Debug, Clone)]
pub struct Delimiters {
    /// `<|im_start|>think`; where it is empty, thinking has begun already.
    pub start: Vec<i64>,
    /// `<|im_start|>answer`.
    pub end: Vec<i64>,
}

/// Reads one completion.
#[derive(Debug)]
pub struct Reader {
    tokenizer: Arc<Tokenizer>,
    /// None: all is content.
    delimiters: Option<Delimiters>,
    skip_special: bool,
    /// Texts that may end the content, and whether they are then cut off.
    stop: Vec<String>,
    cuts: bool,
    /// Bytes that are held back, lest they belong to a stop text.
    hold: usize,
    part: Part,
    /// Ids that may belong to a delimiter.
    pending: Vec<i64>,
    /// Ids of a character whose rest is to come.
    halves: Vec<i64>,
    reasoning: String,
    content: String,
    /// Ids of thinking.
    thought: usize,
    /// Bytes of both that were fetched.
    fetched: (usize, usize),
}

/// New text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Of thinking.
    pub reasoning: String,
    /// Of the answer.
    pub content: String,
}

impl Reader {
    /// Of a completion that these texts may end; `cuts` takes them off then.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        delimiters: Option<Delimiters>,
        skip_special: bool,
        (stop, cuts): (&[String], bool),
    ) -> Self {
        let part = match &delimiters {
            None => Part::Content,
            Some(delimiters) if delimiters.start.is_empty() => Part::Reasoning,
            Some(_) => Part::Opening,
        };
        Reader {
            tokenizer,
            delimiters,
            skip_special,
            hold: stop.iter().filter(|_| cuts).map(|text| text.len() - 1).max().unwrap_or(0),
            stop: stop.to_vec(),
            cuts,
            part,
            pending: Vec::new(),
            halves: Vec::new(),
            reasoning: String::new(),
            content: String::new(),
            thought: 0,
            fetched: (0, 0),
        }
    }

    /// Takes the next ids.
    pub fn read(&mut self, ids: &[i64]) -> Result<()> {
        for &id in ids {
            self.pending.push(id);
            while !self.pending.is_empty() && self.sort()? {}
        }
        Ok(())
    }

    /// Finds out where the first pending ids belong; false if that takes more ids.
    fn sort(&mut self) -> Result<bool> {
        let delimiter = match (&self.delimiters, self.part) {
            (Some(delimiters), Part::Opening) => &delimiters.start,
            (Some(delimiters), Part::Reasoning) => &delimiters.end,
            _ => {
                let id = self.pending.remove(0);
                self.write(id)?;
                return Ok(true);
            }
        };
        if self.pending.starts_with(delimiter) && !delimiter.is_empty() {
            self.pending.drain(..delimiter.len());
            self.end_text()?;
            let opened = self.part == Part::Opening;
            self.part = if opened { Part::Reasoning } else { Part::Content };
            return Ok(true);
        }
        if delimiter.starts_with(&self.pending) {
            return Ok(false);
        }
        match self.part {
            Part::Opening => self.part = Part::Content,
            _ => {
                let id = self.pending.remove(0);
                self.write(id)?;
            }
        }
        Ok(true)
    }

    fn write(&mut self, id: i64) -> Result<()> {
        self.thought += usize::from(self.part == Part::Reasoning);
        if self.skip_special && self.tokenizer.is_special(id) {
            return self.end_text();
        }
        self.halves.push(id);
        let text = self.tokenizer.decode(&self.halves)?;
        if !text.ends_with('\u{FFFD}') || self.halves.len() >= MOST_HALVES {
            self.halves.clear();
            self.append(&text);
        }
        Ok(())
    }

    fn end_text(&mut self) -> Result<()> {
        let text = self.tokenizer.decode(&std::mem::take(&mut self.halves))?;
        self.append(&text);
        Ok(())
    }

    fn append(&mut self, text: &str) {
        let into =
            if self.part == Part::Reasoning { &mut self.reasoning } else { &mut self.content };
        // The new line behind a delimiter is the format's, not the text's.
        let bare = into.is_empty() && self.delimiters.is_some();
        into.push_str(if bare { text.trim_start_matches('\n') } else { text });
    }

    /// No more ids will come: nothing is held back any more, and a stop text is cut off. Returns
    /// the one that ended the content, if one did.
    pub fn finish(&mut self, completion: &Completion) -> Result<Option<String>> {
        for id in std::mem::take(&mut self.pending) {
            if self.part == Part::Opening {
                self.part = Part::Content;
            }
            self.write(id)?;
        }
        self.end_text()?;
        self.hold = 0;
        let whole = self.tokenizer.decode(&completion.outcome.ids)?;
        let cut = &whole[completion.text.len()..];
        if self.cuts && self.content.ends_with(cut) {
            self.content.truncate(self.content.len() - cut.len());
        }
        Ok(self.stop.iter().find(|stop| cut.starts_with(stop.as_str())).cloned())
    }

    /// Ids of thinking in a finished completion: what the budget counts, or, where nothing was
    /// forced, what the model itself has put between the delimiters.
    pub fn thought(&self, outcome: &Outcome) -> usize {
        if outcome.thinking_ending.is_some() { outcome.thinking.len() } else { self.thought }
    }

    /// What is certain and was not fetched yet.
    pub fn fetch(&mut self) -> News {
        let (reasoning, content) = self.fetched;
        let mut end = self.content.len().saturating_sub(self.hold).max(content);
        while !self.content.is_char_boundary(end) {
            end -= 1;
        }
        self.fetched = (self.reasoning.len(), end);
        News {
            reasoning: self.reasoning[reasoning..].to_owned(),
            content: self.content[content..end].to_owned(),
        }
    }
}
