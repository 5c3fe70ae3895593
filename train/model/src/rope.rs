//! Rotary position embedding: its tables in fp32. [`c10d::fused::rope`] turns by them.

use tch::{Device, Kind, Tensor};

use crate::Config;

/// Cosines and sines of every position, `[positions, head_dim]` each, always in fp32: in bf16 the
/// position 20,001 would become 19,968.
///
/// The arithmetic is transformers' (`Qwen2RotaryEmbedding`) operation by operation, so that the
/// tables are its tables to the bit: fp32 frequencies times fp32 positions.
#[derive(Debug)]
pub struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// Tables for `positions` positions from 0.
    pub fn new(config: &Config, positions: i64, device: Device) -> Self {
        let dim = config.head_dim();
        let options = (Kind::Float, device);
        let exponents = Tensor::arange_start_step(0, dim, 2, (Kind::Int64, device))
            .to_kind(Kind::Float)
            / dim as f64;
        let theta = Tensor::full([1], config.rope_theta(), options);
        let frequencies = theta.pow(&exponents).reciprocal(); // [D/2]
        let angles = Tensor::arange(positions, options).unsqueeze(1) * frequencies.unsqueeze(0);
        let angles = Tensor::cat(&[&angles, &angles], -1); // [P, D]
        Self { cos: angles.cos(), sin: angles.sin() }
    }

    /// The rows of `positions` (`[T]`, int64): cosines and sines, `[T, 1, D]` each, in `kind`.
    pub fn at(&self, positions: &Tensor, kind: Kind) -> (Tensor, Tensor) {
        let rows = |table: &Tensor| table.index_select(0, positions).unsqueeze(1).to_kind(kind);
        (rows(&self.cos), rows(&self.sin))
    }
}
