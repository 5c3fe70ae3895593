//! The client against a local server that misbehaves in every way that servers do.

mod batch;
mod canary;
mod faults;
mod kills;
mod money;
mod policy;
mod replies;
mod server;
mod store;
mod verdicts;

use endpoint::{Client, Failure, Message, Reply, Request, Settings, Totals};
use std::path::Path;

/// Settings for a server nearby, with pauses of milliseconds.
fn settings(server: &server::Server) -> Settings {
    Settings { backoff_s: 0.01, first_byte_timeout_s: 5.0, ..Settings::new(&server.url, "m") }
}

/// Requests whose question is their id.
fn questions(ids: impl IntoIterator<Item = usize>) -> impl Iterator<Item = Request> {
    ids.into_iter().map(|id| {
        let id = format!("row-{id}");
        Request::new(id.clone(), vec![Message::user(id)], 64)
    })
}

type Outcomes = Vec<(String, Result<Reply, Failure>)>;

/// Runs the requests; all outcomes, sorted by id.
fn run(
    settings: Settings,
    cache: &Path,
    requests: impl Iterator<Item = Request>,
) -> anyhow::Result<(Totals, Outcomes)> {
    let mut outcomes = Vec::new();
    let totals = Client::open(settings, cache)?.run(requests, |request, outcome| {
        outcomes.push((request.id, outcome));
        Ok(())
    })?;
    outcomes.sort_by(|a, b| a.0.cmp(&b.0));
    Ok((totals, outcomes))
}

/// A cache in a folder of its own.
fn cache() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("replies.sqlite");
    (folder, path)
}
