//! Output folders that appear whole, with a manifest, or not at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

/// What made an output folder, from what.
#[derive(Debug, Clone, Serialize)]
pub struct Manifest {
    /// The program, such as `curate`.
    pub tool: String,
    /// Its version.
    pub version: String,
    /// The command line ([`command`]).
    pub command: Vec<String>,
    /// The whole effective config.
    pub config: toml::Table,
    pub inputs: Vec<Input>,
    /// Every seed by what it seeds.
    pub seeds: BTreeMap<String, u64>,
    /// Every file of the folder but the manifest, by its path inside; [`OutputFolder::finish`]
    /// fills this in.
    pub files: BTreeMap<String, Digest>,
}

/// A file or folder that was read.
#[derive(Debug, Clone, Serialize)]
pub struct Input {
    /// As given in the config.
    pub path: String,
    pub sha256: String,
    /// Rows of a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// Size in bytes and SHA-256 of a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Digest {
    pub bytes: u64,
    pub sha256: String,
}

/// A folder being written.
#[derive(Debug)]
pub struct OutputFolder {
    temp: PathBuf,
}

impl OutputFolder {
    /// Starts the output folder `dest`.
    pub fn create(_dest: &Path, _overwrite: bool) -> Result<Self> {
        bail!("not built yet")
    }

    /// The folder to write into until [`OutputFolder::finish`].
    pub fn path(&self) -> &Path {
        &self.temp
    }

    /// Publishes the folder.
    pub fn finish(self, _manifest: Manifest) -> Result<()> {
        bail!("not built yet")
    }
}

/// Digest of an input file, or of a folder's files in sorted order.
pub fn input(_path: &Path, _rows: Option<u64>) -> Result<Input> {
    bail!("not built yet")
}

/// This process's command line for the manifest, without the program's folder.
pub fn command() -> Vec<String> {
    let mut args: Vec<String> = std::env::args().collect();
    if let Some(name) = args.first().map(Path::new).and_then(Path::file_name) {
        args[0] = name.to_string_lossy().into_owned();
    }
    args
}
