//! Plain numbers and simple fractions as exact values, for [`crate::equivalent()`].

/// A number as it was understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Number {
    /// Any length: the digits without leading zeros, with `-` in front of a negative one.
    Integer(String),
    /// `numerator / denominator`, the denominator above zero; not reduced.
    Ratio(i128, i128),
}

impl Number {
    pub fn same_value(&self, other: &Number) -> bool {
        let (Some((a, b)), Some((c, d))) = (self.ratio(), other.ratio()) else {
            return self == other; // integers too long for exact products
        };
        a * d == b * c
    }

    fn ratio(&self) -> Option<(i128, i128)> {
        match self {
            Number::Integer(digits) => Some((small(digits)?, 1)),
            Number::Ratio(numerator, denominator) => Some((*numerator, *denominator)),
        }
    }
}

/// Reads normalised text that is nothing but a number: `-042`, `1,234`, `+2.50`, `.5`, `3/4`,
/// `-\frac{3}{4}`, `\frac34`. Anything else is `None`, and so is a ratio of over 18 digits.
pub fn number(text: &str) -> Option<Number> {
    let (negative, magnitude) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if let Some(value) = fraction(magnitude) {
        let (numerator, denominator) = value?;
        return Some(Number::Ratio(if negative { -numerator } else { numerator }, denominator));
    }
    let (whole, decimals) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let whole = if whole.is_empty() && !decimals.is_empty() { "0".into() } else { digits(whole)? };
    if !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let decimals = decimals.trim_end_matches('0');
    if decimals.is_empty() {
        let sign = if negative && whole != "0" { "-" } else { "" };
        return Some(Number::Integer(format!("{sign}{whole}")));
    }
    let scaled = small(&format!("{whole}{decimals}"))?;
    let scale = 10i128.pow(decimals.len() as u32); // at most 18 digits, checked by `small`
    Some(Number::Ratio(if negative { -scaled } else { scaled }, scale))
}

/// `a/b`, `\frac{a}{b}` or `\fracab` (single digits): outer `None` when it is no fraction at all,
/// inner `None` when its parts are not small integers or the denominator is zero.
fn fraction(text: &str) -> Option<Option<(i128, i128)>> {
    let (numerator, denominator) = match text.strip_prefix("\\frac") {
        Some(arguments) => match arguments.strip_prefix('{') {
            Some(braced) => braced.strip_suffix('}')?.split_once("}{")?,
            None if arguments.len() == 2 && arguments.is_ascii() => arguments.split_at(1),
            None => return None,
        },
        None => text.split_once('/')?,
    };
    let signed = |part: &str| match part.strip_prefix('-') {
        Some(part) => Some(-small(&digits(part)?)?),
        None => small(&digits(part)?),
    };
    let value = signed(numerator).zip(signed(denominator));
    Some(value.filter(|(_, d)| *d != 0).map(|(n, d)| (n * d.signum(), d.abs())))
}

/// Digits without thousands separators and leading zeros, or `None` for anything else.
fn digits(text: &str) -> Option<String> {
    let mut groups = text.split(',');
    let first = groups.next()?;
    let grouped = text.contains(',');
    let fits = (1..=3).contains(&first.len()) && text.split(',').skip(1).all(|g| g.len() == 3);
    if text.is_empty() || (grouped && !fits) {
        return None;
    }
    let joined: String = std::iter::once(first).chain(groups).collect();
    if !joined.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let trimmed = joined.trim_start_matches('0');
    Some(if trimmed.is_empty() { "0".into() } else { trimmed.into() })
}

/// The value of at most 18 digits: small enough for exact products in 128 bits.
fn small(digits: &str) -> Option<i128> {
    if digits.len() > 18 { None } else { digits.parse().ok() }
}
