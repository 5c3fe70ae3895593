//! The cache: what is the same request, what is paid once, and what is noticed when it was altered.

use endpoint::{Client, Message, Request, Settings};
use rusqlite::Connection;
use serde_json::json;

use crate::server::{Act, Server, reply};
use crate::{cache, questions, run, settings};

/// A change of settings and request, and whether it makes another request of it.
type Change = (&'static str, bool, fn(&mut Settings, &mut Request));

const CHANGES: [Change; 22] = [
    ("nothing", false, |_, _| {}),
    ("model", true, |s, _| s.model = "other".into()),
    ("base_url", true, |s, _| s.base_url = s.base_url.replace("127.0.0.1", "localhost")),
    ("temperature", true, |_, r| r.temperature = 0.7),
    ("seed", true, |_, r| r.seed = Some(1)),
    ("another seed", true, |_, r| r.seed = Some(2)),
    ("max_tokens", true, |_, r| r.max_tokens = 65),
    ("text", true, |_, r| r.messages[0].content.push(' ')),
    ("role", true, |_, r| r.messages[0].role = endpoint::Role::System),
    ("system text", true, |_, r| r.messages.insert(0, Message::system("be brief"))),
    ("a further parameter", true, |_, r| drop(r.extra.insert("top_p".into(), 0.9.into()))),
    ("revision", true, |_, r| drop(r.extra.insert("revision".into(), "abc".into()))),
    ("a slash", false, |s, _| s.base_url.push('/')),
    ("id", false, |_, r| r.id = "another".into()),
    ("concurrency", false, |s, _| s.concurrency = 1),
    ("attempts", false, |s, _| s.attempts = 3),
    ("timeouts", false, |s, _| s.total_timeout_s = 60.0),
    ("limits", false, |s, _| s.requests_per_minute = Some(1e6)),
    ("prices", false, |s, _| s.price_in = 3.0),
    ("stream", false, |s, _| s.stream = false),
    ("null parameter", false, |_, r| drop(r.extra.insert("top_k".into(), json!(null)))),
    ("restated", false, |_, r| drop(r.extra.insert("max_tokens".into(), 64.into()))),
];

/// Whatever changes the reply asks again; whatever does not is answered by the cache.
#[test]
fn what_is_the_same_request() {
    let server = Server::start(|call| Act::json(reply(&call.question)));
    let changed = |change: Change| {
        let mut settings = settings(&server);
        let mut request = questions([1]).next().expect("a request");
        change.2(&mut settings, &mut request);
        (settings, request)
    };
    for first in CHANGES {
        let (_folder, cache) = cache();
        let (settings, request) = changed(first);
        run(settings, &cache, [request].into_iter()).expect("a run");
        for second in CHANGES {
            let (settings, request) = changed(second);
            let client = Client::open(settings, &cache).expect("a client");
            let estimate = client.estimate([request], 1).expect("an estimate");
            let same = first.0 == second.0 || !(first.1 || second.1);
            assert_eq!(estimate.cached, u64::from(same), "{}, then {}", first.0, second.0);
        }
    }
}

#[test]
fn the_order_of_parameters_is_no_difference() {
    let (server, (_folder, cache)) = (Server::good(), cache());
    for (extra, cached) in [
        (json!({"top_p": 0.9, "nested": {"a": [1, {"x": 1, "y": 2}], "b": 2}}), 0),
        (json!({"nested": {"b": 2, "a": [1, {"y": 2, "x": 1}]}, "top_p": 0.9}), 1),
        (json!({"nested": {"b": 2, "a": [{"y": 2, "x": 1}, 1]}, "top_p": 0.9}), 0),
    ] {
        let mut request = questions([1]).next().expect("a request");
        request.extra = extra.as_object().expect("an object").clone();
        let (totals, _) = run(settings(&server), &cache, [request].into_iter()).expect("a run");
        assert_eq!(totals.cached, cached, "{extra}");
    }
}

#[test]
fn equal_requests_are_paid_once() {
    let (server, (_folder, cache)) = (Server::good(), cache());
    let requests = (0..300).map(|number| {
        let question = format!("row-{}", number % 3);
        Request::new(format!("request-{number}"), vec![Message::user(question)], 64)
    });
    let (totals, outcomes) = run(settings(&server), &cache, requests).expect("a run");
    assert_eq!((totals.paid, totals.cached, server.calls()), (3, 297, 3));
    assert_eq!(outcomes.len(), 300);
    for (id, outcome) in outcomes {
        let number: usize = id[8..].parse().expect("request-N");
        let text = outcome.expect("a reply").text;
        assert_eq!(text, format!("answer to row-{}", number % 3));
    }
}

#[test]
fn equal_requests_fail_together() {
    let server = Server::start(|_| Act::Status(413, vec![], "too large".into()));
    let (_folder, cache) = cache();
    let requests = (0..30).map(|n| Request::new(format!("{n}"), vec![Message::user("x")], 64));
    let (totals, outcomes) = run(settings(&server), &cache, requests).expect("a run");
    assert_eq!((totals.failed.values().sum::<u64>(), outcomes.len()), (30, 30));
}

#[test]
fn altered_entries_are_asked_for_again() {
    const ROWS: usize = 1000;
    let (server, (_folder, cache)) = (Server::good(), cache());
    run(settings(&server), &cache, questions(0..ROWS)).expect("a run");
    let db = Connection::open(&cache).expect("a database");
    let altered = db
        .execute("UPDATE replies SET reply = replace(reply, 'answer to', 'Answer to')", [])
        .expect("an update");
    assert_eq!(altered, ROWS);
    let (totals, outcomes) = run(settings(&server), &cache, questions(0..ROWS)).expect("a run");
    assert_eq!((totals.damaged, totals.paid), (ROWS as u64, ROWS as u64));
    assert!(outcomes.iter().all(|(id, outcome)| {
        outcome.as_ref().is_ok_and(|reply| reply.text == format!("answer to {id}"))
    }));

    // Two entries that change places are noticed as well.
    db.execute_batch(
        "CREATE TABLE moved AS SELECT rowid AS place, key FROM replies;
         UPDATE replies SET key = randomblob(32);
         UPDATE replies SET key = (SELECT key FROM moved WHERE place = 1001 - replies.rowid)
             WHERE rowid <= 1000",
    )
    .expect("an update");
    let (totals, _) = run(settings(&server), &cache, questions(0..ROWS)).expect("a run");
    assert_eq!(totals.cached, 0, "{totals:?}");
}

#[test]
fn one_run_at_a_time() {
    let (server, (_folder, cache)) = (Server::good(), cache());
    let client = Client::open(settings(&server), &cache).expect("a client");
    let other = Client::open(settings(&server), &cache).expect("a second client");
    let mut refused = 0;
    client
        .run(questions(0..3), |_, _| {
            let error = other.run(questions(0..3), |_, _| Ok(())).expect_err("a refusal");
            assert!(error.to_string().contains("another run"), "{error:#}");
            refused += 1;
            Ok(())
        })
        .expect("a run");
    assert_eq!(refused, 3);
    let totals = other.run(questions(0..3), |_, _| Ok(())).expect("its turn");
    assert_eq!(totals.cached, 3);
}

#[test]
fn files_that_are_no_cache() {
    let (folder, cache) = cache();
    let server = Server::good();
    std::fs::write(&cache, "not a database at all, but long enough to be one".repeat(50))
        .expect("ok");
    let error = Client::open(settings(&server), &cache).expect_err("a refusal");
    assert!(format!("{error:#}").contains("replies.sqlite"), "{error:#}");
    let newer = folder.path().join("newer.sqlite");
    Connection::open(&newer).and_then(|db| db.pragma_update(None, "user_version", 9)).expect("ok");
    let error = Client::open(settings(&server), &newer).expect_err("a refusal");
    assert!(format!("{error:#}").contains("version 9"), "{error:#}");
}
