//! Is an attempt right, by rules: the final answers of attempt and solution are compared.

use grading::{Mode, equivalent, extract};

/// What somebody says of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `None`: cannot tell.
    pub right: Option<bool>,
    /// Why, in a line.
    pub why: String,
}

/// A solution of at most so many bytes in one line is nothing but its answer.
const BARE_ANSWER: usize = 80;

/// Compares the attempt's final answer with the solution's.
///
/// A solution that names no final answer, as a proof does, cannot be compared with: then the rules
/// cannot tell. An attempt without a final answer is wrong.
pub fn by_rules(attempt: &str, solution: &str) -> Verdict {
    let told = extract(solution, Mode::Strict);
    let stated = |rule: &str| ["box", "boxes", "statement"].contains(&rule);
    let bare = solution.trim();
    let expected = match &told {
        Some(told) if stated(told.rule) => told.text.as_str(),
        _ if !bare.is_empty() && bare.len() <= BARE_ANSWER && !bare.contains('\n') => bare,
        _ => return Verdict { right: None, why: "the solution names no final answer".to_string() },
    };
    let Some(given) = extract(attempt, Mode::Strict) else {
        return Verdict { right: Some(false), why: "the attempt has no final answer".to_string() };
    };
    let verdict = equivalent(&given.text, expected);
    let sign = if verdict.equal { "is" } else { "is not" };
    let why = format!("{} {sign} {} ({})", short(&given.text), short(expected), verdict.rule);
    Verdict { right: Some(verdict.equal), why }
}

/// The beginning of a text, in one line.
fn short(text: &str) -> String {
    const CHARACTERS: usize = 60;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
