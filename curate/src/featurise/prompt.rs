//! Prompts are files: what is said to a model, with placeholders for a question's texts.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use endpoint::Message;
use endpoint::verdict::Fence;

use crate::domain::classes;

/// What a prompt may speak of.
#[derive(Debug, Clone, Copy, Default)]
pub struct Texts<'a> {
    /// `{question}`
    pub question: &'a str,
    /// `{solution}`
    pub solution: &'a str,
    /// `{attempt}`: a model's answer.
    pub attempt: &'a str,
}

/// A prompt: its parts `## system`, which may be missing, and `## user`.
///
/// Placeholders are `{question}`, `{solution}`, `{attempt}`, `{classes}` (the 61 classes, a line
/// each) and `{fence}`. Where a prompt has `{fence}`, a sentence stands there that says what the
/// marks mean, and every foreign text stands between such marks: nothing in it can pass for the
/// prompt's own words. Without it the texts stand as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    system: Vec<Part>,
    user: Vec<Part>,
    fenced: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Words(String),
    Question,
    Solution,
    Attempt,
    Classes,
    Fence,
}

impl Prompt {
    /// Reads the prompt at `path`; what stands before its first part is for people.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the prompt {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Parses a prompt's text; errors name what is wrong with it.
    pub fn parse(text: &str) -> Result<Self> {
        let (before, user) = text
            .split_once("\n## user\n")
            .context("a prompt needs the line `## user`, and below it what is asked")?;
        let system = before.split_once("\n## system\n").map_or("", |(_, system)| system);
        let (system, user) = (parts(system.trim())?, parts(user.trim())?);
        let fenced = system.iter().chain(&user).any(|part| *part == Part::Fence);
        Ok(Self { system, user, fenced })
    }

    /// The messages for one question.
    pub fn messages(&self, texts: &Texts) -> Vec<Message> {
        let fence = Fence::of(&[texts.question, texts.solution, texts.attempt]);
        let fence = self.fenced.then_some(fence);
        let user = Message::user(filled(&self.user, texts, fence.as_ref()));
        if self.system.is_empty() {
            return vec![user];
        }
        vec![Message::system(filled(&self.system, texts, fence.as_ref())), user]
    }
}

fn parts(mut text: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    while let Some((before, rest)) = text.split_once('{') {
        let (name, rest) = rest.split_once('}').with_context(|| {
            format!("a brace is not closed: {{{}", rest.lines().next().unwrap_or_default())
        })?;
        parts.push(Part::Words(before.to_string()));
        parts.push(match name {
            "question" => Part::Question,
            "solution" => Part::Solution,
            "attempt" => Part::Attempt,
            "classes" => Part::Classes,
            "fence" => Part::Fence,
            _ => bail!(
                "there is no placeholder {{{name}}}; there are {{question}}, {{solution}}, \
                 {{attempt}}, {{classes}} and {{fence}}"
            ),
        });
        text = rest;
    }
    parts.push(Part::Words(text.to_string()));
    parts.retain(|part| !matches!(part, Part::Words(words) if words.is_empty()));
    Ok(parts)
}

fn filled(parts: &[Part], texts: &Texts, fence: Option<&Fence>) -> String {
    let foreign = |name: &str, text: &str| match fence {
        Some(fence) => fence.around(name, text),
        None => text.to_string(),
    };
    let part = |part: &Part| match part {
        Part::Words(words) => words.clone(),
        Part::Question => foreign("problem", texts.question),
        Part::Solution => foreign("correct-answer", texts.solution),
        Part::Attempt => foreign("attempt", texts.attempt),
        Part::Classes => classes()
            .iter()
            .map(|class| format!("{} {}: {}", class.code, class.title, class.about))
            .collect::<Vec<_>>()
            .join("\n"),
        Part::Fence => fence.map(Fence::rule).unwrap_or_default(),
    };
    parts.iter().map(part).collect()
}
