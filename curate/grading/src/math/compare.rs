//! Two trees: are they the same answer? By kind, from collections down to scalars.

use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive};

use super::complex::Value;
use super::exact::{Exact, Stop};
use super::expression::{Expr, Joint};
use super::form::form;
use super::monomial::cost_of;
use super::operand::SUCH_THAT;
use super::parser::MODULO;
use super::probe::{self, Probe};
use super::{relation, sets, units};

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The same, by the named rule.
    Equal(&'static str),
    Different,
    /// No rule knows.
    Unknown,
    /// It would take too long to find out.
    Budget,
}

impl Outcome {
    pub fn is_equal(self) -> bool {
        matches!(self, Outcome::Equal(_))
    }

    /// The same decision under the name of a wider rule.
    pub fn by(self, rule: &'static str) -> Outcome {
        if self.is_equal() { Outcome::Equal(rule) } else { self }
    }

    fn or(self, other: impl FnOnce() -> Outcome) -> Outcome {
        if self.is_equal() { self } else { other() }
    }
}

/// The comparisons of one judgement, which share what they may cost.
pub struct Comparison {
    pub exact: Exact,
}

/// `±` as what it stands for: an answer with each sign.
fn both_signs(expr: &Expr) -> Expr {
    let has = |expr: &Expr| expr.any(&|part| matches!(part, Expr::PlusMinus(..)));
    if !has(expr) {
        return expr.clone();
    }
    fn chosen(expr: &Expr, upper: bool) -> Expr {
        match expr {
            Expr::PlusMinus(plus, inner) if *plus == upper => chosen(inner, upper),
            Expr::PlusMinus(_, inner) => chosen(inner, upper).negated(),
            other => other.map(&mut |part| chosen(part, upper)),
        }
    }
    let pair = |item: &Expr| match has(item) {
        true => vec![chosen(item, true), chosen(item, false)],
        false => vec![item.clone()],
    };
    match expr {
        Expr::List(items, joint) => Expr::List(items.iter().flat_map(pair).collect(), *joint),
        Expr::Set(items) => Expr::Set(items.iter().flat_map(pair).collect()),
        other => Expr::List(pair(other), Joint::And),
    }
}

impl Comparison {
    pub fn new() -> Self {
        Comparison { exact: Exact::new() }
    }

    /// Two whole answers.
    pub fn whole(&mut self, a: &Expr, b: &Expr) -> Outcome {
        let plain = |side| both_signs(&relation::with_parameters(side));
        let outcome = self.solutions(&plain(a), &plain(b));
        // A doubt on the way there may have been taken for a difference.
        if self.exact.budget.is_spent() { outcome.or(|| Outcome::Budget) } else { outcome }
    }

    /// The value of a constant.
    pub fn constant(&self, expr: &Expr) -> Option<Value> {
        probe::constant(expr, &self.exact.budget)
    }

    /// Two whole answers: the solution set {5} and the solution 5 are the same, but no parts are.
    pub fn solutions(&mut self, a: &Expr, b: &Expr) -> Outcome {
        match (a, b) {
            (Expr::Set(items), other) | (other, Expr::Set(items))
                if items.len() == 1 && !is_collection(other) && !is_collection(&items[0]) =>
            {
                self.answers(&items[0], other).by("collection")
            }
            _ => self.answers(a, b),
        }
    }

    /// Two answers or parts of answers.
    pub fn answers(&mut self, a: &Expr, b: &Expr) -> Outcome {
        if a == b {
            return Outcome::Equal(self.rule_of(a));
        }
        // To walk through both and to copy parts of them.
        if self.exact.budget.pay(16 + 4 * (a.size() + b.size()) as u64).is_err() {
            return Outcome::Budget;
        }
        match (a, b) {
            (Expr::Time(x, half), Expr::Time(y, other)) => {
                let halves = half.is_none() || other.is_none() || half == other;
                let (x, y) = (Self::minutes(*x, *half, *other), Self::minutes(*y, *other, *half));
                if halves && x == y { Outcome::Equal("time") } else { Outcome::Different }
            }
            (Expr::Time(..), _) | (_, Expr::Time(..)) => Outcome::Unknown,
            (Expr::Relation(..), Expr::Relation(..)) => relation::relations(self, a, b),
            (Expr::Relation(..), other) => relation::with_value(self, a, other),
            (other, Expr::Relation(..)) => relation::with_value(self, b, other),
            (Expr::Text(_), _) | (_, Expr::Text(_)) => Outcome::Different,
            (Expr::Quantity(..), Expr::Quantity(..)) => self.quantities(a, b),
            (Expr::Quantity(value, unit), other) if !is_collection(other) => {
                self.unit_against_none(a, value, unit, other)
            }
            (other, Expr::Quantity(value, unit)) if !is_collection(other) => {
                self.unit_against_none(b, value, unit, other)
            }
            _ if is_collection(a) || is_collection(b) => self.collections(a, b),
            (Expr::Call(f, x), Expr::Call(g, y))
                if f == g && [SUCH_THAT, MODULO].contains(&&**f) =>
            {
                match self.in_order(x, y) {
                    // x may have another name, and 1 and 4 are the same modulo 3.
                    Outcome::Different => Outcome::Unknown,
                    outcome => outcome,
                }
            }
            _ => self.scalars(a, b),
        }
    }

    /// By what rule something is equal to itself.
    fn rule_of(&mut self, expr: &Expr) -> &'static str {
        match expr {
            Expr::Text(_) => "normalised",
            Expr::Time(..) => "time",
            Expr::Quantity(..) => "units",
            Expr::Relation(_, relations) if relations.iter().all(|r| relation::names(*r)) => {
                "equation"
            }
            Expr::Relation(..) => "relation",
            expr if is_collection(expr) => "collection",
            expr => match form(&mut self.exact, expr).ok().and_then(|form| form.value()) {
                Some(value) if value.is_integer() => "integer",
                Some(_) => "number",
                None => "exact",
            },
        }
    }

    /// Minutes after midnight. A bare hour below 13 takes the other side's half of the day, since who
    /// answers `3:30` to a question about an afternoon leaves that out; from 13 on there is one
    /// reading.
    fn minutes(minutes: u32, half: Option<bool>, other: Option<bool>) -> u32 {
        match half.or(other.filter(|_| minutes < 13 * 60)) {
            Some(pm) => minutes % 720 + if pm { 720 } else { 0 },
            None => minutes,
        }
    }

    fn quantities(&mut self, a: &Expr, b: &Expr) -> Outcome {
        let (Expr::Quantity(x, unit), Expr::Quantity(y, other)) = (a, b) else {
            return Outcome::Unknown;
        };
        if unit == other || is_generic(unit) || is_generic(other) {
            return self.answers(x, y).by("units");
        }
        let Some(factor) = units::factor(unit, other) else { return Outcome::Different };
        let converted = Expr::Product(vec![Expr::Number(factor), (**x).clone()]);
        self.answers(&converted, y).by("units")
    }

    /// A missing unit is forgiven; `50%` is 50 or 0.5, `90°` is 90 or π/2.
    fn unit_against_none(
        &mut self,
        whole: &Expr,
        value: &Expr,
        unit: &str,
        other: &Expr,
    ) -> Outcome {
        if let Some(other) = units::letter(other)
            && units::factor(unit, &other.1).is_some()
        {
            return self.quantities(whole, &Expr::Quantity(Box::new(other.0), other.1));
        }
        let outcome = self.answers(value, other);
        let outcome = match unit {
            "%" | "°" => outcome.or(|| self.scalars(whole, other)),
            _ => outcome,
        };
        outcome.by("units")
    }

    fn collections(&mut self, a: &Expr, b: &Expr) -> Outcome {
        let (x, y) = (multiplied(a), multiplied(b));
        if x.is_some() || y.is_some() {
            return self.answers(x.as_ref().unwrap_or(a), y.as_ref().unwrap_or(b));
        }
        let outcome = match (a, b) {
            (Expr::Matrix(x), Expr::Matrix(y)) => {
                let shape = |rows: &[Vec<Expr>]| (rows.len(), rows[0].len());
                if shape(x) != shape(y) {
                    return Outcome::Different;
                }
                self.in_order(&x.concat(), &y.concat())
            }
            (Expr::Matrix(rows), Expr::Group(_, items, _))
            | (Expr::Group(_, items, _), Expr::Matrix(rows)) => {
                if rows.len() > 1 && rows[0].len() > 1 {
                    return Outcome::Different;
                }
                self.in_order(&rows.concat(), items)
            }
            (Expr::Group(open, x, close), Expr::Group(other_open, y, other_close)) => {
                // Round or square only matters where the two items may be an interval's ends.
                if x.len() == 2 && (open, close) != (other_open, other_close) {
                    return Outcome::Different;
                }
                self.in_order(x, y)
            }
            (Expr::List(x, _), Expr::Group(_, y, _)) | (Expr::Group(_, x, _), Expr::List(y, _)) => {
                if x.iter().chain(y).any(is_collection) {
                    return self.in_any_order(x, y).by("collection");
                }
                let (x, y) = (relation::sorted_by_name(x), relation::sorted_by_name(y));
                self.in_order(&x, &y)
            }
            (Expr::List(x, joint), Expr::List(y, other)) => {
                match (relation::are_alternatives(x), relation::are_alternatives(y)) {
                    (true, true) => self.in_any_order(x, y),
                    _ if joint != other => Outcome::Different,
                    (false, false) => self.in_any_order(x, y),
                    // `x = 1, y = 2` against `1, 2`
                    _ => self.in_order(&relation::sorted_by_name(x), &relation::sorted_by_name(y)),
                }
            }
            (Expr::Set(x), Expr::Set(y)) => self.as_sets(x, y),
            // Who lists something twice in so many words means it.
            (Expr::Set(set), Expr::List(list, _)) | (Expr::List(list, _), Expr::Set(set)) => {
                if list.len() > set.len() { Outcome::Different } else { self.as_sets(set, list) }
            }
            (Expr::Call(f, x), Expr::Call(g, y)) if f == g => {
                let outcome =
                    if f == "without" { self.in_order(x, y) } else { self.in_any_order(x, y) };
                if outcome == Outcome::Different { Outcome::Unknown } else { outcome }
            }
            _ => Outcome::Unknown,
        };
        let outcome = outcome.by("collection");
        if outcome.is_equal() {
            return outcome;
        }
        match sets::compare(self, a, b) {
            Outcome::Unknown if outcome == Outcome::Unknown && !computes(a) && !computes(b) => {
                Outcome::Different
            }
            Outcome::Unknown => outcome,
            decided => decided,
        }
    }

    /// Ordered and as many.
    pub fn in_order(&mut self, x: &[Expr], y: &[Expr]) -> Outcome {
        if x.len() != y.len() {
            return Outcome::Different;
        }
        for (a, b) in x.iter().zip(y) {
            let outcome = self.answers(a, b);
            if !outcome.is_equal() {
                return outcome;
            }
        }
        Outcome::Equal("collection")
    }

    /// As many on both sides, each with its partner.
    fn in_any_order(&mut self, x: &[Expr], y: &[Expr]) -> Outcome {
        if x.len() != y.len() {
            return Outcome::Different;
        }
        let mut free: Vec<&Expr> = y.iter().collect();
        for a in x {
            let mut doubt = Outcome::Different;
            let partner = free.iter().position(|b| {
                let outcome = self.answers(a, b);
                if !matches!(outcome, Outcome::Different | Outcome::Equal(_)) {
                    doubt = outcome;
                }
                outcome.is_equal()
            });
            match partner {
                Some(at) => drop(free.remove(at)),
                None => return doubt,
            }
        }
        Outcome::Equal("collection")
    }

    /// Each element of one in the other; how often it is written does not matter.
    fn as_sets(&mut self, x: &[Expr], y: &[Expr]) -> Outcome {
        if x.is_empty() != y.is_empty() {
            return Outcome::Different;
        }
        for (from, to) in [(x, y), (y, x)] {
            for a in from {
                if !to.iter().any(|b| self.answers(a, b).is_equal()) {
                    return Outcome::Different;
                }
            }
        }
        Outcome::Equal("collection")
    }

    /// Two expressions for one value each.
    pub fn scalars(&mut self, a: &Expr, b: &Expr) -> Outcome {
        if let (Some(x), Some(y)) = (infinity(a), infinity(b)) {
            return if x == y { Outcome::Equal("exact") } else { Outcome::Different };
        }
        if infinity(a).is_some() || infinity(b).is_some() {
            return Outcome::Different;
        }
        // Written numbers of any length need no arithmetic.
        if let (Some(x), Some(y)) = (written(a), written(b)) {
            let rule = if x.is_integer() { "integer" } else { "number" };
            return if x == y { Outcome::Equal(rule) } else { Outcome::Different };
        }
        let mut budget = false;
        match self.exactly(a, b) {
            Ok(Outcome::Unknown) => {}
            Ok(Outcome::Different) => return self.rounded(a, b).unwrap_or(Outcome::Different),
            Ok(outcome) => return outcome,
            Err(stop) => budget = stop == Stop::Budget,
        }
        if let Some(outcome) = self.rounded(a, b) {
            return outcome;
        }
        match probe::compare(a, b, &self.exact.budget) {
            Probe::Equal => Outcome::Equal("probe"),
            Probe::Different => Outcome::Different,
            Probe::Unknown if budget || self.exact.budget.is_spent() => Outcome::Budget,
            Probe::Unknown => Outcome::Unknown,
        }
    }

    fn exactly(&mut self, a: &Expr, b: &Expr) -> Result<Outcome, Stop> {
        let (x, y) = (form(&mut self.exact, a)?, form(&mut self.exact, b)?);
        if self.exact.same(&x, &y)? {
            return Ok(Outcome::Equal(match x.value().or_else(|| y.value()) {
                Some(value) if value.is_integer() => "integer",
                Some(_) => "number",
                None => "exact",
            }));
        }
        let minus = self.exact.times(&y, &super::exact::Form::integer(-1))?;
        let gap = self.exact.add(x, minus)?;
        Ok(if gap.is_zero() {
            Outcome::Equal("exact")
        } else if self.exact.certain(&gap) {
            Outcome::Different
        } else {
            Outcome::Unknown
        })
    }

    /// A decimal against an exact value: the same if it is that value correctly rounded and has at
    /// least six significant digits. Two decimals are compared as they stand.
    fn rounded(&mut self, a: &Expr, b: &Expr) -> Option<Outcome> {
        let (value, places, other) = match (a, b) {
            (Expr::Decimal(..), Expr::Decimal(..) | Expr::Number(_)) if whole(b) => return None,
            (Expr::Number(_), Expr::Decimal(..)) if whole(a) => return None,
            (Expr::Decimal(value, places), other) => (value, *places, other),
            (other, Expr::Decimal(value, places)) => (value, *places, other),
            _ => return None,
        };
        let unit = num_bigint::BigInt::from(10).pow(u32::try_from(places.min(400)).unwrap_or(0));
        let six = value.numer().abs() * &unit >= value.denom() * 100_000;
        if !six || value.numer().to_f64().is_none_or(|v| v == 0.0) || places <= 0 {
            return None;
        }
        let half = BigRational::new_raw(1.into(), unit * 2);
        if let Some(exact) = form(&mut self.exact, other).ok().and_then(|form| form.value()) {
            self.exact.pay(3 * cost_of(&exact, value)).ok()?;
            let close = (&exact - value).abs() <= half;
            return Some(if close { Outcome::Equal("rounded") } else { Outcome::Different });
        }
        let exact = self.constant(other)?;
        let (value, half) = (value.to_f64()?, half.to_f64()?);
        let gap = (exact.re - value).abs();
        let slack = exact.error + value.abs() * 2e-16;
        if !exact.is_real() || slack >= half / 10.0 {
            return None;
        }
        Some(if gap <= half + slack { Outcome::Equal("rounded") } else { Outcome::Different })
    }
}

/// The value of a number that stands there as one.
fn written(expr: &Expr) -> Option<&BigRational> {
    match expr {
        Expr::Number(value) | Expr::Decimal(value, _) if whole(expr) => Some(value),
        _ => None,
    }
}

/// Was it written as a decimal or a whole number, so that rounding is no excuse?
fn whole(expr: &Expr) -> bool {
    match expr {
        Expr::Decimal(..) => true,
        Expr::Number(value) => value.is_integer(),
        _ => false,
    }
}

/// Units that say nothing.
fn is_generic(unit: &str) -> bool {
    unit.is_empty() || unit.trim_end_matches(|c: char| c.is_ascii_digit()) == "unit"
}

/// Is it to be computed from collections, as `A ∪ B` and `(1, 2) + (3, 4)` are?
fn computes(expr: &Expr) -> bool {
    let plain = matches!(expr, Expr::Group(..) | Expr::List(..) | Expr::Set(_) | Expr::Matrix(_));
    !plain
        && expr.children().into_iter().any(|part| part.any(&is_collection) || is_collection(expr))
}

/// A number times a matrix as one matrix.
fn multiplied(expr: &Expr) -> Option<Expr> {
    const LONGEST: usize = 50;
    let Expr::Product(items) = expr else { return None };
    let at = items.iter().position(|item| matches!(item, Expr::Matrix(_)))?;
    let mut others = items.clone();
    let matrix = others.remove(at);
    let number = Expr::Product(others);
    let plain = number.size() < LONGEST && !number.any(&is_collection);
    plain.then(|| matrix.map(&mut |entry| Expr::Product(vec![number.clone(), entry.clone()])))
}

pub fn is_collection(expr: &Expr) -> bool {
    match expr {
        Expr::Group(..) | Expr::List(..) | Expr::Set(_) | Expr::Matrix(_) => true,
        Expr::Call(name, _) => matches!(name.as_str(), "union" | "intersection" | "without"),
        Expr::Symbol(name) => name == "ℝ",
        _ => false,
    }
}

/// The sign of an infinite value.
pub fn infinity(expr: &Expr) -> Option<bool> {
    match expr {
        Expr::Infinity => Some(true),
        Expr::Product(items) if items.len() == 2 && items[1] == Expr::Infinity => match &items[0] {
            Expr::Number(factor) => Some(factor.is_positive()),
            _ => None,
        },
        _ => None,
    }
}
