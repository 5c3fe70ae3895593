//! One process at a time in an output folder.
//!
//! The lock is a hidden file beside the folder that its owner holds locked by `flock`: however the
//! owner ends, the system frees it, so a lock is never stale. Its text says who holds it.
//!
//! Some network file systems have no locks (Lustre without `-o flock`, NFS without its lock
//! daemon). There the text decides: an owner of this machine is looked up among its processes; one
//! of another machine is given [`SILENCE`] to write into its file again, which owners do a few
//! times as often.
//!
//! `S1_NO_LOCKS="37 600"`, for tests: `flock` fails with that error number of the system, and an
//! owner is given that many milliseconds.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use crate::process::host;
use crate::process::{Health, Process};
use crate::publish::parent_and_name;

/// Where there are no locks: after so long without a word an owner on another machine is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// Words of an owner in that time.
const WORDS: u32 = 6;
/// [`holder`] may be looking just now: who still has the lock at the last of these tries has it.
const TRIES: usize = 5;
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// Held until dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// By the system.
    Locked(#[expect(dead_code, reason = "closing it frees the lock")] File),
    /// By its text, which a thread keeps fresh until the sender is dropped.
    Told(Option<(Sender<()>, JoinHandle<()>)>),
}

impl Lock {
    /// Takes the lock of the output folder `dest`, whose parent is there; the folder itself need
    /// not be.
    ///
    /// # Errors
    /// Another process holds it; the text names its id and host.
    pub fn take(dest: &Path) -> Result<Self> {
        let path = path_of(dest)?;
        let place = || format!("cannot lock {}", path.display());
        let mut tries = 0;
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let file = options.open(&path).with_context(place)?;
            match with_locks(|| file.try_lock()) {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if tries < TRIES => {
                    tries += 1;
                    thread::sleep(BETWEEN_TRIES);
                    continue;
                }
                Err(TryLockError::WouldBlock) => bail!(refusal(dest, &read(&path))),
                Err(TryLockError::Error(error)) if means_no_locks(&error) => {
                    return Self::take_by_text(dest, path, &error);
                }
                Err(TryLockError::Error(error)) => return Err(error).with_context(place),
            }
            // An owner that went away removed its file, perhaps after we had opened it.
            let same = fs::metadata(&path).is_ok_and(|now| {
                file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (now.dev(), now.ino()))
            });
            if same {
                write(&file, 0).with_context(place)?;
                return Ok(Self { path, held: Held::Locked(file) });
            }
        }
    }

    fn take_by_text(dest: &Path, path: PathBuf, why: &io::Error) -> Result<Self> {
        let place = || format!("cannot write {}", path.display());
        eprintln!(
            "warning: the file system of {} has no locks ({why}): only {} tells who writes it",
            dest.display(),
            path.display()
        );
        let old = read(&path);
        if is_alive(&path, &old) {
            bail!(refusal(dest, &old));
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        file.and_then(|file| write(&file, 0)).with_context(place)?;
        // Of two that come at the same moment, the later text stands.
        thread::sleep(silence() / WORDS / 3);
        let now = read(&path);
        if !is_mine(&now) {
            bail!(refusal(dest, &now));
        }
        let (sender, end) = mpsc::channel();
        let (file, dest) = (path.clone(), dest.to_path_buf());
        let keep_fresh = move || {
            for word in 1.. {
                if end.recv_timeout(silence() / WORDS) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                let now = read(&file);
                if !is_mine(&now) {
                    eprintln!("error: {}", refusal(&dest, &now));
                    return;
                }
                // A word that cannot be written may be followed by one that can.
                let _ =
                    OpenOptions::new().write(true).open(&file).and_then(|file| write(&file, word));
            }
        };
        let thread = thread::Builder::new().spawn(keep_fresh).context("a thread for the lock")?;
        Ok(Self { path, held: Held::Told(Some((sender, thread))) })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Held::Told(keeper) = &mut self.held {
            if let Some((sender, thread)) = keeper.take() {
                drop(sender);
                let _ = thread.join();
            }
            if !is_mine(&read(&self.path)) {
                return;
            }
        }
        // A file that cannot be removed is no lock: closing it frees it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Who is writing the output folder `dest` just now, as in `process 7 on node0`. Takes nothing and
/// disturbs nobody. Where there are no locks, an owner on another machine counts as writing.
///
/// # Errors
/// The lock's file cannot be read.
pub fn holder(dest: &Path) -> Result<Option<String>> {
    let path = path_of(dest)?;
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let text = read(&path);
    match with_locks(|| file.try_lock_shared()) {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(name(&text).to_owned())),
        Err(TryLockError::Error(error)) if means_no_locks(&error) => {
            let owner = owner(&text).filter(|it| it.health(&Process::this()) != Health::Gone);
            Ok(owner.map(|owner| owner.to_string()))
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot ask for {}", path.display()))
        }
    }
}

fn path_of(dest: &Path) -> Result<PathBuf> {
    let (parent, name) = parent_and_name(dest)?;
    Ok(parent.join(format!(".{name}.lock")))
}

fn refusal(dest: &Path, text: &str) -> String {
    format!(
        "{} is writing {} right now; wait for it or choose another `output`",
        name(text),
        dest.display()
    )
}

/// A lock's text: who has it, for people; the same for programs; a number that changes, where there
/// are no locks. Always as long, so that a full disk cannot cut it off.
fn write(file: &File, word: u64) -> io::Result<()> {
    let this = Process::this();
    let text = format!("{this}\n{}\n{word:020}\n", serde_json::to_string(&this)?);
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

fn read(path: &Path) -> String {
    fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
}

fn name(text: &str) -> &str {
    text.lines().next().unwrap_or("another process")
}

fn owner(text: &str) -> Option<Process> {
    serde_json::from_str(text.lines().nth(1)?).ok()
}

fn is_mine(text: &str) -> bool {
    owner(text) == Some(Process::this())
}

/// Whether the owner that `text` names is there: looked up, or listened for.
fn is_alive(path: &Path, text: &str) -> bool {
    let this = Process::this();
    if let Some(owner) = owner(text).filter(|owner| owner.is_beside(&this)) {
        return owner.health(&this) != Health::Gone;
    }
    if text.is_empty() {
        return false;
    }
    let silence = silence();
    eprintln!("{} may be at it: listening for {} seconds", name(text), silence.as_secs());
    let start = Instant::now();
    while start.elapsed() < silence {
        thread::sleep(silence / WORDS / 3);
        if !["", text].contains(&read(path).as_str()) {
            return true;
        }
    }
    false
}

fn silence() -> Duration {
    no_locks().map_or(SILENCE, |(_, silence)| silence)
}

/// What `S1_NO_LOCKS` says.
fn no_locks() -> Option<(i32, Duration)> {
    let text = std::env::var("S1_NO_LOCKS").ok()?;
    let (error, millis) = text.split_once(' ').expect("S1_NO_LOCKS: see record::lock");
    let number = |text: &str| text.parse::<u32>().expect("S1_NO_LOCKS: see record::lock");
    Some((number(error) as i32, Duration::from_millis(number(millis).into())))
}

fn with_locks(ask: impl FnOnce() -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    match no_locks() {
        Some((error, _)) => Err(TryLockError::Error(io::Error::from_raw_os_error(error))),
        None => ask(),
    }
}

/// NFS says ENOLCK when its lock daemon cannot be reached; others that they know no locks.
fn means_no_locks(error: &io::Error) -> bool {
    const ENOLCK: i32 = 37;
    const EOPNOTSUPP: i32 = 95;
    error.kind() == ErrorKind::Unsupported
        || [ENOLCK, EOPNOTSUPP].contains(&error.raw_os_error().unwrap_or(0))
}
