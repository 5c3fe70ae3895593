//! What came back: a chat completion in any of the spellings that servers use.

use serde_json::Value;

use crate::request::about_tokens;
use crate::trouble::Trouble;

/// A reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The answer, without the thinking.
    pub text: String,
    /// The thinking, where the server gives it: as `reasoning_content`, as `reasoning`, between
    /// `<think>` and `</think>`, or as a part of a list.
    pub thinking: Option<String>,
    /// Why it ended: `stop`, `length` (cut off at `max_tokens`), `content_filter`; empty if unsaid.
    pub finish_reason: String,
    /// Tokens, as the server counts them.
    pub usage: Usage,
    /// The model that the server says it was.
    pub model: String,
    /// What the call cost when it was made, at the prices of that time.
    pub cost: f64,
    /// The body as it came; of a stream, the same body put together from its pieces.
    pub raw: Value,
    /// It was paid for earlier.
    pub from_cache: bool,
}

/// Tokens of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Of the conversation sent.
    pub prompt_tokens: u64,
    /// Of the reply, thinking included.
    pub completion_tokens: u64,
    /// The server did not say, and this is a guess from the bytes.
    pub estimated: bool,
}

impl Reply {
    /// Reads a reply's body; an error says what a chat completion must have. `prompt_tokens` is a
    /// guess for servers that do not count.
    pub(crate) fn read(raw: Value, prompt_tokens: u64) -> Result<Reply, Trouble> {
        let unusable = |what: &str| Trouble::unusable(what, &raw);
        if let Some(error) = raw.get("error").filter(|error| !error.is_null()) {
            return Err(Trouble::in_body(error));
        }
        let choice = raw.get("choices").and_then(|choices| choices.get(0));
        let choice = choice.ok_or_else(|| unusable("has no choices"))?;
        let completion = choice.get("text").and_then(Value::as_str);
        let message = choice.get("message").and_then(Value::as_object);
        if message.is_none() && completion.is_none() {
            return Err(unusable("has no message"));
        }
        let finish_reason = match choice.get("finish_reason") {
            None | Some(Value::Null) => "",
            Some(Value::String(reason)) if reason == "error" => {
                return Err(unusable("was broken off by the server"));
            }
            Some(Value::String(reason)) => reason,
            Some(_) => return Err(unusable("has a finish_reason that is no text")),
        };

        let field = |name| message.and_then(|message| message.get(name));
        let (mut text, mut thinking) = match field("content") {
            None | Some(Value::Null) => (String::new(), None),
            Some(Value::String(text)) => (text.clone(), None),
            Some(Value::Array(parts)) => {
                joined(parts).ok_or_else(|| unusable("has content of an unknown kind"))?
            }
            Some(_) => return Err(unusable("has content that is no text")),
        };
        for name in ["reasoning_content", "reasoning"] {
            let told = field(name).and_then(Value::as_str);
            thinking = thinking.or_else(|| told.filter(|told| !told.is_empty()).map(String::from));
        }
        if let Some(completion) = completion {
            text = completion.to_owned(); // what is asked for as it is stays as it is
        } else if thinking.is_none() {
            (text, thinking) = split_thinking(text);
        }

        let written = text.len() + thinking.as_deref().map_or(0, str::len);
        let usage = read_usage(&raw).unwrap_or_else(|| Usage {
            prompt_tokens,
            completion_tokens: about_tokens(written),
            estimated: true,
        });
        let finish_reason = finish_reason.to_owned();
        let model = raw.get("model").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (cost, from_cache) = (0.0, false);
        Ok(Reply { text, thinking, finish_reason, usage, model, cost, raw, from_cache })
    }
}

/// `prompt_tokens` and `completion_tokens`, or `input_tokens` and `output_tokens`.
fn read_usage(raw: &Value) -> Option<Usage> {
    let usage = raw.get("usage")?;
    let count = |names: [&str; 2]| names.iter().find_map(|name| usage.get(name)?.as_u64());
    Some(Usage {
        prompt_tokens: count(["prompt_tokens", "input_tokens"])?,
        completion_tokens: count(["completion_tokens", "output_tokens"])?,
        estimated: false,
    })
}

/// Text and thinking of content that is a list of parts; none if a part is of an unknown kind.
fn joined(parts: &[Value]) -> Option<(String, Option<String>)> {
    let (mut text, mut thinking) = (String::new(), String::new());
    for part in parts {
        let words = |name| part.get(name).and_then(Value::as_str);
        match words("type")? {
            "text" | "output_text" => text.push_str(words("text")?),
            "refusal" => text.push_str(words("refusal")?),
            "thinking" | "reasoning" => match part.get("thinking").or(part.get("text"))? {
                Value::String(words) => thinking.push_str(words),
                Value::Array(inner) => thinking.push_str(&joined(inner)?.0),
                _ => return None,
            },
            _ => return None,
        }
    }
    Some((text, Some(thinking).filter(|thinking| !thinking.is_empty())))
}

/// Splits `<think>…</think>` off the text. Some chat templates end with `<think>`, so that the
/// reply has the closing tag alone; a reply cut off while thinking has the opening one alone.
fn split_thinking(text: String) -> (String, Option<String>) {
    let rest = text.trim_start();
    let (opened, rest) = match rest.strip_prefix("<think>") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    match rest.split_once("</think>") {
        Some((thinking, answer)) => (answer.trim().to_owned(), Some(thinking.trim().to_owned())),
        None if opened => (String::new(), Some(rest.trim().to_owned())),
        None => (text, None),
    }
}
