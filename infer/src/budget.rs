//! Budget forcing as a value: a pure state machine over token ids that says how a sequence goes on.
//!
//! It never sees a model, and reads no text. Whoever decodes asks [`Forcing::start`] for the first
//! [`Action`], then hands every sampled id to [`Forcing::accept`] and does what comes back: the id
//! is accepted, replaced by others, or the sequence is complete. Ends of thinking that are no
//! single id are found by whoever knows the tokenizer ([`crate::engine::stop`]) and handed to
//! [`Forcing::accept_end`].
//!
//! The procedure is that of s1's evaluation harness (`vllm_causallms.py`, `_model_generate`, of
//! simplescaling/s1 at commit 77272c6): thinking is opened with `<|im_start|>think`; an end of
//! thinking is ignored `n_ignore` times, each time with "Wait" or the like in its place; then the
//! answer is opened with `<|im_start|>answer`, or, where the budget ran out, with a new line,
//! `<|im_start|>answer` and `Final Answer:`.
//!
//! The harness gives every round of thinking the same `max_tokens`, and afterwards cuts all rounds
//! together to that many ids. What a round writes beyond the budget therefore never reaches the
//! answer, and this machine ends thinking when the budget is reached: the same ids for less work.
//!
//! Differs from s1: thinking that was cut so is closed like any other that ran out (the harness
//! may close it as if it had ended by itself, and logs the text uncut); `auto` is reckoned for
//! each request, not from the longest prompt of its batch; a budget of 0 works (the harness stops
//! with an error); a stop that is one token is looked for by its id, never by its text; one of
//! several tokens may be ignored and may have a minimum before it (the harness refuses both), and
//! its ids are always taken back (the harness leaves them if they are not those of the stop's text
//! alone).
//!
//! s1's README has a second procedure, [`Procedure::Readme`], and s1's rejection sampling is a
//! third way to spend a budget, [`Thinking::tries`].

mod spec;

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use spec::{LEFT_FOR_ANSWER, MaxTokens, Procedure, Spec, Thinking};

/// What to do with a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Change the ids so, then sample the next.
    Extend(Next),
    /// The sequence is complete.
    Stop,
}

/// A change at the end of the ids. If it is none at all, another id is sampled in the place of the
/// one that was shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Next {
    /// So many of the last ids are taken back: the beginning of a stop, or a rejected try.
    pub back: usize,
    /// Then these are appended.
    pub ids: Vec<i64>,
}

/// Why a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// The model ended it.
    Stop,
    /// Its limit was reached.
    Length,
    /// The model's context was full.
    Context,
}

/// A finished sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Everything behind the prompt, forced ids included, without the stop id at the end.
    pub ids: Vec<i64>,
    /// Which of `ids` are thinking, without the delimiters.
    pub thinking: Range<usize>,
    /// Which of `ids` are the answer that was sampled.
    pub answer: Range<usize>,
    /// How thinking ended; `None` in plain generation.
    pub thinking_ending: Option<Ending>,
    /// How the sequence ended. Rejected to the last try, it is `Length` without any answer.
    pub ending: Ending,
    /// How many times thinking was begun: 1 without rejection sampling.
    pub tries: usize,
    /// Which of `ids` were not sampled: ascending, none empty, none touching the next.
    pub forced: Vec<Range<usize>>,
}

/// The state of one request.
#[derive(Debug, Clone)]
pub struct Forcing {
    spec: Arc<Spec>,
    prompt_len: usize,
    ids: Vec<i64>,
    thinking: Range<usize>,
    thinking_ending: Option<Ending>,
    answer_start: usize,
    tries: usize,
    forced: Vec<Range<usize>>,
    held: usize,
    stage: Stage,
}

/// What may be sampled in one go: more ids need not be shown to the machine at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round<'a> {
    /// Ids that can be sampled before a limit is reached.
    pub max_tokens: usize,
    /// For so many ids, none of `until` may be sampled.
    pub min_tokens: usize,
    /// Any of these ends the round.
    pub until: &'a [i64],
    /// So does any of these texts in what the round samples.
    pub until_texts: &'a [String],
    /// None of these may be sampled next; after that, all may again.
    pub refused: &'a [i64],
}

#[derive(Debug, Clone)]
enum Stage {
    Thinking(Thought),
    Answer,
    Done(Ending),
}

/// Where thinking stands.
#[derive(Debug, Clone, Default)]
struct Thought {
    /// Ids that the budget still allows.
    left: usize,
    ignores_left: usize,
    /// Where the running round began in the ids.
    round_start: usize,
    /// Ids that were sampled next, and may not be.
    refused: Vec<i64>,
}

impl Forcing {
    /// A request whose prompt has `prompt_len` ids, and what to do first.
    pub fn start(spec: Arc<Spec>, prompt_len: usize) -> (Self, Action) {
        let mut forcing = Forcing {
            prompt_len,
            ids: Vec::new(),
            thinking: 0..0,
            thinking_ending: None,
            answer_start: 0,
            tries: 1,
            forced: Vec::new(),
            held: 0,
            stage: Stage::Answer,
            spec: Arc::clone(&spec),
        };
        if spec.thinking.is_some() {
            if prompt_len + spec.thinking_start.len() > spec.max_model_len {
                let action = forcing.give_up(Ending::Context);
                return (forcing, action);
            }
            forcing.force(&spec.thinking_start);
            forcing.think();
        }
        let action = forcing.go_on(0, 0);
        (forcing, action)
    }

    /// Appends ids that are not sampled.
    fn force(&mut self, ids: &[i64]) {
        let new = self.ids.len()..self.ids.len() + ids.len();
        self.ids.extend(ids);
        match self.forced.last_mut() {
            Some(last) if last.end == new.start => last.end = new.end,
            _ if ids.is_empty() => {}
            _ => self.forced.push(new),
        }
    }

    /// Thinking begins behind the ids.
    fn think(&mut self) {
        let round_start = self.ids.len();
        let left = self.spec.max_tokens_thinking(self.prompt_len).unwrap_or_default();
        let ignores_left = self.spec.thinking.as_ref().map_or(0, |thinking| thinking.n_ignore);
        self.thinking = round_start..round_start;
        let refused = Vec::new();
        self.stage = Stage::Thinking(Thought { left, ignores_left, round_start, refused });
    }

    /// The ids behind the prompt so far.
    pub fn ids(&self) -> &[i64] {
        &self.ids
    }

    /// The ids that the running round of thinking has sampled so far; none in the answer.
    pub fn round_ids(&self) -> &[i64] {
        match &self.stage {
            Stage::Thinking(thought) => &self.ids[thought.round_start..],
            _ => &[],
        }
    }

    /// How many of the ids will not be taken back any more.
    pub fn settled(&self) -> usize {
        let (Stage::Thinking(thought), Some(thinking)) = (&self.stage, &self.spec.thinking) else {
            return self.ids.len();
        };
        if thinking.tries.is_some() {
            return self.thinking.start;
        }
        // An id has at least a byte of text.
        let longest = thinking.until_texts.iter().map(String::len).max().unwrap_or(0);
        self.ids.len().saturating_sub(longest).max(thought.round_start)
    }

    /// How many of the ids before the last one that was sampled were not taken back for it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Whether `id` stands at the place `at`, and was sampled.
    pub fn has_sampled(&self, at: usize, id: i64) -> bool {
        let forced = self.forced.iter().any(|range| range.contains(&at));
        self.ids.get(at) == Some(&id) && !forced
    }

    /// How many times thinking was begun so far.
    pub fn tries(&self) -> usize {
        self.tries
    }

    /// What may be sampled next.
    pub fn round(&self) -> Round<'_> {
        let room = self.spec.max_model_len.saturating_sub(self.prompt_len + self.ids.len());
        let answer = Round {
            max_tokens: 0,
            min_tokens: 0,
            until: &self.spec.until,
            until_texts: &[],
            refused: &[],
        };
        match (&self.stage, &self.spec.thinking) {
            (Stage::Thinking(thought), Some(thinking)) => {
                let min_tokens = match thinking.procedure {
                    Procedure::Harness => thinking.min_tokens,
                    Procedure::Readme => usize::from(thought.ignores_left < thinking.n_ignore),
                };
                Round {
                    max_tokens: thought.left.min(room),
                    min_tokens: min_tokens.saturating_sub(self.ids.len() - thought.round_start),
                    until: &thinking.until,
                    until_texts: &thinking.until_texts,
                    refused: &thought.refused,
                }
            }
            (Stage::Done(_), _) => answer,
            _ => {
                let written = self.ids.len() - self.answer_start;
                let left = self.spec.max_gen_toks - written;
                let min_tokens = self.spec.min_gen_toks.saturating_sub(written);
                Round { max_tokens: left.min(room), min_tokens, ..answer }
            }
        }
    }

    /// Ids that must not be sampled next.
    pub fn banned(&self) -> Vec<i64> {
        let Round { min_tokens, until, refused, .. } = self.round();
        [if min_tokens > 0 { until } else { &[] }, refused].concat()
    }

    /// Takes the id that was sampled and says how the sequence goes on.
    pub fn accept(&mut self, id: i64) -> Action {
        let before = self.ids.len();
        self.held = before;
        let stops = self.round().until.contains(&id);
        match &mut self.stage {
            Stage::Done(_) => panic!("an id was sampled for a sequence that is complete"),
            Stage::Answer if stops => self.stage = Stage::Done(Ending::Stop),
            Stage::Thinking(_) if stops => return self.end_round(before, before),
            Stage::Answer => self.ids.push(id),
            Stage::Thinking(thought) => {
                self.ids.push(id);
                thought.left -= 1;
                thought.refused.clear();
            }
        }
        self.go_on(before, before)
    }

    /// Takes an id that was sampled in thinking and completes one of [`Thinking::until_texts`]. The
    /// text takes the last `len` ids, this one included; `kept` are those of what the first of
    /// them has before it.
    pub fn accept_end(&mut self, id: i64, len: usize, kept: &[i64]) -> Action {
        let before = self.ids.len();
        let too_early = self.round().min_tokens > 0;
        let (Stage::Thinking(thought), Some(thinking)) = (&mut self.stage, &self.spec.thinking)
        else {
            panic!("thinking ends that has not begun")
        };
        self.held = before;
        if too_early {
            thought.refused.push(id);
            return Action::Extend(Next::default());
        }
        let from = before + 1 - len;
        let first = self.ids.get(from).copied().unwrap_or(id);
        self.held = from;
        self.ids.truncate(from);
        self.ids.extend(kept);
        if thinking.procedure == Procedure::Harness {
            thought.left = (thought.left + before).saturating_sub(self.ids.len());
        }
        // Ignored without a string, it would be written again.
        let again = thinking.ignore.is_empty() && kept.is_empty();
        let action = self.end_round(before, from);
        if let Stage::Thinking(thought) = &mut self.stage
            && again
        {
            thought.refused = vec![first];
        }
        action
    }

    /// The model ends thinking here, be it ignored or not.
    fn end_round(&mut self, before: usize, from: usize) -> Action {
        let spec = Arc::clone(&self.spec);
        let (Stage::Thinking(thought), Some(thinking)) = (&mut self.stage, &spec.thinking) else {
            panic!("thinking ends that has not begun")
        };
        let readme = thinking.procedure == Procedure::Readme;
        thought.left -= usize::from(readme);
        self.thinking.end = self.ids.len();
        if thought.ignores_left == 0 || (readme && thought.left == 0) {
            return self.close_thinking(Ending::Stop, before, from);
        }
        let room = if readme { usize::MAX } else { thought.left };
        let ignore = &thinking.ignore[..room.min(thinking.ignore.len())];
        if self.prompt_len + self.ids.len() + ignore.len() > spec.max_model_len {
            return self.give_up(Ending::Context);
        }
        thought.left -= if readme { 0 } else { ignore.len() };
        thought.ignores_left -= 1;
        thought.round_start = self.ids.len() + ignore.len();
        thought.refused.clear();
        self.force(ignore);
        self.go_on(before, from)
    }

    /// Whether the answer has not begun.
    pub fn is_thinking(&self) -> bool {
        matches!(self.stage, Stage::Thinking(_))
    }

    /// The ids of the answer so far; none while thinking.
    pub fn answer(&self) -> &[i64] {
        match self.stage {
            Stage::Thinking(_) => &[],
            _ => &self.ids[self.answer_start..],
        }
    }

    /// Ends the answer here: something in it, which is no single id, says so.
    pub fn stop_answer(&mut self) {
        assert!(!matches!(self.stage, Stage::Thinking(_)), "there is no answer to stop yet");
        self.stage = Stage::Done(Ending::Stop);
    }

    /// The finished sequence.
    pub fn outcome(self) -> Outcome {
        let Stage::Done(ending) = self.stage else {
            panic!("the outcome of a sequence that is not complete")
        };
        let mut outcome = Outcome {
            thinking: self.thinking,
            answer: self.answer_start..self.ids.len(),
            thinking_ending: self.thinking_ending,
            ending,
            tries: self.tries,
            forced: self.forced,
            ids: self.ids,
        };
        if self.spec.thinking.is_none() {
            tell_apart(&mut outcome, &self.spec);
        }
        outcome
    }

    /// Looks at the limits before the next id is sampled. The decoder has seen `before` ids, of
    /// which the first `from` still hold.
    fn go_on(&mut self, before: usize, from: usize) -> Action {
        let full = self.prompt_len + self.ids.len() >= self.spec.max_model_len;
        match &self.stage {
            Stage::Thinking(thought) => {
                self.thinking.end = self.ids.len();
                let spent = thought.left == 0;
                if (spent || full) && self.spec.thinking.as_ref().is_some_and(|t| t.tries.is_some())
                {
                    return self.reject(before);
                }
                if spent {
                    return self.close_thinking(Ending::Length, before, from);
                }
                if full {
                    return self.give_up(Ending::Context);
                }
            }
            Stage::Answer if self.ids.len() - self.answer_start >= self.spec.max_gen_toks => {
                self.stage = Stage::Done(Ending::Length);
            }
            Stage::Answer if full => self.stage = Stage::Done(Ending::Context),
            Stage::Answer | Stage::Done(_) => {}
        }
        match self.stage {
            Stage::Done(_) => Action::Stop,
            _ => Action::Extend(Next { back: before - from, ids: self.ids[from..].to_vec() }),
        }
    }

    /// Thinks anew, unless there were tries enough, or nothing can be thought at all.
    fn reject(&mut self, before: usize) -> Action {
        let tries = self.spec.thinking.as_ref().and_then(|thinking| thinking.tries).unwrap_or(1);
        if self.tries >= tries || self.thinking.is_empty() {
            return self.give_up(Ending::Length);
        }
        self.tries += 1;
        self.ids.truncate(self.thinking.start);
        self.held = self.ids.len();
        self.forced.retain(|range| range.end <= self.thinking.start);
        self.think();
        Action::Extend(Next { back: before - self.ids.len(), ids: Vec::new() })
    }

    /// Opens the answer as is fit for the way in which thinking ended.
    fn close_thinking(&mut self, ending: Ending, before: usize, from: usize) -> Action {
        let spec = Arc::clone(&self.spec);
        let Some(thinking) = &spec.thinking else {
            panic!("thinking is closed that was not asked for")
        };
        let mut closing: Vec<i64> = Vec::new();
        if ending == Ending::Length {
            let last = self.ids[self.thinking.clone()].last();
            if !last.is_some_and(|id| thinking.ends_line.contains(id)) {
                closing.extend(&thinking.newline);
            }
            closing.extend(&thinking.thinking_end_max);
        } else {
            closing.extend(&spec.thinking_end);
        }
        if self.prompt_len + self.ids.len() + closing.len() > self.spec.max_model_len {
            return self.give_up(Ending::Context);
        }
        self.thinking_ending = Some(ending);
        self.force(&closing);
        self.answer_start = self.ids.len();
        self.stage = Stage::Answer;
        self.go_on(before, from)
    }

    /// There will be no answer.
    fn give_up(&mut self, ending: Ending) -> Action {
        self.thinking_ending = Some(ending);
        self.answer_start = self.ids.len();
        self.stage = Stage::Done(ending);
        Action::Stop
    }
}

/// Tells thinking from answer in plain generation, as s1's statistics do: all before the first
/// delimiter of the answer is thinking.
fn tell_apart(outcome: &mut Outcome, spec: &Spec) {
    let end = &spec.thinking_end;
    let found = outcome.ids.windows(end.len().max(1)).position(|window| window == end.as_slice());
    let thinking_end = found.unwrap_or(outcome.ids.len());
    let opened = outcome.ids[..thinking_end].starts_with(&spec.thinking_start);
    outcome.thinking = if opened { spec.thinking_start.len() } else { 0 }..thinking_end;
    outcome.answer = found.map_or(thinking_end, |at| at + end.len())..outcome.ids.len();
}
