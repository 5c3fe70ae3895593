//! A server over plain sockets that answers, or fails, as a test tells it to.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// What the server got.
pub struct Call {
    /// The last message's text.
    pub question: String,
    /// How many calls this question has had, this one included.
    pub number: u32,
    /// The request's head, as sent.
    pub head: String,
    /// The request's body.
    pub body: Value,
}

/// What the server does.
pub enum Act {
    /// A status, headers beside the usual ones, and a body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// A good status and these bytes as a stream of events.
    Events(String),
    /// The same, and the end of the connection before the stream's.
    CutEvents(String),
    /// A good status that promises more bytes than these.
    Cut(String),
    /// A good status and a byte of the reply now and then, so far apart.
    Drip(Duration),
    /// Nothing for so long, then the end of the connection.
    Stall(Duration),
    /// The end of the connection in the middle of the request.
    Reset,
}

impl Act {
    pub fn json(body: Value) -> Act {
        Act::Status(200, Vec::new(), body.to_string())
    }
}

/// What was counted of one question.
#[derive(Default, Clone, Copy)]
pub struct Count {
    pub calls: u32,
    /// Usual replies sent.
    pub good: u32,
}

#[derive(Default)]
struct State {
    counts: HashMap<String, Count>,
    open: usize,
    most_open: usize,
}

pub struct Server {
    /// The base URL.
    pub url: String,
    state: Arc<Mutex<State>>,
}

/// A usual reply to a question: 7 tokens in, 5 out.
pub fn reply(question: &str) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "model": "m-2026",
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": format!("answer to {question}")},
        }],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    })
}

/// The same as a stream, a few letters at a time.
pub fn events(question: &str) -> String {
    let text: Vec<char> = format!("answer to {question}").chars().collect();
    let piece = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        let piece = json!({"object": "chat.completion.chunk", "model": "m-2026",
            "choices": [choice]});
        format!("data: {piece}\n\n")
    };
    let mut out = piece(json!({"role": "assistant", "content": ""}), Value::Null);
    for letters in text.chunks(4) {
        let letters: String = letters.iter().collect();
        out += &piece(json!({"content": letters}), Value::Null);
    }
    out += ": keep-alive\n\n";
    out += &piece(json!({}), "stop".into());
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 5});
    out += &format!("data: {}\n\n", json!({"choices": [], "usage": usage}));
    out + "data: [DONE]\n\n"
}

impl Server {
    /// Serves until the test's process ends.
    pub fn start(act: impl Fn(&Call) -> Act + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, act) = (state.clone(), Arc::new(act));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, act) = (shared.clone(), act.clone());
                // A connection that breaks is the client's business, or its death.
                thread::spawn(move || drop(serve(stream, &state, &*act)));
            }
        });
        Server { url: format!("http://{address}/v1"), state }
    }

    /// Always the usual reply.
    pub fn good() -> Server {
        Server::start(|call| Act::json(reply(&call.question)))
    }

    pub fn counts(&self) -> HashMap<String, Count> {
        self.state.lock().expect("no panic").counts.clone()
    }

    pub fn calls(&self) -> u64 {
        self.counts().values().map(|count| u64::from(count.calls)).sum()
    }

    /// The most calls that were open at one time.
    pub fn most_open(&self) -> usize {
        self.state.lock().expect("no panic").most_open
    }
}

fn serve(
    stream: TcpStream,
    state: &Mutex<State>,
    act: &(dyn Fn(&Call) -> Act + Send + Sync),
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(stream.try_clone()?);
    let mut output = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if input.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let mut body = vec![0; length.unwrap_or(0)];
        input.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body)?;
        let messages = body["messages"].as_array().expect("messages");
        let question = messages.last().expect("a message")["content"].as_str().expect("a text");
        let question = question.to_owned();
        let number = {
            let mut state = state.lock().expect("no panic");
            state.open += 1;
            state.most_open = state.most_open.max(state.open);
            let count = state.counts.entry(question.clone()).or_default();
            count.calls += 1;
            count.calls
        };
        let call = Call { question, number, head, body };
        let act = act(&call);
        let usual = match &act {
            Act::Status(200, _, body) => body == &reply(&call.question).to_string(),
            Act::Events(text) => *text == events(&call.question),
            _ => false,
        };
        let goes_on = respond(&mut output, act, || {
            let mut state = state.lock().expect("no panic");
            state.counts.entry(call.question.clone()).or_default().good += u32::from(usual);
        });
        state.lock().expect("no panic").open -= 1;
        if !goes_on? {
            return Ok(());
        }
    }
}

/// Acts; `good` is called before a good reply goes out. Says whether the connection goes on.
fn respond(out: &mut TcpStream, act: Act, good: impl FnOnce()) -> std::io::Result<bool> {
    match act {
        Act::Status(status, headers, body) => {
            if status == 200 {
                good();
            }
            let mut text =
                format!("HTTP/1.1 {status} Whatever\r\ncontent-type: application/json\r\n");
            for (name, value) in headers {
                text += &format!("{name}: {value}\r\n");
            }
            text += &format!("content-length: {}\r\n\r\n{body}", body.len());
            out.write_all(text.as_bytes())?;
            Ok(true)
        }
        Act::Events(events) => {
            good();
            write_events(out, &events)?;
            out.write_all(b"0\r\n\r\n")?;
            Ok(true)
        }
        Act::CutEvents(events) => {
            write_events(out, &events)?;
            Ok(false)
        }
        Act::Cut(body) => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
            write!(out, "{head}content-length: {}\r\n\r\n{body}", body.len() + 100)?;
            Ok(false)
        }
        Act::Drip(pause) => {
            out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")?;
            for _ in 0..1000 {
                out.write_all(b" ")?;
                thread::sleep(pause);
            }
            Ok(false)
        }
        Act::Stall(time) => {
            thread::sleep(time);
            Ok(false)
        }
        Act::Reset => Ok(false),
    }
}

/// Chunks that end at any byte, also within an event: pieces on the wire are not events.
fn write_events(out: &mut TcpStream, events: &str) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                transfer-encoding: chunked\r\n\r\n";
    out.write_all(head.as_bytes())?;
    for piece in events.as_bytes().chunks(97) {
        write!(out, "{:x}\r\n", piece.len())?;
        out.write_all(piece)?;
        out.write_all(b"\r\n")?;
    }
    Ok(())
}
