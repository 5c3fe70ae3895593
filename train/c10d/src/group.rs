//! Process groups: collectives that return at once, and handles to wait on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tch::{Device, Kind, Tensor};

use crate::Rank;
use crate::Store;
use crate::aten;
use crate::ffi::{self, Handle};
use crate::native::{Native, Settings};

/// Which of torch.distributed's process groups carries the collectives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Tensors on the CPU.
    Gloo,
    /// Tensors on CUDA devices; there only when libtorch has CUDA.
    Nccl,
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gloo => "gloo",
            Self::Nccl => "nccl",
        }
    }

    fn device(self, local_rank: usize) -> Device {
        match self {
            Self::Gloo => Device::Cpu,
            Self::Nccl => Device::Cuda(local_rank),
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
    settings: Settings,
    native: Native,
}

/// A collective in flight. It keeps its tensors alive; wait before reading the output.
#[must_use = "the output is not there before wait()"]
pub struct Work {
    handle: Handle,
    what: String,
    abandoned: Arc<AtomicBool>,
    _tensors: Vec<Tensor>,
}

// SAFETY: the handle is an intrusive pointer that only this value owns; c10d's Work may be waited
// on from any thread.
unsafe impl Send for Work {}

impl Group {
    /// A group of this process alone.
    pub fn solo() -> Self {
        let settings = Settings {
            backend: Backend::Gloo,
            master_addr: String::new(),
            timeout: Duration::MAX,
            device: Device::Cpu,
            local_world_size: 1,
        };
        Self { rank: 0, world_size: 1, settings, native: Native::solo() }
    }

    /// Meets the other ranks at the master's store and connects to them. A collective that does
    /// not complete within `timeout` is an error on the ranks that wait for it.
    ///
    /// # Errors
    /// When the store cannot be reached or not all ranks arrive within `timeout`, or ten seconds
    /// if that is less.
    pub fn connect(rank: &Rank, backend: Backend, timeout: Duration) -> Result<Self> {
        Self::connect_within(timeout, rank, backend, timeout)
    }

    /// The same with a time of its own for all ranks to arrive.
    ///
    /// # Errors
    /// As [`Group::connect`], with `joining` for `timeout`.
    pub fn connect_within(
        joining: Duration,
        rank: &Rank,
        backend: Backend,
        timeout: Duration,
    ) -> Result<Self> {
        if rank.world_size == 1 {
            return Ok(Self::solo());
        }
        let device = backend.device(rank.local_rank);
        let master_addr = rank.master_addr.clone();
        let local_world_size = rank.local_world_size;
        let settings = Settings { backend, master_addr, timeout, device, local_world_size };
        Native::open(rank, joining)
            .and_then(|native| native.join(&settings, rank.rank, rank.world_size))
            .map(|native| Self {
                rank: rank.rank,
                world_size: rank.world_size,
                settings: settings.clone(),
                native,
            })
            .with_context(|| {
                format!(
                    "rank {} of {} could not join the {} group at {}:{}: check that all ranks \
                     started and that this address is reachable from every node",
                    rank.rank,
                    rank.world_size,
                    backend.name(),
                    rank.master_addr,
                    rank.master_port
                )
            })
    }

    /// One rank with a communicator of its own, on the first device: whether the backend itself
    /// works can be tried without a second GPU. Everything else takes [`Group::solo`].
    ///
    /// # Errors
    /// When libtorch does not have the backend or it finds no device.
    pub fn communicator_of_one(backend: Backend, timeout: Duration) -> Result<Self> {
        let Rank { master_addr, .. } = Rank::solo();
        let device = backend.device(0);
        let settings = Settings { backend, master_addr, timeout, device, local_world_size: 1 };
        let native = Native::solo().communicate(&settings, 0, 1);
        let native = native.with_context(|| format!("a {} group of one rank", backend.name()))?;
        Ok(Self { rank: 0, world_size: 1, settings, native })
    }

    /// The group of those ranks of this group that `members` lists; a member's rank in it is its
    /// place in the list. Only members call it, each with the same list, and different lists may
    /// be split off at once under one `name`. It has this group's backend and timeout, and may
    /// outlive it.
    ///
    /// # Errors
    /// When this rank is no member, a member is no rank of this group or listed twice, when the
    /// same `name` and `members` were split off before, or not all members come.
    pub fn split(&self, name: &str, members: &[usize]) -> Result<Self> {
        let what =
            || format!("split {name} {members:?} on rank {} of {}", self.rank, self.world_size);
        let distinct: BTreeSet<usize> = members.iter().copied().collect();
        ensure!(
            distinct.len() == members.len() && members.iter().all(|&m| m < self.world_size),
            "{}: members are different ranks of the group",
            what()
        );
        let rank = members
            .iter()
            .position(|&member| member == self.rank)
            .with_context(|| format!("{}: only members split", what()))?;
        let prefix = format!("split/{name}/{members:?}");
        let native = self
            .native
            .part(&prefix, rank)
            .and_then(|native| native.join(&self.settings, rank, members.len()))
            .with_context(what)?;
        Ok(Self { rank, world_size: members.len(), settings: self.settings.clone(), native })
    }

    /// Makes `device` the one that this rank works on, where that is not the `local_rank`-th of
    /// the node, and the thread's current CUDA device. Call it before the first collective; groups
    /// split off later take it over. Nothing on the CPU. With NCCL compiled, never run.
    pub fn set_device(&mut self, device: Device) -> Result<()> {
        self.native.set_device(device, true)?;
        self.settings.device = device;
        Ok(())
    }

    /// From here on, dropping this group waits for nobody: for a rank that gives up for a reason
    /// of its own. A failed collective or a panic has the same effect, which matters for NCCL
    /// alone.
    pub fn abandon(&self) {
        self.native.abandoned.store(true, Ordering::Relaxed);
    }

    /// Notes for the ranks of this group, from any thread. Those of another `name`, or of a group
    /// that was split off, are apart.
    pub fn store(&self, name: &str) -> Result<Store> {
        Ok(Store::new(self.native.under(name)?, self.timeout()))
    }

    /// This process's rank, 0 to `world_size` - 1.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many ranks the group has.
    pub fn world_size(&self) -> usize {
        self.world_size
    }

    /// How long a collective may take.
    pub fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// How many ranks of the run, in this group or not, are on this machine.
    pub fn local_world_size(&self) -> usize {
        self.settings.local_world_size
    }

    /// Concatenates every rank's `input` in rank order into `output`, which has `world_size`
    /// times its elements and the same kind. To autograd this is no change of `output`: a graph
    /// built on memory that was released since may be run backward once it is gathered again.
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

    /// Every rank's `values`, as many on each, in rank order: small things that the ranks agree on.
    pub fn all_gather_i64(&self, values: &[i64]) -> Result<Vec<Vec<i64>>> {
        let (n, kind) = (values.len(), Kind::Int64);
        if n == 0 {
            return Ok(vec![Vec::new(); self.world_size]);
        }
        let mine = Tensor::from_slice(values).to_device(self.settings.device);
        let all = Tensor::empty([(self.world_size * n) as i64], (kind, self.settings.device));
        self.all_gather_into(&all, &mine)?.wait()?;
        let all = Vec::<i64>::try_from(all).context("all_gather_i64")?;
        Ok(all.chunks(n).map(<[i64]>::to_vec).collect())
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

    /// Cuts `input` along dim 0 into `world_size` equal parts, sends the r-th to rank r, and lays
    /// what arrives in rank order into `output`, of the same shape and kind.
    pub fn all_to_all(&self, output: &Tensor, input: &Tensor) -> Result<Work> {
        self.check_parts("all_to_all", input)?;
        if output.size() != input.size() || output.kind() != input.kind() {
            bail!(
                "all_to_all on rank {} of {}: the output is {:?} {:?}, the input {:?} {:?}; they \
                 must be of the same shape and kind",
                self.rank,
                self.world_size,
                output.kind(),
                output.size(),
                input.kind(),
                input.size()
            );
        }
        self.start("all_to_all", &[input, output], |group, work| {
            // SAFETY: as in all_gather_into.
            unsafe { ffi::s1_all_to_all(group, ffi::raw(output), ffi::raw(input), work) }
        })
    }

    /// [`Group::all_to_all`] of `x`, waited for, as an operation of autograd: its backward is the
    /// all-to-all of the gradient, in which again all ranks must take part. Alone, `x` itself.
    pub fn exchange(&self, x: &Tensor) -> Result<Tensor> {
        self.check_parts("exchange", x)?;
        if self.native.group.is_null() {
            return Ok(x.shallow_clone());
        }
        let mut output = std::ptr::null_mut();
        // SAFETY: live handles; the graph keeps the backend alive.
        let error = unsafe { ffi::s1_exchange(self.native.group, ffi::raw(x), &mut output) };
        ffi::check(error).inspect_err(|_| self.abandon())?;
        // SAFETY: a new at::Tensor that nobody else owns.
        Ok(unsafe { Tensor::from_ptr(output.cast()) })
    }

    /// Complete when every rank has reached it.
    pub fn barrier(&self) -> Result<Work> {
        // SAFETY: a live handle.
        self.start("barrier", &[], |group, work| unsafe { ffi::s1_barrier(group, work) })
    }

    fn check_parts(&self, operation: &str, whole: &Tensor) -> Result<()> {
        ensure!(
            whole.size().first().is_some_and(|rows| *rows % self.world_size as i64 == 0),
            "{operation} on rank {} of {}: {:?} has no {} equal parts along dim 0",
            self.rank,
            self.world_size,
            whole.size(),
            self.world_size
        );
        Ok(())
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
        let released = tensors.iter().any(|tensor| aten::is_released(tensor));
        ensure!(!released, "{what}: the memory is released, restore_storage must come first");
        let _tensors = tensors.iter().map(|t| t.shallow_clone()).collect();
        let mut handle = std::ptr::null_mut();
        if !self.native.group.is_null() {
            ffi::check(issue(self.native.group, &mut handle))
                .inspect_err(|_| self.abandon())
                .with_context(|| what.clone())?;
        } else if let [from, to] = tensors
            && from.data_ptr() != to.data_ptr()
        {
            aten::refill(to, &from.view_as(to))?;
        }
        let abandoned = self.native.abandoned.clone();
        Ok(Work { handle, what, abandoned, _tensors })
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
        ffi::check(unsafe { ffi::s1_work_wait(handle) })
            .inspect_err(|_| self.abandoned.store(true, Ordering::Relaxed))
            .with_context(|| self.what.clone())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // SAFETY: the handle is ours or null.
        unsafe { ffi::s1_work_free(self.handle) }
    }
}
