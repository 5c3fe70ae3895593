//! `infer serve`: an OpenAI-compatible server whose thinking can be forced.
//!
//! The engine has a thread of its own ([`desk`]); HTTP tasks hand requests in and fetch what has
//! come of them, so that no client can hold the engine up. A request that is dropped, because its
//! client went away or the server is to stop, is cancelled before the next step.
//!
//! A chat template is never taken from a request, and that of the model's folder is never run:
//! conversations are put together from tokens ([`model::chat`]).
//!
//! Reading order: [`refusal`] (errors in OpenAI's shape), `fields` and [`asked`] (what a body asks
//! for), [`desk`], [`reader`] (from ids to thinking and answer as they come), [`reply`] (JSON and
//! events), [`counters`], [`routes`], `socket`; here the sockets, and the beginning and the end.

pub mod asked;
pub mod counters;
pub mod desk;
mod fields;
pub mod reader;
pub mod refusal;
pub mod reply;
pub mod routes;
mod socket;

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use model::chat::Chat;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::config::{self, Generation};
use crate::engine::{Engine, Model, local};
use crate::run;
use asked::{House, ThinkingKeys};
use counters::Counters;
use desk::Desk;
use reader::Delimiters;
use routes::Routes;
use socket::Socket;

/// Bytes of a request's head at most; hyper takes no less.
const MOST_HEAD: usize = 8 << 10;

/// How long clients have to take the last word of a server that stops.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A whole server; the annotated example is `configs/infer/serve.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// For requests that sample and bring no seed.
    pub seed: u64,
    /// Who answers.
    pub model: config::Model,
    /// How much is written at once.
    #[serde(default)]
    pub engine: config::Engine,
    /// Where requests are taken, and how many.
    #[serde(default)]
    pub server: Server,
    /// What holds where a request does not say, and the strings of the format.
    pub generation: Generation,
    /// How much is thought where a chat request does not say; nothing is forced by default.
    #[serde(default)]
    pub thinking: ThinkingKeys,
}

/// `[server]`: where requests are taken, and how many.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address or name, and port; port 0 takes a free one.
    #[serde(deserialize_with = "resolved")]
    pub address: SocketAddr,
    /// What requests call the model. Default: `model.path`.
    pub name: Option<String>,
    /// The environment variable with the key that clients have to know.
    pub api_key_env: Option<String>,
    /// Takes requests from other machines without a key.
    pub open_to_all: bool,
    /// Completions that are asked for and not finished, at most; then 429.
    pub queue: usize,
    /// Connections at most; more wait.
    pub connections: usize,
    /// Seconds for the head of a request to come, and for its body.
    pub read_timeout_s: f64,
    /// Seconds that a client may read nothing while there is something to read.
    pub write_timeout_s: f64,
    /// Seconds for requests under way when the server is to stop; then they are cut.
    pub stop_timeout_s: f64,
}

/// `localhost:8000` is as good as `127.0.0.1:8000`.
fn resolved<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = |why: &dyn Display| {
        D::Error::custom(format!("{text:?} is no address and port such as 127.0.0.1:8000: {why}"))
    };
    let mut found = text.to_socket_addrs().map_err(|error| wrong(&error))?;
    found.next().ok_or_else(|| wrong(&"the name is unknown"))
}

impl Default for Server {
    fn default() -> Self {
        Server {
            address: SocketAddr::from(([127, 0, 0, 1], 8000)),
            name: None,
            api_key_env: None,
            open_to_all: false,
            queue: 256,
            connections: 1024,
            read_timeout_s: 30.0,
            write_timeout_s: 30.0,
            stop_timeout_s: 10.0,
        }
    }
}

impl Config {
    /// Refuses values that TOML's types let through.
    pub fn check(&self) -> Result<()> {
        let server = &self.server;
        ensure!(server.queue > 0, "server.queue is 0: every request would be refused");
        ensure!(server.connections > 0, "server.connections is 0: nobody could ask");
        let timeouts = [server.read_timeout_s, server.write_timeout_s, server.stop_timeout_s];
        ensure!(
            timeouts.iter().all(|s| s.is_finite() && (0.0..1e6).contains(s)),
            "server: a timeout is no number of seconds"
        );
        config::check(&self.model, &self.engine, &self.generation, &[])
    }

    fn key(&self) -> Result<Option<String>> {
        let server = &self.server;
        let key = match &server.api_key_env {
            None => None,
            Some(name) => {
                let key = std::env::var(name).ok().filter(|key| !key.is_empty());
                Some(key.with_context(|| {
                    format!("server.api_key_env: the environment variable {name} is not set")
                })?)
            }
        };
        let near = match server.address.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        };
        ensure!(
            near || key.is_some() || server.open_to_all,
            "server.address {} can be reached from other machines: set server.api_key_env, or \
             server.open_to_all = true",
            server.address
        );
        Ok(key)
    }
}

/// A server under way.
#[derive(Debug)]
pub struct Serving {
    /// Where it takes requests.
    pub address: SocketAddr,
    /// What it counts.
    pub counters: Arc<Counters>,
    runtime: Runtime,
    stop: watch::Sender<bool>,
    cut: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
    engine: JoinHandle<Result<String>>,
}

/// Serves the config at `path` with the overrides `sets` until SIGTERM or SIGINT comes.
pub fn run(path: &Path, sets: &[String]) -> Result<()> {
    let (config, _) = record::config::load::<Config>(path, sets)?;
    config.check().with_context(|| path.display().to_string())?;
    let folder = model::hub::model_folder(&config.model.path)
        .context("no model to serve (train first, or name its folder in model.path)")?;
    let chat = run::chat(&config.model, &folder)?;
    let (tokenizer, weights) = (Arc::new(chat.tokenizer.clone()), config.clone());
    let make = move || local::load(&folder, tokenizer, &weights.model, &weights.engine);
    let serving =
        Serving::start(&config, chat, make).with_context(|| path.display().to_string())?;
    println!("http://{}/v1 serves {}", serving.address, config.model.path);
    serving.runtime.block_on(serving.end())?;
    eprintln!(
        "no more requests are taken; those under way have {} s",
        config.server.stop_timeout_s
    );
    println!("{}", serving.stop(Duration::from_secs_f64(config.server.stop_timeout_s))?);
    Ok(())
}

impl Serving {
    /// Starts a server with the engine that `make` makes. It runs until it is stopped.
    ///
    /// # Errors
    /// An address that is taken or may not be, a model that cannot be loaded.
    pub fn start<M: Model + 'static>(
        config: &Config,
        chat: Chat,
        make: impl FnOnce() -> Result<Engine<M>> + Send + 'static,
    ) -> Result<Serving> {
        let (key, server) = (config.key()?, &config.server);
        let listener = TcpListener::bind(server.address)
            .with_context(|| format!("server.address {}", server.address))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let name = server.name.clone().unwrap_or_else(|| config.model.path.clone());
        let (keys, longest) = (&config.generation, config.model.max_model_len);
        let house = House::new(chat, keys, longest, &config.thinking, name, config.seed)?;
        let counters = Arc::new(Counters::default());
        let (desk, engine) = Desk::open(make, server.queue, Arc::clone(&counters))?;
        let (cut, is_cut) = watch::channel(false);
        let routes = Arc::new(Routes {
            tokenizer: Arc::new(house.chat.tokenizer.clone()),
            delimiters: Delimiters {
                start: house.plain.thinking_start.clone(),
                end: house.plain.thinking_end.clone(),
            },
            house,
            desk,
            counters: Arc::clone(&counters),
            key,
            read_timeout: Duration::from_secs_f64(server.read_timeout_s),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            requests: AtomicU64::new(0),
            cut: is_cut,
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(2)
            .thread_name("http")
            .enable_all()
            .build()?;
        let (stop, stopped) = watch::channel(false);
        let listener = {
            let _guard = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let accepting = runtime.spawn(accept(listener, routes, server.clone(), stopped));
        Ok(Serving { address, counters, runtime, stop, cut, accepting, engine })
    }

    /// Waits for a signal to stop, or for the engine's failure.
    async fn end(&self) -> Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut look = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = look.tick() => if self.engine.is_finished() { return Ok(()) },
            }
        }
    }

    /// Takes no more requests, waits `within` for those under way, tells the rest that they end
    /// here, and says what was done.
    ///
    /// # Errors
    /// What made the engine fail, if it has.
    pub fn stop(mut self, within: Duration) -> Result<String> {
        let _ = self.stop.send(true);
        let finished = async {
            if tokio::time::timeout(within, &mut self.accepting).await.is_err() {
                let _ = self.cut.send(true);
                let _ = tokio::time::timeout(LAST_WORD, &mut self.accepting).await;
            }
        };
        self.runtime.block_on(finished);
        // All tasks are dropped, and with them their requests and the desk.
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        self.engine.join().map_err(|_| anyhow!("the engine's thread has panicked"))?
    }
}

/// Takes connections until the server is to stop, then waits for those that are open.
async fn accept(
    listener: tokio::net::TcpListener,
    routes: Arc<Routes>,
    server: Server,
    stopped: watch::Receiver<bool>,
) {
    let mut open = JoinSet::new();
    let room = Arc::new(Semaphore::new(server.connections));
    let mut stop = stopped.clone();
    loop {
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (connection, permit) = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            next = next => next,
        };
        while open.try_join_next().is_some() {}
        let Ok((stream, _)) = connection else {
            // Out of file descriptors, most likely: some will become free.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (routes, server, stopped) = (Arc::clone(&routes), server.clone(), stopped.clone());
        open.spawn(async move {
            routes.counters.connections.add(1);
            let counters = Arc::clone(&routes.counters);
            converse(stream, routes, &server, stopped).await;
            counters.connections.sub(1);
            drop(permit);
        });
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// One connection, request after request.
async fn converse(
    stream: TcpStream,
    routes: Arc<Routes>,
    server: &Server,
    mut stopped: watch::Receiver<bool>,
) {
    // An event should leave when it is written.
    let _ = stream.set_nodelay(true);
    let socket = Socket::new(stream, Duration::from_secs_f64(server.write_timeout_s));
    let service = service_fn(move |request| Arc::clone(&routes).answer(request));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs_f64(server.read_timeout_s))
        .max_buf_size(MOST_HEAD);
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    // What goes wrong between client and server is the client's matter.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}
