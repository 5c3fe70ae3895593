//! The fields of a request's body, taken out one by one; what is left over is refused.

use serde_json::{Map, Value};

use super::refusal::Refusal;

/// A body's fields that nobody has taken yet.
#[derive(Debug)]
pub struct Fields(Map<String, Value>);

/// Standard fields that change nothing here, and the only values that they may have.
const NEUTRAL: [(&str, &[&str]); 16] = [
    ("user", &["*"]),
    ("metadata", &["*"]),
    ("safety_identifier", &["*"]),
    ("prompt_cache_key", &["*"]),
    ("service_tier", &["*"]),
    ("store", &["false"]),
    ("frequency_penalty", &["0", "0.0"]),
    ("presence_penalty", &["0", "0.0"]),
    ("best_of", &["1"]),
    ("suffix", &["\"\""]),
    ("tools", &["[]"]),
    ("tool_choice", &["\"none\"", "\"auto\""]),
    ("parallel_tool_calls", &["true", "false"]),
    ("response_format", &["{\"type\":\"text\"}"]),
    ("modalities", &["[\"text\"]"]),
    ("stream_options", &["{}"]),
];

impl Fields {
    /// Of a body, which has to be a JSON object without a chat template anywhere in it.
    pub fn parse(bytes: &[u8]) -> Result<Fields, Refusal> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| Refusal::new(400, format!("the body is no JSON: {error}")))?;
        let Value::Object(mut map) = value else {
            return Err(Refusal::new(400, "the body is no JSON object"));
        };
        if let Some(name) = map.iter().find_map(|(name, value)| template(name, value)) {
            let message = "is not taken: the chat template is that of the model's folder alone";
            return Err(Refusal::field(name, message));
        }
        map.retain(|_, value| !value.is_null());
        Ok(Fields(map))
    }

    /// Whether there is such a field.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A field's value as it is.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    fn typed<T>(
        &mut self,
        name: &str,
        what: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(Refusal::field(name, format!("has to be {what}"))),
        }
    }

    /// A number.
    pub fn number(&mut self, name: &str) -> Result<Option<f64>, Refusal> {
        self.typed(name, "a number", Value::as_f64)
    }

    /// An integer from `least` to `most`.
    pub fn integer(
        &mut self,
        name: &str,
        least: usize,
        most: usize,
    ) -> Result<Option<usize>, Refusal> {
        let fits = |n: &usize| (least..=most).contains(n);
        let read = |value: &Value| value.as_u64().and_then(|n| n.try_into().ok()).filter(fits);
        let range = match most {
            usize::MAX => format!("an integer of at least {least}"),
            _ => format!("an integer from {least} to {most}"),
        };
        self.typed(name, &range, read)
    }

    /// Any integer.
    pub fn seed(&mut self, name: &str) -> Result<Option<u64>, Refusal> {
        let read = |value: &Value| value.as_u64().or(value.as_i64().map(|n| n as u64));
        self.typed(name, "an integer", read)
    }

    /// A truth; false if it is not there.
    pub fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        Ok(self.typed(name, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    /// A string.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        self.typed(name, "a string", |value| value.as_str().map(String::from))
    }

    /// A string or a list of at most `most` strings, none of them empty.
    pub fn texts(&mut self, name: &str, most: usize) -> Result<Vec<String>, Refusal> {
        let read = |value: &Value| -> Option<Vec<String>> {
            let texts: Vec<String> = match value {
                Value::String(text) => vec![text.clone()],
                Value::Array(list) => list
                    .iter()
                    .map(|text| text.as_str().map(String::from))
                    .collect::<Option<_>>()?,
                _ => return None,
            };
            let fit = texts.len() <= most && texts.iter().all(|t| !t.is_empty() && t.len() <= 1000);
            fit.then_some(texts)
        };
        let what = format!("a string, or a list of at most {most}, each of 1 to 1000 bytes");
        Ok(self.typed(name, &what, read)?.unwrap_or_default())
    }

    /// A list of token ids below `vocab_size`.
    pub fn ids(&mut self, name: &str, vocab_size: i64) -> Result<Vec<i64>, Refusal> {
        let what = format!("a list of token ids from 0 to {}", vocab_size - 1);
        Ok(self.typed(name, &what, |value| ids(value, vocab_size))?.unwrap_or_default())
    }

    /// An object of token ids below `vocab_size` with a number from -100 to 100 each.
    pub fn bias(&mut self, name: &str, vocab_size: i64) -> Result<Vec<(i64, f64)>, Refusal> {
        let one = |(id, bias): (&String, &Value)| {
            let id = id.parse().ok().filter(|id| (0..vocab_size).contains(id))?;
            Some((id, bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias))?))
        };
        let read = |value: &Value| value.as_object()?.iter().map(one).collect();
        let what = "an object of token ids, each with a number from -100 to 100";
        Ok(self.typed(name, what, read)?.unwrap_or_default())
    }

    /// Refuses what is left, unless it changes nothing.
    pub fn finish(self) -> Result<(), Refusal> {
        for (name, value) in self.0 {
            let Some((_, values)) = NEUTRAL.iter().find(|(neutral, _)| *neutral == name) else {
                return Err(Refusal::field(&name, "is no field that this server knows")
                    .coded("unknown_parameter"));
            };
            if *values != ["*"] && !values.contains(&value.to_string().as_str()) {
                let known = values.join(" or ");
                let message = format!("is not supported with this value; only {known} is");
                return Err(Refusal::field(&name, message).coded("unsupported_parameter"));
            }
        }
        Ok(())
    }
}

/// The ids of a JSON list of them.
pub fn ids(value: &Value, vocab_size: i64) -> Option<Vec<i64>> {
    let id = |value: &Value| value.as_i64().filter(|id| (0..vocab_size).contains(id));
    value.as_array()?.iter().map(id).collect()
}

/// The name of a field in this one, itself included, that would bring a chat template.
fn template<'a>(name: &'a str, value: &'a Value) -> Option<&'a str> {
    if name.contains("chat_template") {
        return Some(name);
    }
    match value {
        Value::Object(map) => map.iter().find_map(|(name, value)| template(name, value)),
        Value::Array(list) => list.iter().find_map(|value| template("", value)),
        _ => None,
    }
}
