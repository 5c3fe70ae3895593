//! The choice of the next id: greedy, by temperature, and what is never chosen.

use infer::engine::Sampler;

fn sampler(temperature: f64, vocab_size: usize, seed: u64) -> Sampler {
    Sampler::new(temperature, vocab_size, record::seed::rng(seed, &["test"]))
}

#[track_caller]
fn check_greedy(logits: &[f32], vocab_size: usize, banned: &[i64], expected: i64) {
    assert_eq!(sampler(0.0, vocab_size, 0).pick(logits, banned).unwrap(), expected);
}

#[test]
fn greedy_takes_the_first_of_the_likeliest() {
    check_greedy(&[0.0, 2.0, 1.0], 3, &[], 1);
    check_greedy(&[2.0, 2.0, 1.0], 3, &[], 0);
    check_greedy(&[0.0, 2.0, 1.0], 3, &[1], 2);
    check_greedy(&[0.0, 2.0, 9.0], 2, &[], 1); // the last row has no token
    check_greedy(&[f32::NAN, -1.0, f32::NEG_INFINITY], 3, &[], 1);
}

#[test]
fn logits_without_a_number_are_an_error() {
    for logits in [vec![], vec![f32::NAN; 3], vec![f32::NEG_INFINITY; 3]] {
        for temperature in [0.0, 1.0] {
            let error = sampler(temperature, 3, 0).pick(&logits, &[]).unwrap_err();
            assert!(error.to_string().contains("no finite number"), "{error}");
        }
    }
}

/// 20,000 draws fall within five standard deviations of the softmax's shares; by chance they
/// would fall outside once in some 10^6 seeds, and the seed is fixed.
#[test]
fn temperature_draws_from_the_softmax() {
    let logits = [1.0f32, 2.0, 3.0, 2.5, 9.0];
    for temperature in [0.5, 1.0, 2.0] {
        let weight = |id: usize| (f64::from(logits[id]) / temperature).exp();
        let total: f64 = [0, 1, 2].map(weight).iter().sum();
        let draw = |seed| {
            let mut sampler = sampler(temperature, 4, seed); // id 4 has no token
            (0..20_000).map(|_| sampler.pick(&logits, &[3]).unwrap()).collect::<Vec<_>>()
        };
        let drawn = draw(7);
        assert_eq!(drawn, draw(7), "the same seed draws the same ids");
        for id in 0..3 {
            let (n, share) = (drawn.len() as f64, weight(id) / total);
            let seen = drawn.iter().filter(|&&d| d == id as i64).count() as f64;
            let deviation = (seen - n * share) / (n * share * (1.0 - share)).sqrt();
            assert!(deviation.abs() < 5.0, "id {id} at {temperature}: {deviation} deviations off");
        }
        assert!(drawn.iter().all(|&id| id < 3), "a banned or unknown id was drawn");
    }
}
