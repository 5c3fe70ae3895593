//! `infer serve` over real HTTP: the engine's own tokens, OpenAI's shapes, forced thinking, no bad
//! request that is answered with anything but 4xx.

mod support;

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use infer::config::{self, Budget, Endpoint};
use infer::engine::{Completion, Request};
use infer::remote::Remote;
use infer::serve::asked::House;
use infer::serve::{Config, Serving};
use model::Tokenizer;
use model::chat::Chat;
use serde_json::{Value, json};
use support::client::{bytes, chat, config, connect, get, local_engine, post, raw, start};
use support::{answers, write_checkpoint};

/// A server over the tiny checkpoint.
struct Tiny {
    config: Config,
    tokenizer: Arc<Tokenizer>,
    serving: Serving,
    _folder: tempfile::TempDir,
}

impl Tiny {
    fn new(server: &str) -> Tiny {
        let folder = tempfile::tempdir().unwrap();
        write_checkpoint(folder.path());
        let config = config(folder.path(), server);
        let tokenizer = Arc::new(Tokenizer::read(folder.path()).unwrap());
        let serving = start(&config);
        Tiny { config, tokenizer, serving, _folder: folder }
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        let response = post(self.serving.address, path, body);
        assert_eq!(response.status, 200, "{body}: {}", response.body);
        response.json()
    }

    /// What the engine writes for such a body, without HTTP.
    fn engine(&self, path: &str, body: &Value) -> (Vec<Request>, Vec<Completion>) {
        let chat = Chat::read(Path::new(&self.config.model.path)).unwrap();
        let Config { generation, thinking, seed, .. } = &self.config;
        let house = House::new(chat, generation, 250, thinking, "tiny".into(), *seed).unwrap();
        let asked = house.ask(body.to_string().as_bytes(), path.contains("chat")).unwrap();
        let completions = answers(&mut local_engine(&self.config), &asked.requests);
        (asked.requests, completions)
    }
}

/// The body with these fields too.
fn with(body: &Value, more: Value) -> Value {
    let mut body = body.clone();
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// Bodies of every kind.
fn bodies() -> Vec<(&'static str, Value)> {
    let (texts, chats) = ("/v1/completions", "/v1/chat/completions");
    let text = json!({"prompt": "Once upon", "max_tokens": 9, "temperature": 0});
    let drawn = json!({"temperature": 1.3, "seed": 5, "top_p": 0.9, "top_k": 40, "min_p": 0.01});
    let talk = chat("What is 2+2?");
    let thinks = with(&talk, json!({"max_thinking_tokens": 15}));
    let long = json!({"messages": [
        {"role": "system", "content": "Be <|im_end|> short."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "Hi\n"},
        {"role": "user", "content": "And now?"},
    ]});
    vec![
        (texts, text.clone()),
        (texts, json!({"prompt": [[5, 6, 7], [8, 9]], "n": 2, "seed": 1, "temperature": 1})),
        (texts, json!({"prompt": ["ab", "c"], "max_completion_tokens": null, "top_k": -1})),
        (texts, with(&text, drawn.clone())),
        (texts, with(&text, json!({"ignore_eos": true, "min_tokens": 5, "stop_token_ids": [3]}))),
        (texts, with(&text, json!({"repetition_penalty": 1.2, "logprobs": 0}))),
        (texts, with(&text, json!({"max_thinking_tokens": 9, "num_ignore": 1, "n": 2}))),
        (chats, talk.clone()),
        (chats, with(&talk, json!({"n": 3, "temperature": 1.5, "seed": 4}))),
        (chats, with(&talk, drawn)),
        (chats, thinks.clone()),
        (chats, with(&thinks, json!({"num_ignore": 2, "ignore_str": "Hmm"}))),
        (chats, with(&thinks, json!({"min_thinking_tokens": 7, "stop": ["a", "e"]}))),
        (chats, with(&thinks, json!({"max_thinking_tokens": 0, "user": "me", "tools": []}))),
        (chats, with(&talk, json!({"num_ignore": 1, "logprobs": true, "top_logprobs": 2}))),
        (chats, with(&thinks, long)),
    ]
}

#[test]
fn over_http_come_the_engines_own_tokens() {
    let tiny = Tiny::new("");
    for (path, body) in bodies() {
        let body = with(&body, json!({"return_token_ids": true, "model": "tiny"}));
        let (requests, expected) = tiny.engine(path, &body);
        let reply = tiny.post(path, &body);
        let choices = reply["choices"].as_array().unwrap();
        assert_eq!(choices.len(), expected.len(), "{body}");
        let mut usage = [0; 3];
        for (n, (choice, expected)) in choices.iter().zip(&expected).enumerate() {
            let outcome = &expected.outcome;
            assert_eq!(choice["index"], n);
            assert_eq!(choice["token_ids"], json!(outcome.ids), "{body}");
            usage[0] += outcome.ids.len();
            // Nothing is thinking where none was forced and no delimiter was written.
            let forced = outcome.thinking_ending.is_some();
            usage[1] += if forced { outcome.thinking.len() } else { 0 };
            usage[2] += outcome.forced.iter().map(|range| range.len()).sum::<usize>();
        }
        let prompts: usize = requests
            .iter()
            .map(|request| &request.prompt)
            .collect::<std::collections::BTreeSet<_>>()
            .iter()
            .map(|prompt| prompt.len())
            .sum();
        let details = json!({"reasoning_tokens": usage[1], "forced_tokens": usage[2]});
        assert_eq!(reply["usage"]["completion_tokens_details"], details);
        assert_eq!(reply["usage"]["completion_tokens"], usage[0]);
        assert_eq!(reply["usage"]["prompt_tokens"], prompts);
        check_stream(&tiny, path, &body, &reply);
    }
}

/// In pieces comes what comes in one.
#[track_caller]
fn check_stream(tiny: &Tiny, path: &str, body: &Value, whole: &Value) {
    let more = json!({"stream": true, "stream_options": {"include_usage": true}});
    let response = post(tiny.serving.address, path, &with(body, more));
    let (events, is_whole) = response.events();
    assert!(is_whole && response.head.contains("text/event-stream"), "{}", response.body);
    assert_eq!(events.last().unwrap()["usage"], whole["usage"]);
    for choice in whole["choices"].as_array().unwrap() {
        let (mut texts, mut ids, mut finish) = ([String::new(), String::new()], vec![], vec![]);
        let pieces = events.iter().flat_map(|event| event["choices"].as_array().unwrap());
        for piece in pieces.filter(|piece| piece["index"] == choice["index"]) {
            let delta = &piece["delta"];
            let content = piece["text"].as_str().or(delta["content"].as_str());
            texts[0] += content.unwrap_or_default();
            let thought = [piece, delta].map(|part| &part["reasoning_content"]);
            texts[1] += thought.iter().find_map(|text| text.as_str()).unwrap_or_default();
            ids.extend(piece["token_ids"].as_array().into_iter().flatten().cloned());
            finish.push(piece["finish_reason"].clone());
        }
        let message = &choice["message"];
        let text = choice["text"].as_str().or(message["content"].as_str()).unwrap();
        assert_eq!(texts[0], text, "{body}");
        let thought = [choice, message].map(|part| &part["reasoning_content"]);
        let thought = thought.iter().find_map(|text| text.as_str());
        assert_eq!(texts[1], thought.unwrap_or_default());
        assert_eq!(Value::from(ids), choice["token_ids"], "{body}");
        assert_eq!(finish.pop().unwrap(), choice["finish_reason"]);
        assert!(finish.iter().all(Value::is_null));
    }
}

#[test]
fn thinking_is_told_apart_and_its_limits_hold() {
    let tiny = Tiny::new("");
    let body = with(&chat("Why?"), json!({"max_thinking_tokens": 20, "num_ignore": 1}));
    let reply = tiny.post("/v1/chat/completions", &body);
    let message = &reply["choices"][0]["message"];
    let reasoning = message["reasoning_content"].as_str().unwrap();
    assert!(!reasoning.contains("<|im_start|>"), "{reply}");
    let content = message["content"].as_str().unwrap();
    assert!(content.starts_with("Final Answer:") || reasoning.contains("Wait"), "{reply}");
    let details = &reply["usage"]["completion_tokens_details"];
    assert!(details["reasoning_tokens"].as_u64().unwrap() <= 20, "{reply}");
    assert!(details["forced_tokens"].as_u64().unwrap() > 0);
    let none = tiny.post("/v1/chat/completions", &chat("Why?"));
    assert_eq!(none["choices"][0]["message"]["reasoning_content"], Value::Null);
    assert_eq!(none["usage"]["completion_tokens_details"]["forced_tokens"], 0);
}

/// A text's thinking comes apart from it too, not glued to the answer.
#[test]
fn the_thinking_of_texts_is_told_apart() {
    let tiny = Tiny::new("");
    let body = json!({"prompt": "Why?", "max_tokens": 9, "max_thinking_tokens": 12,
        "min_thinking_tokens": 12, "temperature": 0});
    let choice = &tiny.post("/v1/completions", &body)["choices"][0];
    assert!(choice["text"].as_str().unwrap().starts_with("Final Answer:"), "{choice}");
    let thought = choice["reasoning_content"].as_str().expect("thinking of 12 tokens");
    assert!(!thought.is_empty() && !thought.contains("Final Answer"), "{choice}");
    let plain = json!({"prompt": "Why?", "max_tokens": 9, "temperature": 0});
    let choice = &tiny.post("/v1/completions", &plain)["choices"][0];
    assert!(choice.get("reasoning_content").is_none(), "{choice}");
}

/// Thinking that fills the context would leave a reply without content.
#[test]
fn there_is_room_for_an_answer_behind_the_thinking() {
    let tiny = Tiny::new("");
    for path in ["/v1/chat/completions", "/v1/completions"] {
        let body = match path.contains("chat") {
            true => chat("Why?"),
            false => json!({"prompt": "Why?", "max_tokens": 12}),
        };
        let with = |more: Value| with(&body, more);
        // What was asked for is refused, with the number that would do.
        let asked = json!({"max_thinking_tokens": 240, "min_thinking_tokens": 240});
        let refused = post(tiny.serving.address, path, &with(asked));
        assert_eq!(refused.status, 400, "{}", refused.body);
        let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("`max_thinking_tokens` is 240"), "{message}");
        let room: usize =
            message.split(' ').filter_map(|word| word.parse().ok()).next_back().unwrap();
        let all = json!({"max_thinking_tokens": room, "min_thinking_tokens": room});
        let reply = tiny.post(path, &with(all));
        assert_eq!(reply["usage"]["completion_tokens_details"]["reasoning_tokens"], room);
        let choice = &reply["choices"][0];
        let content = choice["text"].as_str().or(choice["message"]["content"].as_str());
        assert!(content.unwrap().starts_with("Final Answer:"), "{reply}");
        // What nobody asked for is taken back.
        let reply = tiny.post(path, &with(json!({"num_ignore": 9, "max_tokens": 250})));
        let thought = &reply["usage"]["completion_tokens_details"]["reasoning_tokens"];
        assert!(thought.as_u64().unwrap() as usize <= room.saturating_sub(99), "{reply}");
        let least = json!({"min_thinking_tokens": 200, "max_tokens": 250});
        let refused = post(tiny.serving.address, path, &with(least));
        assert!(refused.body.contains("`min_thinking_tokens` is 200"), "{}", refused.body);
    }
}

#[test]
fn heads_are_given() {
    let tiny = Tiny::new("");
    let request = b"HEAD /health HTTP/1.1\r\nhost: tiny\r\nconnection: close\r\n\r\n";
    let response = raw(tiny.serving.address, request).unwrap();
    assert_eq!((response.status, response.body.as_str()), (200, ""));
    let body = json!({"prompt": "x", "max_tokens": -1});
    let said = post(tiny.serving.address, "/v1/completions", &body).body;
    assert!(said.contains("an integer of at least 0"), "{said}");
}

#[test]
fn a_stop_text_is_cut_off_or_kept_and_named() {
    let tiny = Tiny::new("");
    let text = |more: Value| {
        let body = json!({"prompt": "Once", "max_tokens": 20, "temperature": 0, "ignore_eos": true,
            "skip_special_tokens": false});
        tiny.post("/v1/completions", &with(&body, more))["choices"][0].clone()
    };
    let whole = text(json!({}))["text"].as_str().unwrap().to_owned();
    let (before, stop) = (&whole[..7], &whole[7..10]);
    assert!(!whole[..9].contains(stop), "the test's stop text comes once: {whole}");
    let cut = text(json!({"stop": ["never", stop]}));
    assert_eq!([&cut["text"], &cut["stop_reason"]], [before, stop]);
    assert_eq!(cut["finish_reason"], "stop");
    let kept = text(json!({"stop": stop, "include_stop_str_in_output": true}));
    assert_eq!([&kept["text"], &kept["stop_reason"]], [&whole[..10], stop]);
    assert_eq!(text(json!({}))["stop_reason"], Value::Null);
    // -100 forbids what it would have written.
    let first = tiny.tokenizer.encode_text(&whole[..1]).unwrap()[0];
    let biased = text(json!({"logit_bias": {(first.to_string()): -100}}));
    assert!(!biased["text"].as_str().unwrap().contains(&whole[..1]), "{biased}");
}

#[test]
fn a_prompts_scores_are_those_of_writing_it() {
    let tiny = Tiny::new("");
    let body = json!({"prompt": [1, 2], "max_tokens": 60, "logprobs": 1, "temperature": 0,
        "return_token_ids": true, "ignore_eos": true});
    let written = &tiny.post("/v1/completions", &body)["choices"][0];
    let ids: Vec<i64> = serde_json::from_value(written["token_ids"].clone()).unwrap();
    let prompt = [&[1, 2], &ids[..]].concat();
    for max_tokens in [0, 1] {
        let echo = json!({"prompt": prompt, "echo": true, "max_tokens": max_tokens});
        let body = with(&body, echo);
        let echoed = &tiny.post("/v1/completions", &body)["choices"][0];
        let of = |choice: &Value, name: &str, at: usize| choice["logprobs"][name][at].clone();
        assert_eq!(of(echoed, "token_logprobs", 0), Value::Null);
        for at in 0..60 {
            for name in ["tokens", "token_logprobs", "top_logprobs"] {
                assert_eq!(of(echoed, name, at + 2), of(written, name, at), "{name} {at}");
            }
        }
        let rows = echoed["logprobs"]["tokens"].as_array().unwrap().len();
        assert_eq!(rows, 62 + max_tokens);
        let text = tiny.tokenizer.decode(&prompt).unwrap();
        assert!(echoed["text"].as_str().unwrap().starts_with(&text));
    }
}

#[test]
fn our_own_clients_are_served() {
    let tiny = Tiny::new("");
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}/v1", tiny.serving.address);
    for stream in [false, true] {
        let cache = folder.path().join(format!("{stream}.sqlite"));
        let settings = endpoint::Settings { stream, ..endpoint::Settings::new(&url, "tiny") };
        let client = endpoint::Client::open(settings, &cache).unwrap();
        let request = |n: u64| {
            let message = endpoint::Message::user(format!("Question {n}"));
            let mut request = endpoint::Request::new(n.to_string(), vec![message], 12);
            request.extra.insert("max_thinking_tokens".into(), (5 + n).into());
            request
        };
        let mut count = 0;
        client
            .run((0..20).map(request), |_, outcome| {
                let reply = outcome.unwrap();
                assert!(reply.thinking.is_some() && !reply.usage.estimated, "{reply:?}");
                count += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(count, 20);
    }
    check_remote(&tiny, &url, folder.path());
}

/// Budget forcing from outside, round by round, gives what it gives inside.
fn check_remote(tiny: &Tiny, url: &str, folder: &Path) {
    let budget = |name: &str, most: Option<i64>, ignore: Option<usize>| Budget {
        name: name.into(),
        max_tokens_thinking: most.map(toml::Value::Integer),
        thinking_n_ignore: ignore,
        thinking_n_ignore_str: ignore.map(|_| "Wait".into()),
        ..Budget::default()
    };
    let budgets =
        [budget("a", None, None), budget("b", Some(9), None), budget("c", Some(30), Some(2))];
    let specs = config::specs(&tiny.config.generation, &budgets, 250, &tiny.tokenizer).unwrap();
    let requests: Vec<Request> = specs
        .iter()
        .enumerate()
        .map(|(n, spec)| {
            let prompt = tiny.tokenizer.encode_text("Count: 1 2 3").unwrap();
            Request { name: format!("request {n}"), ..support::request(spec, &prompt) }
        })
        .collect();
    let server = endpoint::Settings::new(url, "tiny");
    let endpoint = Endpoint { cache: folder.join("remote.sqlite"), token_ids: true, server };
    let mut remote = Remote::open(&endpoint, Arc::clone(&tiny.tokenizer)).unwrap();
    let expected = answers(&mut local_engine(&tiny.config), &requests);
    assert_eq!(answers(&mut remote, &requests), expected);
}

/// Path, body, and the status of the answer.
fn bad_requests() -> Vec<(&'static str, String, u16)> {
    let (texts, chats) = ("/v1/completions", "/v1/chat/completions");
    let (text, talk) = (json!({"prompt": "x"}), chat("x"));
    let text_with = |more: Value| (texts, with(&text, more).to_string(), 400);
    let chat_with = |more: Value| (chats, with(&talk, more).to_string(), 400);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let nested = json!({"extra_body": {"a": [{"chat_template": "{{ 1 }}"}]}});
    vec![
        (texts, "".into(), 400),
        (texts, "{".into(), 400),
        (texts, "[]".into(), 400),
        (texts, "null".into(), 400),
        (texts, deep, 400),
        (texts, "{\"prompt\": \"\\ud800\"}".into(), 400),
        (texts, "{}".into(), 400),
        (chats, "{}".into(), 400),
        ("/v1/nothing", "{}".into(), 404),
        ("/health", "{}".into(), 405),
        text_with(json!({"prompt": ""})),
        text_with(json!({"prompt": 3})),
        text_with(json!({"prompt": []})),
        text_with(json!({"prompt": [[]]})),
        text_with(json!({"prompt": [-1]})),
        text_with(json!({"prompt": [1e9]})),
        text_with(json!({"prompt": [1, "a"]})),
        text_with(json!({"prompt": "x".repeat(300)})),
        text_with(json!({"prompt": "x".repeat(100_000)})),
        text_with(json!({"max_tokens": 0})),
        text_with(json!({"max_tokens": -1})),
        text_with(json!({"max_tokens": 1.5})),
        text_with(json!({"max_tokens": "9"})),
        text_with(json!({"temperature": -1})),
        text_with(json!({"temperature": "hot"})),
        text_with(json!({"top_p": 0})),
        text_with(json!({"top_p": 1.1})),
        text_with(json!({"top_k": -2})),
        text_with(json!({"min_p": 2})),
        text_with(json!({"n": 0})),
        text_with(json!({"n": 129})),
        text_with(json!({"stop": ""})),
        text_with(json!({"stop": [1]})),
        text_with(json!({"stop_token_ids": [99999]})),
        text_with(json!({"logprobs": 21})),
        text_with(json!({"seed": "x"})),
        text_with(json!({"echo": 1})),
        text_with(json!({"stream_options": {"include_usage": true}})),
        text_with(json!({"chat_template": "{{ messages }}"})),
        text_with(nested.clone()),
        text_with(json!({"max_thinking_token": 9})),
        text_with(json!({"best_of": 3})),
        text_with(json!({"logit_bias": {"3": "much"}})),
        chat_with(nested),
        chat_with(json!({"chat_template_kwargs": {"enable_thinking": true}})),
        chat_with(json!({"messages": []})),
        chat_with(json!({"messages": "hi"})),
        chat_with(json!({"messages": [{"role": "tool", "content": "x"}]})),
        chat_with(json!({"messages": [{"role": "user"}]})),
        chat_with(json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})),
        chat_with(json!({"messages": [{"role": "assistant", "content": "x"}]})),
        chat_with(json!({"tools": [{"type": "function"}]})),
        chat_with(json!({"response_format": {"type": "json_object"}})),
        chat_with(json!({"max_thinking_tokens": -1})),
        chat_with(json!({"min_thinking_tokens": 9, "max_thinking_tokens": 5})),
        chat_with(json!({"min_thinking_tokens": 9, "num_ignore": 1})),
        chat_with(json!({"ignore_str": "Wait"})),
        (chats, with(&talk, json!({"model": "other"})).to_string(), 404),
    ]
}

#[test]
fn bad_requests_are_the_clients_fault() {
    let tiny = Tiny::new("");
    let address = tiny.serving.address;
    let rows = bad_requests();
    assert!(rows.len() > 50);
    for (path, body, status) in rows {
        let response = raw(address, &bytes(path, &body)).unwrap();
        let shown = &body[..body.len().min(200)];
        assert_eq!(response.status, status, "{shown}: {}", response.body);
        let error = &response.json()["error"];
        assert!(error["message"].is_string() && error["type"].is_string(), "{shown}: {error}");
    }
    assert_eq!(
        tiny.post("/v1/completions", &json!({"prompt": "x"}))["choices"][0]["index"],
        0,
        "it still answers"
    );
}

#[test]
fn what_is_no_request_is_the_clients_fault_too() {
    let tiny = Tiny::new("");
    let address = tiny.serving.address;
    for bytes in [
        &b"nonsense\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /v1/completions HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 4194305\r\n\r\n",
    ] {
        let status = raw(address, bytes).unwrap().status;
        assert!((400..500).contains(&status), "{status}: {}", String::from_utf8_lossy(bytes));
    }
    let head = format!("x-long: {}\r\n", "y".repeat(9000));
    assert_eq!(get(address, "/health", &head).status, 431);
    let body = " ".repeat((4 << 20) + 1);
    assert_eq!(raw(address, &bytes("/v1/completions", &body)).unwrap().status, 413);
}

#[test]
fn a_key_is_asked_for() {
    // Cargo sets it, and nobody changes it.
    let tiny = Tiny::new("api_key_env = \"CARGO_PKG_NAME\"");
    let address = tiny.serving.address;
    let status = |head: &str| get(address, "/v1/models", head).status;
    assert_eq!([status(""), status("authorization: Bearer infex\r\n")], [401, 401]);
    assert_eq!(
        [status("authorization: Bearer infe\r\n"), status("authorization: infer\r\n")],
        [401, 401]
    );
    assert_eq!(status("authorization: Bearer infer\r\n"), 200);
    assert_eq!(get(address, "/health", "").status, 200);
    assert_eq!(post(address, "/v1/completions", &json!({"prompt": "x"})).status, 401);
}

#[test]
fn a_client_that_says_nothing_is_dropped() {
    let tiny = Tiny::new("read_timeout_s = 0.3");
    let request = bytes("/v1/completions", "{\"prompt\": \"x\"}");
    for (sent, says) in [(0, None), (20, None), (request.len() - 3, Some("408"))] {
        let mut stream = connect(tiny.serving.address);
        stream.write_all(&request[..sent]).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        assert!(says.is_none_or(|says| reply.contains(says)), "{sent}: {reply}");
    }
}
