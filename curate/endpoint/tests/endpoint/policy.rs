//! What each status leads to, what stops a run, and what is refused before anything is sent.

use std::time::{Duration, Instant};

use endpoint::{Cause, Client, KeySource, Settings};
use serde_json::json;

use crate::server::{Act, Server, reply};
use crate::{cache, questions, run, settings};

/// What 40 rows meet when every call gets this answer: an error that says so and the number of
/// calls until then, or a failure of this cause for each row.
enum End {
    Stops(&'static str),
    Fails(Cause),
}

#[track_caller]
fn check(status: u16, body: &'static str, end: End) {
    let server = Server::start(move |_| Act::Status(status, vec![], body.to_owned()));
    let (_folder, cache) = cache();
    match (run(settings(&server), &cache, questions(0..40)), end) {
        (Err(error), End::Stops(cure)) => {
            let error = format!("{error:#}");
            assert!(error.contains(cure) && error.contains(&server.url), "{status}: {error}");
            assert!(server.calls() <= 3, "{status}: {} calls before it stopped", server.calls());
        }
        (Ok((totals, outcomes)), End::Fails(cause)) => {
            assert_eq!(totals.failed.get(cause.name()), Some(&40), "{status}");
            assert!(outcomes.iter().all(|(_, outcome)| {
                outcome.as_ref().is_err_and(|failure| failure.cause == cause)
            }));
            assert_eq!(server.calls(), 40, "{status}: one call for each row");
        }
        (Err(error), _) => panic!("{status} stopped the run: {error:#}"),
        (Ok((totals, _)), _) => panic!("{status} did not stop the run: {totals:?}"),
    }
}

#[test]
fn statuses() {
    use End::{Fails, Stops};
    check(401, r#"{"error": {"message": "Incorrect API key provided"}}"#, Stops("check api_key"));
    check(403, "", Stops("check api_key"));
    check(402, "{}", Stops("no credit"));
    check(429, r#"{"error": {"code": "insufficient_quota"}}"#, Stops("no credit"));
    check(404, r#"{"detail": "Not Found"}"#, Stops("check base_url"));
    check(405, "", Stops("check base_url"));
    check(301, "", Stops("redirects"));
    check(307, "", Stops("redirects"));
    check(400, r#"{"error": {"message": "unknown parameter top_q"}}"#, Stops("unknown parameter"));
    check(422, r#"{"detail": [{"msg": "bad"}]}"#, Stops("the parameters sent"));
    check(400, r#"{"error": {"code": "context_length_exceeded"}}"#, Fails(Cause::TooLong));
    check(400, r#"{"message": "prompt is too long: 9 > 8"}"#, Fails(Cause::TooLong));
    check(413, "", Fails(Cause::TooLong));
    check(400, r#"{"error": {"code": "content_filter"}}"#, Fails(Cause::Filtered));
    check(403, r#"{"error": {"message": "Your input was flagged"}}"#, Fails(Cause::Filtered));
    // What a server says is quoted on one line, whatever it holds.
    check(401, r#"{"error": {"message": "a\u001b[31m\nb"}}"#, Stops("a [31m b"));
}

#[test]
fn a_server_that_only_fails_stops() {
    for status in [429, 500, 503] {
        let server = Server::start(move |_| Act::Status(status, vec![], "no".into()));
        let (_folder, cache) = cache();
        let settings = Settings { attempts: 2, ..settings(&server) };
        let error = run(settings, &cache, questions(0..1000)).expect_err("a stop");
        assert!(format!("{error:#}").contains("20 requests in a row"), "{error:#}");
        assert!(server.calls() <= 2 * (20 + 16), "{} calls", server.calls());
    }
}

#[test]
fn a_pause_asked_for_is_kept_by_all() {
    let server = Server::start(|call| match (call.question.as_str(), call.number) {
        ("row-0", 1) => Act::Status(429, vec![("retry-after", "0.6".into())], String::new()),
        _ => Act::json(reply(&call.question)),
    });
    let (_folder, cache) = cache();
    let begin = Instant::now();
    let (totals, _) = run(settings(&server), &cache, questions(0..200)).expect("a run");
    assert!(begin.elapsed() >= Duration::from_millis(600));
    assert_eq!((totals.paid, totals.calls), (200, 201));
}

#[test]
fn a_pause_of_a_day_stops() {
    let server =
        Server::start(|_| Act::Status(429, vec![("retry-after", "86400".into())], "".into()));
    let (_folder, cache) = cache();
    let error = run(settings(&server), &cache, questions(0..9)).expect_err("a stop");
    assert!(format!("{error:#}").contains("86400 s"), "{error:#}");
}

#[test]
fn nobody_there_stops() {
    let (_folder, cache) = cache();
    let mut settings = Settings::new("http://127.0.0.1:9/v1", "m");
    (settings.backoff_s, settings.attempts) = (0.001, 2);
    let error = run(settings, &cache, questions(0..1000)).expect_err("a stop");
    assert!(format!("{error:#}").contains("reachable"), "{error:#}");
}

#[test]
fn a_reply_that_drips_ends_with_the_time() {
    let server = Server::start(|_| Act::Drip(Duration::from_millis(20)));
    let (_folder, cache) = cache();
    let settings = Settings { attempts: 1, total_timeout_s: 0.3, ..settings(&server) };
    let begin = Instant::now();
    let (totals, outcomes) = run(settings, &cache, questions([1])).expect("a run");
    assert!(begin.elapsed() < Duration::from_secs(3), "of the 20 s that it would take");
    assert_eq!(totals.troubles.get("timeout"), Some(&1), "{totals:?}");
    assert!(outcomes[0].1.as_ref().is_err_and(|failure| failure.message.contains("timeout")));
}

#[test]
fn calls_run_side_by_side_up_to_the_limit() {
    let server = Server::start(|call| {
        std::thread::sleep(Duration::from_millis(20));
        Act::json(reply(&call.question))
    });
    let (_folder, cache) = cache();
    let settings = Settings { concurrency: 8, ..settings(&server) };
    run(settings, &cache, questions(0..80)).expect("a run");
    assert_eq!(server.most_open(), 8);
}

#[test]
fn calls_keep_to_the_minute() {
    let (server, (_folder, cache)) = (Server::good(), cache());
    let settings = Settings { requests_per_minute: Some(1200.0), ..settings(&server) };
    let begin = Instant::now();
    run(settings, &cache, questions(0..11)).expect("a run");
    assert!(begin.elapsed() >= Duration::from_millis(500), "10 pauses of 50 ms");
}

#[test]
fn a_caller_may_stop() {
    let (server, (_folder, cache)) = (Server::good(), cache());
    let client = Client::open(settings(&server), &cache).expect("a client");
    let mut seen = 0;
    let error = client.run(questions(0..1000), |_, _| {
        seen += 1;
        anyhow::ensure!(seen < 5, "enough");
        Ok(())
    });
    let error = format!("{:#}", error.expect_err("a stop"));
    assert!(error.contains("enough") && seen == 5, "{error}");
    // What was on its way is kept.
    let calls = server.calls();
    let (totals, _) = run(settings(&server), &cache, questions(0..1000)).expect("a run");
    assert_eq!((totals.cached, totals.paid), (calls, 1000 - calls));
}

#[track_caller]
fn refused(settings: serde_json::Value, words: &str) {
    let mut all = json!({"base_url": "http://localhost:8000/v1", "model": "m"});
    for (name, value) in settings.as_object().expect("an object") {
        all[name] = value.clone();
    }
    let settings: Result<Settings, _> = serde_json::from_value(all);
    let (folder, cache) = cache();
    let error = match settings {
        Err(error) => error.to_string(),
        Ok(settings) => format!("{:#}", Client::open(settings, &cache).expect_err(words)),
    };
    assert!(error.contains(words), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing written");
}

#[test]
fn settings_that_make_no_sense() {
    refused(json!({"base_url": "localhost:8000"}), "begin with http");
    refused(json!({"base_url": "https://user:secret@host/v1"}), "without user, password");
    refused(json!({"base_url": "https://host/v1?key=secret"}), "without user, password");
    refused(json!({"base_url": "http://h/v1/chat/completions/"}), "before /chat/completions");
    refused(json!({"model": ""}), "model is empty");
    refused(json!({"concurrency": 0}), "concurrency is 0");
    refused(json!({"attempts": 0}), "attempts is 0");
    refused(json!({"total_timeout_s": 0}), "total_timeout_s is 0");
    refused(json!({"requests_per_minute": -1}), "requests_per_minute is -1");
    refused(json!({"price_in": -1}), "price_in is -1");
    refused(json!({"max_cost": 3}), "max_cost needs prices");
    refused(json!({"temperature": 0}), "unknown field `temperature`");
    refused(json!({"api_key": "sk-secret"}), "unknown variant");
}

/// Whoever sends nothing needs no key and makes no file.
#[test]
fn a_key_is_read_by_the_first_call() {
    let (server, (folder, cache)) = (Server::good(), cache());
    let settings = settings(&server);
    let api_key = Some(KeySource::Env("S1_NOT_SET".into()));
    let without_key = Settings { api_key, ..settings.clone() };
    let client = Client::peek(without_key.clone(), &cache).expect("a client");
    assert_eq!(client.estimate(questions(0..3), 1).expect("an estimate").cached, 0);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing written");
    let error = client.check_key().expect_err("a refusal");
    assert!(error.to_string().contains("S1_NOT_SET is not set"), "{error:#}");

    run(settings, &cache, questions(0..3)).expect("a run");
    let client = Client::peek(without_key.clone(), &cache).expect("a client");
    assert_eq!(client.estimate(questions(0..4), 1).expect("an estimate").cached, 3);
    let (totals, _) = run(without_key.clone(), &cache, questions(0..3)).expect("a run");
    assert_eq!((totals.cached, server.calls()), (3, 3));
    let error = run(without_key, &cache, questions(0..4)).expect_err("a stop");
    assert!(format!("{error:#}").contains("S1_NOT_SET is not set"), "{error:#}");
    assert_eq!(server.calls(), 3);
}

#[test]
fn settings_as_people_write_them() {
    let settings: Settings = toml::from_str(
        "base_url = 'https://api.example.com/v1'
         model = 'teacher'
         api_key = { env = 'TEACHER_KEY' }
         concurrency = 200
         requests_per_minute = 500
         stream = false
         price_in = 1
         price_out = 4.5
         max_cost = 20",
    )
    .expect("a section of a config");
    let expected = Settings {
        api_key: Some(KeySource::Env("TEACHER_KEY".into())),
        concurrency: 200,
        requests_per_minute: Some(500.0),
        stream: false,
        price_in: 1.0,
        price_out: 4.5,
        max_cost: Some(20.0),
        ..Settings::new("https://api.example.com/v1", "teacher")
    };
    assert_eq!(settings, expected);
    let file: Settings =
        toml::from_str("base_url = 'http://h'\nmodel = 'm'\n[api_key]\nfile = 'key.txt'")
            .expect("ok");
    assert_eq!(file.api_key, Some(KeySource::File("key.txt".into())));
}

#[test]
fn requests_that_make_no_sense() {
    let (server, (_folder, cache)) = (Server::good(), cache());
    let client = Client::open(settings(&server), &cache).expect("a client");
    for (name, value) in [("model", json!("x")), ("stream", json!(true)), ("n", json!(2))] {
        let mut request = questions([1]).next().expect("a request");
        request.extra.insert(name.into(), value);
        let error = client.run([request], |_, _| Ok(())).expect_err(name);
        assert!(format!("{error:#}").contains(name), "{error:#}");
    }
    assert_eq!(server.calls(), 0);

    // What is on its way is awaited and kept.
    let mut requests: Vec<_> = questions(0..9).collect();
    requests[8].temperature = f64::NAN;
    let error = client.run(requests, |_, _| Ok(())).expect_err("a stop");
    assert!(format!("{error:#}").contains("request row-8: temperature is NaN"), "{error:#}");
    let estimate = client.estimate(questions(0..9), 1).expect("an estimate");
    assert_eq!((estimate.cached, server.calls()), (server.calls(), estimate.cached));
    assert!(estimate.cached > 0);
}

#[cfg(unix)]
#[test]
fn a_key_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, cache) = cache();
    let path = folder.path().join("key");
    let server = Server::start(|call| {
        assert!(call.head.to_lowercase().contains("authorization: bearer sk-in-file\r\n"));
        Act::json(reply(&call.question))
    });
    let api_key = Some(KeySource::File(path.clone()));
    let settings = Settings { api_key, ..settings(&server) };
    for (mode, text, words) in [
        (0o644, "sk-in-file", Some("chmod 600")),
        (0o640, "sk-in-file", Some("chmod 600")),
        (0o600, " \n", Some("is empty")),
        (0o600, "two words", Some("more than a key")),
        (0o600, "sk-in-file\n", None),
        (0o400, "sk-in-file\n", None),
    ] {
        drop(std::fs::remove_file(&path));
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("set");
        match (run(settings.clone(), &cache, questions([1])), words) {
            (Ok(_), None) => {}
            (Err(error), Some(words)) => assert!(format!("{error:#}").contains(words), "{error:#}"),
            (result, _) => panic!("mode {mode:o}, {text:?}: {result:?}"),
        }
    }
}
