//! Tiles in vectors of fp32 lanes, by AVX-512 or by AVX2 with FMA.
//!
//! All of it is inlined into functions that enable the features; nothing here may be called on a
//! processor without them.

#![allow(clippy::undocumented_unsafe_blocks, reason = "`Lanes` and `Tile` say what is needed")]
#![allow(clippy::needless_range_loop, reason = "rows r and vectors v of several arrays")]

use std::arch::x86_64::*;

use super::tile::{PANEL, Tile, TileFn};

/// Panels of a wide tile by its rows: accumulators and weights fill the registers. What is left
/// at the edge is done panel by panel.
macro_rules! shapes {
    ($name:ident, $tile:ident, $vectors:literal, $($rows:literal => $panels:literal),+) => {
        pub fn $name<const BF16: bool>(rows: usize, panels: usize) -> (TileFn, usize) {
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

shapes!(avx512_shape, avx512, 1, 1 => 4, 2 => 4, 3 => 4, 4 => 4, 5 => 2, 6 => 2,
    7 => 2, 8 => 2, 9 => 2, 10 => 2, 11 => 2, 12 => 2);
shapes!(avx2_shape, avx2, 2, 1 => 2, 2 => 2, 3 => 1, 4 => 1, 5 => 1, 6 => 1);

#[target_feature(enable = "avx512f")]
unsafe fn avx512<const BF16: bool, const R: usize, const N: usize>(tile: &Tile) {
    unsafe { compute::<Avx512, BF16, R, N>(tile) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const BF16: bool, const R: usize, const N: usize>(tile: &Tile) {
    unsafe { compute::<Avx2, BF16, R, N>(tile) }
}

/// R rows x N vectors. This and what it calls are always inlined into a function that enables the
/// features; closures would not be.
#[inline(always)]
unsafe fn compute<L: Lanes, const BF16: bool, const R: usize, const N: usize>(t: &Tile) {
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
        let (mut x, mut line) = (t.x, t.w);
        let lines = if BF16 { t.k / 2 } else { t.k };
        let next = AHEAD * t.line + (N * L::WIDTH / PANEL - 1) * t.panel;
        for left in (0..lines).rev() {
            let ahead = if left < AHEAD { next } else { AHEAD * t.line };
            prefetch::<L, N>(line, t.panel, ahead);
            if BF16 {
                step::<L, R, N>(&mut acc, x, weights::<L, LOW, N>(line, t.panel));
                x = x.add(R);
                step::<L, R, N>(&mut acc, x, weights::<L, HIGH, N>(line, t.panel));
            } else {
                step::<L, R, N>(&mut acc, x, weights::<L, WORD, N>(line, t.panel));
            }
            x = x.add(R);
            line = line.add(t.line);
        }
        if BF16 && t.k % 2 == 1 {
            step::<L, R, N>(&mut acc, x, weights::<L, LOW, N>(line, t.panel));
        }
        for r in 0..R {
            for v in 0..N {
                L::store(edge.as_mut_ptr().add((r * N + v) * L::WIDTH), acc[r][v]);
            }
        }
        finish(t, R, N * L::WIDTH, edge.as_ptr());
    }
}

/// How many lines ahead of its use a line is asked for.
const AHEAD: usize = 32;

/// Asks for each panel's line that comes a while later, at the end for the next tile's; what is
/// not there is only a hint.
#[inline(always)]
unsafe fn prefetch<L: Lanes, const N: usize>(line: *const f32, panel: usize, ahead: usize) {
    for p in 0..N * L::WIDTH / PANEL {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(p * panel + ahead).cast()) };
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

/// A vector register and its few operations.
///
/// # Safety
/// Every function needs the processor's features, and pointers valid for `WIDTH` elements (one
/// for `splat`); no alignment is needed.
pub trait Lanes {
    type V: Copy;
    /// Elements in a vector; a divisor of 16.
    const WIDTH: usize;
    unsafe fn zero() -> Self::V;
    unsafe fn load(at: *const f32) -> Self::V;
    unsafe fn store(at: *mut f32, v: Self::V);
    unsafe fn splat(at: *const f32) -> Self::V;
    /// a * b + c with one rounding.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The low halves of 32-bit words, each a bf16, as fp32.
    unsafe fn low(at: *const f32) -> Self::V;
    /// The high halves of 32-bit words, each a bf16, as fp32.
    unsafe fn high(at: *const f32) -> Self::V;
}

pub struct Avx512;

impl Lanes for Avx512 {
    type V = __m512;
    const WIDTH: usize = 16;
    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(at) }
    }
    #[inline(always)]
    unsafe fn store(at: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(at, v) }
    }
    #[inline(always)]
    unsafe fn splat(at: *const f32) -> __m512 {
        unsafe { _mm512_set1_ps(*at) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn low(at: *const f32) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_loadu_si512(at.cast()))) }
    }
    #[inline(always)]
    unsafe fn high(at: *const f32) -> __m512 {
        let mask = unsafe { _mm512_set1_epi32(0xffff_0000_u32 as i32) };
        unsafe { _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(at.cast()), mask)) }
    }
}

pub struct Avx2;

impl Lanes for Avx2 {
    type V = __m256;
    const WIDTH: usize = 8;
    #[inline(always)]
    unsafe fn zero() -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(at) }
    }
    #[inline(always)]
    unsafe fn store(at: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(at, v) }
    }
    #[inline(always)]
    unsafe fn splat(at: *const f32) -> __m256 {
        unsafe { _mm256_broadcast_ss(&*at) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn low(at: *const f32) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_loadu_si256(at.cast()))) }
    }
    #[inline(always)]
    unsafe fn high(at: *const f32) -> __m256 {
        let mask = unsafe { _mm256_set1_epi32(0xffff_0000_u32 as i32) };
        unsafe { _mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(at.cast()), mask)) }
    }
}
