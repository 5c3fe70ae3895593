//! The loop of a run. One thread decides everything: what starts, what waits, what is written, what
//! is handed over. Each call has a thread of its own that makes it and reports back, no more.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, anyhow};
use serde_json::Value;

use crate::cache::{Entry, Found};
use crate::client::{Client, Totals};
use crate::pace::{Budget, Pace};
use crate::reply::Reply;
use crate::request::{Request, RequestKey, about_tokens};
use crate::trouble::{Cause, Failure, Then, Trouble};

/// The first call goes alone until the server has accepted it, so that a wrong key costs one call;
/// but no longer than this, since servers that do not stream say nothing before they are done.
const ALONE: Duration = Duration::from_secs(5);
/// The longest pause between two calls of a request, unless the server asks for a longer one.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// The longest pause that a server may ask for; beyond, a quota is used up for the day.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Pauses from here on are announced.
const NOTICED: Duration = Duration::from_secs(10);

/// A request on its way to a reply.
struct Job {
    request: Request,
    key: RequestKey,
    body: Value,
    /// Calls made so far.
    attempts: u32,
    /// The most that one call of it can cost.
    worst_cost: f64,
    /// Tokens that one call of it takes from the limit.
    tokens: u64,
}

enum Event {
    /// The server accepts our calls.
    Accepted,
    Done(Box<(Job, Result<Reply, Trouble>)>),
}

/// What the loop does next.
enum Step {
    Again,
    /// Wait for a call's report, until then at most.
    Wait(Option<Instant>),
    End,
}

pub(crate) struct Run<'scope, 'env, F> {
    client: &'env Client,
    scope: &'scope Scope<'scope, 'env>,
    each: F,
    sender: Sender<Event>,
    events: Receiver<Event>,
    /// Calls on their way.
    open: usize,
    /// The job that starts next.
    next: Option<Job>,
    /// Jobs to call again, by when; the number keeps two of one instant apart.
    waiting: BTreeMap<(Instant, u64), Job>,
    /// Every request in work, with the equal ones that came after it.
    in_work: HashMap<RequestKey, Vec<Request>>,
    pace: Pace,
    budget: Budget,
    first_call: Option<Instant>,
    accepted: bool,
    /// The caller has no more requests, unless what is handed over brings some.
    dry: bool,
    /// Rows in a row without any usable reply.
    hopeless: u32,
    stop: Option<Error>,
    /// The caller wants no more.
    closed: bool,
    totals: Totals,
}

impl<'scope, 'env, F> Run<'scope, 'env, F>
where
    F: FnMut(Request, Result<Reply, Failure>) -> Result<()>,
{
    pub fn new(client: &'env Client, scope: &'scope Scope<'scope, 'env>, each: F) -> Result<Self> {
        let (sender, events) = mpsc::channel();
        let settings = &client.settings;
        Ok(Run {
            client,
            scope,
            each,
            sender,
            events,
            open: 0,
            next: None,
            waiting: BTreeMap::new(),
            in_work: HashMap::new(),
            pace: Pace::new(settings, Instant::now()),
            budget: Budget::new(client.cache.spent(settings)?, settings.max_cost),
            first_call: None,
            accepted: false,
            dry: false,
            hopeless: 0,
            stop: None,
            closed: false,
            totals: Totals::default(),
        })
    }

    pub fn finish(mut self, requests: impl Iterator<Item = Request>) -> Result<Totals> {
        let mut requests = Some(requests);
        loop {
            let mut events: Vec<_> = self.events.try_iter().collect();
            if events.is_empty() {
                if self.stop.is_some() {
                    (requests, self.next) = (None, None);
                    self.waiting.clear();
                }
                // Whatever goes wrong here, replies on their way are awaited: they are paid for.
                match self.step(&mut requests) {
                    Ok(Step::Again) => {}
                    Ok(Step::Wait(until)) => events.extend(self.wait(until)),
                    Ok(Step::End) => break,
                    Err(error) => self.stop_with(error),
                }
            }
            if let Err(error) = self.take_in(events) {
                self.stop_with(error);
            }
        }
        let Totals { requests, cached, paid, failed, cost, .. } = &self.totals;
        if let Some(error) = self.stop {
            return Err(error.context(format!(
                "stopped after {cached} cached and {paid} paid replies (cost {cost:.6}); all of \
                 them are in the cache"
            )));
        }
        assert_eq!(*requests, cached + paid + failed.values().sum::<u64>(), "a request was lost");
        Ok(self.totals)
    }

    fn step(&mut self, requests: &mut Option<impl Iterator<Item = Request>>) -> Result<Step> {
        let now = Instant::now();
        if self.next.is_none() && self.waiting.first_key_value().is_some_and(|(at, _)| at.0 <= now)
        {
            self.next = self.waiting.pop_first().map(|(_, job)| job);
        }
        let in_hand = self.open + self.waiting.len() + usize::from(self.next.is_some());
        let room = in_hand < self.client.settings.concurrency;
        let may_take = self.next.is_none() && room && !self.dry;
        if let Some(source) = requests.as_mut().filter(|_| may_take) {
            match source.next() {
                Some(request) => self.admit(request)?,
                None => self.dry = true,
            }
            return Ok(Step::Again);
        }
        let Some(job) = self.next.take() else {
            if in_hand == 0 {
                return Ok(Step::End);
            }
            return Ok(Step::Wait(self.waiting.first_key_value().map(|(at, _)| at.0)));
        };
        let alone = self.first_call.filter(|_| !self.accepted && self.open > 0);
        let free_at = alone.map_or(now, |first| first + ALONE).max(self.pace.free_at());
        let affordable = self.budget.fits(job.worst_cost);
        if affordable && free_at <= now {
            self.start(job, now)?;
        } else if affordable {
            self.next = Some(job);
            return Ok(Step::Wait(Some(free_at)));
        } else if self.open > 0 {
            self.next = Some(job);
            return Ok(Step::Wait(None));
        } else {
            self.stop = Some(self.budget.used_up(job.worst_cost));
        }
        Ok(Step::Again)
    }

    fn wait(&self, until: Option<Instant>) -> Option<Event> {
        match until {
            None => self.events.recv().ok(),
            Some(at) => self.events.recv_timeout(at.saturating_duration_since(Instant::now())).ok(),
        }
    }

    /// Takes a request in: it is answered by the cache, follows an equal one, or becomes a job.
    fn admit(&mut self, request: Request) -> Result<()> {
        let settings = &self.client.settings;
        self.totals.requests += 1;
        let body = request.body(&settings.model)?;
        let key = RequestKey::of(settings, &body);
        if let Some(followers) = self.in_work.get_mut(&key) {
            followers.push(request);
            return Ok(());
        }
        match self.client.cache.get(key)? {
            Found::Reply(raw, cost) => {
                if let Ok(reply) = Reply::read(raw, request.prompt_tokens()) {
                    self.totals.cached += 1;
                    self.hand_over(request, Ok(Reply { from_cache: true, cost, ..reply }));
                    return Ok(());
                }
                self.totals.damaged += 1;
            }
            Found::Damaged => self.totals.damaged += 1,
            Found::Nothing => {}
        }
        let most = (request.most_prompt_tokens(), request.most_completion_tokens());
        let tokens = request.prompt_tokens() + most.1;
        let worst_cost = settings.cost(most.0, most.1);
        self.in_work.insert(key, Vec::new());
        self.next = Some(Job { request, key, body, attempts: 0, worst_cost, tokens });
        Ok(())
    }

    fn start(&mut self, mut job: Job, now: Instant) -> Result<()> {
        job.attempts += 1;
        let (worst_cost, tokens) = (job.worst_cost, job.tokens);
        let (wire, sender) = (self.client.wire()?, self.sender.clone());
        let call = move || {
            // The receiver lives as long as the run, and the run waits for this report.
            let accepted = || drop(sender.send(Event::Accepted));
            let call = || {
                let raw = wire.call(&job.body, accepted)?;
                Reply::read(raw, job.request.prompt_tokens())
            };
            let result = catch_unwind(AssertUnwindSafe(call))
                .unwrap_or_else(|_| Err(Trouble::broken(&"the call panicked", None)));
            drop(sender.send(Event::Done(Box::new((job, result)))));
        };
        let spawned = Builder::new().name("call".into()).spawn_scoped(self.scope, call);
        spawned.context("cannot start a thread for a call: lower concurrency")?;
        self.open += 1;
        self.totals.calls += 1;
        self.first_call.get_or_insert(now);
        self.pace.take(tokens, now);
        self.budget.reserve(worst_cost);
        Ok(())
    }

    /// Books the reports: first on disk, then to the caller.
    fn take_in(&mut self, events: Vec<Event>) -> Result<()> {
        let (mut replies, mut failures, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for event in events {
            let Event::Done(done) = event else {
                self.accepted = true;
                continue;
            };
            let (job, result) = *done;
            self.open -= 1;
            match result {
                Ok(reply) => replies.push(self.paid(job, reply)),
                Err(trouble) => {
                    let (cost, why) = (self.settle_trouble(&job, &trouble), trouble.kind.clone());
                    if cost > 0.0 {
                        lost.push((job.request.id.clone(), cost, why));
                    }
                    failures.extend(self.after_trouble(job, trouble));
                }
            }
        }
        let entries: Vec<_> = replies
            .iter()
            .map(|(job, reply)| Entry::Reply {
                key: job.key,
                id: &job.request.id,
                raw: &reply.raw,
                cost: reply.cost,
            })
            .chain(lost.iter().map(|(id, cost, why)| Entry::Lost { id, cost: *cost, why }))
            .collect();
        if !entries.is_empty() {
            self.client.cache.put(&self.client.settings, &entries)?;
        }
        for (job, reply) in replies {
            for follower in self.in_work.remove(&job.key).unwrap_or_default() {
                self.totals.cached += 1;
                self.hand_over(follower, Ok(Reply { from_cache: true, ..reply.clone() }));
            }
            self.totals.paid += 1;
            self.hand_over(job.request, Ok(reply));
        }
        for (job, failure) in failures {
            let followers = self.in_work.remove(&job.key).unwrap_or_default();
            for request in followers.into_iter().chain([job.request]) {
                *self.totals.failed.entry(failure.cause.name()).or_default() += 1;
                self.hand_over(request, Err(failure.clone()));
            }
        }
        Ok(())
    }

    /// Counts what a reply used and cost.
    fn paid(&mut self, job: Job, mut reply: Reply) -> (Job, Reply) {
        let usage = reply.usage;
        reply.cost = self.client.settings.cost(usage.prompt_tokens, usage.completion_tokens);
        self.budget.settle(job.worst_cost, reply.cost);
        self.pace.settle(job.tokens, usage.prompt_tokens + usage.completion_tokens);
        self.hopeless = 0;
        self.totals.prompt_tokens += usage.prompt_tokens;
        self.totals.completion_tokens += usage.completion_tokens;
        self.totals.uncounted += u64::from(usage.estimated);
        self.totals.cost += reply.cost;
        (job, reply)
    }

    /// Counts a call without a reply, and gives what it probably cost: as far as a reply had come.
    fn settle_trouble(&mut self, job: &Job, trouble: &Trouble) -> f64 {
        *self.totals.troubles.entry(trouble.kind.clone()).or_default() += 1;
        let used = trouble.received.map(|bytes| (job.request.prompt_tokens(), about_tokens(bytes)));
        let (tokens_in, tokens_out) = used.unwrap_or_default();
        let cost = self.client.settings.cost(tokens_in, tokens_out).min(job.worst_cost);
        self.budget.settle(job.worst_cost, cost);
        self.pace.settle(job.tokens, tokens_in + tokens_out);
        self.totals.cost += cost;
        cost
    }

    /// Calls again later, stops the run, or gives the job up.
    fn after_trouble(&mut self, job: Job, trouble: Trouble) -> Option<(Job, Failure)> {
        let settings = &self.client.settings;
        let attempts = job.attempts;
        let (after, everybody) = match trouble.then {
            Then::Stop(cure) => {
                let model = &settings.model;
                self.stop_with(anyhow!(
                    "{} ({model}): {}: {cure}",
                    settings.server(),
                    trouble.text
                ));
                return None;
            }
            Then::GiveUp(cause) => {
                return Some((job, Failure { cause, attempts, message: trouble.text }));
            }
            Then::Again { after, everybody } => (after, everybody),
        };
        if after.is_some_and(|after| after > LONGEST_PAUSE) {
            self.stop_with(anyhow!(
                "{} asks to wait for {} s ({}): run again then, or with another key",
                settings.server(),
                after.unwrap_or_default().as_secs(),
                trouble.text
            ));
            return None;
        }
        if attempts >= settings.attempts {
            self.hopeless += 1;
            if self.hopeless >= settings.give_up_after {
                self.stop_with(anyhow!(
                    "{}: {} requests in a row had no usable reply in {attempts} calls each; the \
                     last one: {}: check that the server runs and is reachable (give_up_after)",
                    settings.server(),
                    self.hopeless,
                    trouble.text
                ));
            }
            let message = trouble.text;
            return Some((job, Failure { cause: Cause::Exhausted, attempts, message }));
        }
        // Otherwise a run whose server is not there says nothing for a minute.
        if self.totals.troubles.get(&trouble.kind) == Some(&1) {
            let (server, most) = (settings.server(), settings.attempts);
            eprintln!("{server}: {}; it is asked again, {most} times at most", trouble.text);
        }
        let pause = after.unwrap_or_else(|| backoff(settings.backoff_s, attempts, job.key));
        let until = Instant::now() + pause;
        if everybody {
            self.pace.pause_until(until);
            if pause >= NOTICED {
                eprintln!("{}: {}: pausing {} s", settings.model, trouble.text, pause.as_secs());
            }
        }
        self.waiting.insert((until, self.totals.calls), job);
        None
    }

    fn stop_with(&mut self, error: Error) {
        self.stop.get_or_insert(error);
    }

    fn hand_over(&mut self, request: Request, outcome: Result<Reply, Failure>) {
        self.dry = false;
        if !self.closed
            && let Err(error) = (self.each)(request, outcome)
        {
            self.closed = true;
            self.stop_with(error);
        }
    }
}

/// Doubles from call to call. A part of it depends on the request, so that many that failed
/// together do not come back together.
fn backoff(first: f64, attempts: u32, key: RequestKey) -> Duration {
    let longest = LONGEST_BACKOFF.as_secs_f64();
    let doubled = (first * 2f64.powi(attempts as i32 - 1)).min(longest);
    Duration::from_secs_f64(doubled * (0.5 + f64::from(key.0[0]) / 510.0))
}
