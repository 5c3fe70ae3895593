//! Every change that publishing makes on a disk, one function each, so that tests can make any one
//! of them fail and can see their order.
//!
//! `S1_DISK_FAULT=kill@17` ends the process at its 17th change, half a write done; `enospc@17` and
//! `eio@17` fail that change, `enospc@17+` it and all later ones.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use crate::publish::Digest;

/// Bytes in one write, and so between two places where it may fail.
const CHUNK: usize = 4 << 20;

/// One change on the disk, as [`watch`] records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new folder.
    MakeFolder(PathBuf),
    /// A new, empty file.
    MakeFile(PathBuf),
    /// Bytes behind a file's end.
    Append(PathBuf, Vec<u8>),
    /// What was written into the file before is on the disk from here on.
    SyncFile(PathBuf),
    /// What was made, renamed and removed in the folder before is on the disk from here on.
    SyncFolder(PathBuf),
    /// Another name, in the same folder.
    Rename(PathBuf, PathBuf),
    /// A file or an empty folder is gone.
    Remove(PathBuf),
}

/// What happens at a chosen change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process ends as by SIGKILL.
    Kill,
    /// As seen from the disk the process ends, but it lives: this change and all later ones fail.
    Dead,
    /// The change fails with this error number of the system; the later ones do not.
    Once(i32),
    /// The change and all later ones fail with this error number.
    Lasting(i32),
}

/// What [`watch`] saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Changes that were attempted.
    pub count: u64,
    /// Each of them, when they were to be recorded.
    pub changes: Vec<Change>,
}

struct Watch {
    seen: Seen,
    record: bool,
    fault: Option<(u64, Fault)>,
}

/// Whether [`allow`] has anything to do; from the environment at first.
static WATCHED: LazyLock<AtomicBool> = LazyLock::new(|| {
    let Ok(text) = std::env::var("S1_DISK_FAULT") else {
        return AtomicBool::new(false);
    };
    let fault = parse(&text).unwrap_or_else(|| panic!("S1_DISK_FAULT={text}: see record::disk"));
    lock().fault = Some(fault);
    AtomicBool::new(true)
});
static WATCH: Mutex<Watch> = Mutex::new(Watch::new(false, None));

impl Watch {
    const fn new(record: bool, fault: Option<(u64, Fault)>) -> Self {
        Self { seen: Seen { count: 0, changes: Vec::new() }, record, fault }
    }
}

fn lock() -> MutexGuard<'static, Watch> {
    WATCH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// No space left on device, input/output error: the same numbers on every Linux and on macOS.
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

fn parse(text: &str) -> Option<(u64, Fault)> {
    let (what, at) = text.split_once('@')?;
    let lasting = at.ends_with('+');
    let at = at.trim_end_matches('+').parse().ok()?;
    let fail = if lasting { Fault::Lasting } else { Fault::Once };
    let fault = match what {
        "kill" => Fault::Kill,
        "enospc" => fail(ENOSPC),
        "eio" => fail(EIO),
        _ => return None,
    };
    Some((at, fault))
}

/// For tests: counts this process's changes from here to [`unwatch`], records them if asked to,
/// and lets the `n`-th (from 1) of `fault = (n, ..)` fail.
pub fn watch(record: bool, fault: Option<(u64, Fault)>) {
    WATCHED.store(true, Ordering::SeqCst);
    *lock() = Watch::new(record, fault);
}

/// Ends [`watch`].
pub fn unwatch() -> Seen {
    WATCHED.store(false, Ordering::SeqCst);
    std::mem::replace(&mut *lock(), Watch::new(false, None)).seen
}

/// Before every change: an error if it is to fail. `torn` does half of it.
fn allow(change: impl FnOnce() -> Change, torn: impl FnOnce()) -> io::Result<()> {
    if !WATCHED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut watch = lock();
    watch.seen.count += 1;
    if watch.record {
        watch.seen.changes.push(change());
    }
    let Some((at, fault)) = watch.fault else { return Ok(()) };
    let (now, later) = (watch.seen.count == at, watch.seen.count > at);
    if now {
        torn();
    }
    match fault {
        Fault::Kill if now => std::process::abort(),
        Fault::Dead if now || later => Err(io::Error::other("the process counts as dead")),
        Fault::Once(number) if now => Err(io::Error::from_raw_os_error(number)),
        Fault::Lasting(number) if now || later => Err(io::Error::from_raw_os_error(number)),
        _ => Ok(()),
    }
}

fn change(
    change: impl FnOnce() -> Change,
    act: impl FnOnce() -> io::Result<()>,
    shown: impl FnOnce() -> String,
) -> Result<()> {
    allow(change, || ()).and_then(|()| act()).with_context(shown)
}

/// A new folder; its parent is there.
pub fn make_folder(path: &Path) -> Result<()> {
    let shown = || format!("cannot create {}", path.display());
    change(|| Change::MakeFolder(path.into()), || fs::create_dir(path), shown)
}

/// Another name in the same folder.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    let shown = || format!("cannot rename {} to {}", from.display(), to.display());
    change(|| Change::Rename(from.into(), to.into()), || fs::rename(from, to), shown)
}

/// Brings what was made, renamed and removed in a folder to the disk.
pub fn sync_folder(path: &Path) -> Result<()> {
    let shown = || format!("cannot flush {}", path.display());
    let act = || File::open(path).and_then(|folder| folder.sync_all());
    change(|| Change::SyncFolder(path.into()), act, shown)
}

/// Brings a file's bytes to the disk.
pub fn sync_file(path: &Path) -> Result<()> {
    let shown = || format!("cannot flush {}", path.display());
    let act = || File::open(path).and_then(|file| file.sync_all());
    change(|| Change::SyncFile(path.into()), act, shown)
}

/// Removes a file, a link, or a folder with all that is in it; what is not there is no error.
/// Links are not followed.
pub fn remove(path: &Path) -> Result<()> {
    let shown = || format!("cannot remove {}", path.display());
    let kind = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.with_context(shown)?,
    };
    if !kind.is_dir() {
        return change(|| Change::Remove(path.into()), || fs::remove_file(path), shown);
    }
    let entries = fs::read_dir(path).with_context(shown)?;
    let mut inside = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    inside.sort();
    for inside in inside {
        remove(&inside)?;
    }
    change(|| Change::Remove(path.into()), || fs::remove_dir(path), shown)
}

/// A file that is being written; its digest is reckoned on the way.
pub struct NewFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    blake3: blake3::Hasher,
}

impl NewFile {
    /// A file that was not there before.
    pub fn create(path: &Path) -> Result<Self> {
        let create = || OpenOptions::new().write(true).create_new(true).open(path);
        let file = allow(|| Change::MakeFile(path.into()), || ()).and_then(|()| create());
        let file = file.with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path: path.into(), file, bytes: 0, blake3: blake3::Hasher::new() })
    }

    /// Writes behind what is there.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        for chunk in bytes.chunks(CHUNK) {
            let mut torn = &self.file;
            let half = || drop(torn.write_all(&chunk[..chunk.len() / 2]));
            allow(|| Change::Append(self.path.clone(), chunk.into()), half)
                .and_then(|()| self.file.write_all(chunk))
                .with_context(|| format!("cannot write {}", self.path.display()))?;
            self.blake3.update(chunk);
            self.bytes += chunk.len() as u64;
        }
        Ok(())
    }

    /// Gives it another name in the same folder.
    pub fn rename(&mut self, to: &Path) -> Result<()> {
        rename(&self.path, to)?;
        self.path = to.into();
        Ok(())
    }

    /// Brings to the disk what is written so far.
    pub fn sync(&self) -> Result<()> {
        let shown = || format!("cannot flush {}", self.path.display());
        change(|| Change::SyncFile(self.path.clone()), || self.file.sync_all(), shown)
    }

    /// Brings the file to the disk.
    pub fn finish(self) -> Result<Digest> {
        self.sync()?;
        Ok(Digest { bytes: self.bytes, blake3: self.blake3.finalize().to_hex().to_string() })
    }
}

/// A whole new file, on the disk.
pub fn write(path: &Path, bytes: &[u8]) -> Result<Digest> {
    let mut file = NewFile::create(path)?;
    file.append(bytes)?;
    file.finish()
}

/// Gives `path` new contents: whatever happens, the old ones are there or these. More can be
/// written behind them.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<NewFile> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    remove(&new)?;
    let mut file = NewFile::create(&new)?;
    file.append(bytes)?;
    file.sync()?;
    file.rename(path)?;
    sync_folder(path.parent().expect("it is a file's path"))?;
    Ok(file)
}
