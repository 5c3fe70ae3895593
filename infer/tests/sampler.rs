//! The choice of the next id: greedy, by temperature, and what is never chosen.

use infer::engine::Sampling;
use infer::engine::sampler::{Sampler, score};

fn sampler(temperature: f64, seed: u64) -> Sampler {
    Sampler::new(Sampling { temperature, ..Sampling::GREEDY }, &[], seed)
}

#[track_caller]
fn check_greedy(logits: &[f32], banned: &[i64], expected: i64) {
    assert_eq!(sampler(0.0, 0).pick(logits, &[], banned).unwrap(), expected);
}

#[test]
fn greedy_takes_the_first_of_the_likeliest() {
    check_greedy(&[0.0, 2.0, 1.0], &[], 1);
    check_greedy(&[2.0, 2.0, 1.0], &[], 0);
    check_greedy(&[0.0, 2.0, 1.0], &[1], 2);
    check_greedy(&[f32::NAN, -1.0, f32::NEG_INFINITY], &[], 1);
    let mut long = vec![-1.0; 100]; // longer than what is looked at together
    (long[40], long[70], long[99]) = (3.0, 3.0, f32::NAN);
    check_greedy(&long, &[], 40);
    check_greedy(&long, &[40], 70);
}

#[test]
fn logits_without_a_number_are_an_error() {
    for logits in [vec![], vec![f32::NAN; 3], vec![f32::NEG_INFINITY; 3]] {
        for temperature in [0.0, 1.0] {
            let error = sampler(temperature, 0).pick(&logits, &[], &[]).unwrap_err();
            assert!(error.to_string().contains("no finite number"), "{error}");
        }
    }
}

/// 20,000 draws fall within five standard deviations of the softmax's shares; by chance they
/// would fall outside once in some 10^6 seeds, and the seed is fixed.
#[test]
fn temperature_draws_from_the_softmax() {
    let logits = [1.0f32, 2.0, 3.0, 2.5];
    for temperature in [0.5, 1.0, 2.0] {
        let weight = |id: usize| (f64::from(logits[id]) / temperature).exp();
        let total: f64 = [0, 1, 2].map(weight).iter().sum();
        let draw = |seed| {
            let mut sampler = sampler(temperature, seed);
            (0..20_000).map(|_| sampler.pick(&logits, &[], &[3]).unwrap()).collect::<Vec<_>>()
        };
        let drawn = draw(7);
        assert_eq!(drawn, draw(7), "the same seed draws the same ids");
        for id in 0..3 {
            let (n, share) = (drawn.len() as f64, weight(id) / total);
            let seen = drawn.iter().filter(|&&d| d == id as i64).count() as f64;
            let deviation = (seen - n * share) / (n * share * (1.0 - share)).sqrt();
            assert!(deviation.abs() < 5.0, "id {id} at {temperature}: {deviation} deviations off");
        }
        assert!(drawn.iter().all(|&id| id < 3), "a banned id was drawn");
    }
}

/// Which ids can be drawn at temperature 1: the sampling's choice among seven known probabilities.
#[track_caller]
fn check_left(change: impl Fn(&mut Sampling), expected: &[i64]) {
    let shares = [0.05f32, 0.3, 0.1, 0.25, 0.1, 0.15, 0.05];
    let logits = shares.map(f32::ln);
    let mut sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };
    change(&mut sampling);
    let mut sampler = Sampler::new(sampling, &[], 5);
    let drawn = (0..2000).map(|_| sampler.pick(&logits, &[], &[]).unwrap());
    let drawn: std::collections::BTreeSet<i64> = drawn.collect();
    assert_eq!(drawn.into_iter().collect::<Vec<_>>(), expected, "{sampling:?}");
}

#[test]
fn top_k_top_p_and_min_p_leave_the_likeliest() {
    check_left(|_| (), &[0, 1, 2, 3, 4, 5, 6]);
    check_left(|s| s.top_k = 1, &[1]);
    check_left(|s| s.top_k = 3, &[1, 3, 5]);
    check_left(|s| s.top_k = 4, &[1, 2, 3, 4, 5]); // equals stay together
    check_left(|s| s.top_k = 9, &[0, 1, 2, 3, 4, 5, 6]);
    check_left(|s| s.top_p = 0.01, &[1]);
    check_left(|s| s.top_p = 0.5, &[1, 3]);
    check_left(|s| s.top_p = 0.6, &[1, 3, 5]);
    check_left(|s| s.top_p = 0.999, &[0, 1, 2, 3, 4, 5, 6]);
    check_left(|s| s.min_p = 0.32, &[1, 2, 3, 4, 5]);
    check_left(|s| s.min_p = 0.9, &[1]);
    check_left(|s| (s.top_k, s.top_p) = (2, 0.5), &[1]); // 0.3 of 0.55 is enough
    check_left(|s| (s.top_k, s.min_p) = (5, 0.4), &[1, 3, 5]);
}

#[test]
fn top_p_is_exact_over_many_ids() {
    // Probabilities fall by 1% from id to id: the first n have 1 - 0.99^n of all.
    let logits: Vec<f32> = (0..2000).map(|id| id as f32 * 0.99f32.ln()).collect();
    for top_p in [0.1f64, 0.9, 0.99] {
        let sampling = Sampling { temperature: 1.0, top_p, ..Sampling::GREEDY };
        let mut sampler = Sampler::new(sampling, &[], 1);
        let drawn = (0..2_000).map(|_| sampler.pick(&logits, &[], &[]).unwrap());
        let last = ((1.0 - top_p).ln() / 0.99f64.ln()).ceil() as i64;
        let most = drawn.max().unwrap();
        assert!(most < last && most > last * 9 / 10, "{most} of {last} at {top_p}");
    }
}

#[test]
fn repetition_makes_less_likely() {
    let sampling = Sampling { repetition_penalty: 2.0, ..Sampling::GREEDY };
    let pick = |logits: &[f32], ids: &[i64]| {
        Sampler::new(sampling, &[], 0).pick(logits, ids, &[]).unwrap()
    };
    assert_eq!(pick(&[1.0, 3.0, 2.0], &[]), 1);
    assert_eq!(pick(&[1.0, 3.0, 2.0], &[1, 1, 1]), 2); // once for each id, not for each time
    assert_eq!(pick(&[-1.0, -0.6, -2.0], &[1]), 0);
    assert_eq!(pick(&[1.0, 3.0, 2.0], &[1, 500]), 2); // ids of the prompt may be any
}

#[test]
fn scores_are_log_probabilities() {
    let logits = [1.0f32, 3.0, f32::NAN, 2.0, 3.0];
    let total: f64 = [1.0f64, 3.0, 2.0, 3.0].iter().map(|l| l.exp()).sum();
    let scored = score(&logits, 3, 17, 3);
    assert_eq!(scored.at, 17);
    assert!((scored.logprob - (2.0 - total.ln())).abs() < 1e-12);
    assert_eq!(scored.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 4, 3]);
    assert!((scored.top[0].1 - (3.0 - total.ln())).abs() < 1e-12);
    assert_eq!(score(&logits, 0, 0, 0).top, []);
    assert_eq!(score(&logits, 0, 0, 9).top.len(), 5);
}
