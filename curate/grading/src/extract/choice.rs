//! The letter of a multiple choice answer.

use super::sentence::{sentences, trim};
use super::{Mode, extract, strict};

/// The letter that a completion or an answer chooses, in upper case; `None` when it names none.
///
/// [`Mode::S1`]: what [`extract()`] gives is one letter, A to D in any case. Differs from s1: its
/// harness makes an `A` of everything else.
///
/// [`Mode::Strict`]: the answer is a letter alone or marked as a choice: `B`, `(B)`, `B.`, `B) 12`,
/// `\text{(B)}`, `**B**`, `option B`; without a box or statement the last sentence counts that says
/// `option B` or `B is correct`. Letters go to J; `A, C` chooses no single one.
pub fn choice(text: &str, mode: Mode) -> Option<char> {
    if mode == Mode::S1 {
        let answer = extract(text, mode)?.text;
        let letter = answer.chars().next().filter(|_| answer.len() == 1)?.to_ascii_uppercase();
        return ('A'..='D').contains(&letter).then_some(letter);
    }
    if let Some(letter) = letter(text).filter(|_| !trim(text).contains('\n')) {
        return Some(letter);
    }
    let part = strict::answer_part(text);
    let answer = match extract(part, mode) {
        Some(answer) => answer,
        None if part.contains("\\boxed") => return None, // cut off in its box
        None => return last_chosen(part),
    };
    match answer.rule {
        "box" | "boxes" => letter(&answer.text),
        "statement" => {
            let sentence = strict::statement(part)?.sentence;
            letter(sentence).or_else(|| chosen(sentence)).or_else(|| letter(&answer.text))
        }
        _ => last_chosen(part),
    }
}

fn last_chosen(part: &str) -> Option<char> {
    sentences(part).into_iter().rev().find_map(|said| letter(said).or_else(|| chosen(said)))
}

/// The letter that is all of the text but its marks, or that a mark sets apart from the rest.
fn letter(text: &str) -> Option<char> {
    const OPENING: [&str; 15] = [
        "$",
        "\\(",
        "\\[",
        "\\text{",
        "\\textbf{",
        "\\mathrm{",
        "\\mathbf{",
        "\\textrm{",
        "{",
        "*",
        "(",
        "[",
        "option",
        "choice",
        " ",
    ];
    let mut rest = trim(text);
    let mut parenthesis = false;
    let starts = |rest: &str, mark: &str| {
        rest.get(..mark.len()).is_some_and(|head| head.eq_ignore_ascii_case(mark))
    };
    while let Some(mark) = OPENING.iter().find(|mark| starts(rest, mark)) {
        parenthesis |= *mark == "(";
        rest = &rest[mark.len()..];
    }
    let first = rest.chars().next()?;
    let (upper, behind) = (first.to_ascii_uppercase(), &rest[first.len_utf8()..]);
    let closing = |c: char| c.is_whitespace() || ")]}.:,$*\\".contains(c);
    let next = behind.trim_start_matches(closing);
    if !('A'..='J').contains(&upper) || next.len() == behind.len() && !next.is_empty() {
        return None;
    }
    // `A, C`, `(A)(C)` and `(a, b)` are no single choice, `(A) is wrong` none at all.
    let second = next.trim_start_matches(['(', '[']);
    let another = second.starts_with(|c: char| ('A'..='J').contains(&c.to_ascii_uppercase()))
        && !second[1..].starts_with(char::is_alphanumeric)
        || ["is ", "and ", "or "].iter().any(|word| next.starts_with(word));
    let marked = next.is_empty()
        || behind.trim_start_matches('*').starts_with([')', ']', '}', '.', ':', ',']);
    // A small letter alone may be a variable or a constant; s1 takes a to d.
    let small = first != upper && !parenthesis && !(next.is_empty() && upper <= 'D');
    (marked && !another && !small).then_some(upper)
}

/// The letter that a sentence names behind `option` and its like, or before `is correct`.
fn chosen(sentence: &str) -> Option<char> {
    const NAMES: [&str; 11] = [
        "option",
        "choice",
        "answer",
        "choose",
        "select",
        "pick",
        "alternative",
        "is",
        "so",
        "thus",
        "therefore",
    ];
    let words: Vec<_> = sentence.split_whitespace().collect();
    let capital =
        |word: &str| letter(word).filter(|_| word.contains(|c: char| c.is_ascii_uppercase()));
    let named = |at: &usize| {
        let letter = words.get(*at).and_then(|word| capital(word))?;
        let before = at.checked_sub(1).map(|before| words[before].to_lowercase());
        let name =
            before.is_some_and(|word| NAMES.contains(&word.trim_matches(['*', ':', '(', '"'])));
        let verdict = words[at + 1..].iter().take(3).any(|word| {
            ["correct", "right", "best"].iter().any(|adjective| word.starts_with(adjective))
        });
        let is = words.get(at + 1) == Some(&"is");
        let joined = ["and", "or", "and/or", "&"].contains(words.get(at + 1).unwrap_or(&""));
        if words.get(at + 1 + usize::from(joined)).is_some_and(|word| capital(word).is_some()) {
            return None; // `(A) and (C)` choose no single one
        }
        // `is A` may go on with a noun; `is (A)` and `is A.` may not.
        let article = before_is(&words, *at) && words[*at] == "A" && at + 1 < words.len();
        ((name && !article) || (is && verdict)).then_some(letter)
    };
    (0..words.len()).rev().find_map(|at| named(&at))
}

fn before_is(words: &[&str], at: usize) -> bool {
    at > 0 && words[at - 1] == "is"
}
