//! Typographic characters: the sign or the tokens that each stands for.

use super::lexer::Kind::{self, Command, Function, Number, Sign};

/// The sign that a character stands for; see [`super::lexer::lex`].
pub fn sign(c: char) -> Option<char> {
    const THEMSELVES: &str = "+*/^_()[]{}|,;:=<>!%&-±∓≤≥≠≈≡∈∪∩∖°…⌊⌋⌈⌉⟨⟩′";
    Some(match c {
        '−' | '–' => '-',
        '×' | '·' | '⋅' | '∙' => '*',
        '÷' => '/',
        '\'' | '’' => '′',
        '⩽' => '≤',
        '⩾' => '≥',
        '，' | '、' => ',',
        '（' => '(',
        '）' => ')',
        '$' | '€' | '£' | '¥' => '$',
        c => return THEMSELVES.contains(c).then_some(c),
    })
}

type Glyph = (char, &'static [(Kind, &'static str)]);

/// Roots, fractions and exponents.
const GLYPHS: [Glyph; 17] = [
    ('√', &[(Function, "√")]),
    ('∛', &[(Command, "cbrt")]),
    ('½', &[(Command, "frac"), (Number, "1"), (Number, "2")]),
    ('¼', &[(Command, "frac"), (Number, "1"), (Number, "4")]),
    ('¾', &[(Command, "frac"), (Number, "3"), (Number, "4")]),
    ('⅓', &[(Command, "frac"), (Number, "1"), (Number, "3")]),
    ('⅔', &[(Command, "frac"), (Number, "2"), (Number, "3")]),
    ('⁰', &[(Sign('^'), ""), (Number, "0")]),
    ('¹', &[(Sign('^'), ""), (Number, "1")]),
    ('²', &[(Sign('^'), ""), (Number, "2")]),
    ('³', &[(Sign('^'), ""), (Number, "3")]),
    ('⁴', &[(Sign('^'), ""), (Number, "4")]),
    ('⁵', &[(Sign('^'), ""), (Number, "5")]),
    ('⁶', &[(Sign('^'), ""), (Number, "6")]),
    ('⁷', &[(Sign('^'), ""), (Number, "7")]),
    ('⁸', &[(Sign('^'), ""), (Number, "8")]),
    ('⁹', &[(Sign('^'), ""), (Number, "9")]),
];

/// The tokens of the glyph at the beginning of a text, and its length; `⁻³` is one glyph. Exponents
/// of two digits are not read.
pub fn tokens(text: &str) -> Option<(Vec<(Kind, &'static str)>, usize)> {
    let (minus, digit) = match text.strip_prefix('⁻') {
        Some(rest) => (Some((Sign('-'), "")), rest),
        None => (None, text),
    };
    let c = digit.chars().next()?;
    let (_, tokens) = GLYPHS.iter().find(|(glyph, _)| *glyph == c)?;
    let raised = tokens[0].0 == Sign('^');
    let next = digit[c.len_utf8()..].chars().next();
    let second = next.is_some_and(|c| "⁰¹²³⁴⁵⁶⁷⁸⁹".contains(c));
    if minus.is_some() && !raised || raised && second {
        return None;
    }
    let mut tokens = tokens.to_vec();
    tokens.splice(1..1, minus);
    Some((tokens, text.len() - digit.len() + c.len_utf8()))
}
