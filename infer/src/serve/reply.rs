//! Completions as JSON, whole or in pieces, in OpenAI's and vLLM's words.

use std::sync::Arc;

use anyhow::Result;
use model::Tokenizer;
use serde_json::{Map, Value, json};

use super::asked::Asked;
use super::desk::Mail;
use super::reader::{Delimiters, News, Reader};
use crate::budget::{Ending, Outcome};
use crate::engine::{Completion, Scored};

/// The reply to one request, as its completions come.
#[derive(Debug)]
pub struct Reply {
    asked: Asked,
    tokenizer: Arc<Tokenizer>,
    /// What every piece begins with: id, model, time.
    head: Map<String, Value>,
    choices: Vec<Choice>,
    usage: Usage,
}

#[derive(Debug)]
struct Choice {
    reader: Reader,
    /// Ids that were sent.
    sent: usize,
    begun: bool,
    /// The stop text that ended it.
    stopped_by: Option<String>,
    done: Option<Completion>,
}

#[derive(Debug, Default)]
struct Usage {
    prompt: usize,
    completion: usize,
    reasoning: usize,
    forced: usize,
}

impl Usage {
    fn add(&mut self, outcome: &Outcome, reader: &Reader) {
        self.completion += outcome.ids.len();
        self.reasoning += reader.thought(outcome);
        self.forced += outcome.forced.iter().map(|range| range.len()).sum::<usize>();
    }

    fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning,
                "forced_tokens": self.forced,
            },
        })
    }
}

impl Reply {
    /// To a request with this number, made at this second.
    pub fn new(
        asked: Asked,
        tokenizer: Arc<Tokenizer>,
        delimiters: &Delimiters,
        (model, number, created): (&str, u64, u64),
    ) -> Self {
        let (prefix, object) = match (asked.is_chat, asked.stream) {
            (true, true) => ("chatcmpl", "chat.completion.chunk"),
            (true, false) => ("chatcmpl", "chat.completion"),
            (false, _) => ("cmpl", "text_completion"),
        };
        let head = json!({
            "id": format!("{prefix}-{created:x}-{number}"), "object": object, "created": created,
            "model": model,
        });
        let Value::Object(head) = head else { unreachable!("it is written as an object") };
        let choice = |request: &crate::engine::Request| Choice {
            reader: Reader::new(
                Arc::clone(&tokenizer),
                (asked.is_chat || request.spec.thinking.is_some()).then(|| delimiters.clone()),
                asked.skip_special,
                (&request.stop, !asked.include_stop),
            ),
            sent: 0,
            begun: false,
            stopped_by: None,
            done: None,
        };
        let choices = asked.requests.iter().map(choice).collect();
        let prompt = asked.requests.chunks(asked.n).map(|same| same[0].prompt.len()).sum();
        let usage = Usage { prompt, ..Usage::default() };
        Reply { asked, tokenizer, head, choices, usage }
    }

    /// Whether nothing more will come.
    pub fn is_whole(&self) -> bool {
        self.choices.iter().all(|choice| choice.done.is_some())
    }

    /// Takes a finished completion of a reply that comes in one piece.
    pub fn take(&mut self, place: usize, completion: Completion) -> Result<()> {
        let choice = &mut self.choices[place];
        if !self.asked.nothing {
            choice.reader.read(&completion.outcome.ids)?;
            choice.stopped_by = choice.reader.finish(&completion)?;
        }
        self.usage.add(&completion.outcome, &choice.reader);
        choice.done = Some(completion);
        Ok(())
    }

    /// The body of a reply in one piece.
    pub fn body(&mut self) -> Result<Value> {
        let mut choices = Vec::new();
        for (index, choice) in self.choices.iter_mut().enumerate() {
            let news = choice.reader.fetch();
            let Some(completion) = &choice.done else { continue };
            let written = Written { asked: &self.asked, tokenizer: &self.tokenizer };
            let mut whole = written.whole(index, news, completion)?;
            whole["stop_reason"] = choice.stopped_by.clone().into();
            choices.push(whole);
        }
        let mut body = self.head.clone();
        body.insert("choices".into(), choices.into());
        body.insert("usage".into(), self.usage.json());
        Ok(Value::Object(body))
    }

    fn piece(&self, choice: Value) -> Value {
        let mut piece = self.head.clone();
        piece.insert("choices".into(), json!([choice]));
        if self.asked.include_usage {
            piece.insert("usage".into(), Value::Null);
        }
        Value::Object(piece)
    }

    /// The pieces of a reply that news of one completion bring.
    pub fn pieces(
        &mut self,
        place: usize,
        mail: Mail,
        done: Option<Completion>,
    ) -> Result<Vec<Value>> {
        let mut pieces = Vec::new();
        let choice = &mut self.choices[place];
        if self.asked.is_chat && !choice.begun {
            pieces.push(json!({
                "index": place, "delta": {"role": "assistant", "content": ""},
                "logprobs": null, "finish_reason": null,
            }));
        }
        choice.begun = true;
        choice.reader.read(&mail.ids)?;
        if let Some(completion) = &done {
            choice.stopped_by = choice.reader.finish(completion)?;
            self.usage.add(&completion.outcome, &choice.reader);
        }
        let news = choice.reader.fetch();
        let written = Written { asked: &self.asked, tokenizer: &self.tokenizer };
        let ids = choice.sent..choice.sent + mail.ids.len();
        choice.sent = ids.end;
        let has_more = self.asked.return_token_ids || self.asked.logprobs.is_some();
        if news != News::default() || (has_more && !ids.is_empty()) || done.is_some() {
            let scored = Scores { ids: &mail.ids, from: ids.start, scored: &mail.logprobs };
            pieces.extend(written.pieces(place, news, &scored, done.as_ref())?);
            if let (Some(last), Some(stop)) = (pieces.last_mut(), &choice.stopped_by) {
                last["stop_reason"] = stop.as_str().into();
            }
        }
        choice.done = done;
        Ok(pieces.into_iter().map(|choice| self.piece(choice)).collect())
    }

    /// The piece with the usage, if it is wanted.
    pub fn usage_piece(&self) -> Option<Value> {
        let mut piece = self.head.clone();
        piece.insert("choices".into(), json!([]));
        piece.insert("usage".into(), self.usage.json());
        self.asked.include_usage.then_some(Value::Object(piece))
    }
}

/// Ids with the scores of those that were sampled.
struct Scores<'a> {
    ids: &'a [i64],
    /// The place of the first.
    from: usize,
    scored: &'a [Scored],
}

/// How one request wants its choices written.
struct Written<'a> {
    asked: &'a Asked,
    tokenizer: &'a Tokenizer,
}

fn reason(outcome: &Outcome) -> &'static str {
    if outcome.ending == Ending::Stop { "stop" } else { "length" }
}

impl Written<'_> {
    fn whole(&self, index: usize, news: News, completion: &Completion) -> Result<Value> {
        let outcome = &completion.outcome;
        let none = Scores { ids: &[], from: 0, scored: &[] };
        let all = Scores { ids: &outcome.ids, from: 0, scored: &completion.logprobs };
        let written = if self.asked.nothing { none } else { all };
        let mut choice = json!({"index": index, "finish_reason": reason(outcome)});
        let reasoning = (!news.reasoning.is_empty()).then_some(&news.reasoning);
        if self.asked.is_chat {
            choice["message"] = json!({
                "role": "assistant", "content": news.content, "reasoning_content": reasoning,
            });
            choice["logprobs"] = self.logprobs(&written, &[])?;
        } else {
            let mut text = news.content;
            let prompt = &self.asked.requests[index].prompt;
            let echoed: &[i64] = if self.asked.echo { prompt } else { &[] };
            if self.asked.echo {
                text.insert_str(0, &self.tokenizer.decode(prompt)?);
            }
            choice["text"] = text.into();
            if let Some(reasoning) = reasoning {
                choice["reasoning_content"] = reasoning.as_str().into();
            }
            let echoed = Scores { ids: echoed, from: 0, scored: &completion.prompt_logprobs };
            choice["logprobs"] = self.logprobs(&echoed, &[&written])?;
        }
        if self.asked.return_token_ids {
            choice["token_ids"] = written.ids.into();
        }
        Ok(choice)
    }

    fn pieces(
        &self,
        index: usize,
        news: News,
        scores: &Scores,
        done: Option<&Completion>,
    ) -> Result<Vec<Value>> {
        let finish = done.map(|completion| reason(&completion.outcome));
        let logprobs = self.logprobs(scores, &[])?;
        if !self.asked.is_chat {
            let mut choice = json!({
                "index": index, "text": news.content, "logprobs": logprobs, "finish_reason": finish,
            });
            if !news.reasoning.is_empty() {
                choice["reasoning_content"] = news.reasoning.into();
            }
            if self.asked.return_token_ids {
                choice["token_ids"] = scores.ids.into();
            }
            return Ok(vec![choice]);
        }
        let mut pieces = Vec::new();
        for (name, text) in [("reasoning_content", news.reasoning), ("content", news.content)] {
            if !text.is_empty() {
                let delta = json!({name: text});
                pieces.push(json!({"index": index, "delta": delta, "finish_reason": null}));
            }
        }
        if finish.is_some() || pieces.is_empty() {
            pieces.push(json!({"index": index, "delta": {}, "finish_reason": finish}));
        }
        pieces[0]["logprobs"] = logprobs;
        if self.asked.return_token_ids {
            pieces[0]["token_ids"] = scores.ids.into();
        }
        Ok(pieces)
    }

    /// The log-probabilities of ids and of those behind them; null if they are not wanted.
    fn logprobs(&self, first: &Scores, more: &[&Scores]) -> Result<Value> {
        let Some(n) = self.asked.logprobs else { return Ok(Value::Null) };
        let (mut rows, mut offset) = (Vec::new(), 0);
        for scores in std::iter::once(&first).chain(more) {
            // Behind all ids there may be the one that ended the answer.
            let stop = scores.scored.last().filter(|s| s.at == scores.from + scores.ids.len());
            let ids = scores.ids.iter().copied().chain(stop.map(|stop| stop.id));
            for (n, id) in ids.enumerate() {
                let token = self.tokenizer.decode(&[id])?;
                let at = scores.scored.binary_search_by_key(&(scores.from + n), |s| s.at);
                let scored = at.ok().map(|at| &scores.scored[at]);
                offset += token.len();
                rows.push((token, scored, offset));
            }
        }
        let top = |scored: &Scored| -> Result<Vec<(String, f64)>> {
            let top = scored.top.iter().take(n);
            top.map(|(id, logprob)| Ok((self.tokenizer.decode(&[*id])?, *logprob))).collect()
        };
        if self.asked.is_chat {
            let entry = |token: &str, logprob: f64| json!({"token": token, "logprob": logprob, "bytes": token.as_bytes()});
            let mut content = Vec::new();
            for (token, scored, _) in &rows {
                let Some(scored) = scored else { continue };
                let mut row = entry(token, scored.logprob);
                let top = top(scored)?;
                row["top_logprobs"] = top.iter().map(|(t, l)| entry(t, *l)).collect();
                content.push(row);
            }
            return Ok(json!({"content": content}));
        }
        let mut tops = Vec::new();
        for (token, scored, _) in &rows {
            let Some(scored) = scored else {
                tops.push(Value::Null);
                continue;
            };
            // Tokens with the same text: the likeliest counts. The written one is always there.
            let mut map = Map::new();
            for (token, logprob) in
                top(scored)?.into_iter().chain([(token.clone(), scored.logprob)])
            {
                map.entry(token).or_insert(logprob.into());
            }
            tops.push(Value::Object(map));
        }
        Ok(json!({
            "tokens": rows.iter().map(|(token, ..)| token.as_str()).collect::<Vec<_>>(),
            "token_logprobs":
                rows.iter().map(|(_, s, _)| s.map(|s| s.logprob)).collect::<Vec<_>>(),
            "top_logprobs": tops,
            "text_offset": rows.iter().map(|(t, _, end)| end - t.len()).collect::<Vec<_>>(),
        }))
    }
}
