//! The `\boxed{…}` and `\fbox{…}` of a text, in one pass.

/// A finished box: where it begins and ends in the text, and what it holds, trimmed.
#[derive(Debug, Clone, Copy)]
pub struct Boxed<'a> {
    pub start: usize,
    pub end: usize,
    pub content: &'a str,
}

/// What the pass found.
pub struct Boxes<'a> {
    /// The outermost finished boxes that hold something, in order.
    pub finished: Vec<Boxed<'a>>,
    /// Where the first box behind the last finished one begins that never ends.
    pub unfinished: Option<usize>,
}

/// Finds all boxes. `\{` and `\}` are not braces; `\\boxed`, as doubly escaped texts have it, is a
/// box like `\boxed`; `\boxed 7` holds what stands before the formula's or the line's end.
pub fn boxes(text: &str) -> Boxes<'_> {
    let bytes = text.as_bytes();
    let mut finished: Vec<Boxed> = Vec::new();
    // Each open brace, with the start of the box that it opens.
    let mut open: Vec<Option<usize>> = Vec::new();
    let mut bare = Vec::new();
    // Nothing before the first box matters.
    let starts = ["\\boxed", "\\fbox"].iter().filter_map(|name| text.find(name));
    let mut at = starts.min().unwrap_or(bytes.len());
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => {
                let run = bytes[at..].iter().take_while(|&&b| b == b'\\').count();
                let name = at + run;
                let rest = &text[name..];
                let length = ["boxed", "fbox"].iter().find(|word| rest.starts_with(**word));
                match length.map(|word| name + word.len()) {
                    Some(behind) => match argument(text, behind) {
                        Argument::Braced(inside) => {
                            open.push(Some(name - 1));
                            at = inside;
                        }
                        Argument::Bare(content) => {
                            at = behind + content.len();
                            match content.trim() {
                                "" => bare.push(name - 1),
                                content => {
                                    finished.push(Boxed { start: name - 1, end: at, content })
                                }
                            }
                        }
                        Argument::OtherCommand => at = behind,
                    },
                    // An odd run escapes the brace behind it.
                    None => at = name + usize::from(run % 2 == 1 && rest.starts_with(['{', '}'])),
                }
                continue;
            }
            b'{' => open.push(None),
            b'}' => {
                if let Some(Some(start)) = open.pop() {
                    let mut content = inside(&text[start..at]);
                    while let Some(inner) = finished.pop_if(|last| last.start > start) {
                        // The inner box stands within the content: it is all of it if as long.
                        if content.len() == inner.end - inner.start {
                            content = inner.content;
                        }
                    }
                    finished.push(Boxed { start, end: at + 1, content });
                }
            }
            _ => {}
        }
        at += 1;
    }
    finished.retain(|found| !is_blank(found.content));
    let behind = finished.last().map_or(0, |last| last.end);
    let unfinished = open.into_iter().flatten().chain(bare).filter(|start| *start >= behind).min();
    Boxes { finished, unfinished }
}

enum Argument<'a> {
    Braced(usize),
    Bare(&'a str),
    OtherCommand,
}

fn argument(text: &str, behind: usize) -> Argument<'_> {
    let rest = &text[behind..];
    let trimmed = rest.trim_start_matches(' ');
    if trimmed.starts_with('{') {
        Argument::Braced(text.len() - trimmed.len() + 1)
    } else if trimmed.len() == rest.len() && rest.starts_with(|c: char| c.is_alphanumeric()) {
        Argument::OtherCommand
    } else {
        let ends = |at: &usize| {
            let left = &rest.as_bytes()[*at..];
            matches!(left[0], b'$' | b'\n') || left.starts_with(b"\\)") || left.starts_with(b"\\]")
        };
        // All of these are ASCII, so the cut falls on a character boundary.
        Argument::Bare(&rest[..(0..rest.len()).find(ends).unwrap_or(rest.len())])
    }
}

/// What stands behind the first brace of `\boxed{…`, without another box around all of it.
fn inside(boxed: &str) -> &str {
    boxed.split_once('{').map_or("", |(_, content)| content.trim())
}

/// An echo of the instruction, such as `\boxed{}` and `\boxed{...}`.
fn is_blank(content: &str) -> bool {
    let dots = ["\\ldots", "\\dots", "\\cdots", "\\text{}"];
    dots.contains(&content)
        || content.trim_matches(|c: char| c.is_whitespace() || ".…_~".contains(c)).is_empty()
}
