//! What attention does between its two products: softmax of a row, and keys turned on their side.
//!
//! Written as plain loops over 16 lanes, which the compiler turns into vectors; each element is
//! computed by the same operations whatever their width.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::Isa;
use super::tile::PANEL;

/// Turns `row`'s first `visible` scores into `exp(scale * score - max)`, the rest into zeros, and
/// returns one over their sum. The row's length is a multiple of 16.
///
/// # Safety
/// The processor has the instruction set.
#[cfg(target_arch = "x86_64")]
pub unsafe fn softmax(isa: Isa, row: &mut [f32], visible: usize, scale: f32) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        match isa {
            Isa::Avx512 => softmax_avx512(row, visible, scale),
            Isa::Avx2 => softmax_avx2(row, visible, scale),
        }
    }
}

/// Elsewhere there is no [`Isa`] to ask for.
#[cfg(not(target_arch = "x86_64"))]
pub unsafe fn softmax(_: Isa, row: &mut [f32], visible: usize, scale: f32) -> f32 {
    softmax_row(row, visible, scale)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn softmax_avx512(row: &mut [f32], visible: usize, scale: f32) -> f32 {
    softmax_row(row, visible, scale)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn softmax_avx2(row: &mut [f32], visible: usize, scale: f32) -> f32 {
    softmax_row(row, visible, scale)
}

#[inline(always)]
fn softmax_row(row: &mut [f32], visible: usize, scale: f32) -> f32 {
    row[visible..].fill(f32::NEG_INFINITY);
    let mut most = [f32::NEG_INFINITY; PANEL];
    for scores in row.chunks_exact_mut(PANEL) {
        for lane in 0..PANEL {
            scores[lane] *= scale;
            most[lane] = if scores[lane] > most[lane] { scores[lane] } else { most[lane] };
        }
    }
    let most = most.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0; PANEL];
    for scores in row.chunks_exact_mut(PANEL) {
        for lane in 0..PANEL {
            scores[lane] = exp(scores[lane] - most);
            sums[lane] += scores[lane];
        }
    }
    let mut half = PANEL / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    1.0 / sums[0]
}

/// e^x for x <= 0 within 2 units in the last place; zero below -87.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two pieces, so that n * LN2_HIGH is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // A NaN fails the comparison and stays.
    let inside = if x < -87.0 { -87.0 } else { x };
    let shifted = inside.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, inside));
    // Taylor's series: |r| <= ln 2 / 2, so the first term left out is below 2^-27.
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = r.mul_add(p, c);
    }
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_shl(23);
    let e = f32::from_bits(p.to_bits().wrapping_add(power));
    if x < -87.0 { 0.0 } else { e }
}

/// How many positions ahead of their use keys are asked for.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 32;

/// `to[i, p] = from[p, i]` for i < d and p < `positions` <= 16, and zero for the other p; d is a
/// multiple of 8, and `stride` lies between two positions of `from`.
///
/// # Safety
/// The pointers hold what that says, `to` [d, 16]; the processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub unsafe fn turn(from: *const f32, stride: usize, positions: usize, d: usize, to: *mut f32) {
    for half in [0, 8] {
        for i in (0..d).step_by(8) {
            let mut rows = [_mm256_setzero_ps(); 8];
            for (p, row) in rows.iter_mut().enumerate() {
                let ahead = from.wrapping_add((half + p + AHEAD) * stride + i);
                if half + p < positions {
                    // SAFETY: a position and 8 of its elements that exist, and a hint.
                    unsafe {
                        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                        *row = _mm256_loadu_ps(from.add((half + p) * stride + i));
                    }
                }
            }
            for (j, row) in turn_8x8(rows).into_iter().enumerate() {
                // SAFETY: line i + j of `to`.
                unsafe { _mm256_storeu_ps(to.add((i + j) * PANEL + half), row) };
            }
        }
    }
}

/// Elsewhere there is no [`Isa`] to ask for.
#[cfg(not(target_arch = "x86_64"))]
pub unsafe fn turn(_: *const f32, _: usize, _: usize, _: usize, _: *mut f32) {
    unreachable!("this processor has no instruction set to turn keys for")
}

/// An 8 x 8 matrix on its side.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn turn_8x8(r: [__m256; 8]) -> [__m256; 8] {
    let pairs = |a, b| (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    let ((a, b), (c, d)) = (pairs(r[0], r[1]), pairs(r[2], r[3]));
    let ((e, f), (g, h)) = (pairs(r[4], r[5]), pairs(r[6], r[7]));
    let fours = |a, b| (_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xee>(a, b));
    let ((a, c), (b, d)) = (fours(a, c), fours(b, d));
    let ((e, g), (f, h)) = (fours(e, g), fours(f, h));
    let low = |a, b| _mm256_permute2f128_ps::<0x20>(a, b);
    let high = |a, b| _mm256_permute2f128_ps::<0x31>(a, b);
    [low(a, e), low(c, g), low(b, f), low(d, h), high(a, e), high(c, g), high(b, f), high(d, h)]
}
