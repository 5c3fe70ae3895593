//! The client killed with `kill -9` at any moment, again and again: nothing lost, next to nothing
//! paid twice.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use endpoint::{Client, KeySource, Settings};

use crate::faults::rows;
use crate::server::{Act, Server, events, reply};
use crate::{cache, questions, run, settings};

const CONCURRENCY: usize = 16;

fn kills() -> u64 {
    if std::env::var_os("S1_FULL").is_some() { 100 } else { 10 }
}

/// This test program once more, as the client: it runs `child` below.
pub fn client(server: &Server, cache: &Path, rows: usize, key: Option<(&str, &str)>) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "kills::child", "--nocapture"]);
    command.env("S1_CHILD_URL", &server.url).env("S1_CHILD_CACHE", cache);
    command.env("S1_CHILD_ROWS", rows.to_string());
    if let Some((name, key)) = key {
        command.env("S1_CHILD_KEY", name).env(name, key);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a second process")
}

/// Not a test of its own: the client of the others, when they ask for it.
#[test]
fn child() {
    let Ok(url) = std::env::var("S1_CHILD_URL") else {
        return;
    };
    let variable = |name| std::env::var(name).expect("the parent sets it");
    let api_key = std::env::var("S1_CHILD_KEY").ok().map(KeySource::Env);
    let mut settings = Settings::new(&url, "m");
    (settings.concurrency, settings.backoff_s, settings.api_key) = (CONCURRENCY, 0.01, api_key);
    (settings.price_in, settings.price_out) = (1e6, 1e6);
    let rows = variable("S1_CHILD_ROWS").parse().expect("a number");
    let client = match Client::open(settings, Path::new(&variable("S1_CHILD_CACHE"))) {
        Ok(client) => client,
        Err(error) => panic!("{error:?}"),
    };
    println!("{client:?}");
    match client.run(questions(0..rows), |request, outcome| {
        println!("{} {outcome:?}", request.id);
        Ok(())
    }) {
        Ok(totals) => println!("{totals:?}"),
        Err(error) => eprintln!("{error:?}"),
    }
}

#[test]
fn killed_again_and_again() {
    // Every tenth call fails, so that kills meet retries as well.
    let server = Server::start(|call| {
        let row: u32 = call.question[4..].parse().expect("row-N");
        std::thread::sleep(Duration::from_millis(u64::from(row % 7)));
        match (row + call.number) % 10 {
            0 => Act::Status(503, vec![], String::new()),
            n if n % 2 == 0 => Act::Events(events(&call.question)),
            _ => Act::json(reply(&call.question)),
        }
    });
    let (_folder, cache) = cache();
    let mut early = 0;
    for kill in 0..kills() {
        let mut client = client(&server, &cache, rows(), None);
        let mut output = BufReader::new(client.stdout.take().expect("its output"));
        // Nine in ten are killed while they make calls, the others while they start.
        if kill % 10 != 9 {
            let mut lines = output.by_ref().lines().map_while(Result::ok);
            assert!(lines.any(|line| line.starts_with("Client")), "the client starts");
        }
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        std::thread::sleep(Duration::from_millis(kill * 37 % 150));
        early += u64::from(client.try_wait().expect("a state").is_none());
        client.kill().expect("killed");
        client.wait().expect("its end");
    }
    assert!(early > 0, "no client was killed before its end");
    let before: u64 = server.counts().values().map(|count| u64::from(count.good)).sum();

    let settings =
        Settings { price_in: 1e6, price_out: 1e6, concurrency: CONCURRENCY, ..settings(&server) };
    let (totals, outcomes) = run(settings.clone(), &cache, questions(0..rows())).expect("a run");
    assert_eq!(outcomes.len(), rows());
    for (id, outcome) in outcomes {
        assert_eq!(outcome.expect("a reply").text, format!("answer to {id}"));
    }
    assert_eq!(totals.cached + totals.paid, rows() as u64, "0 lost");
    let counts = server.counts();
    let paid: u64 = counts.values().map(|count| u64::from(count.good)).sum();
    let twice = paid - rows() as u64;
    assert!(twice <= early * CONCURRENCY as u64, "{twice} replies were paid twice");
    // The books hold each reply once: 12 tokens at a dollar each.
    let client = Client::open(settings, &cache).expect("a client");
    let estimate = client.estimate(questions(0..rows()), 0).expect("an estimate");
    assert_eq!((estimate.cached, estimate.spent), (rows() as u64, 12.0 * rows() as f64));
    println!(
        "{} rows, {early} clients killed ({before} replies until the last one): 0 lost, 0 handed \
         over twice, {twice} replies in flight asked for again ({:.2} a kill, of {CONCURRENCY} in \
         flight)",
        rows(),
        twice as f64 / early as f64
    );
}
