//! What HTTP costs: the same requests through the engine and through a server, in turns.
//!
//! `serve_overhead CONFIG MODEL [ROUNDS] [TOKENS]` with a config as for `infer serve`: 16 clients,
//! one request after another each, against one call of the engine with all of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use infer::engine::{Generate, local};
use infer::serve::asked::House;
use infer::serve::{Config, Serving};
use model::chat::Chat;
use serde_json::{Value, json};

/// Clients at once.
const CLIENTS: usize = 16;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let usage = "serve_overhead CONFIG MODEL [ROUNDS] [TOKENS]";
    let (path, model) = arguments.get(1).zip(arguments.get(2)).context(usage)?;
    let number = |n: usize, default| arguments.get(n).map_or(Ok(default), |text| text.parse());
    let (rounds, tokens) = (number(3, 3)?, number(4, 64)?);
    let model = format!("model.path={model:?}");
    let sets = ["server.address=\"127.0.0.1:0\"".into(), "server.name=\"s1\"".into(), model];
    let (config, _) = record::config::load::<Config>(Path::new(path), &sets)?;
    let folder = model::hub::model_folder(&config.model.path)?;
    let bodies: Vec<String> = (0..2 * CLIENTS).map(|n| body(n, tokens).to_string()).collect();

    let chat = Chat::read(&folder)?;
    let (keys, longest) = (&config.generation, config.model.max_model_len);
    let house = House::new(chat.clone(), keys, longest, &config.thinking, "s1".into(), 1)?;
    let ask =
        |body: &String| house.ask(body.as_bytes(), true).map(|asked| asked.requests[0].clone());
    let requests: Vec<_> = bodies
        .iter()
        .map(ask)
        .collect::<Result<_, _>>()
        .map_err(|refusal| anyhow::anyhow!(refusal.message))?;
    let tokenizer = Arc::new(chat.tokenizer.clone());
    let mut engine = local::load(&folder, Arc::clone(&tokenizer), &config.model, &config.engine)?;
    let own = config.clone();
    let make = move || local::load(&folder, tokenizer, &own.model, &own.engine);
    let serving = Serving::start(&config, chat, make)?;

    let mut seconds = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        let begun = Instant::now();
        let mut written = 0;
        engine.generate(&requests, &mut |_, completion| {
            written += completion.outcome.ids.len();
            Ok(())
        })?;
        let direct = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let over_http = clients(serving.address, &bodies)?;
        let served = begun.elapsed().as_secs_f64();
        ensure!(written == over_http, "{written} tokens by the engine, {over_http} over HTTP");
        if round > 0 {
            seconds[0].push(direct);
            seconds[1].push(served);
            println!("{written} tokens: engine {direct:.2} s, server {served:.2} s");
        }
    }
    let [direct, served] = seconds.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    });
    println!("{CLIENTS} clients: the server takes {:.3} of the engine's time", served / direct);
    serving.stop(Duration::from_secs(1))?;
    Ok(())
}

/// Half of the requests stream.
fn body(n: usize, tokens: usize) -> Value {
    json!({
        "messages": [{"role": "user", "content": format!("Tell me about the number {n}.")}],
        "max_tokens": tokens, "temperature": 0, "ignore_eos": true, "stream": n.is_multiple_of(2),
        "stream_options": if n.is_multiple_of(2) { json!({"include_usage": true}) } else { Value::Null },
    })
}

/// Asks all, and returns the tokens that came.
fn clients(address: SocketAddr, bodies: &[String]) -> Result<usize> {
    let (next, tokens) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let ask = || -> Result<()> {
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::SeqCst)) {
                let mut stream = TcpStream::connect(address)?;
                let head = "host: a\r\ncontent-type: application/json\r\nconnection: close";
                let path = "POST /v1/chat/completions HTTP/1.1";
                write!(stream, "{path}\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
                let mut reply = String::new();
                stream.read_to_string(&mut reply)?;
                let count = reply.rsplit("\"completion_tokens\":").next().unwrap_or_default();
                let digits = count.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
                tokens.fetch_add(digits.parse().context(reply)?, Ordering::SeqCst);
            }
            Ok(())
        };
        let threads: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    Ok(tokens.into_inner())
}
