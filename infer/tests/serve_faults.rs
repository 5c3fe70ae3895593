//! A server whose clients go away, read slowly or send nonsense: every slot comes free, within two
//! steps of the engine, and memory stays flat. `just faults-serve` for the full figures.

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use infer::engine::blocks::Copy;
use infer::engine::{Engine, Model, Settings};
use infer::serve::Serving;
use model::chat::Chat;
use model::{Segment, Tokenizer};
use record::seed::Rng;
use serde_json::{Value, json};
use support::client::{bytes, chat, config, connect, get, post, raw, response, start};
use support::write_checkpoint;

/// A model that never ends an answer and takes its time for each pass.
struct Slow(Duration);

impl Model for Slow {
    fn pass(&mut self, segments: &[Segment], logits: &mut Vec<f32>) -> Result<()> {
        thread::sleep(self.0);
        for _ in 0..segments.iter().map(|segment| segment.logits).sum() {
            logits.extend((0..97).map(|id| if id == 40 { 1.0 } else { 0.0 }));
        }
        Ok(())
    }

    fn copy(&mut self, _: Copy) {}
}

/// A server over it, with room for two at once and one more that waits.
fn slow(pass: Duration, server: &str) -> (Serving, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path());
    let config = config(folder.path(), &format!("queue = 3\n{server}"));
    let chat = Chat::read(folder.path()).unwrap();
    let tokenizer = Arc::new(Tokenizer::read(folder.path()).unwrap());
    let settings = Settings { slots: 2, blocks: 16, block_len: 256, prefill_chunk: 64 };
    let make = move || Ok(Engine::new(Slow(pass), tokenizer, settings));
    (Serving::start(&config, chat, make).unwrap(), folder)
}

/// Waits until it is so; fails after 20 seconds.
#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A request for 200 tokens, in pieces or in one.
fn long(stream: bool) -> Vec<u8> {
    let body = json!({"prompt": "abc", "max_tokens": 200, "stream": stream});
    bytes("/v1/completions", &body.to_string())
}

#[test]
fn who_goes_away_is_forgotten_within_two_steps() {
    let (serving, _folder) = slow(Duration::from_millis(120), "");
    let counters = &serving.counters;
    for (n, stream) in [true, false, true].into_iter().enumerate() {
        let mut client = connect(serving.address);
        client.write_all(&long(stream)).unwrap();
        let before = counters.steps.get();
        until("it is written", || counters.steps.get() >= before + 2);
        drop(client);
        let gone_at = counters.steps.get();
        until("it is cancelled", || counters.cancelled.get() == n as u64 + 1);
        let steps = counters.steps.get() - gone_at;
        assert!(steps <= 2, "stream {stream}: {steps} steps for nobody");
        until("its slot is free", || counters.running.get() == 0);
    }
    serving.stop(Duration::ZERO).unwrap();
}

#[test]
fn too_many_are_sent_away_and_come_again() {
    let (serving, _folder) = slow(Duration::from_millis(20), "");
    let address = serving.address;
    let many = json!({"prompt": "a", "n": 4});
    assert_eq!(post(address, "/v1/completions", &many).status, 400, "never room for so many");
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let mut client = connect(address);
            client.write_all(&long(true)).unwrap();
            client
        })
        .collect();
    until("two run, one waits", || {
        (serving.counters.running.get(), serving.counters.waiting.get()) == (2, 1)
    });
    let refused = post(address, "/v1/completions", &json!({"prompt": "a"}));
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    drop(clients);
    until("there is room", || {
        post(address, "/v1/completions", &json!({"prompt": "a"})).status == 200
    });
    serving.stop(Duration::ZERO).unwrap();
}

#[test]
fn a_stop_lets_the_short_finish_and_cuts_the_long() {
    let (serving, _folder) = slow(Duration::from_millis(20), "");
    let address = serving.address;
    let ask = move |max_tokens: u64| {
        let body = json!({"prompt": "a", "max_tokens": max_tokens});
        thread::spawn(move || raw(address, &bytes("/v1/completions", &body.to_string())))
    };
    let (short, long) = (ask(20), ask(240));
    until("both run", || serving.counters.running.get() == 2);
    let begun = Instant::now();
    let summary = serving.stop(Duration::from_millis(1500)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(short.join().unwrap().unwrap().status, 200);
    let cut = long.join().unwrap().unwrap();
    assert_eq!((cut.status, &cut.json()["error"]["code"]), (503, &json!("server_stopped")));
    assert!(summary.contains("2"), "{summary}");
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}

/// Whoever reads a stream learns why it ends.
#[test]
fn a_stop_ends_streams_with_a_word() {
    let (serving, _folder) = slow(Duration::from_millis(20), "");
    let mut client = connect(serving.address);
    client.write_all(&long(true)).unwrap();
    until("it runs", || serving.counters.running.get() == 1);
    let reader = thread::spawn(move || response(client).expect("no broken chunk"));
    thread::sleep(Duration::from_millis(100));
    serving.stop(Duration::from_millis(200)).unwrap();
    let (events, is_whole) = reader.join().unwrap().events();
    let last = events.last().unwrap();
    assert!(events.len() > 1 && !is_whole, "{events:?}");
    assert_eq!(last["error"]["code"], "server_stopped", "{last}");
}

/// A model that fails.
struct Broken;

impl Model for Broken {
    fn pass(&mut self, _: &[Segment], _: &mut Vec<f32>) -> Result<()> {
        anyhow::bail!("the weights are gone")
    }

    fn copy(&mut self, _: Copy) {}
}

#[test]
fn a_model_that_fails_leaves_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path());
    let config = config(folder.path(), "");
    let chat_of = Chat::read(folder.path()).unwrap();
    let tokenizer = Arc::new(Tokenizer::read(folder.path()).unwrap());
    let settings = Settings { slots: 2, blocks: 16, block_len: 256, prefill_chunk: 64 };
    let make = move || Ok(Engine::new(Broken, tokenizer, settings));
    let serving = Serving::start(&config, chat_of, make).unwrap();
    let reply = post(serving.address, "/v1/chat/completions", &chat("x"));
    assert_eq!(reply.status, 500, "{}", reply.body);
    let error = serving.stop(Duration::ZERO).unwrap_err();
    assert!(format!("{error:#}").contains("the weights are gone"), "{error:#}");
}

/// Bytes that this process has in memory.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// One client's next request, which may be broken off; what came, if it was to be whole.
fn misbehave(address: SocketAddr, random: &mut Rng) -> Option<u16> {
    let mut below = |n: u64| random.below(n);
    let stream = below(2) == 0;
    let body = match below(8) {
        0 => json!({"prompt": "x".repeat(below(3000) as usize)}),
        1 => json!({"prompt": [1, 2, 3], "n": 1 + below(3), "temperature": 1}),
        2 => json!({"nonsense": 1}),
        3 => Value::Null,
        _ => {
            let mut body = chat(&"words ".repeat(below(12) as usize + 1));
            body["max_thinking_tokens"] = below(30).into();
            body["num_ignore"] = below(2).into();
            body["stream"] = stream.into();
            body
        }
    };
    let mut request = bytes(
        ["/v1/chat/completions", "/v1/completions"][usize::from(body["prompt"] != Value::Null)],
        &body.to_string(),
    );
    match below(40) {
        // A huge body, and none.
        0 => request = bytes("/v1/completions", &" ".repeat((4 << 20) + 1)),
        1 => request = b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n".to_vec(),
        _ => {}
    }
    match below(5) {
        // It goes away while it speaks, while it waits, or while it reads.
        0 => {
            let mut client = connect(address);
            let _ = client.write_all(&request[..below(request.len() as u64) as usize]);
            None
        }
        1 => {
            let mut client = connect(address);
            let _ = client.write_all(&request);
            thread::sleep(Duration::from_millis(below(30)));
            let _ = client.read(&mut vec![0; below(400) as usize]);
            None
        }
        2 => {
            let mut client = connect(address);
            let _ = client.write_all(&request);
            thread::sleep(Duration::from_millis(below(100)));
            response(client).ok().map(|response| response.status)
        }
        _ => raw(address, &request).ok().map(|response| response.status),
    }
}

#[test]
fn nothing_is_left_of_many_clients() {
    let full = std::env::var("S1_FULL").is_ok();
    let requests = if full { 10_000 } else { 400 };
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path());
    let serving = start(&config(folder.path(), "queue = 64"));
    let address = serving.address;
    let ask = || post(address, "/v1/chat/completions", &chat("the same"));
    let expected = ask().json()["choices"].clone();
    let (next, seen, quarter) = (AtomicUsize::new(0), Mutex::new([0; 600]), Mutex::new(None));
    thread::scope(|scope| {
        for client in 0..64 {
            let (next, seen, quarter) = (&next, &seen, &quarter);
            scope.spawn(move || {
                let mut random = record::seed::rng(7, &["client", &client.to_string()]);
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    if n >= requests {
                        return;
                    }
                    if n == requests / 4 {
                        *quarter.lock().unwrap() = resident();
                    }
                    if let Some(status) = misbehave(address, &mut random) {
                        seen.lock().unwrap()[usize::from(status)] += 1;
                    }
                }
            });
        }
    });
    let counters = &serving.counters;
    until("all slots are free", || {
        (counters.running.get(), counters.waiting.get(), counters.connections.get()) == (0, 0, 0)
    });
    assert_eq!(ask().json()["choices"], expected, "it answers as before");
    let seen = seen.into_inner().unwrap();
    let seen: Vec<_> = seen.iter().enumerate().filter(|(_, count)| **count > 0).collect();
    assert!(seen.iter().all(|(status, _)| *status < 500), "{seen:?}");
    assert!(seen[0].0 == 200 && *seen[0].1 > requests / 10, "{seen:?}");
    assert!(counters.cancelled.get() > 0);
    let (quarter, now) = (quarter.into_inner().unwrap(), resident());
    let grown = now.unwrap_or(0).saturating_sub(quarter.unwrap_or(0));
    println!(
        "{requests} requests of 64 clients: {seen:?}, {} cancelled; memory grew by {:.1} MB behind \
         the first quarter",
        counters.cancelled.get(),
        grown as f64 / 1e6
    );
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");
    assert!(get(address, "/metrics", "").body.contains("s1_requests_running 0"));
    serving.stop(Duration::from_secs(1)).unwrap();
}

/// A client that does not read holds nobody up, and is dropped.
#[test]
fn a_client_that_reads_nothing_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path());
    let serving = start(&config(folder.path(), "write_timeout_s = 0.5"));
    // Replies of megabytes to requests behind each other on one connection, none of them read.
    let body =
        json!({"prompt": "x", "n": 40, "max_tokens": 200, "ignore_eos": true, "logprobs": 20});
    let request = String::from_utf8(bytes("/v1/completions", &body.to_string())).unwrap();
    let request = request.replace("connection: close\r\n", "");
    let request = request.replace("connection: close", "accept: */*");
    let mut client = connect(serving.address);
    let counters = Arc::clone(&serving.counters);
    for _ in 0..8 {
        let _ = client.write_all(request.as_bytes());
    }
    until("another is answered meanwhile", || {
        post(serving.address, "/v1/chat/completions", &chat("x")).status == 200
    });
    until("the connection is dropped", || counters.connections.get() == 0);
    drop(client);
    serving.stop(Duration::from_secs(1)).unwrap();
}
