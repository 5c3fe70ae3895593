//! What results claim: the score interval of a share, the test of a difference, and the paper's
//! three metrics of a budget curve.

use serde::{Deserialize, Serialize};

/// The 95% Wilson score interval of a share of `correct` in `n`, both ends in 0..=1. `n` is not 0;
/// `correct` may be a mean over repeats.
///
/// Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
/// 1927. s1 reports no interval; with AIME's 30 questions it is some 35 points wide.
pub fn wilson(correct: f64, n: usize) -> [f64; 2] {
    assert!(n > 0 && (0.0..=n as f64).contains(&correct), "{correct} correct of {n}");
    const Z: f64 = 1.959963984540054; // the normal distribution's 97.5% quantile
    let (share, n) = (correct / n as f64, n as f64);
    let center = share + Z * Z / (2.0 * n);
    let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let end = |end: f64| (end / (1.0 + Z * Z / n)).clamp(0.0, 1.0);
    // At the ends of the scale the formula is exact but for rounding.
    let low = if correct == 0.0 { 0.0 } else { end(center - half) };
    let high = if share == 1.0 { 1.0 } else { end(center + half) };
    [low, high]
}

/// The p value of paired differences, one for each question: how often their sum is so far from 0,
/// either way, when a coin tosses each one's sign. Exact, and for right or wrong answers McNemar's
/// exact test. At worst some 10^6 steps for each difference.
///
/// Source: R. A. Fisher, The design of experiments, 1935, section 21.
pub fn sign_flip(differences: &[i64]) -> f64 {
    let unit = differences.iter().fold(0, |unit, one| common_divisor(unit, one.unsigned_abs()));
    if unit == 0 {
        return 1.0;
    }
    let sizes = differences.iter().map(|one| (one.unsigned_abs() / unit) as usize);
    let total: usize = sizes.clone().sum();
    let observed = (differences.iter().sum::<i64>().unsigned_abs() / unit) as usize;
    // How likely each sum of the positive ones is.
    let mut chance = vec![0.0; total + 1];
    chance[0] = 1.0;
    for size in sizes {
        for sum in (0..=total).rev() {
            let before = sum.checked_sub(size).map_or(0.0, |before| chance[before]);
            chance[sum] = (chance[sum] + before) / 2.0;
        }
    }
    let far = |sum: &usize| (2 * sum).abs_diff(total) >= observed;
    (0..=total).filter(far).map(|sum| chance[sum]).sum::<f64>().min(1.0)
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// One budget on a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Mean thinking tokens over the questions.
    pub thinking_tokens: f64,
    /// In percent.
    pub accuracy: f64,
    /// What was asked of the thinking tokens.
    pub asked: Asked,
}

/// The least and the most mean thinking tokens that were asked for; nothing by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// At least so many.
    pub least: Option<f64>,
    /// At most so many.
    pub most: Option<f64>,
}

impl Asked {
    /// At most so many tokens, as a budget asks for, and a prompt that names a number of tokens.
    /// A prompt for short thinking asks for at most what is thought without it.
    pub fn at_most(tokens: f64) -> Self {
        Asked { least: None, most: Some(tokens) }
    }

    /// At least so many, as a minimum asks for. A prompt for long thinking asks for at least what
    /// is thought without it.
    pub fn at_least(tokens: f64) -> Self {
        Asked { least: Some(tokens), most: None }
    }

    /// At most so many steps, which the paper takes for 100 tokens each.
    pub fn steps(steps: usize) -> Self {
        Self::at_most(100.0 * steps as f64)
    }
}

/// Control: the share of budgets whose mean thinking tokens lie within what was asked for, in
/// percent. Budgets that asked for nothing do not count; `None` if none did.
pub fn control(points: &[Point]) -> Option<f64> {
    let asked = points.iter().filter(|point| point.asked != Asked::default());
    let within = asked.clone().filter(|point| {
        let Asked { least, most } = point.asked;
        least.is_none_or(|least| point.thinking_tokens >= least)
            && most.is_none_or(|most| point.thinking_tokens <= most)
    });
    let (asked, within) = (asked.count(), within.count());
    (asked > 0).then(|| 100.0 * within as f64 / asked as f64)
}

/// Scaling: the mean slope over all pairs of budgets, in points of accuracy for each doubling of
/// the mean thinking tokens. `None` with fewer than two budgets of different length.
///
/// Differs from s1: the paper's formula has plain tokens; only log2 gives the numbers of its table.
/// A budget without any thinking has no place on a logarithmic axis and is left out, and so are
/// pairs of equal length, which have no slope.
pub fn scaling(points: &[Point]) -> Option<f64> {
    let on_axis: Vec<(f64, f64)> = points
        .iter()
        .filter(|point| point.thinking_tokens > 0.0)
        .map(|point| (point.thinking_tokens.log2(), point.accuracy))
        .collect();
    let (mut slopes, mut pairs) = (0.0, 0);
    for (n, a) in on_axis.iter().enumerate() {
        for b in on_axis[..n].iter().filter(|b| b.0 != a.0) {
            slopes += (a.1 - b.1) / (a.0 - b.0);
            pairs += 1;
        }
    }
    (pairs > 0).then(|| slopes / f64::from(pairs))
}

/// Performance: the best accuracy, in percent.
pub fn performance(points: &[Point]) -> Option<f64> {
    points.iter().map(|point| point.accuracy).max_by(f64::total_cmp)
}
