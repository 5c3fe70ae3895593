//! Budget forcing over a server: real HTTP to a small one, the same tokens as from the engine.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use infer::budget::{MaxTokens, Procedure, Spec, Thinking};
use infer::config::Endpoint;
use infer::engine::{Completion, Generate, Request, Sampling};
use infer::remote::Remote;
use serde_json::{Value, json};
use support::{ONE, answers, engine, request, tokenizer};

const VOCAB: usize = 14;

/// Logits by a hash of the ids before.
fn hashed(ids: &[i64]) -> Vec<f32> {
    let mut stream = record::seed::rng(0, &[&format!("{ids:?}")]);
    (0..VOCAB).map(|_| stream.uniform() as f32).collect()
}

/// What vLLM does with a greedy completion request: in ids, or without `token_ids` in text.
fn complete(body: &Value) -> Value {
    let tokenizer = tokenizer(VOCAB);
    let list = |name: &str| -> Vec<i64> {
        body[name].as_array().into_iter().flatten().map(|id| id.as_i64().unwrap()).collect()
    };
    let (mut ids, mut stops) = (list("prompt"), list("stop_token_ids"));
    if let Some(text) = body["prompt"].as_str() {
        ids = tokenizer.encode_text(text).unwrap();
        let names = body["stop"].as_array().unwrap().iter();
        stops = names.flat_map(|n| tokenizer.encode_text(n.as_str().unwrap()).unwrap()).collect();
    }
    let (start, mut reason) = (ids.len(), "length");
    while ids.len() - start < body["max_tokens"].as_u64().unwrap() as usize {
        let banned = ids.len() - start < body["min_tokens"].as_u64().unwrap_or(0) as usize;
        let logits = hashed(&ids);
        let allowed = (0..VOCAB).filter(|&id| !(banned && stops.contains(&(id as i64))));
        ids.push(allowed.max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as i64);
        if stops.contains(ids.last().unwrap()) {
            reason = "stop";
            break;
        }
    }
    let text = &ids[start..ids.len() - usize::from(reason == "stop")];
    let mut choice = json!({
        "index": 0, "finish_reason": reason, "text": tokenizer.decode(text).unwrap(),
    });
    if body["return_token_ids"] == true {
        choice["token_ids"] = ids[start..].into();
    }
    json!({
        "object": "text_completion", "model": "m", "choices": [choice],
        "usage": {"prompt_tokens": start, "completion_tokens": ids.len() - start},
    })
}

type Bodies = Arc<Mutex<Vec<Value>>>;

/// Serves `answer` until the test's process ends; the address, and the bodies that came.
fn serve(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> (String, Bodies) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let (bodies, answer) = (Bodies::default(), Arc::new(answer));
    let seen = bodies.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (bodies, answer) = (seen.clone(), answer.clone());
            thread::spawn(move || drop(talk(stream, &bodies, &*answer)));
        }
    });
    (url, bodies)
}

fn talk(
    stream: TcpStream,
    bodies: &Mutex<Vec<Value>>,
    answer: &dyn Fn(&Value) -> Value,
) -> std::io::Result<()> {
    let mut input = BufReader::new(stream.try_clone()?);
    let mut output = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if input.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        assert!(head.starts_with("POST /v1/completions HTTP"), "{head}");
        let length = head.to_lowercase();
        let length = length.split("content-length:").nth(1).expect("a length").trim_start();
        let length = length.split("\r\n").next().and_then(|n| n.trim().parse().ok()).unwrap();
        let mut body = vec![0; length];
        input.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body)?;
        let reply = answer(&body).to_string();
        bodies.lock().expect("no panic").push(body);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
        write!(output, "{head} {}\r\n\r\n{reply}", reply.len())?;
    }
}

fn remote(url: &str, folder: &Path, token_ids: bool) -> Remote {
    let server = endpoint::Settings::new(url, "m");
    let endpoint = Endpoint { cache: folder.join("replies.sqlite"), token_ids, server };
    Remote::open(&endpoint, tokenizer(VOCAB)).unwrap()
}

/// Requests of every kind; without the minimum that servers of text do not know, if need be.
fn requests(minimum: bool) -> Vec<Request> {
    let mut random = record::seed::rng(8, &["remote"]);
    let mut below = |n: u64| random.below(n) as usize;
    (0..60)
        .map(|n| {
            let thinking = Thinking {
                max_tokens: MaxTokens::Count(below(20)),
                min_tokens: if minimum { below(4) } else { 0 },
                until: vec![0, 1],
                until_texts: vec![],
                n_ignore: if minimum { below(3) } else { 0 },
                ignore: [vec![], vec![7, 8]][below(2)].clone(),
                thinking_end_max: vec![0, 5, 2, 6],
                newline: vec![2],
                ends_line: BTreeSet::from([2, 3]),
                procedure: Procedure::Harness,
                tries: None,
            };
            let spec = Spec {
                thinking_start: vec![0, 4],
                thinking_end: vec![0, 5],
                thinking: (below(4) > 0).then_some(thinking),
                until: vec![1],
                min_gen_toks: 0,
                max_gen_toks: 1 + below(12),
                max_model_len: [60, 20][below(2)],
            };
            let stop = [vec![], vec!["hi".to_string(), "k".to_string()]][below(2)].clone();
            Request { stop, ..request(&spec, &[10, n % 7]) }
        })
        .collect()
}

#[track_caller]
fn check_equal(token_ids: bool) -> (Vec<Value>, Vec<Completion>) {
    let folder = tempfile::tempdir().unwrap();
    let (url, bodies) = serve(complete);
    let requests = requests(token_ids);
    let expected = answers(&mut engine(hashed, VOCAB, ONE), &requests);
    let mut remote = remote(&url, folder.path(), token_ids);
    let ours = answers(&mut remote, &requests);
    for (n, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
        assert_eq!(ours, expected, "request {n}: {:?}", requests[n]);
    }
    let asked = bodies.lock().unwrap().len();
    assert_eq!(answers(&mut remote, &requests), expected);
    assert_eq!(bodies.lock().unwrap().len(), asked, "replies are kept: nothing is asked twice");
    let bodies = bodies.lock().unwrap().clone();
    (bodies, ours)
}

#[test]
fn by_ids_a_server_gives_what_the_engine_gives() {
    let (bodies, _) = check_equal(true);
    assert!(bodies.iter().all(|body| body["prompt"].is_array() && body["ignore_eos"] == true));
}

#[test]
fn by_text_too() {
    let (bodies, ours) = check_equal(false);
    assert!(bodies.iter().all(|body| body["prompt"].is_string()));
    // Servers that know the standard alone refuse what is not in it.
    let known = ["model", "prompt", "max_tokens", "temperature", "stop"];
    let unknown = |name: &&String| !known.contains(&name.as_str());
    assert_eq!(bodies.iter().flat_map(|b| b.as_object().unwrap().keys()).find(unknown), None);
    assert!(ours.iter().any(|one| one.outcome.thinking_ending.is_some()));
}

#[test]
fn sampling_is_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let (url, bodies) = serve(complete);
    let sampling =
        Sampling { temperature: 0.7, top_k: 5, top_p: 0.9, min_p: 0.01, repetition_penalty: 1.1 };
    let spec = Spec { thinking: None, ..(*requests(false)[0].spec).clone() };
    let one = Request { sampling, seed: 9, ..request(&spec, &[3]) };
    let two = Request { seed: 10, ..one.clone() };
    let _ = answers(&mut remote(&url, folder.path(), true), &[one, two]);
    let bodies = bodies.lock().unwrap();
    for (key, value) in [("temperature", 0.7), ("top_p", 0.9), ("min_p", 0.01)] {
        assert_eq!(bodies[0][key], value);
    }
    assert_eq!((&bodies[0]["top_k"], &bodies[0]["repetition_penalty"]), (&json!(5), &json!(1.1)));
    assert_ne!(bodies[0]["seed"], bodies[1]["seed"]);
}

#[track_caller]
fn check_error(answer: fn(&Value) -> Value, token_ids: bool, part: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (url, _) = serve(answer);
    let mut remote = remote(&url, folder.path(), token_ids);
    let error = remote.generate(&requests(false)[..1], &mut |_, _| Ok(())).unwrap_err();
    assert!(format!("{error:#}").contains(part), "{part:?} is not in: {error:#}");
}

#[test]
fn servers_that_cannot_are_told_apart() {
    let text = |_: &Value| json!({"choices": [{"text": "abc", "finish_reason": "length"}]});
    check_error(text, true, "set endpoint.token_ids to false");
    let other = |_: &Value| {
        json!({"choices": [{"text": "", "finish_reason": "length",
        "token_ids": [5000]}]})
    };
    check_error(other, true, "token 5000");
    let nothing = |_: &Value| json!({"choices": [{"text": "", "finish_reason": "length"}]});
    check_error(nothing, false, "wrote nothing");
}
