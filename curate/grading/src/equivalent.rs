//! Are two answers the same? Cheap certain rules first; what no rule proves equal is different.

use crate::number::{Number, number};

/// What was decided, and by which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Do both say the same?
    pub equal: bool,
    /// `identical`, `integer`, `normalised` or `number` when equal, else `different`.
    pub rule: &'static str,
}

impl Verdict {
    fn equal(rule: &'static str) -> Self {
        Verdict { equal: true, rule }
    }

    fn different() -> Self {
        Verdict { equal: false, rule: "different" }
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
        Verdict::different()
    }
}

/// Are the two answers the same, and which rule decided?
///
/// - `identical`: the same string.
/// - `integer`: the same integer, `023` = `23`, `1,234` = `1234`, `$-5$` = `-5`.
/// - `normalised`: the same text once LaTeX's many ways of writing one thing are one: outer `$…$`,
///   `\(…\)`, `\[…\]` and a final full stop dropped, `\text{…}` and its relatives unwrapped,
///   `\dfrac` and `\tfrac` read as `\frac`, `\left`, `\right` and spacing dropped.
/// - `number`: the same rational number, written as decimal, `a/b` or `\frac{a}{b}`.
pub fn equivalent(given: &str, expected: &str) -> Verdict {
    if given == expected {
        return Verdict::equal("identical");
    }
    let (given, expected) = (normalise(given), normalise(expected));
    match (number(&given), number(&expected)) {
        (Some(Number::Integer(a)), Some(Number::Integer(b))) if a == b => Verdict::equal("integer"),
        (Some(a), Some(b)) if a.same_value(&b) => Verdict::equal("number"),
        _ if given == expected && !given.is_empty() => Verdict::equal("normalised"),
        _ => Verdict::different(),
    }
}

/// One way of writing for each of LaTeX's synonyms; see [`equivalent()`]. Linear in the text.
fn normalise(text: &str) -> String {
    let mut out = Canonical::default();
    let mut braces = Vec::new(); // true: a brace we wrote, false: the brace of an unwrapped \text
    let mut rest = strip_outside(text);
    while let Some(c) = rest.chars().next() {
        let tail = &rest[c.len_utf8()..];
        rest = match c {
            '\\' => command(tail, &mut out, &mut braces),
            '{' if tail.starts_with(",}") => {
                out.push(','); // 1{,}234
                &tail[2..]
            }
            '{' => {
                braces.push(true);
                out.push('{');
                tail
            }
            '}' => {
                match braces.pop() {
                    Some(false) => out.space(),
                    _ => out.push('}'),
                }
                tail
            }
            '−' => {
                out.push('-'); // the typographic minus sign
                tail
            }
            c if c.is_whitespace() || c == '~' => {
                out.space();
                tail
            }
            c => {
                out.push(c);
                tail
            }
        };
    }
    out.text
}

/// Writes the command that begins `tail` (its backslash is read already) and returns what is left.
fn command<'a>(tail: &'a str, out: &mut Canonical, braces: &mut Vec<bool>) -> &'a str {
    let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (name, rest) = tail.split_at(letters);
    match name {
        "" => {
            let Some(symbol) = rest.chars().next() else {
                out.push('\\');
                return rest;
            };
            match symbol {
                '!' | ',' | ';' | ':' | ' ' => out.space(),
                '%' => out.push('%'),
                _ => {
                    out.push('\\');
                    out.push(symbol);
                }
            }
            &rest[symbol.len_utf8()..]
        }
        "left" | "right" | "displaystyle" | "quad" | "qquad" => {
            out.space();
            rest
        }
        "dfrac" | "tfrac" | "cfrac" => {
            out.command("frac");
            rest
        }
        "text" | "mathrm" | "textrm" | "textbf" | "mathbf" | "textit" | "mbox"
            if rest.trim_start().starts_with('{') =>
        {
            braces.push(false);
            out.space();
            &rest.trim_start()[1..]
        }
        _ => {
            out.command(name);
            rest
        }
    }
}

/// Text in which white space stays only where it keeps two words or two numbers apart.
#[derive(Default)]
struct Canonical {
    text: String,
    space: bool,
}

impl Canonical {
    fn space(&mut self) {
        self.space = true;
    }

    fn push(&mut self, c: char) {
        let apart = |last: char| {
            (last.is_alphabetic() && c.is_alphabetic()) || (last.is_numeric() && c.is_numeric())
        };
        if self.space && self.text.chars().next_back().is_some_and(apart) {
            self.text.push(' ');
        }
        self.space = false;
        self.text.push(c);
    }

    fn command(&mut self, name: &str) {
        self.push('\\');
        self.text.push_str(name);
    }
}

/// Drops white space, a final full stop and the outer math delimiters, however they are nested.
fn strip_outside(text: &str) -> &str {
    const PAIRS: [(&str, &str); 4] = [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")];
    let mut text = text.trim();
    loop {
        let inner = PAIRS.iter().find_map(|(open, close)| {
            let inner = text.strip_prefix(open)?.strip_suffix(close)?;
            // `$a$ and $b$` is not one formula in dollars.
            (!inner.contains(close) && !inner.ends_with('\\')).then_some(inner)
        });
        let next = inner.or_else(|| text.strip_suffix('.')).map(str::trim);
        match next {
            Some(shorter) => text = shorter,
            None => return text,
        }
    }
}
