//! Numbers as they are written: separators, decimals, exponents, bases, periods, mixed numbers.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Pow, Signed, ToPrimitive, Zero};

use super::expression::Expr;
use super::lexer::{Comma, Kind, Token};
use super::parser::Parser;

impl Parser<'_> {
    /// A number, its base `12_8`, its repeating digits `0.\overline{3}`.
    pub fn numeral(&mut self, token: Token) -> Option<Expr> {
        let value = number(token.text, self.reading.comma)?;
        let next = self.peek();
        if self.sign() == Some('_') {
            self.at += 1;
            let braced = self.eat('{');
            let base = self.peek().filter(|base| base.kind == Kind::Number)?.text.parse().ok()?;
            self.at += 1;
            if braced {
                self.expect('}')?;
            }
            return in_base(token.text, base);
        }
        let decimal = token.text.contains('.');
        if decimal && self.sign() == Some('…') {
            self.at += 1;
            return endless(token.text);
        }
        let mark =
            next.filter(|n| n.kind == Kind::Command && ["overline", "dot"].contains(&n.text));
        if let Some(mark) = mark.filter(|_| decimal) {
            self.at += 1;
            let braced = self.eat('{');
            let repeated = self.peek().filter(|n| n.kind == Kind::Number)?.text;
            self.at += 1;
            if braced {
                self.expect('}')?;
            }
            // `0.\dot{1}\dot{8}` has a period of two.
            let dots = self.peek().is_some_and(|next| next.text == "dot");
            return if dots || mark.text == "dot" && repeated.len() > 1 {
                None
            } else {
                repeating(token.text, repeated)
            };
        }
        Some(value)
    }
}

/// `137 \frac{1}{2}`: a whole number and a proper fraction of whole numbers are their sum.
pub fn mixed(whole: &Expr, fraction: &Expr) -> Option<Expr> {
    let Expr::Number(whole) = whole else { return None };
    let Expr::Quotient(a, b) = fraction else { return None };
    let (Expr::Number(a), Expr::Number(b)) = (&**a, &**b) else { return None };
    let proper =
        [whole, a, b].into_iter().all(BigRational::is_integer) && !a.is_negative() && a < b;
    proper.then(|| Expr::Number(whole + a / b))
}

/// The value of a number's text, separators, decimal mark and exponent included.
pub fn number(text: &str, comma: Comma) -> Option<Expr> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i64 = exponent.trim_start_matches('+').parse().ok()?;
    // Nobody writes larger ones, and there is no float of that size.
    if exponent.unsigned_abs() > 400 {
        return None;
    }
    let mark = |c: char| c == '.' || (c == ',' && comma == Comma::Decimal);
    let mut digits = String::with_capacity(mantissa.len());
    let mut places = None;
    for c in mantissa.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            places = places.map(|places: i64| places + 1);
        } else if mark(c) {
            places = Some(0);
        }
    }
    let value = digits.parse::<BigInt>().ok()?;
    let shift = exponent - places.unwrap_or(0);
    let value = shifted(value, shift);
    Some(match places {
        Some(places) if places > 0 || shift < 0 => Expr::Decimal(value, places - exponent),
        _ => Expr::Number(value),
    })
}

/// `value·10^shift`. What a negative power has in common with the value are twos and fives: to look
/// for these alone is cheaper than for any common divisor.
fn shifted(mut value: BigInt, shift: i64) -> BigRational {
    let power = |base: u8, size: u64| Pow::pow(BigInt::from(base), size);
    if shift >= 0 || value.is_zero() {
        return BigRational::from_integer(value * power(10, shift.unsigned_abs()));
    }
    let mut fives = shift.unsigned_abs();
    let twos = value.trailing_zeros().unwrap_or(0).min(fives);
    let under_twos = fives - twos;
    value >>= twos;
    for step in [27, 1] {
        let factor = power(5, step);
        while fives >= step && (&value % &factor).is_zero() {
            value /= &factor;
            fives -= step;
        }
    }
    BigRational::new_raw(value, power(5, fives) << under_twos)
}

/// Digits in a base up to ten.
fn in_base(text: &str, base: u32) -> Option<Expr> {
    let fits = (2..=10).contains(&base) && text.chars().all(|c| c.is_digit(base));
    let value = fits.then(|| BigInt::parse_bytes(text.as_bytes(), base))??;
    Some(Expr::Number(BigRational::from_integer(value)))
}

/// `0.333…` and `0.1212…`: the shortest period that stands there twice, one digit three times.
fn endless(text: &str) -> Option<Expr> {
    let places = text.len() - text.find('.')? - 1;
    let period = (1..=places / 2).find(|period| {
        let times = if *period == 1 { 3 } else { 2 };
        let (all, from) = (text.as_bytes(), text.len().wrapping_sub(period * times));
        period * times <= places && (from + period..all.len()).all(|k| all[k] == all[k - period])
    })?;
    let (start, repeated) = text.split_at(text.len() - period);
    repeating(start, repeated)
}

/// `million` and its relatives.
pub fn scale(word: &str) -> Option<BigRational> {
    let zeros = match word {
        "hundred" => 2,
        "thousand" => 3,
        "million" => 6,
        "billion" => 9,
        "trillion" => 12,
        _ => return None,
    };
    Some(BigRational::from_integer(Pow::pow(BigInt::from(10), zeros as u32)))
}

/// `six hundred and five`, `twenty-one`: English numbers below a thousand million million.
pub fn in_words(text: &str) -> Option<Expr> {
    const SMALL: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 8] =
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    if text.len() > 120 {
        return None;
    }
    let (mut total, mut part, mut words) = (0u64, 0u64, 0);
    for word in text.split([' ', '-']).filter(|word| !word.is_empty()) {
        if let Some(value) = SMALL.iter().position(|name| *name == word) {
            part += value as u64;
        } else if let Some(tens) = TENS.iter().position(|name| *name == word) {
            part += 10 * (tens as u64 + 2);
        } else if word == "hundred" && part > 0 {
            part *= 100;
        } else if let Some(scale) = scale(word).filter(|_| part > 0) {
            total += part * scale.to_integer().to_u64()?;
            part = 0;
        } else if word != "and" || words == 0 {
            return None;
        }
        words += 1;
        if part > 999 {
            return None;
        }
    }
    (words > 0).then(|| Expr::Number(BigRational::from_integer((total + part).into())))
}

/// `0.1` and the period `6` are 1/6.
fn repeating(start: &str, period: &str) -> Option<Expr> {
    let (whole, fixed) = start.split_once('.')?;
    if start.len() + period.len() > 200 {
        return None; // the fraction would take long, and nobody writes such a period
    }
    let all: BigInt = format!("{whole}{fixed}{period}").parse().ok()?;
    let head: BigInt = format!("0{whole}{fixed}").parse().ok()?;
    let ten = BigInt::from(10);
    let nines = Pow::pow(&ten, period.len()) - 1;
    let value = BigRational::new(all - head, nines * Pow::pow(&ten, fixed.len()));
    Some(Expr::Number(value))
}
