//! Expressions to their exact forms: which functions are known, and what is exact about them.

use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::exact::{Exact, Form, Stop};
use super::expression::Expr;
use super::operand::is_factor;

/// The exact form of a scalar.
pub fn form(exact: &mut Exact, expr: &Expr) -> Result<Form, Stop> {
    exact.pay(1)?;
    match expr {
        Expr::Number(value) | Expr::Decimal(value, _) => Ok(Form::rational(value.clone())),
        Expr::Symbol(name) => Ok(exact.symbol(name)),
        Expr::Text(name) => Ok(exact.symbol(name)),
        Expr::Pi => Ok(exact.pi()),
        Expr::E => Ok(exact.e()),
        Expr::I => Ok(exact.i()),
        Expr::Sum(items) => {
            let mut sum = Form::integer(0);
            for item in items {
                let item = form(exact, item)?;
                sum = exact.add(sum, item)?;
            }
            Ok(sum)
        }
        Expr::Product(items) => {
            let mut product = Form::integer(1);
            for item in items {
                let item = form(exact, item)?;
                product = exact.times(&product, &item)?;
            }
            Ok(product)
        }
        Expr::Quotient(a, b) => {
            let (a, b) = (form(exact, a)?, form(exact, b)?);
            let b = exact.inverse(&b)?;
            exact.times(&a, &b)
        }
        Expr::Power(base, exponent) => power(exact, base, exponent),
        Expr::Quantity(value, unit) => {
            let value = form(exact, value)?;
            let unit = match unit.as_str() {
                "%" => Form::rational(BigRational::new(1.into(), 100.into())),
                "°" => {
                    let pi = exact.pi();
                    exact.times(&pi, &Form::rational(BigRational::new(1.into(), 180.into())))?
                }
                unit => exact.symbol(&format!("[{unit}]")),
            };
            exact.times(&value, &unit)
        }
        Expr::Call(name, arguments) => call(exact, name, arguments),
        _ => Err(Stop::Meaningless),
    }
}

fn power(exact: &mut Exact, base: &Expr, exponent: &Expr) -> Result<Form, Stop> {
    let (base, exponent) = (form(exact, base)?, form(exact, exponent)?);
    if let Some(value) = exponent.value() {
        return exact.power(&base, &value);
    }
    if exponent.under.len() != 1 {
        let key = format!("{}^{}", exact.key(&base)?, exact.key(&exponent)?);
        return Ok(exact.opaque(key));
    }
    // a^(2k+1) is (a^k)^2·a; the part of a term that is a whole number may always come outside.
    let positive = base.value().is_some_and(|value| value.is_positive());
    let mut product = Form::integer(1);
    for (monomial, factor) in exponent.over {
        let outside = if positive { factor.clone() } else { factor.numer().clone().into() };
        let inside = Form {
            over: [(monomial.clone(), &factor / &outside)].into(),
            under: exponent.under.clone(),
        };
        let part = match inside.value() {
            Some(_) => exact.power(&base, &factor)?,
            None => {
                let key = format!("{}^{}", exact.key(&base)?, exact.key(&inside)?);
                let atom = exact.opaque(key);
                exact.power(&atom, &outside)?
            }
        };
        product = exact.times(&product, &part)?;
    }
    Ok(product)
}

fn call(exact: &mut Exact, name: &str, arguments: &[Expr]) -> Result<Form, Stop> {
    let mut forms = Vec::with_capacity(arguments.len());
    for argument in arguments {
        match form(exact, argument) {
            Ok(form) => forms.push(form),
            Err(Stop::Budget) => return Err(Stop::Budget),
            // Bounds of sums and the like: by their own text.
            Err(Stop::Meaningless) if matches!(name, "sum" | "prod" | "int" | "lim") => {
                let key = format!("{argument}");
                forms.push(exact.opaque(key));
            }
            Err(Stop::Meaningless) => return Err(Stop::Meaningless),
        }
    }
    if let [x] = &forms[..] {
        if let Some(value) = function(exact, name, x)? {
            return Ok(value);
        }
        if is_factor(name, arguments) {
            let front = exact.symbol(name);
            return exact.times(&front, x);
        }
    }
    let values: Option<Vec<BigRational>> = forms.iter().map(Form::value).collect();
    if let Some(values) = values {
        // Common divisors and multiples are found bit by bit.
        let bits: u64 = values.iter().map(|v| v.numer().bits() + v.denom().bits()).sum();
        exact.pay(bits * bits / if values.len() > 1 { 512 } else { 1 << 22 })?;
        if let Some(value) = of_numbers(name, &values) {
            exact.pay(value.numer().bits() / 16)?;
            return Ok(Form::rational(value));
        }
    }
    let name = if name == "C" && forms.len() == 2 { "binomial" } else { name };
    let keys = forms.iter().map(|form| exact.key(form)).collect::<Result<Vec<_>, _>>()?;
    Ok(exact.opaque(format!("{name}({})", keys.join(","))))
}

/// What is exact about a function of one argument.
fn function(exact: &mut Exact, name: &str, x: &Form) -> Result<Option<Form>, Stop> {
    Ok(Some(match name {
        "ln" => return exact.logarithm(x),
        "tan" => quotient(exact, "sin", "cos", x)?,
        "cot" => quotient(exact, "cos", "sin", x)?,
        "sec" | "csc" => {
            let below = function(exact, if name == "sec" { "cos" } else { "sin" }, x)?;
            exact.inverse(&below.ok_or(Stop::Meaningless)?)?
        }
        "sin" | "cos" | "abs" => {
            if x.is_zero() {
                return Ok(Some(Form::integer(i64::from(name == "cos"))));
            }
            if let Some(value) = x.value().filter(|_| name == "abs") {
                return Ok(Some(Form::rational(value.abs())));
            }
            // Even and odd functions: the first term of the argument has a positive sign.
            let negative = x.over.values().next().is_some_and(Signed::is_negative);
            let turned = if negative { exact.times(x, &Form::integer(-1))? } else { x.clone() };
            let key = format!("{name}({})", exact.key(&turned)?);
            let number = turned.value().is_some() && name != "abs";
            let value = if number { exact.transcendental(key) } else { exact.opaque(key) };
            let odd = negative && name == "sin";
            if odd { exact.times(&value, &Form::integer(-1))? } else { value }
        }
        _ => return Ok(None),
    }))
}

fn quotient(exact: &mut Exact, over: &str, under: &str, x: &Form) -> Result<Form, Stop> {
    let over = function(exact, over, x)?.ok_or(Stop::Meaningless)?;
    let under = function(exact, under, x)?.ok_or(Stop::Meaningless)?;
    let under = exact.inverse(&under)?;
    exact.times(&over, &under)
}

/// Functions whose value is rational for rational arguments.
fn of_numbers(name: &str, values: &[BigRational]) -> Option<BigRational> {
    const MOST: u32 = 1_000;
    let whole = |at: usize| values.get(at).filter(|v| v.is_integer()).map(BigRational::to_integer);
    let small = |at: usize| whole(at)?.to_u32().filter(|value| *value <= MOST);
    let falling = |from: u32, step: usize, least: u32| {
        let product = (least + 1..=from).rev().step_by(step).map(BigInt::from).product::<BigInt>();
        BigRational::from_integer(product)
    };
    Some(match (name, values.len()) {
        ("factorial", 1) => falling(small(0)?, 1, 0),
        ("double factorial", 1) => falling(small(0)?, 2, 0),
        ("floor", 1) => values[0].floor(),
        ("ceil", 1) => values[0].ceil(),
        ("binomial" | "C", 2) => {
            let (n, k) = (small(0)?, small(1)?);
            if k > n {
                Zero::zero()
            } else {
                let k = k.min(n - k);
                (falling(n, 1, n - k).numer() / falling(k, 1, 0).numer()).into()
            }
        }
        ("permutations" | "P", 2) => {
            let (n, k) = (small(0)?, small(1)?);
            if k > n { Zero::zero() } else { falling(n, 1, n - k) }
        }
        ("gcd", 2..) | ("lcm", 2..) => {
            let mut result = whole(0)?;
            for at in 1..values.len() {
                let next = whole(at)?;
                result = if name == "gcd" { result.gcd(&next) } else { result.lcm(&next) };
            }
            result.into()
        }
        ("max", 1..) => values.iter().max()?.clone(),
        ("min", 1..) => values.iter().min()?.clone(),
        ("sgn", 1) => values[0].signum(),
        ("Re", 1) => values[0].clone(),
        ("Im", 1) => BigRational::zero(),
        ("exp", 1) if values[0].is_zero() => BigRational::one(),
        _ => return None,
    })
}
