//! Exact duplicates: the same question text again; the first one stays.

use std::collections::HashMap;

use crate::funnel::Reason;

/// One verdict a question; equality is that of the whole text, untrimmed (s1-spec 1.4).
///
/// Source: simplescaling/s1 `data/collect_data.py`, "Simple deduplication".
pub fn deduplicate<'a>(questions: impl IntoIterator<Item = (usize, &'a str)>) -> Vec<Option<Reason>> {
    let mut first_row = HashMap::new();
    let verdict = |(row, question)| {
        let first = *first_row.entry(question).or_insert(row);
        (first != row).then(|| Reason::new("same question text", format!("as pool row {first}")))
    };
    questions.into_iter().map(verdict).collect()
}
