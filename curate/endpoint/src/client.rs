//! The client: what a run would cost, and the run itself.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::OnceLock;
use std::thread;

use anyhow::Result;
use serde::Serialize;

use crate::cache::Cache;
use crate::reply::Reply;
use crate::request::{Request, RequestKey};
use crate::run::Run;
use crate::settings::Settings;
use crate::trouble::Failure;
use crate::wire::Wire;

/// One server and one model, with the cache of its replies.
#[derive(Debug)]
pub struct Client {
    pub(crate) settings: Settings,
    wire: OnceLock<Wire>,
    pub(crate) cache: Cache,
}

/// What a run would do, before it does it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Estimate {
    /// Requests looked at.
    pub requests: u64,
    /// Of these, answered in the cache already or asked twice.
    pub cached: u64,
    /// Tokens of the prompts still to send: about a quarter of their bytes.
    pub prompt_tokens: u64,
    /// Tokens of their replies, at the number expected of each.
    pub completion_tokens: u64,
    /// What both cost.
    pub cost: f64,
    /// What this server and model have cost so far, after the cache's books.
    pub spent: f64,
}

/// What a run did. Each request is in exactly one of `cached`, `paid` and `failed`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Totals {
    /// Requests taken in.
    pub requests: u64,
    /// Answered without a call: by the cache, or by an equal request of the same run.
    pub cached: u64,
    /// Answered by a call of this run.
    pub paid: u64,
    /// Handed over as a [`Failure`], by [`crate::Cause::name`].
    pub failed: BTreeMap<&'static str, u64>,
    /// Calls made.
    pub calls: u64,
    /// Calls that brought no reply, by what they met: a status, `connection`, `timeout`,
    /// `cut reply`, `unusable reply`.
    pub troubles: BTreeMap<String, u64>,
    /// Entries of the cache that had been altered; they were asked for again.
    pub damaged: u64,
    /// Tokens of the prompts of `paid`.
    pub prompt_tokens: u64,
    /// Tokens of the replies of `paid`.
    pub completion_tokens: u64,
    /// Replies whose tokens the server did not count; they were estimated.
    pub uncounted: u64,
    /// What this run cost, calls without a usable reply included.
    pub cost: f64,
}

impl Client {
    /// Opens the cache, a file that is created if need be. Nothing is sent yet, and the key is read
    /// by the first call that needs it.
    pub fn open(settings: Settings, cache: &Path) -> Result<Client> {
        settings.check()?;
        Ok(Client { wire: OnceLock::new(), cache: Cache::open(cache)?, settings })
    }

    /// Opens the cache to look only, for [`Client::estimate`]: a file that is not there is not
    /// created, and counts as empty.
    pub fn peek(settings: Settings, cache: &Path) -> Result<Client> {
        let in_memory = Path::new(":memory:");
        Client::open(settings, if cache.exists() { cache } else { in_memory })
    }

    /// Reads the key, to know before a long run that it is there; an error says where it should be.
    pub fn check_key(&self) -> Result<()> {
        self.wire().map(drop)
    }

    pub(crate) fn wire(&self) -> Result<&Wire> {
        if self.wire.get().is_none() {
            // Had another thread opened one meanwhile, it would be an equal one.
            let _ = self.wire.set(Wire::open(&self.settings)?);
        }
        Ok(self.wire.get().expect("it was set"))
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What a run over these requests would send, if each reply had `tokens_out` tokens.
    pub fn estimate<R: Borrow<Request>>(
        &self,
        requests: impl IntoIterator<Item = R>,
        tokens_out: u32,
    ) -> Result<Estimate> {
        let mut estimate =
            Estimate { spent: self.cache.spent(&self.settings)?, ..Estimate::default() };
        let mut seen = HashSet::new();
        for request in requests {
            let request: &Request = request.borrow();
            let key = RequestKey::of(&self.settings, &request.body(&self.settings.model)?);
            estimate.requests += 1;
            if !seen.insert(key) || self.cache.has(key)? {
                estimate.cached += 1;
            } else {
                estimate.prompt_tokens += request.prompt_tokens();
                estimate.completion_tokens += u64::from(tokens_out);
            }
        }
        estimate.cost = self.settings.cost(estimate.prompt_tokens, estimate.completion_tokens);
        Ok(estimate)
    }

    /// Sends every request that the cache does not answer, and hands each request back with its
    /// reply or its failure, exactly once, on the caller's thread and in the order in which they
    /// finish. An iterator that has ended is asked again after that: `each` may have follow-up
    /// questions for it to give.
    ///
    /// It stops with an error when going on is hopeless (a wrong key, a wrong address, a server
    /// that fails row after row), when `max_cost` would be passed, or when `each` returns one.
    /// Replies that are then on their way are still awaited and kept; a second run goes on from
    /// there. One run at a time uses a cache.
    pub fn run(
        &self,
        requests: impl IntoIterator<Item = Request>,
        each: impl FnMut(Request, Result<Reply, Failure>) -> Result<()>,
    ) -> Result<Totals> {
        let _lock = self.cache.lock()?;
        let requests = requests.into_iter();
        thread::scope(|scope| Run::new(self, scope, each)?.finish(requests))
    }
}
