//! A transformer layer's small operations, each in one pass over memory with its own gradient.
//!
//! On the CPU in fp32 they are loops of our own; for other kinds and devices each is composed of
//! libtorch's operations. Like tch's own operations they panic when shapes do not fit.

use std::ffi::c_char;

use tch::Tensor;

use crate::ffi::{self, Handle};

/// Root-mean-square norm over the last dimension: `weight * (x / sqrt(mean(x^2) + eps))`, as
/// transformers' `Qwen2RMSNorm`. For its gradient it keeps `x` and one number a row.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Tensor {
    // SAFETY: live tensors, and room for the one result.
    let [y] = results(|[y]| unsafe { ffi::s1_rms_norm(ffi::raw(x), ffi::raw(weight), eps, y) });
    y
}

/// `x + residual` and its [`rms_norm`], in this order.
pub fn add_rms_norm(x: &Tensor, residual: &Tensor, weight: &Tensor, eps: f64) -> (Tensor, Tensor) {
    let [x, residual, weight] = [x, residual, weight].map(ffi::raw);
    // SAFETY: live tensors, and room for the two results.
    let made = |[sum, y]: [_; 2]| unsafe { ffi::s1_add_rms_norm(x, residual, weight, eps, sum, y) };
    results(made).into()
}

/// `silu(gate) * up` times the transpose of `weight`: `[T, 2I]` and `[H, I]` to `[T, H]`; a row of
/// `gate_up` is its gate and then its up. For the gradient it keeps its inputs, not their product.
pub fn swiglu_linear(gate_up: &Tensor, weight: &Tensor) -> Tensor {
    let [gate_up, weight] = [gate_up, weight].map(ffi::raw);
    // SAFETY: live tensors, and room for the one result.
    let [y] = results(|[y]| unsafe { ffi::s1_swiglu_linear(gate_up, weight, y) });
    y
}

/// `silu(gate) * up`, `[T, 2I]` to `[T, I]`, outside of any graph: for a product by other means.
pub fn swiglu(gate_up: &Tensor) -> Tensor {
    // SAFETY: a live tensor, and room for the one result.
    let [y] = results(|[y]| unsafe { ffi::s1_swiglu(ffi::raw(gate_up), y) });
    y
}

/// Cuts `qkv` (`[T, (heads + 2 kv_heads) D]`) into queries `[T, heads, D]`, keys and values
/// `[T, kv_heads, D]`, and turns queries and keys by their positions' `cos` and `sin`
/// (`[T, 1, D]`), as transformers' `apply_rotary_pos_emb`.
pub fn rope(
    qkv: &Tensor,
    (cos, sin): &(Tensor, Tensor),
    heads: i64,
    kv_heads: i64,
) -> (Tensor, Tensor, Tensor) {
    let [qkv, cos, sin] = [qkv, cos, sin].map(ffi::raw);
    // SAFETY: live tensors, and room for the three results.
    let made = |[q, k, v]: [_; 3]| unsafe { ffi::s1_rope(qkv, cos, sin, heads, kv_heads, q, k, v) };
    results(made).into()
}

/// The sum over rows of `weights` (`[N]` fp32) times `-log softmax(logits)[target]`, an fp32
/// scalar summed in fp64. `logits` (`[N, V]` fp32) become the gradient of that sum. No graph.
pub fn cross_entropy_(logits: &mut Tensor, targets: &Tensor, weights: &Tensor) -> Tensor {
    let [logits, targets, weights] = [&*logits, targets, weights].map(ffi::raw);
    // SAFETY: live tensors, the first borrowed for writing, and room for the one result.
    let made = |[loss]: [_; 1]| unsafe { ffi::s1_cross_entropy(logits, targets, weights, loss) };
    let [loss] = results(made);
    loss
}

/// What `made` writes through its pointers when it returns no error text.
fn results<const N: usize>(made: impl FnOnce([*mut Handle; N]) -> *mut c_char) -> [Tensor; N] {
    let mut handles: [Handle; N] = [std::ptr::null_mut(); N];
    ffi::check(made(handles.each_mut().map(|handle| &raw mut *handle)))
        .unwrap_or_else(|error| panic!("{error}"));
    // SAFETY: without an error each is a new at::Tensor that nobody else owns.
    handles.map(|handle| unsafe { Tensor::from_ptr(handle.cast()) })
}
