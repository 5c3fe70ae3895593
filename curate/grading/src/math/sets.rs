//! Sets of real numbers as sorted pieces: intervals, unions, inequalities in one variable.

use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

use super::compare::{Comparison, Outcome, infinity, is_collection};
use super::exact::Form;
use super::expression::{Expr, Joint, Relation};
use super::form::form;

/// One end of a piece.
#[derive(Debug, Clone)]
struct End {
    value: Expr,
    /// Its place on the line; infinite ends are open.
    at: f64,
    closed: bool,
}

/// Everything between two ends; a point has the same end twice.
#[derive(Debug, Clone)]
struct Piece {
    low: End,
    high: End,
}

const MOST_PIECES: usize = 64;

/// Two descriptions of sets of real numbers; unknown when one of them is none.
pub fn compare(comparison: &mut Comparison, a: &Expr, b: &Expr) -> Outcome {
    let (Some(x), Some(y)) = (pieces(comparison, a), pieces(comparison, b)) else {
        return Outcome::Unknown;
    };
    if let (Some(name), Some(other)) = (subject(a), subject(b))
        && name != other
    {
        return Outcome::Different;
    }
    let (x, y) = (tidy(x), tidy(y));
    if x.len() != y.len() {
        return Outcome::Different;
    }
    for (a, b) in x.iter().zip(&y) {
        for (end, other) in [(&a.low, &b.low), (&a.high, &b.high)] {
            if end.closed != other.closed {
                return Outcome::Different;
            }
            let outcome = comparison.scalars(&end.value, &other.value);
            if !outcome.is_equal() {
                return outcome;
            }
        }
    }
    let plain = |expr: &Expr| !matches!(expr, Expr::Relation(..));
    Outcome::Equal(if plain(a) && plain(b) { "collection" } else { "relation" })
}

/// The symbol whose values are described, if exactly one is named.
fn subject(expr: &Expr) -> Option<String> {
    let mut found = Vec::new();
    fn collect(expr: &Expr, into: &mut Vec<String>) {
        if let Expr::Symbol(name) = expr
            && name != "ℝ"
        {
            into.push(name.clone());
        }
        for child in expr.children() {
            collect(child, into);
        }
    }
    collect(expr, &mut found);
    found.dedup();
    (found.len() == 1).then(|| found.remove(0))
}

fn end(comparison: &Comparison, value: &Expr, closed: bool) -> Option<End> {
    if let Some(positive) = infinity(value) {
        let at = if positive { f64::INFINITY } else { f64::NEG_INFINITY };
        return Some(End { value: value.clone(), at, closed: false });
    }
    let at = comparison.constant(value).filter(|at| at.is_real())?.re;
    Some(End { value: value.clone(), at, closed })
}

fn all() -> Piece {
    let low = Expr::Infinity.negated();
    Piece {
        low: End { value: low, at: f64::NEG_INFINITY, closed: false },
        high: End { value: Expr::Infinity, at: f64::INFINITY, closed: false },
    }
}

fn pieces(comparison: &mut Comparison, expr: &Expr) -> Option<Vec<Piece>> {
    match expr {
        Expr::Group(open, items, close) if items.len() == 2 => {
            let (low, high) = (
                end(comparison, &items[0], *open == '[')?,
                end(comparison, &items[1], *close == ']')?,
            );
            (low.at < high.at).then(|| vec![Piece { low, high }])
        }
        Expr::Set(items) if items.len() <= MOST_PIECES => {
            let point = |item: &Expr| {
                let end = end(comparison, item, true).filter(|end| end.at.is_finite())?;
                Some(Piece { low: end.clone(), high: end })
            };
            items.iter().map(point).collect()
        }
        Expr::Symbol(name) if name == "ℝ" => Some(vec![all()]),
        Expr::Call(name, items) => {
            let mut result = pieces(comparison, items.first()?)?;
            for item in &items[1..] {
                let next = pieces(comparison, item)?;
                result = match name.as_str() {
                    "union" => [result, next].concat(),
                    "intersection" => intersected(&result, &next),
                    "without" => intersected(&result, &complement(next)),
                    _ => return None,
                };
                if result.len() > MOST_PIECES {
                    return None;
                }
            }
            matches!(name.as_str(), "union" | "intersection" | "without").then_some(result)
        }
        Expr::List(items, joint) => {
            let mut result = None::<Vec<Piece>>;
            if items.len() > MOST_PIECES {
                return None;
            }
            for item in items {
                if !matches!(item, Expr::Relation(..)) && *joint == Joint::And {
                    return None;
                }
                let next = pieces(comparison, item)?;
                result = Some(match (result, joint) {
                    (None, _) => next,
                    (Some(before), Joint::And) => intersected(&before, &next),
                    (Some(before), Joint::Or) => [before, next].concat(),
                });
            }
            result.filter(|pieces| pieces.len() <= MOST_PIECES)
        }
        Expr::Relation(items, relations) => solved(comparison, items, relations),
        _ => None,
    }
}

/// The solutions of `a < f(x) < b` for a linear `f` or its absolute value.
fn solved(
    comparison: &mut Comparison,
    items: &[Expr],
    relations: &[Relation],
) -> Option<Vec<Piece>> {
    if let ([_, set], [Relation::In]) = (items, relations) {
        return is_collection(set).then(|| pieces(comparison, set))?;
    }
    let constant = |item: &Expr| infinity(item).is_some() || comparison.constant(item).is_some();
    let at = items.iter().position(|item| !constant(item))?;
    if items.len() > 3 || !items.iter().enumerate().all(|(k, item)| k == at || constant(item)) {
        return None;
    }
    let mut result = vec![all()];
    for (k, relation) in relations.iter().enumerate() {
        let (other, relation) = match at {
            _ if k == at => (&items[k + 1], *relation),
            _ if k + 1 == at => (&items[k], relation.flipped()),
            _ => return None,
        };
        let closed = matches!(relation, Relation::LessEqual | Relation::GreaterEqual);
        let bound = end(comparison, other, closed)?;
        let next = match relation {
            Relation::Less | Relation::LessEqual => vec![Piece { high: bound, ..all() }],
            Relation::Greater | Relation::GreaterEqual => vec![Piece { low: bound, ..all() }],
            Relation::Unequal => {
                let point = End { closed: true, ..bound };
                complement(vec![Piece { low: point.clone(), high: point }])
            }
            _ => return None,
        };
        result = intersected(&result, &next);
    }
    match &items[at] {
        Expr::Call(name, inner) if name == "abs" => {
            let zero = End { value: Expr::integer(0), at: 0.0, closed: true };
            let half = vec![Piece { low: zero, ..all() }];
            let right = intersected(&result, &half);
            let left = right.iter().map(mirrored).collect();
            unlinear(comparison, inner.first()?, [right, left].concat())
        }
        subject => unlinear(comparison, subject, result),
    }
}

/// From the values of `c·x + d` to those of `x`.
fn unlinear(comparison: &mut Comparison, subject: &Expr, set: Vec<Piece>) -> Option<Vec<Piece>> {
    if matches!(subject, Expr::Symbol(_)) || matches!(subject, Expr::Call(..)) {
        return Some(set);
    }
    let form: Form = form(&mut comparison.exact, subject).ok()?;
    if form.under.len() != 1 || form.over.len() > 2 {
        return None;
    }
    let (mut slope, mut offset) = (BigRational::zero(), BigRational::zero());
    for (monomial, value) in &form.over {
        match &monomial[..] {
            [] => offset = value.clone(),
            [(_, exponent)] if exponent.is_one() => slope = value.clone(),
            _ => return None,
        }
    }
    if slope.is_zero() {
        return None;
    }
    let back = |from: &End| {
        if from.at.is_infinite() {
            let value =
                if slope.is_negative() { from.value.clone().negated() } else { from.value.clone() };
            return end(comparison, &value, false);
        }
        let value = Expr::Sum(vec![from.value.clone(), Expr::Number(-offset.clone())]);
        end(comparison, &value.over(Expr::Number(slope.clone())), from.closed)
    };
    let moved = set.iter().map(|piece| {
        let (low, high) = (back(&piece.low)?, back(&piece.high)?);
        Some(if slope.is_negative() { Piece { low: high, high: low } } else { Piece { low, high } })
    });
    moved.collect()
}

fn mirrored(piece: &Piece) -> Piece {
    let turn = |from: &End| End { value: turned(&from.value), at: -from.at, closed: from.closed };
    Piece { low: turn(&piece.high), high: turn(&piece.low) }
}

fn turned(value: &Expr) -> Expr {
    match infinity(value) {
        Some(true) => Expr::Infinity.negated(),
        Some(false) => Expr::Infinity,
        None => value.clone().negated(),
    }
}

/// Does `a` begin before `b`, both low ends?
fn begins_before(a: &End, b: &End) -> bool {
    a.at < b.at || (a.at == b.at && a.closed && !b.closed)
}

fn intersected(x: &[Piece], y: &[Piece]) -> Vec<Piece> {
    let mut result = Vec::new();
    for a in x {
        for b in y {
            let low = if begins_before(&a.low, &b.low) { &b.low } else { &a.low };
            let first = a.high.at < b.high.at || (a.high.at == b.high.at && !a.high.closed);
            let high = if first { &a.high } else { &b.high };
            if low.at < high.at || (low.at == high.at && low.closed && high.closed) {
                result.push(Piece { low: low.clone(), high: high.clone() });
            }
        }
    }
    result
}

fn complement(set: Vec<Piece>) -> Vec<Piece> {
    let mut rest = vec![all()];
    for piece in set {
        let open = |end: &End| End { closed: !end.closed && end.at.is_finite(), ..end.clone() };
        let mut sides = Vec::new();
        if piece.low.at.is_finite() {
            sides.push(Piece { high: open(&piece.low), ..all() });
        }
        if piece.high.at.is_finite() {
            sides.push(Piece { low: open(&piece.high), ..all() });
        }
        rest = intersected(&rest, &sides);
    }
    rest
}

/// Sorted, with overlapping and touching pieces joined.
fn tidy(mut set: Vec<Piece>) -> Vec<Piece> {
    set.sort_by(|a, b| a.low.at.total_cmp(&b.low.at).then_with(|| b.low.closed.cmp(&a.low.closed)));
    let mut result: Vec<Piece> = Vec::new();
    for piece in set {
        match result.last_mut() {
            Some(last)
                if piece.low.at < last.high.at
                    || (piece.low.at == last.high.at && (piece.low.closed || last.high.closed)) =>
            {
                let further = piece.high.at > last.high.at
                    || (piece.high.at == last.high.at && piece.high.closed);
                if further {
                    last.high = piece.high;
                }
            }
            _ => result.push(piece),
        }
    }
    result
}
