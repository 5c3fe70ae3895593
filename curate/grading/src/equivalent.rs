//! Are two answers the same? Cheap certain rules first; what no rule proves equal is different.

use std::fmt::{Display, Formatter};

use crate::letters::{names_apart, same_choice};
use crate::math::{Comma, Comparison, Expr, Outcome, Reading, in_words, modifies, parse};
use crate::text::{folded, is_words, normalise, strip_outside, time};
use crate::{Mode, extract};

/// What was decided, and by which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Do both say the same?
    pub equal: bool,
    /// Which rule decided; [`equivalent()`] lists them.
    pub rule: &'static str,
}

impl Verdict {
    fn equal(rule: &'static str) -> Self {
        Verdict { equal: true, rule }
    }

    fn different(rule: &'static str) -> Self {
        Verdict { equal: false, rule }
    }
}

/// A verdict with both sides as they were understood, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The given answer, in plain notation and fully bracketed; text in quotation marks.
    pub given: String,
    /// The expected answer, likewise.
    pub expected: String,
    /// What [`equivalent()`] says.
    pub verdict: Verdict,
}

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        let verdict = if self.verdict.equal { "equal" } else { "not equal" };
        writeln!(f, "given:    {}", self.given)?;
        writeln!(f, "expected: {}", self.expected)?;
        write!(f, "{verdict} ({})", self.verdict.rule)
    }
}

/// s1's own comparison without its language-model judge: the same string, or the same integer
/// where both are nothing but digits (`023` is `23`, AIME's way of writing).
pub fn exact(given: &str, expected: &str) -> Verdict {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let integer = |text: &str| text.trim_start_matches('0').to_string();
    if given == expected {
        Verdict::equal("identical")
    } else if digits(given) && digits(expected) && integer(given) == integer(expected) {
        Verdict::equal("integer")
    } else {
        Verdict::different("different")
    }
}

/// Are the two answers the same, and which rule decided? Symmetric, and true of any text with
/// itself. A side that is prose or holds a box is read by [`extract()`] in [`Mode::Strict`] first.
///
/// Equal by
/// - `identical`: the same string.
/// - `normalised`: the same text once LaTeX's many ways of writing one thing are one; words of three
///   letters and more in any case (`Co` is not `CO`), `yes` as `true`.
/// - `choice`: the same letter of a multiple choice, `(C)` and `(C) Plane`.
/// - `time`: the same time of day, `3:30 pm` and `15:30`.
/// - `integer`, `number`: the same integer or rational number: `1,234`, `0.5`, `\frac12`,
///   `1\frac12`, `1.5 \times 10^3`, `12_8`.
/// - `rounded`: a decimal of at least six significant digits that is the other side correctly
///   rounded; two decimals never.
/// - `exact`: the same canonical form of rationals, roots, powers, symbols and functions. Letters
///   side by side are a product, capitals a name: `mgh` is `hgm`, `HTH` is not `THH`.
/// - `probe`: the same value at every one of many seeded points, within bounds of the error.
/// - `equation`: multiples of one another, `2x = 4` and `x = 2`; or a named value, `x = 5` and `5`.
/// - `relation`: the same inequality or the same set described by one.
/// - `collection`: tuples, vectors, matrices and intervals part by part in order; lists without
///   brackets in any order, those of named values by name; sets as sets; unions of intervals as
///   sets of numbers.
/// - `units`: values whose unit is the same, can be converted, or is missing on one side; `50%` is
///   50% or 50 or 0.5, `90^\circ` is 90 or π/2.
///
/// Not equal by
/// - `different`: both sides were understood and differ.
/// - `unparsed`: a side was understood only as text, or no rule could tell; nobody should take this
///   for a sure verdict.
/// - `budget`: to find out would have taken too long: more than the steps, some milliseconds, that
///   one call may take for all ways to read both sides.
pub fn equivalent(given: &str, expected: &str) -> Verdict {
    if given == expected {
        return Verdict::equal("identical");
    }
    // In one order, so that even the budget runs out at the same place both ways round.
    let (first, second) = if given < expected { (given, expected) } else { (expected, given) };
    judge(&Side::read(first), &Side::read(second))
}

/// [`equivalent()`] with both sides as they were understood.
pub fn explain(given: &str, expected: &str) -> Explanation {
    let spelled = |text: &str| Side::read(text).to_string();
    Explanation {
        given: spelled(given),
        expected: spelled(expected),
        verdict: equivalent(given, expected),
    }
}

/// Longer texts are compared as text only; they are no answers.
const LONGEST: usize = 4_000;

/// One side of a comparison, as text and in all the ways it may be read.
struct Side {
    /// As it stands, without dollars around it.
    text: String,
    normal: String,
    readings: Vec<Expr>,
}

impl Side {
    fn read(text: &str) -> Side {
        let boxed = text.contains("\\boxed") || text.contains("\\fbox");
        if !boxed {
            let side = Side::of_answer(text);
            if !side.readings.is_empty() {
                return side;
            }
        }
        match extract(text, Mode::Strict) {
            Some(answer) if boxed || stands_alone(&answer.text, text) => {
                Side::of_answer(&answer.text)
            }
            _ => Side::of_answer(text),
        }
    }

    fn of_answer(text: &str) -> Side {
        let normal = normalise(text);
        let bare = strip_outside(text);
        let mut readings = Vec::new();
        if bare.len() <= LONGEST {
            readings = readings_of(bare);
            if let Some((minutes, half)) = time(&normal) {
                let time = Expr::Time(minutes, half);
                if half.is_some() { readings = vec![time] } else { readings.push(time) }
            }
        }
        if is_words(&normal)
            && let Some(meaning) = meaning(&folded(&normal))
        {
            readings = vec![meaning];
        }
        Side { text: text.trim_matches([' ', '$']).to_owned(), normal, readings }
    }

    fn is_number(&self) -> bool {
        matches!(self.readings.first(), Some(Expr::Number(_) | Expr::Decimal(..)))
    }
}

/// What an answer in words means.
fn meaning(words: &str) -> Option<Expr> {
    Some(match words {
        "no solution" | "no solutions" | "no real solution" | "no real solutions" | "empty set"
        | "the empty set" => Expr::Set(Vec::new()),
        "all real numbers" | "all reals" => Expr::Symbol("ℝ".into()),
        "undefined" | "not defined" | "does not exist" | "dne" => Expr::Text("undefined".into()),
        number => return in_words(number),
    })
}

impl Display for Side {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        match self.readings.split_first() {
            None => write!(f, "{:?}", self.normal),
            Some((first, others)) => {
                write!(f, "{first}")?;
                others.iter().try_for_each(|other| write!(f, "  or  {other}"))
            }
        }
    }
}

/// Is what was found in a sentence its answer, not a part of what it says, as in `more than 5`,
/// `the square root of 5` and `5 is wrong`?
fn stands_alone(found: &str, sentence: &str) -> bool {
    let Some((before, behind)) = sentence.rsplit_once(found) else { return true };
    let last = before.trim_end_matches(|c: char| !c.is_alphabetic());
    let last = last.rsplit(|c: char| !c.is_alphabetic()).next().unwrap_or("");
    !modifies(last) && !matches!(last, "of" | "times") && !modifies(behind)
}

/// Is it a date as `2021-01-02`, no difference?
fn is_date(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let digits = text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    digits && matches!(parts[..], [y, m, d] if y.len() == 4 && m.len() < 3 && d.len() < 3)
}

/// The trees of a text: one for each way to read its commas and its logarithms.
fn readings_of(text: &str) -> Vec<Expr> {
    if is_date(text) {
        return Vec::new();
    }
    let comma = text
        .as_bytes()
        .windows(3)
        .filter(|w| w[0].is_ascii_digit() && w[1] == b',' && w[2].is_ascii_digit());
    let mut commas = vec![Comma::Thousands];
    match comma.count() {
        0 => {}
        1 if !text.contains(['(', '[']) => {
            commas.push(Comma::Separator);
            // `2,5` are two numbers, `2,50` may be one; `x = 2,50` would be two again.
            let (whole, rest) = text.split_once(',').unwrap_or((text, ""));
            let places = rest.bytes().take_while(u8::is_ascii_digit).count();
            let decimal = places > 3 || places == 2 || whole.trim_start_matches('-') == "0";
            if decimal && places > 1 && !text.contains(['=', '{']) {
                commas.push(Comma::Decimal);
            }
        }
        _ => commas.push(Comma::Separator),
    }
    let logs: &[bool] = if text.contains("log") { &[false, true] } else { &[false] };
    let mut readings = Vec::new();
    for comma in commas {
        for decimal_log in logs {
            if let Some(expr) = parse(text, Reading { comma, decimal_log: *decimal_log })
                && !readings.contains(&expr)
            {
                readings.push(expr);
            }
        }
    }
    readings
}

fn judge(a: &Side, b: &Side) -> Verdict {
    if let Some(rule) = as_text(a, b) {
        return Verdict::equal(rule);
    }
    if !a.is_number() && !b.is_number() && names_apart((&a.text, &a.normal), (&b.text, &b.normal)) {
        return Verdict::different("different");
    }
    let mut verdict = Verdict::different("unparsed");
    let mut comparison = Comparison::new();
    for (at, x) in a.readings.iter().enumerate() {
        for (other, y) in b.readings.iter().enumerate() {
            match comparison.whole(x, y) {
                Outcome::Equal(rule) => return Verdict::equal(rule),
                Outcome::Different if at + other == 0 => verdict = Verdict::different("different"),
                Outcome::Budget => verdict = Verdict::different("budget"),
                _ => {}
            }
        }
    }
    if is_words(&a.normal) && is_words(&b.normal) {
        verdict.rule = "different";
    }
    verdict
}

/// The rules that need no mathematics. Numbers are left to those that say more.
fn as_text(a: &Side, b: &Side) -> Option<&'static str> {
    if !a.normal.is_empty() && a.normal == b.normal && !a.is_number() {
        return Some("normalised");
    }
    let words = |side: &Side| is_words(&side.normal);
    if (words(a) || words(b)) && folded(&a.normal) == folded(&b.normal) {
        return Some("normalised");
    }
    same_choice((&a.text, &a.normal), (&b.text, &b.normal)).then_some("choice")
}
