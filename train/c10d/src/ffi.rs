//! The C border: declarations of the shim's functions and the reading of its error texts.

use std::ffi::{CStr, c_char, c_int, c_void};

use anyhow::{Result, anyhow};
use tch::Tensor;

pub type Handle = *mut c_void;

unsafe extern "C" {
    fn s1_free_text(text: *mut c_char);
    pub fn s1_store_open(
        host: *const c_char,
        port: u16,
        world_size: c_int,
        serve: bool,
        timeout_ms: i64,
        out: *mut Handle,
    ) -> *mut c_char;
    pub fn s1_store_solo(out: *mut Handle) -> *mut c_char;
    pub fn s1_store_prefix(store: Handle, prefix: *const c_char, out: *mut Handle) -> *mut c_char;
    pub fn s1_store_count(store: Handle, key: *const c_char, count: *mut i64) -> *mut c_char;
    pub fn s1_store_set(
        store: Handle,
        key: *const c_char,
        bytes: *const u8,
        n: usize,
    ) -> *mut c_char;
    pub fn s1_store_get(
        store: Handle,
        key: *const c_char,
        bytes: *mut *mut c_char,
        n: *mut usize,
    ) -> *mut c_char;
    pub fn s1_store_close(store: Handle);
    pub fn s1_group_new(
        kind: *const c_char,
        master: *const c_char,
        store: Handle,
        rank: c_int,
        world_size: c_int,
        timeout_ms: i64,
        out: *mut Handle,
    ) -> *mut c_char;
    pub fn s1_group_device(group: Handle, index: c_int, current: bool) -> *mut c_char;
    pub fn s1_group_end(group: Handle, abort: bool) -> *mut c_char;
    pub fn s1_group_free(group: Handle);
    pub fn s1_all_gather_into(
        group: Handle,
        output: Handle,
        input: Handle,
        work: *mut Handle,
    ) -> *mut c_char;
    pub fn s1_reduce_scatter(
        group: Handle,
        output: Handle,
        input: Handle,
        work: *mut Handle,
    ) -> *mut c_char;
    pub fn s1_all_reduce(group: Handle, t: Handle, max: bool, work: *mut Handle) -> *mut c_char;
    pub fn s1_broadcast(group: Handle, t: Handle, source: c_int, work: *mut Handle) -> *mut c_char;
    pub fn s1_all_to_all(
        group: Handle,
        output: Handle,
        input: Handle,
        work: *mut Handle,
    ) -> *mut c_char;
    pub fn s1_exchange(group: Handle, input: Handle, output: *mut Handle) -> *mut c_char;
    pub fn s1_barrier(group: Handle, work: *mut Handle) -> *mut c_char;
    pub fn s1_work_wait(work: Handle) -> *mut c_char;
    pub fn s1_work_free(work: Handle);
    pub fn s1_vjp(
        outputs: *mut Handle,
        cotangents: *mut Handle,
        n_out: usize,
        inputs: *mut Handle,
        n_in: usize,
        results: *mut Handle,
    ) -> *mut c_char;
    pub fn s1_fused_adamw(
        params: *mut Handle,
        grads: *mut Handle,
        m: *mut Handle,
        v: *mut Handle,
        n: usize,
        step: f64,
        learning_rate: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> *mut c_char;
    pub fn s1_attend_segments_flash(
        q: Handle,
        k: Handle,
        v: Handle,
        cu_seqlens: Handle,
        longest: i64,
        output: *mut Handle,
    ) -> *mut c_char;
    pub fn s1_is_released(t: Handle) -> bool;
    pub fn s1_release_storage(t: Handle) -> *mut c_char;
    pub fn s1_restore_storage(t: Handle) -> *mut c_char;
    pub fn s1_count_cpu();
    pub fn s1_keep_freed();
    pub fn s1_cpu_memory(allocated: *mut usize, peak: *mut usize);
    pub fn s1_reset_cpu_peak();
    pub fn s1_cuda_memory(
        device: c_int,
        allocated: *mut usize,
        peak: *mut usize,
        available: *mut usize,
    ) -> *mut c_char;
    pub fn s1_reset_cuda_peak(device: c_int) -> *mut c_char;
    pub fn s1_rms_norm(x: Handle, weight: Handle, eps: f64, y: *mut Handle) -> *mut c_char;
    pub fn s1_add_rms_norm(
        x: Handle,
        residual: Handle,
        weight: Handle,
        eps: f64,
        sum: *mut Handle,
        y: *mut Handle,
    ) -> *mut c_char;
    pub fn s1_swiglu(gate_up: Handle, y: *mut Handle) -> *mut c_char;
    pub fn s1_swiglu_linear(gate_up: Handle, weight: Handle, y: *mut Handle) -> *mut c_char;
    pub fn s1_rope(
        qkv: Handle,
        cos: Handle,
        sin: Handle,
        heads: i64,
        kv_heads: i64,
        query: *mut Handle,
        key: *mut Handle,
        value: *mut Handle,
    ) -> *mut c_char;
    pub fn s1_cross_entropy(
        logits: Handle,
        targets: Handle,
        weights: Handle,
        loss: *mut Handle,
    ) -> *mut c_char;
    pub fn s1_exit_at_once(code: c_int) -> !;
    pub fn s1_load_cuda() -> bool;
}

/// The `at::Tensor*` that the shim expects; valid while `tensor` lives.
pub fn raw(tensor: &Tensor) -> Handle {
    tensor.as_ptr().cast_mut().cast()
}

/// Takes over `n` bytes that the shim allocated.
pub fn take_bytes(bytes: *mut c_char, n: usize) -> Vec<u8> {
    // SAFETY: the shim wrote `n` bytes at `bytes`, which are ours to free.
    let copy = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), n) }.to_vec();
    // SAFETY: as above, and they are not used again.
    unsafe { s1_free_text(bytes) };
    copy
}

/// Turns the shim's error text into an error and frees it.
pub fn check(text: *mut c_char) -> Result<()> {
    if text.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns either null or a NUL-terminated string from strdup, owned by us.
    let message = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: as above, and it is not used again.
    unsafe { s1_free_text(text) };
    // Some of c10d's errors carry pages of C++ frames.
    let said = message.split("Exception raised from").next().unwrap_or_default();
    Err(anyhow!(said.trim_end().to_owned()))
}
