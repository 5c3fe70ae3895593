//! From a sentence to the answer that it states.

use std::sync::LazyLock;

use super::spans::{Span, spans, words};

/// What a sentence says, and whether it was a `formula`, a `number` or plain `text`.
pub type Reduced<'a> = (&'a str, &'static str);

/// Words that may stand before an answer and are no part of it.
static LEADING: LazyLock<Vec<&str>> = LazyLock::new(|| {
    "therefore|thus|hence|so|then|is|are|was|be|equals|equal to|to|exactly|\
    approximately|about|that|it's|it is|the|just|simply|only|indeed|now|also|we get|we have|\
    we find|we obtain|we see|there are|there is|he has|she has|they have|it has|this gives|\
    gives|giving"
        .split('|')
        .collect()
});
/// What an answer follows; the last of them in a sentence counts.
const COPULAS: [&str; 9] =
    [" is ", " are ", " equals ", " was ", " be ", " it's ", ": ", " = ", " as "];

/// The verbs among them.
const VERBS: [&str; 5] = [" is ", " are ", " equals ", " was ", " it's "];

/// Drops white space, emphasis, quotes and the sentence's end around an answer.
pub fn trim(text: &str) -> &str {
    let around = |c: char| c.is_whitespace() || "*_`\"“”".contains(c);
    let text = text.trim_start();
    // A heading or a quotation, but `>35` is an inequality.
    let mark = text.trim_start_matches(['#', '>']);
    let text = if mark.starts_with(' ') { mark } else { text };
    let mut text = text.trim_matches(around);
    while let Some(shorter) = text.strip_suffix(['.', ',', ';', ':', '!', '?', '。', '，']) {
        // `5!` is a factorial, and `\,` and its like are commands.
        let factorial =
            text.ends_with('!') && shorter.ends_with(|c: char| c.is_alphanumeric() || c == ')');
        if factorial || shorter.ends_with('\\') {
            break;
        }
        text = shorter.trim_end_matches(around);
    }
    text
}

/// The first sentence that says anything. Nobody's final answer takes more than 4,000 bytes.
pub fn first_sentence(text: &str) -> Option<&str> {
    let start = text.trim_start();
    let end = (0..=start.len().min(4000)).rev().find(|at| start.is_char_boundary(*at));
    sentences(&start[..end.unwrap_or(0)]).into_iter().next()
}

/// The sentences of a text that say anything. A sentence ends with its line or with a full stop,
/// question or exclamation mark before white space; not within a formula, not behind a single
/// letter (`B. Paris`, `p.m.`).
pub fn sentences(text: &str) -> Vec<&str> {
    let (mut found, mut start, mut here) = (Vec::new(), 0, 0);
    for span in spans(text) {
        if let Span::Prose(prose) = span {
            for (at, c) in prose.char_indices() {
                let end = here + at + c.len_utf8();
                let (before, behind) = (&prose[..at], &prose[at + c.len_utf8()..]);
                let ends = match c {
                    '\n' | '。' => true,
                    '.' => ends_line_part(behind) && !single_letter(before),
                    // `5!` is a factorial and `\\!` a space.
                    '!' => ends_line_part(behind) && before.ends_with(char::is_alphabetic),
                    '?' => ends_line_part(behind),
                    _ => false,
                };
                if ends {
                    found.push(&text[start..end]);
                    start = end;
                }
            }
        }
        here += span.text().len();
    }
    found.push(&text[start..]);
    found.retain(|sentence| !trim(sentence).is_empty());
    found
}

fn ends_line_part(behind: &str) -> bool {
    let mut marks = behind.chars().take(3).skip_while(|c| "*_\")”".contains(*c));
    marks.next().is_none_or(char::is_whitespace)
}

fn single_letter(before: &str) -> bool {
    let mut back = before.chars().rev();
    back.next().is_some_and(char::is_alphabetic) && !back.next().is_some_and(char::is_alphanumeric)
}

/// The answer that a sentence states: itself when it is hardly more than a formula, else what
/// follows its last copula, its last formula, its last number; `None` when it has none of these.
pub fn reduce(sentence: &str) -> Option<Reduced<'_>> {
    let text = without_label(without_leading(trim(sentence)));
    if text.is_empty() {
        return None;
    }
    let parts = spans(text);
    if is_answer(text, &parts) {
        let said = VERBS.iter().filter_map(|verb| Some(text.rfind(verb)? + verb.len())).max();
        let text = match said.map(|at| (&text[..at], without_leading(text[at..].trim_start()))) {
            Some((subject, tail)) if states(subject, tail) => tail,
            _ => text,
        };
        let parts = spans(text);
        // `$x = 5$, as we saw`: what a comma sets apart behind the formula is a remark.
        let remark = parts.len() > 1
            && parts.last().is_some_and(|part| {
                part.text().starts_with(',')
                    && matches!(part, Span::Prose(prose) if words(prose) > 0)
            });
        let formula = if remark { last_formula(text, &parts) } else { None };
        return formula.map(|formula| (formula, "formula")).or(Some(unwrapped(text, &parts)));
    }
    let behind_formulas = match parts.last() {
        Some(Span::Prose(prose)) => prose,
        _ => "",
    };
    let tail =
        COPULAS.iter().filter_map(|word| Some(behind_formulas.rfind(word)? + word.len())).max();
    let tail =
        tail.map(|at| (&behind_formulas[..at], without_leading(trim(&behind_formulas[at..]))));
    if let Some((_, tail)) = tail.filter(|(_, tail)| words(tail) < 3 && has_digit(tail)) {
        return Some((tail, "number"));
    }
    if let Some(formula) = last_formula(text, &parts) {
        return Some((formula, "formula"));
    }
    if let Some(number) = last_number(text) {
        return Some((number, "number"));
    }
    let (subject, tail) = tail?;
    (states(subject, tail) && words(tail) < 4).then_some((tail, "text"))
}

/// Is the predicate an answer without its subject? `it is Navin` says Navin, but `Alice is a knight`
/// and `Bob is a knight` are two answers.
fn states(subject: &str, predicate: &str) -> bool {
    const SUBJECTS: [&str; 8] =
        ["it", "this", "that", "which", "answer", "result", "solution", "choice"];
    let subject = subject.trim_end().rsplit_once(' ').map_or("", |(before, _verb)| before);
    let noun = subject.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    let known = SUBJECTS.iter().any(|word| noun.eq_ignore_ascii_case(word));
    !predicate.is_empty() && (known || has_digit(predicate) || predicate.contains(['$', '\\']))
}

pub fn has_digit(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_digit())
}

fn is_answer(text: &str, parts: &[Span]) -> bool {
    let prose: usize = parts
        .iter()
        .map(|part| match part {
            Span::Prose(prose) => words(prose),
            Span::Formula(..) => 0,
        })
        .sum();
    prose < 3 && !text.contains("\n\n")
}

/// A formula without its delimiters when nothing stands beside it.
fn unwrapped<'a>(text: &'a str, parts: &[Span<'a>]) -> Reduced<'a> {
    match parts {
        [Span::Formula(_, inside)] => (inside.trim(), "formula"),
        [Span::Prose(_)] if has_digit(text) => (amount(text).unwrap_or(text), "number"),
        [Span::Prose(_)] => (text, "text"),
        _ => (text, "formula"),
    }
}

/// `2,74 $ in all`: an amount ends with its currency.
fn amount(text: &str) -> Option<&str> {
    let (at, sign) = text.char_indices().find(|(_, c)| "$€£¥".contains(*c))?;
    let number = text[..at].trim_end();
    let digits = number.chars().all(|c| c.is_ascii_digit() || ".,-".contains(c));
    (digits && has_digit(number)).then(|| &text[..at + sign.len_utf8()])
}

fn without_leading(text: &str) -> &str {
    let mut text = text;
    'again: while text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        for word in LEADING.iter() {
            let (Some(head), true) = (text.get(..word.len()), text.len() > word.len()) else {
                continue;
            };
            let rest = &text[word.len()..];
            if head.eq_ignore_ascii_case(word) && rest.starts_with([' ', ',', ':', '\n', '$', '\\'])
            {
                text = rest.trim_start_matches([' ', ',', ':', '\n']);
                continue 'again;
            }
        }
        break;
    }
    text
}

/// `A: 96` is 96, `Total = $25` is `$25`; `x = 5` stays an equation.
fn without_label(text: &str) -> &str {
    let words = |label: &str| label.chars().all(|c| c.is_alphabetic() || " *_".contains(c));
    match text
        .split_once(": ")
        .or_else(|| text.split_once(" = ").filter(|(name, _)| name.len() > 2))
    {
        Some((label, rest)) if has_digit(rest) && !rest.contains(" = ") && words(label) => {
            trim(rest)
        }
        _ => text,
    }
}

/// The sentence up to the clause that only explains it: `3/4, which is about 0.75`.
pub fn without_reason(sentence: &str) -> &str {
    const REASONS: [&str; 7] =
        [", which", ", because", " because ", ", since", ", as ", ", where", ", or about"];
    let mut at = 0;
    for span in spans(sentence) {
        if let Span::Prose(prose) = span {
            let cut = REASONS.iter().filter_map(|word| prose.find(word)).min();
            if let Some(cut) = cut.filter(|cut| at + cut > 0) {
                return &sentence[..at + cut];
            }
        }
        at += span.text().len();
    }
    sentence
}

/// The last formula that says more than a name, with those joined to it by commas and `and`.
fn last_formula<'a>(text: &'a str, parts: &[Span<'a>]) -> Option<&'a str> {
    let says = |part: &Span| matches!(part, Span::Formula(_, inside) if !is_name(inside));
    let last = parts.iter().rposition(says)?;
    let mut first = last;
    while first >= 2 && says(&parts[first - 2]) && joins_formulas(parts[first - 1].text()) {
        first -= 2;
    }
    let offset = |upto: usize| parts[..upto].iter().map(|part| part.text().len()).sum::<usize>();
    let mut end = offset(last + 1);
    end += percent(&text[end..]);
    match parts[last] {
        Span::Formula(all, inside) if first == last && end == offset(last) + all.len() => {
            Some(inside.trim())
        }
        _ => Some(&text[offset(first)..end]),
    }
}

fn joins_formulas(prose: &str) -> bool {
    matches!(prose.trim(), "," | ";" | "and" | "or" | ", and" | ", or")
}

/// How long a percent sign or word is that stands here, with the space before it; else 0.
pub fn percent(behind: &str) -> usize {
    let sign = behind.trim_start();
    let rest = ["%", "\\%", "percent", "pct"].iter().find_map(|word| sign.strip_prefix(word));
    let rest = rest.filter(|rest| !rest.starts_with(char::is_alphanumeric));
    rest.map_or(0, |rest| behind.len() - rest.len())
}

/// A formula that only names something: `x`, `ABC`, `(x, y)`, `f(x)`.
fn is_name(formula: &str) -> bool {
    !formula.contains(|c: char| c.is_ascii_digit() || "\\=<>+^/-*|%∞π√".contains(c))
}

/// The last number with its sign, separators, fraction bar, currency and percent sign.
fn last_number(text: &str) -> Option<&str> {
    let digit = text.rfind(|c: char| c.is_ascii_digit())? + 1;
    let body = |c: char| c.is_ascii_digit() || ".,/".contains(c);
    let mut start = text[..digit].trim_end_matches(body).len();
    // `.5` keeps its point; a comma or a stop of the prose before the number goes.
    let lead = text[start..digit].len() - text[start..digit].trim_start_matches([',', '/']).len();
    start += lead;
    for sign in ['$', '€', '£', '-', '−'] {
        if text[..start].ends_with(sign)
            && !text[..start - sign.len_utf8()].ends_with(char::is_alphanumeric)
        {
            start -= sign.len_utf8();
        }
    }
    Some(&text[start..digit + percent(&text[digit..])])
}
