//! Budget forcing over a server: real HTTP to a small one, the same tokens as from the engine.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use infer::budget::{MaxTokens, Outcome, Procedure, Spec, Thinking};
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
    let list = |name: &str| body[name].as_array().cloned().unwrap_or_default();
    let ids = |name: &str| list(name).iter().map(|id| id.as_i64().unwrap()).collect();
    let (mut ids, stop_ids): (Vec<i64>, Vec<i64>) = (ids("prompt"), ids("stop_token_ids"));
    let stops: Vec<String> = list("stop").iter().map(|s| s.as_str().unwrap().into()).collect();
    if let Some(text) = body["prompt"].as_str() {
        ids = tokenizer.encode_text(text).unwrap();
    }
    let (start, mut reason, mut told) = (ids.len(), "length", Value::Null);
    let mut text = String::new();
    while ids.len() - start < body["max_tokens"].as_u64().unwrap() as usize {
        let banned = ids.len() - start < body["min_tokens"].as_u64().unwrap_or(0) as usize;
        let mut logits = hashed(&ids);
        for (id, bias) in body["logit_bias"].as_object().into_iter().flatten() {
            logits[id.parse::<usize>().unwrap()] += bias.as_f64().unwrap() as f32;
        }
        let allowed = (0..VOCAB).filter(|&id| !(banned && stop_ids.contains(&(id as i64))));
        let id = allowed.max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as i64;
        ids.push(id);
        if stop_ids.contains(&id) {
            (reason, told) = ("stop", id.into());
            break;
        }
        text = tokenizer.decode(&ids[start..]).unwrap();
        if let Some(stop) = stops.iter().find(|stop| text.contains(*stop)) {
            text.truncate(text.find(stop.as_str()).unwrap());
            (reason, told) = ("stop", stop.as_str().into());
            break;
        }
    }
    let mut choice =
        json!({"index": 0, "finish_reason": reason, "text": text, "stop_reason": told});
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
    remote_of(url, folder, token_ids, endpoint::Settings::new(url, "m").concurrency)
}

/// That asks so many things at a time.
fn remote_of(url: &str, folder: &Path, token_ids: bool, concurrency: usize) -> Remote {
    let server = endpoint::Settings { concurrency, ..endpoint::Settings::new(url, "m") };
    let endpoint = Endpoint { cache: folder.join("replies.sqlite"), token_ids, server };
    Remote::open(&endpoint, tokenizer(VOCAB)).unwrap()
}

/// Requests of every kind.
fn requests() -> Vec<Request> {
    let mut random = record::seed::rng(8, &["remote"]);
    let mut below = |n: u64| random.below(n) as usize;
    (0..200)
        .map(|n| {
            let readme = below(8) == 0;
            let text = [vec![], vec!["h".to_string(), "kd".to_string()]][below(2)].clone();
            let thinking = Thinking {
                max_tokens: MaxTokens::Count(below(20)),
                min_tokens: below(4),
                until: vec![0, 1],
                until_texts: text,
                n_ignore: below(3),
                ignore: [vec![], vec![7, 8]][below(2)].clone(),
                thinking_end_max: vec![0, 5, 2, 6],
                newline: vec![2],
                ends_line: BTreeSet::from([2, 3]),
                procedure: if readme { Procedure::Readme } else { Procedure::Harness },
                tries: None,
            };
            let spec = Spec {
                thinking_start: vec![0, 4],
                thinking_end: vec![0, 5],
                thinking: (below(4) > 0).then_some(thinking),
                until: vec![1],
                min_gen_toks: below(3),
                max_gen_toks: 2 + below(12),
                max_model_len: [60, 20][below(2)],
            };
            let stops: [&[&str]; 3] = [&[], &["hi", "k"], &["hi", "ml", "dc", "nb"]];
            let stop = stops[below(3)].iter().map(|stop| stop.to_string()).collect();
            Request { stop, ..request(&spec, &[10, n % 7]) }
        })
        .collect()
}

#[track_caller]
fn check_equal(token_ids: bool) -> (Vec<Value>, Vec<Completion>) {
    let folder = tempfile::tempdir().unwrap();
    let (url, bodies) = serve(complete);
    let requests = requests();
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
    let stops = bodies.iter().filter(|body| stops(body).any(|stop| stop == "hi"));
    assert!(stops.count() > 20, "the server ends at the answer's stops");
    let refused = bodies.iter().filter(|body| body.get("logit_bias").is_some());
    assert!(refused.count() > 5, "texts that come too early, or again at the same place");
}

#[test]
fn by_text_too() {
    let (bodies, ours) = check_equal(false);
    assert!(bodies.iter().all(|body| body["prompt"].is_string()));
    // Servers that know the standard alone refuse what is not in it.
    let known = ["model", "prompt", "max_tokens", "temperature", "stop", "logit_bias"];
    let unknown = |name: &&String| !known.contains(&name.as_str());
    assert_eq!(bodies.iter().flat_map(|b| b.as_object().unwrap().keys()).find(unknown), None);
    assert!(ours.iter().any(|one| one.outcome.thinking_ending.is_some()));
    let counts: Vec<usize> = bodies.iter().map(|body| stops(body).count()).collect();
    assert_eq!(counts.iter().max(), Some(&4), "OpenAI's own server takes no more");
    assert!(bodies.iter().filter(|body| stops(body).any(|stop| stop == "hi")).count() > 50);
}

fn stops(body: &Value) -> impl Iterator<Item = &Value> {
    body.get("stop").and_then(Value::as_array).into_iter().flatten()
}

/// OpenAI's own server does not say which stop it was. Where that matters not for how it goes on,
/// the texts are the same.
#[test]
fn by_text_from_who_does_not_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let (url, _) = serve(|body| {
        let mut reply = complete(body);
        reply["choices"][0].as_object_mut().unwrap().remove("stop_reason");
        reply
    });
    let mut requests = requests();
    let is_ignored = |thinking: &Thinking| thinking.n_ignore > 0 && thinking.ignore.is_empty();
    requests.retain(|request| !request.spec.thinking.as_ref().is_some_and(is_ignored));
    assert!(requests.len() > 100);
    let expected = answers(&mut engine(hashed, VOCAB, ONE), &requests);
    let ours = answers(&mut remote(&url, folder.path(), false), &requests);
    for (n, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
        let said = |one: &Completion| {
            let Outcome { thinking_ending, ending, .. } = one.outcome;
            (one.text.clone(), thinking_ending, ending)
        };
        assert_eq!(said(ours), said(expected), "request {n}: {:?}", requests[n]);
    }
}

#[test]
fn sampling_is_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let (url, bodies) = serve(complete);
    let sampling =
        Sampling { temperature: 0.7, top_k: 5, top_p: 0.9, min_p: 0.01, repetition_penalty: 1.1 };
    let spec = Spec { thinking: None, ..(*requests()[0].spec).clone() };
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

/// One round of so many ids of thinking.
fn simple(max_tokens: usize) -> Spec {
    let mut spec = (*requests()[0].spec).clone();
    let thinking = spec.thinking.as_mut().unwrap();
    (thinking.max_tokens, thinking.min_tokens) = (MaxTokens::Count(max_tokens), 0);
    (thinking.n_ignore, thinking.until_texts) = (0, vec![]);
    thinking.procedure = Procedure::Harness;
    Spec { min_gen_toks: 0, max_model_len: 60, ..spec }
}

/// Of a round as short as the third one, thinking is accepted; every try is asked with its own seed.
#[test]
fn rejected_thinking_is_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let calls = AtomicUsize::new(0);
    let (url, bodies) = serve(move |_| {
        let (ids, reason) = match calls.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => (json!([9, 9, 9]), "length"),
            2 => (json!([9, 8, 0]), "stop"),
            _ => (json!([7, 1]), "stop"),
        };
        json!({"choices": [{"text": "", "finish_reason": reason, "token_ids": ids}]})
    });
    let mut spec = simple(3);
    spec.thinking.as_mut().unwrap().tries = Some(5);
    let sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };
    let asked = Request { sampling, seed: 9, stop: vec![], ..request(&spec, &[3]) };
    let outcome = answers(&mut remote(&url, folder.path(), true), &[asked]).remove(0).outcome;
    assert_eq!((&outcome.ids[..], outcome.tries), (&[0, 4, 9, 8, 0, 5, 7][..], 3));
    let bodies = bodies.lock().unwrap();
    assert_eq!(bodies.len(), 4);
    assert!(bodies[..3].iter().all(|body| body["prompt"] == json!([3, 0, 4])));
    let seeds: BTreeSet<u64> = bodies.iter().map(|body| body["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds.len(), 4);
}

/// A server that holds one request back until another one is in its last round.
#[test]
fn no_request_waits_for_another() {
    let folder = tempfile::tempdir().unwrap();
    let (rounds, changed) = (Mutex::new(0), Condvar::new());
    let (url, _) = serve(move |body| {
        let mut rounds = rounds.lock().unwrap();
        if body["prompt"][0] == 10 {
            *rounds += 1;
            changed.notify_all();
        } else {
            let patience = Duration::from_secs(20);
            let waited = changed.wait_timeout_while(rounds, patience, |rounds| *rounds < 3);
            assert!(!waited.unwrap().1.timed_out(), "the first request waits for the second");
        }
        let ids = if body["prompt"].as_array().unwrap().len() < 9 { [9, 0] } else { [9, 1] };
        json!({"choices": [{"text": "", "finish_reason": "stop", "token_ids": ids}]})
    });
    let mut spec = simple(9);
    let thinking = spec.thinking.as_mut().unwrap();
    (thinking.n_ignore, thinking.ignore) = (1, vec![7]);
    let two = [10, 11].map(|id| Request { stop: vec![], ..request(&spec, &[id, 3]) });
    let both = answers(&mut remote(&url, folder.path(), true), &two);
    assert_eq!(both[0].outcome.ids, [0, 4, 9, 7, 9, 0, 5, 9]);
    assert_eq!(both[1], both[0]);
}

/// One connection, three questions of two rounds: each is finished before the next begins.
#[test]
fn a_running_request_goes_before_those_that_have_not_begun() {
    let folder = tempfile::tempdir().unwrap();
    let (url, bodies) = serve(move |body| {
        let ids = if body["prompt"].as_array().unwrap().len() < 9 { [9, 0] } else { [9, 1] };
        json!({"choices": [{"text": "", "finish_reason": "stop", "token_ids": ids}]})
    });
    let mut spec = simple(9);
    let thinking = spec.thinking.as_mut().unwrap();
    (thinking.n_ignore, thinking.ignore) = (1, vec![7]);
    let asked = [10, 11, 12, 13].map(|id| request(&spec, &[id, 3]));
    let mut remote = remote_of(&url, folder.path(), true, 1);
    answers(&mut remote, &asked);
    let bodies = bodies.lock().unwrap();
    let order: Vec<i64> = bodies.iter().map(|b| b["prompt"][0].as_i64().unwrap()).collect();
    assert_eq!(order, [10, 10, 10, 11, 11, 11, 12, 12, 12, 13, 13, 13]);
}

#[track_caller]
fn check_error(answer: fn(&Value) -> Value, token_ids: bool, part: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (url, _) = serve(answer);
    let mut remote = remote(&url, folder.path(), token_ids);
    let error = remote.generate(&requests()[..1], &mut |_, _| Ok(())).unwrap_err();
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
