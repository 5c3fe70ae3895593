//! A reply in pieces (server-sent events), put together into the body that would have come at once.

use std::io::BufRead;

use serde_json::{Map, Value, json};

use crate::trouble::Trouble;

/// Reads a stream of `chat.completion.chunk` events to its end: a `[DONE]`, or the end of the
/// connection after a `finish_reason`. A stream that ends earlier is cut.
pub(crate) fn read(mut input: impl BufRead) -> Result<Value, Trouble> {
    let mut whole = Whole::default();
    let (mut line, mut data) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        match input.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            // All of the text is there once it has said why it ended.
            Err(_) if whole.finished() => break,
            Err(error) => return Err(Trouble::broken(&error, Some(whole.bytes))),
        }
        let line = line.trim_ascii_end();
        if let Some(more) = line.strip_prefix(b"data:") {
            if !data.is_empty() {
                data.push(b'\n');
            }
            data.extend_from_slice(more.trim_ascii_start());
        }
        // An empty line ends an event. Comments (a first colon) and other fields are passed over.
        if line.is_empty() && !data.is_empty() {
            if data == b"[DONE]" {
                break;
            }
            whole.add(&data)?;
            data.clear();
        }
    }
    // Some servers end the connection without the empty line.
    if !data.is_empty() && data != b"[DONE]" && !whole.finished() {
        whole.add(&data)?;
    }
    whole.into_body()
}

/// The body so far.
#[derive(Default)]
struct Whole {
    /// The fields beside `choices`, each as its last piece had it.
    outer: Map<String, Value>,
    message: Map<String, Value>,
    finish_reason: Option<Value>,
    /// Of the text so far.
    bytes: usize,
}

impl Whole {
    fn finished(&self) -> bool {
        self.finish_reason.is_some()
    }

    fn add(&mut self, data: &[u8]) -> Result<(), Trouble> {
        let piece: Map<String, Value> = serde_json::from_slice(data)
            .map_err(|_| Trouble::cut("a damaged piece", self.bytes))?;
        if let Some(error) = piece.get("error").filter(|error| !error.is_null()) {
            return Err(Trouble::in_body(error));
        }
        for (name, value) in piece {
            if name == "choices" {
                self.add_choice(value.get(0).unwrap_or(&Value::Null));
            } else if !value.is_null() {
                self.outer.insert(name, value);
            }
        }
        Ok(())
    }

    fn add_choice(&mut self, choice: &Value) {
        for (name, value) in choice.get("delta").and_then(Value::as_object).into_iter().flatten() {
            self.bytes += value.as_str().map_or(0, str::len);
            match (self.message.get_mut(name), value) {
                (_, Value::Null) => {}
                (Some(Value::String(text)), Value::String(more)) if name != "role" => {
                    text.push_str(more);
                }
                // Thinking comes as lists of parts from some servers, the answer then as text.
                (Some(Value::Array(parts)), Value::Array(more)) => {
                    parts.extend(more.iter().cloned());
                }
                (Some(Value::Array(parts)), Value::String(more)) => {
                    parts.push(json!({"type": "text", "text": more}));
                }
                (Some(text @ Value::String(_)), Value::Array(more)) => {
                    let mut parts = vec![json!({"type": "text", "text": text})];
                    parts.extend(more.iter().cloned());
                    *text = parts.into();
                }
                _ => {
                    self.message.insert(name.clone(), value.clone());
                }
            }
        }
        if let Some(reason) = choice.get("finish_reason").filter(|reason| !reason.is_null()) {
            self.finish_reason = Some(reason.clone());
        }
    }

    fn into_body(mut self) -> Result<Value, Trouble> {
        let Some(finish_reason) = self.finish_reason else {
            return Err(Trouble::cut("the stream ended before the reply did", self.bytes));
        };
        self.outer.insert("object".into(), "chat.completion".into());
        let choice = json!({
            "index": 0, "message": self.message, "finish_reason": finish_reason,
        });
        self.outer.insert("choices".into(), json!([choice]));
        Ok(Value::Object(self.outer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream with everything in it, and its text.
    fn stream() -> (String, &'static str) {
        let mut events = String::from(": hello\r\n\r\n");
        for delta in ["Eight €", " is \"the\"", "\nanswer\t🦀", "."] {
            let choice = json!({"delta": {"content": delta}, "finish_reason": null});
            events += &format!("event: message\ndata: {}\n\n", json!({"choices": [choice]}));
        }
        let last = json!({"choices": [{"delta": {}, "finish_reason": "stop"}]});
        events += &format!("data: {last}\n\ndata: {}\n\n", json!({"usage": {"x": 1}}));
        (events + "data: [DONE]\n\n", "Eight € is \"the\"\nanswer\t🦀.")
    }

    fn text(body: &Value) -> Option<&str> {
        body["choices"][0]["message"]["content"].as_str()
    }

    /// Cut anywhere, a stream is whole or an error, never a shorter reply.
    #[test]
    fn no_cut_passes_for_a_reply() {
        let (stream, expected) = stream();
        let mut whole = 0;
        for end in 0..=stream.len() {
            if let Ok(body) = read(&stream.as_bytes()[..end]) {
                assert_eq!(text(&body), Some(expected), "cut at byte {end}");
                whole += 1;
            }
        }
        assert!((1..100).contains(&whole), "{whole} cuts of {}", stream.len());
    }

    /// With any byte changed it is read or refused, and nothing panics.
    #[test]
    fn damaged_bytes() {
        let (stream, _) = stream();
        for place in 0..stream.len() {
            for byte in [0, b'"', b'{', b'\n', b'\\', b':', b'9', 0xff] {
                let mut bytes = stream.clone().into_bytes();
                bytes[place] = byte;
                let _ = read(&bytes[..]).map(|body| crate::reply::Reply::read(body, 1));
            }
        }
    }
}
