//! Requests that have written the same ids so far, and their parting.
//!
//! Requests with one prompt begin as one branch, whose ids are computed once for all of them. After
//! every computed id each member chooses its own next ids; those who choose alike stay together.
//! Samples of one question part at their first different draw, and budgets of one question at the
//! end of the smaller one: a whole curve costs its longest thinking and the answers.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result};
use model::Tokenizer;

use super::request::{Completion, Request, Scored};
use super::sampler::{self, Sampler};
use super::stop::Stop;
use crate::budget::{Action, Forcing, Next};

/// One request under way.
#[derive(Debug)]
pub(super) struct Member {
    /// The caller's number for it.
    number: usize,
    name: String,
    forcing: Forcing,
    sampler: Sampler,
    /// Forced ids that open its sequence and that not all of its branch have.
    opening: Vec<i64>,
    stop: Stop,
    logprobs: Option<usize>,
    scored: Vec<Scored>,
    prompt_logprobs: Option<usize>,
    prompt_scored: Vec<Scored>,
}

/// Ids with their places in the cache, and the requests that share them.
#[derive(Debug)]
pub(super) struct Branch {
    /// All ids, the prompt first.
    pub ids: Vec<i64>,
    /// How many of them are in the cache.
    pub cached: usize,
    /// How many of them were there once.
    pub seen: usize,
    /// Where.
    pub blocks: Vec<usize>,
    pub members: Vec<Member>,
    /// Places of the prompt whose ids are still to be scored, for members who want that.
    pub unscored: Range<usize>,
}

/// What became of a branch's members: groups with what is next for each, and the finished.
#[derive(Debug, Default)]
pub(super) struct Parting {
    pub groups: Vec<(Next, Vec<Member>)>,
    pub done: Vec<(usize, Completion)>,
    /// Ids that were sampled.
    pub sampled: u64,
}

impl Branch {
    /// The branch of requests with the same prompt, which may be none: those that end before they
    /// begin are in the parting.
    pub fn start(
        requests: &[(usize, &Request)],
        tokenizer: &Tokenizer,
    ) -> Result<(Option<Branch>, Parting)> {
        let mut parting = Parting::default();
        let mut members = Vec::new();
        for (number, request) in requests {
            let spec = Arc::clone(&request.spec);
            let (forcing, action) = Forcing::start(spec, request.prompt.len());
            let mut member = Member {
                number: *number,
                name: request.name.clone(),
                forcing,
                sampler: Sampler::new(request.sampling, &request.logit_bias, request.seed),
                opening: Vec::new(),
                stop: Stop::new(&request.stop),
                logprobs: request.logprobs,
                scored: Vec::new(),
                prompt_logprobs: request.prompt_logprobs,
                prompt_scored: Vec::new(),
            };
            match action {
                Action::Extend(next) => {
                    member.opening = next.ids;
                    members.push(member);
                }
                Action::Stop => parting.done.push(member.finish(tokenizer)?),
            }
        }
        let Some(first) = members.first() else {
            return Ok((None, parting));
        };
        let mut common = first.opening.clone();
        for member in &members {
            let same = common.iter().zip(&member.opening).take_while(|(a, b)| a == b).count();
            common.truncate(same);
        }
        members.iter_mut().for_each(|member| drop(member.opening.drain(..common.len())));
        let prompt = &requests[0].1.prompt;
        let ids = [prompt, common.as_slice()].concat();
        let scores = members.iter().any(|member| member.prompt_logprobs.is_some());
        let unscored = 1..if scores { prompt.len() } else { 1 };
        Ok((
            Some(Branch { ids, cached: 0, seen: 0, blocks: Vec::new(), members, unscored }),
            parting,
        ))
    }

    /// How many of the next `rows` ids need logits after them, the last ones.
    pub fn wanted(&self, rows: usize) -> usize {
        if self.unscored.is_empty() { usize::from(rows == self.unseen().len()) } else { rows }
    }

    /// Scores the prompt's ids by the logits after its ids from the place `start` on.
    pub fn score(&mut self, start: usize, logits: &[f32], width: usize, known: usize) {
        for (n, logits) in logits.chunks(width.max(1)).enumerate() {
            let at = start + n + 1;
            if at == self.unscored.start && !self.unscored.is_empty() {
                for member in &mut self.members {
                    let Some(n) = member.prompt_logprobs else { continue };
                    member.prompt_scored.push(sampler::score(
                        &logits[..known],
                        self.ids[at],
                        at,
                        n,
                    ));
                }
                self.unscored.start += 1;
            }
        }
    }

    /// Ids that are not in the cache yet.
    pub fn unseen(&self) -> &[i64] {
        &self.ids[self.cached..]
    }

    /// The next `rows` ids are in the cache now. Returns how many of them never were before.
    pub fn compute(&mut self, rows: usize) -> usize {
        self.cached += rows;
        let new = self.cached.saturating_sub(self.seen).min(rows);
        self.seen = self.seen.max(self.cached);
        new
    }

    /// Changes the ids. At least one is then unseen: what follows is chosen by its logits.
    pub fn go_on(&mut self, next: &Next) {
        self.ids.truncate(self.ids.len() - next.back);
        self.cached = self.cached.min(self.ids.len());
        self.seen = self.seen.min(self.ids.len());
        self.ids.extend(&next.ids);
        self.cached = self.cached.min(self.ids.len() - 1);
    }

    /// Lets every member choose from the logits after the last id.
    pub fn part(&mut self, logits: &[f32], tokenizer: &Tokenizer) -> Result<Parting> {
        let mut parting = Parting::default();
        for mut member in self.members.drain(..) {
            let name = member.name.clone();
            let next = member.next(logits, &self.ids, tokenizer, &mut parting.sampled);
            match next.with_context(|| name)? {
                Action::Stop => parting.done.push(member.finish(tokenizer)?),
                Action::Extend(next) => {
                    match parting.groups.iter_mut().find(|(of_group, _)| *of_group == next) {
                        Some((_, members)) => members.push(member),
                        None => parting.groups.push((next, vec![member])),
                    }
                }
            }
        }
        Ok(parting)
    }
}

impl Member {
    /// How this member goes on: with another id at least, or not at all.
    fn next(
        &mut self,
        logits: &[f32],
        ids: &[i64],
        tokenizer: &Tokenizer,
        sampled: &mut u64,
    ) -> Result<Action> {
        if !self.opening.is_empty() {
            let ids = std::mem::take(&mut self.opening);
            return Ok(Action::Extend(Next { back: 0, ids }));
        }
        loop {
            let id = self.sampler.pick(logits, ids, &self.forcing.banned())?;
            *sampled += 1;
            let at = self.forcing.ids().len();
            let is_end = self.forcing.round().until.contains(&id);
            let ends = is_end && !self.forcing.is_thinking();
            let action = self.stop.accept(id, &mut self.forcing, tokenizer)?;
            self.scored.retain(|scored| scored.at < self.forcing.held());
            if let Some(n) = self.logprobs
                && (ends || self.forcing.has_sampled(at, id))
            {
                self.scored.push(sampler::score(logits, id, at, n));
            }
            // Nothing is new after an end of thinking that was ignored without a string, or came
            // too early: the next id is drawn from the same logits, with other ids banned.
            if action != Action::Extend(Next::default()) {
                return Ok(action);
            }
        }
    }

    fn finish(self, tokenizer: &Tokenizer) -> Result<(usize, Completion)> {
        let outcome = self.forcing.outcome();
        let text = self.stop.text(&outcome.ids, tokenizer)?;
        let (logprobs, prompt_logprobs) = (self.scored, self.prompt_scored);
        Ok((self.number, Completion { outcome, text, logprobs, prompt_logprobs }))
    }

    /// The caller's number for it.
    pub fn number(&self) -> usize {
        self.number
    }

    /// What it has so far: its machine, and the scores of its sampled ids.
    pub fn so_far(&self) -> (&Forcing, &[Scored]) {
        (&self.forcing, &self.scored)
    }
}
