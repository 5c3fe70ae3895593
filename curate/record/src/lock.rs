//! One process at a time in an output folder.
//!
//! The lock is a hidden file beside the folder that its owner holds locked by `flock`: however the
//! owner ends, the system frees it, so a lock is never stale. Its text only says who holds it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::publish::parent_and_name;

/// Held until dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lock of the output folder `dest`, whose parent is there; the folder itself need
    /// not be.
    ///
    /// # Errors
    /// Another process holds it; the text names its id and host.
    pub fn take(dest: &Path) -> Result<Self> {
        let (parent, name) = parent_and_name(dest)?;
        let path = parent.join(format!(".{name}.lock"));
        let place = || format!("cannot lock {}", path.display());
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let mut file = options.open(&path).with_context(place)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut owner = String::new();
                    file.read_to_string(&mut owner).with_context(place)?;
                    let owner = if owner.is_empty() { "another process" } else { owner.trim() };
                    bail!(
                        "{owner} is writing {} right now; wait for it or choose another `output`",
                        dest.display()
                    );
                }
                // Some network file systems have no locks; there nobody is kept out.
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {}
                Err(TryLockError::Error(error)) => return Err(error).with_context(place),
            }
            // An owner that went away removed its file, perhaps after we had opened it.
            let same = fs::metadata(&path).is_ok_and(|now| {
                file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (now.dev(), now.ino()))
            });
            if same {
                file.set_len(0).and_then(|()| file.rewind()).with_context(place)?;
                writeln!(file, "process {} on {}", std::process::id(), host())
                    .with_context(place)?;
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A file that cannot be removed is no lock: closing it frees it.
        let _ = fs::remove_file(&self.path);
    }
}

/// This machine's name.
pub fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => std::env::var("HOSTNAME").unwrap_or_else(|_| "this host".into()),
        name => name.to_owned(),
    }
}
