//! Notes that ranks leave for one another, apart from collectives: from any thread, with no
//! timeout but the reader's own.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::native::Native;

/// The store of a group. Copies share it, and may outlive the group.
#[derive(Clone)]
pub struct Store {
    native: Arc<Shared>,
}

struct Shared(Native);

// SAFETY: every operation of c10d's stores takes their own lock.
unsafe impl Sync for Shared {}

impl Store {
    pub(crate) fn new(native: Native) -> Self {
        Self { native: Arc::new(Shared(native)) }
    }

    /// Leaves `text` under `key`, in place of what was there.
    ///
    /// # Errors
    /// When the store is lost, with the rank or the launcher that serves it.
    pub fn set(&self, key: &str, text: &str) -> Result<()> {
        let set = self.native.0.set(key, text.as_bytes());
        set.with_context(|| format!("leaving the note {key:?}"))
    }

    /// What stands under `key` now.
    ///
    /// # Errors
    /// As [`Store::set`].
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        let found = self.native.0.get(key);
        let found = found.with_context(|| format!("reading the note {key:?}"))?;
        Ok(found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}
