//! Fresh weights, drawn as transformers draws them.

use model::{Config, Unit};
use record::seed;
use tch::Tensor;

/// A unit's flat buffer with matrices from N(0, initializer_range²), biases 0 and norm weights 1.
/// Each tensor has its own stream, keyed by the seed and its name.
pub fn random_unit(config: &Config, unit: &Unit, seed: u64) -> Tensor {
    let mut flat: Vec<f32> = Vec::with_capacity(unit.numel() as usize);
    for param in &unit.params {
        let numel = param.numel() as usize;
        match (param.shape.len(), param.name.ends_with(".bias")) {
            (1, true) => flat.resize(flat.len() + numel, 0.0),
            (1, false) => flat.resize(flat.len() + numel, 1.0),
            _ => {
                let mut rng = seed::rng(seed, &["init", &param.name]);
                let draw = || (normal(&mut rng) * config.initializer_range) as f32;
                flat.extend(std::iter::repeat_with(draw).take(numel));
            }
        }
    }
    Tensor::from_slice(&flat)
}

/// A standard normal number, by Box and Muller's cosine branch.
pub(crate) fn normal(rng: &mut seed::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.uniform()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.uniform()).cos()
}
