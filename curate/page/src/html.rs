//! Markup that is safe by construction: text gets in escaped, or not at all.

use std::borrow::Cow;
use std::fmt::Write;

/// A piece of finished markup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Html(String);

impl Html {
    /// An element; attribute values are escaped and quoted.
    ///
    /// Never a void element such as `br`: those have no end tag.
    pub fn element(
        tag: &'static str,
        attributes: &[(&'static str, &str)],
        content: impl Into<Html>,
    ) -> Self {
        let mut html = format!("<{tag}");
        for (name, value) in attributes {
            // Writing to a string cannot fail.
            let _ = write!(html, " {name}=\"{}\"", escape(value));
        }
        let _ = write!(html, ">{}</{tag}>", content.into().0);
        Self(html)
    }

    /// An element without attributes.
    pub fn plain(tag: &'static str, content: impl Into<Html>) -> Self {
        Self::element(tag, &[], content)
    }

    /// The markup.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Text, escaped.
impl From<&str> for Html {
    fn from(text: &str) -> Self {
        Self(escape(text))
    }
}

/// Text, escaped.
impl From<&String> for Html {
    fn from(text: &String) -> Self {
        Self(escape(text))
    }
}

/// Text, escaped.
impl From<String> for Html {
    fn from(text: String) -> Self {
        Self(escape(&text))
    }
}

/// One after the other.
impl<const N: usize> From<[Html; N]> for Html {
    fn from(parts: [Html; N]) -> Self {
        parts.into_iter().collect()
    }
}

/// One after the other.
impl From<Vec<Html>> for Html {
    fn from(parts: Vec<Html>) -> Self {
        parts.into_iter().collect()
    }
}

impl FromIterator<Html> for Html {
    fn from_iter<I: IntoIterator<Item = Html>>(parts: I) -> Self {
        Self(parts.into_iter().map(|part| part.0).collect())
    }
}

impl Extend<Html> for Html {
    fn extend<I: IntoIterator<Item = Html>>(&mut self, parts: I) {
        self.0.extend(parts.into_iter().map(|part| part.0));
    }
}

/// `text` as HTML shows it in content and in quoted attributes alike, see also [`visible`].
fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in visible(text).chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            character => html.push(character),
        }
    }
    html
}

/// `text` with every character that would act instead of show made visible, also for terminals.
///
/// Control characters other than tab and line feed become their pictures (ESC is `␛`);
/// the marks that turn the reading direction, invisible ones that can carry hidden text, and code
/// points that are no characters become `⟦U+202E⟧`.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match u32::from(character) {
            _ if !acts(character) => shown.push(character),
            code @ 0..0x20 => shown.extend(char::from_u32(0x2400 + code)),
            0x7F => shown.push('␡'),
            code => {
                let _ = write!(shown, "⟦U+{code:04X}⟧");
            }
        }
    }
    Cow::Owned(shown)
}

fn acts(character: char) -> bool {
    match u32::from(character) {
        0x09 | 0x0A => false,
        0..0x20 | 0x7F..=0x9F => true,
        // Directions (Unicode's Bidi_Control), zero width, and tags. The joiners 200C and 200D
        // stay: scripts and emoji need them.
        0x61C | 0x200B | 0x200E | 0x200F | 0x202A..=0x202E | 0x2066..=0x2069 | 0xFEFF => true,
        0xE0000..=0xE007F => true,
        code => (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE,
    }
}
