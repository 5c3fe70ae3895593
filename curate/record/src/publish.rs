//! Output folders that appear whole, with a manifest, or not at all.
//!
//! Everything is written into a hidden folder beside the destination and flushed to disk; one
//! rename publishes it. Whatever kills the program before that leaves the destination as it was,
//! and what it left behind is cleared away by the next run with the same destination.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::question::hex;

const MANIFEST: &str = "manifest.json";

/// What made an output folder, from what. The same input and config give the same manifest: no
/// clock, no host, no process id.
#[derive(Debug, Clone, Default, Serialize)]
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
    /// [`OutputFolder::finish`] fills this in.
    pub files: BTreeMap<String, Digest>,
}

/// A file or folder that was read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Input {
    /// As given in the config.
    pub path: String,
    /// Of the file's bytes; of a folder, see [`input`].
    pub sha256: String,
    /// Rows of a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// Size in bytes and SHA-256 of a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Digest {
    /// The file's length.
    pub bytes: u64,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// A folder being written; dropped without [`OutputFolder::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct OutputFolder {
    dest: PathBuf,
    overwrite: bool,
    temp: PathBuf,
    /// The parents that were not there before, the innermost first.
    made: Vec<PathBuf>,
}

impl OutputFolder {
    /// Starts the output folder `dest`, creating its parents.
    ///
    /// Refuses a `dest` that exists, unless `overwrite` is set and it is an output folder of ours
    /// (it has our manifest); and a `dest` that another running process is writing.
    pub fn create(dest: &Path, overwrite: bool) -> Result<Self> {
        let (parent, name) = parent_and_name(dest)?;
        let made = parent.ancestors().take_while(|folder| !folder.exists());
        let made = made.map(Path::to_path_buf).collect();
        fs::create_dir_all(&parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
        clear_leftovers(dest, &parent, &name)?;
        check_free(dest, overwrite)?;
        let temp = parent.join(format!(".{name}.partial-{}", std::process::id()));
        fs::create_dir(&temp).with_context(|| format!("cannot create {}", temp.display()))?;
        Ok(OutputFolder { dest: dest.to_path_buf(), overwrite, temp, made })
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
    /// disk, renames. An overwritten folder is moved aside first and removed last.
    ///
    /// When the last step fails (somebody made a folder of that name meanwhile), the finished work
    /// is kept under another name, and the error says which.
    pub fn finish(self, manifest: Manifest) -> Result<()> {
        let (parent, name) = parent_and_name(&self.dest)?;
        self.seal(manifest)?;
        self.publish(&parent, &name).or_else(|error| {
            let kept = parent.join(format!("{name}.unpublished-{}", std::process::id()));
            fs::rename(&self.temp, &kept)?;
            Err(error.context(format!(
                "cannot publish {}; the finished output is kept as {}",
                self.dest.display(),
                kept.display()
            )))
        })
    }

    /// Writes the manifest and flushes every file and folder to disk.
    fn seal(&self, mut manifest: Manifest) -> Result<()> {
        let contents = contents_of(&self.temp)?;
        for file in contents.files {
            assert!(file != MANIFEST, "{MANIFEST} is written by finish() alone");
            let digest = sync_and_digest(&self.temp.join(&file))?;
            manifest.files.insert(file, digest);
        }
        let path = self.temp.join(MANIFEST);
        let write = || -> Result<()> {
            let mut file = File::create(&path)?;
            serde_json::to_writer_pretty(&mut file, &manifest)?;
            file.write_all(b"\n")?;
            Ok(file.sync_all()?)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        for folder in contents.folders.iter().rev() {
            sync_folder(&self.temp.join(folder))?;
        }
        sync_folder(&self.temp)
    }

    fn publish(&self, parent: &Path, name: &str) -> Result<()> {
        check_free(&self.dest, self.overwrite)?;
        let replaced = parent.join(format!(".{name}.replaced-{}", std::process::id()));
        let is_replacing = self.dest.exists();
        if is_replacing {
            fs::rename(&self.dest, &replaced)?;
        }
        if let Err(error) = fs::rename(&self.temp, &self.dest) {
            if is_replacing {
                fs::rename(&replaced, &self.dest)?;
            }
            return Err(error.into());
        }
        sync_folder(parent)?;
        if is_replacing {
            // The new folder stands; what cannot be removed of the old one the next run clears.
            let _ = fs::remove_dir_all(&replaced);
        }
        Ok(())
    }
}

impl Drop for OutputFolder {
    fn drop(&mut self) {
        // After finish() there is nothing to remove; otherwise the run has failed already, and its
        // own error says more than this one would.
        let _ = fs::remove_dir_all(&self.temp);
        // Parents of ours that hold something, such as the published folder, stay.
        for folder in &self.made {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Digest of an input for the manifest: of a file, its bytes; of a folder, the SHA-256 over one
/// line `<sha256>  <path inside>` a file in sorted order, as `sha256sum` prints them.
pub fn input(path: &Path, rows: Option<u64>) -> Result<Input> {
    let sha256 = if path.is_dir() {
        let mut lines = Sha256::new();
        for file in contents_of(path)?.files {
            lines.update(format!("{}  {file}\n", digest(&path.join(&file))?.sha256));
        }
        hex(&lines.finalize())
    } else {
        digest(path)?.sha256
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

fn parent_and_name(dest: &Path) -> Result<(PathBuf, String)> {
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

/// Removes what dead runs with the same destination left beside it; one that died between the two
/// renames of an overwrite gets its old folder back.
fn clear_leftovers(dest: &Path, parent: &Path, name: &str) -> Result<()> {
    let (partial, replaced) = (format!(".{name}.partial-"), format!(".{name}.replaced-"));
    for entry in fs::read_dir(parent).with_context(|| parent.display().to_string())? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(file_name) = file_name.to_str() else {
            continue;
        };
        let pid = file_name.strip_prefix(&partial).or_else(|| file_name.strip_prefix(&replaced));
        let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else {
            continue;
        };
        let (folder, shown) = (entry.path(), dest.display());
        if pid != std::process::id() && is_running(pid) {
            bail!(
                "process {pid} is writing {shown} right now; wait for it or choose another \
                 `output` (if {pid} is another program by now, remove {})",
                folder.display()
            );
        }
        let cleared = if file_name.starts_with(&replaced) && !dest.exists() {
            fs::rename(&folder, dest)
        } else {
            fs::remove_dir_all(&folder)
        };
        cleared.with_context(|| format!("cannot clear away {}", folder.display()))?;
    }
    Ok(())
}

/// Does the process exist? Without /proc nothing is known, and it is taken to run.
fn is_running(pid: u32) -> bool {
    !Path::new("/proc/self").exists() || Path::new(&format!("/proc/{pid}")).exists()
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
            let kind = fs::metadata(entry.path())?;
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
    let read = || -> std::io::Result<Digest> {
        let mut file = File::open(path)?;
        let mut sha256 = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => {
                    return Ok(Digest { bytes, sha256: hex(&sha256.finalize()) });
                }
                n => {
                    sha256.update(&buffer[..n]);
                    bytes += n as u64;
                }
            }
        }
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

fn sync_and_digest(path: &Path) -> Result<Digest> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.with_context(|| format!("cannot flush {}", path.display()))?;
    digest(path)
}

fn sync_folder(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("cannot flush {}", path.display()))
}
