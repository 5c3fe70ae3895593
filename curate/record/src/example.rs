//! The text of one training example, byte for byte as s1 makes it (data/tokenization.py).

use anyhow::{Context, Result, ensure};

use crate::row::Row;

/// What Qwen2.5's chat template puts first when a conversation has no system message.
pub const SYSTEM: &str = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";

/// The assistant's turn: the reasoning behind `<|im_start|>think`, the answer behind
/// `<|im_start|>answer`. Both delimiters are Qwen's existing special token and a plain word.
///
/// The trajectories are joined by newlines and stripped; an `attempt` that nowhere says `Answer:`
/// gets it as a prefix, then is stripped.
pub fn assistant_content(thinking: &[String], attempt: &str) -> String {
    let trace = thinking.join("\n");
    let prefix = if attempt.contains("Answer:") { "" } else { "Answer: " };
    let answer = format!("{prefix}{attempt}");
    let (trace, answer) = (strip(&trace), strip(&answer));
    format!("<|im_start|>think\n{trace}\n<|im_start|>answer\n{answer}")
}

/// The whole example as Qwen2.5's chat template renders it: default system block, the question as
/// the user's turn, [`assistant_content`] as the assistant's.
///
/// This is text for people and for s1's own `text` column. Text inside a question that spells a
/// control token looks like one here; so tokens for training are never made from this string.
///
/// Errors when the row has no reasoning or no attempt.
pub fn text(row: &Row) -> Result<String> {
    let missing = |column| format!("question {}: no {column}, so no training example", row.hash());
    ensure!(!row.thinking_trajectories.is_empty(), missing("thinking_trajectories"));
    let attempt = row.attempt.as_deref().with_context(|| missing("attempt"))?;
    let assistant = assistant_content(&row.thinking_trajectories, attempt);
    Ok(format!(
        "<|im_start|>system\n{SYSTEM}<|im_end|>\n\
         <|im_start|>user\n{}<|im_end|>\n\
         <|im_start|>assistant\n{assistant}<|im_end|>\n",
        row.question
    ))
}

/// Python's `str.strip()`: Unicode white space and, unlike Rust's `trim`, the four ASCII
/// separators.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c))
}
