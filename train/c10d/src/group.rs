//! Process groups: collectives that return at once, and handles to wait on.

use std::ffi::CString;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tch::{Kind, Tensor};

use crate::Rank;
use crate::ffi::{self, Handle};

/// Which of torch.distributed's process groups carries the collectives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Tensors on the CPU.
    Gloo,
    /// Tensors on CUDA devices; there only when libtorch has CUDA.
    Nccl,
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::Gloo => "gloo",
            Self::Nccl => "nccl",
        }
    }
}

/// How `all_reduce` combines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    /// Element by element, the sum over the ranks.
    Sum,
    /// Element by element, the largest of the ranks' values.
    Max,
}

/// This process's membership in a group of `world_size` ranks.
///
/// All ranks call the same collectives in the same order. A group of one rank has no backend:
/// its collectives are copies, so that one process takes the same path as many.
pub struct Group {
    rank: usize,
    world_size: usize,
    native: Option<Native>,
}

struct Native {
    group: Handle,
    store: Handle,
}

// SAFETY: the handles are intrusive pointers to thread-safe C++ objects that only this value owns.
unsafe impl Send for Group {}

/// A collective in flight. It keeps its tensors alive; wait before reading the output.
#[must_use = "the output is not there before wait()"]
pub struct Work {
    handle: Handle,
    what: String,
    _tensors: Vec<Tensor>,
}

// SAFETY: the handle is an intrusive pointer that only this value owns; c10d's Work may be waited
// on from any thread.
unsafe impl Send for Work {}

impl Group {
    /// A group of this process alone.
    pub fn solo() -> Self {
        Self { rank: 0, world_size: 1, native: None }
    }

    /// Meets the other ranks at the master's store and connects to them. A collective that does
    /// not complete within `timeout` is an error on the ranks that wait for it.
    ///
    /// # Errors
    /// When the store cannot be reached or not all ranks arrive within `timeout`.
    pub fn connect(rank: &Rank, backend: Backend, timeout: Duration) -> Result<Self> {
        if rank.world_size == 1 {
            return Ok(Self::solo());
        }
        let place = || {
            format!(
                "rank {} of {} could not join the {} group at {}:{} within {} s: check that all \
                 ranks started and that this address is reachable from every node",
                rank.rank,
                rank.world_size,
                backend.name(),
                rank.master_addr,
                rank.master_port,
                timeout.as_secs_f32()
            )
        };
        let host = CString::new(rank.master_addr.as_str()).with_context(place)?;
        let kind = CString::new(backend.name()).expect("no NUL in a backend's name");
        let timeout_ms = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        let world = rank.world_size as i32;
        // torchrun's agent serves the store itself.
        let agent_serves = std::env::var("TORCHELASTIC_USE_AGENT_STORE").is_ok_and(|v| v == "True");
        let mut native = Native { group: std::ptr::null_mut(), store: std::ptr::null_mut() };
        // SAFETY: strings are NUL-terminated and live through the call; `store` receives a handle
        // that `native` owns from then on.
        let error = unsafe {
            let serve = rank.rank == 0 && !agent_serves;
            let port = rank.master_port;
            ffi::s1_store_open(host.as_ptr(), port, world, serve, timeout_ms, &mut native.store)
        };
        ffi::check(error).with_context(place)?;
        // SAFETY: as above, and the store is open.
        let error = unsafe {
            ffi::s1_group_new(
                kind.as_ptr(),
                host.as_ptr(),
                native.store,
                rank.rank as i32,
                world,
                timeout_ms,
                &mut native.group,
            )
        };
        ffi::check(error).with_context(place)?;
        Ok(Self { rank: rank.rank, world_size: rank.world_size, native: Some(native) })
    }

    /// This process's rank, 0 to `world_size` - 1.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many ranks the group has.
    pub fn world_size(&self) -> usize {
        self.world_size
    }

    /// Concatenates every rank's `input` in rank order into `output`, which has `world_size`
    /// times its elements and the same kind.
    pub fn all_gather_into(&self, output: &Tensor, input: &Tensor) -> Result<Work> {
        self.check_sizes("all_gather_into", output, input)?;
        self.start("all_gather_into", &[input, output], |group, work| {
            // SAFETY: live handles; the tensors outlive the work (kept in `Work`).
            unsafe { ffi::s1_all_gather_into(group, ffi::raw(output), ffi::raw(input), work) }
        })
    }

    /// Sums `input` over the ranks and leaves this rank's share of the sum, the `rank`-th of
    /// `world_size` equal parts, in `output`. `input` may be overwritten.
    pub fn reduce_scatter(&self, output: &Tensor, input: &Tensor) -> Result<Work> {
        self.check_sizes("reduce_scatter", input, output)?;
        self.start("reduce_scatter", &[input, output], |group, work| {
            // SAFETY: as in all_gather_into.
            unsafe { ffi::s1_reduce_scatter(group, ffi::raw(output), ffi::raw(input), work) }
        })
    }

    /// Combines `tensor` over the ranks, in place.
    pub fn all_reduce(&self, tensor: &Tensor, how: Reduce) -> Result<Work> {
        self.start("all_reduce", &[tensor, tensor], |group, work| {
            // SAFETY: as in all_gather_into.
            unsafe { ffi::s1_all_reduce(group, ffi::raw(tensor), how == Reduce::Max, work) }
        })
    }

    /// Copies `tensor` from rank `source` to all, in place.
    pub fn broadcast(&self, tensor: &Tensor, source: usize) -> Result<Work> {
        if source >= self.world_size {
            bail!("broadcast from rank {source} in a world of {}", self.world_size);
        }
        self.start("broadcast", &[tensor, tensor], |group, work| {
            // SAFETY: as in all_gather_into.
            unsafe { ffi::s1_broadcast(group, ffi::raw(tensor), source as i32, work) }
        })
    }

    /// Complete when every rank has reached it.
    pub fn barrier(&self) -> Result<Work> {
        // SAFETY: a live handle.
        self.start("barrier", &[], |group, work| unsafe { ffi::s1_barrier(group, work) })
    }

    fn check_sizes(&self, operation: &str, whole: &Tensor, part: &Tensor) -> Result<()> {
        if whole.numel() != part.numel() * self.world_size || whole.kind() != part.kind() {
            bail!(
                "{operation} on rank {} of {}: the whole is {:?} {:?}, the part {:?} {:?}; the \
                 whole must have {} times the part's elements in the same kind",
                self.rank,
                self.world_size,
                whole.kind(),
                whole.size(),
                part.kind(),
                part.size(),
                self.world_size
            );
        }
        Ok(())
    }

    /// Issues a collective over `tensors` (from, to), or copies when this rank is alone.
    fn start(
        &self,
        operation: &str,
        tensors: &[&Tensor],
        issue: impl FnOnce(Handle, *mut Handle) -> *mut std::ffi::c_char,
    ) -> Result<Work> {
        let shapes: Vec<(Kind, Vec<i64>)> = tensors.iter().map(|t| (t.kind(), t.size())).collect();
        let what = format!("{operation} {shapes:?} on rank {} of {}", self.rank, self.world_size);
        let _tensors = tensors.iter().map(|t| t.shallow_clone()).collect();
        let mut handle = std::ptr::null_mut();
        match (&self.native, tensors) {
            (Some(native), _) => {
                ffi::check(issue(native.group, &mut handle)).with_context(|| what.clone())?;
            }
            (None, [from, to]) if from.data_ptr() != to.data_ptr() => {
                to.shallow_clone().copy_(&from.view_as(to));
            }
            (None, _) => {}
        }
        Ok(Work { handle, what, _tensors })
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: both handles are ours or null, which the shim's delete accepts; the group goes
        // before the store that it uses.
        unsafe {
            ffi::s1_group_free(self.group);
            ffi::s1_store_close(self.store);
        }
    }
}

impl Work {
    /// Blocks until the collective is complete (for NCCL: until it is ordered before later work
    /// of the current stream).
    ///
    /// # Errors
    /// A lost peer or a timeout; the text names operation, sizes and rank.
    pub fn wait(mut self) -> Result<()> {
        let handle = std::mem::replace(&mut self.handle, std::ptr::null_mut());
        if handle.is_null() {
            return Ok(());
        }
        // SAFETY: a live handle that wait frees; ours is null from here on.
        ffi::check(unsafe { ffi::s1_work_wait(handle) }).with_context(|| self.what.clone())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // SAFETY: the handle is ours or null.
        unsafe { ffi::s1_work_free(self.handle) }
    }
}
