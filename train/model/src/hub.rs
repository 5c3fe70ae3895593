//! Where a model's folder or a data set's files are: on this disk, or in the Hugging Face cache
//! after a download.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

/// Files of a model repository that are of use here.
fn is_of_model(name: &str) -> bool {
    is_of_tokenizer(name) || is_plain(name) && name.ends_with(".safetensors")
}

/// As [`is_of_model`], without the weights.
fn is_of_tokenizer(name: &str) -> bool {
    is_plain(name) && [".json", ".jinja", ".txt"].iter().any(|end| name.ends_with(end))
}

fn is_plain(name: &str) -> bool {
    !name.contains('/') && !name.starts_with('.')
}

/// `place` itself if it is a folder; else the hub's repository of that name (`owner/name`, or
/// `owner/name@revision`), downloaded into the cache that huggingface_hub shares. HF_HOME,
/// HF_ENDPOINT, HF_TOKEN and the stored token are respected.
///
/// # Errors
/// When `place` is neither, or the hub cannot be reached.
pub fn model_folder(place: &str) -> Result<PathBuf> {
    folder_of_model(place, is_of_model)
}

/// As [`model_folder`], with everything but the weights: what configs and texts need.
///
/// # Errors
/// As [`model_folder`].
pub fn tokenizer_folder(place: &str) -> Result<PathBuf> {
    folder_of_model(place, is_of_tokenizer)
}

fn folder_of_model(place: &str, is_wanted: fn(&str) -> bool) -> Result<PathBuf> {
    if Path::new(place).is_dir() {
        return Ok(PathBuf::from(place));
    }
    let all = |names: &[String]| -> Result<Vec<String>> {
        Ok(names.iter().filter(|name| is_wanted(name)).cloned().collect())
    };
    match download(place, RepoType::Model, "a folder here", all)? {
        Found::Online(files) => {
            let folder = files.first().and_then(|path| path.parent());
            folder.map(Path::to_path_buf).with_context(|| format!("{place} holds no model files"))
        }
        Found::Offline(folder, error) => {
            folder.filter(|folder| folder.join("config.json").exists()).ok_or(error)
        }
    }
}

/// The files of the table at `place`: `place` itself if it is a file or its name ends as a table's
/// does; else the Parquet files of its training split, in a folder or in the hub's data set of
/// that name, as [`model_folder`] has it.
///
/// # Errors
/// When `place` is none of these, its files are of several subsets, or one of them is missing.
pub fn dataset_files(place: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(place);
    if path.is_file() || [".parquet", ".jsonl"].iter().any(|end| place.ends_with(end)) {
        return Ok(vec![path.to_path_buf()]);
    }
    let select = |names: &[String]| training_split(names).with_context(|| place.to_string());
    let folder = if path.is_dir() {
        path.to_path_buf()
    } else {
        match download(place, RepoType::Dataset, "a file or folder here", select)? {
            Found::Online(files) => return Ok(files),
            Found::Offline(folder, error) => folder.ok_or(error)?,
        }
    };
    let mut names = Vec::new();
    list(&folder, "", &mut names).with_context(|| folder.display().to_string())?;
    names.sort();
    Ok(select(&names)?.into_iter().map(|name| folder.join(name)).collect())
}

/// Those files of the hub's data set `name` at a revision that are called `part`, or, sorted, the
/// tables in the folder `part`.
///
/// # Errors
/// As [`model_folder`], or when there is no such file or folder.
pub fn dataset_part(name: &str, revision: &str, part: &str) -> Result<Vec<PathBuf>> {
    let place = format!("{name}@{revision}");
    let select = |names: &[String]| part_of(names, part).with_context(|| place.clone());
    match download(&place, RepoType::Dataset, "a file here", select)? {
        Found::Online(files) => Ok(files),
        Found::Offline(folder, error) => {
            let Some(folder) = folder else { return Err(error) };
            let mut names = Vec::new();
            list(&folder, "", &mut names).with_context(|| folder.display().to_string())?;
            names.sort();
            Ok(select(&names)?.into_iter().map(|name| folder.join(name)).collect())
        }
    }
}

fn part_of(names: &[String], part: &str) -> Result<Vec<String>> {
    let inside = format!("{}/", part.trim_end_matches('/'));
    let is_table = |name: &str| [".parquet", ".jsonl", ".csv"].iter().any(|e| name.ends_with(e));
    let is_wanted = |name: &&String| {
        is_safe(name) && (*name == part || name.starts_with(&inside) && is_table(name))
    };
    let mut found: Vec<String> = names.iter().filter(is_wanted).cloned().collect();
    found.sort();
    let some: Vec<&str> = names.iter().take(20).map(String::as_str).collect();
    ensure!(!found.is_empty(), "there is no {part} in it, but {}", some.join(", "));
    Ok(found)
}

/// Whether a name from the hub stays in its folder.
fn is_safe(name: &str) -> bool {
    Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

/// The names of all files below `folder`, hidden ones left out.
fn list(folder: &Path, prefix: &str, names: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.path() {
            _ if name.starts_with('.') => {}
            path if path.is_dir() => list(&path, &format!("{prefix}{name}/"), names)?,
            _ => names.push(format!("{prefix}{name}")),
        }
    }
    Ok(())
}

/// The Parquet files among `names` that hold the training split: those named for it, or all if
/// none is.
fn training_split(names: &[String]) -> Result<Vec<String>> {
    let is_table = |name: &&String| name.ends_with(".parquet") && is_safe(name);
    let tables: Vec<&String> = names.iter().filter(is_table).collect();
    let is_train = |name: &&&String| name.split('/').any(|part| part.starts_with("train"));
    let mut found: Vec<String> = tables.iter().filter(is_train).map(|n| (*n).clone()).collect();
    if found.is_empty() {
        found = tables.into_iter().cloned().collect();
    }
    found.sort();
    let folders: BTreeSet<&str> =
        found.iter().map(|name| name.rsplit_once('/').map_or("", |(folder, _)| folder)).collect();
    ensure!(
        folders.len() <= 1,
        "its Parquet files lie in several folders, {}: which is meant? Download the one, and name \
         its folder",
        folders.into_iter().collect::<Vec<_>>().join(", ")
    );
    // `train-00001-of-00003.parquet`, as datasets names the parts of a split.
    let of = found.first().and_then(|name| name.split("-of-").nth(1));
    let parts = of.and_then(|rest| rest.split(['-', '.']).next()?.parse::<usize>().ok());
    ensure!(
        parts.is_none_or(|parts| parts == found.len()),
        "{} files where their names tell of {}: some were not downloaded",
        found.len(),
        parts.unwrap_or(0)
    );
    ensure!(!found.is_empty(), "there is no Parquet file in it");
    Ok(found)
}

/// What [`download`] found.
enum Found {
    /// The wanted files, in the cache.
    Online(Vec<PathBuf>),
    /// The hub cannot be reached: the folder of an earlier download, if any, and the error.
    Offline(Option<PathBuf>, Error),
}

/// Downloads of the hub's repository `place` those files that `select` picks from the listing.
fn download(
    place: &str,
    kind: RepoType,
    else_it_is: &str,
    select: impl Fn(&[String]) -> Result<Vec<String>>,
) -> Result<Found> {
    let (name, revision) = place.split_once('@').unwrap_or((place, "main"));
    let parts: Vec<&str> = name.split('/').collect();
    let legal = |part: &&str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(known)
    };
    // A revision is part of the cache's paths too; some, such as refs/pr/1, have folders.
    if parts.len() != 2 || !parts.iter().copied().chain(revision.split('/')).all(|p| legal(&p)) {
        bail!("`{place}` is neither {else_it_is} nor a hub repository (owner/name)");
    }
    let context = || format!("downloading {name}@{revision} from the Hugging Face hub");
    let mut builder = ApiBuilder::from_env();
    if let Some(token) = std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()) {
        builder = builder.with_token(Some(token));
    }
    let api = builder.build().with_context(context)?;
    let repo = Repo::with_revision(name.to_string(), kind, revision.to_string());
    let remote = api.repo(repo.clone());
    let listing = match remote.info() {
        Ok(listing) => listing,
        Err(error) => {
            // The snapshot's folder is what an empty file name stands for, and a slash behind it.
            let folder = Cache::from_env().repo(repo).get("");
            let folder = folder.map(|folder| folder.components().collect());
            return Ok(Found::Offline(folder, said(&error, kind, &context())));
        }
    };
    let names: Vec<String> = listing.siblings.into_iter().map(|file| file.rfilename).collect();
    let files = select(&names)?;
    let paths = files.iter().map(|name| remote.get(name));
    let paths = paths.collect::<Result<_, _>>().map_err(|error| said(&error, kind, &context()))?;
    Ok(Found::Online(paths))
}

/// The hub's error, once (it repeats what it stems from), and what to do.
fn said(error: &ApiError, kind: RepoType, doing: &str) -> Error {
    let text = error.to_string();
    if !matches!(error, ApiError::RequestError(_)) {
        return anyhow!("{doing}: {text}");
    }
    if text.contains("status code") {
        return anyhow!("{doing}: {text}; is the name right, and is it open to your HF_TOKEN?");
    }
    let local = if matches!(kind, RepoType::Model) { "folder" } else { "file or folder" };
    anyhow!(
        "{doing}: the hub is not reachable ({text}); download it on a machine with network and set \
         HF_HOME to the cache that it is in, or name a local {local}"
    )
}
