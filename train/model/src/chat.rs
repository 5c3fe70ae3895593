//! Qwen2.5's chat template and s1's thinking format, as tokens.
//!
//! One turn is `<|im_start|>role\ncontent<|im_end|>\n`. s1 opens an assistant's thinking with
//! `<|im_start|>think` and its answer with `<|im_start|>answer` (s1's `data/tokenization.py`).
//! A model's template is only looked into, never run: what it could compute cannot happen here.
//! Which of a conversation's tokens are trained follows from its ids, by the rule of s1's collator
//! ([`Chat::trained`]).

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::tokenizer::{Piece, Tokenizer};

/// Opens a turn, and in s1 also thinking and answer.
pub const IM_START: &str = "<|im_start|>";
/// Closes a turn.
pub const IM_END: &str = "<|im_end|>";
/// What s1 pads with; where it stands in a text, it is never trained.
pub const FIM_PAD: &str = "<|fim_pad|>";

/// Bytes of a chat template at most; real ones have some thousands.
const MOST_TEMPLATE: usize = 1 << 20;

/// Turns questions and examples into ids for one model.
#[derive(Debug, Clone)]
pub struct Chat {
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
    /// What was found in the model's template, or why conversations cannot be put together.
    template: std::result::Result<Template, String>,
    /// `<|im_start|>user`, which opens what is not trained.
    instruction: Vec<i64>,
    /// `<|im_start|>assistant\n`, which opens what is.
    response: Vec<i64>,
    pad: Option<i64>,
}

/// What a template writes of its own.
#[derive(Debug, Clone)]
struct Template {
    /// The system text of a conversation that has none.
    system: Option<String>,
    /// What opens the answer to come, in ids: `<|im_start|>assistant\n`, and behind it nothing in
    /// Qwen2.5, `<think>\n` in QwQ.
    opening: Vec<i64>,
    /// Whether there is something behind it.
    opens_thinking: bool,
}

/// The ids of one training example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The whole conversation.
    pub ids: Vec<i64>,
    /// The trained positions: ascending, apart, none empty, none with position 0, which nothing
    /// could predict. In s1's format one range, from just after `<|im_start|>assistant\n` to the
    /// end, the closing `<|im_end|>` and its newline included.
    pub trained: Vec<Range<usize>>,
}

impl Example {
    /// A conversation of one turn, trained from a position to its end.
    pub fn new(ids: Vec<i64>, trained_from: usize) -> Self {
        let trained = std::iter::once(trained_from.max(1)..ids.len()).collect();
        Self { ids, trained }
    }

    /// Tokens that the loss is on.
    pub fn trained_tokens(&self) -> usize {
        self.trained.iter().map(Range::len).sum()
    }
}

impl Chat {
    /// Reads `tokenizer.json` and the chat template (`chat_template.jinja`, or the entry of
    /// `tokenizer_config.json`) in `folder`. Without a template that is ChatML there is a tokenizer
    /// alone, and whatever puts a conversation together says why.
    ///
    /// # Errors
    /// When the tokenizer is missing or damaged.
    pub fn read(folder: &Path) -> Result<Self> {
        let tokenizer = Tokenizer::read(folder)?;
        let template = Template::read(folder, &tokenizer).map_err(|error| format!("{error:#}"));
        Ok(Self {
            template,
            instruction: tokenizer.encode_fixed(&format!("{IM_START}user"))?,
            response: tokenizer.encode_fixed(&format!("{IM_START}assistant\n"))?,
            pad: tokenizer.control(FIM_PAD).ok(),
            tokenizer,
        })
    }

    /// Refuses a folder whose template is missing or not ChatML.
    pub fn check_template(&self) -> Result<()> {
        self.template().map(drop)
    }

    fn template(&self) -> Result<&Template> {
        self.template.as_ref().map_err(|why| anyhow!("{why}"))
    }

    /// Whether the template itself opens an answer's thinking, as QwQ's does.
    pub fn opens_thinking(&self) -> bool {
        self.template.as_ref().is_ok_and(|template| template.opens_thinking)
    }

    /// The prompt for a question: system turn if the template has a default, user turn, and what
    /// opens the answer.
    pub fn prompt(&self, question: &str) -> Result<Vec<i64>> {
        let mut ids = self.tokenizer.encode(&self.question(question)?)?;
        ids.extend(&self.template()?.opening);
        Ok(ids)
    }

    /// A question with its thinking and answer, as s1 trains it. `thinking` and `answer` are
    /// already stripped and prefixed as s1 does.
    pub fn example(&self, question: &str, thinking: &str, answer: &str) -> Result<Example> {
        let ids = self.answered(question, &[("think", thinking), ("answer", answer)])?;
        Ok(Example { trained: self.trained(&ids), ids })
    }

    /// The ids of a question and of an assistant's turn made of `parts`: each is
    /// `<|im_start|>heading\ntext`, and a new line stands between two.
    pub fn answered(&self, question: &str, parts: &[(&str, &str)]) -> Result<Vec<i64>> {
        let mut pieces = self.question(question)?;
        pieces.extend([Piece::Control(IM_START), Piece::Text("assistant\n")]);
        for (n, (heading, text)) in parts.iter().enumerate() {
            if n > 0 {
                pieces.push(Piece::Text("\n"));
            }
            let head = [Piece::Control(IM_START), Piece::Text(heading), Piece::Text("\n")];
            pieces.extend(head);
            pieces.push(Piece::Text(text));
        }
        pieces.extend([Piece::Control(IM_END), Piece::Text("\n")]);
        self.tokenizer.encode(&pieces)
    }

    /// The ids of a conversation of (role, content), with the template's default system turn if it
    /// brings none of its own. Nothing in a content is special.
    ///
    /// Differs from s1: an assistant's content is encoded apart from the `assistant\n` before it,
    /// as it is when the model writes it. In one piece, a content that begins with a new line
    /// would join the header's into one token, and the collator would train nothing of it.
    pub fn conversation(&self, turns: &[(&str, &str)]) -> Result<Vec<i64>> {
        let brings_system = turns.first().is_some_and(|(role, _)| *role == "system");
        let default = self.template()?.system.as_deref().filter(|_| !brings_system);
        let default = default.map(|system| ("system", system));
        let mut ids = Vec::new();
        for (role, content) in default.iter().chain(turns) {
            let head = [Piece::Control(IM_START), Piece::Text(role), Piece::Text("\n")];
            let body = [Piece::Text(content), Piece::Control(IM_END), Piece::Text("\n")];
            if *role == "assistant" {
                ids.extend(self.tokenizer.encode(&head)?);
                ids.extend(self.tokenizer.encode(&body)?);
            } else {
                ids.extend(self.tokenizer.encode(&[head, body].concat())?);
            }
        }
        Ok(ids)
    }

    /// The prompt for a conversation: its turns, and what opens the answer.
    pub fn prompt_of(&self, turns: &[(&str, &str)]) -> Result<Vec<i64>> {
        let mut ids = self.conversation(turns)?;
        ids.extend(&self.template()?.opening);
        Ok(ids)
    }

    /// The positions of `ids` that are trained: the labels that TRL's
    /// `DataCollatorForCompletionOnlyLM` keeps, with s1's instruction template `<|im_start|>user`,
    /// its response template `<|im_start|>assistant\n` and its padding token. None where either
    /// template does not occur.
    ///
    /// The first instruction is masked from position 0 to the end of the first response template,
    /// every later one from itself to the end of the response template of the same number; if
    /// there are more instructions than responses, the last one to the end of the ids.
    pub fn trained(&self, ids: &[i64]) -> Vec<Range<usize>> {
        let find = |template: &[i64]| -> Vec<usize> {
            let starts = ids.windows(template.len()).enumerate();
            starts.filter(|(_, window)| *window == template).map(|(at, _)| at).collect()
        };
        let mut instructions = find(&self.instruction);
        let responses = find(&self.response).into_iter().map(|at| at + self.response.len());
        let responses: Vec<usize> = responses.collect();
        let (Some(&instruction), Some(&response)) = (instructions.first(), responses.first())
        else {
            return Vec::new();
        };
        if instruction > response {
            instructions.insert(0, 0);
        }
        let mut is_trained: Vec<bool> = ids.iter().map(|id| Some(*id) != self.pad).collect();
        let mut mask = |range: Range<usize>| range.for_each(|at| is_trained[at] = false);
        mask(0..response);
        for (instruction, response) in instructions.iter().zip(&responses).skip(1) {
            mask(*instruction..*response);
        }
        if let Some(last) = instructions.last().filter(|_| responses.len() < instructions.len()) {
            mask(*last..ids.len());
        }
        let mut at = 0;
        let runs = is_trained.chunk_by(|a, b| a == b).map(|run| {
            at += run.len();
            (run[0], at - run.len()..at)
        });
        runs.filter(|(is_trained, _)| *is_trained).map(|(_, run)| run).collect()
    }

    /// The turns before the answer.
    fn question<'a>(&'a self, question: &'a str) -> Result<Vec<Piece<'a>>> {
        let turn = |role: &'a str, content: &'a str| {
            [
                Piece::Control(IM_START),
                Piece::Text(role),
                Piece::Text(content),
                Piece::Control(IM_END),
                Piece::Text("\n"),
            ]
        };
        let mut pieces = Vec::new();
        if let Some(system) = &self.template()?.system {
            pieces.extend(turn("system\n", system));
        }
        pieces.extend(turn("user\n", question));
        Ok(pieces)
    }
}

impl Template {
    fn read(folder: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let (path, template) = read_template(folder)?;
        let place = path.display();
        ensure!(
            template.len() <= MOST_TEMPLATE,
            "{place}: a chat template of more than {MOST_TEMPLATE} bytes"
        );
        ensure!(
            template.contains(IM_START) && template.contains(IM_END),
            "{place}: the chat template is not ChatML ({IM_START} … {IM_END})"
        );
        let opening = opening(&template);
        Ok(Template {
            system: default_system(&template),
            opens_thinking: !opening.is_empty(),
            opening: tokenizer.encode_fixed(&format!("{IM_START}assistant\n{opening}"))?,
        })
    }
}

fn read_template(folder: &Path) -> Result<(std::path::PathBuf, String)> {
    let path = folder.join("chat_template.jinja");
    if path.exists() {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        return Ok((path, text));
    }
    let path = folder.join("tokenizer_config.json");
    let text = fs::read_to_string(&path).with_context(|| {
        format!("{}: a whole Hugging Face model folder has this file", path.display())
    })?;
    let json: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let template = json["chat_template"].as_str().with_context(|| {
        format!("{}: it has no `chat_template`; copy the base model's file", path.display())
    })?;
    Ok((path, template.to_string()))
}

/// The system text written out in a ChatML template: what stands between `<|im_start|>system`
/// with its new line (as itself or as Jinja's escape) and `<|im_end|>` inside one string literal.
/// What is put together from several literals (a caller's own system text) is none.
fn default_system(template: &str) -> Option<String> {
    let unescaped = unescaped(template);
    let opening = format!("{IM_START}system\n");
    let literals = unescaped.split(&opening).skip(1);
    let mut texts = literals.filter_map(|rest| rest.split_once(IM_END)).map(|(text, _)| text);
    let text = texts.find(|text| !text.is_empty() && !text.contains(['\'', '{']))?;
    Some(text.replace('\u{2}', "'"))
}

/// What a ChatML template writes where `add_generation_prompt` is so, behind
/// `<|im_start|>assistant` with its new line and in the same string literal.
fn opening(template: &str) -> String {
    let unescaped = unescaped(template);
    let asked = unescaped.rsplit_once("add_generation_prompt").map_or("", |(_, rest)| rest);
    let head = format!("{IM_START}assistant\n");
    let rest = asked.split_once(&head).map_or("", |(_, rest)| rest);
    let literal = rest.split(['\'', '"', '{']).next().unwrap_or_default();
    literal.replace('\u{2}', "'")
}

/// With Jinja's escapes resolved, but for a quotation mark's, which becomes U+0002.
fn unescaped(template: &str) -> String {
    template.replace("\\n", "\n").replace("\\\\", "\\").replace("\\'", "\u{2}")
}
