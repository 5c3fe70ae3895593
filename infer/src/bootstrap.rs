//! Bootstrap intervals: how far a number moves when other questions of the same kind are asked.
//!
//! Questions are drawn again with replacement, all budgets on the same draws, as they were all
//! asked the same questions. The 95% interval holds the middle 95% of what comes out (the
//! percentile interval of B. Efron and R. Tibshirani, An introduction to the bootstrap, 1993).

use record::seed;
use serde::{Deserialize, Serialize};

use crate::metrics::{self, Asked, Point};

/// How often the questions are drawn again: the ends of an interval then move by some 2% of its
/// width from seed to seed.
pub const RESAMPLES: usize = 10_000;

/// The seed of all intervals: the same answers have the same ones.
pub const SEED: u64 = 0;

/// A budget's answers, question by question.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answers {
    /// What was asked of the thinking tokens.
    pub asked: Asked,
    /// For each question the share of its answers that are right.
    pub right: Vec<f64>,
    /// For each question the mean thinking tokens of its answers.
    pub thinking_tokens: Vec<f64>,
}

/// A number and its 95% interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Of the questions that were asked.
    pub value: f64,
    /// Lower and upper end.
    pub interval: [f64; 2],
}

/// The paper's three metrics of a curve; `None` where a curve has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// [`metrics::control`].
    pub control: Option<Estimate>,
    /// [`metrics::scaling`].
    pub scaling: Option<Estimate>,
    /// [`metrics::performance`]. The best of several budgets flatters, and so does its interval.
    pub performance: Option<Estimate>,
}

/// The same questions, drawn [`RESAMPLES`] times.
#[derive(Debug, Clone)]
pub struct Resamples {
    questions: usize,
    /// For each draw and question, how often it came.
    counts: Vec<u16>,
}

impl Resamples {
    /// Draws as many of `questions` (which are not 0) as there are, again and again.
    pub fn new(seed: u64, questions: usize) -> Self {
        assert!(questions > 0, "no questions to draw from");
        let mut rng = seed::rng(seed, &["infer", "bootstrap"]);
        let mut counts = vec![0; RESAMPLES * questions];
        for draw in counts.chunks_exact_mut(questions) {
            for _ in 0..questions {
                draw[rng.below(questions as u64) as usize] += 1;
            }
        }
        Resamples { questions, counts }
    }

    /// The mean of `values`, one for each question, in every draw.
    fn means(&self, values: &[f64]) -> Vec<f64> {
        assert_eq!(values.len(), self.questions, "one value for each question");
        let mean = |draw: &[u16]| {
            let sum: f64 = draw.iter().zip(values).map(|(n, value)| f64::from(*n) * value).sum();
            sum / self.questions as f64
        };
        self.counts.chunks_exact(self.questions).map(mean).collect()
    }

    /// The mean of `values`, one for each question.
    pub fn mean(&self, values: &[f64]) -> Estimate {
        Estimate { value: mean(values), interval: middle(self.means(values)) }
    }

    /// The metrics of a curve, with the budgets' answers to the same questions in the same order.
    ///
    /// Draws without a metric, such as a slope between equal lengths, do not count for its
    /// interval.
    pub fn metrics(&self, budgets: &[Answers]) -> Metrics {
        let point = |asked, right: f64, thinking_tokens| Point {
            thinking_tokens,
            accuracy: 100.0 * right,
            asked,
        };
        let points: Vec<Point> = budgets
            .iter()
            .map(|b| point(b.asked, mean(&b.right), mean(&b.thinking_tokens)))
            .collect();
        let means: Vec<(Asked, Vec<f64>, Vec<f64>)> = budgets
            .iter()
            .map(|b| (b.asked, self.means(&b.right), self.means(&b.thinking_tokens)))
            .collect();
        let draws: Vec<Vec<Point>> = (0..RESAMPLES)
            .map(|nth| means.iter().map(|b| point(b.0, b.1[nth], b.2[nth])).collect())
            .collect();
        let estimate = |metric: fn(&[Point]) -> Option<f64>| {
            let values: Vec<f64> = draws.iter().filter_map(|points| metric(points)).collect();
            Some(Estimate { value: metric(&points)?, interval: middle(values) })
        };
        Metrics {
            control: estimate(metrics::control),
            scaling: estimate(metrics::scaling),
            performance: estimate(metrics::performance),
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The 2.5% and the 97.5% quantile, between neighbours on the straight line. There is a value.
fn middle(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [0.025, 0.975].map(|share| {
        let at = share * (values.len() - 1) as f64;
        let (below, above) = (values[at.floor() as usize], values[at.ceil() as usize]);
        below + (above - below) * at.fract()
    })
}
