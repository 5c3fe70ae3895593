//! Units: one name for each, and the factors between those of one dimension.

use num_rational::BigRational;
use num_traits::Zero;

use super::expression::Expr;

/// Names, the dimension, and the factor to its first unit as a fraction.
const TABLE: [(&[&str], &str, i64, i64); 35] = [
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
            word => words.push(singular(word)),
        }
    }
    let joined =
        if words.iter().any(|word| word == "/") { words.concat() } else { words.join(" ") };
    format!("{joined}{power}")
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

/// `1000 m` as value and unit, where the other side shows that the letter is a unit.
pub fn letter(expr: &Expr) -> Option<(Expr, String)> {
    let Expr::Product(items) = expr else { return None };
    let (Expr::Symbol(name), rest) = items.split_last()? else { return None };
    Some((Expr::Product(rest.to_vec()), name.clone()))
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
