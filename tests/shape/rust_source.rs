//! Just enough of Rust's grammar to measure functions and find words outside strings and comments.

/// The source with strings, character literals and comments blanked out; lines stay where they are.
pub fn code_only(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < text.len() {
        let end = skipped(&text, at);
        if end == at {
            code.push(text[at]);
            at += 1;
        } else {
            code.extend(text[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    code
}

/// The end of the string, character or comment that begins at `at`; `at` itself if none does.
fn skipped(text: &[char], at: usize) -> usize {
    let next = |ahead: usize| text.get(at + ahead).copied().unwrap_or('\0');
    let in_word = at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_');
    match (text[at], next(1)) {
        ('/', '/') => (at..text.len()).find(|&i| text[i] == '\n').unwrap_or(text.len()),
        ('/', '*') => block_comment(text, at),
        ('"', _) => quoted(text, at + 1, '"'),
        ('r', '"' | '#') if !in_word || text[at - 1] == 'b' => raw_string(text, at),
        ('\'', '\\') => quoted(text, at + 1, '\''),
        ('\'', _) if next(2) == '\'' => at + 3,
        _ => at,
    }
}

fn block_comment(text: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i + 1 < text.len() {
        match (text[i], text[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    text.len()
}

fn quoted(text: &[char], mut at: usize, quote: char) -> usize {
    while at < text.len() && text[at] != quote {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// A raw string ends with a quote and as many `#` as it began with; `r#name` is none.
fn raw_string(text: &[char], at: usize) -> usize {
    let hashes = text[at + 1..].iter().take_while(|&&c| c == '#').count();
    let open = at + 1 + hashes;
    if text.get(open) != Some(&'"') {
        return at;
    }
    let closes =
        |i: &usize| text[*i] == '"' && text[i + 1..].iter().take(hashes).all(|&c| c == '#');
    (open + 1..text.len()).find(closes).map_or(text.len(), |i| i + 1 + hashes)
}

/// The words of the code, each with its line.
pub fn words(code: &str) -> impl Iterator<Item = (&str, usize)> {
    code.lines().enumerate().flat_map(|(number, line)| {
        let parts = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        parts.filter(|word| !word.is_empty()).map(move |word| (word, number + 1))
    })
}

/// Every function with a body: its name and its length in lines, the signature included.
pub fn functions(code: &str) -> impl Iterator<Item = (String, usize)> {
    let starts = code
        .match_indices("fn ")
        .filter(|(at, _)| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
    starts.filter_map(|(at, _)| {
        let rest = &code[at..];
        let name: String =
            rest[3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        Some((name, rest[..body_end(rest)?].lines().count()))
    })
}

/// Where the body of the function that `code` begins with ends; none for a mere declaration.
fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut others) = (0, 0);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others -= 1,
            ';' if braces == 0 && others == 0 => return None,
            '{' => braces += 1,
            '}' if braces == 1 => return Some(at + 1),
            '}' => braces -= 1,
            _ => {}
        }
    }
    None
}
