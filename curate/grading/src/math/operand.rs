//! The factors of a product: numbers, names, functions, brackets, LaTeX's commands, units.

use super::command::{DIFFERENTIALS, determinant};
use super::expression::{Expr, Relation};
use super::lexer::{Kind, Token};
use super::names;
use super::numeral::number;
use super::parser::{Parser, times};
use super::units;
use crate::text::lower;

impl Parser<'_> {
    /// A primary with its powers and what else stands behind it: `x^2`, `n!`, `90^\circ`, `5\%`.
    pub fn factor(&mut self) -> Option<Expr> {
        let mut base = self.deeper(Self::primary)?;
        if let Expr::Call(name, arguments) = &mut base {
            // `k(n-k)!` and `x(x+1)^2` are products: what follows belongs to the bracket.
            if is_factor(name, arguments) && matches!(self.sign(), Some('^' | '!')) {
                let front = Expr::Symbol(std::mem::take(name));
                let bracket = arguments.remove(0);
                return Some(times(front, self.raised(bracket)?));
            }
        }
        self.raised(base)
    }

    /// A value with what stands behind it.
    pub fn raised(&mut self, mut base: Expr) -> Option<Expr> {
        const MOST: usize = 8;
        for _ in 0..MOST {
            base = match self.sign() {
                Some('^') => {
                    self.at += 1;
                    self.deeper(|parser| parser.power(base))?
                }
                Some('!') => {
                    self.at += 1;
                    let double = self.eat('!');
                    Expr::call(if double { "double factorial" } else { "factorial" }, vec![base])
                }
                Some('%') => {
                    self.at += 1;
                    Expr::Quantity(Box::new(base), "%".into())
                }
                Some('°') => {
                    self.at += 1;
                    Expr::Quantity(Box::new(base), self.degrees())
                }
                Some('$') => {
                    self.at += 1;
                    Expr::Quantity(Box::new(base), self.currency())
                }
                _ => return Some(base),
            };
        }
        None
    }

    /// The unit of the currency sign that was just read.
    fn currency(&self) -> String {
        units::name(self.tokens[self.at - 1].text.trim_start_matches('\\'))
    }

    /// Degrees of angle, or of temperature when a scale follows.
    fn degrees(&mut self) -> String {
        let scale = self.peek().filter(|next| matches!(next.text, "C" | "F"));
        self.at += usize::from(scale.is_some());
        format!("°{}", scale.map_or("", |scale| scale.text))
    }

    /// What stands behind `^`.
    fn power(&mut self, base: Expr) -> Option<Expr> {
        let braced = self.eat('{');
        let suffix = |token: Token| matches!(token.text, "th" | "st" | "nd" | "rd");
        let exponent = match self.peek()? {
            token if token.kind == Kind::Word && suffix(token) => {
                self.at += 1;
                None
            }
            token if token.kind == Kind::Sign('°') => {
                self.at += 1;
                Some(Expr::Symbol("°".into()))
            }
            token if token.kind == Kind::Sign('′') => {
                self.at += 1;
                Some(Expr::Symbol("′".into()))
            }
            _ if braced => Some(self.list()?),
            _ => Some(self.exponent()?),
        };
        if braced {
            self.expect('}')?;
        }
        Some(match (exponent, base) {
            (None, base) => base,
            (Some(Expr::Symbol(mark)), base) if mark == "°" => {
                Expr::Quantity(Box::new(base), self.degrees())
            }
            (Some(Expr::Symbol(mark)), Expr::Symbol(name)) if mark == "′" => {
                Expr::Symbol(name + "′")
            }
            (Some(exponent), base) => base.raised_to(exponent),
        })
    }

    /// An exponent without braces: `x^2`, `x^-1`, `e^x`, `2^{…}` is read elsewhere.
    fn exponent(&mut self) -> Option<Expr> {
        if self.eat('-') {
            return Some(self.deeper(Self::exponent)?.negated());
        }
        let base = self.deeper(Self::primary)?;
        if self.eat('^') {
            return self.deeper(|parser| parser.power(base));
        }
        Some(base)
    }

    pub fn primary(&mut self) -> Option<Expr> {
        let token = self.peek()?;
        self.at += 1;
        match token.kind {
            Kind::Number => self.numeral(token),
            Kind::Symbol => self.symbol(token.text),
            Kind::Unknown => Some(Expr::Symbol(token.text.to_owned())),
            Kind::Function => self.function(token.text),
            Kind::Command => self.command(token.text),
            Kind::Word => self.word(token),
            Kind::Sign(sign) => self.bracket(sign),
        }
    }

    /// A word where a value is expected: the name of one (`Area = 5`), or an answer of one word.
    fn word(&mut self, token: Token) -> Option<Expr> {
        let alone = self.tokens.len() == 1 || self.at < self.tokens.len();
        let plain = token.text.chars().all(|c| c.is_alphanumeric() || " -'".contains(c));
        (alone && plain).then(|| Expr::Text(lower(token.text)))
    }

    /// A name with its index, primes and, for functions, arguments.
    fn symbol(&mut self, text: &str) -> Option<Expr> {
        let mut name = match text {
            "π" => "pi".to_owned(),
            text => text.to_owned(),
        };
        if self.differentials && DIFFERENTIALS.contains(&text) {
            let variable = self.peek().filter(|next| next.kind == Kind::Symbol);
            name.push_str(variable.map_or("", |variable| variable.text));
            self.at += usize::from(variable.is_some());
        }
        if self.eat('_') {
            let index = self.index()?;
            let mut terms: Vec<_> = index.split('+').collect();
            terms.sort_unstable(); // F_{1+n} is F_{n+1}
            name = format!("{name}_{}", terms.join("+"));
        }
        while self.prime() {
            name.push('′');
        }
        let call = self.sign() == Some('(') && !self.peek()?.spaced;
        let letter = name.chars().next()?.is_alphabetic() && !is_constant(&name);
        if call && letter {
            let start = self.at;
            self.at += 1;
            let arguments = match self.items(')') {
                Some((arguments, _)) => arguments,
                None => {
                    self.at = start;
                    return None;
                }
            };
            if arguments.is_empty() {
                return None;
            }
            return Some(Expr::Call(name, arguments));
        }
        Some(match name.as_str() {
            "pi" => Expr::Pi,
            "e" => Expr::E,
            "i" | "imath" => Expr::I,
            "infty" | "infinity" | "inf" | "oo" | "∞" => Expr::Infinity,
            "emptyset" | "varnothing" | "∅" => Expr::Set(Vec::new()),
            "varphi" => Expr::Symbol("phi".into()),
            "varepsilon" => Expr::Symbol("epsilon".into()),
            "vartheta" => Expr::Symbol("theta".into()),
            _ => Expr::Symbol(name),
        })
    }

    /// Takes `′`, `^\prime` or `^{\prime}` if it stands here.
    fn prime(&mut self) -> bool {
        const WAYS: [&[char]; 3] = [&['′'], &['^', '′'], &['^', '{', '′', '}']];
        let rest = &self.tokens[self.at..];
        let way = WAYS.iter().find(|way| {
            rest.len() >= way.len()
                && way.iter().zip(rest).all(|(sign, token)| token.kind == Kind::Sign(*sign))
        });
        self.at += way.map_or(0, |way| way.len());
        way.is_some()
    }

    /// The text behind `_`, however it is set: `B`, `{B}` and `{\mathrm{B}}` are one index.
    pub fn index(&mut self) -> Option<String> {
        let mut index = String::new();
        let mut open = 0usize;
        loop {
            let token = self.peek()?;
            self.at += 1;
            match token.kind {
                Kind::Sign('{') => open += 1,
                Kind::Sign('}') => open = open.checked_sub(1)?,
                _ => index.push_str(token.text),
            }
            if open == 0 {
                return Some(index);
            }
        }
    }

    /// A known function with its index, power and argument: `\sin^2 x`, `\log_2 8`, `sqrt(3)`.
    pub fn function(&mut self, name: &str) -> Option<Expr> {
        let mut base = None;
        let mut power = None;
        loop {
            if self.sign() == Some('_') && base.is_none() {
                self.at += 1;
                base = Some(self.argument()?);
            } else if self.sign() == Some('^') && power.is_none() {
                self.at += 1;
                let braced = self.eat('{');
                power = Some(if braced { self.sum()? } else { self.exponent()? });
                if braced {
                    self.expect('}')?;
                }
            } else {
                break;
            }
        }
        let arguments = match self.sign() {
            Some('(' | '[') => {
                let close = if self.eat('(') {
                    ')'
                } else {
                    self.at += 1;
                    ']'
                };
                self.items(close)?.0
            }
            Some('{') => vec![self.argument()?],
            _ => vec![self.deeper(Self::bare_argument)?],
        };
        if arguments.is_empty() {
            return None;
        }
        let name = match name {
            "acos" => "arccos",
            "asin" => "arcsin",
            "atan" => "arctan",
            name => name,
        };
        const CIRCULAR: [&str; 6] = ["sin", "cos", "tan", "cot", "sec", "csc"];
        let inverse = power == Some(Expr::integer(-1)) && CIRCULAR.contains(&name);
        let one = |mut arguments: Vec<Expr>| (arguments.len() == 1).then(|| arguments.remove(0));
        let value = match name {
            "√" | "sqrt" => one(arguments)?.raised_to(Expr::integer(1).over(Expr::integer(2))),
            "exp" => Expr::E.raised_to(one(arguments)?),
            "lg" | "log" => {
                let ten = name == "lg" || self.reading.decimal_log;
                let base = base.take().or(ten.then(|| Expr::integer(10)));
                let value = Expr::call("ln", vec![one(arguments)?]);
                base.map_or(value.clone(), |base| value.over(Expr::call("ln", vec![base])))
            }
            "det" => match &arguments[..] {
                [Expr::Matrix(rows)] => determinant(rows)?,
                _ => Expr::call(name, arguments),
            },
            _ if inverse => inverse_of(name, one(arguments)?),
            "arcsec" | "arccsc" => inverse_of(&name[3..], one(arguments)?),
            _ => Expr::Call(name.to_owned(), arguments),
        };
        if base.is_some() {
            return None;
        }
        Some(match power {
            Some(power) if !inverse => value.raised_to(power),
            _ => value,
        })
    }

    /// What a function without brackets takes: the factors up to the next function or sign.
    fn bare_argument(&mut self) -> Option<Expr> {
        if self.eat('-') {
            return Some(self.deeper(Self::bare_argument)?.negated());
        }
        let mut value = self.factor()?;
        while let Some(token) = self.peek() {
            let goes_on = match token.kind {
                Kind::Number | Kind::Symbol => true,
                Kind::Command => token.text.ends_with("frac") || token.text == "sqrt",
                _ => false,
            };
            if !goes_on {
                break;
            }
            value = times(value, self.factor()?);
        }
        Some(value)
    }

    /// One argument of a command: braced, or one token, of a number one digit.
    pub fn argument(&mut self) -> Option<Expr> {
        let token = self.peek()?;
        if self.eat('{') {
            let value = self.deeper(Self::list)?;
            self.expect('}')?;
            return Some(value);
        }
        if token.kind == Kind::Number && token.text.len() > 1 && token.text.is_ascii() {
            let (digit, rest) = token.text.split_at(1);
            self.tokens[self.at] = Token { text: rest, ..token };
            return number(digit, self.reading.comma);
        }
        self.deeper(Self::primary)
    }

    /// Items up to a closing bracket and that bracket; `close` may be any of its kind.
    pub fn items(&mut self, close: char) -> Option<(Vec<Expr>, char)> {
        let bars = std::mem::take(&mut self.bars);
        let colons = std::mem::replace(&mut self.colons, close != '⦄');
        let mut items = Vec::new();
        loop {
            match self.sign() {
                Some(end @ (')' | ']')) if matches!(close, ')' | ']') => {
                    self.at += 1;
                    self.bars = bars;
                    self.colons = colons;
                    return Some((items, end));
                }
                Some(end) if end == close => {
                    self.at += 1;
                    self.bars = bars;
                    self.colons = colons;
                    return Some((items, end));
                }
                Some(',' | ';' | '∧' | '∨') if !items.is_empty() => self.at += 1,
                Some('|' | '∣' | ':') if close == '⦄' && items.len() == 1 => {
                    self.at += 1;
                    items = vec![such_that(items.remove(0), self.list()?)];
                }
                _ => items.push(self.relation()?),
            }
        }
    }

    fn bracket(&mut self, sign: char) -> Option<Expr> {
        match sign {
            '(' | '[' => {
                let close = if sign == '(' { ')' } else { ']' };
                let (mut items, end) = self.items(close)?;
                match items.len() {
                    0 => None,
                    1 if end == close => items.pop(),
                    1 => None,
                    _ => Some(Expr::Group(sign, items, end)),
                }
            }
            '⟨' => Some(Expr::Group('(', self.items('⟩')?.0, ')')),
            '⦃' => {
                let (mut items, _) = self.items('⦄')?;
                let described = |item: &Expr| match item {
                    Expr::Relation(..) | Expr::List(..) => true,
                    Expr::Call(name, _) => name == SUCH_THAT,
                    _ => false,
                };
                if items.len() == 1 && described(&items[0]) {
                    return items.pop();
                }
                Some(Expr::Set(items))
            }
            '{' => self.braces(),
            '|' | '∥' => {
                let bars = self.bars;
                self.bars += 1;
                let inner = self.list();
                self.bars = bars;
                let inner = inner?;
                self.expect(sign)?;
                Some(Expr::call(if sign == '|' { "abs" } else { "norm" }, vec![inner]))
            }
            '⌊' | '⌈' => {
                let inner = self.sum()?;
                self.expect(if sign == '⌊' { '⌋' } else { '⌉' })?;
                Some(Expr::call(if sign == '⌊' { "floor" } else { "ceil" }, vec![inner]))
            }
            '$' => {
                let unit = self.currency();
                Some(Expr::Quantity(Box::new(self.factor()?), unit))
            }
            '…' => Some(Expr::Symbol("…".into())),
            _ => None,
        }
    }

    /// LaTeX's braces only group: `{a}` is `a`, `{1,3}` a bare list, `{n \choose k}` a binomial.
    fn braces(&mut self) -> Option<Expr> {
        if self.eat('}') {
            // `{}_nC_r`: the empty base of an index.
            return if self.eat('_') { self.chosen() } else { None };
        }
        let inner = self.list()?;
        if self.peek().is_some_and(|token| token.text == "choose") {
            self.at += 1;
            let below = self.list()?;
            self.expect('}')?;
            return Some(Expr::call("binomial", vec![inner, below]));
        }
        self.expect('}')?;
        Some(inner)
    }
}

/// The inverse of a circular function.
fn inverse_of(name: &str, value: Expr) -> Expr {
    match name {
        "sec" => Expr::call("arccos", vec![Expr::integer(1).over(value)]),
        "csc" => Expr::call("arcsin", vec![Expr::integer(1).over(value)]),
        name => Expr::Call(format!("arc{name}"), vec![value]),
    }
}

/// `{2k : k ∈ ℤ}` as a call of what stands before and behind the bar.
pub const SUCH_THAT: &str = "such that";

/// In `{x | x > 1}` and `{x ∈ ℝ : x > 1}` the condition says it all.
fn such_that(head: Expr, condition: Expr) -> Expr {
    let real = match &head {
        Expr::Symbol(_) => true,
        Expr::Relation(items, relations) => {
            relations[..] == [Relation::In]
                && matches!(&items[..], [Expr::Symbol(_), Expr::Symbol(set)] if set == "ℝ")
        }
        _ => false,
    };
    if real { condition } else { Expr::call(SUCH_THAT, vec![head, condition]) }
}

/// Do the brackets behind the name multiply, as in `k(n-k)`? Around a lone number or letter they
/// hold an argument: `P(0)`, `y(x)`.
pub fn is_factor(name: &str, arguments: &[Expr]) -> bool {
    const FUNCTIONS: [&str; 12] = ["f", "g", "h", "F", "G", "H", "E", "O", "P", "S", "T", "Gamma"];
    let lone = |argument: &Expr| match argument {
        Expr::Number(_) | Expr::Decimal(..) | Expr::Symbol(_) | Expr::Text(_) => true,
        other => matches!(other, Expr::Pi | Expr::E | Expr::I | Expr::Infinity),
    };
    let letter = name.split(['_', '′']).next().unwrap_or(name);
    let symbol = letter.chars().count() == 1 || names::GREEK.contains(&letter);
    let function = FUNCTIONS.contains(&letter) || name.contains('′');
    symbol && !function && matches!(arguments, [argument] if !lone(argument))
}

fn is_constant(name: &str) -> bool {
    matches!(name, "pi" | "e" | "i" | "infty" | "∞" | "angle" | "triangle" | "cdot")
}
