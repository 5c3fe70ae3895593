//! Requests to OpenAI-compatible endpoints: limits, retries, cost, a cache that never pays twice.
//!
//! A [`Client`] sends chat requests to one server and one model, many at a time, and hands each
//! reply or failure to its caller exactly once. Every reply is on disk before the caller sees it,
//! so a run that was stopped, even by `kill -9`, goes on where it was and pays nothing twice.
//!
//! It deliberately knows no tables, no datasets and no progress bars, runs no async runtime, never
//! decides what a reply means for a question (that is its caller's matter; [`verdict`] only reads
//! last lines), and never writes a key anywhere but into the request's header.
//!
//! ```no_run
//! use endpoint::{Client, Message, Request, Settings};
//!
//! # fn main() -> anyhow::Result<()> {
//! let settings = Settings::new("http://localhost:8000/v1", "Qwen/Qwen2.5-7B-Instruct");
//! let client = Client::open(settings, "replies.sqlite".as_ref())?;
//! let questions = ["What is 6 times 7?", "Is 91 prime?"];
//! let requests = questions.map(|text| Request::new(text, vec![Message::user(text)], 2048));
//! let totals = client.run(requests, |request, outcome| {
//!     println!("{}: {}", request.id, outcome.map_or_else(|f| f.to_string(), |reply| reply.text));
//!     Ok(())
//! })?;
//! println!("{} paid for {}, {} were known", totals.paid, totals.cost, totals.cached);
//! # Ok(())
//! # }
//! ```
//!
//! Modules in reading order: [`settings`] (which server, which limits), [`request`] (what is asked,
//! and its identity), [`reply`] (what came back, in any of the vendors' spellings), `stream` (the
//! same in pieces), [`trouble`] (what may go wrong and what is then done), `wire` (one HTTP call),
//! `cache` (replies on disk), `pace` (limits a minute, and money), [`client`] and its loop `run`
//! (which hold it together), [`batch`] (vendors' batch files), [`verdict`] and [`judge`] (models
//! that grade).

pub mod settings;

pub mod request;

pub mod reply;
mod stream;

pub mod trouble;
mod wire;

mod cache;
mod pace;
mod run;

pub mod client;

pub mod batch;

pub mod judge;
pub mod verdict;

pub use client::{Client, Estimate, Totals};
pub use reply::{Reply, Usage};
pub use request::{Message, Request, Role};
pub use settings::{KeySource, Settings};
pub use trouble::{Cause, Failure};
