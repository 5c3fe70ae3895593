//! Exact duplicates: the same question text again; the first one stays.

use std::collections::HashMap;

use crate::funnel::Reason;

/// One verdict a question, given with its pool row; texts are equal when every byte is.
///
/// Source: simplescaling/s1 `data/collect_data.py`, "Simple deduplication".
pub fn deduplicate<'a>(
    questions: impl IntoIterator<Item = (usize, &'a str)>,
) -> Vec<Option<Reason>> {
    let mut first_row = HashMap::new();
    let verdict = |(row, question)| {
        let first = *first_row.entry(question).or_insert(row);
        (first != row)
            .then(|| Reason::new("same question text", format!("as pool row {}", first + 1)))
    };
    questions.into_iter().map(verdict).collect()
}
