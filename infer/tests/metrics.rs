//! The paper's published numbers from its published points, and the interval's textbook values.

use infer::metrics::{Point, control, performance, scaling, wilson};

/// Rows of (asked at most, mean thinking tokens, right of 30): AIME24 has 30 questions.
fn points(rows: &[(Option<usize>, f64, u32)]) -> Vec<Point> {
    let point = |&(max, thinking_tokens, right): &(Option<usize>, f64, u32)| Point {
        thinking_tokens,
        accuracy: 100.0 * f64::from(right) / 30.0,
        asked: (None, max),
    };
    rows.iter().map(point).collect()
}

#[track_caller]
fn check(rows: &[(Option<usize>, f64, u32)], published: (Option<f64>, f64, f64)) {
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
    let asked = [1024, 2048, 4096, 8192, 16384].map(Some);
    let row = |n: usize, thinking: f64, right: u32| (asked[n], thinking, right);
    check(
        &[
            row(0, 7939., 8),
            row(1, 7158., 9),
            row(2, 8263., 10),
            row(3, 7108., 10),
            row(4, 7500., 12),
        ],
        (Some(40.0), -23.77, 40.0),
    );
    check(
        &[
            row(0, 1024., 1),
            row(1, 2048., 9),
            row(2, 4031., 10),
            row(3, 5664., 10),
            row(4, 6330., 12),
        ],
        (Some(100.0), 13.16, 40.0),
    );
    // Steps: the limit is 100 tokens for each step that was asked for.
    let steps = [1600, 3200, 6400, 12800, 25600].map(Some);
    let row = |n: usize, thinking: f64, right: u32| (steps[n], thinking, right);
    check(
        &[
            row(0, 7252., 10),
            row(1, 6277., 7),
            row(2, 5396., 10),
            row(3, 5552., 11),
            row(4, 7551., 10),
        ],
        (Some(60.0), 2.93, 36.7),
    );
    check(
        &[
            row(0, 1517., 7),
            row(1, 2963., 7),
            row(2, 4636., 10),
            row(3, 5409., 11),
            row(4, 7551., 10),
        ],
        (Some(100.0), 6.41, 36.7),
    );
    check(&[(None, 8033., 9), (None, 9651., 11)], (None, 25.18, 36.7));
}

#[test]
fn points_without_a_slope() {
    assert_eq!(scaling(&[]), None);
    assert_eq!(scaling(&points(&[(None, 100.0, 3)])), None);
    assert_eq!(scaling(&points(&[(None, 100.0, 3), (None, 100.0, 9)])), None);
    assert_eq!(scaling(&points(&[(Some(0), 0.0, 3), (None, 100.0, 9)])), None);
    let three = points(&[(Some(0), 0.0, 3), (None, 100.0, 6), (None, 200.0, 9)]);
    assert!((scaling(&three).unwrap() - 10.0).abs() < 1e-9);
    assert_eq!(performance(&[]), None);
    let least = Point { asked: (Some(50), None), ..three[1].clone() };
    assert_eq!(control(&[least.clone(), Point { asked: (Some(101), None), ..least }]), Some(50.0));
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
