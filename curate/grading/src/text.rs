//! Answers as text: one way of writing for each of LaTeX's synonyms, and answers that are no
//! mathematics. Everything here is linear in the text.

/// One way of writing for each of LaTeX's synonyms: outer `$…$`, `\(…\)`, `\[…\]` and a final full
/// stop dropped, `\text{…}` and its relatives unwrapped, `\dfrac` and `\tfrac` read as `\frac`,
/// `\left`, `\right` and spacing dropped.
pub fn normalise(text: &str) -> String {
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
        _ if LOOKS.contains(&name) => {
            out.space();
            rest
        }
        "dfrac" | "tfrac" | "cfrac" => {
            out.command("frac");
            rest
        }
        _ if sets_text(name) && rest.trim_start().starts_with('{') => {
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

/// Commands that set words; `\mathbf` and `\operatorname` may also set a part of a formula.
pub const TEXTS: [&str; 8] =
    ["text", "textrm", "textbf", "textit", "textnormal", "mbox", "hbox", "mathrm"];

/// Commands that only say how something looks.
pub const LOOKS: [&str; 18] = [
    "left",
    "right",
    "big",
    "Big",
    "bigg",
    "Bigg",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "quad",
    "qquad",
    "displaystyle",
    "textstyle",
    "limits",
    "nolimits",
    "middle",
    "hspace",
];

fn sets_text(name: &str) -> bool {
    TEXTS.contains(&name) || matches!(name, "mathbf" | "operatorname")
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

/// Drops white space, a final full stop, the outer math delimiters and a `\text{…}` around
/// everything, however they are nested.
pub fn strip_outside(text: &str) -> &str {
    const PAIRS: [(&str, &str); 4] = [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")];
    let mut text = text.trim();
    // Deeper nesting than this is nothing that anyone wrote, and would take quadratic time.
    for _ in 0..8 {
        let inner = PAIRS.iter().find_map(|(open, close)| {
            let inner = text.strip_prefix(open)?.strip_suffix(close)?;
            // `$a$ and $b$` is not one formula in dollars.
            (!inner.contains(close) && !inner.ends_with('\\')).then_some(inner)
        });
        let stop = || text.strip_suffix('.').filter(|rest| !rest.ends_with('.')); // no ellipsis
        let next = inner.or_else(stop).or_else(|| in_text(text));
        match next.map(str::trim) {
            Some(shorter) => text = shorter,
            None => break,
        }
    }
    text
}

/// The content of a `\text{…}` that is all there is.
pub fn in_text(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('\\')?;
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let inner = rest[letters..].trim_start().strip_prefix('{')?.strip_suffix('}')?;
    (sets_text(&rest[..letters]) && !inner.contains(['{', '}'])).then_some(inner)
}

/// For answers in words: without punctuation at the ends, in lower case, `yes` and `no` as `true`
/// and `false`. Up to three letters may be a formula, in which `!` and `'` say something; and `NO`
/// is a gas.
pub fn folded(normal: &str) -> String {
    let mark = |c: char| c.is_ascii_punctuation() && !"()[]{}|\\$%+-".contains(c);
    let short = normal.chars().filter(|c| c.is_alphabetic()).count() <= 3;
    match normal.trim_matches(mark) {
        "yes" | "Yes" | "YES" => "true".to_owned(),
        "no" | "No" => "false".to_owned(),
        _ => lower(normal.trim_matches(|c| mark(c) && !(short && "!'".contains(c)))),
    }
}

/// In lower case, if there is a word of three letters; the case of shorter ones says something, as
/// in `Co` and `CO`.
pub fn lower(text: &str) -> String {
    let word = text.split(|c: char| !c.is_alphabetic()).any(|word| word.chars().count() > 2);
    if word { text.to_lowercase() } else { text.to_owned() }
}

/// Words only: at least two letters, nothing that mathematics uses.
pub fn is_words(normal: &str) -> bool {
    let letters = normal.chars().filter(|c| c.is_alphabetic()).count();
    letters > 1 && normal.chars().all(|c| c.is_alphabetic() || " -'.,!?".contains(c))
}

/// A time of day: minutes after midnight, or after the beginning of the half that is named.
pub fn time(normal: &str) -> Option<(u32, Option<bool>)> {
    if normal.len() > 24 || !normal.contains(':') {
        return None;
    }
    let text: String = normal.to_lowercase().chars().filter(|c| !" .\\".contains(*c)).collect();
    let (clock, half) = match (text.strip_suffix("am"), text.strip_suffix("pm")) {
        (Some(clock), _) => (clock, Some(false)),
        (_, Some(clock)) => (clock, Some(true)),
        _ => (text.as_str(), None),
    };
    let (hours, minutes) = clock.split_once(':')?;
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(hours) || !digits(minutes) || minutes.len() != 2 || !(1..=2).contains(&hours.len()) {
        return None;
    }
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < if half.is_some() { 13 } else { 24 } && minutes < 60)
        .then_some((hours * 60 + minutes, half))
}
