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

/// Turns the shim's error text into an error and frees it.
pub fn check(text: *mut c_char) -> Result<()> {
    if text.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns either null or a NUL-terminated string from strdup, owned by us.
    let message = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: as above, and it is not used again.
    unsafe { s1_free_text(text) };
    Err(anyhow!(message))
}
