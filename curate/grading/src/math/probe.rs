//! Expressions as complex numbers with error bounds, and comparison at many seeded points.

use std::collections::BTreeMap;

use num_traits::{ToPrimitive, Zero};

use super::budget::Budget;
use super::complex::{Value, gamma};
use super::expression::{Expr, Relation};
use super::operand::is_factor;

/// What the probes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    Equal,
    Different,
    /// Too few points where both have a value that is precise enough.
    Unknown,
}

/// Where expressions are evaluated.
struct Point<'a> {
    symbols: BTreeMap<String, Value>,
    /// Must every part have a real value? Then √x·√y is √(xy), as everybody means it.
    real: bool,
    /// What every step is paid from: without it nothing has a value.
    budget: &'a Budget,
}

impl Point<'_> {
    /// Gives every symbol a value; unpaid, the point has none for any expression.
    fn go(&mut self, place: impl Fn(&str) -> Value) {
        if self.budget.pay(2 * self.symbols.len() as u64).is_ok() {
            self.symbols.iter_mut().for_each(|(name, value)| *value = place(name));
        }
    }
}

/// The symbols of an expression that stand for any value.
fn symbols(expr: &Expr, into: &mut BTreeMap<String, Value>) {
    match expr {
        Expr::Symbol(name) | Expr::Text(name) => {
            into.insert(name.clone(), Value::ZERO);
        }
        Expr::Call(name, arguments) if is_factor(name, arguments) => {
            into.insert(name.clone(), Value::ZERO);
        }
        _ => {}
    }
    for child in expr.children() {
        symbols(child, into);
    }
}

/// A fixed number in 0..1 for a name and an index: always the same points for the same symbols.
fn noise(name: &str, index: u64) -> f64 {
    let mut state = index.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66;
    for byte in name.bytes() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        state ^= state >> 29;
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (state ^ (state >> 31)) as f64 / u64::MAX as f64
}

/// Two expressions that differ may meet at a point or two, and where few points have a value (`√x`
/// has none below zero) those say little; six that agree to nine digits are no accident.
const FEWEST: usize = 6;

/// Where to look, in this order, from a lowest to a highest value: around zero, where signs and
/// absolute values show; where roots and logarithms have values; where `arcsin` and `artanh` do;
/// then larger numbers of both signs, where what is small beside 1 shows.
const DOMAINS: [(f64, f64); 5] = [(-3.0, 3.0), (0.0, 4.0), (0.0, 1.0), (4.0, 60.0), (-40.0, -4.0)];
const POINTS: u64 = 7;

/// Are two scalars equal at every point where both are real and precise? Complex points are only
/// asked where the real ones say nothing, since there even equal expressions may take different
/// branches.
pub fn compare(a: &Expr, b: &Expr, budget: &Budget) -> Probe {
    let mut names = BTreeMap::new();
    symbols(a, &mut names);
    symbols(b, &mut names);
    if names.is_empty() {
        return constants(a, b, budget);
    }
    // Who writes an absolute value on one side only means the numbers below zero: ln x, ln |x|.
    let abs = |side: &Expr| side.any(&|e| matches!(e, Expr::Call(name, _) if name == "abs"));
    let complex = a.any(&|e| *e == Expr::I) || b.any(&|e| *e == Expr::I);
    let real = !complex && abs(a) == abs(b);
    let (mut at, mut agreed) = (Point { symbols: names, real, budget }, 0);
    for (domain, (low, high)) in DOMAINS.into_iter().enumerate() {
        for point in 0..POINTS {
            let index = 100 * domain as u64 + point;
            at.go(|name| Value::exact(low + (high - low) * noise(name, index), 0.0));
            let (Some(x), Some(y)) = (value(a, &mut at), value(b, &mut at)) else { continue };
            match x.equals(&y) {
                Some(true) => agreed += 1,
                Some(false) => return Probe::Different,
                None => {}
            }
        }
    }
    if agreed < FEWEST { complex_points(a, b, at) } else { Probe::Equal }
}

fn complex_points(a: &Expr, b: &Expr, mut at: Point) -> Probe {
    at.real = false;
    let mut agreed = 0;
    for index in 1_000..1_016 {
        at.go(|name| {
            let part = |at: u64| 2.0 * noise(name, 2 * index + at) - 1.0;
            Value::exact(part(0), part(1))
        });
        let (Some(x), Some(y)) = (value(a, &mut at), value(b, &mut at)) else { continue };
        match x.equals(&y) {
            Some(true) => agreed += 1,
            Some(false) => return Probe::Different,
            None => {}
        }
    }
    if agreed < FEWEST { Probe::Unknown } else { Probe::Equal }
}

/// Two constants: one look, so it must be a sharp one.
fn constants(a: &Expr, b: &Expr, budget: &Budget) -> Probe {
    let values = constant(a, budget).zip(constant(b, budget));
    let Some((x, y)) = values else { return Probe::Unknown };
    match x.equals(&y) {
        Some(false) => Probe::Different,
        // e^(π√163) is 2.6·10^17 and only 10^-12 from a whole number.
        Some(true) if x.error + y.error < 1e-6 => Probe::Equal,
        _ => Probe::Unknown,
    }
}

/// The value of a constant expression, if it has one.
pub fn constant(expr: &Expr, budget: &Budget) -> Option<Value> {
    value(expr, &mut Point { symbols: BTreeMap::new(), real: false, budget })
}

/// Are `a` and `b` multiples of each other by one constant that is not zero? For `a = 0` and
/// `b = 0` as equations.
pub fn proportional(a: &Expr, b: &Expr, budget: &Budget) -> Probe {
    let mut names = BTreeMap::new();
    symbols(a, &mut names);
    let mut others = BTreeMap::new();
    symbols(b, &mut others);
    if names != others || names.is_empty() {
        return Probe::Different;
    }
    let (mut ratio, mut agreed) = (None::<Value>, 0);
    let mut at = Point { symbols: names, real: true, budget };
    for (domain, (low, high)) in DOMAINS.into_iter().enumerate().take(4) {
        for point in 0..POINTS {
            let index = 5_000 + 100 * domain as u64 + point;
            at.go(|name| Value::exact(low + (high - low) * noise(name, index), 0.0));
            let (Some(x), Some(y)) = (value(a, &mut at), value(b, &mut at)) else { continue };
            let Some(here) = x.divided(&y) else { continue };
            match ratio.get_or_insert(here).equals(&here) {
                Some(true) => agreed += 1,
                Some(false) => return Probe::Different,
                None => {}
            }
        }
    }
    let zero = ratio.is_none_or(|ratio| ratio.size() < 1e-9);
    if agreed < FEWEST || zero { Probe::Unknown } else { Probe::Equal }
}

/// The value at a point, or `None` where there is none, or none known.
fn value(expr: &Expr, at: &mut Point) -> Option<Value> {
    at.budget.pay(1).ok()?;
    let result = match expr {
        Expr::Number(number) | Expr::Decimal(number, _) => {
            let bits = number.numer().bits() + number.denom().bits();
            at.budget.pay(2 + bits / 100).ok()?;
            let float = number.to_f64()?;
            let whole = number.is_integer() && float.abs() < 9e15;
            Value { re: float, im: 0.0, error: if whole { 0.0 } else { float.abs() * 1.2e-16 } }
        }
        Expr::Symbol(name) | Expr::Text(name) => {
            at.budget.pay(name.len() as u64 / 32).ok()?;
            *at.symbols.get(name)?
        }
        Expr::Pi => Value::rounded(std::f64::consts::PI),
        Expr::E => Value::rounded(std::f64::consts::E),
        Expr::I => Value::exact(0.0, 1.0),
        Expr::Sum(items) => {
            let mut sum = Value::ZERO;
            for item in items {
                sum = sum.plus(&value(item, at)?);
            }
            sum
        }
        Expr::Product(items) => {
            let mut product = Value::exact(1.0, 0.0);
            for item in items {
                product = product.times(&value(item, at)?);
            }
            product
        }
        Expr::Quotient(a, b) => value(a, at)?.divided(&value(b, at)?)?,
        Expr::Power(base, exponent) => {
            let base = value(base, at)?;
            if odd_root(exponent) && base.is_real() && base.re < 0.0 {
                // The real root, as schools have it.
                let root = base.negated().power(&value(exponent, at)?)?;
                if even_power(exponent) { root } else { root.negated() }
            } else {
                base.power(&value(exponent, at)?)?
            }
        }
        Expr::Quantity(inner, unit) => {
            let inner = value(inner, at)?;
            match unit.as_str() {
                "%" => inner.times(&Value::rounded(0.01)),
                "°" => inner.times(&Value::rounded(std::f64::consts::PI / 180.0)),
                _ => return None,
            }
        }
        Expr::Call(name, arguments) => call(name, arguments, at)?,
        _ => return None,
    };
    if at.real && !result.is_real() {
        return None;
    }
    (result.re.is_finite() && result.im.is_finite() && result.error.is_finite()).then_some(result)
}

fn fraction(expr: &Expr) -> Option<(&Expr, &Expr)> {
    match expr {
        Expr::Quotient(a, b) => Some((a, b)),
        _ => None,
    }
}

/// Is the exponent written as a fraction over an odd number?
fn odd_root(exponent: &Expr) -> bool {
    matches!(fraction(exponent), Some((Expr::Number(_), Expr::Number(under)))
        if under.is_integer() && (under.to_integer() % 2u8) != Zero::zero())
}

fn even_power(exponent: &Expr) -> bool {
    matches!(fraction(exponent), Some((Expr::Number(over), _))
        if over.is_integer() && (over.to_integer() % 2u8).is_zero())
}

/// What means something of its own that is not known here, or not for one argument.
const UNPROBED: [&str; 17] = [
    "arcsec",
    "arccsc",
    "arg",
    "bar",
    "binomial",
    "det",
    "double factorial",
    "gcd",
    "int",
    "lcm",
    "lim",
    "overline",
    "permutations",
    "prod",
    "ratio",
    "sgn",
    "sum",
];

fn call(name: &str, arguments: &[Expr], at: &mut Point) -> Option<Value> {
    if matches!(name, "sum" | "prod") {
        return series(name, arguments, at);
    }
    let mut values = Vec::with_capacity(arguments.len());
    for argument in arguments {
        values.push(value(argument, at)?);
    }
    let x = *values.first()?;
    let real = |value: &Value| value.is_real().then_some(value.re);
    let one = Value::exact(1.0, 0.0);
    Some(match (name, values.len()) {
        ("ln", 1) => x.logarithm()?,
        ("sin", 1) => x.sine(),
        ("cos", 1) => x.cosine(),
        ("tan", 1) => x.sine().divided(&x.cosine())?,
        ("cot", 1) => x.cosine().divided(&x.sine())?,
        ("sec", 1) => one.divided(&x.cosine())?,
        ("csc", 1) => one.divided(&x.sine())?,
        ("cis", 1) => x.cosine().plus(&x.sine().times(&Value::exact(0.0, 1.0))),
        ("sinh" | "cosh" | "tanh" | "coth" | "sech" | "csch", 1) => x.hyperbolic(name)?,
        ("arcsin" | "arccos" | "arctan" | "arccot" | "arsinh" | "arcosh" | "artanh", 1) => {
            Value::inverse_function(name, real(&x)?, x.error)?
        }
        ("abs" | "norm", 1) => Value { re: x.size(), im: 0.0, error: x.error + x.size() * 2e-16 },
        ("Re", 1) => Value { im: 0.0, ..x },
        ("Im", 1) => Value { re: x.im, im: 0.0, error: x.error },
        ("bar" | "overline", 1) if at.symbols.is_empty() => Value { im: -x.im, ..x },
        ("floor" | "ceil", 1) => {
            let x_re = real(&x)?;
            if (x_re - x_re.round()).abs() <= x.error {
                return None; // on the edge
            }
            Value::exact(if name == "floor" { x_re.floor() } else { x_re.ceil() }, 0.0)
        }
        ("factorial", 1) => gamma(real(&x)? + 1.0, x.error)?,
        ("binomial" | "C", 2) => {
            let (n, k) = (real(&x)?, real(&values[1])?);
            let above = gamma(n + 1.0, x.error)?;
            let below = gamma(k + 1.0, values[1].error)?;
            above.divided(&below.times(&gamma(n - k + 1.0, x.error + values[1].error)?))?
        }
        ("max" | "min", _) => {
            let better =
                |a: Value, b: &Value| if (b.re > a.re) == (name == "max") { *b } else { a };
            values.iter().all(Value::is_real).then(|| values.iter().fold(x, better))?
        }
        (_, 1) if is_factor(name, arguments) => at.symbols.get(name)?.times(&x),
        (_, 1) if !UNPROBED.contains(&name) => {
            // Some smooth function of its own for each name.
            let [a, b, c] = [1, 2, 3].map(|index| Value::exact(0.2 + noise(name, index), 0.0));
            x.times(&a).sine().plus(&x.times(&x).times(&b)).plus(&c)
        }
        _ => return None,
    })
}

/// A sum or product whose bounds are small whole numbers.
fn series(name: &str, arguments: &[Expr], at: &mut Point) -> Option<Value> {
    let [Expr::Relation(index, relation), high, body] = arguments else { return None };
    let ([Expr::Symbol(index), low], [Relation::Equal]) = (&index[..], &relation[..]) else {
        return None;
    };
    let mut whole = |bound: &Expr| {
        let bound = value(bound, at)?;
        (bound.is_real() && bound.re.fract() == 0.0 && bound.re.abs() < 1e4)
            .then_some(bound.re as i64)
    };
    let (low, high) = (whole(low)?, whole(high)?);
    if high - low > 200 {
        return None;
    }
    let outside = at.symbols.remove(index);
    let terms = (low..=high).try_fold(Vec::new(), |mut terms, k| {
        at.symbols.insert(index.clone(), Value::exact(k as f64, 0.0));
        terms.push(value(body, at)?);
        Some(terms)
    });
    at.symbols.remove(index);
    at.symbols.extend(outside.map(|value| (index.clone(), value)));
    Some(match name {
        "sum" => terms?.iter().fold(Value::ZERO, |sum, term| sum.plus(term)),
        _ => terms?.iter().fold(Value::exact(1.0, 0.0), |product, term| product.times(term)),
    })
}
