//! What may go wrong with a call, and what is then done: call again, give the row up, or stop.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

/// Why a request has no reply; the run went on without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind of it.
    pub cause: Cause,
    /// Calls that were made.
    pub attempts: u32,
    /// What the last call met, in words.
    pub message: String,
}

/// The kinds of failure that cost one row and not the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Prompt and reply together do not fit into the model's context.
    TooLong,
    /// The server's filter refused the content.
    Filtered,
    /// All attempts were used up.
    Exhausted,
}

impl Cause {
    /// A few words for tables and counters.
    pub fn name(self) -> &'static str {
        match self {
            Cause::TooLong => "longer than the model's context",
            Cause::Filtered => "refused by the server's content filter",
            Cause::Exhausted => "no usable reply in all attempts",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { cause, attempts, message } = self;
        write!(f, "{} ({attempts} calls); the last one: {message}", cause.name())
    }
}

impl std::error::Error for Failure {}

/// One call that brought no reply.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// A word for counters: the status, or what broke.
    pub kind: String,
    /// What happened, in words; it may quote the server.
    pub text: String,
    pub then: Then,
    /// Bytes of text that had come before the reply broke: they were probably charged.
    pub received: Option<usize>,
}

/// What is done about a [`Trouble`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Then {
    /// The same call again. With `everybody` no other call starts before that either.
    Again { after: Option<Duration>, everybody: bool },
    /// This row has failed; calling again would change nothing.
    GiveUp(Cause),
    /// Nothing would work; the text is the cure.
    Stop(&'static str),
}

const AGAIN: Then = Then::Again { after: None, everybody: false };

impl Trouble {
    fn again(kind: &str, text: String, received: Option<usize>) -> Self {
        Trouble { kind: kind.to_owned(), text, then: AGAIN, received }
    }

    /// The connection failed, before or within a reply.
    pub fn broken(error: &dyn fmt::Display, received: Option<usize>) -> Self {
        let text = one_line(&error.to_string());
        let kind = if text.starts_with("timeout") { "timeout" } else { "connection" };
        // Also where it is wrapped in another error.
        let then = if text.contains("invalid peer certificate") {
            Then::Stop("base_url needs a server whose certificate a public authority has signed")
        } else {
            AGAIN
        };
        Trouble { then, ..Trouble::again(kind, text, received) }
    }

    /// The reply is shorter than it should be.
    pub fn cut(what: &str, received: usize) -> Self {
        Trouble::again("cut reply", what.to_owned(), Some(received))
    }

    /// The reply is JSON but no chat completion.
    pub fn unusable(what: &str, body: &Value) -> Self {
        let body = body.to_string();
        let text = format!("the reply {what}: {}", one_line(&body));
        Trouble::again("unusable reply", text, Some(body.len()))
    }

    /// An error where a reply should be, under a good status or inside a stream.
    pub fn in_body(error: &Value) -> Self {
        let code = error
            .get("code")
            .and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
        let status = code.and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 400);
        Trouble::of_status(status.unwrap_or(500), &error.to_string(), None)
    }

    /// The policy for each status that is not a success.
    pub fn of_status(status: u16, body: &str, retry_after: Option<Duration>) -> Self {
        let quoted = server_words(body);
        let text = format!("status {status}: {quoted}");
        let lower = body.to_lowercase();
        let says = |signs: &[&str]| signs.iter().any(|sign| lower.contains(sign));
        let then = match status {
            400 | 413 | 422 if says(&TOO_LONG) => Then::GiveUp(Cause::TooLong),
            400 | 403 | 422 if says(&FILTERED) => Then::GiveUp(Cause::Filtered),
            429 if says(&NO_CREDIT) => Then::Stop(CREDIT),
            408 | 409 | 425 => Then::Again { after: retry_after, everybody: false },
            429 => Then::Again { after: retry_after, everybody: true },
            // A pause that the server names is for all; other trouble of its own may pass at once.
            500.. => Then::Again { after: retry_after, everybody: retry_after.is_some() },
            401 | 403 => Then::Stop("check api_key, and that the key may use this model"),
            402 => Then::Stop(CREDIT),
            404 | 405 => Then::Stop(
                "check base_url (it ends before /chat/completions, often in /v1) and model",
            ),
            300..400 => Then::Stop("the address redirects: put the final one in base_url"),
            413 => Then::GiveUp(Cause::TooLong),
            _ => Then::Stop(
                "the server refuses the request as such: check model and the parameters sent",
            ),
        };
        Trouble { kind: status.to_string(), text, then, received: None }
    }
}

const CREDIT: &str = "the account has no credit left";
const NO_CREDIT: [&str; 3] = ["insufficient_quota", "insufficient balance", "credit balance"];
/// Seen from OpenAI and Azure, from Alibaba and OpenRouter.
const FILTERED: [&str; 5] = [
    "content_filter",
    "content management policy",
    "content_policy",
    "data_inspection_failed",
    "input was flagged",
];
/// Seen from OpenAI and vLLM, from Anthropic, Gemini, llama.cpp and TGI, in this order.
const TOO_LONG: [&str; 7] = [
    "context_length_exceeded",
    "maximum context length",
    "maximum model length",
    "prompt is too long",
    "exceeds the maximum number of tokens",
    "context size",
    "`inputs` tokens + `max_new_tokens`",
];

/// The server's own words in an error's body: of `error.message`, `message` or `detail`, or all.
fn server_words(body: &str) -> String {
    let json: Option<Value> = serde_json::from_str(body).ok();
    let words = json.as_ref().and_then(|json| {
        let error = json.get("error").unwrap_or(json);
        ["message", "detail"].iter().find_map(|name| error.get(name)?.as_str()).or(error.as_str())
    });
    one_line(words.unwrap_or(body))
}

/// At most 300 characters of foreign text, on one line and harmless to a terminal.
fn one_line(text: &str) -> String {
    let mut line: String = text.chars().take(300).collect();
    if line.len() < text.len() {
        line.push('…');
    }
    line.replace(|c: char| c.is_control(), " ")
}

/// How long the server asks to wait: `retry-after-ms`, or `retry-after` as seconds or as a date.
/// Dates count from the reply's own `date`, so that a wrong clock here does no harm.
pub(crate) fn retry_after(headers: &ureq::http::HeaderMap, now: u64) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |name: &str| text(name)?.parse().ok().filter(|n: &f64| (0.0..1e9).contains(n));
    if let Some(ms) = number("retry-after-ms") {
        return Some(Duration::from_secs_f64(ms / 1e3));
    }
    if let Some(seconds) = number("retry-after") {
        return Some(Duration::from_secs_f64(seconds));
    }
    let until = http_date(text("retry-after")?)?;
    let from = text("date").and_then(http_date).unwrap_or(now);
    Some(Duration::from_secs(until.saturating_sub(from)))
}

/// Seconds since 1970 of a date such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts: Vec<&str> = text.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, "GMT"] = parts[..] else {
        return None;
    };
    let number = |text: &str| text.parse::<u64>().ok().filter(|n| *n < 10_000);
    let month = MONTHS.iter().position(|name| *name == month)? as u64;
    let year = number(year).filter(|year| *year >= 1970)?;
    // Years that begin in March, so that the leap day is the last one.
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let days = 365 * year + year / 4 - year / 100
        + year / 400
        + (153 * month + 2) / 5
        + number(day)?.checked_sub(1)?;
    let days = days.checked_sub(719_468)?;
    Some(((days * 24 + number(hour)?) * 60 + number(minute)?) * 60 + number(second)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::HeaderMap;

    #[track_caller]
    fn check(headers: &[(&'static str, &str)], expected: Option<f64>) {
        let now = 784_111_770; // Sun, 06 Nov 1994 08:49:30 GMT
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().expect("a header value"));
        }
        assert_eq!(retry_after(&map, now), expected.map(Duration::from_secs_f64), "{headers:?}");
    }

    #[test]
    fn pauses_asked_for() {
        check(&[], None);
        check(&[("retry-after", "3")], Some(3.0));
        check(&[("retry-after", "0.25")], Some(0.25));
        check(&[("retry-after", "9"), ("retry-after-ms", "40")], Some(0.04));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], Some(7.0));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:20 GMT")], Some(0.0));
        let date = ("date", "Thu, 29 Feb 2024 23:59:59 GMT");
        check(&[("retry-after", "Fri, 01 Mar 2024 00:00:01 GMT"), date], Some(2.0));
        check(&[("retry-after", "-1")], None);
        check(&[("retry-after", "NaN")], None);
        check(&[("retry-after", "soon")], None);
        check(&[("retry-after", "Sun, 06 Nov 0094 08:49:37 GMT")], None);
        check(&[("retry-after", "Sun, 00 Nov 1994 08:49:37 GMT")], None);
    }

    #[test]
    fn dates_since_1970() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sat, 01 Jan 2000 00:00:00 GMT", 946_684_800),
            ("Tue, 29 Feb 2000 12:00:00 GMT", 951_825_600),
            ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800),
            ("Thu, 31 Dec 2037 23:59:59 GMT", 2_145_916_799),
        ] {
            assert_eq!(http_date(text), Some(seconds), "{text}");
        }
    }
}
