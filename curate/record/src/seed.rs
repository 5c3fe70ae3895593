//! Random streams by name: the same seed and purpose give the same numbers on every machine, in
//! every order of work.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use sha2::{Digest, Sha256};

/// A stream of random numbers; [`rng`] makes it.
#[derive(Debug, Clone)]
pub struct Rng(ChaCha8Rng);

/// The stream of `seed` for a purpose, such as `rng(42, &["select", "domain"])`: ChaCha8 keyed by
/// SHA-256 of the seed and every part of the purpose, each with its length before it, so that no
/// two purposes share a stream. Take one stream a decision; then neither thread counts nor the
/// order of work can change what is drawn.
pub fn rng(seed: u64, purpose: &[&str]) -> Rng {
    let mut key = Sha256::new();
    key.update(seed.to_le_bytes());
    for part in purpose {
        key.update((part.len() as u64).to_le_bytes());
        key.update(part.as_bytes());
    }
    Rng(ChaCha8Rng::from_seed(key.finalize().into()))
}

impl Rng {
    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A whole number in `0..n`, each equally likely.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "a number below 0 was asked for");
        // The draws from `end` up would make the first few results likelier: draw again.
        let end = u64::MAX - u64::MAX % n;
        loop {
            let draw = self.next_u64();
            if draw < end {
                return draw % n;
            }
        }
    }

    /// A number in `[0, 1)`, one of 2^53 equally likely and equally spaced ones.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Puts `items` in random order, every order equally likely (Fisher-Yates, from the end).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}
