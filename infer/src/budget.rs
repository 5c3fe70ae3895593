//! Budget forcing as a value: a pure state machine over token ids that says how a sequence goes on.
//!
//! It never sees a model or a string. Whoever decodes asks [`Forcing::start`] for the first
//! [`Action`], then hands every sampled id to [`Forcing::accept`] and does what comes back: the id
//! is accepted, replaced by others, or the sequence is complete.
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
//! with an error); stops are always single token ids, never strings.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// How requests are to be answered, all in token ids.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Opens thinking, `<|im_start|>think`.
    pub thinking_start: Vec<i64>,
    /// Opens the answer, `<|im_start|>answer`.
    pub thinking_end: Vec<i64>,
    /// `None` is plain generation: nothing is forced, the delimiters only tell thinking from
    /// answer in the [`Outcome`].
    pub thinking: Option<Thinking>,
    /// Any of these ends the answer.
    pub until: Vec<i64>,
    /// Ids of answer at most.
    pub max_gen_toks: usize,
    /// Ids of prompt, thinking and answer together at most.
    pub max_model_len: usize,
}

/// The forced stage of thinking.
#[derive(Debug, Clone)]
pub struct Thinking {
    /// The budget.
    pub max_tokens: MaxTokens,
    /// The ids of [`Thinking::until`] are banned for so many ids after the start and after every
    /// ignored end.
    pub min_tokens: usize,
    /// Any of these ends thinking.
    pub until: Vec<i64>,
    /// Ends of thinking that are ignored.
    pub n_ignore: usize,
    /// What stands in the place of an ignored end; may be empty.
    pub ignore: Vec<i64>,
    /// Opens the answer when the budget ran out, `<|im_start|>answer\nFinal Answer:`.
    pub thinking_end_max: Vec<i64>,
    /// Stands before `thinking_end_max`, unless the thinking already ends with a new line.
    pub newline: Vec<i64>,
    /// Every id whose text ends with a new line.
    pub ends_line: BTreeSet<i64>,
}

/// The limit on thinking, forced ids in it included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxTokens {
    /// So many ids.
    Count(usize),
    /// What `max_gen_toks` leaves when the prompt, the delimiters and 100 ids of answer are taken
    /// off.
    Auto,
}

/// What to do with a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Append these ids (there may be none), then sample the next.
    Extend(Vec<i64>),
    /// The sequence is complete.
    Stop,
}

/// Why a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The model ended it.
    Stop,
    /// Its limit was reached.
    Length,
    /// The model's context was full.
    Context,
}

/// A finished sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Everything behind the prompt, forced ids included, without the stop id at the end.
    pub ids: Vec<i64>,
    /// Which of `ids` are thinking, without the delimiters.
    pub thinking: Range<usize>,
    /// Which of `ids` are the answer that was sampled.
    pub answer: Range<usize>,
    /// How thinking ended; `None` in plain generation.
    pub thinking_ending: Option<Ending>,
    /// How the sequence ended.
    pub ending: Ending,
}

impl Spec {
    /// The thinking budget of a request with a prompt of `prompt_len` ids; `None` if nothing is
    /// forced.
    pub fn max_tokens_thinking(&self, prompt_len: usize) -> Option<usize> {
        const LEFT_FOR_ANSWER: usize = 100; // s1's number
        self.thinking.as_ref().map(|thinking| match thinking.max_tokens {
            MaxTokens::Count(count) => count,
            MaxTokens::Auto => {
                let delimiters = self.thinking_start.len() + thinking.thinking_end_max.len();
                self.max_gen_toks.saturating_sub(prompt_len + delimiters + LEFT_FOR_ANSWER)
            }
        })
    }

    /// The ids of prompt and delimiters when nothing is thought: any answer makes it more
    /// (thinking that ends by itself is closed with fewer).
    pub fn least_len(&self, prompt_len: usize) -> usize {
        let closing = |thinking: &Thinking| {
            self.thinking_start.len() + thinking.newline.len() + thinking.thinking_end_max.len()
        };
        prompt_len + self.thinking.as_ref().map_or(0, closing)
    }
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
}

#[derive(Debug, Clone)]
enum Stage {
    Thinking {
        budget: usize,
        ignores_left: usize,
        /// Where the running round began in the ids.
        round_start: usize,
    },
    Answer,
    Done(Ending),
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
            stage: Stage::Answer,
            spec,
        };
        if let Some(thinking) = &forcing.spec.thinking {
            let ignores_left = thinking.n_ignore;
            let budget = forcing.spec.max_tokens_thinking(prompt_len).unwrap_or_default();
            forcing.ids.extend(&forcing.spec.thinking_start);
            let round_start = forcing.ids.len();
            forcing.thinking = round_start..round_start;
            forcing.stage = Stage::Thinking { budget, ignores_left, round_start };
        }
        let action = forcing.go_on(0);
        (forcing, action)
    }

    /// The ids behind the prompt so far.
    pub fn ids(&self) -> &[i64] {
        &self.ids
    }

    /// What may be sampled next.
    pub fn round(&self) -> Round<'_> {
        let room = self.spec.max_model_len.saturating_sub(self.prompt_len + self.ids.len());
        let (left, min_tokens, until) = match (&self.stage, &self.spec.thinking) {
            (Stage::Thinking { budget, round_start, .. }, Some(thinking)) => {
                let written = self.ids.len() - round_start;
                let min_tokens = thinking.min_tokens.saturating_sub(written);
                (budget - self.thinking.len(), min_tokens, &thinking.until)
            }
            (Stage::Done(_), _) => (0, 0, &self.spec.until),
            _ => {
                let answer = self.ids.len() - self.answer_start;
                (self.spec.max_gen_toks - answer, 0, &self.spec.until)
            }
        };
        Round { max_tokens: left.min(room), min_tokens, until }
    }

    /// Ids that must not be sampled next.
    pub fn banned(&self) -> &[i64] {
        let Round { min_tokens, until, .. } = self.round();
        if min_tokens > 0 { until } else { &[] }
    }

    /// Takes the id that was sampled and says how the sequence goes on.
    pub fn accept(&mut self, id: i64) -> Action {
        let from = self.ids.len();
        let stops = self.round().until.contains(&id);
        match &mut self.stage {
            Stage::Done(_) => panic!("an id was sampled for a sequence that is complete"),
            _ if !stops => self.ids.push(id),
            Stage::Answer => self.stage = Stage::Done(Ending::Stop),
            Stage::Thinking { ignores_left: 0, .. } => {
                return self.close_thinking(Ending::Stop, from);
            }
            Stage::Thinking { budget, ignores_left, round_start } => {
                let room = *budget - (from - self.thinking.start);
                let ignore = self.spec.thinking.iter().flat_map(|thinking| &thinking.ignore);
                self.ids.extend(ignore.take(room));
                *ignores_left -= 1;
                *round_start = self.ids.len();
            }
        }
        self.go_on(from)
    }

    /// The ids of the answer so far; none while thinking.
    pub fn answer(&self) -> &[i64] {
        match self.stage {
            Stage::Thinking { .. } => &[],
            _ => &self.ids[self.answer_start..],
        }
    }

    /// Ends the answer here: something in it, which is no single id, says so.
    pub fn stop_answer(&mut self) {
        assert!(!matches!(self.stage, Stage::Thinking { .. }), "there is no answer to stop yet");
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
            ids: self.ids,
        };
        if self.spec.thinking.is_none() {
            tell_apart(&mut outcome, &self.spec);
        }
        outcome
    }

    /// Looks at the limits before the next id is sampled; `ids[from..]` are new to the decoder.
    fn go_on(&mut self, from: usize) -> Action {
        let full = self.prompt_len + self.ids.len() >= self.spec.max_model_len;
        match self.stage {
            Stage::Thinking { budget, .. } => {
                self.thinking.end = self.ids.len();
                if self.thinking.len() >= budget {
                    return self.close_thinking(Ending::Length, from);
                }
                if full {
                    return self.overflow();
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
            _ => Action::Extend(self.ids[from..].to_vec()),
        }
    }

    /// Opens the answer as is fit for the way in which thinking ended.
    fn close_thinking(&mut self, ending: Ending, from: usize) -> Action {
        let Some(thinking) = &self.spec.thinking else {
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
            closing.extend(&self.spec.thinking_end);
        }
        if self.prompt_len + self.ids.len() + closing.len() > self.spec.max_model_len {
            return self.overflow();
        }
        self.thinking_ending = Some(ending);
        self.ids.extend(closing);
        self.answer_start = self.ids.len();
        self.stage = Stage::Answer;
        self.go_on(from)
    }

    /// The context is full before an answer could begin.
    fn overflow(&mut self) -> Action {
        self.thinking_ending = Some(Ending::Context);
        self.answer_start = self.ids.len();
        self.stage = Stage::Done(Ending::Context);
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
