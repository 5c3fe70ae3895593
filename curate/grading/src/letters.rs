//! Answers that are letters: the letter of a multiple choice, and names whose letters have an order.

use crate::text::in_text;
use crate::{Mode, choice};

/// Are both the same letter of a multiple choice, one of them perhaps with its mark and its text,
/// as `(C) Plane`? Each side is given as it stands and in its one way of writing.
pub fn same_choice(a: (&str, &str), b: (&str, &str)) -> bool {
    match (alone(a.1), alone(b.1)) {
        (Some(x), Some(y)) => x == y,
        (Some(x), None) => labels(b, x),
        (None, Some(y)) => labels(a, y),
        (None, None) => false,
    }
}

/// The capital that is all of a text but its marks.
fn alone(normal: &str) -> Option<char> {
    let mut letters = normal.trim_matches(['(', ')', '.', ' ']).chars();
    let letter = letters.next().filter(char::is_ascii_uppercase)?;
    letters.next().is_none().then_some(letter)
}

/// Does the text begin with the letter's mark, or say `option`, and choose this letter only?
fn labels((text, normal): (&str, &str), letter: char) -> bool {
    let rest = normal.strip_prefix('(').unwrap_or(normal);
    let marked = rest.strip_prefix(letter).is_some_and(|rest| rest.starts_with([')', '.', ':']));
    let said = ["option", "choice", "answer"]
        .iter()
        .any(|word| normal.len() < 12 && normal.to_lowercase().starts_with(word));
    // The text as it stands: without its spaces a word behind the letter is none.
    (said || marked) && choice(text, Mode::Strict) == Some(letter)
}

/// Letters side by side are a product (`mgh`), but not where their order says something: an angle
/// turns at its middle letter, and capitals (`HTH`, `IV`, `CO`) or what is set as text are names,
/// unless one of the two is a set of choices in order, as `ABD` is.
pub fn names_apart(a: (&str, &str), b: (&str, &str)) -> bool {
    let angle = |text: &str| text.strip_prefix("\\angle").map(|name| name.trim().to_string());
    if let (Some(a), Some(b)) = (angle(a.1), angle(b.1)) {
        let letters = a.len() == 3 && a.bytes().all(|b| b.is_ascii_uppercase());
        return letters && b.len() == 3 && a != b && !a.bytes().eq(b.bytes().rev());
    }
    let name = |(text, normal): (&str, &str)| {
        let set = in_text(text).is_some() && normal.bytes().all(|b| b.is_ascii_alphabetic());
        let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        let capital = normal.bytes().any(|byte| byte.is_ascii_uppercase());
        set || capital && normal.bytes().all(plain)
    };
    let choices = |text: &str| text.bytes().all(|byte| (b'A'..=b'F').contains(&byte));
    let in_order = |text: &str| choices(text) && text.bytes().is_sorted_by(|a, b| a < b);
    let letters = |text: &str| {
        let mut letters = text.as_bytes().to_vec();
        letters.sort_unstable();
        letters
    };
    let chosen = choices(a.1) && choices(b.1) && (in_order(a.1) || in_order(b.1));
    name(a) && name(b) && a.1 != b.1 && letters(a.1) == letters(b.1) && !chosen
}
