//! What a tile needs of a processor: vectors of fp32 lanes, by AVX-512 or by AVX2 with FMA.
//!
//! All of it is inlined into functions that enable the features; nothing here may be called on a
//! processor without them.

use std::arch::x86_64::*;

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
