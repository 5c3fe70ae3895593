//! Which server and model, with which key, how fast, and for how much money at most.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// One server and one model: a section of a run's config. Only `base_url` and `model` are needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What stands before `/chat/completions`, such as `http://localhost:8000/v1`.
    pub base_url: String,
    /// The model's name as the server knows it.
    pub model: String,
    /// Where the key is; none for servers that ask for none.
    #[serde(default)]
    pub api_key: Option<KeySource>,
    /// Requests that are worked on at the same time, each on a thread of its own.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
    /// The server's limit of calls; retries count.
    #[serde(default)]
    pub requests_per_minute: Option<f64>,
    /// The server's limit of tokens, in and out. A call takes its prompt and `max_tokens`, and
    /// gives back what it did not use.
    #[serde(default)]
    pub tokens_per_minute: Option<f64>,
    /// Seconds until a connection stands.
    #[serde(default = "connect_timeout_s")]
    pub connect_timeout_s: f64,
    /// Seconds until the first byte of a reply, and between any two pieces of it. Without `stream`
    /// a server is silent until it has finished, so this must then cover a whole generation.
    #[serde(default = "first_byte_timeout_s")]
    pub first_byte_timeout_s: f64,
    /// Seconds for one call in all.
    #[serde(default = "total_timeout_s")]
    pub total_timeout_s: f64,
    /// Calls for one request before it has failed.
    #[serde(default = "attempts")]
    pub attempts: u32,
    /// Rows in a row that failed so, after which the run stops: the server is not coming back.
    #[serde(default = "give_up_after")]
    pub give_up_after: u32,
    /// Seconds before the second call; doubled for each further one, at most a minute.
    #[serde(default = "backoff_s")]
    pub backoff_s: f64,
    /// Ask for the reply in pieces: connections stay alive over long thinking, and a stall is seen.
    #[serde(default = "stream")]
    pub stream: bool,
    /// Price of a million tokens of prompts.
    #[serde(default)]
    pub price_in: f64,
    /// Price of a million tokens of replies.
    #[serde(default)]
    pub price_out: f64,
    /// The most that all calls to this server and model recorded in the cache may cost together,
    /// earlier runs included.
    #[serde(default)]
    pub max_cost: Option<f64>,
}

fn concurrency() -> usize {
    16
}
fn connect_timeout_s() -> f64 {
    10.0
}
fn first_byte_timeout_s() -> f64 {
    300.0
}
fn total_timeout_s() -> f64 {
    3600.0
}
fn attempts() -> u32 {
    8
}
fn give_up_after() -> u32 {
    20
}
fn backoff_s() -> f64 {
    1.0
}
fn stream() -> bool {
    true
}

/// Where a key is kept. Never the key itself: configs are copied into manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeySource {
    /// `{ env = "NAME" }`: an environment variable.
    Env(String),
    /// `{ file = "path" }`: a file that only its owner may read (mode 0600), holding nothing else.
    File(PathBuf),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::Env(name) => write!(f, "the environment variable {name}"),
            KeySource::File(path) => write!(f, "the file {}", path.display()),
        }
    }
}

impl Settings {
    /// Settings with every optional value at its default.
    pub fn new(base_url: &str, model: &str) -> Self {
        Settings {
            base_url: base_url.to_owned(),
            model: model.to_owned(),
            api_key: None,
            concurrency: concurrency(),
            requests_per_minute: None,
            tokens_per_minute: None,
            connect_timeout_s: connect_timeout_s(),
            first_byte_timeout_s: first_byte_timeout_s(),
            total_timeout_s: total_timeout_s(),
            attempts: attempts(),
            give_up_after: give_up_after(),
            backoff_s: backoff_s(),
            stream: stream(),
            price_in: 0.0,
            price_out: 0.0,
            max_cost: None,
        }
    }

    /// Refuses values that make no sense, each with its cure.
    pub fn check(&self) -> Result<()> {
        let url = &self.base_url;
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let Some(host) = host.filter(|host| !host.is_empty()) else {
            bail!("base_url must begin with http:// or https://, as in http://localhost:8000/v1");
        };
        // Not shown in the error: what stands there may be a secret.
        ensure!(
            !host.contains(['@', '?', '#']),
            "base_url must be an address alone, without user, password or query; \
             the key comes from api_key"
        );
        ensure!(
            !url.trim_end_matches('/').ends_with("/chat/completions"),
            "base_url {url} must end before /chat/completions"
        );
        ensure!(!self.model.is_empty(), "model is empty: give the name that the server knows");
        ensure!(
            (1..=1000).contains(&self.concurrency),
            "concurrency is {}: it must be from 1 to 1000",
            self.concurrency
        );
        ensure!(self.attempts >= 1, "attempts is 0: a request needs at least one call");
        let positive = [
            ("connect_timeout_s", self.connect_timeout_s),
            ("first_byte_timeout_s", self.first_byte_timeout_s),
            ("total_timeout_s", self.total_timeout_s),
            ("requests_per_minute", self.requests_per_minute.unwrap_or(1.0)),
            ("tokens_per_minute", self.tokens_per_minute.unwrap_or(1.0)),
        ];
        for (name, value) in positive {
            ensure!(
                value > 0.0 && value <= 1e9,
                "{name} is {value}: it must be more than 0 (and at most 1e9)"
            );
        }
        let natural = [
            ("backoff_s", self.backoff_s),
            ("price_in", self.price_in),
            ("price_out", self.price_out),
            ("max_cost", self.max_cost.unwrap_or(0.0)),
        ];
        for (name, value) in natural {
            ensure!(
                (0.0..=1e9).contains(&value),
                "{name} is {value}: it must be 0 or more (and at most 1e9)"
            );
        }
        ensure!(
            self.max_cost.is_none() || self.price_in + self.price_out > 0.0,
            "max_cost needs prices: set price_in and price_out, for a million tokens each"
        );
        Ok(())
    }

    /// `base_url` without a slash at its end: two spellings of one server.
    pub(crate) fn server(&self) -> &str {
        self.base_url.trim_end_matches('/')
    }

    /// What so many tokens cost.
    pub(crate) fn cost(&self, prompt_tokens: u64, completion_tokens: u64) -> f64 {
        (prompt_tokens as f64 * self.price_in + completion_tokens as f64 * self.price_out) / 1e6
    }
}

/// Seconds as a duration; [`Settings::check`] has bounded them.
pub(crate) fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value)
}

/// A secret. It has no `Display` and is never serialised; its `Debug` shows nothing of it.
pub(crate) struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(not shown)")
    }
}

impl Key {
    /// Reads the key from its source.
    pub(crate) fn read(source: &KeySource) -> Result<Key> {
        let text = match source {
            KeySource::Env(name) => match std::env::var(name) {
                Ok(text) => text,
                Err(std::env::VarError::NotPresent) => {
                    bail!("{source} is not set: it must hold the key (export {name}=...)")
                }
                // The error of the standard library shows the value.
                Err(std::env::VarError::NotUnicode(_)) => bail!("{source} holds no plain text"),
            },
            KeySource::File(path) => {
                private(source, path)?;
                let bytes = fs::read(path).with_context(|| format!("cannot read {source}"))?;
                String::from_utf8(bytes).ok().with_context(|| format!("{source} is no text"))?
            }
        };
        let text = text.trim();
        ensure!(!text.is_empty(), "{source} is empty: it must hold the key");
        ensure!(
            text.bytes().all(|byte| byte.is_ascii_graphic()),
            "{source} holds more than a key: it must be one word of plain characters"
        );
        Ok(Key(text.to_owned()))
    }

    /// The value of the `Authorization` header.
    pub(crate) fn header(&self) -> Result<ureq::http::HeaderValue> {
        let mut value = ureq::http::HeaderValue::from_str(&format!("Bearer {}", self.0))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The text without the key, should a server repeat it.
    pub(crate) fn scrub(&self, text: String) -> String {
        if text.contains(&self.0) { text.replace(&self.0, "[key]") } else { text }
    }
}

/// Refuses a key file that others than its owner may read.
#[cfg(unix)]
fn private(source: &KeySource, path: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let meta = fs::metadata(path).with_context(|| format!("cannot read {source}"))?;
    let mode = meta.permissions().mode() & 0o777;
    ensure!(
        mode & 0o077 == 0,
        "{source} has mode {mode:04o} and may be read by others: chmod 600 {}",
        path.display()
    );
    Ok(())
}

#[cfg(not(unix))]
fn private(_: &KeySource, _: &std::path::Path) -> Result<()> {
    Ok(())
}
