//! The engine: continuous batching over one model, each id computed once.
//!
//! A step is one pass of the model over the next ids of all running branches: one id of each that
//! writes, and up to `prefill_chunk` ids of prompts and forced continuations between them. A slot
//! that becomes free is refilled before the next step. Keys and values lie in blocks that branches
//! share up to where they part. When there are no more, last blocks of those who wait longest go, which
//! are computed again later: on the CPU to the same bits, since a row of a pass depends on its own
//! sequence alone.
//!
//! Reading order: [`request`] (what is asked, and the boundary [`Generate`]), `branch` (requests
//! with the same ids so far, and their parting), [`blocks`] (who has which part of the cache),
//! [`sampler`], [`stop`], [`statistics`], [`local`] (the model on this machine),
//! [`parallel`] (over several ranks); here the steps.

pub mod blocks;
mod branch;
pub mod local;
pub mod parallel;
pub mod request;
pub mod sampler;
pub mod statistics;
pub mod stop;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use anyhow::{Result, ensure};
use model::{Segment, Tokenizer};

use crate::budget::{Forcing, Next};
use blocks::{Blocks, Copy};
use branch::{Branch, Parting};
pub use request::{Completion, Generate, Request, Sampling, Scored};
use statistics::{Clock, Statistics};

/// What the engine asks of a model.
pub trait Model {
    /// Appends each segment's ids to its sequence, and leaves in `logits` the rows that the segments
    /// want, in their order; the rows have equal lengths.
    fn pass(&mut self, segments: &[Segment], logits: &mut Vec<f32>) -> Result<()>;

    /// Copies the beginning of one block of the cache to another.
    fn copy(&mut self, copy: Copy);
}

/// Ids of a prompt in one pass at most while they are scored, which takes a row of logits each.
const SCORED: usize = 64;

/// How much an engine does at once.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Branches that run at once.
    pub slots: usize,
    /// Blocks of the model's cache.
    pub blocks: usize,
    /// Positions of a block.
    pub block_len: usize,
    /// Ids of prompts and forced continuations in one pass, at most.
    pub prefill_chunk: usize,
}

/// Continues many prompts at once.
pub struct Engine<M> {
    model: M,
    tokenizer: Arc<Tokenizer>,
    settings: Settings,
    blocks: Blocks,
    /// Those that take part in the next pass, the oldest first.
    running: Vec<Branch>,
    /// Those that wait for a slot: first what has parted, then new prompts.
    waiting: VecDeque<Branch>,
    logits: Vec<f32>,
    statistics: Statistics,
}

impl<M: Model> Engine<M> {
    /// An engine without work.
    pub fn new(model: M, tokenizer: Arc<Tokenizer>, settings: Settings) -> Self {
        assert!(settings.slots > 0 && settings.prefill_chunk > 0, "an engine that does nothing");
        Engine {
            model,
            tokenizer,
            settings,
            blocks: Blocks::new(settings.blocks, settings.block_len),
            running: Vec::new(),
            waiting: VecDeque::new(),
            logits: Vec::new(),
            statistics: Statistics::new(&settings),
        }
    }

    /// What it did so far.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Whether a step would do nothing.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Takes requests with the same prompt, numbered by the caller, and returns those that end
    /// before they begin.
    ///
    /// # Errors
    /// When a request's sampling has no meaning, or the cache could not hold it alone.
    pub fn submit(&mut self, requests: &[(usize, &Request)]) -> Result<Vec<(usize, Completion)>> {
        let room = self.settings.blocks * self.settings.block_len;
        for (_, request) in requests {
            let (name, longest) = (&request.name, request.spec.max_model_len);
            request.sampling.check()?;
            ensure!(!request.prompt.is_empty(), "{name}: the prompt is empty");
            ensure!(
                longest <= room,
                "{name}: it may grow to {longest} tokens (max_model_len), but the cache holds \
                 {room}; raise engine.cache_gib or lower model.max_model_len"
            );
        }
        let (branch, parting) = Branch::start(requests, &self.tokenizer)?;
        self.waiting.extend(branch);
        let prompts = requests.iter().map(|(_, request)| request.prompt.len() as u64).sum();
        self.statistics.submitted(requests.len() as u64, prompts);
        self.statistics.finished(&parting.done);
        Ok(parting.done)
    }

    /// One pass of the model, and all that follows from it. Returns what has finished.
    ///
    /// # Errors
    /// When the model fails or computes NaN. All requests are then dropped.
    pub fn step(&mut self) -> Result<Vec<(usize, Completion)>> {
        let done = self.pass();
        if done.is_err() {
            self.clear();
        }
        done
    }

    fn pass(&mut self) -> Result<Vec<(usize, Completion)>> {
        self.refill();
        let clock = Clock::start();
        let rows = self.plan();
        let segments: Vec<Segment> = self
            .running
            .iter()
            .zip(&rows)
            .filter(|(_, rows)| **rows > 0)
            .map(|(branch, &rows)| Segment {
                ids: &branch.unseen()[..rows],
                start: branch.cached,
                blocks: &branch.blocks,
                logits: branch.wanted(rows),
            })
            .collect();
        let wanted = segments.iter().map(|segment| segment.logits).sum();
        self.logits.clear();
        self.model.pass(&segments, &mut self.logits)?;
        self.statistics.pass(&segments, self.waiting.is_empty(), &self.blocks);
        let done = self.settle(&rows, wanted)?;
        self.statistics.finished(&done);
        clock.stop(&mut self.statistics, &rows);
        Ok(done)
    }

    /// Drops all requests.
    pub fn clear(&mut self) {
        self.running.clear();
        self.waiting.clear();
        self.blocks = Blocks::new(self.settings.blocks, self.settings.block_len);
    }

    /// Drops a request; nothing more comes of it.
    pub fn cancel(&mut self, number: usize) {
        for branch in self.running.iter_mut().chain(&mut self.waiting) {
            branch.members.retain(|member| member.number() != number);
            if branch.members.is_empty() {
                self.blocks.release(&mut branch.blocks);
            }
        }
        self.running.retain(|branch| !branch.members.is_empty());
        self.waiting.retain(|branch| !branch.members.is_empty());
    }

    /// Shows what every request that is not finished has so far: by its number, its machine and
    /// the scores of its sampled ids.
    pub fn look(&self, each: &mut dyn FnMut(usize, &Forcing, &[Scored])) {
        for member in self.running.iter().chain(&self.waiting).flat_map(|branch| &branch.members) {
            let (forcing, scored) = member.so_far();
            each(member.number(), forcing, scored);
        }
    }

    /// Branches that run, and that wait.
    pub fn load(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    /// Blocks of the cache that some request has.
    pub fn blocks_in_use(&self) -> usize {
        self.blocks.count() - self.blocks.free()
    }

    /// Fills free slots, as long as the cache has room for what is to be computed next.
    fn refill(&mut self) {
        while self.running.len() < self.settings.slots {
            let Some(branch) = self.waiting.front() else { return };
            let missing = self.blocks.needed(branch.ids.len() + 1) - branch.blocks.len();
            // One block to spare for each that runs, lest the new one soon has to go again.
            let free = self.blocks.free().saturating_sub(self.running.len());
            if missing > free && !self.running.is_empty() {
                return;
            }
            self.running.extend(self.waiting.pop_front());
        }
    }

    /// How many ids each running branch computes in the next pass, with blocks for them. The
    /// oldest choose first; what finds no blocks any more goes back to wait.
    fn plan(&mut self) -> Vec<usize> {
        let mut rows = Vec::new();
        let mut chunk = self.settings.prefill_chunk;
        while rows.len() < self.running.len() {
            let n = rows.len();
            let unseen = self.running[n].unseen().len();
            let most = if self.running[n].unscored.is_empty() { chunk } else { chunk.min(SCORED) };
            let now = if unseen == 1 { 1 } else { unseen.min(most) };
            if now == 0 || self.reserve(n, now) {
                chunk -= if unseen == 1 { 0 } else { now };
                rows.push(now);
            }
        }
        rows
    }

    /// Finds blocks for the next `rows` ids of the running branch `n`, if need be those of younger
    /// ones. False if it is itself the youngest and had to wait.
    fn reserve(&mut self, n: usize, rows: usize) -> bool {
        loop {
            let Branch { cached, blocks, .. } = &mut self.running[n];
            let model = &mut self.model;
            if self.blocks.reserve(blocks, *cached, *cached + rows, |copy| model.copy(copy)) {
                return true;
            }
            if self.evict(|owners, _| owners == 1) {
                continue;
            }
            if self.running.len() > 1 {
                // It keeps its blocks until somebody takes the last one.
                self.waiting.push_front(self.running.pop().expect("branch n runs"));
                if self.running.len() == n {
                    return false;
                }
                continue;
            }
            // Many who wait have to compute a block again that they share; or it is shared with
            // the branch itself, which needs no copy of its own once nobody else has it.
            let evicted = self.evict(|owners, of_waiting| owners == of_waiting);
            assert!(evicted || self.evict(|_, _| true), "the cache holds what was let in");
        }
    }

    /// Takes the last block away from one of those who wait, rather from the last in line, and from
    /// all who wait and share it: one that `may` go by the number of its owners, and of those among
    /// them who wait. False if there is none.
    fn evict(&mut self, may: impl Fn(u32, u32) -> bool) -> bool {
        let mut ends: BTreeMap<usize, u32> = BTreeMap::new();
        for block in self.waiting.iter().filter_map(|branch| branch.blocks.last()) {
            *ends.entry(*block).or_default() += 1;
        }
        let mut lasts = self.waiting.iter().rev().filter_map(|branch| branch.blocks.last());
        let victim = lasts.find(|block| may(self.blocks.owners(**block), ends[block]));
        let Some(victim) = victim.copied() else { return false };
        for branch in self.waiting.iter_mut().filter(|b| b.blocks.last() == Some(&victim)) {
            let kept = (branch.blocks.len() - 1) * self.settings.block_len;
            self.blocks.cut(&mut branch.blocks, kept);
            branch.cached = branch.cached.min(kept);
            self.statistics.evictions += 1;
        }
        true
    }

    /// Counts what the pass has computed and lets the members of every branch that it finished
    /// choose their next ids.
    fn settle(&mut self, rows: &[usize], wanted: usize) -> Result<Vec<(usize, Completion)>> {
        let width = self.logits.len() / wanted.max(1);
        let known = width.min(self.tokenizer.vocab_size() as usize);
        for row in self.logits.chunks_mut(width.max(1)) {
            self.tokenizer.gaps().iter().for_each(|&id| row[id as usize] = f32::NEG_INFINITY);
        }
        let (mut done, mut at) = (Vec::new(), 0);
        let mut goes_on = Vec::new();
        for (mut branch, &rows) in std::mem::take(&mut self.running).into_iter().zip(rows) {
            let of_branch = &self.logits[at * width..][..branch.wanted(rows) * width];
            at += branch.wanted(rows);
            let start = branch.cached;
            self.statistics.computed(branch.compute(rows), rows, branch.members.len());
            branch.score(start, of_branch, width, known);
            if !branch.unseen().is_empty() {
                goes_on.push(branch);
                continue;
            }
            // Rows of the model that its tokenizer has no text for are never chosen (vLLM refuses a
            // sequence in which they occur): ids from `known` on, and gaps before.
            let logits = &of_branch[of_branch.len() - width..][..known];
            let parting = branch.part(logits, &self.tokenizer)?;
            self.statistics.sampled += parting.sampled;
            let Parting { groups, done: finished, .. } = parting;
            done.extend(finished);
            goes_on.extend(self.branch_out(branch, groups));
        }
        self.running = goes_on;
        Ok(done)
    }

    /// Each group goes on from the branch's ids: the first in its slot, the others as soon as
    /// there is one. None if there is no group: the slot is free.
    fn branch_out(
        &mut self,
        mut branch: Branch,
        groups: Vec<(Next, Vec<branch::Member>)>,
    ) -> Option<Branch> {
        let mut groups = groups.into_iter();
        let Some((next, members)) = groups.next() else {
            self.blocks.release(&mut branch.blocks);
            return None;
        };
        for (next, members) in groups.rev() {
            let ids = branch.ids.clone();
            let Branch { cached, seen, ref unscored, .. } = branch;
            let (blocks, unscored) = (Vec::new(), unscored.clone());
            let mut other = Branch { ids, cached, seen, blocks, members, unscored };
            other.go_on(&next);
            other.blocks = self.blocks.share(&branch.blocks, other.cached);
            self.waiting.push_front(other);
        }
        branch.go_on(&next);
        self.blocks.cut(&mut branch.blocks, branch.cached);
        branch.members = members;
        Some(branch)
    }

    /// [`Generate::generate`]; what is left after an error is still there.
    fn answer(
        &mut self,
        requests: &[Request],
        each: &mut dyn FnMut(usize, Completion) -> Result<()>,
    ) -> Result<()> {
        let mut by_prompt: BTreeMap<&[i64], Vec<usize>> = BTreeMap::new();
        for (number, request) in requests.iter().enumerate() {
            by_prompt.entry(&request.prompt).or_default().push(number);
        }
        // In the order in which the prompts came first.
        let mut groups: Vec<Vec<usize>> = by_prompt.into_values().collect();
        groups.sort_unstable();
        for group in groups {
            let group: Vec<_> = group.into_iter().map(|n| (n, &requests[n])).collect();
            for (number, completion) in self.submit(&group)? {
                each(number, completion)?;
            }
        }
        while !self.is_idle() {
            for (number, completion) in self.step()? {
                each(number, completion)?;
            }
        }
        Ok(())
    }
}

impl<M: Model> Generate for Engine<M> {
    fn generate(
        &mut self,
        requests: &[Request],
        each: &mut dyn FnMut(usize, Completion) -> Result<()>,
    ) -> Result<()> {
        let answered = self.answer(requests, each);
        if answered.is_err() {
            self.clear();
        }
        answered
    }

    fn summary(&self) -> String {
        self.statistics.to_string()
    }
}
