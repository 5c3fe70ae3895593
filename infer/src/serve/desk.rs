//! Between the HTTP tasks and the engine: who asked for what, and what has come of it.
//!
//! The engine runs on a thread of its own and never waits for a reader: what it writes goes into
//! the request's [`Mailbox`], which holds what was not fetched yet, at most the completions
//! themselves. A [`Ticket`] that is dropped cancels what it stands for before the next step.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use tokio::sync::Notify;

use super::counters::Counters;
use super::refusal::Refusal;
use crate::engine::{Completion, Engine, Generate, Model, Request, Scored};

/// What has come of one completion and was not fetched yet.
#[derive(Debug, Default)]
pub struct Mail {
    /// Ids behind those fetched before; none if the request does not stream.
    pub ids: Vec<i64>,
    /// Scores of sampled ids, behind those fetched before; likewise.
    pub logprobs: Vec<Scored>,
    /// The completion or the failure: the last that comes.
    pub done: Option<Result<Completion, Refusal>>,
}

/// What has come of a request's completions.
#[derive(Debug)]
pub struct Mailbox {
    mails: Mutex<Vec<Mail>>,
    news: Notify,
}

/// The right to a request's completions; dropped, it cancels those that are not finished.
#[derive(Debug)]
pub struct Ticket {
    mailbox: Arc<Mailbox>,
    commands: Sender<Command>,
    /// The engine's number of the first completion; the others follow.
    first: usize,
}

/// Where requests are handed in.
#[derive(Debug)]
pub struct Desk {
    commands: Sender<Command>,
    counters: Arc<Counters>,
    /// Completions asked for and not finished.
    open: Arc<AtomicUsize>,
    queue: usize,
    next: AtomicUsize,
}

#[derive(Debug)]
enum Command {
    Submit { first: usize, requests: Vec<Request>, mailbox: Arc<Mailbox>, streams: bool },
    Cancel { first: usize },
}

impl Mailbox {
    fn new(completions: usize) -> Self {
        let mails = (0..completions).map(|_| Mail::default()).collect();
        Mailbox { mails: Mutex::new(mails), news: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Mail>> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, place: usize, change: impl FnOnce(&mut Mail)) {
        change(&mut self.lock()[place]);
        self.news.notify_one();
    }
}

impl Ticket {
    /// Waits for news, and fetches all: completions by their places in the request.
    pub async fn fetch(&self) -> Vec<(usize, Mail)> {
        loop {
            let mails = self.mailbox.lock().iter_mut().map(std::mem::take).collect::<Vec<_>>();
            let is_new = |mail: &Mail| !mail.ids.is_empty() || mail.done.is_some();
            let new: Vec<_> =
                mails.into_iter().enumerate().filter(|(_, mail)| is_new(mail)).collect();
            if !new.is_empty() {
                return new;
            }
            self.mailbox.news.notified().await;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // The engine may be gone, and then there is nothing to cancel.
        let _ = self.commands.send(Command::Cancel { first: self.first });
    }
}

impl Desk {
    /// Starts the engine that `make` makes on a thread of its own, and waits until it is there.
    /// The thread ends when the desk and all tickets are gone, and returns the engine's summary;
    /// or when the model fails.
    pub fn open<M: Model + 'static>(
        make: impl FnOnce() -> Result<Engine<M>> + Send + 'static,
        queue: usize,
        counters: Arc<Counters>,
    ) -> Result<(Desk, JoinHandle<Result<String>>)> {
        let (commands, orders) = mpsc::channel();
        let (ready, made) = mpsc::channel();
        let open = Arc::new(AtomicUsize::new(0));
        let (count, numbers) = (Arc::clone(&open), Arc::clone(&counters));
        let run = move || {
            let engine = match make() {
                Ok(engine) => engine,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return Ok(String::new());
                }
            };
            let _ = ready.send(Ok(()));
            Worker { engine, orders, entries: HashMap::new(), open: count, counters: numbers }.run()
        };
        let thread = thread::Builder::new().name("engine".into()).spawn(run)?;
        made.recv().context("the engine's thread ended before it began")??;
        Ok((Desk { commands, counters, open, queue, next: AtomicUsize::new(0) }, thread))
    }

    /// Hands in the completions of one request.
    ///
    /// # Errors
    /// When so many wait already that it has to come again later.
    pub fn submit(&self, requests: Vec<Request>, streams: bool) -> Result<Ticket, Refusal> {
        let count = requests.len();
        if count > self.queue {
            let most = self.queue;
            return Err(Refusal::new(
                400,
                format!("{count} completions are asked for at once; this server takes {most}"),
            ));
        }
        let fits = |open: usize| (open + count <= self.queue).then_some(open + count);
        if self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_err() {
            self.counters.refused.add(1);
            let message = format!("{} completions are waiting already; try again", self.queue);
            return Err(Refusal::new(429, message).coded("rate_limit_exceeded"));
        }
        let first = self.next.fetch_add(count, Ordering::SeqCst);
        let mailbox = Arc::new(Mailbox::new(count));
        let ticket = Ticket { mailbox, commands: self.commands.clone(), first };
        let mailbox = Arc::clone(&ticket.mailbox);
        let order = Command::Submit { first, requests, mailbox, streams };
        if self.commands.send(order).is_err() {
            return Err(Refusal::new(500, "the engine has ended"));
        }
        Ok(ticket)
    }
}

/// A completion that the engine works at.
struct Entry {
    mailbox: Arc<Mailbox>,
    first: usize,
    place: usize,
    streams: bool,
    /// Ids and scores that are in the mailbox already.
    told: (usize, usize),
}

/// The engine with its orders.
struct Worker<M: Model> {
    engine: Engine<M>,
    orders: Receiver<Command>,
    entries: HashMap<usize, Entry>,
    open: Arc<AtomicUsize>,
    counters: Arc<Counters>,
}

impl<M: Model> Worker<M> {
    fn run(mut self) -> Result<String> {
        loop {
            if self.engine.is_idle() {
                let Ok(order) = self.orders.recv() else { return Ok(self.engine.summary()) };
                self.obey(order);
            }
            while let Ok(order) = self.orders.try_recv() {
                self.obey(order);
            }
            if !self.engine.is_idle() {
                let done = self.engine.step()?;
                self.settle(done);
                self.tell();
            }
            let (running, waiting) = self.engine.load();
            self.counters.running.set(running as u64);
            self.counters.waiting.set(waiting as u64);
            self.counters.steps.set(self.engine.statistics().passes);
        }
    }

    fn obey(&mut self, order: Command) {
        match order {
            Command::Submit { first, requests, mailbox, streams } => {
                for place in 0..requests.len() {
                    let mailbox = Arc::clone(&mailbox);
                    let entry = Entry { mailbox, first, place, streams, told: (0, 0) };
                    self.entries.insert(first + place, entry);
                }
                let numbered: Vec<_> =
                    requests.iter().enumerate().map(|(n, request)| (first + n, request)).collect();
                for group in numbered.chunk_by(|(_, a), (_, b)| a.prompt == b.prompt) {
                    match self.engine.submit(group) {
                        Ok(done) => self.settle(done),
                        Err(error) => {
                            let refusal = Refusal::new(400, format!("{error:#}"));
                            group.iter().for_each(|(n, _)| self.finish(*n, Err(refusal.clone())));
                        }
                    }
                }
            }
            Command::Cancel { first } => {
                let of_ticket = |(_, entry): &(&usize, &Entry)| entry.first == first;
                let numbers = self.entries.iter().filter(of_ticket).map(|(number, _)| *number);
                for number in numbers.collect::<Vec<_>>() {
                    self.engine.cancel(number);
                    self.entries.remove(&number);
                    self.open.fetch_sub(1, Ordering::SeqCst);
                    self.counters.cancelled.add(1);
                }
            }
        }
    }

    fn settle(&mut self, done: Vec<(usize, Completion)>) {
        for (number, completion) in done {
            self.counters.finished(&completion.outcome);
            self.finish(number, Ok(completion));
        }
    }

    fn finish(&mut self, number: usize, result: Result<Completion, Refusal>) {
        let Some(entry) = self.entries.remove(&number) else { return };
        self.open.fetch_sub(1, Ordering::SeqCst);
        entry.mailbox.put(entry.place, |mail| {
            if let Ok(completion) = &result
                && entry.streams
            {
                mail.ids.extend(&completion.outcome.ids[entry.told.0..]);
                mail.logprobs.extend_from_slice(&completion.logprobs[entry.told.1..]);
            }
            mail.done = Some(result);
        });
    }

    /// Puts what is new, and will not be taken back, into the mailboxes of those who stream.
    fn tell(&mut self) {
        let entries = &mut self.entries;
        self.engine.look(&mut |number, forcing, scored| {
            let Some(entry) = entries.get_mut(&number).filter(|entry| entry.streams) else {
                return;
            };
            let ids = &forcing.ids()[..forcing.settled()];
            let (ids_told, scored_told) = entry.told;
            if ids.len() <= ids_told {
                return;
            }
            let scored_settled = scored.partition_point(|scored| scored.at < ids.len());
            entry.told = (ids.len(), scored_settled.max(scored_told));
            entry.mailbox.put(entry.place, |mail| {
                mail.ids.extend(&ids[ids_told..]);
                mail.logprobs.extend_from_slice(&scored[scored_told..scored_settled]);
            });
        });
    }
}

impl<M: Model> Drop for Worker<M> {
    /// The engine has ended, be it in a panic: nobody may wait for it any more.
    fn drop(&mut self) {
        for number in self.entries.keys().copied().collect::<Vec<_>>() {
            self.finish(number, Err(Refusal::new(500, "the engine has ended")));
        }
    }
}
