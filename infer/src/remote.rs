//! The same requests over an OpenAI-compatible server (vLLM, SGLang, llama.cpp's, our own).
//!
//! A server samples a whole round at once: up to the next limit of budget forcing, or an end of
//! thinking or answer. The round's ids then go through the same [`Forcing`] one by one, and what
//! it forces opens the next round, which waits for nobody else's. Many requests are under way at a
//! time; replies are kept, so that a run that was stopped goes on where it was.
//!
//! With `token_ids` the server takes ids and gives ids back (vLLM's `return_token_ids`), and what
//! it is asked is what the engine does. Otherwise prompts are text, and replies are tokenised here:
//! their ids may differ from those that the server sampled, and lack a stop text at the end if the
//! server does not say which end it was. Nothing is then sent that is not in OpenAI's own interface.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::iter;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use endpoint::{Client, Reply};
use model::Tokenizer;
use serde_json::Value;

use crate::budget::{Action, Forcing, Round};
use crate::config;
use crate::engine::stop::Stop;
use crate::engine::{Completion, Generate, Request};

/// A server with the tokenizer of its model.
pub struct Remote {
    client: Client,
    tokenizer: Arc<Tokenizer>,
    token_ids: bool,
    replies: u64,
}

/// A request under way.
struct Job<'a> {
    request: &'a Request,
    forcing: Forcing,
    stop: Stop,
    /// Prompt and all behind it: what the next round goes on from.
    ids: Vec<i64>,
}

impl Job<'_> {
    /// The texts that end the round because they end the answer.
    fn answer_stops(&self) -> &[String] {
        let counts = !self.forcing.is_thinking() && self.forcing.round().min_tokens == 0;
        if counts { &self.request.stop } else { &[] }
    }
}

/// OpenAI's interface takes so many stops and no more.
const OPENAI_STOPS: usize = 4;

impl Remote {
    /// Reads no key and asks nothing yet.
    pub fn open(endpoint: &config::Endpoint, tokenizer: Arc<Tokenizer>) -> Result<Self> {
        let mut settings = endpoint.server.clone();
        // A completion comes in one piece: the server is silent until it is whole.
        settings.first_byte_timeout_s = settings.total_timeout_s;
        let client = Client::open(settings, &endpoint.cache).context("endpoint")?;
        Ok(Remote { client, tokenizer, token_ids: endpoint.token_ids, replies: 0 })
    }

    /// What to ask a server for the next round of the job with this number.
    fn ask(&self, number: usize, job: &Job) -> Result<endpoint::Request> {
        let Round { max_tokens, min_tokens, until, until_texts, refused } = job.forcing.round();
        // A minimum is no part of the standard, but a bias is: it holds for the whole reply, which
        // therefore ends with the minimum.
        let never = if self.token_ids { refused.to_vec() } else { job.forcing.banned() };
        let most = if refused.is_empty() { min_tokens } else { 1 };
        let max_tokens = if never.is_empty() { max_tokens } else { max_tokens.min(most) };
        let prompt = if self.token_ids {
            Value::from(job.ids.as_slice())
        } else {
            Value::from(self.tokenizer.decode(&job.ids)?)
        };
        let max_tokens = u32::try_from(max_tokens).unwrap_or(u32::MAX);
        let mut ask = endpoint::Request::completion(number.to_string(), prompt, max_tokens);
        let sampling = &job.request.sampling;
        ask.temperature = sampling.temperature;
        if sampling.temperature > 0.0 {
            // Another seed for each round and try, and one that any server's integers hold.
            let round = format!("{} {}", job.forcing.tries(), job.ids.len());
            let mut rng = record::seed::rng(job.request.seed, &["round", &round]);
            ask.seed = Some(rng.next_u64() >> 33);
        }
        let mut set = |name: &str, value: Value| drop(ask.extra.insert(name.into(), value));
        if sampling.top_p < 1.0 {
            set("top_p", sampling.top_p.into());
        }
        if sampling.top_k > 0 {
            set("top_k", sampling.top_k.into());
        }
        if sampling.min_p > 0.0 {
            set("min_p", sampling.min_p.into());
        }
        if sampling.repetition_penalty != 1.0 {
            set("repetition_penalty", sampling.repetition_penalty.into());
        }
        if !never.is_empty() {
            let bias = never.iter().map(|id| (id.to_string(), Value::from(-100)));
            set("logit_bias", Value::Object(bias.collect()));
        }
        let mut stop = Vec::new();
        if self.token_ids {
            // `until` alone ends a round, as in the engine, whatever the server's own defaults.
            set("stop_token_ids", until.into());
            set("ignore_eos", true.into());
            set("min_tokens", min_tokens.into());
            set("return_token_ids", true.into());
            set("skip_special_tokens", false.into());
        } else {
            for &id in until {
                stop.push(self.tokenizer.decode(&[id])?);
            }
        }
        stop.extend(until_texts.iter().chain(job.answer_stops()).cloned());
        if !self.token_ids {
            stop.truncate(OPENAI_STOPS); // the others are found in what the server writes
        }
        if !stop.is_empty() {
            set("stop", stop.into());
        }
        Ok(ask)
    }

    /// Takes a round into a job; true when the job is finished.
    fn take(&self, job: &mut Job, reply: &Reply) -> Result<bool> {
        let mut ids: Vec<i64> = if self.token_ids {
            let ids = &reply.raw["choices"][0]["token_ids"];
            serde_json::from_value(ids.clone()).context(
                "the server gives no token_ids; set endpoint.token_ids to false to send text",
            )?
        } else {
            self.tokenizer.encode_text(&reply.text)?
        };
        if reply.finish_reason == "stop" {
            self.complete(&mut ids, job, reply)?;
        }
        ensure!(!ids.is_empty(), "the server wrote nothing and does not say that it stopped");
        for id in ids {
            ensure!(
                (0..self.tokenizer.vocab_size()).contains(&id),
                "the server wrote token {id}, which the tokenizer of model.path does not have: \
                 is it another model's?"
            );
            let Action::Extend(next) = job.stop.accept(id, &mut job.forcing, &self.tokenizer)?
            else {
                return Ok(true);
            };
            job.ids.truncate(job.ids.len() - next.back);
            job.ids.extend(&next.ids);
            if next.back > 0 || next.ids != [id] {
                break; // what the server wrote behind it, it wrote for another sequence
            }
        }
        Ok(false)
    }

    /// Puts behind the ids of a round what ended it: servers leave it out, or say it apart, or have
    /// it at the end.
    fn complete(&self, ids: &mut Vec<i64>, job: &Job, reply: &Reply) -> Result<()> {
        let Round { min_tokens, until, until_texts, .. } = job.forcing.round();
        let text = self.tokenizer.decode(ids)?;
        let texts = until_texts.iter().chain(job.answer_stops());
        if ids.last().is_some_and(|id| until.contains(id))
            || texts.clone().any(|stop| text.contains(stop))
        {
            return Ok(());
        }
        let mut ends: Vec<Vec<i64>> = until.iter().map(|&id| vec![id]).collect();
        for stop in texts {
            ends.push(self.tokenizer.encode_fixed(stop)?);
        }
        let told = &reply.raw["choices"][0]["stop_reason"];
        let is_told = |end: &&Vec<i64>| {
            *told == end[0] || self.tokenizer.decode(end).is_ok_and(|text| *told == text)
        };
        // Who is not told may guess: one end is as good as another, but a minimum bans single ids.
        let banned = if ids.len() < min_tokens { until.len() } else { 0 };
        let end = ends.iter().find(is_told).or(ends.get(banned));
        ids.extend(end.context("the server stopped, and nothing was to stop it")?);
        Ok(())
    }

    fn finish(&self, job: Job) -> Result<Completion> {
        let outcome = job.forcing.outcome();
        let text = job.stop.text(&outcome.ids, &self.tokenizer)?;
        Ok(Completion { outcome, text, logprobs: vec![], prompt_logprobs: vec![] })
    }
}

impl Generate for Remote {
    fn generate(
        &mut self,
        requests: &[Request],
        each: &mut dyn FnMut(usize, Completion) -> Result<()>,
    ) -> Result<()> {
        let mut jobs: Vec<Option<Job>> = Vec::new();
        for (number, request) in requests.iter().enumerate() {
            let name = &request.name;
            request.sampling.check().with_context(|| name.clone())?;
            let scores = request.logprobs.or(request.prompt_logprobs);
            if scores.is_some() || !request.logit_bias.is_empty() {
                bail!(
                    "{name}: log-probabilities and biases come from the engine alone, not from a server"
                );
            }
            let (forcing, action) = Forcing::start(Arc::clone(&request.spec), request.prompt.len());
            let (stop, mut ids) = (Stop::new(&request.stop), request.prompt.to_vec());
            match action {
                Action::Stop => {
                    each(number, self.finish(Job { request, forcing, stop, ids })?)?;
                    jobs.push(None);
                }
                Action::Extend(next) => {
                    ids.extend(next.ids);
                    jobs.push(Some(Job { request, forcing, stop, ids }));
                }
            }
        }
        let open = jobs.iter().enumerate().filter_map(|(n, job)| Some((n, job.as_ref()?)));
        let asks = open.map(|(n, job)| self.ask(n, job)).collect::<Result<VecDeque<_>>>()?;
        let asks = RefCell::new(asks);
        let mut replies = 0;
        self.client.run(iter::from_fn(|| asks.borrow_mut().pop_front()), |ask, outcome| {
            let number: usize = ask.id.parse().expect("we numbered it");
            let slot = &mut jobs[number];
            let job = slot.as_mut().expect("only open jobs were asked for");
            let name = job.request.name.clone();
            let reply = outcome.map_err(|failure| anyhow!("{failure}"));
            let reply = reply.with_context(|| name.clone())?;
            replies += 1;
            if self.take(job, &reply).with_context(|| name)? {
                let job = slot.take().expect("it was there");
                return each(number, self.finish(job)?);
            }
            // Before those that have not begun: what is nearly done is kept first.
            asks.borrow_mut().push_front(self.ask(number, job)?);
            Ok(())
        })?;
        self.replies += replies;
        Ok(())
    }

    fn summary(&self) -> String {
        let server = &self.client.settings().base_url;
        format!("{server}: {} replies", self.replies)
    }
}
