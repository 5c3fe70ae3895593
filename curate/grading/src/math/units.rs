//! Units: one name for each, and the factors between those of one dimension.

use num_rational::BigRational;
use num_traits::Zero;

use super::expression::Expr;
use super::lexer::{Kind, Token};
use super::parser::{Parser, times};
use super::{names, numeral};

/// Names, the dimension, and the factor to its first unit as a fraction.
const TABLE: [(&[&str], &str, i64, i64); 43] = [
    (&["mm", "millimeter", "millimetre"], "length", 1, 1),
    (&["cm", "centimeter", "centimetre"], "length", 10, 1),
    (&["dm", "decimeter", "decimetre"], "length", 100, 1),
    (&["m", "meter", "metre"], "length", 1_000, 1),
    (&["km", "kilometer", "kilometre"], "length", 1_000_000, 1),
    (&["in", "inch", "inche"], "feet", 1, 1),
    (&["ft", "foot", "feet"], "feet", 12, 1),
    (&["yd", "yard"], "feet", 36, 1),
    (&["mi", "mile"], "feet", 63_360, 1),
    (&["mg", "milligram"], "mass", 1, 1),
    (&["g", "gram"], "mass", 1_000, 1),
    (&["kg", "kilogram"], "mass", 1_000_000, 1),
    (&["lb", "pound"], "pounds", 16, 1),
    (&["oz", "ounce"], "pounds", 1, 1),
    (&["s", "sec", "second"], "time", 1, 1),
    (&["min", "minute"], "time", 60, 1),
    (&["h", "hr", "hour"], "time", 3_600, 1),
    (&["d", "day"], "time", 86_400, 1),
    (&["week"], "time", 604_800, 1),
    (&["year", "yr"], "years", 12, 1),
    (&["month"], "years", 1, 1),
    (&["ml", "mL", "milliliter", "millilitre"], "volume", 1, 1),
    (&["L", "l", "liter", "litre"], "volume", 1_000, 1),
    (&["cent", "¢"], "money", 1, 1),
    (&["$", "dollar", "USD", "usd"], "money", 100, 1),
    (&["€", "euro", "EUR"], "euro", 1, 1),
    (&["£", "pounds"], "sterling", 1, 1),
    (&["¥", "yen"], "yen", 1, 1),
    (&["%", "percent", "pct", "percentage"], "%", 1, 1),
    (&["°", "deg", "degree"], "angle", 1, 1),
    (&["mi/h", "mph"], "mph", 1, 1),
    (&["km/h", "kmh", "kph"], "kmh", 1, 1),
    (&["rad", "radian"], "radian", 1, 1),
    (&["gallon", "gal"], "gallon", 4, 1),
    (&["quart"], "gallon", 1, 1),
    (&["J", "joule"], "energy", 1, 1),
    (&["kJ", "kilojoule"], "energy", 1_000, 1),
    (&["W", "watt"], "power", 1, 1),
    (&["kW", "kilowatt"], "power", 1_000, 1),
    (&["Pa", "pascal"], "pressure", 1, 1),
    (&["kPa", "kilopascal"], "pressure", 1_000, 1),
    (&["Hz", "hertz"], "frequency", 1, 1),
    (&["kHz", "kilohertz"], "frequency", 1_000, 1),
];

/// One spelling for the ways of writing a unit: no plural, no spaces, powers as digits; `square
/// cm`, `cm squared` and `cm^2` are one.
pub fn name(text: &str) -> String {
    let lower = text.trim().trim_end_matches('.');
    let mut power = "";
    let mut words = Vec::new();
    for word in lower.replace('/', " / ").split_whitespace() {
        match word {
            "square" | "sq" | "squared" => power = "2",
            "cubic" | "cubed" => power = "3",
            "per" | "/" => words.push("/".to_owned()),
            // m s^{-1}
            word => {
                match word.split_once("-").filter(|(_, power)| !words.is_empty() && is_power(power))
                {
                    Some((unit, power)) => {
                        words.push("/".to_owned());
                        words.push(singular(&format!("{unit}{}", power.trim_start_matches('1'))));
                    }
                    None => words.push(singular(word)),
                }
            }
        }
    }
    let joined =
        if words.iter().any(|word| word == "/") { words.concat() } else { words.join(" ") };
    format!("{joined}{power}")
}

fn is_power(text: &str) -> bool {
    matches!(text, "1" | "2" | "3")
}

/// The table's first name for a word, or the word without its plural.
fn singular(word: &str) -> String {
    let bare = word.trim_end_matches(|c: char| c.is_ascii_digit());
    let (stem, power) = (bare, &word[bare.len()..]);
    let known = |stem: &str| TABLE.iter().find(|row| row.0.contains(&stem)).map(|row| row.0[0]);
    // `mW` and `MW` are two units, `Meters` and `meters` one.
    let lower = if stem.chars().count() > 3 { stem.to_lowercase() } else { stem.to_owned() };
    let single = lower.strip_suffix('s').filter(|single| single.len() > 2).unwrap_or(&lower);
    let name = known(stem).or_else(|| known(&lower)).or_else(|| known(single)).unwrap_or(single);
    format!("{name}{power}")
}

/// `1000 m` and `1000 m^2` as value and unit, where the other side shows that the letter is a unit.
pub fn letter(expr: &Expr) -> Option<(Expr, String)> {
    let Expr::Product(items) = expr else { return None };
    let (last, rest) = items.split_last()?;
    let unit = match last {
        Expr::Symbol(unit) => unit.clone(),
        Expr::Power(base, power) => match (&**base, &**power) {
            (Expr::Symbol(unit), Expr::Number(power)) => format!("{unit}{power}"),
            _ => return None,
        },
        _ => return None,
    };
    Some((Expr::Product(rest.to_vec()), unit))
}

/// How many of the second unit are one of the first, when both measure the same.
pub fn factor(from: &str, to: &str) -> Option<BigRational> {
    if let (Some((over, under)), Some((other, below))) = (from.split_once('/'), to.split_once('/'))
    {
        let per = simple_factor(under, below).filter(|per| !per.is_zero())?;
        return Some(simple_factor(over, other)? / per);
    }
    simple_factor(from, to)
}

fn simple_factor(from: &str, to: &str) -> Option<BigRational> {
    let row = |unit: &str| {
        let stem = unit.trim_end_matches(|c: char| c.is_ascii_digit());
        let power: i32 = unit[stem.len()..].parse().unwrap_or(1);
        let row = TABLE.iter().find(|row| row.0.contains(&stem))?;
        Some((row.1, BigRational::new(row.2.into(), row.3.into()), power))
    };
    let ((dimension, from, power), (other, to, other_power)) = (row(from)?, row(to)?);
    let same = dimension == other && power == other_power && (1..=3).contains(&power);
    same.then(|| (from / to).pow(power))
}

impl Parser<'_> {
    pub fn unit_follows(&self) -> bool {
        self.peek().is_some_and(|token| token.kind == Kind::Word)
    }

    /// The words behind a value: `cm`, `km / h`, `cm^2`, `square units`, `any text`.
    pub fn quantity(&mut self, value: Expr) -> Option<Expr> {
        if let Some(token) = self.peek() {
            // `12 million`, and `12 \text{ million dollars}` in one word
            let (first, rest) = token.text.split_once(' ').unwrap_or((token.text, ""));
            if let Some(scale) = numeral::scale(first) {
                self.tokens[self.at] = Token { text: rest, ..token };
                self.at += usize::from(rest.is_empty());
                return Some(times(value, Expr::Number(scale)));
            }
        }
        let mut unit = String::new();
        while let Some(token) = self.peek() {
            let next = self.tokens.get(self.at + 1).map(|next| next.kind);
            match token.kind {
                Kind::Word if !names::may_be_unit(token.text, unit.is_empty()) => return None,
                Kind::Word => {
                    unit.push_str(if unit.is_empty() || unit.ends_with(['/', '*']) {
                        ""
                    } else {
                        " "
                    });
                    unit.push_str(token.text);
                }
                Kind::Sign('/' | '*') if matches!(next, Some(Kind::Word | Kind::Symbol)) => {
                    unit.push_str(token.text);
                }
                Kind::Symbol if unit.ends_with(['/', '*']) => unit.push_str(token.text),
                Kind::Sign('^') => {
                    self.at += 1;
                    match self.index() {
                        Some(power) => unit.push_str(&power),
                        None => break,
                    }
                    continue;
                }
                _ => break,
            }
            self.at += 1;
        }
        Some(Expr::Quantity(Box::new(value), name(&unit)))
    }

    /// `3 hours` and `20 minutes` in the smaller unit, if they measure the same.
    pub fn together(larger: &Expr, smaller: &Expr) -> Option<Expr> {
        let (Expr::Quantity(value, unit), Expr::Quantity(rest, small)) = (larger, smaller) else {
            return None;
        };
        let scale = factor(unit, small).filter(|_| unit != small)?;
        let scaled = times((**value).clone(), Expr::Number(scale));
        Some(Expr::Quantity(Box::new(Expr::Sum(vec![scaled, (**rest).clone()])), small.clone()))
    }
}
