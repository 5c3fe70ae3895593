//! Vendors' batch files: requests written as JSONL, their results read back into the same cache.
//!
//! Batches cost about half and take up to a day. [`write()`] makes the files that a vendor's batch
//! API takes, of the requests that the cache does not answer; [`read()`] takes the results in.
//! After that [`Client::run`] over the same requests finds their replies, and calls for the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cache::{Entry, Found};
use crate::client::Client;
use crate::reply::Reply;
use crate::request::{Request, RequestKey, hex};

/// The most lines and bytes of one file: OpenAI's limits are 50,000 requests and 200 MB.
const MOST_LINES: usize = 50_000;
const MOST_BYTES: usize = 190 << 20;
/// Results are written down in groups of so many.
const GROUP: usize = 500;

/// What [`write()`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Written {
    /// Requests looked at.
    pub requests: u64,
    /// Of these, answered in the cache already, or equal to one before.
    pub cached: u64,
    /// The files, each within the vendors' limits.
    pub files: Vec<PathBuf>,
}

/// What [`read()`] did. Each line is in exactly one of the counts.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Imported {
    /// Lines read.
    pub lines: u64,
    /// Replies that are now in the cache.
    pub stored: u64,
    /// Lines whose reply the cache had already.
    pub known: u64,
    /// Lines without a usable reply, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Lines that belong to no request written by [`write()`] with this cache.
    pub strangers: u64,
    /// What the stored replies cost, at the prices of the settings.
    pub cost: f64,
}

/// Writes what the cache does not answer to `requests-1.jsonl`, `requests-2.jsonl`, … in `folder`,
/// which is created if need be; files of that name are replaced.
///
/// A line's `custom_id` is the request's id and a part of its key, so that the result of an older
/// prompt is never taken for that of a newer one. Ids must be of letters, digits, `-` and `_`, at
/// most 40 characters long, and unique.
pub fn write(
    client: &Client,
    requests: impl IntoIterator<Item = Request>,
    folder: &Path,
) -> Result<Written> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let settings = &client.settings;
    let mut written = Written::default();
    let mut files = Files { folder, paths: Vec::new(), open: None, lines: 0, bytes: 0 };
    let (mut ids, mut keys, mut batched) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for request in requests {
        written.requests += 1;
        let body = request.body(&settings.model)?;
        let key = RequestKey::of(settings, &body);
        if !keys.insert(key) || client.cache.has(key)? {
            written.cached += 1;
            continue;
        }
        let id = &request.id;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        ensure!(
            !id.is_empty() && id.len() <= 40 && id.chars().all(plain),
            "request {id:?}: in a batch an id has 1 to 40 letters, digits, - or _"
        );
        ensure!(ids.insert(id.clone()), "request {id}: in a batch every id stands once");
        let custom_id = format!("{id}-{}", hex(&key.0[..8]));
        let line = json!({
            "custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body,
        });
        files.push(&line.to_string())?;
        batched.push((custom_id, key));
    }
    client.cache.put_batched(&batched)?;
    written.files = files.close()?;
    Ok(written)
}

/// JSONL files that stay within the limits.
struct Files<'a> {
    folder: &'a Path,
    paths: Vec<PathBuf>,
    open: Option<BufWriter<File>>,
    lines: usize,
    bytes: usize,
}

impl Files<'_> {
    fn push(&mut self, line: &str) -> Result<()> {
        let full = self.lines >= MOST_LINES || self.bytes + line.len() >= MOST_BYTES;
        if full || self.open.is_none() {
            self.end_file()?;
            let path = self.folder.join(format!("requests-{}.jsonl", self.paths.len() + 1));
            let file = File::create(&path);
            let file = file.with_context(|| format!("cannot write {}", path.display()))?;
            self.open = Some(BufWriter::new(file));
            self.paths.push(path);
            (self.lines, self.bytes) = (0, 0);
        }
        self.lines += 1;
        self.bytes += line.len() + 1;
        let written = self.open.as_mut().map_or(Ok(()), |file| writeln!(file, "{line}"));
        written.with_context(|| format!("cannot write into {}", self.folder.display()))
    }

    fn end_file(&mut self) -> Result<()> {
        let flushed = self.open.take().map_or(Ok(()), |mut file| file.flush());
        flushed.with_context(|| format!("cannot write into {}", self.folder.display()))
    }

    fn close(mut self) -> Result<Vec<PathBuf>> {
        self.end_file()?;
        Ok(self.paths)
    }
}

/// Takes a result file of a batch API into the cache: lines with `custom_id` and `response`
/// (`status_code`, `body`) or `error`. Reading a file twice changes nothing.
pub fn read(client: &Client, file: &Path) -> Result<Imported> {
    let _lock = client.cache.lock()?;
    let shown = file.display();
    let input = File::open(file).with_context(|| format!("cannot read {shown}"))?;
    let mut imported = Imported::default();
    let mut group = BTreeMap::new();
    for (number, line) in BufReader::new(input).lines().enumerate() {
        let place = || format!("{shown}:{}", number + 1);
        let line = line.with_context(place)?;
        if line.trim().is_empty() {
            continue;
        }
        let mut line: Value = serde_json::from_str(&line)
            .with_context(|| format!("{}: not a line of JSON; is the file whole?", place()))?;
        imported.lines += 1;
        let id = line["custom_id"].as_str().unwrap_or_default().to_owned();
        let Some(key) = client.cache.batched(&id)? else {
            imported.strangers += 1;
            continue;
        };
        if group.contains_key(&key) || matches!(client.cache.get(key)?, Found::Reply(..)) {
            imported.known += 1;
            continue;
        }
        match reply_of(&mut line) {
            Ok(reply) => drop(group.insert(key, (id, reply))),
            Err(reason) => *imported.failed.entry(reason).or_default() += 1,
        }
        if group.len() >= GROUP {
            store(client, &mut group, &mut imported)?;
        }
    }
    store(client, &mut group, &mut imported)?;
    Ok(imported)
}

/// The reply of one line, or a few words on why there is none.
fn reply_of(line: &mut Value) -> Result<Reply, String> {
    let response = &mut line["response"];
    match response["status_code"].as_u64() {
        Some(200) => {}
        Some(status) => return Err(format!("status {status}")),
        None => {
            let code = line["error"]["code"].as_str().unwrap_or("no response");
            return Err(code.chars().filter(|c| !c.is_control()).take(60).collect());
        }
    }
    Reply::read(response["body"].take(), 0).map_err(|trouble| trouble.kind)
}

fn store(
    client: &Client,
    group: &mut BTreeMap<RequestKey, (String, Reply)>,
    imported: &mut Imported,
) -> Result<()> {
    let cost = |reply: &Reply| {
        client.settings.cost(reply.usage.prompt_tokens, reply.usage.completion_tokens)
    };
    let entries: Vec<_> = group
        .iter()
        .map(|(key, (id, reply))| Entry::Reply {
            key: *key,
            id,
            raw: &reply.raw,
            cost: cost(reply),
        })
        .collect();
    client.cache.put(&client.settings, &entries)?;
    imported.stored += group.len() as u64;
    imported.cost += group.values().map(|(_, reply)| cost(reply)).sum::<f64>();
    group.clear();
    Ok(())
}
