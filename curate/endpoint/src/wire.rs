//! One call over HTTP: a body sent, a body received, or the trouble that was met.

use std::io::{BufReader, Read as _};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::HeaderValue;

use crate::settings::{Key, Settings, seconds};
use crate::stream;
use crate::trouble::{Trouble, retry_after};

/// Larger replies are refused: no model writes so much.
const MOST_BYTES: u64 = 64 << 20;

/// A server that can be called from many threads.
#[derive(Debug)]
pub(crate) struct Wire {
    agent: Agent,
    /// Without what is asked of it.
    url: String,
    stream: bool,
    key: Option<Key>,
    header: Option<HeaderValue>,
}

impl Wire {
    pub fn open(settings: &Settings) -> Result<Wire> {
        let key = settings.api_key.as_ref().map(Key::read).transpose()?;
        let header = key.as_ref().map(Key::header).transpose()?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirected request would take the key to another address.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(seconds(settings.connect_timeout_s)))
            .timeout_per_read(Some(seconds(settings.first_byte_timeout_s)))
            .timeout_global(Some(seconds(settings.total_timeout_s)))
            .max_idle_connections(settings.concurrency)
            .max_idle_connections_per_host(settings.concurrency)
            .user_agent(concat!("s1-endpoint/", env!("CARGO_PKG_VERSION")))
            .build();
        let url = settings.server().to_owned();
        Ok(Wire { agent: config.new_agent(), url, stream: settings.stream, key, header })
    }

    /// Makes one call; `answering` runs once the server has accepted it.
    pub fn call(&self, body: &Value, answering: impl FnOnce()) -> Result<Value, Trouble> {
        self.exchange(body, answering)
            .map_err(|trouble| Trouble { text: self.scrub(trouble.text), ..trouble })
    }

    fn exchange(&self, body: &Value, answering: impl FnOnce()) -> Result<Value, Trouble> {
        let broken = |error: ureq::Error| Trouble::broken(&error, None);
        let chat = body.get("messages").is_some();
        let url = format!("{}/{}", self.url, if chat { "chat/completions" } else { "completions" });
        let mut request = self.agent.post(&url).header("content-type", "application/json");
        if let Some(header) = &self.header {
            request = request.header("authorization", header.clone());
        }
        let sent = if self.stream && chat {
            let mut body = body.clone();
            body["stream"] = true.into();
            body["stream_options"] = json!({"include_usage": true});
            body.to_string()
        } else {
            body.to_string()
        };
        let mut response = request.send(sent).map_err(broken)?;

        let status = response.status().as_u16();
        if !(200..300).contains(&status) {
            let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let after = retry_after(response.headers(), clock.as_secs());
            // An error's body may itself be broken off; its status is what counts.
            let mut words = Vec::new();
            let reader = response.body_mut().as_reader();
            let _ = reader.take(1 << 16).read_to_end(&mut words);
            return Err(Trouble::of_status(status, &String::from_utf8_lossy(&words), after));
        }
        answering();
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        let in_pieces = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
        let reader = response.body_mut().with_config().limit(MOST_BYTES).reader();
        let value = if in_pieces {
            stream::read(BufReader::new(reader))?
        } else {
            let mut bytes = Vec::new();
            let ended = BufReader::new(reader).read_to_end(&mut bytes);
            ended.map_err(|error| Trouble::broken(&error, Some(bytes.len())))?;
            serde_json::from_slice(&bytes)
                .map_err(|_| Trouble::cut("a reply that is no whole JSON", bytes.len()))?
        };
        self.without_key(value)
    }

    /// The reply without our key, should the server repeat it.
    fn without_key(&self, value: Value) -> Result<Value, Trouble> {
        let Some(key) = &self.key else {
            return Ok(value);
        };
        let text = value.to_string();
        let bytes = text.len();
        serde_json::from_str(&key.scrub(text)).map_err(|_| Trouble::cut("a garbled reply", bytes))
    }

    fn scrub(&self, text: String) -> String {
        match &self.key {
            Some(key) => key.scrub(text),
            None => text,
        }
    }
}
