//! Where a source's files are: on this machine, or in a data set of the Hugging Face hub, which
//! is downloaded once, at one commit, into the cache that huggingface_hub shares.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use record::publish::{Input, input};
use serde::Deserialize;

use crate::progress;

/// The branch in which the hub keeps every data set as `config/split/0000.parquet`.
const CONVERTED: &str = "refs/convert/parquet";

/// Some files of a data set, or of this machine.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// `owner/name` on the hub; without it `files` are of this machine.
    pub dataset: Option<String>,
    /// Branch, tag or commit to pin; by default `main` for files named, else the hub's own
    /// Parquet conversion.
    pub revision: Option<String>,
    /// The data set's configurations; by default `default`.
    #[serde(default)]
    pub configs: Vec<String>,
    /// Splits, taken one after the other, of each all configurations.
    #[serde(default)]
    pub splits: Vec<String>,
    /// Instead of config and splits: files as the data set has them, or paths.
    #[serde(default)]
    pub files: Vec<String>,
}

/// A file that is there to be read.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where it is on this machine.
    pub path: PathBuf,
    /// What the manifest says about it: of the hub's files the data set, the commit and the name.
    pub input: Input,
}

impl Place {
    /// The files, in the order they are to be read.
    ///
    /// The hub is asked which commit the revision is, and everything is read at that commit.
    /// HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN and the stored token count as they do for
    /// huggingface_hub; with HF_HUB_OFFLINE=1, or when the hub does not answer, an earlier
    /// download serves.
    pub fn find(&self) -> Result<Vec<Found>> {
        let Some((snapshot, revision)) = self.snapshot()? else {
            return self.files.iter().map(|file| local(Path::new(file))).collect();
        };
        let mut found = Vec::new();
        for name in self.names(&snapshot)? {
            let path = snapshot.get(&name).with_context(|| snapshot.url(&name))?;
            found.push(Found {
                input: Input { path: snapshot.url(&name), ..checked(&path)? },
                path,
            });
        }
        snapshot.remember(revision)?;
        Ok(found)
    }

    /// The files as the manifest will name them; of the hub nothing is downloaded.
    pub fn list(&self) -> Result<Vec<String>> {
        let Some((snapshot, _)) = self.snapshot()? else {
            let found: Vec<Found> = self.find()?;
            return Ok(found.into_iter().map(|file| file.input.path).collect());
        };
        Ok(self.names(&snapshot)?.iter().map(|name| snapshot.url(name)).collect())
    }

    /// The data set at the commit of the revision, and the revision; `None` for files here.
    fn snapshot(&self) -> Result<Option<(Snapshot, &str)>> {
        let Some(dataset) = &self.dataset else {
            ensure!(
                self.revision.is_none() && self.configs.is_empty() && self.splits.is_empty(),
                "revision, configs and splits belong to a `dataset` of the hub; name `files` alone"
            );
            ensure!(!self.files.is_empty(), "name a `dataset` of the hub, or `files`");
            return Ok(None);
        };
        ensure!(
            self.files.is_empty() != self.splits.is_empty(),
            "{dataset}: name either `splits` (with `configs`) or `files`"
        );
        let usual = if self.files.is_empty() { CONVERTED } else { "main" };
        let revision = self.revision.as_deref().unwrap_or(usual);
        let place = || format!("{dataset}@{revision} of the Hugging Face hub");
        check_name(dataset, 2).and_then(|()| check_name(revision, usize::MAX))?;
        let snapshot = match is_offline() {
            false => Snapshot::online(dataset, revision).with_context(place)?,
            true => Snapshot::cached(dataset, revision).with_context(|| {
                let cure = "HF_HUB_OFFLINE is set, and the cache has no earlier download";
                format!("{}: {cure}: unset it once", place())
            })?,
        };
        Ok(Some((snapshot, revision)))
    }

    /// The files wanted among those the data set has.
    fn names(&self, snapshot: &Snapshot) -> Result<Vec<String>> {
        let (has, at) = (&snapshot.files, &snapshot.dataset);
        for name in &self.files {
            let some = has.iter().take(20).cloned().collect::<Vec<_>>().join(", ");
            ensure!(has.contains(name), "{at} has no file {name}; it has: {some}");
        }
        let mut names = self.files.clone();
        let default = ["default".to_string()];
        let configs = if self.configs.is_empty() { &default[..] } else { &self.configs };
        let tables = self.splits.iter().flat_map(|split| configs.iter().map(move |of| (of, split)));
        for (config, split) in tables {
            let prefix = format!("{config}/{split}/");
            let mut parts: Vec<_> = has.iter().filter(|name| name.starts_with(&prefix)).collect();
            parts.sort();
            if parts.is_empty() {
                let folder = |name: &String| Some(name.rsplit_once('/')?.0.to_string());
                let mut folders: Vec<_> = has.iter().filter_map(folder).collect();
                folders.dedup();
                bail!(
                    "{at} has no {prefix}0000.parquet; it has: {} (partial-… is a part only: name \
                     the data set's own `files` then)",
                    folders.join(", ")
                );
            }
            names.extend(parts.into_iter().cloned());
        }
        Ok(names)
    }
}

fn local(path: &Path) -> Result<Found> {
    ensure!(path.exists(), "{} does not exist (from the current directory)", path.display());
    Ok(Found { path: path.to_path_buf(), input: input(path, None)? })
}

/// A data set at one commit.
struct Snapshot {
    dataset: String,
    commit: String,
    /// Names of all its files (from the cache: of those downloaded).
    files: Vec<String>,
    /// `None`: only what the cache has.
    hub: Option<ApiRepo>,
}

impl Snapshot {
    fn online(dataset: &str, revision: &str) -> Result<Self> {
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let mut builder = ApiBuilder::from_env()
            .with_cache_dir(cache().path().clone())
            .with_retries(5)
            .with_progress(is_terminal);
        if let Some(token) = std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()) {
            builder = builder.with_token(Some(token));
        }
        let api = builder.build()?;
        let listing = match api.repo(repo(dataset, revision)).info() {
            Ok(listing) => listing,
            Err(error) => {
                let (what, cure) = refusal(&error);
                let cached = Snapshot::cached(dataset, revision)
                    .with_context(|| format!("{what} ({error}): {cure}"))?;
                progress::line(&format!(
                    "{dataset}@{revision}: {what} ({error}); read from the cache, which has \
                     commit {}",
                    cached.commit
                ));
                return Ok(cached);
            }
        };
        check_name(&listing.sha, 1)?;
        let files: Vec<String> = listing.siblings.into_iter().map(|file| file.rfilename).collect();
        let hub = Some(api.repo(repo(dataset, &listing.sha)));
        Ok(Self { dataset: dataset.to_string(), commit: listing.sha, files, hub })
    }

    fn cached(dataset: &str, revision: &str) -> Option<Self> {
        let folder = cache().path().join(repo(dataset, revision).folder_name());
        let commit = fs::read_to_string(folder.join("refs").join(revision));
        // A commit is a revision that needs no reference.
        let commit = commit.map_or(revision.to_string(), |commit| commit.trim().to_string());
        check_name(&commit, 1).ok()?;
        let root = folder.join("snapshots").join(&commit);
        let mut files = Vec::new();
        names_below(&root, "", &mut files).ok()?;
        files.sort();
        Some(Self { dataset: dataset.to_string(), commit, files, hub: None })
    }

    /// A file's name for the manifest.
    fn url(&self, name: &str) -> String {
        format!("hf://datasets/{}@{}/{name}", self.dataset, self.commit)
    }

    fn get(&self, name: &str) -> Result<PathBuf> {
        check_name(name, usize::MAX)?;
        match &self.hub {
            Some(hub) => Ok(hub.get(name)?),
            None => {
                let of_commit = cache().repo(repo(&self.dataset, &self.commit));
                Ok(of_commit.pointer_path(&self.commit).join(name))
            }
        }
    }

    /// Notes in the cache which commit the revision is, now that all its files wanted are there.
    fn remember(&self, revision: &str) -> Result<()> {
        if self.hub.is_some() {
            cache().repo(repo(&self.dataset, revision)).create_ref(&self.commit)?;
        }
        Ok(())
    }
}

/// What the hub did instead of answering, and what helps.
fn refusal(error: &ApiError) -> (&'static str, &'static str) {
    let status = match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        _ => None,
    };
    match status {
        Some(401 | 403) => (
            "the hub refuses",
            "a private or gated data set needs HF_TOKEN, of an account that accepted its terms on \
             the hub; a name it does not know it refuses too",
        ),
        Some(404) => (
            "the hub has no such data set or revision",
            "correct the name; of a data set that the hub does not convert to Parquet name `files`",
        ),
        Some(_) => ("the hub fails", "try again later"),
        None => (
            "the hub does not answer",
            "check the network and HF_ENDPOINT, or name `files` of this machine",
        ),
    }
}

fn repo(dataset: &str, revision: &str) -> Repo {
    Repo::with_revision(dataset.to_string(), RepoType::Dataset, revision.to_string())
}

fn cache() -> Cache {
    std::env::var_os("HF_HUB_CACHE").map_or_else(Cache::from_env, |path| Cache::new(path.into()))
}

fn is_offline() -> bool {
    let value = std::env::var("HF_HUB_OFFLINE").unwrap_or_default().to_lowercase();
    ["1", "true", "yes", "on"].contains(&value.as_str())
}

/// Every file below `folder`, by its path from there with `/`.
fn names_below(folder: &Path, prefix: &str, names: &mut Vec<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            names_below(&entry.path(), &format!("{name}/"), names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}

/// Refuses names that could lead out of the cache; they come from configs and from the hub.
fn check_name(name: &str, most_parts: usize) -> Result<()> {
    let legal = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0', ':'])
    };
    let parts = name.split('/').count();
    ensure!(parts <= most_parts && name.split('/').all(legal), "{name:?} is no name on the hub");
    Ok(())
}

/// The manifest's entry for a cached file. The hub's large files are stored under their SHA-256;
/// such a file must still be what its name says.
fn checked(path: &Path) -> Result<Input> {
    let entry = input(path, None)?;
    let stored = fs::canonicalize(path)?;
    let name = stored.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_sha256 = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    ensure!(
        !is_sha256 || name == entry.sha256,
        "{} is damaged (its SHA-256 is {}): remove it, and it will be downloaded again",
        stored.display(),
        entry.sha256
    );
    Ok(entry)
}
