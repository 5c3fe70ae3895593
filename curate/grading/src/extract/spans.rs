//! Where the formulas of a text are, and where its prose.

/// A formula with its delimiters, or the prose between two formulas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Span<'a> {
    Prose(&'a str),
    /// All of it, and what its delimiters hold.
    Formula(&'a str, &'a str),
}

impl<'a> Span<'a> {
    /// The stretch of text, delimiters included.
    pub fn text(&self) -> &'a str {
        match self {
            Span::Prose(text) | Span::Formula(text, _) => text,
        }
    }
}

/// Cuts a text into formulas (`$…$`, `$$…$$`, `\(…\)`, `\[…\]`, `\begin{…}…\end{…}`) and prose.
/// A dollar sign that pairs only over a blank line, over prose, or with the dollar sign of an
/// amount, is currency. Linear in the text: a closing delimiter that was not found once is not
/// looked for again.
pub fn spans(text: &str) -> Vec<Span<'_>> {
    let bytes = text.as_bytes();
    let (mut found, mut prose, mut at) = (Vec::new(), 0, 0);
    let mut missing: Vec<&str> = Vec::new();
    while at < bytes.len() {
        let rest = &text.as_bytes()[at..];
        let (open, close) = match rest[0] {
            b'$' if rest.starts_with(b"$$") => (2, "$$"),
            b'$' => (1, "$"),
            b'\\' => match rest.get(1) {
                Some(b'(') => (2, "\\)"),
                Some(b'[') => (2, "\\]"),
                _ if rest.starts_with(b"\\begin{") => (0, "\\end{"),
                next => {
                    at += 1 + usize::from(next.is_some_and(u8::is_ascii));
                    continue;
                }
            },
            _ => {
                at += 1;
                continue;
            }
        };
        let inside = &text[at + open..];
        let length = if missing.contains(&close) { None } else { length_to(inside, close) };
        match length {
            None if close != "$" => {
                missing.push(close);
                at += open.max(1);
            }
            Some(length) if close != "$" || is_formula(inside, length) => {
                let end = at + open + length + if open == 0 { 0 } else { close.len() };
                if prose < at {
                    found.push(Span::Prose(&text[prose..at]));
                }
                found.push(Span::Formula(&text[at..end], &inside[..length]));
                (prose, at) = (end, end);
            }
            _ => at += 1,
        }
    }
    if prose < text.len() {
        found.push(Span::Prose(&text[prose..]));
    }
    found
}

/// How far it is to the closing delimiter; for `\end{` to behind the brace of the environment that
/// closes the first one.
fn length_to(inside: &str, close: &str) -> Option<usize> {
    match close {
        "\\end{" => {
            let (mut depth, mut at) = (0usize, 0);
            while let Some(next) = inside[at..].find('\\') {
                at += next;
                let rest = &inside[at..];
                if rest.starts_with("\\begin{") {
                    depth += 1;
                } else if rest.starts_with(close) {
                    depth -= 1;
                    if depth == 0 {
                        return Some(at + rest.find('}')? + 1);
                    }
                }
                at += 1;
            }
            None
        }
        "$" => {
            let bytes = inside.as_bytes();
            let unescaped =
                |at: &usize| bytes[*at] == b'$' && (*at == 0 || bytes[*at - 1] != b'\\');
            (0..bytes.len()).find(unescaped)
        }
        _ => inside.find(close),
    }
}

/// Is what stands between two single dollar signs a formula, not a stretch between two amounts?
fn is_formula(inside: &str, length: usize) -> bool {
    let (content, behind) = (&inside[..length], &inside[length + 1..]);
    let amount = content.ends_with(char::is_whitespace)
        && content.starts_with(|c: char| c.is_ascii_digit())
        && behind.starts_with(|c: char| c.is_ascii_digit());
    !amount && !content.trim().is_empty() && !content.contains("\n\n") && words(content) < 3
}

/// Counts plain words: two letters or more, not the name of a command or function, not in braces,
/// not `and` or `or`.
pub fn words(text: &str) -> usize {
    const NAMES: [&str; 17] = [
        "and", "or", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "pi", "sqrt",
        "min", "max", "mod", "lim",
    ];
    let (mut count, mut depth, mut word, mut command) = (0, 0usize, 0, false);
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        if c.is_alphabetic() || (c == '\'' && at > word) {
            continue;
        }
        let found = &text[word..at];
        let plain = !command && depth == 0 && !NAMES.contains(&found);
        count += usize::from(plain && found.chars().nth(1).is_some());
        command = c == '\\';
        word = at + c.len_utf8();
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    count
}
