//! Replies in the spellings of many servers, whole and in pieces.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::iter;

use endpoint::{Client, Reply, Usage};
use serde_json::{Value, json};

use crate::server::{Act, Server, reply};
use crate::{cache, questions, run, settings};

/// The reply to one request, when the server acts so.
#[track_caller]
fn ask(act: impl Fn() -> Act + Send + Sync + 'static) -> Reply {
    let (server, (_folder, cache)) = (Server::start(move |_| act()), cache());
    let (_, mut outcomes) = run(settings(&server), &cache, questions([1])).expect("a run");
    outcomes.pop().expect("an outcome").1.expect("a reply")
}

/// A message is read as this text, thinking and reason to end.
#[track_caller]
fn check(message: Value, finish: Value, expected: (&str, Option<&str>, &str)) {
    let body = json!({"choices": [{"message": message, "finish_reason": finish}]});
    let shown = body.to_string();
    let reply = ask(move || Act::json(body.clone()));
    let found = (reply.text.as_str(), reply.thinking.as_deref(), reply.finish_reason.as_str());
    assert_eq!(found, expected, "{shown}");
}

#[test]
fn spellings() {
    let content = |content: Value| json!({"role": "assistant", "content": content});
    let stop = || Value::from("stop");
    check(content("plain".into()), stop(), ("plain", None, "stop"));
    check(content(Value::Null), "content_filter".into(), ("", None, "content_filter"));
    check(json!({"content": "a", "reasoning_content": "t"}), stop(), ("a", Some("t"), "stop"));
    check(json!({"content": "a", "reasoning": "t"}), stop(), ("a", Some("t"), "stop"));
    check(json!({"content": "a", "reasoning": {"x": 1}}), stop(), ("a", None, "stop"));
    check(json!({"content": "a", "reasoning_content": ""}), Value::Null, ("a", None, ""));
    let tagged = "<think>\nfirst\nthen\n</think>\n\nThe answer.";
    check(content(tagged.into()), stop(), ("The answer.", Some("first\nthen"), "stop"));
    check(content("t\n</think>\n\na".into()), stop(), ("a", Some("t"), "stop"));
    check(content("<think>cut o".into()), "length".into(), ("", Some("cut o"), "length"));
    check(content("2 < 3, <think>".into()), stop(), ("2 < 3, <think>", None, "stop"));
    let both = json!({"content": "write </think> so", "reasoning_content": "t"});
    check(both, stop(), ("write </think> so", Some("t"), "stop"));
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    check(content(parts), stop(), ("ab", None, "stop"));
    let inner = json!([{"type": "text", "text": "t"}]);
    let parts = json!([{"type": "thinking", "thinking": inner}, {"type": "text", "text": "a"}]);
    check(content(parts), stop(), ("a", Some("t"), "stop"));
}

/// A stream of these deltas is read as this text and thinking.
#[track_caller]
fn check_stream(deltas: &[Value], ending: &str, expected: (&str, Option<&str>)) {
    let mut events = String::new();
    for delta in deltas {
        events += &format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta}]}));
    }
    events += ending;
    let shown = events.clone();
    let reply = ask(move || Act::Events(events.clone()));
    assert_eq!((reply.text.as_str(), reply.thinking.as_deref()), expected, "{shown}");
    assert_eq!(reply.finish_reason, "length", "{shown}");
    assert_eq!(reply.raw["choices"][0]["finish_reason"], "length", "{shown}");
}

#[test]
fn streams() {
    let finish = "data: {\"choices\": [{\"delta\": {}, \"finish_reason\": \"length\"}]}\n\n";
    let done = format!("{finish}data: [DONE]\n\n");
    let say = |text: &str| json!({"content": text});
    check_stream(&[say("a"), say(" b"), say("€")], &done, ("a b€", None));
    check_stream(&[json!({"role": "assistant", "content": null}), say("a")], &done, ("a", None));
    // No [DONE], not even an empty line after the last event; carriage returns; no space.
    check_stream(&[say("a")], finish, ("a", None));
    check_stream(&[say("a")], finish.trim_end(), ("a", None));
    // The connection breaks after the last of the text.
    let broken = |text: &str| {
        let start = "data: {\"choices\": [{\"delta\": {\"content\": \"a\"}}]}\n\n";
        let events = format!("{start}{text}");
        ask(move || Act::CutEvents(events.clone())).text
    };
    assert_eq!([broken(finish), broken(&done)], ["a", "a"]);
    check_stream(&[say("a")], &done.replace('\n', "\r\n").replace("data: ", "data:"), ("a", None));
    let noise = format!(": ping\n\nevent: message\nid: 7\n{done}");
    check_stream(&[say("a")], &noise, ("a", None));
    let think = |text: &str| json!({"reasoning_content": text, "content": null});
    check_stream(&[think("t1"), think("t2"), say("a")], &done, ("a", Some("t1t2")));
    check_stream(&[json!({"reasoning": "t"}), say("a")], &done, ("a", Some("t")));
    check_stream(&[say("<think>t"), say("</th"), say("ink>a")], &done, ("a", Some("t")));
    let part = json!({"content": [{"type": "thinking", "thinking": "t"}]});
    check_stream(&[part.clone(), say("a"), say("b")], &done, ("ab", Some("t")));
    check_stream(&[say(""), part, say("a")], &done, ("a", Some("t")));
}

#[track_caller]
fn check_usage(usage: Value, expected: (u64, u64, bool)) {
    let choices = json!([{"message": {"content": "four and 4"}, "finish_reason": "stop"}]);
    let body = json!({"choices": choices, "usage": usage});
    let Usage { prompt_tokens, completion_tokens, estimated } =
        ask(move || Act::json(body.clone())).usage;
    assert_eq!((prompt_tokens, completion_tokens, estimated), expected);
}

#[test]
fn tokens() {
    check_usage(json!({"prompt_tokens": 3, "completion_tokens": 4}), (3, 4, false));
    check_usage(json!({"input_tokens": 3, "output_tokens": 4}), (3, 4, false));
    // "row-1" has 5 bytes and "four and 4" has 10; a message costs 4 tokens beside its text.
    check_usage(Value::Null, (6, 3, true));
    check_usage(json!({"prompt_tokens": "3", "completion_tokens": -4}), (6, 3, true));
}

#[test]
fn what_is_sent() {
    let server = Server::start(|call| {
        assert!(call.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{}", call.head);
        assert!(!call.head.to_lowercase().contains("authorization"), "{}", call.head);
        Act::json(json!({"choices": [{"message": {"content": call.body.to_string()}}]}))
    });
    let plain = json!({
        "model": "m", "messages": [{"role": "user", "content": "row-1"}], "max_tokens": 64,
        "temperature": 0.05, "seed": 3, "top_p": 0.9,
    });
    let mut renamed = plain.clone();
    renamed["max_tokens"].take();
    renamed["max_completion_tokens"] = 9.into();
    let mut streamed = plain.clone();
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({"include_usage": true});
    for (stream, extra, mut expected) in [
        (false, json!({"top_p": 0.9}), plain),
        (false, json!({"top_p": 0.9, "max_tokens": null, "max_completion_tokens": 9}), renamed),
        (true, json!({"top_p": 0.9}), streamed),
    ] {
        let request = questions([1]).next().expect("a request");
        let extra = extra.as_object().expect("an object").clone();
        let request = endpoint::Request { temperature: 0.05, seed: Some(3), extra, ..request };
        let (_folder, cache) = cache();
        let settings = endpoint::Settings { stream, ..settings(&server) };
        let (_, outcomes) = run(settings, &cache, [request].into_iter()).expect("a run");
        let sent = &outcomes[0].1.as_ref().expect("a reply").text;
        let sent: Value = serde_json::from_str(sent).expect("JSON");
        expected.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        assert_eq!(sent, expected);
    }
}

/// A reply may bring the next question, be it the server's or the cache's, until none is left.
#[test]
fn follow_up_questions() {
    let server = Server::start(|call| Act::json(reply(&call.question)));
    let (_folder, cache) = cache();
    for calls in [40, 40] {
        let asks = RefCell::new(questions(0..10).collect::<VecDeque<_>>());
        let client = Client::open(settings(&server), &cache).expect("a client");
        let totals = client.run(iter::from_fn(|| asks.borrow_mut().pop_front()), |request, _| {
            let id: usize = request.id["row-".len()..].parse().expect("a number");
            asks.borrow_mut().extend(questions([id + 10].into_iter().filter(|id| *id < 40)));
            Ok(())
        });
        assert_eq!(totals.expect("a run").requests, 40);
        assert_eq!(server.calls(), calls);
    }
}
