//! Many rows against a server that fails in every way, in a planned order: none lost, none twice.

use std::time::{Duration, Instant};

use endpoint::Cause;
use serde_json::json;

use crate::server::{Act, Call, Server, events, reply};
use crate::{cache, questions, run, settings};

/// Rows of the default test; `S1_FULL=1` (the recipe `just faults`) makes it 10,000.
pub fn rows() -> usize {
    if std::env::var_os("S1_FULL").is_some() { 10_000 } else { 1_000 }
}

const STALL: Duration = Duration::from_secs(2);

/// What the plan has for a row's call: a fault, or none for a good reply.
fn fault(row: usize, call: u32) -> Option<Act> {
    let status = |status, body: &str| Act::Status(status, vec![], body.to_owned());
    let with = |status, name, value: &str| {
        Act::Status(status, vec![(name, value.to_owned())], "{\"error\": \"slow down\"}".into())
    };
    let question = format!("row-{row}");
    let whole = reply(&question).to_string();
    if row % 100 == 31 {
        let message = "This model's maximum context length is 64 tokens";
        return Some(status(400, &json!({"error": {"message": message}}).to_string()));
    }
    if row % 500 == 32 {
        return Some(status(500, "{}"));
    }
    if row % 40 == 33 && call <= 3 {
        let three = [status(502, "<html>"), Act::Cut(whole), Act::Reset];
        return three.into_iter().nth(call as usize - 1);
    }
    if call > 1 {
        return None;
    }
    let date = ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT");
    Some(match row % 50 {
        0 => status(429, "{\"error\": {\"message\": \"rate limit\"}}"),
        1 => with(429, "retry-after", "0.02"),
        2 => with(429, date.0, date.1),
        3 => with(429, "retry-after-ms", "15"),
        4 => status(500, "oops"),
        5 => with(503, "retry-after", "0"),
        6 => status(529, "{\"type\": \"overloaded_error\"}"),
        7 => status(408, ""),
        8 => Act::Reset,
        9 => Act::Cut(String::new()),
        10 => Act::Cut(whole),
        11 => status(200, &whole[..whole.len() / 2]),
        12 => status(200, ""),
        13 => status(200, "[]"),
        14 => status(200, "{\"choices\": []}"),
        15 => status(200, "{\"choices\": \"none\"}"),
        16 => Act::json(json!({"choices": [{"message": {"content": 42}}]})),
        17 => Act::json(json!({"error": {"message": "overloaded", "code": 503}})),
        18 => Act::Events(events(&question).split("\"stop\"").next()?.to_owned()),
        24 => Act::CutEvents(events(&question).split("\"stop\"").next()?.to_owned()),
        19 => Act::Events("data: {\"choices\": [{\"delta\": {\"cont\n\n".into()),
        20 => Act::Events("data: {\"error\": {\"message\": \"engine died\"}}\n\n".into()),
        21 => Act::Events(String::new()),
        22 if row % 1000 == 22 => Act::Stall(STALL),
        _ => return None,
    })
}

fn act(call: &Call) -> Act {
    let row: usize = call.question[4..].parse().expect("row-N");
    fault(row, call.number).unwrap_or_else(|| {
        if row.is_multiple_of(2) {
            Act::Events(events(&call.question))
        } else {
            Act::json(reply(&call.question))
        }
    })
}

#[test]
fn every_row_ends_exactly_once() {
    let (server, (_folder, cache)) = (Server::start(act), cache());
    let settings = endpoint::Settings {
        concurrency: 64,
        attempts: 5,
        give_up_after: u32::MAX,
        first_byte_timeout_s: STALL.as_secs_f64() / 2.0,
        ..settings(&server)
    };
    let begin = Instant::now();
    let (totals, outcomes) = run(settings.clone(), &cache, questions(0..rows())).expect("a run");
    let seconds = begin.elapsed().as_secs_f64();

    let mut ids: Vec<_> = outcomes.iter().map(|(id, _)| id.as_str()).collect();
    ids.dedup();
    assert_eq!(ids.len(), rows(), "each row once");
    let mut planned = 0;
    for (id, outcome) in &outcomes {
        let row: usize = id[4..].parse().expect("row-N");
        let faults = (1..=5).take_while(|call| fault(row, *call).is_some()).count() as u64;
        match outcome {
            Ok(reply) => assert_eq!(reply.text, format!("answer to {id}")),
            Err(failure) if failure.cause == Cause::TooLong => assert_eq!(row % 100, 31, "{id}"),
            Err(failure) => assert_eq!((row % 500, failure.attempts), (32, 5), "{id}: {failure}"),
        }
        planned += match outcome {
            Ok(_) => faults + 1,
            Err(failure) => u64::from(failure.attempts),
        };
    }
    let replies = outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).count() as u64;
    assert_eq!((totals.paid, totals.cached), (replies, 0));
    assert_eq!(totals.requests, rows() as u64);
    let calls = server.calls();
    // A reply that a busy machine delays is a stall to the client: a few calls more.
    assert!(calls <= planned + planned / 20, "{calls} calls where {planned} were needed");
    let paid: u64 = server.counts().values().map(|count| u64::from(count.good)).sum();
    assert!(paid - replies <= calls - planned, "{paid} replies paid, {replies} handed over");
    println!(
        "{} rows: {replies} replies, {} failed as planned, 0 lost, 0 twice, {} paid twice; {calls} \
         calls where {planned} were needed; {seconds:.1} s\n{totals:?}",
        rows(),
        rows() as u64 - replies,
        paid - replies
    );

    // Again: nothing that was paid is asked for, and all replies are the same.
    let begin = Instant::now();
    let (again, same) = run(settings, &cache, questions(0..rows())).expect("a second run");
    assert_eq!((again.paid, again.cached), (0, replies));
    println!("again, from the cache: {:.1} s", begin.elapsed().as_secs_f64());
    for ((id, first), (_, second)) in outcomes.iter().zip(&same) {
        if let (Ok(first), Ok(second)) = (first, second) {
            assert_eq!((&first.text, &first.raw), (&second.text, &second.raw), "{id}");
            assert!(second.from_cache && !first.from_cache);
        }
    }
}
