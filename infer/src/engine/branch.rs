//! Requests that have written the same ids so far, and their parting.
//!
//! Requests with one prompt begin as one branch, whose ids are computed once for all of them. After
//! every computed id each member chooses its own next ids; those who choose alike stay together.
//! Samples of one question part at their first different draw, and budgets of one question at the
//! end of the smaller one: a whole curve costs its longest thinking and the answers.

use std::sync::Arc;

use anyhow::{Context, Result};
use model::Tokenizer;

use super::request::{Completion, Request, Scored};
use super::sampler::{self, Sampler};
use super::stop::Stop;
use crate::budget::{Action, Forcing};

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
}

/// Ids with their places in the cache, and the requests that share them.
#[derive(Debug)]
pub(super) struct Branch {
    /// All ids, the prompt first.
    pub ids: Vec<i64>,
    /// How many of them are in the cache.
    pub cached: usize,
    /// Where.
    pub blocks: Vec<usize>,
    pub members: Vec<Member>,
}

/// What became of a branch's members: groups with their next ids, and the finished.
#[derive(Debug, Default)]
pub(super) struct Parting {
    pub groups: Vec<(Vec<i64>, Vec<Member>)>,
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
                sampler: Sampler::new(request.sampling, request.seed),
                opening: Vec::new(),
                stop: Stop::new(&request.stop),
                logprobs: request.logprobs,
                scored: Vec::new(),
            };
            match action {
                Action::Extend(ids) => {
                    member.opening = ids;
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
        let ids = [&requests[0].1.prompt, common.as_slice()].concat();
        Ok((Some(Branch { ids, cached: 0, blocks: Vec::new(), members }), parting))
    }

    /// Ids that are not in the cache yet.
    pub fn unseen(&self) -> &[i64] {
        &self.ids[self.cached..]
    }

    /// Lets every member choose from the logits after the last id.
    pub fn part(&mut self, logits: &[f32], tokenizer: &Tokenizer) -> Result<Parting> {
        let mut parting = Parting::default();
        for mut member in self.members.drain(..) {
            let name = member.name.clone();
            let next = member.next(logits, &self.ids, tokenizer, &mut parting.sampled);
            match next.with_context(|| name)? {
                Action::Stop => parting.done.push(member.finish(tokenizer)?),
                Action::Extend(ids) => {
                    match parting.groups.iter_mut().find(|(of_group, _)| *of_group == ids) {
                        Some((_, members)) => members.push(member),
                        None => parting.groups.push((ids, vec![member])),
                    }
                }
            }
        }
        Ok(parting)
    }
}

impl Member {
    /// How this member goes on: with at least one id, or not at all.
    fn next(
        &mut self,
        logits: &[f32],
        ids: &[i64],
        tokenizer: &Tokenizer,
        sampled: &mut u64,
    ) -> Result<Action> {
        if !self.opening.is_empty() {
            return Ok(Action::Extend(std::mem::take(&mut self.opening)));
        }
        loop {
            let id = self.sampler.pick(logits, ids, self.forcing.banned())?;
            *sampled += 1;
            if let Some(n) = self.logprobs.filter(|_| !self.forcing.round().until.contains(&id)) {
                self.scored.push(sampler::score(logits, id, self.forcing.ids().len(), n));
            }
            let action = self.forcing.accept(id);
            if self.stop.look(&mut self.forcing, tokenizer)? {
                return Ok(Action::Stop);
            }
            // Nothing is new after an end of thinking that was ignored without a string: the next
            // id is drawn from the same logits, this time with the stops banned.
            if action != Action::Extend(Vec::new()) {
                return Ok(action);
            }
        }
    }

    fn finish(self, tokenizer: &Tokenizer) -> Result<(usize, Completion)> {
        let outcome = self.forcing.outcome();
        let text = self.stop.text(&outcome.ids, tokenizer)?;
        Ok((self.number, Completion { outcome, text, logprobs: self.scored }))
    }
}
