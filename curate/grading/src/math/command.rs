//! LaTeX's commands that take arguments: fractions, roots, fonts, big operators, matrices.

use super::expression::{Expr, Joint};
use super::lexer::Kind;
use super::parser::Parser;

impl Parser<'_> {
    /// `{}_{n}C_{k}`, behind its first `_`.
    pub fn chosen(&mut self) -> Option<Expr> {
        let above = self.argument()?;
        let letter = self.peek().filter(|token| matches!(token.text, "C" | "P"))?.text;
        self.at += 1;
        self.expect('_')?;
        let below = self.argument()?;
        let name = if letter == "C" { "binomial" } else { "permutations" };
        Some(Expr::call(name, vec![above, below]))
    }

    pub fn command(&mut self, name: &str) -> Option<Expr> {
        match name {
            "frac" | "dfrac" | "tfrac" | "cfrac" => {
                let derivative = self.differentials || self.is_derivative();
                let outside = std::mem::replace(&mut self.differentials, derivative);
                let above = self.argument()?;
                let below = self.argument()?;
                self.differentials = outside;
                Some(above.over(below))
            }
            "binom" | "tbinom" | "dbinom" => {
                let above = self.argument()?;
                Some(Expr::call("binomial", vec![above, self.argument()?]))
            }
            "sqrt" | "cbrt" => {
                let degree = if self.eat('[') {
                    let degree = self.sum()?;
                    self.expect(']')?;
                    degree
                } else {
                    Expr::integer(if name == "sqrt" { 2 } else { 3 })
                };
                let inner = match self.sign() {
                    Some('{') => self.argument()?,
                    _ => self.deeper(Self::primary)?,
                };
                Some(inner.raised_to(Expr::integer(1).over(degree)))
            }
            "vec" | "overrightarrow" => {
                // One name: \vec{AB} is not \vec{BA}.
                Some(Expr::call("vec", vec![Expr::Symbol(self.index()?)]))
            }
            "begin" => self.matrix(),
            "mathbb" | "Bbb" => {
                Some(Expr::Symbol(format!("ℝ{}", self.index()?).replace("ℝR", "ℝ")))
            }
            "mathbf" | "boldsymbol" | "bm" | "mathcal" | "mathit" | "mathsf" | "mathfrak" => {
                self.argument()
            }
            "operatorname" => {
                let function = self.index()?;
                self.function(&function)
            }
            "sum" | "prod" | "int" | "iint" | "oint" | "lim" => self.big_operator(name),
            "choose" | "end" | "mod" | "bmod" | "pmod" => None,
            _ => {
                let inner = self.argument()?;
                let segment = name == "overline" && {
                    let parts = inner.children();
                    parts.len() == 2 && parts.into_iter().all(is_point)
                };
                Some(if segment { inner } else { Expr::call(name, vec![inner]) })
            }
        }
    }

    /// Is the fraction whose numerator stands here a derivative, as `\frac{d^2y}{dx^2}` is?
    fn is_derivative(&self) -> bool {
        if self.peek().is_none() {
            return false;
        }
        let mut open = 0usize;
        let above = self.tokens[self.at..].iter().take_while(|token| {
            match token.kind {
                Kind::Sign('{') => open += 1,
                Kind::Sign('}') => open = open.saturating_sub(1),
                _ => {}
            }
            open > 0
        });
        let above = &self.tokens[self.at..self.at + above.count().max(1)];
        let behind = self.tokens[self.at + above.len()..]
            .iter()
            .filter(|token| !matches!(token.kind, Kind::Sign('{' | '}')));
        let below: Vec<_> = behind.take(2).collect();
        let [mark, variable] = below[..] else { return false };
        let marks = DIFFERENTIALS.contains(&mark.text) && variable.kind == Kind::Symbol;
        marks && above.iter().any(|token| token.text == mark.text)
    }

    /// `\sum_{k=1}^{n} …` and its relatives, not evaluated: an operator of bounds and body.
    fn big_operator(&mut self, name: &str) -> Option<Expr> {
        let (mut low, mut high) = (Expr::Symbol(String::new()), Expr::Symbol(String::new()));
        while let Some(sign @ ('_' | '^')) = self.sign() {
            self.at += 1;
            let bound = self.bound()?;
            if sign == '_' { low = bound } else { high = bound }
        }
        let outside = std::mem::replace(&mut self.differentials, name.ends_with("int"));
        let body = self.product()?;
        self.differentials = outside;
        Some(match &low {
            Expr::Relation(items, _) if matches!(name, "sum" | "prod") => {
                let depth = 1 + nesting(&body);
                let bound = Expr::Symbol(format!("k{depth}"));
                let [low, body] = [&low, &body].map(|part| renamed(part, &items[0], &bound));
                Expr::call(name, vec![low, high, body])
            }
            _ => Expr::call(name, vec![low, high, body]),
        })
    }

    fn bound(&mut self) -> Option<Expr> {
        let (start, bars, colons) = (self.at, self.bars, self.colons);
        let differentials = self.differentials;
        if let Some(bound) = self.argument() {
            return Some(bound);
        }
        (self.at, self.bars, self.colons) = (start, bars, colons);
        self.differentials = differentials;
        // `x \to 0` is no relation that is known here
        Some(Expr::Symbol(self.index()?))
    }

    /// A matrix environment, behind `\begin`.
    fn matrix(&mut self) -> Option<Expr> {
        let name = self.index()?;
        if !name.ends_with("matrix") && !matches!(name.as_str(), "array" | "cases") {
            return None;
        }
        if name == "array" && self.sign() == Some('{') {
            self.index()?;
        }
        let mut rows = vec![Vec::new()];
        loop {
            match self.peek()? {
                token if token.text == "end" && token.kind == Kind::Command => break,
                token if token.kind == Kind::Sign('&') => self.at += 1,
                token if token.kind == Kind::Sign('⏎') => {
                    self.at += 1;
                    rows.push(Vec::new());
                }
                _ => {
                    let item = self.relation()?;
                    rows.last_mut()?.push(item);
                }
            }
        }
        self.at += 1;
        self.index()?;
        rows.retain(|row| !row.is_empty());
        let width = rows.first()?.len();
        if rows.iter().any(|row| row.len() != width) {
            return None;
        }
        Some(match name.as_str() {
            // A system of equations is a list of them; with conditions behind them they are none.
            "cases" if width == 1 => Expr::List(rows.concat(), Joint::And),
            "cases" => return None,
            "vmatrix" => match determinant(&rows) {
                Some(value) => value,
                None => Expr::call("det", vec![Expr::Matrix(rows)]),
            },
            _ => Expr::Matrix(rows),
        })
    }
}

/// How many sums and products stand in each other.
fn nesting(expr: &Expr) -> usize {
    let here = matches!(expr, Expr::Call(name, _) if matches!(name.as_str(), "sum" | "prod"));
    usize::from(here) + expr.children().into_iter().map(nesting).max().unwrap_or(0)
}

/// With another name for a bound variable: that of `\sum_{i=1}^n i` is no matter, and no √-1.
pub fn renamed(expr: &Expr, from: &Expr, to: &Expr) -> Expr {
    if expr == from { to.clone() } else { expr.map(&mut |part| renamed(part, from, to)) }
}

/// The determinant of a small square matrix, by its first row.
pub fn determinant(rows: &[Vec<Expr>]) -> Option<Expr> {
    const LARGEST: usize = 3;
    // Every part stands there twice, and in the next determinant around it twice again.
    const LONGEST: usize = 200;
    let long = rows.iter().flatten().map(Expr::size).sum::<usize>() > LONGEST;
    if long || rows.len() > LARGEST || rows.iter().any(|row| row.len() != rows.len()) {
        return None;
    }
    if let [row] = rows {
        return row.first().cloned();
    }
    let terms = rows[0].iter().enumerate().map(|(column, entry)| {
        let minor = |row: &Vec<Expr>| [&row[..column], &row[column + 1..]].concat();
        let below = determinant(&rows[1..].iter().map(minor).collect::<Vec<_>>())?;
        let term = Expr::Product(vec![entry.clone(), below]);
        Some(if column % 2 == 0 { term } else { term.negated() })
    });
    Some(Expr::Sum(terms.collect::<Option<_>>()?))
}

/// What makes one symbol with the letter behind it in a derivative and below an integral.
pub const DIFFERENTIALS: [&str; 3] = ["d", "partial", "Delta"];

/// A capital letter.
fn is_point(expr: &Expr) -> bool {
    matches!(expr, Expr::Symbol(name) if name.len() == 1 && name.as_bytes()[0].is_ascii_uppercase())
}
