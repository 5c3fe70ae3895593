//! `infer chat`: a conversation in the terminal, with the thinking as it comes.
//!
//! On a terminal thinking is shown dimmed, and Ctrl-C stops an answer. Without one, lines come in
//! and answers go out as plain text, and thinking goes to the other stream.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use model::Tokenizer;
use serde::Deserialize;

use crate::config::{self, Generation};
use crate::engine::{Completion, Engine, Model, Request, local};
use crate::run;
use crate::serve::asked::{House, ThinkingKeys};
use crate::serve::reader::{Delimiters, News, Reader};

/// A conversation's config; the annotated example is `configs/infer/chat.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Decides the draws at a temperature above 0.
    pub seed: u64,
    /// What the model is told before the conversation. Default: its template's own text, if any.
    pub system: Option<String>,
    /// Who answers.
    pub model: config::Model,
    /// How much is computed at once.
    #[serde(default)]
    pub engine: config::Engine,
    /// Limits, sampling, and the strings of the format.
    pub generation: Generation,
    /// How much is thought; nothing is forced by default.
    #[serde(default)]
    pub thinking: ThinkingKeys,
}

const HELP: &str = "\
/budget N     think N tokens at most; /budget off forces nothing any more
/wait N TEXT  ignore N ends of thinking, with TEXT in their places (Wait)
/system TEXT  what the model is told before the conversation, which begins anew
/reset        begins the conversation anew
/help         this list
/quit         leaves; so does Ctrl-D. Ctrl-C stops an answer
";

/// Converses by the config at `path` with the overrides `sets` until the input ends.
pub fn run(path: &Path, sets: &[String]) -> Result<()> {
    let (config, _) = record::config::load::<Config>(path, sets)?;
    config::check(&config.model, &config.engine, &config.generation, &[])
        .with_context(|| path.display().to_string())?;
    let folder = model::hub::model_folder(&config.model.path)
        .context("no model to talk to (train first, or name its folder in model.path)")?;
    let chat = run::chat(&config.model, &folder)?;
    chat.check_template()?;
    let tokenizer = Arc::new(chat.tokenizer.clone());
    let longest = config.model.max_model_len;
    let name = config.model.path.clone();
    let house = House::new(chat, &config.generation, longest, &config.thinking, name, config.seed)
        .with_context(|| path.display().to_string())?;
    let engine = local::load(&folder, tokenizer, &config.model, &config.engine)?;
    let mut conversation = Conversation::new(house, engine, config.system);
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&conversation.stop))?;
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let (input, mut out) = (std::io::stdin().lock(), std::io::stdout().lock());
    if is_terminal {
        eprintln!("{} is here; /help lists the commands", config.model.path);
    }
    let mut thoughts = std::io::stderr().lock();
    conversation.converse(input, &mut out, &mut thoughts, is_terminal)
}

/// A conversation with one model.
pub struct Conversation<M> {
    house: House,
    engine: Engine<M>,
    tokenizer: Arc<Tokenizer>,
    thinking: ThinkingKeys,
    system: Option<String>,
    /// What was said: role and content.
    turns: Vec<(&'static str, String)>,
    asked: usize,
    /// Set to stop the answer that is being written.
    pub stop: Arc<AtomicBool>,
}

impl<M: Model> Conversation<M> {
    /// One in which nothing was said yet.
    pub fn new(house: House, engine: Engine<M>, system: Option<String>) -> Self {
        Conversation {
            tokenizer: Arc::new(house.chat.tokenizer.clone()),
            thinking: house.thinking.clone(),
            house,
            engine,
            system,
            turns: Vec::new(),
            asked: 0,
            stop: Arc::default(),
        }
    }

    /// Answers line by line until the input ends: answers go to `out`, all else to `beside`.
    ///
    /// # Errors
    /// When a stream fails, or the model does.
    pub fn converse(
        &mut self,
        mut input: impl BufRead,
        out: &mut dyn Write,
        beside: &mut dyn Write,
        is_terminal: bool,
    ) -> Result<()> {
        loop {
            if is_terminal {
                write!(out, "> ")?;
                out.flush()?;
            }
            let mut line = Vec::new();
            if input.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim();
            if line == "/quit" {
                return Ok(());
            }
            if line.starts_with('/') {
                writeln!(beside, "{}", self.command(line))?;
            } else if !line.is_empty() {
                self.stop.store(false, Ordering::SeqCst);
                let mut paper = Paper { out, beside, is_terminal, dimmed: false };
                self.answer(line, &mut paper)?;
            }
        }
    }

    /// Obeys a command, and says what is so now.
    fn command(&mut self, line: &str) -> String {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        let mut keys = self.thinking.clone();
        match name {
            "/help" => return HELP.trim_end().into(),
            "/reset" => {
                self.turns.clear();
                return "the conversation begins anew".into();
            }
            "/system" => {
                self.turns.clear();
                self.system = (!rest.is_empty()).then(|| rest.into());
                return match rest {
                    "" => "the template's own text is said; the conversation begins anew".into(),
                    _ => "noted; the conversation begins anew".into(),
                };
            }
            "/budget" if rest == "off" => keys = ThinkingKeys::default(),
            "/budget" => match rest.parse() {
                Ok(count) => keys.max_thinking_tokens = Some(count),
                Err(_) => return "how many tokens? /budget 500, or /budget off".into(),
            },
            "/wait" => {
                let (count, text) = rest.split_once(' ').unwrap_or((rest, ""));
                let Ok(count) = count.parse() else {
                    return "how many times? /wait 2, or /wait 2 Hmm".into();
                };
                keys.num_ignore = (count > 0).then_some(count);
                let text = (!text.is_empty()).then(|| text.into());
                keys.ignore_str = text.or(keys.ignore_str).filter(|_| count > 0);
                keys.min_thinking_tokens = None;
            }
            _ => return format!("there is no command {name}; /help lists them"),
        }
        match self.house.thinking_spec(&keys, self.house.plain.max_gen_toks) {
            Ok(_) => {
                self.thinking = keys;
                self.limits()
            }
            Err(refusal) => refusal.message,
        }
    }

    fn limits(&self) -> String {
        let ThinkingKeys { max_thinking_tokens, min_thinking_tokens, num_ignore, ignore_str } =
            &self.thinking;
        let mut parts = Vec::new();
        parts.extend(max_thinking_tokens.map(|n| format!("at most {n} tokens")));
        parts.extend(min_thinking_tokens.map(|n| format!("at least {n} tokens")));
        let text = ignore_str.as_deref().unwrap_or("Wait");
        parts.extend(num_ignore.map(|n| format!("{n} ends ignored, with {text:?} instead")));
        match parts.is_empty() {
            true => "thinking is not forced".into(),
            false => format!("thinking: {}", parts.join(", ")),
        }
    }

    /// Answers what the user says.
    fn answer(&mut self, text: &str, paper: &mut Paper) -> Result<()> {
        self.turns.push(("user", text.into()));
        let request = match self.request() {
            Ok(request) => request,
            Err(message) => {
                self.turns.pop();
                writeln!(paper.beside, "{message}")?;
                return Ok(());
            }
        };
        let limit = request.spec.max_tokens_thinking(request.prompt.len());
        if let Some(limit) = limit.filter(|limit| self.thinking.max_thinking_tokens > Some(*limit))
        {
            writeln!(
                paper.beside,
                "({limit} tokens of thinking: the context has no room for more)"
            )?;
        }
        let (plain, begun) = (&self.house.plain, Instant::now());
        let delimiters =
            Delimiters { start: plain.thinking_start.clone(), end: plain.thinking_end.clone() };
        let tokenizer = Arc::clone(&self.tokenizer);
        let mut reader = Reader::new(tokenizer, Some(delimiters), true, (&request.stop, true));
        let (mut read, mut said) = (0, String::new());
        let mut done = self.engine.submit(&[(self.asked, &request)])?.pop();
        while done.is_none() {
            if self.stop.load(Ordering::SeqCst) {
                self.engine.cancel(self.asked);
                break;
            }
            done = self.engine.step()?.pop();
            let mut new = Vec::new();
            self.engine.look(&mut |_, forcing, _| {
                new.extend(&forcing.ids()[read..forcing.settled()]);
            });
            read += new.len();
            reader.read(&new)?;
            said += &paper.write(reader.fetch())?;
        }
        if let Some((_, completion)) = &done {
            reader.read(&completion.outcome.ids[read..])?;
            reader.finish(completion)?;
            said += &paper.write(reader.fetch())?;
        }
        let thought = done.as_ref().map_or(0, |(_, done)| reader.thought(&done.outcome));
        paper.end(done.map(|(_, completion)| completion), thought, begun)?;
        self.asked += 1;
        if said.is_empty() {
            self.turns.pop();
            let why = "(there is no answer, so the question is not kept in the conversation)";
            writeln!(paper.beside, "{why}")?;
        } else {
            self.turns.push(("assistant", said));
        }
        Ok(())
    }

    /// The conversation so far as a request, or why it is none.
    fn request(&self) -> std::result::Result<Request, String> {
        let system = self.system.as_deref().map(|system| ("system", system));
        let turns = self.turns.iter().map(|(role, content)| (*role, content.as_str()));
        let turns: Vec<_> = system.into_iter().chain(turns).collect();
        let ids = self.house.chat.prompt_of(&turns).map_err(|error| format!("{error:#}"))?;
        let spec = self.house.thinking_spec(&self.thinking, self.house.plain.max_gen_toks);
        let spec = Arc::new(spec.map_err(|refusal| refusal.message)?);
        let spec = self.house.fit(&ids, &spec, false);
        let spec = spec.map_err(|refusal| format!("{}; /reset begins anew", refusal.message))?;
        let purpose = ["chat", &self.asked.to_string()];
        Ok(Request {
            name: "the conversation".into(),
            prompt: ids.into(),
            spec,
            sampling: self.house.sampling,
            seed: record::seed::rng(self.house.seed, &purpose).next_u64(),
            stop: self.house.stop.clone(),
            logprobs: None,
            prompt_logprobs: None,
            logit_bias: vec![],
        })
    }
}

/// Where an answer is written.
struct Paper<'a> {
    out: &'a mut dyn Write,
    beside: &'a mut dyn Write,
    is_terminal: bool,
    dimmed: bool,
}

impl Paper<'_> {
    /// Writes what is new, and returns what of it is the answer's.
    fn write(&mut self, news: News) -> Result<String> {
        let News { reasoning, content } = news;
        if !reasoning.is_empty() && self.is_terminal {
            if !self.dimmed {
                write!(self.out, "\x1b[2m")?;
                self.dimmed = true;
            }
            write!(self.out, "{}", printable(&reasoning))?;
        } else if !reasoning.is_empty() {
            write!(self.beside, "{}", printable(&reasoning))?;
        }
        if !content.is_empty() {
            self.undim("\n\n")?;
            write!(self.out, "{}", printable(&content))?;
        }
        self.out.flush()?;
        Ok(content)
    }

    fn undim(&mut self, gap: &str) -> Result<()> {
        if std::mem::take(&mut self.dimmed) {
            write!(self.out, "\x1b[0m{gap}")?;
        }
        Ok(())
    }

    /// Ends an answer that is complete, or was stopped.
    fn end(
        &mut self,
        completion: Option<Completion>,
        thinking: usize,
        begun: Instant,
    ) -> Result<()> {
        self.undim("")?;
        writeln!(self.out)?;
        self.out.flush()?;
        let Some(Completion { outcome, .. }) = completion else {
            writeln!(self.beside, "(stopped)")?;
            return Ok(());
        };
        let forced: usize = outcome.forced.iter().map(|range| range.len()).sum();
        let rate = outcome.ids.len() as f64 / begun.elapsed().as_secs_f64();
        let all = outcome.ids.len();
        if self.is_terminal {
            writeln!(
                self.beside,
                "\x1b[2m({all} tokens, {thinking} of thinking, {forced} forced; {rate:.1} a \
                 second)\x1b[0m"
            )?;
        }
        Ok(())
    }
}

/// Text without what a terminal would obey, or would show in another order.
fn printable(text: &str) -> String {
    let hidden = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().filter(|c| !hidden(*c)).collect()
}
