//! The training set as tokens: rows read, written in the model's chat format, cut to length.

use std::iter;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use model::chat::{Chat, Example, IM_END, IM_START};
use model::hub::dataset_files;
use rayon::prelude::*;
use record::publish::{self, Input};
use record::question::question_hash;
use record::table::{self, Message};

use crate::config::{Control, Data, Format, OverLong};

/// A line says how far tokenising is, this often.
const SHOWN_EVERY: Duration = Duration::from_secs(5);

/// The tokenised training set.
#[derive(Debug)]
pub struct Examples {
    /// In the table's order.
    pub examples: Vec<Example>,
    /// Rows of the table, before any was dropped.
    pub rows: usize,
    /// What was done to rows longer than the block size, a line each.
    pub over_long: Vec<String>,
    /// `data.examples`, and its files with how many rows each has.
    name: String,
    files: Vec<(PathBuf, usize)>,
}

impl Examples {
    /// Reads and tokenises the run's table; with `is_loud`, says how far it is.
    ///
    /// # Errors
    /// A row that is no conversation; an over-long row under `over_long = "error"`; a row that
    /// would have no trained token. The text names file, row and question.
    pub fn read(data: &Data, chat: &Chat, is_loud: bool) -> Result<Self> {
        let table = Table::read(data)?;
        let (rows, name, files) = (table.len(), data.examples.clone(), table.files.clone());
        let mut found = Self { examples: Vec::new(), rows, over_long: Vec::new(), name, files };
        for (row, tokens) in table.tokenise(chat, is_loud).into_iter().enumerate() {
            let tokens = tokens?;
            match table.verdict(row, &tokens) {
                Verdict::Whole => {}
                Verdict::Truncated(what) => found.over_long.push(format!("truncated {what}")),
                Verdict::Dropped(what) => {
                    found.over_long.push(format!("dropped {what}"));
                    continue;
                }
                Verdict::Refused(what) => bail!(what),
            }
            found.examples.push(tokens.example);
        }
        ensure!(!found.examples.is_empty(), "{}: every row was dropped", data.examples);
        Ok(found)
    }

    /// The table's files as a manifest lists them: those of the hub by the data set's name, not
    /// by their place in somebody's cache.
    pub fn inputs(&self) -> Result<Vec<Input>> {
        let input = |(path, rows): &(PathBuf, usize)| -> Result<Input> {
            let input = publish::input(path, Some(*rows as u64))?;
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            Ok(match path == Path::new(&self.name) {
                true => input,
                false => Input { path: format!("{}: {file}", self.name), ..input },
            })
        };
        self.files.iter().map(input).collect()
    }

    /// Tokens that the loss is on, in one epoch.
    pub fn trained_tokens(&self) -> usize {
        self.examples.iter().map(Example::trained_tokens).sum()
    }

    /// Tokens in one epoch.
    pub fn tokens(&self) -> usize {
        self.examples.iter().map(|example| example.ids.len()).sum()
    }
}

/// The rows of the run's table, not yet tokens.
#[derive(Debug)]
pub struct Table {
    /// How they are to be read.
    data: Data,
    /// Its files, with how many rows each has.
    files: Vec<(PathBuf, usize)>,
    rows: Vec<Row>,
}

/// One row, as its format has it.
#[derive(Debug)]
enum Row {
    S1(Box<record::row::Row>),
    Text(String),
    Messages(Vec<Message>),
}

/// A row as tokens.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// What would be trained on: cut to `block_size`.
    pub example: Example,
    /// Tokens before the cut.
    pub length: usize,
    /// Of those, the trained ones.
    pub trained: usize,
}

/// What becomes of a row; the texts name it and say why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is trained on as it is.
    Whole,
    /// Its end is lost.
    Truncated(String),
    /// It is left out.
    Dropped(String),
    /// Training does not start.
    Refused(String),
}

impl Table {
    /// Reads the table, downloading it if it is the hub's.
    ///
    /// # Errors
    /// When there is no such table, it has no rows, or one of them lacks its column.
    pub fn read(data: &Data) -> Result<Self> {
        ensure!(
            data.format == Format::S1 || data.control == Control::None,
            "data.control rewrites questions and reasoning, which only format = \"s1\" has apart"
        );
        let (mut files, mut rows) = (Vec::new(), Vec::new());
        let is_table = [".parquet", ".jsonl"].iter().any(|end| data.examples.ends_with(end));
        let context = match data.format {
            Format::S1 if is_table => {
                "data.examples: the table that `curate run` writes, or one like it"
            }
            _ => "data.examples",
        };
        for path in dataset_files(&data.examples).context(context)? {
            let before = rows.len();
            match data.format {
                Format::S1 => {
                    let read = table::read_rows(&path).map_err(|error| hint(error, &path));
                    let read = read.context(context)?;
                    rows.extend(read.into_iter().map(|row| Row::S1(Box::new(row))));
                }
                Format::Text | Format::Plain => {
                    let read = table::read_texts(&path, "text").context("data.examples")?;
                    rows.extend(read.into_iter().map(Row::Text));
                }
                Format::Messages => {
                    let read = table::read_messages(&path).context("data.examples")?;
                    rows.extend(read.into_iter().map(Row::Messages));
                }
            }
            files.push((path, rows.len() - before));
        }
        ensure!(!rows.is_empty(), "{}: the table has no rows to train on", data.examples);
        Ok(Self { data: data.clone(), files, rows })
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Never true: a table without rows is not read.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Where a row stands: file, row (from 1) in it, and the question's hash.
    pub fn place(&self, row: usize) -> String {
        let hash = question_hash(self.question(row));
        let mut number = row + 1;
        for (path, rows) in &self.files {
            if number <= *rows {
                return format!("{}: row {number}, question {hash}", path.display());
            }
            number -= rows;
        }
        unreachable!("row {row} of {}", self.rows.len())
    }

    /// What the user asks first in a row; empty where nobody does.
    pub fn question(&self, row: usize) -> &str {
        match &self.rows[row] {
            Row::S1(row) => &row.question,
            Row::Text(text) => {
                let asked = text.split(&format!("{IM_START}user\n")).nth(1);
                asked.and_then(|asked| asked.split(IM_END).next()).unwrap_or_default()
            }
            Row::Messages(messages) => {
                let asked = messages.iter().find(|message| message.role == "user");
                asked.map_or("", |message| &message.content)
            }
        }
    }

    /// All rows as tokens, on all cores; with `is_loud`, says how far it is.
    pub fn tokenise(&self, chat: &Chat, is_loud: bool) -> Vec<Result<Tokens>> {
        let watch = Mutex::new((0, Instant::now()));
        let one = |row| {
            let tokens = self.tokens(row, chat);
            let mut watch = watch.lock().expect("no holder panics");
            watch.0 += 1;
            if is_loud && watch.1.elapsed() > SHOWN_EVERY {
                watch.1 = Instant::now();
                eprintln!("examples  {} of {} rows tokenised", watch.0, self.rows.len());
            }
            tokens
        };
        (0..self.rows.len()).into_par_iter().map(one).collect()
    }

    /// A row as tokens, cut to `block_size`.
    ///
    /// # Errors
    /// When the row is no conversation that could be trained on.
    pub fn tokens(&self, row: usize, chat: &Chat) -> Result<Tokens> {
        let mut ids = self.ids(row, chat).with_context(|| self.place(row))?;
        let (length, whole) = (ids.len(), self.trained(&ids, chat));
        // As in the original, the rule sees what is left after the cut.
        ids.truncate(self.data.block_size);
        let trained = whole.iter().map(ExactSizeIterator::len).sum();
        let is_cut = ids.len() < length;
        let example =
            Example { trained: if is_cut { self.trained(&ids, chat) } else { whole }, ids };
        Ok(Tokens { example, length, trained })
    }

    fn trained(&self, ids: &[i64], chat: &Chat) -> Vec<Range<usize>> {
        match self.data.format {
            // Nothing could predict the first.
            Format::Plain => iter::once(1..ids.len()).filter(|range| !range.is_empty()).collect(),
            _ => chat.trained(ids),
        }
    }

    fn ids(&self, row: usize, chat: &Chat) -> Result<Vec<i64>> {
        match &self.rows[row] {
            Row::S1(row) => of_s1(row, self.data.control, chat),
            Row::Text(text) => chat.tokenizer.encode_fixed(text),
            Row::Messages(messages) => of_messages(messages, chat),
        }
    }

    /// What becomes of a row with these tokens.
    pub fn verdict(&self, row: usize, tokens: &Tokens) -> Verdict {
        let (limit, place) = (self.data.block_size, self.place(row));
        let what = format!("{place}: {} tokens, block_size is {limit}", tokens.length);
        let is_lost = tokens.example.trained.is_empty();
        match (tokens.length > limit, self.data.over_long) {
            (true, OverLong::Error) => {
                Verdict::Refused(format!("{what}; raise it, or set over_long to truncate or drop"))
            }
            (true, OverLong::Drop) => Verdict::Dropped(what),
            _ if is_lost && self.data.format == Format::Plain => Verdict::Refused(format!(
                "{place}: no token would be trained: the text has one at most"
            )),
            _ if is_lost && tokens.trained == 0 => Verdict::Refused(format!(
                "{place}: no token would be trained: it needs `{IM_START}user` and then \
                 `{IM_START}assistant`, each at the head of its turn"
            )),
            _ if is_lost => Verdict::Refused(format!(
                "{place}: its question alone fills block_size {limit}, no token would be trained"
            )),
            (true, OverLong::Truncate) => Verdict::Truncated(what),
            (false, _) => Verdict::Whole,
        }
    }
}

/// The error of a table that is not s1's, with the format that it has.
fn hint(error: Error, path: &Path) -> Error {
    if !format!("{error:#}").contains("no column") {
        return error;
    }
    let format = match (table::read_messages(path), table::read_texts(path, "text")) {
        (Ok(_), _) => "messages",
        (_, Ok(_)) => "text",
        _ => return error,
    };
    anyhow!("{error:#}; to train on its column `{format}`, set data.format = \"{format}\"")
}

/// s1's text of a row as ids; `control` puts into it how long to think (the paper's appendix E.1).
///
/// Differs from s1: the script of its conditional data is not public. Here the steps count down
/// from N, as its evaluation asks for N steps; blank steps are none; a trace's tokens are those of
/// the trained model's tokenizer.
fn of_s1(row: &record::row::Row, control: Control, chat: &Chat) -> Result<Vec<i64>> {
    let (thinking, answer) = record::example::parts(row)?;
    ensure!(!row.question.trim().is_empty(), "the question is empty");
    ensure!(
        // What stands before an attempt that names no answer is no attempt.
        !(thinking.trim().is_empty() && answer.trim_start_matches("Answer:").trim().is_empty()),
        "thinking_trajectories and attempt are empty"
    );
    let asked =
        |budget: usize, unit: &str| format!("{}\n\nThink for up to {budget} {unit}.", row.question);
    let answer = ("answer", answer.as_str());
    match control {
        Control::None => chat.answered(&row.question, &[("think", &thinking), answer]),
        Control::Tokens => {
            let budget = chat.tokenizer.encode_text(&thinking)?.len().next_power_of_two();
            chat.answered(&asked(budget, "tokens"), &[("think", &thinking), answer])
        }
        Control::Steps => {
            let steps = thinking.split("\n\n").map(|step| step.trim_matches('\n'));
            let steps: Vec<&str> = steps.filter(|step| !step.trim().is_empty()).collect();
            let budget = steps.len().next_power_of_two();
            let left = (0..steps.len()).map(|done| format!("{} steps left", budget - done));
            let left: Vec<String> = left.collect();
            let steps = left.iter().map(String::as_str).zip(steps);
            let parts: Vec<(&str, &str)> = steps.chain([answer]).collect();
            chat.answered(&asked(budget, "steps"), &parts)
        }
    }
}

/// A conversation's ids. It goes system (or not), user, assistant, user, …: in any other order
/// s1's rule would train on headers or leave answers out.
fn of_messages(messages: &[Message], chat: &Chat) -> Result<Vec<i64>> {
    let is_system = messages.first().is_some_and(|message| message.role == "system");
    let turns: Vec<(&str, &str)> =
        messages.iter().map(|message| (message.role.as_str(), message.content.as_str())).collect();
    let expected = ["user", "assistant"].into_iter().cycle();
    for (n, ((role, _), expected)) in
        turns.iter().skip(usize::from(is_system)).zip(expected).enumerate()
    {
        let number = n + 1 + usize::from(is_system);
        ensure!(*role == expected, "message {number} is of role {role:?}, not {expected:?}");
    }
    chat.conversation(&turns)
}
