//! A client of HTTP that can misbehave, and a server over the tiny checkpoint.

#![allow(dead_code)] // each test binary uses its part

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use infer::engine::{Engine, local};
use infer::serve::{Config, Serving};
use model::Tokenizer;
use model::chat::Chat;
use serde_json::{Value, json};

/// A server's config for the tiny checkpoint in `folder`, with these lines of `[server]`.
pub fn config(folder: &Path, server: &str) -> Config {
    let text = format!(
        r#"
        seed = 3
        [model]
        path = {:?}
        device = "cpu"
        dtype = "float32"
        max_model_len = 250
        threads = 1
        [engine]
        slots = 4
        [server]
        address = "127.0.0.1:0"
        name = "tiny"
        stop_timeout_s = 2.0
        {server}
        [generation]
        max_gen_toks = 20
        "#,
        folder.display().to_string()
    );
    toml::from_str(&text).unwrap()
}

/// The engine that such a server has.
pub fn local_engine(config: &Config) -> Engine<local::Local> {
    let folder = Path::new(&config.model.path);
    let tokenizer = Arc::new(Tokenizer::read(folder).unwrap());
    local::load(folder, tokenizer, &config.model, &config.engine).unwrap()
}

/// Such a server.
pub fn start(config: &Config) -> Serving {
    config.check().unwrap();
    let chat = Chat::read(Path::new(&config.model.path)).unwrap();
    let own = config.clone();
    Serving::start(config, chat, move || Ok(local_engine(&own))).unwrap()
}

/// A reply's status, head and body.
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    /// The events of a stream, and whether `[DONE]` was the last.
    pub fn events(&self) -> (Vec<Value>, bool) {
        let data: Vec<_> =
            self.body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
        let is_whole = data.last() == Some(&"[DONE]");
        let events = &data[..data.len() - usize::from(is_whole)];
        (events.iter().map(|event| serde_json::from_str(event).unwrap()).collect(), is_whole)
    }
}

/// The head and body of a request as they go over the wire.
pub fn bytes(path: &str, body: &str) -> Vec<u8> {
    let head = "host: tiny\r\ncontent-type: application/json\r\nconnection: close";
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\n{head}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

/// A connection that gives up after 20 seconds.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends bytes and reads the response to its end.
pub fn raw(address: SocketAddr, request: &[u8]) -> std::io::Result<Response> {
    let mut stream = connect(address);
    // A server that refuses a body may close before it has all of it.
    let _ = stream.write_all(request);
    response(stream)
}

/// Reads one response to the end of its connection.
pub fn response(stream: TcpStream) -> std::io::Result<Response> {
    let mut input = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if input.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        loop {
            let mut line = String::new();
            input.read_line(&mut line)?;
            let length = usize::from_str_radix(line.trim(), 16)
                .map_err(|_| std::io::Error::other("no chunk"))?;
            let mut chunk = vec![0; length + 2];
            input.read_exact(&mut chunk)?;
            if length == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..length]);
        }
    } else {
        input.read_to_end(&mut body)?;
    }
    Ok(Response { status, head, body: String::from_utf8_lossy(&body).into_owned() })
}

/// A POST with a JSON body.
pub fn post(address: SocketAddr, path: &str, body: &Value) -> Response {
    raw(address, &bytes(path, &body.to_string())).unwrap()
}

/// A GET.
pub fn get(address: SocketAddr, path: &str, head: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nhost: tiny\r\nconnection: close\r\n{head}\r\n");
    raw(address, request.as_bytes()).unwrap()
}

/// A chat request that says `text`.
pub fn chat(text: &str) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 12,
           "temperature": 0})
}
