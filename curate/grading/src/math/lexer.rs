//! LaTeX, plain text and typographic symbols as one stream of tokens.

use super::glyphs;
use super::names::{self, COMMANDS, FUNCTIONS, GREEK, SHORT_WORDS, SYMBOLS, UNITS};
use crate::text::{LOOKS, TEXTS};

/// How a comma between digits is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comma {
    /// `1,234` is a number.
    Thousands,
    /// `1,234` are two numbers.
    Separator,
    /// `1,5` is one and a half.
    Decimal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Digits with their separators and at most one decimal mark.
    Number,
    /// A letter or the name of a symbol.
    Symbol,
    /// A command that is not known: the name of something where it stands alone, else perhaps an
    /// operator whose sides must not change places.
    Unknown,
    /// The name of a function or operator that takes what follows.
    Function,
    /// Punctuation, brackets and operators, one character each; see [`lex`].
    Sign(char),
    /// LaTeX's commands that take arguments, and environments: `frac`, `sqrt`, `begin` …
    Command,
    /// A word, or the content of `\text{…}`.
    Word,
}

#[derive(Debug, Clone, Copy)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    /// Does white space stand in front of it?
    pub spaced: bool,
}

/// Longer texts are not mathematics that anyone wrote as an answer.
pub const MOST_TOKENS: usize = 2_000;

/// The tokens of a text, or `None` when it holds what mathematics does not or is too long.
///
/// Signs are `+ - ± ∓ * / ^ _ ( ) [ ] { } | ⌊ ⌋ ⌈ ⌉ ⟨ ⟩ , ; : = < > ≤ ≥ ≠ ≈ ≡ ∈ ∪ ∩ ∖ ! % ° $ &`,
/// `…` and `∥`, `⦃ ⦄` for the braces of a set, `⏎` for the end of a matrix row, `∧ ∨` for the words
/// `and` and `or`, `′` for a prime, `∣` for the bar in a set. An even number of bare `$` delimits
/// formulas, an odd one is money.
pub fn lex(text: &str, comma: Comma) -> Option<Vec<Token<'_>>> {
    let dollars = text.matches('$').count() - text.matches("\\$").count();
    let money = dollars % 2 == 1;
    let mut lexer = Lexer { rest: text, out: Vec::new(), spaced: false, comma, depth: 0, money };
    while !lexer.rest.is_empty() {
        lexer.step()?;
        if lexer.out.len() > MOST_TOKENS {
            return None;
        }
    }
    Some(lexer.out)
}

struct Lexer<'a> {
    rest: &'a str,
    out: Vec<Token<'a>>,
    spaced: bool,
    comma: Comma,
    /// Open brackets, in which a comma always separates.
    depth: usize,
    /// Is a bare `$` a currency?
    money: bool,
}

impl<'a> Lexer<'a> {
    fn push(&mut self, kind: Kind, text: &'a str) {
        match kind {
            Kind::Sign('(' | '[' | '⦃' | '⟨') => self.depth += 1,
            Kind::Sign(')' | ']' | '⦄' | '⟩') => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.out.push(Token { kind, text, spaced: self.spaced });
        self.spaced = false;
    }

    /// Takes `bytes` off the rest.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        taken
    }

    fn sign(&mut self, sign: char, bytes: usize) {
        let text = self.take(bytes);
        self.push(Kind::Sign(sign), text);
    }

    fn step(&mut self) -> Option<()> {
        let c = self.rest.chars().next()?;
        let number_with_point = |rest: &str| {
            rest.starts_with('.') && rest[1..].starts_with(|d: char| d.is_ascii_digit())
        };
        if c.is_ascii_digit() || number_with_point(self.rest) {
            self.number();
        } else if c == '\\' {
            return self.command();
        } else if c.is_ascii_alphabetic() {
            let letters = self.rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let run = self.take(letters);
            self.letters(run);
        } else if c.is_whitespace() || matches!(c, '~' | '\u{200b}') || c == '$' && !self.money {
            self.take(c.len_utf8());
            self.spaced = true;
        } else {
            return self.symbol(c);
        }
        Some(())
    }

    fn symbol(&mut self, c: char) -> Option<()> {
        const TWO: [(&str, char); 9] = [
            ("<=", '≤'),
            (">=", '≥'),
            ("!=", '≠'),
            ("==", '='),
            ("**", '^'),
            ("...", '…'),
            ("=<", '≤'),
            ("=>", '≥'),
            ("||", '∥'),
        ];
        for (text, sign) in TWO {
            if self.rest.starts_with(text) {
                self.sign(sign, text.len());
                return Some(());
            }
        }
        if let Some(sign) = glyphs::sign(c) {
            self.sign(sign, c.len_utf8());
            return Some(());
        }
        match c {
            '.' => {
                // A full stop at the end of the text or of a row; elsewhere it is no mathematics.
                self.take(1);
                let ends =
                    self.rest.trim_start_matches(['\\', '}', ' ', '\n', '$', '.']).is_empty();
                return ends.then_some(());
            }
            c if c.is_alphabetic() || matches!(c, '∞' | '∅' | '∠' | '△') => {
                let text = self.take(c.len_utf8());
                self.push(Kind::Symbol, text);
            }
            _ => {
                let (tokens, bytes) = glyphs::tokens(self.rest)?;
                self.take(bytes);
                tokens.into_iter().for_each(|(kind, text)| self.push(kind, text));
            }
        }
        Some(())
    }

    /// `12`, `1,234`, `1 000`, `10\,000`, `1{,}234`, `.5`, `2.50`, `1e-5`.
    fn number(&mut self) {
        let digits = |from: &str| from.bytes().take_while(u8::is_ascii_digit).count();
        let first = digits(self.rest);
        let mut end = first;
        while (1..=3).contains(&first) {
            let Some(separator) = self.separator(&self.rest[end..]) else { break };
            if digits(&self.rest[end + separator..]) != 3 {
                break;
            }
            end += separator + 3;
        }
        let point = match self.comma {
            Comma::Decimal => [',', '.'],
            _ => ['.', '.'],
        };
        if self.rest[end..].starts_with(point) {
            let decimals = digits(&self.rest[end + 1..]);
            // A second point makes it a version or a date, not a number.
            end += if decimals > 0 || end > 0 { 1 + decimals } else { 0 };
        }
        let tail = self.rest[end..].strip_prefix(['e', 'E']);
        if let Some(tail) = tail {
            let sign = usize::from(tail.starts_with(['-', '+']));
            let exponent = digits(&tail[sign..]);
            if exponent > 0 {
                end += 1 + sign + exponent;
            }
        }
        let text = self.take(end);
        self.push(Kind::Number, text);
    }

    /// The length of what separates groups of three digits here, if anything does.
    fn separator(&self, rest: &str) -> Option<usize> {
        const ALWAYS: [&str; 10] =
            ["{,}", ",\\! ", ",\\!", "\\,", "{\\,}", "\\!", "\u{2009}", "\u{202f}", "\\ ", " "];
        if let Some(separator) = ALWAYS.iter().find(|separator| rest.starts_with(**separator)) {
            return Some(separator.len());
        }
        let mark = match self.comma {
            Comma::Thousands if self.depth == 0 => ',',
            Comma::Decimal => '.',
            _ => return None,
        };
        rest.starts_with(mark).then_some(1)
    }

    /// Is the last token something that a unit or an operator may follow?
    fn after_value(&self) -> bool {
        self.out.last().is_some_and(|last| match last.kind {
            Kind::Number | Kind::Symbol => true,
            Kind::Sign(sign) => matches!(sign, ')' | '}' | ']' | '$' | '%' | '°' | '|'),
            _ => false,
        })
    }

    /// A run of plain letters: a known name, a word, or a product of single letters.
    fn letters(&mut self, run: &'a str) {
        let before = self.out.last().copied();
        let spaced = self.spaced;
        let after_number_spaced = before.is_some_and(|last| last.kind == Kind::Number);
        let after_number = after_number_spaced && !spaced;
        if after_number && matches!(run, "th" | "st" | "nd" | "rd") {
            return;
        }
        // `1.5 x 10^3`
        let tail = self.rest.trim_start();
        let metres_a_second = after_number_spaced && tail == "/s";
        if matches!(run, "x" | "X")
            && after_number_spaced
            && spaced
            && tail.starts_with("10")
            && tail[2..].starts_with('^')
        {
            return self.push(Kind::Sign('*'), run);
        }
        let raised = match &self.out[..] {
            [.., a, b] if b.kind == Kind::Sign('{') => a.kind == Kind::Sign('^'),
            [.., last] => last.kind == Kind::Sign('^'),
            _ => false,
        };
        match run {
            "th" | "st" | "nd" | "rd" if raised => return self.push(Kind::Word, run),
            "m" if after_number && self.rest.starts_with(['²', '³']) || metres_a_second => {
                return self.push(Kind::Word, run);
            }
            "and" => return self.push(Kind::Sign('∧'), run),
            "or" => return self.push(Kind::Sign('∨'), run),
            "in" if after_number_spaced && self.rest.trim().is_empty() => {
                return self.push(Kind::Word, run);
            }
            "in" if spaced => return self.push(Kind::Sign('∈'), run),
            "pi" | "infinity" | "infty" | "inf" | "oo" | "theta" | "alpha" | "beta" => {
                return self.push(Kind::Symbol, run);
            }
            "choose" | "mod" => return self.push(Kind::Command, run),
            _ => {}
        }
        if FUNCTIONS.contains(&run) && !(self.after_value() && UNITS.contains(&run) && spaced) {
            return self.push(Kind::Function, run);
        }
        if self.after_value() && UNITS.contains(&run) {
            return self.push(Kind::Word, run);
        }
        if let Some(rest) = run.strip_prefix("or").filter(|rest| rest.len() == 1)
            && self.after_value()
            && rest.bytes().all(|b| b.is_ascii_uppercase())
        {
            self.push(Kind::Sign('∨'), &run[..2]);
            return self.push(Kind::Symbol, rest);
        }
        self.other_letters(run)
    }

    /// A run that is no name itself: glued to one, a product of single letters, or a word.
    fn other_letters(&mut self, run: &'a str) {
        let glued = FUNCTIONS.iter().copied().chain(["pi"]).find(|name| {
            run.strip_prefix(name).is_some_and(|rest| (1..=2).contains(&rest.len()))
                && (run.len() > 3 || name.len() == 2)
                && !SHORT_WORDS.contains(&run)
        });
        if let Some(name) = glued {
            let kind = if name == "pi" { Kind::Symbol } else { Kind::Function };
            self.push(kind, &run[..name.len()]);
            return self.letters(&run[name.len()..]);
        }
        // Capitals name points: a product in which the order does not matter anyway.
        let names = run.len() <= 8 && run.bytes().all(|b| b.is_ascii_uppercase());
        if (run.len() <= 3 || names) && !SHORT_WORDS.contains(&run.to_ascii_lowercase().as_str()) {
            for at in 0..run.len() {
                self.push(Kind::Symbol, &run[at..at + 1]);
            }
        } else {
            self.push(Kind::Word, run);
        }
    }

    fn command(&mut self) -> Option<()> {
        let tail = &self.rest[1..];
        let name_len = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        if name_len == 0 {
            return self.escaped(tail);
        }
        self.take(1);
        let name = self.take(name_len);
        let Some(sign) = names::sign(name) else { return self.named(name) };
        // `45\circ` are degrees, but `f\circ g` is a composition.
        if name == "circ" && self.out.last().is_some_and(|last| last.kind == Kind::Symbol) {
            return None;
        }
        self.push(Kind::Sign(sign), name);
        Some(())
    }

    /// What a backslash and no letter says.
    fn escaped(&mut self, tail: &'a str) -> Option<()> {
        let c = tail.chars().next()?;
        let bytes = 1 + c.len_utf8();
        match c {
            '\\' => {
                // JSON escaped twice: `\\frac` is `\frac`; else a row of a matrix ends.
                let after = &tail[1..];
                let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
                let name = &after[..letters];
                let known = COMMANDS.contains(&name)
                    || ["pi", "text", "left", "right", "boxed", "circ", "cdot", "times", "mathrm"]
                        .contains(&name)
                    || !self.in_matrix()
                        && (SYMBOLS.contains(&name) || names::sign(name).is_some());
                if known || after.starts_with(['(', ')', '[', ']']) && !self.in_matrix() {
                    self.take(1);
                } else {
                    self.sign('⏎', bytes);
                }
            }
            '{' => self.sign('⦃', bytes),
            '}' => self.sign('⦄', bytes),
            '%' | '$' | '&' => self.sign(if c == '&' { '∧' } else { c }, bytes),
            '|' => self.sign('∥', bytes),
            '_' | '#' => return None,
            _ => {
                // Spacing, and the delimiters of formulas.
                self.take(bytes);
                self.spaced = true;
            }
        }
        Some(())
    }

    fn in_matrix(&self) -> bool {
        let count = |name: &str| {
            let named = |token: &&Token| token.kind == Kind::Command && token.text == name;
            self.out.iter().filter(named).count()
        };
        count("begin") > count("end")
    }

    fn named(&mut self, name: &'a str) -> Option<()> {
        if LOOKS.contains(&name) || matches!(name, "boxed" | "fbox") {
            if matches!(name, "left" | "right") && self.rest.starts_with('.') {
                self.take(1);
            }
            self.spaced = true;
            return Some(());
        }
        if TEXTS.contains(&name) || name == "rm" {
            return self.words();
        }
        if COMMANDS.contains(&name) {
            self.push(Kind::Command, name);
        } else if FUNCTIONS.contains(&name) {
            self.push(Kind::Function, name);
        } else {
            // `\cotx` lost its space on the way; `\mboxcm` and the like are handled as words.
            let glued = FUNCTIONS.iter().chain(&["pi", "mbox", "text", "quad"]).find(|known| {
                name.strip_prefix(**known).is_some_and(|rest| !rest.is_empty() && known.len() > 1)
            });
            match glued.map(|known| name.split_at(known.len())) {
                Some((function, rest)) if FUNCTIONS.contains(&function) && rest.len() <= 2 => {
                    self.push(Kind::Function, function);
                    self.letters(rest);
                }
                Some(("pi", rest)) if rest.len() == 1 => {
                    self.push(Kind::Symbol, "pi");
                    self.letters(rest);
                }
                Some(("quad", rest)) if rest.len() == 1 => {
                    self.spaced = true;
                    self.letters(rest);
                }
                Some(("mbox" | "text", rest)) => self.push(Kind::Word, rest),
                _ if GREEK.contains(&name) || SYMBOLS.contains(&name) => {
                    self.push(Kind::Symbol, name);
                }
                _ => self.push(Kind::Unknown, name),
            }
        }
        Some(())
    }

    /// `\text{…}`: a word, a joining `and`, a letter of the formula, or nothing.
    fn words(&mut self) -> Option<()> {
        let rest = self.rest.trim_start();
        let Some(inside) = rest.strip_prefix('{') else {
            return Some(()); // `\rm` and the like switch the font
        };
        let mut open = 1usize;
        let end = inside.bytes().position(|byte| {
            match byte {
                b'{' => open += 1,
                b'}' => open -= 1,
                _ => {}
            }
            open == 0
        })?;
        let space = |c: char| c.is_whitespace() || c == '~' || c == '\\' || c == ',' || c == '.';
        let content = &inside[..end];
        let words = content.trim_matches(space);
        self.rest = &inside[end + 1..];
        let kind = match words {
            "and" => Kind::Sign('∧'),
            "or" => Kind::Sign('∨'),
            "in" => Kind::Sign('∈'),
            "" if content.contains(',') => Kind::Sign(','),
            "" => {
                self.spaced = true;
                return Some(());
            }
            "e" | "i" | "d" | "x" | "y" | "n" | "k" if content.len() == 1 => Kind::Symbol,
            _ if FUNCTIONS.contains(&words) => Kind::Function,
            _ => Kind::Word,
        };
        self.push(kind, words);
        Some(())
    }
}
