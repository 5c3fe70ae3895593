//! The one computation of these kernels: a tile of rows x columns, each element one chain of
//! fused multiply-adds over k in order.
//!
//! Since an element's chain is the same in every shape of tile and on every processor, its bits
//! depend on its row and its column alone.

use super::Isa;
use super::lanes::{Avx2, Avx512, Lanes};

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
pub fn shape(isa: Isa, bf16: bool, rows: usize, panels: usize) -> (TileFn, usize) {
    match (isa, bf16) {
        (Isa::Avx512, true) => avx512_shape::<true>(rows, panels),
        (Isa::Avx512, false) => avx512_shape::<false>(rows, panels),
        (Isa::Avx2, true) => avx2_shape::<true>(rows, panels),
        (Isa::Avx2, false) => avx2_shape::<false>(rows, panels),
    }
}

/// Most rows of one tile.
pub fn most_rows(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 12,
        Isa::Avx2 => 6,
    }
}

/// Panels of a wide tile by its rows: accumulators and weights fill the registers. What is left
/// at the edge is done panel by panel.
macro_rules! shapes {
    ($name:ident, $tile:ident, $vectors:literal, $($rows:literal => $panels:literal),+) => {
        fn $name<const BF16: bool>(rows: usize, panels: usize) -> (TileFn, usize) {
            match rows {
                $($rows if panels >= $panels => {
                    ($tile::<BF16, $rows, { $panels * $vectors }>, $panels)
                })+
                $($rows => ($tile::<BF16, $rows, $vectors>, 1),)+
                _ => unreachable!("no tile has {rows} rows"),
            }
        }
    };
}

shapes!(avx512_shape, avx512, 1, 1 => 4, 2 => 4, 3 => 4, 4 => 4, 5 => 4, 6 => 4,
    7 => 2, 8 => 2, 9 => 2, 10 => 2, 11 => 2, 12 => 2);
shapes!(avx2_shape, avx2, 2, 1 => 2, 2 => 2, 3 => 1, 4 => 1, 5 => 1, 6 => 1);

#[target_feature(enable = "avx512f")]
unsafe fn avx512<const BF16: bool, const R: usize, const N: usize>(tile: &Tile) {
    // SAFETY: the caller's.
    unsafe { compute::<Avx512, BF16, R, N>(tile) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const BF16: bool, const R: usize, const N: usize>(tile: &Tile) {
    // SAFETY: the caller's.
    unsafe { compute::<Avx2, BF16, R, N>(tile) }
}

/// R rows x N vectors. This and what it calls are always inlined into a function that enables the
/// features; closures would not be.
#[inline(always)]
unsafe fn compute<L: Lanes, const BF16: bool, const R: usize, const N: usize>(t: &Tile) {
    // SAFETY: as the caller promises; lines and rows below k, columns below `columns`.
    unsafe {
        // Through memory with loops so small that they are unrolled: then registers hold `acc`.
        let mut edge = [0.0; REGISTERS];
        if t.carry {
            begin(t, R, N * L::WIDTH, edge.as_mut_ptr());
        }
        let mut acc = [[L::zero(); N]; R];
        for r in 0..R {
            for v in 0..N {
                acc[r][v] = L::load(edge.as_ptr().add((r * N + v) * L::WIDTH));
            }
        }
        if BF16 {
            let (mut x, mut line) = (t.x, t.w);
            for _ in 0..t.k / 2 {
                step::<L, R, N>(&mut acc, x, weights::<L, LOW, N>(line, t.panel));
                step::<L, R, N>(&mut acc, x.add(R), weights::<L, HIGH, N>(line, t.panel));
                x = x.add(2 * R);
                line = line.add(t.line);
            }
            if t.k % 2 == 1 {
                step::<L, R, N>(&mut acc, x, weights::<L, LOW, N>(line, t.panel));
            }
        } else {
            for i in 0..t.k {
                let w = weights::<L, WORD, N>(t.w.add(i * t.line), t.panel);
                step::<L, R, N>(&mut acc, t.x.add(i * R), w);
            }
        }
        for r in 0..R {
            for v in 0..N {
                L::store(edge.as_mut_ptr().add((r * N + v) * L::WIDTH), acc[r][v]);
            }
        }
        finish(t, R, N * L::WIDTH, edge.as_ptr());
    }
}

/// Which part of a 32-bit word is the weight.
const WORD: u8 = 0;
const LOW: u8 = 1;
const HIGH: u8 = 2;

/// The weights of one step of k, as fp32.
#[inline(always)]
unsafe fn weights<L: Lanes, const PART: u8, const N: usize>(
    line: *const f32,
    panel: usize,
) -> [L::V; N] {
    let in_panel = PANEL / L::WIDTH;
    // SAFETY: the caller's.
    unsafe {
        let mut w = [L::zero(); N];
        for v in 0..N {
            let at = line.add(v / in_panel * panel + v % in_panel * L::WIDTH);
            w[v] = match PART {
                WORD => L::load(at),
                LOW => L::low(at),
                _ => L::high(at),
            };
        }
        w
    }
}

/// One step of k: every row's x times the weights, onto the accumulators.
#[inline(always)]
unsafe fn step<L: Lanes, const R: usize, const N: usize>(
    acc: &mut [[L::V; N]; R],
    x: *const f32,
    w: [L::V; N],
) {
    // SAFETY: the caller's.
    unsafe {
        for r in 0..R {
            let x = L::splat(x.add(r));
            for v in 0..N {
                acc[r][v] = L::fma(x, w[v], acc[r][v]);
            }
        }
    }
}

/// Elements of the largest tile: 12 x 2 registers of 16, or 6 x 4.
const REGISTERS: usize = 384;

/// What the chains go on from.
///
/// # Safety
/// As for [`compute`]; `to` holds rows * columns elements.
#[inline(never)]
unsafe fn begin(t: &Tile, rows: usize, columns: usize, to: *mut f32) {
    for r in 0..rows {
        // SAFETY: the caller's.
        unsafe {
            let from = t.out.add(r * t.stride);
            std::ptr::copy_nonoverlapping(from, to.add(r * columns), columns.min(t.columns));
        }
    }
}

/// Adds the bias and writes the columns that exist.
///
/// # Safety
/// As for [`begin`].
#[inline(never)]
unsafe fn finish(t: &Tile, rows: usize, columns: usize, from: *const f32) {
    for r in 0..rows {
        // SAFETY: the caller's.
        unsafe {
            let (from, to) = (from.add(r * columns), t.out.add(r * t.stride));
            if t.bias.is_null() {
                std::ptr::copy_nonoverlapping(from, to, columns.min(t.columns));
            } else {
                for c in 0..columns.min(t.columns) {
                    *to.add(c) = *from.add(c) + *t.bias.add(c);
                }
            }
        }
    }
}
