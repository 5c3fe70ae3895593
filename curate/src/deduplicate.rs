//! Exact duplicates: the same question text again; the first one stays.

use std::collections::HashMap;

use crate::funnel::Reason;

/// The questions seen so far, each with its first row in the pool (from 0).
///
/// Differs from s1: texts are equal when their ids are. Of pools of a million different questions,
/// one in 37 million has two with the same id.
///
/// Source: simplescaling/s1 `data/collect_data.py`, "Simple deduplication".
#[derive(Debug, Clone, Default)]
pub struct Seen {
    first_rows: HashMap<u64, u32>,
}

impl Seen {
    /// The verdict about the question with this id at this row of the pool.
    pub fn judge(&mut self, id: u64, row: usize) -> Option<Reason> {
        let row = u32::try_from(row).expect("a pool has fewer than 2^32 rows");
        let first = *self.first_rows.entry(id).or_insert(row);
        (first != row)
            .then(|| Reason::new("same question text", format!("as pool row {}", first + 1)))
    }

    /// Was there a question with this id?
    pub fn has(&self, id: u64) -> bool {
        self.first_rows.contains_key(&id)
    }

    /// How many different questions were there?
    pub fn len(&self) -> usize {
        self.first_rows.len()
    }

    /// Was there none?
    pub fn is_empty(&self) -> bool {
        self.first_rows.is_empty()
    }
}
