//! Equations and inequalities, against each other and against bare values.

use num_traits::Signed;

use super::command;
use super::compare::{Comparison, Outcome, is_collection};
use super::exact::Form;
use super::expression::{Expr, Relation};
use super::form::form;
use super::names::FUNCTIONS;
use super::probe::{self, Probe};
use super::sets;

/// `x = 5`, `f(x) = 5`, `5 = x`, `x = 2 + 3 = 5`, `x ≈ 5`, `x ∈ [0, 1]`: what is named, if anything
/// is, and its value. In a chain the last value counts, but none behind an `≈`.
fn named_value(relation: &Expr) -> Option<(Option<&Expr>, &Expr)> {
    let Expr::Relation(items, relations) = relation else { return None };
    if !relations.iter().all(|relation| names(*relation)) {
        return None;
    }
    let about = relations.iter().position(|relation| *relation == Relation::About);
    let kept = match about {
        Some(at) if at > 0 || !is_name(&items[0]) => &items[..=at],
        _ => &items[..],
    };
    if kept.len() == 1 {
        return Some((None, &kept[0]));
    }
    let name = kept.iter().find(|item| is_name(item));
    let value = kept.iter().rev().find(|item| Some(*item) != name)?;
    let constant = |item: &Expr| !item.any(&|part| matches!(part, Expr::Symbol(_)));
    let equal = !relations.contains(&Relation::In) && kept.iter().all(constant); // `1 in 5`
    (name.is_some() || equal).then_some((name, value))
}

/// Is it something that an equation gives a value to? A symbol, a function's value, a segment `AB`,
/// a ratio of such, a tuple of such.
fn is_name(expr: &Expr) -> bool {
    let capital = |item: &Expr| match item {
        Expr::Symbol(name) => name.chars().all(char::is_uppercase) || name.contains(['_', '′']),
        _ => false,
    };
    let sign = |item: &Expr| match item {
        Expr::Symbol(name) => matches!(name.as_str(), "Delta" | "angle" | "triangle" | "∠" | "△"),
        _ => false,
    };
    match expr {
        Expr::Symbol(name) => name != "…",
        Expr::Text(_) => true,
        Expr::Call(name, arguments) => {
            let set = matches!(name.as_str(), "union" | "intersection" | "without");
            !set && arguments.iter().any(|argument| {
                argument.any(&|part| {
                    matches!(part, Expr::Symbol(_) | Expr::Text(_)) || name.chars().count() == 1
                })
            })
        }
        Expr::Product(items) => {
            items.iter().all(capital)
                || items.iter().any(sign)
                    && items.iter().all(|item| matches!(item, Expr::Symbol(_)))
                || items.len() == 2 && items[0] == Expr::Symbol("d".into()) && is_name(&items[1])
        }
        Expr::Quotient(a, b) => is_name(a) && is_name(b),
        Expr::Group(_, items, _) => items.iter().all(is_name),
        Expr::Quantity(inner, unit) if unit != "%" => is_name(inner),
        _ => false,
    }
}

/// Are the items values, or values of one name (`x` and `x`, or `x_1` and `x_2`), so that `and`
/// between them says no more than `or`?
pub fn are_alternatives(items: &[Expr]) -> bool {
    let stem = |name: &Expr| match name {
        Expr::Symbol(name) => name.split('_').next().unwrap_or_default().to_owned(),
        name => name.to_string(),
    };
    let mut known = None;
    items.iter().all(|item| match (item, named_value(item)) {
        (Expr::Relation(..), None) => false,
        (Expr::Relation(..), Some((Some(name), _))) => {
            *known.get_or_insert(stem(name)) == stem(name)
        }
        _ => true,
    })
}

const MOST_PARAMETERS: usize = 8;

/// With names of our own for the parameters of a family, as `k` in `π/4 + kπ, k ∈ ℤ`.
pub fn with_parameters(expr: &Expr) -> Expr {
    let Expr::List(items, _) = expr else { return expr.clone() };
    let parameters = items.iter().filter_map(|item| match item {
        Expr::Relation(items, relations) if relations[..] == [Relation::In] => match &items[..] {
            [name @ Expr::Symbol(_), Expr::Symbol(set)] if set != "ℝ" => Some(name),
            _ => None,
        },
        _ => None,
    });
    parameters.take(MOST_PARAMETERS).enumerate().fold(expr.clone(), |expr, (at, name)| {
        command::renamed(&expr, name, &Expr::Symbol(format!("parameter {at}")))
    })
}

/// Items in the order of the symbols that they give a value to: `y = 2, x = 1` is (1, 2).
pub fn sorted_by_name(items: &[Expr]) -> Vec<Expr> {
    let symbol = |item: &Expr| match named_value(item) {
        Some((Some(Expr::Symbol(name)), _)) => Some(name.clone()),
        _ => None,
    };
    let mut sorted = items.to_vec();
    if sorted.iter().all(|item| symbol(item).is_some()) {
        sorted.sort_by_key(symbol);
    }
    sorted
}

/// A relation against an answer that is none.
pub fn with_value(comparison: &mut Comparison, relation: &Expr, other: &Expr) -> Outcome {
    if let Some((_, value)) = named_value(relation) {
        return comparison.solutions(value, other).by("equation");
    }
    if is_collection(other) {
        return match sets::compare(comparison, relation, other) {
            Outcome::Unknown => between(comparison, relation, other),
            decided => decided,
        };
    }
    Outcome::Different
}

/// `a < x < b` against the interval `(a, b)` when the ends are no numbers.
fn between(comparison: &mut Comparison, relation: &Expr, other: &Expr) -> Outcome {
    // An inequality that no rule here solves may well have these solutions.
    let order = |part: &Expr| match part {
        Expr::Relation(_, relations) => relations.iter().any(|relation| relation.is_order()),
        _ => false,
    };
    let unsolved = if relation.any(&order) { Outcome::Unknown } else { Outcome::Different };
    let (Expr::Relation(items, relations), Expr::Group(open, ends, close)) = (relation, other)
    else {
        return unsolved;
    };
    let brackets = match relations[..] {
        [Relation::Less, Relation::Less] => ('(', ')'),
        [Relation::Less, Relation::LessEqual] => ('(', ']'),
        [Relation::LessEqual, Relation::Less] => ('[', ')'),
        [Relation::LessEqual, Relation::LessEqual] => ('[', ']'),
        _ => return unsolved,
    };
    if brackets != (*open, *close) {
        return Outcome::Different;
    }
    comparison.in_order(&[items[0].clone(), items[2].clone()], ends).by("relation")
}

/// Two relations.
pub fn relations(comparison: &mut Comparison, a: &Expr, b: &Expr) -> Outcome {
    let (Expr::Relation(x, by), Expr::Relation(y, other_by)) = (a, b) else {
        return Outcome::Unknown;
    };
    let flipped: Vec<Relation> = other_by.iter().rev().map(|relation| relation.flipped()).collect();
    let reversed: Vec<Expr> = y.iter().rev().cloned().collect();
    for (items, relations) in [(y, other_by), (&reversed, &flipped)] {
        if by == relations && comparison.in_order(x, items).is_equal() {
            return Outcome::Equal("relation");
        }
    }
    if let (Some((name, value)), Some((other, other_value))) = (named_value(a), named_value(b))
        && let Some(renamed) = same_name(name, other, other_value)
    {
        let outcome = comparison.solutions(value, &renamed).by("equation");
        if outcome.is_equal() || by.len() > 1 || other_by.len() > 1 {
            return outcome;
        }
    }
    match (&by[..], &other_by[..]) {
        ([Relation::Equal], [Relation::Equal]) => equations(comparison, x, y),
        ([Relation::Unequal], [Relation::Unequal]) => equations(comparison, x, y).by("relation"),
        ([one], [other]) if one.is_order() && other.is_order() => {
            inequalities(comparison, (x, *one), (y, *other)).unwrap_or_else(|| match sets::compare(
                comparison, a, b,
            ) {
                Outcome::Unknown if polynomials(comparison, x, y) => Outcome::Different,
                outcome => outcome,
            })
        }
        _ if by.iter().chain(other_by).any(|relation| !names(*relation)) => {
            sets::compare(comparison, a, b)
        }
        _ => Outcome::Different,
    }
}

/// The second value, in the first one's variable where the names are one function of different
/// variables; `None` when the names are not the same.
fn same_name(name: Option<&Expr>, other: Option<&Expr>, value: &Expr) -> Option<Expr> {
    match (name, other) {
        (None, None) => Some(value.clone()),
        (Some(Expr::Call(f, x)), Some(Expr::Call(g, y))) if f == g && x.len() == y.len() => {
            if x == y {
                return Some(value.clone());
            }
            // `f(n) = 2n` and `f(x) = 2x`, but P(A) = 1 and P(B) = 1 speak of two things.
            let variable = |item: &Expr| match item {
                Expr::Symbol(name) => !name.starts_with(char::is_uppercase),
                _ => false,
            };
            let defined = |item: &Expr| variable(item) && value.any(&|part| part == item);
            let free = !FUNCTIONS.contains(&f.as_str());
            (free && x.iter().all(variable) && y.iter().all(defined)).then(|| renamed(value, y, x))
        }
        (Some(a), Some(b)) => (a == b).then(|| value.clone()),
        _ => None,
    }
}

fn renamed(expr: &Expr, from: &[Expr], to: &[Expr]) -> Expr {
    match from.iter().position(|symbol| symbol == expr) {
        Some(at) => to[at].clone(),
        None => expr.map(&mut |part| renamed(part, from, to)),
    }
}

/// Everything on one side.
fn moved(items: &[Expr]) -> Expr {
    Expr::Sum(vec![items[0].clone(), items[1].clone().negated()])
}

/// `f = 0` and `g = 0` where `f` is a multiple of `g` by a constant.
fn equations(comparison: &mut Comparison, x: &[Expr], y: &[Expr]) -> Outcome {
    if x.iter().chain(y).any(is_collection) {
        return Outcome::Different;
    }
    let (f, g) = (moved(x), moved(y));
    let exact = &mut comparison.exact;
    let forms = form(exact, &f).and_then(|a| Ok((a, form(exact, &g)?)));
    if let Ok((a, b)) = forms {
        if a.is_zero() || b.is_zero() {
            return Outcome::Different; // true for all values: says nothing
        }
        let certain = exact.certain(&a) && exact.certain(&b);
        if let (Ok((p, _)), Ok((q, _))) = (exact.up_to_factor(&a), exact.up_to_factor(&b)) {
            if p == q {
                return Outcome::Equal("equation");
            }
            let plain =
                |poly: &std::collections::BTreeMap<_, num_rational::BigRational>| poly.len() > 1;
            if certain && !(plain(&p) && plain(&q)) {
                return Outcome::Different;
            }
        }
    }
    match probe::proportional(&f, &g, &comparison.exact.budget) {
        Probe::Equal => Outcome::Equal("equation"),
        Probe::Different => Outcome::Different,
        Probe::Unknown => Outcome::Unknown,
    }
}

/// Are all sides exactly known, so that another form is another relation?
fn polynomials(comparison: &mut Comparison, x: &[Expr], y: &[Expr]) -> bool {
    let exact = &mut comparison.exact;
    let mut known = |items| {
        form(exact, &moved(items)).is_ok_and(|form| exact.certain(&form) && !divides(&form))
    };
    known(x) && known(y)
}

/// Is something unknown divided by?
fn divides(form: &Form) -> bool {
    form.under.len() > 1 || form.over.keys().flatten().any(|(_, exponent)| exponent.is_negative())
}

/// `f < 0` and `g < 0` where `f` is a positive multiple of `g`; `None` when that is not seen.
fn inequalities(
    comparison: &mut Comparison,
    (x, by): (&[Expr], Relation),
    (y, other_by): (&[Expr], Relation),
) -> Option<Outcome> {
    let below = |items: &[Expr], by: Relation| {
        let upside = matches!(by, Relation::Greater | Relation::GreaterEqual);
        let strict = matches!(by, Relation::Less | Relation::Greater);
        (if upside { moved(items).negated() } else { moved(items) }, strict)
    };
    let ((f, strict), (g, other_strict)) = (below(x, by), below(y, other_by));
    let exact = &mut comparison.exact;
    let (a, b) = (form(exact, &f).ok()?, form(exact, &g).ok()?);
    if divides(&a) || divides(&b) {
        return None; // a denominator's sign is not known
    }
    let (p, q) = (exact.up_to_factor(&a).ok()?, exact.up_to_factor(&b).ok()?);
    let same = p == q && a.over.len() == p.0.len();
    same.then_some(if strict == other_strict {
        Outcome::Equal("relation")
    } else {
        Outcome::Different
    })
}

/// Does the relation only name a value, as `x = 5` and `x ∈ 5` do?
pub fn names(relation: Relation) -> bool {
    matches!(relation, Relation::Equal | Relation::About | Relation::In)
}
