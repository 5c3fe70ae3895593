//! What a request's body asks for, as requests of the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, anyhow, ensure};
use model::chat::Chat;
use serde::Deserialize;
use serde_json::Value;

use super::fields::{self, Fields};
use super::refusal::Refusal;
use crate::budget::{LEFT_FOR_ANSWER, MaxTokens, Spec};
use crate::config::{self, Budget, Generation};
use crate::engine::{Request, Sampling};
use crate::run;

/// A prompt of more bytes for each position of the model than this is refused unread.
const BYTES_PER_TOKEN: usize = 64;
/// Completions of one prompt at most, and prompts of one request.
const MOST_SAMPLES: usize = 128;
const MOST_PROMPTS: usize = 1024;
/// vLLM's limit, and OpenAI's.
const MOST_LOGPROBS: usize = 20;

/// How much to think where a request does not say; the names are those of its body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThinkingKeys {
    /// Thinking is ended after so many tokens.
    pub max_thinking_tokens: Option<usize>,
    /// Thinking cannot end before so many.
    pub min_thinking_tokens: Option<usize>,
    /// So many ends of thinking are ignored.
    pub num_ignore: Option<usize>,
    /// What stands in the place of each; "Wait" by default.
    pub ignore_str: Option<String>,
}

/// What the server knows besides the body.
#[derive(Debug)]
pub struct House {
    /// The model's tokenizer and template.
    pub chat: Chat,
    /// What requests call the model.
    pub name: String,
    /// A request in which nothing is forced, and one in which thinking is.
    pub plain: Arc<Spec>,
    /// See there.
    pub forced: Arc<Spec>,
    /// Where the body says nothing.
    pub sampling: Sampling,
    /// Texts that end an answer besides the body's.
    pub stop: Vec<String>,
    /// Of chat requests.
    pub thinking: ThinkingKeys,
    /// For requests without a seed.
    pub seed: u64,
    /// Requests without a seed so far.
    pub unseeded: AtomicU64,
}

/// A request's body, understood.
#[derive(Debug)]
pub struct Asked {
    /// Prompt by prompt, `n` completions each.
    pub requests: Vec<Request>,
    /// Completions of each prompt.
    pub n: usize,
    /// A conversation, not a text to go on with.
    pub is_chat: bool,
    /// The completions begin with their prompts.
    pub echo: bool,
    /// `max_tokens` was 0: only the prompt is wanted.
    pub nothing: bool,
    /// In pieces, and with the usage at the end.
    pub stream: bool,
    /// See there.
    pub include_usage: bool,
    /// Log-probabilities of so many likeliest tokens, if any.
    pub logprobs: Option<usize>,
    /// The ids too.
    pub return_token_ids: bool,
    /// Control tokens are left out of the texts.
    pub skip_special: bool,
    /// A stop text stays at the end of the text that it ended.
    pub include_stop: bool,
}

impl House {
    /// By a config's sections.
    ///
    /// # Errors
    /// When a stop is no token of the model, or the thinking contradicts itself.
    pub fn new(
        chat: Chat,
        keys: &Generation,
        max_model_len: usize,
        thinking: &ThinkingKeys,
        name: String,
        seed: u64,
    ) -> Result<House> {
        let opens = !keys.thinking_start.is_empty();
        ensure!(!(opens && chat.opens_thinking()), run::OPENED);
        let forced = Budget {
            name: "forced".into(),
            max_tokens_thinking: Some(toml::Value::Integer(0)),
            ..Budget::default()
        };
        let budgets = [Budget { name: "plain".into(), ..Budget::default() }, forced];
        let specs = config::specs(keys, &budgets, max_model_len, &chat.tokenizer)?;
        let [plain, forced] = specs.try_into().map_err(|_| anyhow!("a spec for each budget"))?;
        let house = House {
            chat,
            name,
            plain,
            forced,
            sampling: keys.sampling(None),
            stop: keys.stop.clone(),
            thinking: thinking.clone(),
            seed,
            unseeded: AtomicU64::new(0),
        };
        let spec = house.thinking_spec(thinking, house.plain.max_gen_toks);
        spec.map_err(|refusal| anyhow!("thinking: {}", refusal.message))?;
        Ok(house)
    }

    /// Understands the body of a request to complete a text, or with `is_chat` a conversation.
    pub fn ask(&self, bytes: &[u8], is_chat: bool) -> Result<Asked, Refusal> {
        let mut body = Fields::parse(bytes)?;
        if let Some(name) = body.text("model")?.filter(|name| *name != self.name) {
            let message = format!("{name:?} is not served here; this is {:?}", self.name);
            let refusal = Refusal { status: 404, ..Refusal::field("model", message) };
            return Err(refusal.coded("model_not_found"));
        }
        let prompts =
            if is_chat { vec![self.conversation(&mut body)?] } else { self.prompts(&mut body)? };
        let max_tokens = self.max_tokens(&mut body, is_chat)?;
        let echo = !is_chat && body.flag("echo")?;
        if max_tokens == 0 && !echo {
            return Err(Refusal::field("max_tokens", "is 0: nothing would be written"));
        }
        let logprobs = logprobs(&mut body, is_chat)?;
        let limits_thinking = body.has("max_thinking_tokens");
        let spec = self.spec(&mut body, is_chat, max_tokens.max(1))?;
        let stop = [body.texts("stop", 16)?, self.stop.clone()].concat();
        let sampling = self.sampling(&mut body)?;
        let logit_bias = body.bias("logit_bias", self.chat.tokenizer.vocab_size())?;
        let n = body.integer("n", 1, MOST_SAMPLES)?.unwrap_or(1);
        let seed = body.seed("seed")?;
        let seed = seed.unwrap_or_else(|| {
            let number = self.unseeded.fetch_add(1, Ordering::Relaxed).to_string();
            record::seed::rng(self.seed, &["serve", &number]).next_u64()
        });
        let stream = body.flag("stream")?;
        let include_usage = include_usage(&mut body, stream)?;
        let return_token_ids = body.flag("return_token_ids")?;
        let skip = body.take("skip_special_tokens").unwrap_or(Value::Bool(true));
        let skip_special = skip
            .as_bool()
            .ok_or_else(|| Refusal::field("skip_special_tokens", "has to be true or false"))?;
        let include_stop = body.flag("include_stop_str_in_output")?;
        if stream && echo {
            return Err(Refusal::field("echo", "goes without `stream` only"));
        }
        body.finish()?;
        let fit = |prompt: Arc<[i64]>| {
            let spec = self.fit(&prompt, &spec, limits_thinking)?;
            Ok((prompt, spec))
        };
        let prompts = prompts.into_iter().map(fit).collect::<Result<Vec<_>, Refusal>>()?;
        let of_prompt = |(prompt, spec)| Request {
            name: "the request".into(),
            prompt,
            spec,
            sampling,
            seed,
            logit_bias: logit_bias.clone(),
            stop: stop.clone(),
            logprobs,
            prompt_logprobs: logprobs.filter(|_| echo),
        };
        let requests = prompts.into_iter().map(of_prompt).flat_map(|one| samples(one, n)).collect();
        Ok(Asked {
            requests,
            n,
            is_chat,
            echo,
            nothing: max_tokens == 0,
            stream,
            include_usage,
            logprobs,
            return_token_ids,
            skip_special,
            include_stop,
        })
    }

    fn encode(&self, name: &str, text: &str) -> Result<Vec<i64>, Refusal> {
        let most = self.plain.max_model_len * BYTES_PER_TOKEN;
        if text.len() > most {
            let message = format!("has {} bytes; this server takes {most} at most", text.len());
            return Err(Refusal::field(name, message).coded("context_length_exceeded"));
        }
        self.chat.tokenizer.encode_text(text).map_err(|error| Refusal::field(name, error))
    }

    /// `prompt`: a text, token ids, or a list of either.
    fn prompts(&self, body: &mut Fields) -> Result<Vec<Arc<[i64]>>, Refusal> {
        let Some(prompt) = body.take("prompt") else {
            return Err(Refusal::field("prompt", "is missing"));
        };
        let list = match prompt {
            Value::Array(list) if list.iter().all(|one| one.is_string() || one.is_array()) => list,
            one => vec![one],
        };
        if list.is_empty() || list.len() > MOST_PROMPTS {
            let message = format!("has to hold 1 to {MOST_PROMPTS} prompts");
            return Err(Refusal::field("prompt", message));
        }
        let vocab_size = self.chat.tokenizer.vocab_size();
        let one = |value: Value| {
            let ids = match &value {
                Value::String(text) => self.encode("prompt", text)?,
                list => fields::ids(list, vocab_size).ok_or_else(|| {
                    let range = format!("token ids from 0 to {}", vocab_size - 1);
                    Refusal::field(
                        "prompt",
                        format!("has to be a string, a list of {range}, or a list of either"),
                    )
                })?,
            };
            match ids.is_empty() {
                true => Err(Refusal::field("prompt", "is empty")),
                false => Ok(ids.into()),
            }
        };
        list.into_iter().map(one).collect()
    }

    /// `messages`, with the beginning of the assistant's turn.
    fn conversation(&self, body: &mut Fields) -> Result<Arc<[i64]>, Refusal> {
        let refuse = |message: String| Refusal::field("messages", message);
        let Some(Value::Array(messages)) = body.take("messages") else {
            return Err(refuse("has to be a list of messages".into()));
        };
        let mut turns = Vec::new();
        let mut bytes = 0;
        for (n, message) in messages.iter().enumerate() {
            let role = match message["role"].as_str() {
                Some("system" | "developer") if n == 0 => "system",
                Some("user") => "user",
                Some("assistant") => "assistant",
                _ => {
                    let roles = "user, assistant or, in the first message, system";
                    return Err(refuse(format!("[{n}]: `role` has to be {roles}")));
                }
            };
            let content = content(&message["content"]).ok_or_else(|| {
                refuse(format!(
                    "[{n}]: `content` has to be a text, or a list of parts of `type` text"
                ))
            })?;
            let calls = ["tool_calls", "function_call"].map(|name| &message[name]);
            if calls.iter().any(|calls| !calls.is_null() && **calls != Value::Array(vec![])) {
                return Err(refuse(format!("[{n}]: this server calls no tools")));
            }
            bytes += content.len();
            turns.push((role, content));
        }
        match turns.last() {
            Some(("user", _)) => {}
            _ => return Err(refuse("has to end with a message of the user".into())),
        }
        let most = self.plain.max_model_len * BYTES_PER_TOKEN;
        if bytes > most {
            let message = format!("has {bytes} bytes of text; this server takes {most} at most");
            return Err(refuse(message).coded("context_length_exceeded"));
        }
        let turns: Vec<_> = turns.iter().map(|(role, text)| (*role, text.as_str())).collect();
        let ids = self.chat.prompt_of(&turns).map_err(|error| refuse(error.to_string()))?;
        Ok(ids.into())
    }

    fn max_tokens(&self, body: &mut Fields, is_chat: bool) -> Result<usize, Refusal> {
        let least = usize::from(is_chat);
        let new = match is_chat {
            true => body.integer("max_completion_tokens", least, usize::MAX)?,
            false => None,
        };
        let old = body.integer("max_tokens", least, usize::MAX)?;
        // OpenAI's default for texts.
        let default = if is_chat { self.plain.max_gen_toks } else { 16 };
        Ok(new.or(old).unwrap_or(default).min(self.plain.max_model_len))
    }

    /// Limits, stops and thinking.
    fn spec(
        &self,
        body: &mut Fields,
        is_chat: bool,
        max_tokens: usize,
    ) -> Result<Arc<Spec>, Refusal> {
        let asked = ThinkingKeys {
            max_thinking_tokens: body.integer("max_thinking_tokens", 0, usize::MAX)?,
            min_thinking_tokens: body.integer("min_thinking_tokens", 0, usize::MAX)?,
            num_ignore: body.integer("num_ignore", 0, usize::MAX)?,
            ignore_str: body.text("ignore_str")?,
        };
        let keys = match is_chat && asked == ThinkingKeys::default() {
            true => &self.thinking,
            false => &asked,
        };
        let mut spec = self.thinking_spec(keys, max_tokens)?;
        let vocab_size = self.chat.tokenizer.vocab_size();
        let more = body.ids("stop_token_ids", vocab_size)?;
        if body.flag("ignore_eos")? {
            spec.until.clear();
        }
        spec.until.extend(more);
        spec.min_gen_toks = body.integer("min_tokens", 0, max_tokens)?.unwrap_or(0);
        spec.max_gen_toks = max_tokens;
        Ok(Arc::new(spec))
    }

    /// The spec of an answer of `max_tokens` with so much thinking.
    pub fn thinking_spec(&self, keys: &ThinkingKeys, max_tokens: usize) -> Result<Spec, Refusal> {
        let ThinkingKeys { max_thinking_tokens, min_thinking_tokens, num_ignore, ignore_str } =
            keys;
        let longest = self.plain.max_model_len;
        for (name, count) in [
            ("max_thinking_tokens", max_thinking_tokens),
            ("min_thinking_tokens", min_thinking_tokens),
            ("num_ignore", num_ignore),
        ] {
            if count.is_some_and(|count| count > longest) {
                let message = format!("is more than the context, which has {longest} tokens");
                return Err(Refusal::field(name, message));
            }
        }
        if ignore_str.is_some() && num_ignore.is_none() {
            return Err(Refusal::field("ignore_str", "goes with `num_ignore` only"));
        }
        if min_thinking_tokens.is_some() && num_ignore.is_some_and(|n| n > 0) {
            let message = "does not go with `num_ignore`, which sets it to 1";
            return Err(Refusal::field("min_thinking_tokens", message));
        }
        if max_thinking_tokens.or(*min_thinking_tokens).or(*num_ignore).is_none() {
            return Ok((*self.plain).clone());
        }
        let mut spec = (*self.forced).clone();
        let thinking = spec.thinking.as_mut().expect("it was made with thinking");
        let most = max_thinking_tokens.unwrap_or(max_tokens);
        if min_thinking_tokens.is_some_and(|least| least > most) {
            let message = format!("is more than thinking may have, which is {most}");
            return Err(Refusal::field("min_thinking_tokens", message));
        }
        thinking.max_tokens = MaxTokens::Count(most);
        thinking.n_ignore = num_ignore.unwrap_or(0);
        // As in s1's harness, whose stops by token ids need one token between them.
        thinking.min_tokens = match num_ignore {
            Some(_) => 1,
            None => min_thinking_tokens.unwrap_or(0),
        };
        let ignore = ignore_str.as_deref().unwrap_or("Wait");
        if ignore.len() > 1000 {
            return Err(Refusal::field("ignore_str", "has to be of 1000 bytes at most"));
        }
        thinking.ignore = self.encode("ignore_str", ignore)?;
        spec.max_gen_toks = max_tokens;
        Ok(spec)
    }

    fn sampling(&self, body: &mut Fields) -> Result<Sampling, Refusal> {
        let default = self.sampling;
        // vLLM's -1 is our 0: all.
        let top_k = match body.take("top_k") {
            None => default.top_k,
            Some(value) if value == -1 => 0,
            Some(value) => {
                let n = value.as_u64().and_then(|n| usize::try_from(n).ok());
                n.ok_or_else(|| Refusal::field("top_k", "has to be -1, 0 or an integer above"))?
            }
        };
        let sampling = Sampling {
            temperature: body.number("temperature")?.unwrap_or(default.temperature),
            top_p: body.number("top_p")?.unwrap_or(default.top_p),
            min_p: body.number("min_p")?.unwrap_or(default.min_p),
            top_k,
            repetition_penalty: body
                .number("repetition_penalty")?
                .unwrap_or(default.repetition_penalty),
        };
        sampling.check().map_err(|error| Refusal::new(400, error))?;
        Ok(sampling)
    }

    /// The spec behind this prompt: so much thinking that there is room for an answer. A prompt
    /// that leaves none is refused, and so is a limit `is_asked` for that does.
    pub fn fit(
        &self,
        prompt: &[i64],
        spec: &Arc<Spec>,
        is_asked: bool,
    ) -> Result<Arc<Spec>, Refusal> {
        let refuse = |refusal: Refusal| Err(refusal.coded("context_length_exceeded"));
        let (least, most) = (spec.least_len(prompt.len()), spec.max_model_len);
        if least >= most {
            let message = format!(
                "this model's maximum context length is {most} tokens, but the prompt has {} and \
                 an answer begins behind {least}",
                prompt.len()
            );
            return refuse(Refusal::new(400, message));
        }
        // What `auto` leaves for an answer is left by every limit that nobody asked for.
        let answer = if is_asked { 1 } else { spec.max_gen_toks.min(LEFT_FOR_ANSWER) };
        let Some((count, room)) = spec.too_much_thinking(prompt.len(), answer) else {
            return Ok(Arc::clone(spec));
        };
        let mut spec = (**spec).clone();
        let thinking = spec.thinking.as_mut().expect("there is too much of it");
        if is_asked || thinking.min_tokens > room {
            let (name, count) = match is_asked {
                true => ("max_thinking_tokens", count),
                false => ("min_thinking_tokens", thinking.min_tokens),
            };
            let message = format!("is {count}; with an answer behind it, {room} tokens fit here");
            return refuse(Refusal::field(name, message));
        }
        thinking.max_tokens = MaxTokens::Count(room);
        Ok(Arc::new(spec))
    }
}

/// `n` requests that draw apart, the first with the seed itself.
fn samples(request: Request, n: usize) -> impl Iterator<Item = Request> {
    let seed = request.seed;
    (0..n).map(move |sample| Request {
        seed: match sample {
            0 => seed,
            _ => record::seed::rng(seed, &["sample", &sample.to_string()]).next_u64(),
        },
        ..request.clone()
    })
}

/// A message's text.
fn content(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let text = |part: &Value| match part["type"].as_str() {
                Some("text") => part["text"].as_str().map(String::from),
                _ => None,
            };
            parts.iter().map(text).collect()
        }
        _ => None,
    }
}

fn logprobs(body: &mut Fields, is_chat: bool) -> Result<Option<usize>, Refusal> {
    if !is_chat {
        return body.integer("logprobs", 0, MOST_LOGPROBS);
    }
    let wanted = body.flag("logprobs")?;
    let top = body.integer("top_logprobs", 0, MOST_LOGPROBS)?;
    match (wanted, top) {
        (false, Some(1..)) => Err(Refusal::field("top_logprobs", "goes with `logprobs` only")),
        (wanted, top) => Ok(wanted.then_some(top.unwrap_or(0))),
    }
}

fn include_usage(body: &mut Fields, stream: bool) -> Result<bool, Refusal> {
    let Some(options) = body.take("stream_options") else { return Ok(false) };
    let usage = match &options {
        Value::Object(map) if stream => {
            let known = ["include_usage", "include_obfuscation"];
            let fits = |(name, value): (&String, &Value)| {
                known.contains(&name.as_str()) && (value.is_boolean() || value.is_null())
            };
            map.iter().all(fits).then(|| map.get("include_usage") == Some(&Value::Bool(true)))
        }
        _ => None,
    };
    let message = "has to be an object with `include_usage`, and goes with `stream` only";
    usage.ok_or_else(|| Refusal::field("stream_options", message))
}
