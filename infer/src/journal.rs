//! A journal of finished completions: whatever kills a run, what was finished is not asked again.
//!
//! An entry stands under all that a completion depends on: weights, tokenizer, device and numbers,
//! prompt, [`Spec`], sampling, seed and stops. So a journal that is kept is a cache for other runs
//! too, and a change of anything that matters misses it. What cannot change a completion, such as
//! the seed at temperature 0, or slots and threads, is in no key.
//!
//! A journal is a folder with a file for each writer. A line is `key digest completion`: 64 hex
//! digits that say what was asked, BLAKE3 of the rest, JSON. A line that was cut off by a kill or
//! that is not what was written is passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use record::lock::Lock;

use crate::budget::Spec;
use crate::engine::{Completion, Generate, Request};
use crate::progress::Progress;

/// The version of what programs of this kind answer. Whoever changes completions, so that the same
/// request is answered otherwise than before, counts it up: older entries then count for nothing.
pub const ANSWERS: u32 = 1;

/// Where a run keeps its completions: for good in `cache`, else beside the output until that is
/// published.
pub fn folder(output: &Path, cache: Option<&PathBuf>) -> Result<PathBuf> {
    let name = output.file_name().context("output has no name")?;
    let beside = || output.with_file_name(format!(".{}.journal", name.display()));
    Ok(cache.cloned().unwrap_or_else(beside))
}

/// A journal that is open for one writer.
pub struct Journal {
    folder: PathBuf,
    /// Who answers, as text.
    who: String,
    file: File,
    /// Held by whoever is alone; others are shares of its run.
    lock: Option<Lock>,
}

impl Journal {
    /// Opens the journal in `folder`, which is made if need be, for the writer number `writer`.
    /// `who` says all that matters of who answers. `alone` keeps other runs out meanwhile.
    ///
    /// # Errors
    /// Another run has it, or the folder cannot be written.
    pub fn open(folder: &Path, writer: usize, who: String, alone: bool) -> Result<Self> {
        let place = || format!("the journal {}", folder.display());
        fs::create_dir_all(folder).with_context(place)?;
        let lock = alone.then(|| Lock::take(folder)).transpose().with_context(place)?;
        let path = folder.join(format!("{writer}.log"));
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).append(true).create(true).open(&path).with_context(place)?;
        if is_cut_off(&mut file).with_context(place)? {
            // What a kill has cut off stays, on a line of its own.
            file.write_all(b"\n").with_context(place)?;
        }
        Ok(Journal { folder: folder.to_path_buf(), who, file, lock })
    }

    /// The completions of all requests, in their order. Those that are in the journal come from
    /// it; `open` makes whoever writes the others, each once.
    ///
    /// # Errors
    /// As [`Generate::generate`]; what was finished before is in the journal.
    pub fn answer<'a>(
        &mut self,
        requests: &[Request],
        open: impl FnOnce() -> Result<Box<dyn Generate + 'a>>,
    ) -> Result<Vec<Completion>> {
        let keys = self.keys(requests);
        let mut found = self.read(&keys)?;
        let missing = missing(&keys, &found);
        let mut progress = match self.lock {
            Some(_) => Progress::new(missing.len(), "answers"),
            None => Progress::told(),
        };
        if missing.len() < requests.len() {
            let known = requests.len() - missing.len();
            let all = requests.len();
            progress.say(&format!("{known} of {all} answers are there already or equal others"));
        }
        if self.lock.is_some() {
            progress.told_when_stopped();
        }
        if !missing.is_empty() {
            let mut who = open()?;
            let asked: Vec<Request> = missing.iter().map(|&n| requests[n].clone()).collect();
            who.generate(&asked, &mut |number, completion| {
                let key = &keys[missing[number]];
                let json = serde_json::to_string(&completion)?;
                self.add(key, &json)?;
                progress.finished(completion.outcome.ids.len());
                // As it is read later: JSON may change the last digit of a logarithm.
                found.insert(key.clone(), serde_json::from_str(&json)?);
                Ok(())
            })?;
            progress.say(&who.summary());
        }
        Ok(keys.iter().map(|key| found[key].clone()).collect())
    }

    /// How many of the requests are still to be answered, equal ones counted once.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn missing(&self, requests: &[Request]) -> Result<usize> {
        let keys = self.keys(requests);
        Ok(missing(&keys, &self.read(&keys)?).len())
    }

    /// Removes the journal with all that it kept.
    pub fn remove(self) -> Result<()> {
        let place = || format!("cannot remove the journal {}", self.folder.display());
        fs::remove_dir_all(&self.folder).with_context(place)
    }

    /// What every request is filed under.
    fn keys(&self, requests: &[Request]) -> Vec<String> {
        // Requests share their specs, whose text is long.
        let mut specs: BTreeMap<*const Spec, blake3::Hash> = BTreeMap::new();
        let mut key = |request: &Request| {
            let Request { name: _, prompt, spec, sampling, seed, logit_bias, stop, .. } = request;
            let Request { logprobs, prompt_logprobs, .. } = request;
            let spec = *specs
                .entry(Arc::as_ptr(spec))
                .or_insert_with(|| blake3::hash(format!("{spec:?}").as_bytes()));
            let seed = (sampling.temperature > 0.0).then_some(seed);
            let who = &self.who;
            let scores = (logprobs, prompt_logprobs, logit_bias);
            let asked = format!("{prompt:?} {spec} {sampling:?} {seed:?} {stop:?} {scores:?}");
            blake3::hash(format!("{ANSWERS} {who:?} {asked}").as_bytes()).to_hex().to_string()
        };
        requests.iter().map(&mut key).collect()
    }

    /// The entries of all writers under these keys.
    fn read(&self, keys: &[String]) -> Result<BTreeMap<String, Completion>> {
        let mut found: BTreeMap<String, Completion> = BTreeMap::new();
        let wanted: BTreeSet<&str> = keys.iter().map(String::as_str).collect();
        let place = || format!("the journal {}", self.folder.display());
        let mut damaged = 0;
        for entry in fs::read_dir(&self.folder).with_context(place)? {
            for line in BufReader::new(File::open(entry?.path())?).split(b'\n') {
                let line = line.with_context(place)?;
                match parse(&line) {
                    // What another version wrote in another shape is asked again.
                    Some((key, json)) if wanted.contains(key) => {
                        let completion = serde_json::from_str(json).ok();
                        found.extend(completion.map(|done| (key.to_string(), done)));
                    }
                    Some(_) => {}
                    None if line.is_empty() => {}
                    None => damaged += 1,
                }
            }
        }
        if damaged > 0 {
            eprintln!("{}: {damaged} lines are cut off or damaged, and count for nothing", place());
        }
        Ok(found)
    }

    /// Writes one more entry; it outlives this process from here on.
    fn add(&mut self, key: &str, json: &str) -> Result<()> {
        let line = format!("{key} {} {json}\n", digest(key, json));
        let place = || format!("cannot write into the journal {}", self.folder.display());
        self.file.write_all(line.as_bytes()).with_context(place)
    }
}

/// The first number under each key that is not found, ascending.
fn missing(keys: &[String], found: &BTreeMap<String, Completion>) -> Vec<usize> {
    let mut open = BTreeMap::new();
    for (number, key) in keys.iter().enumerate().filter(|(_, key)| !found.contains_key(*key)) {
        open.entry(key.as_str()).or_insert(number);
    }
    let mut missing: Vec<usize> = open.into_values().collect();
    missing.sort_unstable();
    missing
}

/// Whether the last line of a file was cut off.
fn is_cut_off(file: &mut File) -> std::io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn digest(key: &str, json: &str) -> String {
    blake3::hash(format!("{key} {json}").as_bytes()).to_hex().to_string()
}

/// An entry's key and completion; `None` if they are not what was written.
fn parse(line: &[u8]) -> Option<(&str, &str)> {
    let line = std::str::from_utf8(line).ok()?;
    let (key, rest) = line.split_once(' ')?;
    let (written, json) = rest.split_once(' ')?;
    (digest(key, json) == written).then_some((key, json))
}
