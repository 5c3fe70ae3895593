//! Output folders that appear whole, with a manifest, or not at all.
//!
//! Everything is written into a hidden folder beside the destination and flushed to disk; one
//! rename publishes it. Whatever kills the program before that leaves the destination as it was,
//! and what it left behind is cleared away by the next run with the same destination. [`verify`]
//! tells later whether a published folder is still what it was.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::disk;
use crate::lock::Lock;
use crate::question::hex;

const MANIFEST: &str = "manifest.json";

/// What made an output folder, from what. The same input and config give the same manifest: no
/// clock, no host, no process id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The program, such as `curate`.
    pub tool: String,
    /// Its version.
    pub version: String,
    /// The command line ([`command`]).
    pub command: Vec<String>,
    /// The whole effective config, overrides included ([`crate::config::load`]).
    pub config: toml::Table,
    /// Everything that was read ([`input`]).
    pub inputs: Vec<Input>,
    /// Every seed by what it seeds.
    pub seeds: BTreeMap<String, u64>,
    /// Every file of the folder but the manifest, by its path inside with `/`;
    /// [`OutputFolder::finish`] fills in what is not there yet.
    pub files: BTreeMap<String, Digest>,
}

/// A manifest as it stands in a published folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// What it says.
    #[serde(flatten)]
    pub manifest: Manifest,
    /// BLAKE3 of the manifest's own text up to here, and so of the whole folder.
    pub digest: String,
}

/// A file or folder that was read. Its digest is the one that hubs and `sha256sum` know it by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// As given in the config.
    pub path: String,
    /// Of the file's bytes; of a folder, see [`input`].
    pub sha256: String,
    /// Rows of a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// Size and BLAKE3 of a written file: as strong as SHA-256, and several times as fast.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Digest {
    /// The file's length.
    pub bytes: u64,
    /// 64 lower-case hexadecimal digits, as `b3sum` prints them.
    pub blake3: String,
}

/// In an error's chain: a published folder is not what was published. An error without it, such as
/// a disk that does not answer, says nothing about the folder.
#[derive(Debug)]
pub struct Damaged(String);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Damaged {}

/// A folder being written; dropped without [`OutputFolder::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct OutputFolder {
    dest: PathBuf,
    overwrite: bool,
    temp: PathBuf,
    /// The parents that were not there before, the innermost first.
    made: Vec<PathBuf>,
    /// Until the folder is published or given up.
    lock: Option<Lock>,
}

impl OutputFolder {
    /// Starts the output folder `dest`, creating its parents.
    ///
    /// Refuses a `dest` that exists, unless `overwrite` is set and it is an output folder of ours
    /// (it has our manifest); and a `dest` that another running process is writing.
    pub fn create(dest: &Path, overwrite: bool) -> Result<Self> {
        let (parent, _) = parent_and_name(dest)?;
        // Of a relative path the last ancestor is empty: the current folder, which is there.
        let made =
            parent.ancestors().take_while(|folder| *folder != Path::new("") && !folder.exists());
        let made: Vec<_> = made.map(Path::to_path_buf).collect();
        fs::create_dir_all(&parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
        // What is published is on the disk only if the way to it is.
        for folder in &made {
            disk::sync_folder(&parent_and_name(folder)?.0)?;
        }
        let lock = Lock::take(dest)?;
        clear_leftovers(dest)?;
        check_free(dest, overwrite)?;
        let temp = partial(dest)?;
        disk::make_folder(&temp)?;
        Ok(OutputFolder { dest: dest.to_path_buf(), overwrite, temp, made, lock: Some(lock) })
    }

    /// What it will be called.
    pub fn destination(&self) -> &Path {
        &self.dest
    }

    /// The folder to write into until [`OutputFolder::finish`].
    pub fn path(&self) -> &Path {
        &self.temp
    }

    /// Writes a text file of the folder.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.temp.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Publishes the folder: fills in `manifest.files`, writes `manifest.json`, flushes all to
    /// disk, renames. An overwritten folder is moved aside first and removed last. Files that are
    /// in `manifest.files` already were made by [`disk::NewFile`], and are taken as they are.
    ///
    /// When the last step fails (somebody made a folder of that name meanwhile), the finished work
    /// is kept under another name, and the error says which; unless it has its name already, and
    /// only the flush failed that makes it lasting.
    pub fn finish(self, manifest: Manifest) -> Result<()> {
        let (parent, name) = parent_and_name(&self.dest)?;
        self.seal(manifest)?;
        self.publish(&parent).map_err(|error| {
            let kept = parent.join(format!("{name}.unpublished-{}", std::process::id()));
            let rescued = match self.temp.exists() {
                true => disk::rename(&self.temp, &kept).map(|()| "the finished output is kept as"),
                false => return error,
            };
            let dest = self.dest.display();
            match rescued {
                Ok(how) => {
                    error.context(format!("cannot publish {dest}; {how} {}", kept.display()))
                }
                Err(lost) => error.context(format!("cannot publish {dest}, and {lost:#}")),
            }
        })
    }

    /// Writes the manifest and flushes every file and folder to disk.
    fn seal(&self, mut manifest: Manifest) -> Result<()> {
        let contents = contents_of(&self.temp)?;
        for file in contents.files {
            assert!(file != MANIFEST, "{MANIFEST} is written by finish() alone");
            let path = self.temp.join(&file);
            if let Entry::Vacant(unknown) = manifest.files.entry(file) {
                disk::sync_file(&path)?;
                unknown.insert(digest(&path)?);
            }
        }
        disk::write(&self.temp.join(MANIFEST), sealed(manifest)?.as_bytes())?;
        for folder in contents.folders.iter().rev() {
            disk::sync_folder(&self.temp.join(folder))?;
        }
        disk::sync_folder(&self.temp)
    }

    fn publish(&self, parent: &Path) -> Result<()> {
        check_free(&self.dest, self.overwrite)?;
        let replaced = beside(&self.dest, "replaced")?;
        let is_replacing = self.dest.exists();
        if is_replacing {
            disk::rename(&self.dest, &replaced)?;
        }
        if let Err(error) = disk::rename(&self.temp, &self.dest) {
            if is_replacing {
                disk::rename(&replaced, &self.dest)?;
            }
            return Err(error);
        }
        disk::sync_folder(parent)?;
        // The new folder stands; what cannot be removed of the old one the next run clears.
        let _ = disk::remove(&replaced);
        Ok(())
    }
}

impl Drop for OutputFolder {
    fn drop(&mut self) {
        // After finish() there is nothing to remove; otherwise the run has failed already, and its
        // own error says more than this one would.
        let _ = disk::remove(&self.temp);
        drop(self.lock.take());
        // Parents of ours that hold something, such as the published folder, stay.
        for folder in &self.made {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Where the output folder `dest` grows until it is published.
pub fn partial(dest: &Path) -> Result<PathBuf> {
    beside(dest, "partial")
}

fn beside(dest: &Path, what: &str) -> Result<PathBuf> {
    let (parent, name) = parent_and_name(dest)?;
    Ok(parent.join(format!(".{name}.{what}")))
}

/// Removes a published folder: whatever happens on the way, it is there whole or not at all.
pub fn remove(dest: &Path) -> Result<()> {
    let (parent, _) = parent_and_name(dest)?;
    let doomed = partial(dest)?;
    disk::rename(dest, &doomed)?;
    disk::sync_folder(&parent)?;
    disk::remove(&doomed)
}

/// Removes what a dead run left beside `dest`, whose lock the caller holds; one that died between
/// the two renames of an overwrite gets its old folder back.
pub fn clear_leftovers(dest: &Path) -> Result<()> {
    let replaced = beside(dest, "replaced")?;
    if replaced.exists() && !dest.exists() {
        disk::rename(&replaced, dest)?;
    }
    disk::remove(&replaced)?;
    disk::remove(&partial(dest)?)
}

/// Whether a published folder is still what was published: every file there, none besides, each
/// with its size and digest, and the manifest itself unchanged.
///
/// # Errors
/// [`Damaged`] names the first file that is not as it was, in the order of their names; any other
/// error is of reading it.
pub fn verify(folder: &Path) -> Result<Published> {
    verify_share(folder, 0, 1)
}

/// One of `shares` parts of [`verify`]: every `shares`-th file.
///
/// # Errors
/// As [`verify`].
pub fn verify_share(folder: &Path, share: usize, shares: usize) -> Result<Published> {
    let published = manifest(folder)?;
    let manifest = &published.manifest;
    let contents = contents_of(folder)?;
    let damaged = |file: &str, what: String| {
        anyhow!(Damaged(format!("{}: {what}", folder.join(file).display())))
    };
    let there: Vec<&String> = contents.files.iter().filter(|file| *file != MANIFEST).collect();
    for (file, written) in manifest.files.iter().skip(share).step_by(shares) {
        if !there.contains(&file) {
            return Err(damaged(file, "the file is missing".into()));
        }
        let path = folder.join(file);
        let bytes = fs::metadata(&path).with_context(|| path.display().to_string())?.len();
        if bytes != written.bytes {
            let written = written.bytes;
            return Err(damaged(file, format!("{bytes} bytes, and it was written with {written}")));
        }
        let found = digest(&path)?;
        if found != *written {
            let (found, written) = (found.blake3, &written.blake3);
            return Err(damaged(file, format!("damaged: its BLAKE3 is {found}, not {written}")));
        }
    }
    match there.iter().find(|file| !manifest.files.contains_key(**file)) {
        Some(extra) => Err(damaged(extra, format!("{MANIFEST} does not list it"))),
        None => Ok(published),
    }
}

/// Whether all files of a published folder are there with their sizes: what [`verify`] can tell
/// without reading them.
pub fn looks_whole(folder: &Path) -> bool {
    let same = |(file, written): (&String, &Digest)| {
        fs::metadata(folder.join(file)).is_ok_and(|now| now.len() == written.bytes)
    };
    manifest(folder).is_ok_and(|published| published.manifest.files.iter().all(same))
}

/// The manifest of a published folder, if it is unchanged itself.
///
/// # Errors
/// [`Damaged`] if it is not; any other error is of reading it, or the folder is not there.
pub fn manifest(folder: &Path) -> Result<Published> {
    let path = folder.join(MANIFEST);
    let place = || path.display().to_string();
    let damaged = |what: String| Damaged(format!("{}: {what}", place()));
    let text = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound && folder.is_dir() => {
            bail!(damaged(format!("missing: is {} a published folder?", folder.display())))
        }
        text => text.with_context(|| format!("cannot read {}", place()))?,
    };
    let text = String::from_utf8(text).map_err(|_| damaged("damaged: it is no text".into()))?;
    let (before, hex) = split_digest(&text)
        .ok_or_else(|| damaged("damaged: it does not end with its digest".into()))?;
    let found = blake3::hash(before.as_bytes()).to_hex();
    if found.as_str() != hex {
        bail!(damaged(format!("damaged: its BLAKE3 is {found}, not {hex}")));
    }
    serde_json::from_str(&text).with_context(place)
}

/// The manifest's text, its digest filled in.
fn sealed(manifest: Manifest) -> Result<String> {
    let text = serde_json::to_string_pretty(&Published { manifest, digest: String::new() })?;
    let before = text.strip_suffix(DIGEST_END).expect("`digest` is the last field");
    Ok(format!("{before}{}{DIGEST_END}\n", blake3::hash(before.as_bytes()).to_hex()))
}

/// How a manifest goes on behind its digest.
const DIGEST_END: &str = "\"\n}";

/// A manifest's text before its digest, and the digest.
fn split_digest(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_suffix('\n')?.strip_suffix(DIGEST_END)?;
    text.split_at_checked(text.len().checked_sub(2 * blake3::OUT_LEN)?)
}

/// Digest of an input for the manifest: of a file, its bytes; of a folder, the SHA-256 over one
/// line `<sha256>  <path inside>` a file in sorted order, as `sha256sum` prints them.
pub fn input(path: &Path, rows: Option<u64>) -> Result<Input> {
    let sha256 = if path.is_dir() {
        let mut lines = Sha256::new();
        for file in contents_of(path)?.files {
            lines.update(format!("{}  {file}\n", sha256(&path.join(&file))?));
        }
        hex(&lines.finalize())
    } else {
        sha256(path)?
    };
    Ok(Input { path: path.display().to_string(), sha256, rows })
}

/// This process's command line for the manifest, the program by its name alone. `--overwrite`
/// stays out: it says nothing about what was made.
pub fn command() -> Vec<String> {
    let mut args: Vec<String> =
        std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    args.retain(|arg| arg != "--overwrite");
    if let Some(name) = args.first().map(Path::new).and_then(Path::file_name) {
        args[0] = name.to_string_lossy().into_owned();
    }
    args
}

pub(crate) fn parent_and_name(dest: &Path) -> Result<(PathBuf, String)> {
    let name = dest.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| {
        format!("output `{}`: give the folder a name, such as runs/first", dest.display())
    })?;
    let parent = dest.parent().filter(|parent| *parent != Path::new(""));
    Ok((parent.unwrap_or(Path::new(".")).to_path_buf(), name.to_owned()))
}

/// Refuses a destination that must not be replaced.
fn check_free(dest: &Path, overwrite: bool) -> Result<()> {
    let shown = dest.display();
    let Ok(kind) = dest.symlink_metadata() else {
        return Ok(());
    };
    if !kind.is_dir() || !is_ours(dest) {
        bail!(
            "{shown} exists and is no output folder of this program (it has no {MANIFEST} of \
             ours), so it is left alone; choose another `output`, or move it away yourself"
        );
    }
    if !overwrite {
        bail!(
            "{shown} exists; pass --overwrite to replace it when the new run is complete, or \
             choose another `output`"
        );
    }
    Ok(())
}

fn is_ours(folder: &Path) -> bool {
    let Ok(text) = fs::read(folder.join(MANIFEST)) else {
        return false;
    };
    let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    ["tool", "version", "command", "files"].iter().all(|key| manifest.get(key).is_some())
}

/// What is inside a folder, as paths from it with `/`, sorted.
#[derive(Default)]
struct Contents {
    files: Vec<String>,
    /// Parents before children.
    folders: Vec<String>,
}

fn contents_of(root: &Path) -> Result<Contents> {
    let mut contents = Contents::default();
    let mut waiting = vec![String::new()];
    while let Some(folder) = waiting.pop() {
        let path = root.join(&folder);
        for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().with_context(|| format!("{name:?} is not UTF-8"))?;
            let inside =
                if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            let place = || entry.path().display().to_string();
            let kind = fs::metadata(entry.path()).with_context(place)?;
            if kind.is_dir() {
                waiting.push(inside.clone());
                contents.folders.push(inside);
            } else {
                contents.files.push(inside);
            }
        }
    }
    contents.files.sort();
    contents.folders.sort();
    Ok(contents)
}

fn digest(path: &Path) -> Result<Digest> {
    let mut blake3 = blake3::Hasher::new();
    let bytes = read_through(path, |part| {
        blake3.update(part);
    })?;
    Ok(Digest { bytes, blake3: blake3.finalize().to_hex().to_string() })
}

fn sha256(path: &Path) -> Result<String> {
    let mut sha256 = Sha256::new();
    read_through(path, |part| sha256.update(part))?;
    Ok(hex(&sha256.finalize()))
}

/// Hands all bytes of a file on, in parts; how many they were.
fn read_through(path: &Path, mut each: impl FnMut(&[u8])) -> Result<u64> {
    let mut read = || -> std::io::Result<u64> {
        let (mut file, mut buffer, mut bytes) = (File::open(path)?, vec![0; 1 << 20], 0);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(bytes),
                n => {
                    each(&buffer[..n]);
                    bytes += n as u64;
                }
            }
        }
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}
