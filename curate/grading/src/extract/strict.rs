//! The final answer as a careful reader finds it: [`super::Mode::Strict`].

use std::collections::BTreeSet;

use super::Extracted;
use super::boxes::{Boxed, Boxes, boxes};
use super::sentence::{
    first_sentence, has_digit, percent, reduce, sentences, trim, without_reason,
};
use super::spans::words;
use crate::text::normalise;

/// The rules in order; see [`super::extract()`].
pub fn extract(completion: &str) -> Option<Extracted> {
    let part = answer_part(completion);
    let boxes = boxes(part);
    if let Some(last) = boxes.finished.last() {
        let boxed = from_boxes(part, &boxes.finished);
        let behind = statement(&part[last.end..]).filter(|found| found.is_final);
        let Some((text, _)) = behind.and_then(|found| reduce(without_reason(found.sentence)))
        else {
            return Some(boxed);
        };
        if !has_digit(text) || normalise(text) == normalise(&boxed.text) {
            return Some(boxed);
        }
        return Some(Extracted { text: text.to_string(), rule: "statement", ambiguous: true });
    }
    let answer = match stated(part, &boxes) {
        Some((text, _)) => Some((text, "statement")),
        None if boxes.unfinished.is_some() || still_thinking(completion) => None,
        None => last_words(part),
    };
    answer.map(|(text, rule)| Extracted { text: text.to_string(), rule, ambiguous: false })
}

/// What a statement says, or `None`; one that an unfinished box cuts off says nothing.
fn stated<'a>(part: &'a str, boxes: &Boxes) -> Option<(&'a str, &'static str)> {
    let finished = &part[..boxes.unfinished.unwrap_or(part.len())];
    let sentence = statement(finished)?.sentence;
    let cut_off = boxes.unfinished.is_some() && finished.ends_with(sentence);
    let sentence = without_reason(sentence);
    let whole = || Some((trim(sentence), "text")).filter(|(text, _)| words(text) < 12);
    if cut_off { None } else { reduce(sentence).or_else(whole) }
}

/// Does the completion end within a thought? Then its last formula is a step, not an answer.
fn still_thinking(completion: &str) -> bool {
    const THOUGHTS: [(&str, &str); 3] = [
        ("<think>", "</think>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|im_start|>think\n", "<|im_start|>answer\n"),
    ];
    THOUGHTS.iter().any(|(open, close)| {
        let thought = completion.rsplit_once(open);
        thought.is_some_and(|(_, behind)| !behind.contains(close))
    })
}

/// The part of a completion in which the answer is looked for.
pub fn answer_part(completion: &str) -> &str {
    const STARTS: [&str; 3] = ["<|im_start|>answer\n", "</think>", "<|begin_of_solution|>"];
    const ENDS: [&str; 4] = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|end_of_solution|>"];
    let mark = |at: usize, marks: &[&str]| {
        marks.iter().find(|mark| completion[at..].starts_with(**mark)).map(|mark| at + mark.len())
    };
    // Every mark begins with `<`, which is rare: one search for it is faster than one for each.
    if let Some(start) = completion.rmatch_indices('<').find_map(|(at, _)| mark(at, &STARTS)) {
        let mut ends = completion[start..].match_indices('<').map(|(at, _)| start + at);
        let end = ends.find(|at| mark(*at, &ENDS).is_some());
        return &completion[start..end.unwrap_or(completion.len())];
    }
    let mut end = completion.len();
    while let Some(start) = completion[..end].rfind("<|im_start|>") {
        let turn = &completion[start + "<|im_start|>".len()..end];
        if !turn.trim_start().starts_with("user") {
            return turn.split_once('\n').map_or(turn, |(_, rest)| rest);
        }
        end = start;
    }
    &completion[..end]
}

/// The last box, with those that its sentence joins to it.
fn from_boxes(part: &str, finished: &[Boxed]) -> Extracted {
    let joined = |pair: &[Boxed]| joins_boxes(&part[pair[0].end..pair[1].start]);
    let count = 1 + finished.windows(2).rev().take_while(|pair| joined(pair)).count();
    let (others, last) = finished.split_at(finished.len() - count);
    // Two boxes with one content are one answer said twice; long lists are no answers.
    let mut said = BTreeSet::new();
    let mut answers = Vec::new();
    for found in last.iter().take(64).filter(|found| said.insert(normalise(found.content))) {
        answers.push(found.content);
    }
    let mut text = answers.join(", ");
    // A percent sign or word right behind the box belongs to its content.
    let behind = part[finished[finished.len() - 1].end..].trim_start_matches([' ', '$']);
    if percent(behind.strip_prefix("\\)").unwrap_or(behind)) > 0 && !text.contains('%') {
        text.push_str("\\%");
    }
    Extracted {
        text,
        rule: if answers.len() > 1 { "boxes" } else { "box" },
        ambiguous: others.iter().any(|found| !said.contains(&normalise(found.content))),
    }
}

/// Does what stands between two boxes make them one list? `, `, ` and `, `\text{ or }`, nothing but
/// spacing, or ` papers and `; not a sentence's end and not a sign.
fn joins_boxes(between: &str) -> bool {
    const MARKUP: [&str; 13] = [
        "$", "\\(", "\\)", "\\[", "\\]", "\\quad", "\\qquad", "\\text", "\\textbf", "\\,", "\\;",
        "{", "}",
    ];
    if between.len() > 60 || between.contains("\n\n") {
        return false;
    }
    let plain = MARKUP.iter().fold(between.to_string(), |text, mark| text.replace(mark, " "));
    // `y_2 =` before a box names what the box holds.
    let plain = plain.trim_end().strip_suffix('=').map_or(plain.as_str(), |label| {
        label.trim_end().rsplit_once(char::is_whitespace).map_or("=", |(rest, _)| rest)
    });
    let apart = plain.replace([',', ';', '&'], " , ");
    let tokens: Vec<_> = apart.split_whitespace().collect();
    let joint = |token: &&str| [",", "and", "or"].contains(token);
    let others: Vec<_> = tokens.iter().copied().filter(|token| !joint(token)).collect();
    let nouns = others.len() < 3 && others.iter().all(|word| noun(word));
    tokens.is_empty() || (tokens.iter().any(joint) && nouns)
}

/// Could this be a unit or a thing counted, not a word that begins a new statement?
fn noun(word: &str) -> bool {
    const NOT: [&str; 10] =
        ["so", "thus", "hence", "therefore", "not", "which", "then", "but", "because", "no"];
    word.chars().all(char::is_alphabetic) && !NOT.contains(&word)
}

/// A sentence that says what the answer is.
#[derive(Clone, Copy)]
pub struct Statement<'a> {
    /// What follows the colon or the verb, to the sentence's end.
    pub sentence: &'a str,
    /// Does it say `final answer`?
    pub is_final: bool,
}

/// The last statement of the text; a heading `Answer` counts with the lines below it. `A: 96` and
/// `#### 96` as the last line are GSM8K's ways of stating an answer, `<answer>96</answer>` is
/// DeepSeek-R1-Zero's.
pub fn statement(text: &str) -> Option<Statement<'_>> {
    let last_line = text.trim_end().rsplit('\n').next().unwrap_or_default();
    let marked = ["A: ", "#### "].iter().find_map(|mark| last_line.strip_prefix(mark));
    if let Some(sentence) = marked.filter(|sentence| has_digit(sentence)) {
        return Some(Statement { sentence, is_final: true });
    }
    let mut end = text.len();
    // Each candidate ends where the next one begins, so the text is read once.
    while let Some(start) = rfind_word(&text[..end]) {
        let before = text[..start].trim_end_matches([' ', '*', '_']).as_bytes();
        let is_final =
            before.len() >= 5 && before[before.len() - 5..].eq_ignore_ascii_case(b"final");
        let rest = &text[start + "answer".len()..end];
        let value = match rest.strip_prefix('>').filter(|_| text[..start].ends_with('<')) {
            Some(tagged) => Some(tagged.trim_end_matches(['<', '/'])),
            None => behind_marker(rest, is_heading(text, start)),
        };
        let sentence = value.and_then(|value| first_sentence(value));
        if let Some(sentence) = sentence.filter(|sentence| !is_remark(trim(sentence))) {
            return Some(Statement { sentence, is_final });
        }
        end = start;
    }
    None
}

/// Where the last `answer` (any case) begins that is not the end of another word.
fn rfind_word(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let word = |at: &usize| {
        bytes[*at..].len() >= 6
            && bytes[*at..*at + 6].eq_ignore_ascii_case(b"answer")
            && (*at == 0 || !bytes[*at - 1].is_ascii_alphanumeric())
    };
    (0..bytes.len()).rev().find(word)
}

/// Does the line hold nothing before `answer` but marks, `the`, `my` or `final`?
fn is_heading(text: &str, start: usize) -> bool {
    let line = text[..start].bytes().rev().take(40).take_while(|b| *b != b'\n').count();
    let Some(line) = text.get(start - line..start) else {
        return false; // the fortieth byte is within a character of a long line
    };
    let word = line.trim_matches(|c: char| c.is_whitespace() || "#*_".contains(c));
    word.is_empty()
        || ["final", "the final", "the", "my", "my final"].contains(&&*word.to_lowercase())
}

/// What follows `answer`: `:`, ` is`, ` is:`, `= `, or a
/// heading's end or formula; within one sentence, up to
/// 80 bytes may stand before the colon or the verb.
fn behind_marker(rest: &str, heading: bool) -> Option<&str> {
    const VERBS: [&str; 9] =
        [" is", " are", " was", " should be", " would be", " must be", " will be", "'s", " equals"];
    let rest = rest.strip_prefix(['s', 'S']).unwrap_or(rest);
    let marks = rest.trim_start_matches(['*', '_', ' ', '}', ')']);
    if heading && ["\n", "$", "\\(", "\\["].iter().any(|begin| marks.starts_with(begin)) {
        return Some(marks);
    }
    let mut limit = rest.len().min(80);
    while !rest.is_char_boundary(limit) {
        limit -= 1;
    }
    let before = rest[..limit].split(['\n', '?', '!', '$', '\\']).next().unwrap_or_default();
    let colon = before
        .find([':', '：', '='])
        .map(|at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let verbs = VERBS.iter().filter_map(|verb| {
        let at = before.find(verb)? + verb.len();
        let ends = !rest[at..].starts_with(|c: char| c.is_alphanumeric());
        ends.then_some(at)
    });
    let at = verbs.chain(colon).min()?;
    if rest[..at].contains(". ") {
        return None;
    }
    Some(rest[at..].trim_start_matches([':', '*', '_', ' ']))
}

/// `The answer is correct` speaks about an answer, and states none.
fn is_remark(sentence: &str) -> bool {
    const REMARKS: [&str; 12] = [
        "correct",
        "right",
        "wrong",
        "incorrect",
        "reasonable",
        "valid",
        "consistent",
        "not",
        "therefore",
        "also",
        "the same",
        "in the",
    ];
    let lower = sentence.to_lowercase();
    let mut about = REMARKS.iter().filter_map(|word| lower.strip_prefix(word));
    about.any(|rest| !rest.contains(|c: char| c.is_ascii_digit() || "$\\".contains(c)))
}

/// The last sentence that has a formula or a number; a completion of a few words as it is.
fn last_words(part: &str) -> Option<(&str, &'static str)> {
    const POLITE: [&str; 5] = ["let me know", "i hope", "if you", "feel free", "please"];
    let polite = |said: &&str| {
        let begins =
            |words: &&str| said.get(..words.len()).is_some_and(|s| s.eq_ignore_ascii_case(words));
        POLITE.iter().any(begins)
    };
    match sentences(part).as_slice() {
        [one] => reduce(one),
        all => {
            let said = all.iter().rev().map(|said| trim(said)).filter(|said| !polite(said));
            said.filter_map(reduce).find(|(_, rule)| *rule != "text")
        }
    }
}
