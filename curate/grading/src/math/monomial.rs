//! Products of numbered atoms with rational exponents, and whole powers of numbers.

use num_integer::Integer;
use num_rational::{BigRational, Ratio};
use num_traits::Pow;

use super::budget::Stop;

pub type Exponent = Ratio<i64>;
/// Atoms by number with their exponents, sorted, none zero.
pub type Monomial = Vec<(usize, Exponent)>;

/// The product.
pub fn merged(a: &Monomial, b: &Monomial) -> Result<Monomial, Stop> {
    let mut all = a.clone();
    for (number, exponent) in b {
        match all.binary_search_by_key(number, |(number, _)| *number) {
            Ok(at) => all[at].1 = checked(&all[at].1, exponent, false)?,
            Err(at) => all.insert(at, (*number, *exponent)),
        }
    }
    Ok(all)
}

/// The sum, or the product if `times`, of two exponents, if both stay small.
pub fn checked(a: &Exponent, b: &Exponent, times: bool) -> Result<Exponent, Stop> {
    let small = |e: &Exponent| e.numer().abs() < 1 << 42 && *e.denom() < 1 << 20;
    if times {
        let over = a.numer().checked_mul(*b.numer()).ok_or(Stop::Budget)?;
        let under = a.denom().checked_mul(*b.denom()).ok_or(Stop::Budget)?;
        let product = Exponent::new(over, under);
        return if small(&product) { Ok(product) } else { Err(Stop::Budget) };
    }
    let under = a.denom().lcm(b.denom());
    let part = |e: &Exponent| e.numer().checked_mul(under / e.denom());
    let over = part(a).zip(part(b)).and_then(|(x, y)| x.checked_add(y)).ok_or(Stop::Budget)?;
    let sum = Exponent::new(over, under);
    if small(&sum) { Ok(sum) } else { Err(Stop::Budget) }
}

/// A number to a whole power; the caller has paid for its size.
pub fn power_of(value: &BigRational, exponent: i64) -> BigRational {
    let size = exponent.unsigned_abs();
    let power = BigRational::new_raw(Pow::pow(value.numer(), size), Pow::pow(value.denom(), size));
    if exponent < 0 { power.recip() } else { power }
}

/// The product; whole numbers spare themselves the search for a common divisor.
pub fn product_of(a: &BigRational, b: &BigRational) -> BigRational {
    if a.is_integer() && b.is_integer() {
        return BigRational::from_integer(a.numer() * b.numer());
    }
    a * b
}

/// The sum, likewise.
pub fn sum_of(a: &BigRational, b: &BigRational) -> BigRational {
    if a.is_integer() && b.is_integer() {
        return BigRational::from_integer(a.numer() + b.numer());
    }
    a + b
}

/// What arithmetic with two numbers costs, in steps of exact arithmetic; what fractions have in
/// common is found bit by bit.
pub fn cost_of(a: &BigRational, b: &BigRational) -> u64 {
    let bits = a.numer().bits() + a.denom().bits() + b.numer().bits() + b.denom().bits();
    if a.is_integer() && b.is_integer() {
        return bits * bits / (1 << 22) + bits / 4_096;
    }
    bits * bits / 32_768 + bits / 32
}
