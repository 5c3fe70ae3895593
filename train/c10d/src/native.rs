//! The C++ objects behind a group, a store and a process group, and their lifetimes.

use std::env;
use std::ffi::CString;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use tch::Device;

use crate::ffi::{self, Handle};
use crate::{Backend, Rank};

/// What a sub-group takes over from its group.
#[derive(Clone)]
pub struct Settings {
    pub backend: Backend,
    pub master_addr: String,
    pub timeout: Duration,
    pub device: Device,
    /// The run's ranks on this machine.
    pub local_world_size: usize,
}

/// Ranks start at least so far apart before one is called missing.
const STARTING: Duration = Duration::from_secs(10);

/// The group is null when this rank is alone; the store is always there.
pub struct Native {
    pub group: Handle,
    store: Handle,
    /// Whether the end aborts what is in flight.
    pub abandoned: Arc<AtomicBool>,
}

// SAFETY: the handles are intrusive pointers to thread-safe C++ objects that only this value owns.
unsafe impl Send for Native {}

impl Native {
    /// No group, and a store that `make` writes to the place that it is given.
    fn with_store(make: impl FnOnce(*mut Handle) -> *mut std::ffi::c_char) -> Result<Self> {
        let abandoned = Arc::default();
        let mut native = Self { group: null_mut(), store: null_mut(), abandoned };
        ffi::check(make(&mut native.store))?;
        Ok(native)
    }

    /// A store of this process alone, and no group.
    pub fn solo() -> Self {
        // SAFETY: a live place for a handle.
        Self::with_store(|store| unsafe { ffi::s1_store_solo(store) })
            .expect("an empty map can be made")
    }

    /// The store that the master serves, and no group yet. All ranks arrive within `joining`.
    pub fn open(rank: &Rank, joining: Duration) -> Result<Self> {
        let host = CString::new(rank.master_addr.as_str())?;
        // torchrun's agent serves the store itself, through all its restarts of the ranks.
        let agent_serves = env::var("TORCHELASTIC_USE_AGENT_STORE").is_ok_and(|v| v == "True");
        let (port, world) = (rank.master_port, rank.world_size as i32);
        let serve = rank.rank == 0 && !agent_serves;
        let timeout_ms = millis(joining.max(STARTING));
        // SAFETY: a NUL-terminated string and a place for a handle, alive through the call.
        let native = Self::with_store(|store| unsafe {
            ffi::s1_store_open(host.as_ptr(), port, world, serve, timeout_ms, store)
        })?;
        match env::var("TORCHELASTIC_RESTART_COUNT") {
            Ok(attempt) if agent_serves => native.under(&format!("attempt/{attempt}")),
            _ => Ok(native),
        }
    }

    /// The part of this store under `prefix`, and no group yet.
    pub fn under(&self, prefix: &str) -> Result<Self> {
        let prefix = CString::new(prefix)?;
        // SAFETY: as in open; our own store is live.
        Self::with_store(|store| unsafe {
            ffi::s1_store_prefix(self.store, prefix.as_ptr(), store)
        })
    }

    /// The part of this store under `prefix`, which `rank` takes once, and no group yet.
    pub fn part(&self, prefix: &str, rank: usize) -> Result<Self> {
        let native = self.under(prefix)?;
        let (key, mut count) = (CString::new(format!("taken by {rank}"))?, 0);
        // SAFETY: live handle, string and number.
        ffi::check(unsafe { ffi::s1_store_count(native.store, key.as_ptr(), &mut count) })?;
        ensure!(count == 1, "this name and these members were split off before");
        Ok(native)
    }

    /// Connects to the other ranks at this store; nothing when there are none.
    pub fn join(self, settings: &Settings, rank: usize, world_size: usize) -> Result<Self> {
        if world_size == 1 { Ok(self) } else { self.communicate(settings, rank, world_size) }
    }

    /// Makes the backend's group of all ranks at this store, be it one alone.
    pub fn communicate(
        mut self,
        settings: &Settings,
        rank: usize,
        world_size: usize,
    ) -> Result<Self> {
        let host = CString::new(settings.master_addr.as_str())?;
        let kind = CString::new(settings.backend.name())?;
        // SAFETY: strings are NUL-terminated and live through the call, the store is open;
        // `group` receives a handle that `self` owns from then on.
        ffi::check(unsafe {
            ffi::s1_group_new(
                kind.as_ptr(),
                host.as_ptr(),
                self.store,
                rank as i32,
                world_size as i32,
                millis(settings.timeout),
                &mut self.group,
            )
        })?;
        self.set_device(settings.device, false)?;
        Ok(self)
    }

    /// See [`crate::Group::set_device`].
    pub fn set_device(&self, device: Device, current: bool) -> Result<()> {
        let Device::Cuda(index) = device else { return Ok(()) };
        // SAFETY: a live handle or null; libtorch looks at the index.
        ffi::check(unsafe { ffi::s1_group_device(self.group, index as i32, current) })
    }

    /// See [`crate::Store::set`].
    pub fn set(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let key = note(key)?;
        // SAFETY: a live handle, a NUL-terminated string and as many bytes as said.
        ffi::check(unsafe {
            ffi::s1_store_set(self.store, key.as_ptr(), bytes.as_ptr(), bytes.len())
        })
    }

    /// What stands at `key` now.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let (key, mut bytes, mut n) = (note(key)?, null_mut(), 0);
        // SAFETY: a live handle, a NUL-terminated string, and places for an address and a length.
        ffi::check(unsafe { ffi::s1_store_get(self.store, key.as_ptr(), &mut bytes, &mut n) })?;
        Ok((!bytes.is_null()).then(|| ffi::take_bytes(bytes, n)))
    }
}

/// Notes stand apart from the backends' own entries.
fn note(key: &str) -> Result<CString> {
    Ok(CString::new(format!("note/{key}"))?)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl Drop for Native {
    fn drop(&mut self) {
        let abort = self.abandoned.load(Ordering::Relaxed) || std::thread::panicking();
        // SAFETY: both handles are ours or null, which the shim's delete accepts; the group goes
        // before the store that it uses.
        unsafe {
            if !self.group.is_null() {
                // An end that fails is an end too, and there is nobody to tell.
                let _ = ffi::check(ffi::s1_group_end(self.group, abort));
            }
            ffi::s1_group_free(self.group);
            ffi::s1_store_close(self.store);
        }
    }
}
