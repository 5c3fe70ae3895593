//! A local server of all five models, whose replies depend on the model's name.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// A question with these words is refused as too long for the model.
pub const TOO_LONG: &str = "a very long text";

/// A server whose reply depends on the model's name, with a count of calls and the bodies it got.
pub struct Server {
    url: String,
    calls: Arc<AtomicUsize>,
    /// So many calls are answered; then the key is refused.
    pub limit: Arc<AtomicUsize>,
    pub bodies: Arc<Mutex<Vec<Value>>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (calls, bodies) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let limit = Arc::new(AtomicUsize::new(usize::MAX));
        let server =
            Self { url, calls: calls.clone(), limit: limit.clone(), bodies: bodies.clone() };
        let serve = move |mut stream: TcpStream| {
            // A client that was killed may be gone in the middle of its request, or before its
            // reply.
            let Some(body) = request(&stream) else { return };
            std::thread::sleep(Duration::from_millis(2));
            let number = calls.fetch_add(1, Ordering::SeqCst);
            let (status, text) = if body.to_string().contains(TOO_LONG) {
                ("400 Bad Request", "maximum context length".to_string())
            } else if number < limit.load(Ordering::SeqCst) {
                let choice = json!({"message": reply(&body), "finish_reason": "stop"});
                bodies.lock().unwrap().push(body);
                let usage = json!({"prompt_tokens": 10, "completion_tokens": 5});
                ("200 OK", json!({"choices": [choice], "usage": usage}).to_string())
            } else {
                ("401 Unauthorized", "{}".to_string())
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n",
                text.len()
            );
            let _ = stream.write_all((head + &text).as_bytes());
        };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let serve = serve.clone();
                std::thread::spawn(move || serve(stream.unwrap()));
            }
        });
        server
    }

    /// The sections of all five models.
    pub fn sections(&self) -> String {
        [
            self.section("teacher", "question"),
            self.section("isqwen7bcorrect", "question"),
            self.section("isqwen32bcorrect", "question"),
            self.section("judge", "grade"),
            self.section("domain", "domain"),
        ]
        .concat()
    }

    pub fn section(&self, name: &str, prompt: &str) -> String {
        let prompts = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/curate/prompts");
        format!(
            "[{name}]\nprompt = '{prompts}/{prompt}.md'\nmax_tokens = 100\nexpected_tokens = 10\n\
             [{name}.endpoint]\nbase_url = '{}'\nmodel = '{name}'\nstream = false\n\
             price_in = 1.0\nprice_out = 2.0\n",
            self.url
        )
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

/// The body of a request, if it came whole.
fn request(stream: &TcpStream) -> Option<Value> {
    let mut reader = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).ok()? > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

pub fn reply(body: &Value) -> Value {
    let asked = body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap();
    match body["model"].as_str().unwrap() {
        "teacher" => json!({"content": "So \\boxed{4}.", "reasoning_content": "hm"}),
        "isqwen7bcorrect" => json!({"content": "I say Yes\nFinal Answer: 5"}),
        "isqwen32bcorrect" => json!({"content": "It is $4$.\nYes"}),
        // The first draw of every verdict cannot be read.
        "judge" if body["seed"].is_null() => json!({"content": "Perhaps."}),
        "judge" if asked.contains("Final Answer: 5") => json!({"content": "It says Yes.\nNo"}),
        "judge" => json!({"content": "Same.\nYes"}),
        "domain" => json!({"content": "A sum.\n**11**"}),
        model => panic!("no such model: {model}"),
    }
}
