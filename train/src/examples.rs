//! The training set as tokens: rows read, written in the model's chat format, cut to length.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use model::chat::{Chat, Example};

use crate::config::{Data, OverLong};

/// The tokenised training set.
#[derive(Debug)]
pub struct Examples {
    /// In the table's order.
    pub examples: Vec<Example>,
    /// Rows of the table, before any was dropped.
    pub rows: usize,
    /// What was done to rows longer than the block size, a line each.
    pub over_long: Vec<String>,
}

impl Examples {
    /// Reads and tokenises the run's table.
    ///
    /// # Errors
    /// A row without question, reasoning or attempt; an over-long row under `over_long =
    /// "error"`; a row that would have no trained token. The text names file, row and question.
    pub fn read(data: &Data, chat: &Chat) -> Result<Self> {
        let path = Path::new(&data.examples);
        let rows = record::table::read_rows(path)
            .context("data.examples: the table that `curate run` writes, or one like it")?;
        ensure!(!rows.is_empty(), "{}: the table has no rows to train on", path.display());
        let mut found = Self { examples: Vec::new(), rows: rows.len(), over_long: Vec::new() };
        for (number, row) in rows.iter().enumerate() {
            let place = || format!("{}: row {}", data.examples, number + 1);
            let (thinking, answer) = record::example::parts(row).with_context(place)?;
            let example = chat.example(&row.question, &thinking, &answer).with_context(place)?;
            found.push(example, data, format!("{}, question {}", place(), row.hash()))?;
        }
        ensure!(!found.examples.is_empty(), "{}: every row was dropped", path.display());
        Ok(found)
    }

    fn push(&mut self, mut example: Example, data: &Data, place: String) -> Result<()> {
        let (length, limit) = (example.ids.len(), data.block_size);
        if length > limit {
            let what = format!("{place}: {length} tokens, block_size is {limit}");
            match data.over_long {
                OverLong::Error => bail!("{what}; raise it, or set over_long to truncate or drop"),
                OverLong::Drop => {
                    self.over_long.push(format!("dropped {what}"));
                    return Ok(());
                }
                OverLong::Truncate => {
                    self.over_long.push(format!("truncated {what}"));
                    example.truncate(limit);
                }
            }
        }
        ensure!(
            !example.trained.is_empty(),
            "{place}: its question alone fills block_size {limit}, no token would be trained"
        );
        self.examples.push(example);
        Ok(())
    }

    /// Tokens that the loss is on, in one epoch.
    pub fn trained_tokens(&self) -> usize {
        self.examples.iter().map(Example::trained_tokens).sum()
    }

    /// Tokens in one epoch.
    pub fn tokens(&self) -> usize {
        self.examples.iter().map(|example| example.ids.len()).sum()
    }
}
