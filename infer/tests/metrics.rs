//! The paper's published numbers from its published points, and the interval's textbook values.

use infer::bootstrap::{Answers, Resamples};
use infer::metrics::{Asked, Point, control, performance, scaling, sign_flip, wilson};

/// What was asked, mean thinking tokens, right of 30: AIME24 has 30 questions.
type Row = (Asked, f64, u32);

fn points(rows: &[Row]) -> Vec<Point> {
    let point = |&(asked, thinking_tokens, right): &Row| Point {
        thinking_tokens,
        accuracy: 100.0 * f64::from(right) / 30.0,
        asked,
    };
    rows.iter().map(point).collect()
}

#[track_caller]
fn check(rows: &[Row], published: (Option<f64>, f64, f64)) {
    let points = points(rows);
    let (expected_control, expected_scaling, expected_performance) = published;
    assert_eq!(control(&points), expected_control);
    let ours = scaling(&points).unwrap();
    assert!((ours - expected_scaling).abs() < 0.006, "scaling is {ours}");
    let ours = performance(&points).unwrap();
    assert!((ours - expected_performance).abs() < 0.05, "performance is {ours}");
}

/// Tables 3, 12, 13 and 14 of the paper, to the digits that their rounded inputs give.
#[test]
fn published_rows() {
    let tokens = |n: usize| Asked::at_most([1024.0, 2048.0, 4096.0, 8192.0, 16384.0][n]);
    check(
        &[
            (tokens(0), 7939., 8),
            (tokens(1), 7158., 9),
            (tokens(2), 8263., 10),
            (tokens(3), 7108., 10),
            (tokens(4), 7500., 12),
        ],
        (Some(40.0), -23.77, 40.0),
    );
    check(
        &[
            (tokens(0), 1024., 1),
            (tokens(1), 2048., 9),
            (tokens(2), 4031., 10),
            (tokens(3), 5664., 10),
            (tokens(4), 6330., 12),
        ],
        (Some(100.0), 13.16, 40.0),
    );
    let steps = |n: usize| Asked::steps([16, 32, 64, 128, 256][n]);
    check(
        &[
            (steps(0), 7252., 10),
            (steps(1), 6277., 7),
            (steps(2), 5396., 10),
            (steps(3), 5552., 11),
            (steps(4), 7551., 10),
        ],
        (Some(60.0), 2.93, 36.7),
    );
    check(
        &[
            (steps(0), 1517., 7),
            (steps(1), 2963., 7),
            (steps(2), 4636., 10),
            (steps(3), 5409., 11),
            (steps(4), 7551., 10),
        ],
        (Some(100.0), 6.41, 36.7),
    );
    // A prompt for short, and one for long thinking; without either it is 6109 tokens.
    let classes = [(Asked::at_most(6109.0), 8033., 9), (Asked::at_least(6109.0), 9651., 11)];
    check(&classes, (Some(50.0), 25.18, 36.7));
}

/// Budget forcing and rejection sampling: the figures' points, of which the table has five.
#[test]
fn published_figures() {
    let caps = |n: usize| Asked::at_most([1000.0, 2000.0, 4000.0, 32768.0, 32768.0][n]);
    check(
        &[
            (caps(0), 1000., 4),
            (caps(1), 2000., 9),
            (caps(2), 3933., 13),
            (caps(3), 5302., 15),
            (caps(4), 7320., 17),
        ],
        (Some(100.0), 14.90, 56.7),
    );
    let cap = Asked::at_most;
    let rejection = [
        (cap(3500.0), 2974., 12),
        (cap(4000.0), 3703., 11),
        (cap(5000.0), 4344., 10),
        (cap(6000.0), 4734., 9),
        (cap(8000.0), 5193., 8),
        (cap(16000.0), 5293., 7),
    ];
    // The table says -35 without saying which five.
    check(&rejection[1..], (Some(100.0), -35.50, 36.7));
    let without_the_second = [&rejection[..1], &rejection[2..]].concat();
    check(&without_the_second, (Some(100.0), -33.91, 40.0));
}

#[test]
fn points_without_a_slope() {
    let free = Asked::default();
    let none = Asked::at_most(0.0);
    assert_eq!(scaling(&[]), None);
    assert_eq!(scaling(&points(&[(free, 100.0, 3)])), None);
    assert_eq!(scaling(&points(&[(free, 100.0, 3), (free, 100.0, 9)])), None);
    assert_eq!(scaling(&points(&[(none, 0.0, 3), (free, 100.0, 9)])), None);
    let three = points(&[(none, 0.0, 3), (free, 100.0, 6), (free, 200.0, 9)]);
    assert!((scaling(&three).unwrap() - 10.0).abs() < 1e-9);
    assert_eq!(performance(&[]), None);
    assert_eq!(control(&three[1..]), None);
    let asks = |tokens| Point { asked: Asked::at_least(tokens), ..three[1] };
    assert_eq!(control(&[asks(50.0), asks(101.0)]), Some(50.0));
}

/// Right or wrong for each question, in a fixed pattern.
fn share(right: usize, of: usize) -> Vec<f64> {
    (0..of).map(|nth| if nth * 7 % of < right { 1.0 } else { 0.0 }).collect()
}

#[track_caller]
fn check_interval(ours: [f64; 2], expected: [f64; 2], tolerance: f64) {
    let off = ours.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(off <= tolerance, "{ours:?}, not {expected:?}");
}

/// The draws of a share are binomial: the expected ends are that distribution's 2.5% and 97.5%
/// quantiles, summed exactly; to one question, for the noise of the draws.
#[test]
fn bootstrap_intervals_of_a_share() {
    for (right, of, expected) in [
        (15, 30, [10.0 / 30.0, 20.0 / 30.0]),
        (3, 30, [0.0, 7.0 / 30.0]),
        (465, 500, [453.0 / 500.0, 476.0 / 500.0]),
        (0, 30, [0.0, 0.0]),
        (30, 30, [1.0, 1.0]),
    ] {
        let estimate = Resamples::new(1, of).mean(&share(right, of));
        assert!((estimate.value - right as f64 / of as f64).abs() < 1e-12);
        let question = if right % of == 0 { 0.0 } else { 1.0 / of as f64 };
        check_interval(estimate.interval, expected, question + 1e-9);
    }
    let (one, same) = (Resamples::new(1, 30), Resamples::new(1, 30));
    assert_eq!(one.mean(&share(15, 30)), same.mean(&share(15, 30)));
    let lengths: Vec<f64> = (0..60).map(f64::from).collect();
    let [one, other] = [1, 2].map(|seed| Resamples::new(seed, 60).mean(&lengths).interval);
    assert_ne!(one, other);
    check_interval(one, other, 0.3);
}

#[track_caller]
fn check_sign_flip(differences: &[i64], expected: f64) {
    let other: Vec<i64> = differences.iter().map(|one| -one).collect();
    for differences in [differences, &other] {
        let p = sign_flip(differences);
        assert!((p - expected).abs() < 1e-12, "{differences:?}: {p}, not {expected}");
    }
}

/// Expected values: all signs by hand for the few; for the many both tails of the binomial
/// distribution in Python's exact fractions.
#[test]
fn differences_by_chance() {
    check_sign_flip(&[], 1.0);
    check_sign_flip(&[0, 0], 1.0);
    check_sign_flip(&[1], 1.0);
    check_sign_flip(&[1, 0, 1], 0.5);
    check_sign_flip(&[1; 4], 0.125);
    check_sign_flip(&[3; 5], 0.0625);
    check_sign_flip(&[1, -1], 1.0);
    check_sign_flip(&[1, 2, 3], 0.25);
    check_sign_flip(&[2, -1], 1.0); // of -3, -1, 1 and 3 all are as far as 1
    check_sign_flip(&[4, 2, -1], 0.5); // 7, 5, 3, 1: of eight sums four are as far as 5
    let flips = |b: usize, a: usize| [vec![1; b], vec![-1; a], vec![0; 30]].concat();
    check_sign_flip(&flips(10, 10), 1.0);
    check_sign_flip(&flips(20, 10), 0.09873714670538902);
    check_sign_flip(&flips(30, 5), 2.2361520677804947e-05);
    check_sign_flip(&flips(600, 500), 0.0028195449914364275);
}

/// The metrics' values are the plain ones; their draws take all budgets on the same questions.
#[test]
fn intervals_of_the_metrics() {
    let answers = |tokens: f64, right: usize| Answers {
        asked: Asked::at_most(1000.0),
        right: share(right, 30),
        thinking_tokens: (0..30).map(|nth| tokens + f64::from(nth % 5)).collect(),
    };
    let resamples = Resamples::new(7, 30);
    let metrics = resamples.metrics(&[answers(100.0, 9), answers(398.0, 15), answers(999.0, 15)]);
    let [control, scaling, best] =
        [metrics.control, metrics.scaling, metrics.performance].map(Option::unwrap);
    // 999 and a mean of 2 more are too much, except for draws of nothing but the first fifth.
    assert!((control.value - 200.0 / 3.0).abs() < 1e-9 && control.interval == [control.value; 2]);
    assert!(best.value == 50.0 && best.interval[0] > 30.0 && best.interval[1] < 70.0);
    assert!(scaling.interval[0] < scaling.value && scaling.value < scaling.interval[1]);

    // Equal answers under every budget: each draw has slope 0, though its accuracy moves.
    let flat = resamples.metrics(&[answers(100.0, 15), answers(400.0, 15)]).scaling.unwrap();
    assert_eq!((flat.value, flat.interval), (0.0, [0.0, 0.0]));
    assert_eq!(resamples.metrics(&[]), infer::bootstrap::Metrics::default());
    let alone = resamples.metrics(&[answers(100.0, 15)]);
    assert!(alone.scaling.is_none() && alone.control.unwrap().value == 100.0);
}

/// Table I of R. G. Newcombe, Two-sided confidence intervals for the single proportion, 1998
/// (method 3, the score interval), to its four digits.
#[test]
fn wilson_intervals() {
    let rows = [
        (81, 263, [0.2553, 0.3662]),
        (15, 148, [0.0624, 0.1605]),
        (0, 20, [0.0, 0.1611]),
        (1, 29, [0.0061, 0.1718]),
        (20, 20, [1.0 - 0.1611, 1.0]),
    ];
    for (correct, n, expected) in rows {
        let ours = wilson(f64::from(correct), n);
        let off = ours.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 6e-5, "{correct} of {n}: {ours:?}, not {expected:?}");
    }
}
