//! A task: questions and expected answers from a table, and how an answer is judged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use grading::Verdict;
use record::question::question_hash;
use record::raw::{self, Object};
use serde::Deserialize;
use serde_json::Value;

/// What is asked and what is right; those of s1 are `configs/tasks/*.toml`.
///
/// A template is a text with `{column}` where the row's value belongs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Appears in the results, and in the names of files.
    pub name: String,
    /// A `.jsonl`, `.parquet` or `.csv` file, or a data set of the hub (`owner/name`).
    pub dataset: String,
    /// Of a data set of the hub: the branch, tag or commit. Default: the hub's own conversion to
    /// Parquet, `refs/convert/parquet`.
    pub revision: Option<String>,
    /// Of a data set of the hub: a file, or a folder whose tables are read in order; in the
    /// conversion to Parquet a folder is called `configuration/split`.
    pub file: Option<String>,
    /// The template of the user message. `{choices}` are the choices, a line each: `A) …`.
    pub prompt: String,
    /// The column of the expected answer, a text or a number; not with `choices`.
    pub answer: Option<String>,
    /// Where the column holds more than the answer: this stands before it (the last one counts).
    pub answer_after: Option<String>,
    /// The choices of which one is right.
    pub choices: Option<Choices>,
    /// The column that names a row in the samples.
    pub id: Option<String>,
    /// Ids of answer at most, where the run says nothing.
    pub max_gen_toks: Option<usize>,
    /// The temperature, where the run says nothing.
    pub temperature: Option<f64>,
    /// How the answer is found in a completion; s1's way by default.
    #[serde(default)]
    pub extract: Extract,
    /// Which answers count as right.
    pub grading: Grading,
}

/// `choices`: columns whose texts are offered in an order that depends on the question alone.
///
/// Differs from s1: its order is Python's `random` while mapping the data set, frozen in a cache
/// of the machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choices {
    /// The column of the right one.
    pub right: String,
    /// The columns of the others.
    pub wrong: Vec<String>,
}

/// `extract`, the modes of [`grading::extract()`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Extract {
    /// s1's own rules, for scores to compare with its.
    #[default]
    S1,
    /// Stricter and wider: an unfinished box is no answer, a closing sentence is one.
    Strict,
}

impl Extract {
    /// What [`grading`] calls it.
    pub fn mode(self) -> grading::Mode {
        match self {
            Extract::S1 => grading::Mode::S1,
            Extract::Strict => grading::Mode::Strict,
        }
    }
}

/// `grading`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grading {
    /// s1's own comparison without its judge, [`grading::exact`].
    Exact,
    /// [`grading::equivalent()`].
    Equivalent,
    /// The letter of a multiple choice, [`grading::choice`].
    ///
    /// Differs from s1: an answer without a letter is wrong, not `A`.
    Choice,
}

/// One row of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The number of the row, from 0.
    pub doc_id: usize,
    /// The row's own name, if the task has such a column.
    pub id: Option<String>,
    /// The whole user message, as in s1: nothing is added but what a budget adds.
    pub question: String,
    /// The expected answer.
    pub target: String,
    /// The row as it stands in the table.
    pub row: Object,
}

impl Task {
    /// Refuses values that TOML's types let through.
    pub fn check(&self) -> Result<()> {
        crate::config::check_name("task", &self.name)?;
        let name = &self.name;
        ensure!(
            self.answer.is_some() != self.choices.is_some(),
            "task {name}: give either `answer`, a column, or `choices`"
        );
        ensure!(
            self.answer.is_some() || self.answer_after.is_none(),
            "task {name}: answer_after without `answer`: a choice's answer is its letter"
        );
        let offered = self.prompt.contains("{choices}");
        ensure!(
            offered == self.choices.is_some(),
            "task {name}: {{choices}} in `prompt` and the section `choices` belong together"
        );
        ensure!(
            self.prompt.contains('{'),
            "task {name}: `prompt` names no {{column}}: every question would be the same"
        );
        ensure!(
            self.choices.as_ref().is_none_or(|choices| (1..26).contains(&choices.wrong.len())),
            "task {name}: choices.wrong names 1 to 25 columns"
        );
        Ok(())
    }

    /// The files of its table, downloaded if need be.
    ///
    /// # Errors
    /// When there are none, or the hub does not give them out.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let found = || -> Result<Vec<PathBuf>> {
            let path = Path::new(&self.dataset);
            let is_table = [".jsonl", ".parquet", ".csv"].iter().any(|e| self.dataset.ends_with(e));
            if is_table {
                ensure!(path.exists(), "there is no file {}", self.dataset);
                return Ok(vec![path.to_path_buf()]);
            }
            let file = self.file.as_deref().with_context(|| {
                format!(
                    "{} is no .jsonl, .parquet or .csv file; of a data set of the hub say which \
                     `file` is meant",
                    self.dataset
                )
            })?;
            let revision = self.revision.as_deref().unwrap_or("refs/convert/parquet");
            model::hub::dataset_part(&self.dataset, revision, file)
        };
        found().with_context(|| format!("task {}: cannot read its questions", self.name))
    }

    /// The first `limit` questions in the order of the table's files.
    ///
    /// # Errors
    /// Name the file, the row and the column.
    pub fn load(&self, files: &[PathBuf], limit: Option<usize>) -> Result<Vec<Question>> {
        let mut questions = Vec::new();
        let mut ids = BTreeMap::new();
        for file in files {
            for (number, row) in raw::read(file)?.enumerate() {
                if Some(questions.len()) == limit {
                    break;
                }
                let place = || format!("{}: row {}", file.display(), number + 1);
                let question = self.question(questions.len(), row?).with_context(place)?;
                if let Some(id) = &question.id
                    && let Some(earlier) = ids.insert(id.clone(), question.doc_id)
                {
                    bail!("{}: question {earlier} (from 0) has the id {id:?} too", place());
                }
                questions.push(question);
            }
        }
        ensure!(!questions.is_empty(), "task {}: its table has no questions", self.name);
        Ok(questions)
    }

    fn question(&self, doc_id: usize, row: Object) -> Result<Question> {
        let id = self.id.as_ref().map(|column| text(&row, column)).transpose()?;
        let (choices, target) = match (&self.choices, &self.answer) {
            (Some(choices), _) => choices.offer(&row, &fill(&self.prompt, &row, "")?)?,
            (None, Some(column)) => (String::new(), self.target(&text(&row, column)?)?),
            (None, None) => unreachable!("check() wants one of them"),
        };
        let question = fill(&self.prompt, &row, &choices)?;
        Ok(Question { doc_id, id, question, target, row })
    }

    /// The answer in the answer's column.
    fn target(&self, cell: &str) -> Result<String> {
        let Some(marker) = &self.answer_after else { return Ok(cell.to_string()) };
        let (_, answer) = cell
            .rsplit_once(marker.as_str())
            .with_context(|| format!("{marker:?} (answer_after) is not in {cell:?}"))?;
        Ok(answer.trim().to_string())
    }
}

impl Choices {
    /// The choices, a line each, and the letter of the right one.
    fn offer(&self, row: &Object, question: &str) -> Result<(String, String)> {
        let columns = self.wrong.iter().chain([&self.right]).enumerate();
        let choices = columns.map(|(nth, column)| Ok((nth, text(row, column)?)));
        let mut choices = choices.collect::<Result<Vec<(usize, String)>>>()?;
        record::seed::rng(0, &["choices", &question_hash(question)]).shuffle(&mut choices);
        let right = choices.iter().position(|(nth, _)| *nth == self.wrong.len());
        let letter = |place: usize| char::from(b'A' + place as u8);
        let lines: Vec<String> = choices
            .iter()
            .enumerate()
            .map(|(place, (_, choice))| format!("{}) {choice}", letter(place)))
            .collect();
        let right = letter(right.expect("the right one is among them"));
        Ok((lines.join("\n"), right.to_string()))
    }
}

/// The template with the row's texts in it.
fn fill(template: &str, row: &Object, choices: &str) -> Result<String> {
    let mut parts = template.split('{');
    let mut filled = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let (column, literal) = part
            .split_once('}')
            .with_context(|| format!("in the template {template:?} a {{ has no }}"))?;
        match column {
            "choices" => filled += choices,
            _ => filled += &text(row, column)?,
        }
        filled += literal;
    }
    Ok(filled)
}

/// A column's text; numbers are written out.
fn text(row: &Object, column: &str) -> Result<String> {
    match row.get(column) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::String(_)) => bail!("column `{column}` is empty"),
        Some(other) => bail!("column `{column}` holds {other}; a text or a number is wanted"),
        None => {
            let columns: Vec<&str> = row.keys().map(String::as_str).collect();
            Err(anyhow!("there is no column `{column}`; the columns are {}", columns.join(", ")))
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
