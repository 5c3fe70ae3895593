//! From an HTTP request to its reply.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use model::Tokenizer;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::watch;

use super::asked::{Asked, House};
use super::counters::Counters;
use super::desk::{Desk, Ticket};
use super::reader::Delimiters;
use super::refusal::Refusal;
use super::reply::Reply;

/// Bytes of a body at most.
const MOST_BODY: usize = 4 << 20;
/// A client that is told to come again later should wait so many seconds.
const RETRY_AFTER: u64 = 1;

/// What answers requests. Not to be printed: it has the key.
pub struct Routes {
    /// What bodies are understood with.
    pub house: House,
    /// The same tokenizer as the house's.
    pub tokenizer: Arc<Tokenizer>,
    /// What tells thinking from answer.
    pub delimiters: Delimiters,
    /// Where requests are handed in.
    pub desk: Desk,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// What clients have to know, if anything.
    pub key: Option<String>,
    /// How long a body may take to come.
    pub read_timeout: Duration,
    /// When the server began, in seconds since 1970.
    pub created: u64,
    /// Requests so far.
    pub requests: AtomicU64,
    /// Becomes true when those under way are to end.
    pub cut: watch::Receiver<bool>,
}

/// The body of a response: in one piece, or in events as they come.
#[derive(Debug)]
pub enum Content {
    /// In one piece.
    Whole(Option<Bytes>),
    /// Server-sent events.
    Events(Receiver<Bytes>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Events(events) => {
                events.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Content::Whole(bytes) => {
                hyper::body::SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Content::Events(_) => hyper::body::SizeHint::default(),
        }
    }
}

impl Routes {
    /// Answers a request, whatever it is.
    pub async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Content>, Infallible> {
        let begun = Instant::now();
        let counters = Arc::clone(&self.counters);
        let response = self.route(request).await.unwrap_or_else(|refusal| refused(&refusal));
        counters.replied(response.status().as_u16(), begun.elapsed());
        Ok(response)
    }

    async fn route(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Content>, Refusal> {
        let path = request.uri().path().to_owned();
        let expected = match path.as_str() {
            "/v1/completions" | "/v1/chat/completions" => Method::POST,
            "/health" | "/metrics" | "/v1/models" => Method::GET,
            path if path.strip_prefix("/v1/models/").is_some() => Method::GET,
            _ => return Err(Refusal::new(404, format!("there is nothing at {path}"))),
        };
        if path != "/health" {
            self.check_key(request.headers())?;
        }
        let is_head = expected == Method::GET && request.method() == Method::HEAD;
        if request.method() != expected && !is_head {
            return Err(Refusal::new(405, format!("{path} takes {expected} alone")));
        }
        match path.as_str() {
            "/health" => Ok(whole(StatusCode::OK, "text/plain", "ok\n".into())),
            "/metrics" => {
                let text = self.counters.text();
                Ok(whole(StatusCode::OK, "text/plain; version=0.0.4", text.into()))
            }
            "/v1/models" => Ok(json(&json!({"object": "list", "data": [self.model()]}))),
            "/v1/completions" => self.complete(request, false).await,
            "/v1/chat/completions" => self.complete(request, true).await,
            _ if path["/v1/models/".len()..] == *self.house.name => Ok(json(&self.model())),
            _ => {
                let name = &self.house.name;
                let refusal = Refusal::new(404, format!("the only model here is {name:?}"));
                Err(refusal.coded("model_not_found"))
            }
        }
    }

    fn model(&self) -> Value {
        json!({
            "id": self.house.name, "object": "model", "created": self.created, "owned_by": "s1",
            "max_model_len": self.house.plain.max_model_len,
        })
    }

    fn check_key(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(key) = &self.key else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
        let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
        // All bytes are looked at, wherever the first difference is.
        let differ = given.iter().zip(key.as_bytes()).fold(0, |all, (a, b)| all | (a ^ b));
        if given.len() == key.len() && differ == 0 {
            return Ok(());
        }
        let message = "this server needs its API key, as `Authorization: Bearer …`";
        Err(Refusal::new(401, message).coded("invalid_api_key"))
    }

    async fn complete(
        self: Arc<Self>,
        request: Request<Incoming>,
        is_chat: bool,
    ) -> Result<Response<Content>, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        // A page in a browser could send another kind without being asked whether it may.
        if kind.split(';').next().is_none_or(|kind| kind.trim() != "application/json") {
            return Err(Refusal::new(415, "the body has to be of content-type application/json"));
        }
        let bytes = tokio::time::timeout(self.read_timeout, read(request.into_body())).await;
        let bytes = bytes.map_err(|_| Refusal::new(408, "the body did not come in time"))??;
        // Tokenizing a long prompt takes a while: not on the threads that all clients share.
        let house = Arc::clone(&self);
        let asked = tokio::task::spawn_blocking(move || house.house.ask(&bytes, is_chat)).await;
        let asked = asked.map_err(|_| Refusal::new(500, "the request could not be read"))??;
        self.answer_asked(asked).await
    }

    async fn answer_asked(&self, asked: Asked) -> Result<Response<Content>, Refusal> {
        let (number, stream) = (self.requests.fetch_add(1, Ordering::Relaxed), asked.stream);
        let prompts = asked.requests.chunks(asked.n).map(|same| same[0].prompt.len() as u64).sum();
        let ticket = self.desk.submit(asked.requests.clone(), stream)?;
        self.counters.prompts.add(prompts);
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let head = (self.house.name.as_str(), number, created);
        let mut reply = Reply::new(asked, Arc::clone(&self.tokenizer), &self.delimiters, head);
        if stream {
            let (sender, events) = mpsc::channel(4);
            tokio::spawn(send(reply, ticket, sender, self.cut.clone()));
            let mut response = Response::new(Content::Events(events));
            let kind = HeaderValue::from_static("text/event-stream");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            let none = HeaderValue::from_static("no-cache");
            response.headers_mut().insert(header::CACHE_CONTROL, none);
            return Ok(response);
        }
        let mut cut = self.cut.clone();
        while !reply.is_whole() {
            let news = tokio::select! {
                news = ticket.fetch() => news,
                () = until_cut(&mut cut) => return Err(stopped()),
            };
            for (place, mail) in news {
                if let Some(done) = mail.done {
                    reply.take(place, done?).map_err(ours)?;
                }
            }
        }
        Ok(json(&reply.body().map_err(ours)?))
    }
}

/// A failure that no request is to blame for.
fn ours(error: anyhow::Error) -> Refusal {
    Refusal::new(500, format!("{error:#}"))
}

/// What who is not answered to the end when the server stops is told.
fn stopped() -> Refusal {
    Refusal::new(503, "the server was stopped before this was finished").coded("server_stopped")
}

async fn until_cut(cut: &mut watch::Receiver<bool>) {
    let _ = cut.wait_for(|cut| *cut).await;
}

/// Sends a reply in events until it is whole, the client is gone, or the server stops.
async fn send(
    mut reply: Reply,
    ticket: Ticket,
    events: Sender<Bytes>,
    mut cut: watch::Receiver<bool>,
) {
    loop {
        let news = tokio::select! {
            news = ticket.fetch() => news,
            () = events.closed() => return,
            () = until_cut(&mut cut) => {
                let _ = events.send(event(&stopped().body()).into()).await;
                return;
            }
        };
        let mut text = String::new();
        for (place, mut mail) in news {
            let done = mail.done.take().transpose();
            match done.and_then(|done| reply.pieces(place, mail, done).map_err(ours)) {
                Ok(pieces) => pieces.iter().for_each(|piece| text += &event(piece)),
                Err(refusal) => {
                    let _ = events.send((text + &event(&refusal.body())).into()).await;
                    return;
                }
            }
        }
        let is_whole = reply.is_whole();
        if is_whole {
            reply.usage_piece().iter().for_each(|piece| text += &event(piece));
            text += "data: [DONE]\n\n";
        }
        if events.send(text.into()).await.is_err() || is_whole {
            return;
        }
    }
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// A body's bytes, unless there are too many.
async fn read(mut body: Incoming) -> Result<Vec<u8>, Refusal> {
    let too_large = || {
        let message = format!("a body may have {MOST_BODY} bytes at most");
        Refusal::new(413, message).coded("too_large")
    };
    if body.size_hint().lower() > MOST_BODY as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let broken = |error| Refusal::new(400, format!("the body broke off: {error}"));
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if bytes.len() + data.len() > MOST_BODY {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn whole(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Content> {
    let mut response = Response::new(Content::Whole(Some(bytes)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn json(value: &Value) -> Response<Content> {
    whole(StatusCode::OK, "application/json", value.to_string().into())
}

fn refused(refusal: &Refusal) -> Response<Content> {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = whole(status, "application/json", refusal.body().to_string().into());
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER.into());
    }
    if matches!(refusal.status, 408 | 413) {
        // The rest of the body is not read.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
