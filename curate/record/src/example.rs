//! The text of one training example, byte for byte as s1 makes it (data/tokenization.py).

use anyhow::{Context, Result, ensure};

use crate::row::Row;

/// What Qwen2.5's chat template puts first when a conversation has no system message.
pub const SYSTEM: &str = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";

/// The reasoning and the answer of a row as s1 trains them: trajectories joined by newlines and
/// stripped; an `attempt` that nowhere says `Answer:` gets it as a prefix, then is stripped.
///
/// Errors when the row has no reasoning or no attempt; the caller adds which row that is.
pub fn parts(row: &Row) -> Result<(String, String)> {
    let missing = |column| format!("no {column}, so no training example");
    ensure!(!row.thinking_trajectories.is_empty(), missing("thinking_trajectories"));
    let attempt = row.attempt.as_deref().with_context(|| missing("attempt"))?;
    let trace = row.thinking_trajectories.join("\n");
    let prefix = if attempt.contains("Answer:") { "" } else { "Answer: " };
    let answer = format!("{prefix}{attempt}");
    Ok((strip(&trace).to_string(), strip(&answer).to_string()))
}

/// The whole example as Qwen2.5's chat template renders it: default system block, the question as
/// the user's turn, and the assistant's: the reasoning behind `<|im_start|>think`, the answer
/// behind `<|im_start|>answer`. Both delimiters are Qwen's existing special token and a plain word.
///
/// This is text for people and for s1's own `text` column. Text inside a question that spells a
/// control token looks like one here; so tokens for training are made from [`parts`] instead.
///
/// Errors as [`parts`].
pub fn text(row: &Row) -> Result<String> {
    let (trace, answer) = parts(row)?;
    Ok(format!(
        "<|im_start|>system\n{SYSTEM}<|im_end|>\n\
         <|im_start|>user\n{}<|im_end|>\n\
         <|im_start|>assistant\n\
         <|im_start|>think\n{trace}\n<|im_start|>answer\n{answer}<|im_end|>\n",
        row.question
    ))
}

/// Python's `str.strip()`.
fn strip(text: &str) -> &str {
    text.trim_matches(is_python_space)
}

/// Python's `str.isspace()` of one character: Unicode white space and, unlike Rust's
/// `is_whitespace`, the four ASCII separators.
pub fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}
