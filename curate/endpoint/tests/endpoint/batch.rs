//! Batch files: written, answered as vendors do, and read back into the cache.

use std::fs;
use std::path::Path;

use endpoint::{Client, batch};
use serde_json::{Value, json};

use crate::server::{Server, reply};
use crate::{cache, questions, run, settings};

/// The result lines of a batch, in an order of the vendor's own: every tenth has failed.
fn results(files: &[impl AsRef<Path>]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for file in files {
        for line in fs::read_to_string(file).expect("a batch file").lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(
                (&line["method"], &line["url"]),
                (&json!("POST"), &json!("/v1/chat/completions"))
            );
            let (id, question) = (&line["custom_id"], &line["body"]["messages"][0]["content"]);
            let body = reply(question.as_str().expect("a question"));
            let (response, error) = match lines.len() % 10 {
                3 => (Value::Null, json!({"code": "batch_expired"})),
                4 => (json!({"status_code": 500, "body": {}}), Value::Null),
                5 => (json!({"status_code": 200, "body": {"choices": 1}}), Value::Null),
                _ => (json!({"status_code": 200, "body": body}), Value::Null),
            };
            let result = json!({"custom_id": id, "response": response, "error": error});
            lines.push(result.to_string());
        }
    }
    lines.reverse();
    lines.join("\n") + "\n"
}

#[test]
fn there_and_back() {
    let (server, (folder, cache)) = (Server::good(), cache());
    let priced = endpoint::Settings { price_in: 1e6, price_out: 1e7, ..settings(&server) };
    run(priced.clone(), &cache, questions(0..20)).expect("a run");
    let client = Client::open(priced.clone(), &cache).expect("a client");
    let asked = questions(0..120).chain(questions(100..120));
    let written = batch::write(&client, asked, &folder.path().join("batch")).expect("files");
    assert_eq!((written.requests, written.cached, written.files.len()), (140, 40, 1));

    let file = folder.path().join("results.jsonl");
    let text = results(&written.files);
    let strange =
        json!({"custom_id": "row-1", "response": {"status_code": 200, "body": reply("x")}});
    fs::write(&file, format!("{text}\n{strange}\n")).expect("written");
    let imported = batch::read(&client, &file).expect("read");
    let expected = json!({
        "lines": 101, "stored": 70, "known": 0, "strangers": 1, "cost": 70.0 * 57.0,
        "failed": {"batch_expired": 10, "status 500": 10, "unusable reply": 10},
    });
    assert_eq!(serde_json::to_value(imported).expect("JSON"), expected);
    let again = batch::read(&client, &file).expect("read again");
    assert_eq!((again.stored, again.known, again.cost), (0, 70, 0.0));

    // A run finds what came back and calls for the rest.
    let (totals, outcomes) = run(priced, &cache, questions(0..120)).expect("a run");
    assert_eq!((totals.cached, totals.paid), (90, 30));
    for (id, outcome) in outcomes {
        assert_eq!(outcome.expect("a reply").text, format!("answer to {id}"));
    }
}

/// The answer to an older prompt under the same id is not taken for the newer one's.
#[test]
fn older_results() {
    let (server, (folder, cache)) = (Server::good(), cache());
    let client = Client::open(settings(&server), &cache).expect("a client");
    let older = batch::write(&client, questions([1]), &folder.path().join("older")).expect("files");
    let mut newer: Vec<_> = questions([1]).collect();
    newer[0].messages[0].content = "a better prompt".into();
    batch::write(&client, newer.clone(), &folder.path().join("newer")).expect("files");
    let file = folder.path().join("results.jsonl");
    fs::write(&file, results(&older.files)).expect("written");
    assert_eq!(batch::read(&client, &file).expect("read").stored, 1);
    assert_eq!(client.estimate(&newer, 1).expect("an estimate").cached, 0);
    assert_eq!(client.estimate(questions([1]), 1).expect("an estimate").cached, 1);
}

#[test]
fn what_is_refused() {
    let (server, (folder, cache)) = (Server::good(), cache());
    let client = Client::open(settings(&server), &cache).expect("a client");
    let write = |ids: [&str; 2]| {
        let requests = ids.into_iter().zip(questions(0..2));
        let requests = requests.map(|(id, request)| endpoint::Request { id: id.into(), ..request });
        batch::write(&client, requests, folder.path()).expect_err("a refusal").to_string()
    };
    assert!(write(["same", "same"]).contains("stands once"));
    assert!(write(["ok", "not so good"]).contains("letters, digits"));
    assert!(write(["ok", ""]).contains("1 to 40"));
    let file = folder.path().join("cut.jsonl");
    fs::write(&file, "{}\n{\"custom_id\": \"x\"").expect("written");
    let error = batch::read(&client, &file).expect_err("a refusal");
    assert!(format!("{error:#}").contains("cut.jsonl:2"), "{error:#}");
}
