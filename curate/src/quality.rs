//! Quality: an answer from the teacher, every feature known, and no sign of a broken text.
//!
//! Source of all three rules: simplescaling/s1 `data/filter.ipynb`.

use anyhow::{Result, ensure};
use record::example::is_python_space;
use record::row::Outline;

use crate::funnel::Reason;

/// A column that a row needs, and whether it has it.
type Needed = (&'static str, fn(&Outline) -> bool);

const ANSWER: [Needed; 2] = [
    // Differs from s1: a trace of nothing but white space counts as no trace.
    ("thinking_trajectories", |row| row.has_trace),
    ("attempt", |row| row.has_attempt),
];

/// What the selection itself reads.
const FEATURES: [Needed; 2] =
    [("domain", |row| row.domain.is_some()), ("gemini_length", |row| row.gemini_length.is_some())];

const GRADES: [Needed; 3] = [
    ("isgeminicorrect", |row| row.isgeminicorrect.is_some()),
    ("isqwen7bcorrect", |row| row.isqwen7bcorrect.is_some()),
    ("isqwen32bcorrect", |row| row.isqwen32bcorrect.is_some()),
];

fn features(grades_required: bool) -> impl Iterator<Item = &'static Needed> {
    let grades = if grades_required { &GRADES[..] } else { &[] };
    FEATURES.iter().chain(grades)
}

/// Which columns some row of the pool has a value in.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    found: [bool; ANSWER.len() + FEATURES.len() + GRADES.len()],
}

impl Columns {
    /// Looks at one more row.
    pub fn see(&mut self, row: &Outline) {
        for (found, (_, has)) in self.found.iter_mut().zip(needed()) {
            *found = *found || has(row);
        }
    }

    /// Fails when no row at all has some column that the stages need: the pool was never given it.
    /// Without `features_required` the answers are enough.
    pub fn check(&self, features_required: bool, grades_required: bool) -> Result<()> {
        let wanted = match (features_required, grades_required) {
            (false, _) => ANSWER.len(),
            (true, false) => ANSWER.len() + FEATURES.len(),
            (true, true) => self.found.len(),
        };
        for (found, (column, _)) in self.found.iter().zip(needed()).take(wanted) {
            ensure!(
                *found,
                "no row has `{column}`: curate selects from questions that already have a trace, \
                 grades, a domain and a length; add the column to the pool, or name a side table \
                 in pool.features (curate/README.md lists them all)"
            );
        }
        Ok(())
    }
}

fn needed() -> impl Iterator<Item = &'static Needed> {
    ANSWER.iter().chain(&FEATURES).chain(&GRADES)
}

/// Did the teacher answer ("Gemini answered")?
pub fn answered(row: &Outline) -> Option<Reason> {
    missing(row, ANSWER.iter())
}

/// Is every feature known? The original's "API errors" stage: a question without a solution has
/// no grades, so it goes here too.
pub fn complete(row: &Outline, grades_required: bool) -> Option<Reason> {
    missing(row, features(grades_required))
}

fn missing<'a>(row: &Outline, needed: impl Iterator<Item = &'a Needed>) -> Option<Reason> {
    let missing: Vec<String> =
        needed.filter(|(_, has)| !has(row)).map(|(column, _)| format!("no {column}")).collect();
    (!missing.is_empty()).then(|| Reason::new(missing.join("; "), ""))
}

/// Signs of a diagram, an image or a numbering that did not survive the way into the pool: all
/// that there are, the last two with their first match.
///
/// A question with an `[asy]` diagram stays when its `source_type` contains one of
/// `diagrams_allowed_from`, whatever else is in it, as in the original.
pub fn patterns(row: &Outline, diagrams_allowed_from: &[String]) -> Option<Reason> {
    let question = row.question.as_str();
    let diagram = question.contains("[asy]").then_some("");
    if diagram.is_some() && diagrams_allowed_from.iter().any(|of| row.source_type.contains(of)) {
        return None;
    }
    let found = [
        ("[asy] diagram", diagram),
        ("![Image] link", question.contains("![Image]").then_some("")),
        ("problem number", problem_number(question)),
        ("bold run before a digit", bold_before_digit(question)),
    ];
    let found: Vec<_> =
        found.into_iter().filter_map(|(rule, found)| Some((rule, found?))).collect();
    let rules: Vec<_> = found.iter().map(|(rule, _)| *rule).collect();
    // The first two rules name what they found.
    let matches: Vec<_> =
        found.iter().map(|(_, found)| *found).filter(|of| !of.is_empty()).collect();
    (!found.is_empty()).then(|| Reason::new(rules.join("; "), matches.join("; ")))
}

/// The first of `p1.` to `p999.` anywhere in the text, even inside a word.
fn problem_number(text: &str) -> Option<&str> {
    // Hardly a text has a digit after a p. Without an early return the compiler compares sixteen
    // bytes at once.
    let pairs = std::iter::zip(text.bytes(), text.bytes().skip(1));
    if !pairs.fold(false, |found, (a, b)| found | ((a == b'p') & b.is_ascii_digit())) {
        return None;
    }
    text.match_indices('p').find_map(|(at, _)| {
        let rest = &text[at + 1..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let counts = (1..=3).contains(&digits) && !rest.starts_with('0');
        (counts && rest[digits..].starts_with('.')).then(|| &text[at..at + 1 + digits + 1])
    })
}

/// The first match of `\*\*(?=.*\d)[^\s\]]*\*\*`: a bold run without white space or `]`, with a
/// digit in it or later on its line.
///
/// Differs from s1: only the digits 0-9 count, not those of other scripts.
fn bold_before_digit(text: &str) -> Option<&str> {
    // `contains` looks at sixteen bytes at once, `find` does not.
    if !text.contains("**") {
        return None;
    }
    let mut from = 0;
    while let Some(at) = text[from..].find("**").map(|at| from + at) {
        let rest = &text[at + 2..];
        let line = rest.split('\n').next().unwrap_or(rest);
        let run = rest.split(|c| is_python_space(c) || c == ']').next().unwrap_or(rest);
        if let Some(end) = run.rfind("**")
            && line.bytes().any(|byte| byte.is_ascii_digit())
        {
            return Some(&text[at..at + 2 + end + 2]);
        }
        from = at + 1;
    }
    None
}
