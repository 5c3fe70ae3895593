//! The final answer by the rules of s1's evaluation harness, to the letter.
//!
//! Source: `lm_eval/tasks/aime/utils.py` of simplescaling/s1 at commit 77272c6, `process_results`,
//! `last_boxed_only_string` and `remove_boxed`.

use super::Extracted;

/// 1. Only what follows the last `<|im_start|>answer\n` counts; without it, what follows the last
///    `<|im_start|>`, less its first line if it has several.
/// 2. If `\boxed ` (with a space) occurs: what follows the last one, up to the next `$`. Else the
///    content of the last `\boxed{…}`, or without any the last `\fbox{…}`, with balanced braces;
///    an unfinished box is no answer. Rule `box`.
/// 3. Else everything after the first `Answer:` (any case, white space around the colon), to the
///    end of the text. Rule `answer`.
/// 4. Else the whole of what rule 1 left. Rule `text`.
///
/// Differs from s1: its harness stops with a failed assertion at `\fbox{…}` and at a `\boxed` that
/// no brace follows; here the first is read like `\boxed`, the second is an unfinished box. A
/// text of nothing but white space is `None`, not an answer of white space.
pub fn extract(completion: &str) -> Option<Extracted> {
    let text = after_delimiter(completion);
    if text.trim().is_empty() {
        return None;
    }
    let (answer, rule) = boxed(text)
        .map(|content| (content, "box"))
        .or_else(|| Some((after_answer_word(text)?, "answer")))
        .unwrap_or((text, "text"));
    Some(Extracted { text: answer.to_string(), rule, ambiguous: false })
}

/// Rule 1: the part of the completion in which the answer is looked for.
fn after_delimiter(completion: &str) -> &str {
    if let Some((_, answer)) = completion.rsplit_once("<|im_start|>answer\n") {
        return answer;
    }
    match completion.rsplit_once("<|im_start|>") {
        Some((_, turn)) => turn.split_once('\n').map_or(turn, |(_, rest)| rest),
        None => completion,
    }
}

/// Rule 2: the content of the last box.
fn boxed(text: &str) -> Option<&str> {
    if let Some((_, rest)) = text.rsplit_once("\\boxed ") {
        return Some(rest.split('$').next().unwrap_or(rest));
    }
    let start = text.rfind("\\boxed").or_else(|| text.rfind("\\fbox"))?;
    let name_len = if text[start..].starts_with("\\boxed") { 6 } else { 5 };
    let content = text[start + name_len..].strip_prefix('{')?;
    let mut open = 1usize;
    for (at, byte) in content.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(&content[..at]);
        }
    }
    None
}

/// Rule 3: `(?i)Answer\s*:\s*(.*)` with a dot that matches line ends too.
fn after_answer_word(text: &str) -> Option<&str> {
    const WORD: &[u8] = b"answer";
    let starts = text.as_bytes().windows(WORD.len()).enumerate();
    for (at, _) in starts.filter(|(_, window)| window.eq_ignore_ascii_case(WORD)) {
        // The window is ASCII, so the cut behind it falls on a character boundary.
        if let Some(answer) = text[at + WORD.len()..].trim_start().strip_prefix(':') {
            return Some(answer.trim_start());
        }
    }
    None
}
