//! Our own CPU kernels for decoding: a linear layer with packed weights, and attention over cached
//! keys and values, in fp32 arithmetic.
//!
//! libtorch's matrix products are made for large batches: with one to sixteen rows they run at a
//! tenth of the processor's rate, and a row's result depends on how many others it came with.
//! These read bf16 weights as they are, widen them in registers, and sum every element in one
//! fixed order, so that a row's bits are the same alone, in any batch and on any number of
//! threads. Where the processor has neither AVX-512 nor AVX2 with FMA, libtorch does the work.
//!
//! Reading order: [`linear`] (packed weights), [`attention`] (cached keys and values), `tile` (the
//! one computation in both), `simd` (the same in vectors), `softmax`, `pool` (threads), `buffer`
//! (memory).

pub mod attention;
pub mod linear;

mod buffer;
mod pool;
#[cfg(target_arch = "x86_64")]
mod simd;
mod softmax;
mod tile;

pub use attention::{Cached, Sequence, attend, attend_by};
pub use linear::{PackedLinear, Storage};

/// Instruction sets that the kernels are written for. Both give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// 512-bit vectors (avx512f).
    Avx512,
    /// 256-bit vectors with fused multiply-add (avx2, fma).
    Avx2,
}

impl Isa {
    /// The best one that this processor has.
    pub fn best() -> Option<Isa> {
        [Isa::Avx512, Isa::Avx2].into_iter().find(|isa| isa.is_here())
    }

    /// Whether this processor has it.
    pub fn is_here(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Isa::Avx512 => is_x86_feature_detected!("avx512f"),
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        };
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }
}
