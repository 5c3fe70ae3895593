//! The one computation of these kernels: a tile of rows x columns, each element one chain of
//! fused multiply-adds over k in order.
//!
//! Since an element's chain is the same in every shape of tile and on every processor, its bits
//! depend on its row and its column alone.

use super::Isa;
#[cfg(target_arch = "x86_64")]
use super::simd::{avx2_shape, avx512_shape};

/// Columns of a panel: one cache line of fp32.
pub const PANEL: usize = 16;

/// `out[r, c] = (carry ? out[r, c] : 0) + sum over i of x[i, r] * w[i, c], + bias[c]`.
pub struct Tile {
    /// `[k, rows]`: for each step of k the tile's rows side by side.
    pub x: *const f32,
    /// The first panel: line `i` holds step i (fp32) or steps 2i and 2i + 1 (bf16, low and high).
    pub w: *const f32,
    /// From one line of a panel to the next, in 32-bit words.
    pub line: usize,
    /// From one panel to the next, in 32-bit words.
    pub panel: usize,
    /// Steps of the chain.
    pub k: usize,
    /// The first element of the output.
    pub out: *mut f32,
    /// From one row of the output to the next.
    pub stride: usize,
    /// Columns of the output that exist, from `out` on; the rest of the tile is not written.
    pub columns: usize,
    /// A bias for every column of the panels, or null.
    pub bias: *const f32,
    /// Whether the chain goes on from what `out` holds.
    pub carry: bool,
}

/// Computes a tile.
///
/// # Safety
/// The pointers hold what [`Tile`] says for the shape, and the processor has the features.
pub type TileFn = unsafe fn(&Tile);

/// The widest tile for so many rows that takes at most `panels`, and how many it takes.
#[cfg(target_arch = "x86_64")]
pub fn shape(isa: Isa, bf16: bool, rows: usize, panels: usize) -> (TileFn, usize) {
    match (isa, bf16) {
        (Isa::Avx512, true) => avx512_shape::<true>(rows, panels),
        (Isa::Avx512, false) => avx512_shape::<false>(rows, panels),
        (Isa::Avx2, true) => avx2_shape::<true>(rows, panels),
        (Isa::Avx2, false) => avx2_shape::<false>(rows, panels),
    }
}

/// Elsewhere there is no [`Isa`] to ask for.
#[cfg(not(target_arch = "x86_64"))]
pub fn shape(isa: Isa, _: bool, _: usize, _: usize) -> (TileFn, usize) {
    unreachable!("this processor has no {isa:?}")
}

/// Most rows of one tile.
pub fn most_rows(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 12,
        Isa::Avx2 => 6,
    }
}
