//! Exact duplicates: the same question text again; one stays.

use std::collections::HashMap;

use anyhow::Result;
use record::question::question_id;
use record::row::Outline;
use serde::Deserialize;

use crate::funnel::Reason;

/// Of rows with the same question, the one that stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The first of the pool, as in s1.
    #[default]
    First,
    /// The one that says most, whatever the order of the pool: see [`Seen::fullest`].
    Fullest,
}

/// The questions seen so far, each with the row in the pool (from 0) that stays.
///
/// Differs from s1: texts are equal when their ids are. Of pools of a million different questions,
/// one in 37 million has two with the same id.
///
/// Source: simplescaling/s1 `data/collect_data.py`, "Simple deduplication".
#[derive(Debug, Clone, Default)]
pub struct Seen {
    kept_rows: HashMap<u64, u32>,
}

impl Seen {
    /// Every question of a pool with its fullest row: with a trace and an answer before one
    /// without, with more features before one with fewer; then the smallest source, kind and
    /// features. Rows that agree in all of these stand for one another, and the first stays.
    pub fn fullest(pool: impl Iterator<Item = Result<Outline>>) -> Result<Self> {
        let mut best = HashMap::new();
        for (row, of) in pool.enumerate() {
            let of = of?;
            let rank = (rank(&of), number(row));
            let kept = best.entry(question_id(&of.question)).or_insert_with(|| rank.clone());
            if rank < *kept {
                *kept = rank;
            }
        }
        Ok(Self { kept_rows: best.into_iter().map(|(id, (_, row))| (id, row)).collect() })
    }

    /// The verdict about the question with this id at this row of the pool.
    pub fn judge(&mut self, id: u64, row: usize) -> Option<Reason> {
        let row = number(row);
        let kept = *self.kept_rows.entry(id).or_insert(row);
        (kept != row)
            .then(|| Reason::new("same question text", format!("as pool row {}", kept + 1)))
    }

    /// Was there a question with this id?
    pub fn has(&self, id: u64) -> bool {
        self.kept_rows.contains_key(&id)
    }

    /// How many different questions were there?
    pub fn len(&self) -> usize {
        self.kept_rows.len()
    }

    /// Was there none?
    pub fn is_empty(&self) -> bool {
        self.kept_rows.is_empty()
    }
}

/// What a row is worth among rows with its question; the smallest stays.
fn rank(row: &Outline) -> impl Ord + Clone + use<> {
    let grades = [row.isgeminicorrect, row.isqwen7bcorrect, row.isqwen32bcorrect];
    let missing = grades.iter().filter(|grade| grade.is_none()).count()
        + usize::from(row.domain.is_none())
        + usize::from(row.gemini_length.is_none());
    let texts = (row.source_type.clone(), row.cot_type.clone(), row.domain.clone());
    (!row.has_trace, !row.has_attempt, missing, texts, grades, row.gemini_length)
}

fn number(row: usize) -> u32 {
    u32::try_from(row).expect("a pool has fewer than 2^32 rows")
}
