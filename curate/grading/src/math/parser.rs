//! Tokens to a tree: lists, relations, sums, products and powers by precedence.
//!
//! The factors of a product stand in `operand.rs`.

use super::expression::{Expr, Joint, Relation};
use super::lexer::{Comma, Kind, Token, lex};
use super::numeral::mixed;

/// `x ≡ 1 (mod 3)` as a call of the relation and the modulus.
pub const MODULO: &str = "mod";

/// Deeper nesting is not an answer that anyone wrote; it would only use up the stack.
const DEEPEST: usize = 48;

/// How one text may be read where its notation leaves a choice.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    pub comma: Comma,
    /// `\log` without a base: the decimal one instead of the natural one.
    pub decimal_log: bool,
}

/// The tree of a text, or `None` when it is not one piece of mathematics.
pub fn parse(text: &str, reading: Reading) -> Option<Expr> {
    let tokens = lex(text, reading.comma)?;
    let mut parser =
        Parser { tokens, at: 0, depth: 0, bars: 0, colons: true, differentials: false, reading };
    let expr = parser.statement()?;
    (parser.at == parser.tokens.len()).then_some(expr)
}

pub struct Parser<'a> {
    pub tokens: Vec<Token<'a>>,
    pub at: usize,
    depth: usize,
    /// Open absolute values, whose bar would else open another one.
    pub bars: usize,
    /// Is a colon a ratio here, not the `such that` of a set?
    pub colons: bool,
    /// Are `d` and the letter behind it one symbol here?
    pub differentials: bool,
    pub reading: Reading,
}

impl<'a> Parser<'a> {
    pub fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    pub fn sign(&self) -> Option<char> {
        match self.peek()?.kind {
            Kind::Sign(sign) => Some(sign),
            _ => None,
        }
    }

    /// Takes the sign if it stands here.
    pub fn eat(&mut self, sign: char) -> bool {
        let here = self.sign() == Some(sign);
        self.at += usize::from(here);
        here
    }

    pub fn expect(&mut self, sign: char) -> Option<()> {
        self.eat(sign).then_some(())
    }

    /// Runs `parse` one level deeper, if there is one.
    pub fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.depth == DEEPEST {
            return None;
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    /// A whole answer: lists in a list when semicolons part them.
    fn statement(&mut self) -> Option<Expr> {
        self.eat('≈'); // `\approx 3.14`
        let mut groups = vec![self.list()?];
        while self.eat(';') {
            if self.peek().is_some() {
                groups.push(self.list()?);
            }
        }
        if groups.len() == 1 {
            return groups.pop();
        }
        let tuple = |group| match group {
            Expr::List(items, _) => Expr::Group('(', items, ')'),
            other => other,
        };
        Some(Expr::List(groups.into_iter().map(tuple).collect(), Joint::And))
    }

    /// Items parted by commas, `and`, `or`; a single one is itself.
    pub fn list(&mut self) -> Option<Expr> {
        let mut items = vec![self.relation()?];
        let (mut joint, mut logic) = (Joint::And, false);
        loop {
            let mut parted = false;
            while let Some(sign @ (',' | '∧' | '∨')) = self.sign() {
                logic |= matches!(self.tokens[self.at].text, "land" | "wedge" | "lor" | "vee");
                self.at += 1;
                parted = true;
                if sign == '∨' {
                    joint = Joint::Or;
                }
            }
            if !parted || self.peek().is_none() || matches!(self.sign(), Some('}' | ';')) {
                break;
            }
            items.push(self.relation()?);
        }
        // `x > 1 \lor x < 0` is what `or` says, but `p \lor q` is one value.
        if logic && !items.iter().all(|item| matches!(item, Expr::Relation(..))) {
            return None;
        }
        Some(match &items[..] {
            [_] => items.remove(0),
            [a, b] if joint == Joint::And => {
                Self::together(a, b).unwrap_or(Expr::List(items, joint))
            }
            _ => Expr::List(items, joint),
        })
    }

    /// `a = b < c …`.
    pub fn relation(&mut self) -> Option<Expr> {
        self.deeper(|parser| {
            let mut items = vec![parser.set()?];
            let mut relations = Vec::new();
            while let Some(relation) = parser.relation_sign() {
                parser.at += 1;
                relations.push(relation);
                items.push(parser.set()?);
            }
            if items.len() == 1 {
                return items.pop();
            }
            let congruent = relations.contains(&Relation::Congruent);
            let relation = Expr::Relation(items, relations);
            if !congruent || !parser.modulus_follows() {
                return Some(relation);
            }
            let bracket = parser.eat('(');
            parser.at += 1;
            let modulus = if bracket { parser.sum()? } else { parser.factor()? };
            if bracket {
                parser.expect(')')?;
            }
            Some(Expr::call(MODULO, vec![relation, modulus]))
        })
    }

    /// Does `\pmod 3` or `(mod 3)` stand here?
    fn modulus_follows(&self) -> bool {
        let at = self.at + usize::from(self.sign() == Some('('));
        self.tokens
            .get(at)
            .is_some_and(|token| matches!(token.text.trim(), "mod" | "pmod" | "bmod"))
    }

    fn relation_sign(&self) -> Option<Relation> {
        Some(match self.sign()? {
            '=' => Relation::Equal,
            '≠' => Relation::Unequal,
            '<' => Relation::Less,
            '≤' => Relation::LessEqual,
            '>' => Relation::Greater,
            '≥' => Relation::GreaterEqual,
            '≈' => Relation::About,
            '∈' => Relation::In,
            '≡' => Relation::Congruent,
            _ => return None,
        })
    }

    /// `A ∪ B ∩ C ∖ D`, from left to right.
    fn set(&mut self) -> Option<Expr> {
        let mut left = without(self.ratio()?);
        while let Some(sign) = self.sign() {
            let name = match sign {
                '∪' => "union",
                '∩' => "intersection",
                '∖' => "without",
                _ => break,
            };
            self.at += 1;
            let right = self.ratio()?;
            left = match left {
                Expr::Call(same, mut items) if same == name && name != "without" => {
                    items.push(right);
                    Expr::Call(same, items)
                }
                left => Expr::call(name, vec![left, right]),
            };
        }
        Some(left)
    }

    /// `a : b` is a quotient; of three and more terms only the proportion counts.
    fn ratio(&mut self) -> Option<Expr> {
        let mut items = vec![self.sum()?];
        while self.colons && self.eat(':') {
            items.push(self.sum()?);
        }
        if items.len() > 1 && items.iter().any(is_word) {
            return None; // a heading, no ratio
        }
        let first = items.remove(0);
        match items.len() {
            0 => Some(first),
            1 => Some(first.over(items.remove(0))),
            _ => Some(Expr::call(
                "ratio",
                items.into_iter().map(|item| item.over(first.clone())).collect(),
            )),
        }
    }

    pub fn sum(&mut self) -> Option<Expr> {
        let mut items = Vec::new();
        loop {
            let sign = self.sign().filter(|sign| matches!(sign, '+' | '-' | '±' | '∓'));
            if sign.is_some() {
                self.at += 1;
            } else if !items.is_empty() {
                break;
            }
            let item = match self.sign() {
                Some('-') if sign.is_some() => self.deeper(|parser| parser.signed_product())?,
                _ => self.product()?,
            };
            items.push(match sign {
                Some('-') => item.negated(),
                Some('±') => Expr::PlusMinus(true, Box::new(item)),
                Some('∓') => Expr::PlusMinus(false, Box::new(item)),
                _ => item,
            });
        }
        Some(if items.len() == 1 { items.remove(0) } else { Expr::Sum(items) })
    }

    /// A product behind one more minus, as in `1 - -2`.
    fn signed_product(&mut self) -> Option<Expr> {
        self.expect('-')?;
        Some(self.product()?.negated())
    }

    /// Factors joined by `*`, `/` or nothing, from left to right.
    pub fn product(&mut self) -> Option<Expr> {
        let mut left = self.factor()?;
        loop {
            if self.modulus_follows() {
                return Some(left);
            }
            left = match self.sign() {
                Some('*') => {
                    let cross = self.crosses(&left);
                    self.at += 1;
                    let right = self.signed_factor()?;
                    if cross { Expr::call("cross", vec![left, right]) } else { times(left, right) }
                }
                Some('/') => {
                    self.at += 1;
                    left.over(self.signed_factor()?)
                }
                // A word is no factor, and has no unit.
                _ if is_word(&left) => return Some(left),
                _ if self.unit_follows() => self.quantity(left)?,
                _ if self.factor_follows() => self.juxtaposed(left)?,
                _ => return Some(left),
            };
        }
    }

    /// Is this `\times` between two vectors, whose order matters?
    fn crosses(&self, left: &Expr) -> bool {
        const VECTORS: [&str; 5] = ["vec", "overrightarrow", "mathbf", "boldsymbol", "bm"];
        let number = matches!(left, Expr::Number(_) | Expr::Decimal(..));
        let next = self.tokens.get(self.at + 1);
        let vector =
            next.is_some_and(|next| next.kind == Kind::Command && VECTORS.contains(&next.text));
        let cross = self.peek().is_some_and(|token| token.text == "times");
        cross && !number && vector
    }

    /// A factor that may carry a sign: `2 * -3`.
    pub fn signed_factor(&mut self) -> Option<Expr> {
        if self.eat('-') {
            return Some(self.deeper(Self::signed_factor)?.negated());
        }
        self.eat('+');
        self.factor()
    }

    /// A factor without a sign between: a product, or the fraction of a mixed number.
    fn juxtaposed(&mut self, left: Expr) -> Option<Expr> {
        let before = self.tokens[self.at - 1];
        let here = self.peek()?;
        if before.kind == Kind::Unknown {
            return None;
        }
        if let (Expr::Quantity(..), Kind::Number) = (&left, here.kind) {
            // `3 hours 20 minutes`
            let right = self.factor()?;
            return Self::together(&left, &self.quantity(right)?);
        }
        if here.kind == Kind::Number {
            // `1 2` is no product, but `5 1/2` is a mixed number.
            let whole = before.kind == Kind::Number && matches!(left, Expr::Number(_));
            let slash = self.tokens.get(self.at + 1).map(|token| token.kind);
            if before.kind == Kind::Number && !(whole && slash == Some(Kind::Sign('/'))) {
                return None;
            }
            if whole {
                let numerator = self.factor()?;
                self.expect('/')?;
                let denominator = self.factor()?;
                return mixed(&left, &numerator.over(denominator));
            }
        }
        let fraction = here.kind == Kind::Command && here.text.ends_with("frac");
        if fraction && before.kind == Kind::Number {
            // What stands behind `11\frac{1}{9}` belongs to all of it.
            let right = self.deeper(Self::primary)?;
            return match mixed(&left, &right) {
                Some(value) => self.raised(value),
                None => Some(times(left, self.raised(right)?)),
            };
        }
        let right = self.factor()?;
        Some(times(left, right))
    }

    /// Can a factor begin here, behind another one?
    fn factor_follows(&self) -> bool {
        let Some(token) = self.peek() else { return false };
        match token.kind {
            Kind::Number | Kind::Symbol | Kind::Function => true,
            Kind::Command => !matches!(token.text, "end" | "choose" | "mod" | "bmod" | "pmod"),
            Kind::Word | Kind::Unknown => false,
            Kind::Sign(sign) => match sign {
                '(' | '[' | '{' | '⌊' | '⌈' => true,
                '|' => self.bars == 0 && self.colons,
                _ => false,
            },
        }
    }
}

/// `ℝ - {0}` as `ℝ ∖ {0}`.
fn without(expr: Expr) -> Expr {
    if let Expr::Sum(items) = &expr
        && let [all, Expr::Product(taken)] = &items[..]
        && let [minus, set @ Expr::Set(_)] = &taken[..]
        && *minus == Expr::integer(-1)
    {
        return Expr::call("without", vec![all.clone(), set.clone()]);
    }
    expr
}

/// A word, or dots.
fn is_word(expr: &Expr) -> bool {
    matches!(expr, Expr::Text(_)) || matches!(expr, Expr::Symbol(name) if name == "…")
}

pub fn times(left: Expr, right: Expr) -> Expr {
    match left {
        Expr::Product(mut items) => {
            items.push(right);
            Expr::Product(items)
        }
        left => Expr::Product(vec![left, right]),
    }
}
