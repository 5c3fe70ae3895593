//! Prices, the limit, and what an estimate says.

use endpoint::{Client, Settings};
use serde_json::json;

use crate::server::{Act, Server, reply};
use crate::{cache, questions, run, settings};

/// A dollar a token in and ten out: a usual reply costs 57, and the worst that a call can cost is
/// 64 * 10 for its reply and 1 for each byte of its prompt and 64 more.
fn priced(server: &Server) -> Settings {
    Settings { price_in: 1e6, price_out: 1e7, ..settings(server) }
}
const REPLY: f64 = 57.0;

#[test]
fn the_limit_is_kept() {
    for (concurrency, max_cost) in [(1, 2000.0), (8, 2000.0), (8, 5000.0), (64, 20_000.0)] {
        let (server, (_folder, cache)) = (Server::good(), cache());
        let settings = Settings { concurrency, max_cost: Some(max_cost), ..priced(&server) };
        let mut handed = 0.0;
        let client = Client::open(settings.clone(), &cache).expect("a client");
        let error = client.run(questions(0..1000), |_, outcome| {
            handed += outcome?.cost;
            Ok(())
        });
        let error = format!("{:#}", error.expect_err("a stop"));
        assert!(error.contains("raise max_cost"), "{error}");
        let spent = server.calls() as f64 * REPLY;
        assert_eq!(handed, spent);
        assert!(spent <= max_cost && spent + 800.0 > max_cost, "{spent} of {max_cost}");
        drop(client);

        // The limit counts what earlier runs spent, and a higher one goes on from there.
        let error = run(settings.clone(), &cache, questions(0..1000)).expect_err("a stop");
        assert!(format!("{error:#}").contains("raise max_cost"));
        assert_eq!(server.calls() as f64 * REPLY, spent);
        let higher = Settings { max_cost: Some(1e6), ..settings };
        let (totals, _) = run(higher, &cache, questions(0..1000)).expect("a run");
        assert_eq!(totals.cached as f64 * REPLY, spent);
        assert_eq!(totals.cost, totals.paid as f64 * REPLY);
        assert_eq!(server.calls(), 1000);
    }
}

#[test]
fn a_broken_reply_is_counted() {
    let server = Server::start(|call| match call.number {
        1 => Act::Cut(reply(&call.question).to_string()),
        _ => Act::json(reply(&call.question)),
    });
    let (_folder, cache) = cache();
    let (totals, _) = run(priced(&server), &cache, questions(0..10)).expect("a run");
    assert!(totals.cost > 10.0 * REPLY, "{totals:?}");
    let client = Client::open(priced(&server), &cache).expect("a client");
    let estimate = client.estimate(questions(0..10), 5).expect("an estimate");
    assert!((estimate.spent - totals.cost).abs() < 1e-6, "{estimate:?} after {totals:?}");
}

#[test]
fn an_estimate_knows_the_cache() {
    let (server, (_folder, cache)) = (Server::good(), cache());
    run(priced(&server), &cache, questions(0..40)).expect("a run");
    let client = Client::open(priced(&server), &cache).expect("a client");
    let requests: Vec<_> = questions(20..60).chain(questions(50..60)).collect();
    let estimate = client.estimate(&requests, 100).expect("an estimate");
    // "row-50" is 6 bytes, 2 tokens, and a message is 4 more.
    let expected = json!({
        "requests": 50, "cached": 30, "prompt_tokens": 120, "completion_tokens": 2000,
        "cost": 20_120.0, "spent": 40.0 * REPLY,
    });
    assert_eq!(serde_json::to_value(estimate).expect("JSON"), expected);
    assert_eq!(server.calls(), 40, "an estimate sends nothing");
}
