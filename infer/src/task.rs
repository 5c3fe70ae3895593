//! A task: questions and expected answers from a JSONL file, and how an answer is judged.

use anyhow::{Context, Result, bail, ensure};
use grading::Verdict;
use serde_json::{Map, Value};

use crate::config::{Grading, Task};

/// One row of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The number of the row, from 0.
    pub doc_id: usize,
    /// The row's own name, if the task has such a column.
    pub id: Option<String>,
    /// The whole user message, as in s1: nothing is added.
    pub question: String,
    /// The expected answer.
    pub target: String,
}

/// Reads the questions of a task, in the file's order.
///
/// # Errors
/// Name the file, the line and the column.
pub fn load(task: &Task) -> Result<Vec<Question>> {
    let place = task.path.display();
    let rows = record::jsonl::read_numbered::<Map<String, Value>>(&task.path)
        .with_context(|| format!("task {:?}: cannot read its questions", task.name))?;
    let mut questions = Vec::new();
    for row in rows.take(task.limit.unwrap_or(usize::MAX)) {
        let (line, row) = row?;
        let at = || format!("{place} line {line}");
        let question = text(&row, &task.question).with_context(at)?;
        let target = text(&row, &task.answer).with_context(at)?;
        let id = task.id.as_ref().map(|column| text(&row, column)).transpose().with_context(at)?;
        questions.push(Question { doc_id: questions.len(), id, question, target });
    }
    ensure!(!questions.is_empty(), "{place}: the task has no questions");
    Ok(questions)
}

/// A column's text; integers are written out.
fn text(row: &Map<String, Value>, column: &str) -> Result<String> {
    match row.get(column) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.clone()),
        Some(Value::Number(number)) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
        Some(Value::String(_)) => bail!("column `{column}` is empty"),
        Some(other) => bail!("column `{column}` holds {other}; a text or an integer is wanted"),
        None => {
            let columns: Vec<&str> = row.keys().map(String::as_str).collect();
            bail!("there is no column `{column}`; the columns are {}", columns.join(", "))
        }
    }
}

/// Judges what was extracted from a completion; nothing extracted is wrong.
pub fn grade(mode: Grading, extracted: Option<&str>, target: &str) -> Verdict {
    match (extracted, mode) {
        (None, _) => Verdict { equal: false, rule: "no answer" },
        (Some(given), Grading::Exact) => grading::exact(given, target),
        (Some(given), Grading::Equivalent) => grading::equivalent(given, target),
        (Some(given), Grading::Choice) => {
            let letter = |text| grading::choice(text, grading::Mode::Strict);
            match (letter(given), letter(target)) {
                (None, _) => Verdict { equal: false, rule: "no letter" },
                (given, target) => Verdict { equal: given == target, rule: "choice" },
            }
        }
    }
}
