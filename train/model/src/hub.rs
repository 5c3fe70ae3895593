//! Where a model's folder is: on this disk, or in the Hugging Face cache after a download.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Repo, RepoType};

/// Files of a model repository that are of use here.
fn is_wanted(name: &str) -> bool {
    let plain = !name.contains('/') && !name.starts_with('.');
    let wanted = [".safetensors", ".json", ".jinja", ".txt"].iter().any(|e| name.ends_with(e));
    plain && wanted
}

/// `place` itself if it is a folder; else the hub's repository of that name (`owner/name`, or
/// `owner/name@revision`), downloaded into the cache that huggingface_hub shares. HF_HOME,
/// HF_ENDPOINT and the stored token are respected.
///
/// # Errors
/// When `place` is neither, or the hub cannot be reached.
pub fn model_folder(place: &str) -> Result<PathBuf> {
    if Path::new(place).is_dir() {
        return Ok(PathBuf::from(place));
    }
    let (name, revision) = place.split_once('@').unwrap_or((place, "main"));
    let parts: Vec<&str> = name.split('/').collect();
    let legal = |part: &&str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(known)
    };
    if parts.len() != 2 || !parts.iter().all(legal) {
        bail!("`{place}` is neither a folder here nor a hub repository (owner/name)");
    }
    let context = || format!("downloading {name}@{revision} from the Hugging Face hub");
    let api = ApiBuilder::from_env().build().with_context(context)?;
    let repo = Repo::with_revision(name.to_string(), RepoType::Model, revision.to_string());
    let repo = api.repo(repo);
    let listing = match repo.info() {
        Ok(listing) => listing,
        // Without a network the cached snapshot serves.
        Err(error) => match cached(name, revision) {
            Some(folder) => return Ok(folder),
            None => return Err(error).with_context(context),
        },
    };
    let mut folder = None;
    for file in listing.siblings {
        if is_wanted(&file.rfilename) {
            let path = repo.get(&file.rfilename).with_context(context)?;
            folder = path.parent().map(Path::to_path_buf);
        }
    }
    folder.with_context(|| format!("{name}@{revision} holds no model files"))
}

/// The folder of an earlier download, if it has a config.
fn cached(name: &str, revision: &str) -> Option<PathBuf> {
    let repo = Repo::with_revision(name.to_string(), RepoType::Model, revision.to_string());
    let config = hf_hub::Cache::from_env().repo(repo).get("config.json")?;
    config.parent().map(Path::to_path_buf)
}
