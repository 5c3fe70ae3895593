//! The few calls of libtorch that tch lacks.

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

use crate::ffi;

/// The vector-Jacobian product: for each input the gradient of `sum(outputs * cotangents)`,
/// in the input's shape. The graph is freed.
///
/// # Errors
/// When an input took no part in the outputs, or shapes of outputs and cotangents differ.
pub fn vjp(outputs: &[&Tensor], cotangents: &[&Tensor], inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    assert_eq!(outputs.len(), cotangents.len(), "one cotangent for each output");
    let handles = |tensors: &[&Tensor]| tensors.iter().map(|t| ffi::raw(t)).collect::<Vec<_>>();
    let (mut outs, mut cots, mut ins) = (handles(outputs), handles(cotangents), handles(inputs));
    let mut results = vec![std::ptr::null_mut(); inputs.len()];
    // SAFETY: the arrays have the lengths passed, hold live tensors, and the shim writes exactly
    // `inputs.len()` new tensors on success and none of ours to keep on failure.
    let error = unsafe {
        ffi::s1_vjp(
            outs.as_mut_ptr(),
            cots.as_mut_ptr(),
            outs.len(),
            ins.as_mut_ptr(),
            ins.len(),
            results.as_mut_ptr(),
        )
    };
    ffi::check(error).context("vector-Jacobian product")?;
    // SAFETY: each is a new at::Tensor that nobody else owns.
    Ok(results.into_iter().map(|t| unsafe { Tensor::from_ptr(t.cast()) }).collect())
}

/// The numbers of one AdamW update, in torch.optim.AdamW's words.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep {
    /// Which step this is, from 1: it corrects the moments' bias.
    pub step: u64,
    /// This step's rate, after any schedule.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled: times the rate, off the parameter itself.
    pub weight_decay: f64,
    /// Added to the square root of the second moment.
    pub eps: f64,
}

/// One parameter with its gradient and moments, all of one shape and kind; updated in place.
#[derive(Debug)]
pub struct AdamWSlot {
    /// The parameter, moved by the step.
    pub param: Tensor,
    /// Its gradient, only read.
    pub grad: Tensor,
    /// First moment: the running mean of the gradients.
    pub m: Tensor,
    /// Second moment: the running mean of their squares.
    pub v: Tensor,
}

/// libtorch's fused AdamW over all of `slots`, in place and in one pass over memory.
pub fn fused_adamw(slots: &[AdamWSlot], numbers: AdamWStep) -> Result<()> {
    let handles = |pick: fn(&AdamWSlot) -> &Tensor| -> Vec<ffi::Handle> {
        slots.iter().map(|slot| ffi::raw(pick(slot))).collect()
    };
    let (mut params, mut grads) = (handles(|s| &s.param), handles(|s| &s.grad));
    let (mut m, mut v) = (handles(|s| &s.m), handles(|s| &s.v));
    // SAFETY: four arrays of `slots.len()` live tensors; the shim keeps none of them.
    let error = unsafe {
        ffi::s1_fused_adamw(
            params.as_mut_ptr(),
            grads.as_mut_ptr(),
            m.as_mut_ptr(),
            v.as_mut_ptr(),
            slots.len(),
            numbers.step as f64,
            numbers.learning_rate,
            numbers.beta1,
            numbers.beta2,
            numbers.weight_decay,
            numbers.eps,
        )
    };
    ffi::check(error).context("fused AdamW")
}

/// Causal flash attention within packed segments, with a backward: `q` is `[tokens, heads, head
/// size]`, `k` and `v` likewise with a divisor of its heads (grouped-query attention), all bf16 on
/// one CUDA device, and so is `cu_seqlens`, int32, the segments' bounds from 0 to tokens;
/// `longest` is the longest segment's length. The scale is `1 / sqrt(head size)`.
///
/// Compiled, never run: needs a CUDA device.
///
/// # Errors
/// On other devices and kinds, and what libtorch refuses (a head size above 256, for one).
pub fn attend_segments_flash(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    cu_seqlens: &Tensor,
    longest: i64,
) -> Result<Tensor> {
    for tensor in [q, k, v] {
        ensure!(
            tensor.device().is_cuda() && tensor.kind() == Kind::BFloat16 && tensor.dim() == 3,
            "attend_segments_flash takes [tokens, heads, head size] in bf16 on a CUDA device, \
             not {:?} {:?} on {:?}",
            tensor.size(),
            tensor.kind(),
            tensor.device()
        );
    }
    let mut output = std::ptr::null_mut();
    // SAFETY: live tensors, and a place for one handle.
    ffi::check(unsafe {
        ffi::s1_attend_segments_flash(
            ffi::raw(q),
            ffi::raw(k),
            ffi::raw(v),
            ffi::raw(cu_seqlens),
            longest,
            &mut output,
        )
    })
    .context("flash attention")?;
    // SAFETY: a new at::Tensor that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(output.cast()) })
}

/// Frees the memory behind `tensor` and all that shares its storage, while tensors, views and
/// autograd graphs that refer to it stay: FSDP's way of keeping a layer's graph without keeping
/// the layer's weights. [`restore_storage`] must come before the next use of any of them, a graph's
/// backward included; libtorch does not check that the memory is there, and reading it before
/// ends the process.
///
/// # Errors
/// When the memory is not libtorch's own (a mapped file's, for one).
pub fn release_storage(tensor: &Tensor) -> Result<()> {
    // SAFETY: a live tensor; tensors of released memory are not to be read, as documented.
    ffi::check(unsafe { ffi::s1_release_storage(ffi::raw(tensor)) }).context("release_storage")
}

/// Allocates released memory again, at its former size and with undefined content; nothing when
/// it is there. Fill it with [`refill`] or [`crate::Group::all_gather_into`].
pub fn restore_storage(tensor: &Tensor) -> Result<()> {
    // SAFETY: a live tensor.
    ffi::check(unsafe { ffi::s1_restore_storage(ffi::raw(tensor)) }).context("restore_storage")
}

/// Whether the memory behind `tensor` is released.
pub fn is_released(tensor: &Tensor) -> bool {
    // SAFETY: a live tensor, of which only the storage is looked at.
    unsafe { ffi::s1_is_released(ffi::raw(tensor)) }
}

/// Copies `from` into `to`, which may have another kind or device, without counting as a change
/// to what an autograd graph saved of `to`.
///
/// # Errors
/// When the shapes differ or `to` is released.
pub fn refill(to: &Tensor, from: &Tensor) -> Result<()> {
    ensure!(
        to.size() == from.size(),
        "refill of {:?} from {:?}: the shapes must be the same",
        to.size(),
        from.size()
    );
    ensure!(!is_released(to), "refill of {:?}: restore_storage must come first", to.size());
    // `data` is the same memory with a version counter of its own.
    tch::no_grad(|| to.f_data()?.f_copy_(from)).context("refill")
}

/// Opens `libtorch_cuda.so` if it stands beside the `libtorch_cpu.so` in use; true when CUDA's
/// kernels are registered afterwards. Call it before the first tensor on a GPU.
pub fn load_cuda() -> bool {
    // SAFETY: dlopen of a library of the same libtorch; it has no other precondition.
    unsafe { ffi::s1_load_cuda() }
}

/// Lets the allocator keep freed memory for the next tensors instead of giving it back to the system,
/// which clears every page that it hands out. For the whole process; only glibc heeds it.
pub fn keep_freed_memory() {
    // SAFETY: it takes no pointers, and the allocator's settings may change at any time.
    unsafe { ffi::s1_keep_freed_memory() }
}

/// Ends the process from any thread while others compute. Unlike [`std::process::exit`] it runs no
/// C++ destructors, which would pull libtorch from under them.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: it takes no pointers and does not return.
    unsafe { ffi::s1_exit_at_once(code) }
}
