//! Which parts of a completion's text the model did not write.

use std::ops::Range;

use anyhow::Result;
use model::Tokenizer;

/// The places in `completion`, the text of `ids`, of those ids that were forced.
pub fn spans(
    tokenizer: &Tokenizer,
    completion: &str,
    ids: &[i64],
    forced: &[Range<usize>],
) -> Result<Vec<[usize; 2]>> {
    // Where the text of the first so many ids ends; an id may end within a character.
    let place = |ids: &[i64]| -> Result<usize> {
        let text = tokenizer.decode(ids)?;
        let same = text.chars().zip(completion.chars()).take_while(|(a, b)| a == b);
        Ok(same.map(|(a, _)| a.len_utf8()).sum())
    };
    forced
        .iter()
        .map(|range| Ok([place(&ids[..range.start])?, place(&ids[..range.end])?]))
        .collect()
}

/// The pieces of `text` between the bytes of `within`, each with whether it was forced.
/// Places that are not in the text, as a damaged file may have them, are moved into it.
pub fn pieces<'a>(
    text: &'a str,
    forced: &[[usize; 2]],
    within: Range<usize>,
) -> Vec<(bool, &'a str)> {
    let floor = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    let [start, end] = [within.start, within.end].map(|at| floor(at).unwrap_or(0));
    let mut pieces = Vec::new();
    let mut at = start;
    for [from, to] in forced {
        let [from, to] = [*from, *to].map(|at| floor(at).unwrap_or(0).min(end));
        if to > at && to > from {
            let from = from.max(at);
            pieces.push((false, &text[at..from]));
            pieces.push((true, &text[from..to]));
            at = to;
        }
    }
    pieces.push((false, &text[at..end.max(at)]));
    pieces.retain(|(_, piece)| !piece.is_empty());
    pieces
}
