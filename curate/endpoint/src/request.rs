//! What is asked, and the identity of a request: everything that can change its reply.

use std::fmt;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::settings::Settings;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Standing instructions.
    System,
    /// The question.
    User,
    /// An earlier reply.
    Assistant,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// Standing instructions.
    pub fn system(content: impl Into<String>) -> Self {
        Message { role: Role::System, content: content.into() }
    }

    /// A question.
    pub fn user(content: impl Into<String>) -> Self {
        Message { role: Role::User, content: content.into() }
    }
}

/// One request. Two requests that differ in `id` alone are the same one and paid once; to draw
/// several replies to one question, give each its own `seed`.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The caller's name for it; unique within a batch file, and no part of what is sent otherwise.
    pub id: String,
    /// The conversation; without one this is a completion, see [`Request::completion`].
    pub messages: Vec<Message>,
    /// The most tokens of the reply, thinking included.
    pub max_tokens: u32,
    /// 0 for the likeliest reply.
    pub temperature: f64,
    /// For servers that can repeat a draw, and to tell several draws apart.
    pub seed: Option<u64>,
    /// Further parameters, such as `top_p`. They win over the fields above, and `null` leaves a
    /// parameter out: `max_tokens = null, max_completion_tokens = 4096` suits servers that insist.
    pub extra: Map<String, Value>,
}

/// Parameters that this crate must know itself.
const RESERVED: [&str; 5] = ["model", "messages", "stream", "stream_options", "n"];

impl Request {
    /// A request with nothing in it but what every request needs.
    pub fn new(id: impl Into<String>, messages: Vec<Message>, max_tokens: u32) -> Self {
        let id = id.into();
        Request { id, messages, max_tokens, temperature: 0.0, seed: None, extra: Map::new() }
    }

    /// A text to go on with instead of a conversation: a string, or the ids of its tokens where the
    /// server takes them. Its reply's text is what follows it, as it is; it does not come in
    /// pieces.
    pub fn completion(id: impl Into<String>, prompt: impl Into<Value>, max_tokens: u32) -> Self {
        let mut request = Request::new(id, Vec::new(), max_tokens);
        request.extra.insert("prompt".into(), prompt.into());
        request
    }

    /// The body to send, as far as it can change the reply: whether it comes in pieces is left out.
    pub(crate) fn body(&self, model: &str) -> Result<Value> {
        ensure!(
            self.temperature.is_finite() && self.temperature >= 0.0,
            "request {}: temperature is {}: it must be 0 or more",
            self.id,
            self.temperature
        );
        ensure!(self.max_tokens > 0, "request {}: max_tokens is 0: nothing could come", self.id);
        let mut body = json!({
            "model": model,
            "messages": self.messages,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        });
        if self.extra.contains_key("prompt") {
            body["messages"] = Value::Null;
        }
        if let Some(seed) = self.seed {
            body["seed"] = seed.into();
        }
        for (name, value) in &self.extra {
            if RESERVED.contains(&name.as_str()) {
                bail!("request {}: {name} cannot be set in its further parameters", self.id);
            }
            body[name] = value.clone();
        }
        if let Some(body) = body.as_object_mut() {
            body.retain(|_, value| !value.is_null());
        }
        Ok(body)
    }

    /// About how many tokens the prompt has: four bytes each, as English has them.
    pub(crate) fn prompt_tokens(&self) -> u64 {
        let prompt = match self.extra.get("prompt") {
            Some(Value::Array(ids)) => ids.len() as u64,
            Some(Value::String(text)) => about_tokens(text.len()),
            _ => 0,
        };
        prompt
            + about_tokens(self.messages.iter().map(|message| message.content.len()).sum())
            + 4 * self.messages.len() as u64
    }

    /// More tokens than the prompt can have: byte-level vocabularies make at most one of a byte,
    /// and no chat template known adds more than 64 to a message.
    pub(crate) fn most_prompt_tokens(&self) -> u64 {
        let prompt = match self.extra.get("prompt") {
            Some(Value::Array(ids)) => ids.len(),
            Some(Value::String(text)) => text.len(),
            _ => 0,
        };
        let messages = self.messages.iter().map(|message| message.content.len() as u64 + 64);
        prompt as u64 + messages.sum::<u64>()
    }

    /// The most tokens of the reply, under whichever name the server is told.
    pub(crate) fn most_completion_tokens(&self) -> u64 {
        let told =
            ["max_tokens", "max_completion_tokens"].map(|name| self.extra.get(name)?.as_u64());
        told.into_iter().flatten().max().unwrap_or(self.max_tokens.into())
    }
}

/// About how many tokens so many bytes of text are.
pub(crate) fn about_tokens(bytes: usize) -> u64 {
    bytes.div_ceil(4) as u64
}

/// What a reply is kept under: a SHA-256 over server, model, messages and parameters. The key,
/// limits, prices, timeouts and the way the reply travels are no part of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestKey(pub [u8; 32]);

impl RequestKey {
    /// The identity of a request with this [`Request::body`].
    pub(crate) fn of(settings: &Settings, body: &Value) -> Self {
        let mut text = String::from("chat/completions 1\n");
        text.push_str(settings.server());
        text.push('\n');
        canonical(body, &mut text);
        RequestKey(Sha256::digest(text).into())
    }
}

impl fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value as JSON with sorted keys: the order in which parameters were given changes nothing.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut names: Vec<_> = map.keys().collect();
            names.sort();
            out.push('{');
            for name in names {
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                canonical(&map[name], out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(values) => {
            out.push('[');
            for value in values {
                canonical(value, out);
                out.push(',');
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}
