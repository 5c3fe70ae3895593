//! Tables in files: Parquet as s1, datasets, pandas and polars write it, or JSONL, by extension.
//!
//! A table is described once, by its [`Column`]s ([`columns`]); both formats read and write by
//! that description, so they agree on names, older spellings, nulls and errors. Rows are counted
//! from 1; row N of a JSONL file is its Nth line that is not blank, and errors name the line.

mod columns;
mod messages;
mod parquet_in;
mod parquet_out;

use std::path::Path;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::jsonl;
use crate::question::question_hash;
use crate::row::{Attempt, Features, Lineage, Outline, Row};

pub use messages::{Message, read_messages};

/// All rows of the `.parquet` or `.jsonl` file at `path`.
///
/// A missing optional column is `None` in every row, unknown columns are passed over, and the
/// older spellings of [`columns`] are taken. Errors name file, row (JSONL: line) and column.
pub fn read_rows(path: &Path) -> Result<Vec<Row>> {
    stream(path, columns::of_row())?.collect()
}

/// As [`read_rows`], one row at a time, in memory that does not grow with the file. The first
/// error is the last item. In Parquet, `nth` passes over rows without making them.
pub fn stream_rows(path: &Path) -> Result<impl Iterator<Item = Result<Row>> + use<>> {
    stream(path, columns::of_row())
}

/// As [`stream_rows`], of each row only what decides whether it stays.
pub fn stream_outlines(path: &Path) -> Result<impl Iterator<Item = Result<Outline>> + use<>> {
    stream(path, columns::of_outline())
}

/// How many rows a Parquet file has, from its footer; `None` for JSONL.
pub fn count_rows(path: &Path) -> Result<Option<u64>> {
    Ok(match format(path)? {
        Format::Parquet => Some(parquet_in::count_rows(path)?),
        Format::Jsonl => None,
    })
}

/// Writes `rows` to the `.parquet` (zstd) or `.jsonl` file at `path`, which it replaces.
///
/// s1's six pool columns are always there; a later one is left out when no row has a value, so a
/// pool without traces and features looks like s1's own.
pub fn write_rows(path: &Path, rows: &[Row]) -> Result<()> {
    write(path, columns::of_row(), rows)
}

/// All rows of a table of attempts, as [`read_rows`].
pub fn read_attempts(path: &Path) -> Result<Vec<Attempt>> {
    stream(path, columns::of_attempt())?.collect()
}

/// Writes a table of attempts, as [`write_rows`]; every column is always there.
pub fn write_attempts(path: &Path, attempts: &[Attempt]) -> Result<()> {
    write(path, columns::of_attempt(), attempts)
}

/// The rows of a side table of features, one at a time, as [`stream_rows`]. Where a row has no
/// `question_hash` it is that of its `question`; a row with neither is an error.
pub fn stream_features(path: &Path) -> Result<impl Iterator<Item = Result<Features>> + use<>> {
    let rows = stream(path, columns::of_side_table_in())?;
    Ok(hashed(path, rows, |row| !row.question_hash.is_empty()))
}

/// The questions of any table, of s1's or another's, one at a time, as [`stream_rows`]: of a
/// lineage's columns those that say which question it is, and its features. A `question` says its
/// own hash; a row without it, because its text is withheld, needs a `question_hash`.
pub fn stream_questions(path: &Path) -> Result<impl Iterator<Item = Result<Lineage>> + use<>> {
    let rows = stream(path, columns::of_questions())?.map(|row| {
        let row = row?;
        let is_withheld = row.question.is_empty();
        let own = || question_hash(&row.question);
        let question_hash = if is_withheld { row.question_hash.clone() } else { own() };
        Ok(Lineage { question_hash, ..row })
    });
    Ok(hashed(path, rows, |row| !row.question_hash.is_empty()))
}

/// `rows`, with an error in the place of one that does not say which question it is about.
fn hashed<R, I: Iterator<Item = Result<R>>>(
    path: &Path,
    rows: I,
    has_hash: fn(&R) -> bool,
) -> impl Iterator<Item = Result<R>> + use<R, I> {
    let path = path.to_path_buf();
    rows.enumerate().map(move |(row, of)| {
        let of = of?;
        let (path, row) = (path.display(), row + 1);
        ensure!(
            has_hash(&of),
            "{path}: row {row} has neither `question` nor `question_hash`: one of them says which \
             question it is about"
        );
        Ok(of)
    })
}

/// Writes a side table of features, as [`write_rows`]; every column is always there.
pub fn write_features(path: &Path, features: &[Features]) -> Result<()> {
    write(path, columns::of_side_table(), features)
}

/// The rows of a curation's lineage, one at a time, as [`stream_rows`].
pub fn stream_lineage(path: &Path) -> Result<impl Iterator<Item = Result<Lineage>> + use<>> {
    stream(path, columns::of_lineage())
}

/// Starts a lineage; every column is always there.
pub fn create_lineage(path: &Path) -> Result<Writer<Lineage>> {
    Writer::create(path, columns::of_lineage())
}

/// Starts a table with exactly these columns of [`Row`].
///
/// A column that s1 leaves null gets Parquet's null type when no row of the first row group has a
/// value; a value after that is an error.
pub fn create_rows(path: &Path, names: &[&str]) -> Result<Writer<Row>> {
    let named = |column: &Column<Row>| names.contains(&column.name.as_str());
    Writer::create(path, columns::of_row().into_iter().filter(named).collect())
}

/// The columns of a table that none of [`Row`]'s takes; of JSONL the first row says which.
pub fn passed_over(path: &Path) -> Result<Vec<String>> {
    let (mut has, columns) = match format(path)? {
        Format::Parquet => (parquet_in::column_names(path)?, columns::of_row()),
        Format::Jsonl => {
            let first = jsonl::read_numbered::<serde_json::Map<String, Value>>(path)?.next();
            let first = first.transpose()?.map(|(_, object)| object).unwrap_or_default();
            (first.into_iter().map(|(name, _)| name).collect(), columns::of_row())
        }
    };
    for column in columns {
        let taken = column.names().find(|name| has.iter().any(|of| of == name));
        has.retain(|name| Some(name.as_str()) != taken);
    }
    Ok(has)
}

/// One text column of any table, such as the `problem`s of a benchmark; a null is an error.
pub fn read_texts(path: &Path, column: &str) -> Result<Vec<String>> {
    stream(path, vec![columns::of_text(column)])?.collect()
}

fn stream<R: Default + 'static>(
    path: &Path,
    columns: Vec<Column<R>>,
) -> Result<Box<dyn Iterator<Item = Result<R>>>> {
    Ok(match format(path)? {
        Format::Parquet => Box::new(parquet_in::Rows::open(path, columns)?),
        Format::Jsonl => Box::new(json_rows(path, columns)?),
    })
}

fn write<R: Clone + Sync>(path: &Path, columns: Vec<Column<R>>, rows: &[R]) -> Result<()> {
    let columns = columns.into_iter().filter(|column| column.is_in(rows)).collect();
    let mut writer = Writer::create(path, columns)?;
    if let Sink::Parquet(parquet) = &mut writer.sink {
        parquet.settle(&writer.columns, rows)?;
    }
    rows.iter().try_for_each(|row| writer.push(row.clone()))?;
    writer.finish()
}

/// A table being written row by row, in memory that does not grow with it.
pub struct Writer<R> {
    columns: Vec<Column<R>>,
    sink: Sink<R>,
}

enum Sink<R> {
    Parquet(Box<parquet_out::Writer<R>>),
    Jsonl(jsonl::Writer),
}

impl<R: Sync> Writer<R> {
    fn create(path: &Path, columns: Vec<Column<R>>) -> Result<Self> {
        let sink = match format(path)? {
            Format::Parquet => Sink::Parquet(Box::new(parquet_out::Writer::create(path)?)),
            Format::Jsonl => Sink::Jsonl(jsonl::Writer::create(path)?),
        };
        Ok(Writer { columns, sink })
    }

    /// Writes one more row.
    pub fn push(&mut self, row: R) -> Result<()> {
        match &mut self.sink {
            Sink::Parquet(parquet) => parquet.push(&self.columns, row),
            Sink::Jsonl(jsonl) => jsonl.push(&to_json(&self.columns, &row)),
        }
    }

    /// Writes what is left and closes the file, which is no table before.
    pub fn finish(self) -> Result<()> {
        match self.sink {
            Sink::Parquet(parquet) => parquet.finish(&self.columns),
            Sink::Jsonl(jsonl) => jsonl.finish(),
        }
    }
}

/// One column of a table: its name in files, and its field in the row.
struct Column<R> {
    name: String,
    /// Other names, taken in this order from a file that lacks `name`.
    aliases: &'static [&'static str],
    kind: Kind,
    presence: Presence,
    /// The field's value; never of another kind than `kind`.
    get: fn(&R) -> Cell<'_>,
    /// Sets the field; the cell is null or of `kind`.
    set: fn(&mut R, Cell<'_>),
}

/// The type of a column's values.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Text,
    /// A list of texts; a single text is read as a list of one.
    Texts,
    /// In s1K-1.1 the grades are the texts `Yes` and `No`.
    Bool,
    /// 64 bits, 0 or more: all of them count something. Floats without a fraction are read as what they are, NaN as null, since that is
    /// what pandas makes of nullable integers.
    Int,
}

/// When a column is in a file.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Presence {
    /// Always, and every row has a value.
    Required,
    /// Always written; missing or null reads as nothing.
    Written,
    /// As `Written`, but of Parquet's null type while no row has a value: s1's `cot`.
    Reserved,
    /// Left out of a file when no row has a value.
    Optional,
}

/// One value on its way between a row and a file.
#[derive(Debug, Clone, PartialEq)]
enum Cell<'a> {
    Null,
    Text(&'a str),
    Texts(Vec<&'a str>),
    Bool(bool),
    Int(i64),
}

impl<R> Column<R> {
    /// The names a file may have it under, best first.
    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.aliases.iter().copied())
    }

    /// Does the column belong into a file of `rows`?
    fn is_in(&self, rows: &[R]) -> bool {
        self.presence != Presence::Optional || self.has_value(rows)
    }

    fn has_value(&self, rows: &[R]) -> bool {
        rows.iter().any(|row| match (self.get)(row) {
            Cell::Null => false,
            Cell::Texts(texts) => !texts.is_empty(),
            _ => true,
        })
    }

    /// Puts a value read from a file into `row`; the error says what is wrong with it.
    fn put(&self, row: &mut R, cell: Cell<'_>) -> Result<(), String> {
        let cell = match (cell, self.kind) {
            (Cell::Null, _) if self.presence == Presence::Required => {
                return Err(format!("null; every row needs a {}", self.name));
            }
            (Cell::Text(text), Kind::Texts) => Cell::Texts(vec![text]),
            (Cell::Text("Yes"), Kind::Bool) => Cell::Bool(true),
            (Cell::Text("No"), Kind::Bool) => Cell::Bool(false),
            (Cell::Text(text), Kind::Bool) => {
                return Err(format!("{text:?} where {} is expected", Kind::Bool.name()));
            }
            (Cell::Int(value), _) if value < 0 => {
                return Err(format!("{value} where {} is expected", Kind::Int.name()));
            }
            (cell, _) => cell,
        };
        (self.set)(row, cell);
        Ok(())
    }
}

enum Format {
    Parquet,
    Jsonl,
}

fn format(path: &Path) -> Result<Format> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => Ok(Format::Parquet),
        Some("jsonl") => Ok(Format::Jsonl),
        _ => bail!("{}: a table's name ends in .parquet or .jsonl", path.display()),
    }
}

fn json_rows<R: Default>(
    path: &Path,
    columns: Vec<Column<R>>,
) -> Result<impl Iterator<Item = Result<R>> + use<R>> {
    let path = path.to_path_buf();
    let objects = jsonl::read_numbered::<serde_json::Map<String, Value>>(&path)?;
    Ok(objects.map(move |object| {
        let (line, object) = object?;
        let mut row = R::default();
        for column in &columns {
            let value = column.names().find_map(|name| object.get(name));
            if value.is_none() && column.presence == Presence::Required {
                let has: Vec<&str> = object.keys().map(String::as_str).collect();
                let (path, name, has) = (path.display(), &column.name, has.join(", "));
                bail!("{path}: line {line}: no column `{name}`; it has: {has}");
            }
            let value = value.unwrap_or(&Value::Null);
            let put = from_json(value, column.kind).and_then(|cell| column.put(&mut row, cell));
            if let Err(what) = put {
                bail!("{}: line {line}, column `{}`: {what}", path.display(), column.name);
            }
        }
        Ok(row)
    }))
}

fn from_json(value: &Value, kind: Kind) -> Result<Cell<'_>, String> {
    let cell = match (value, kind) {
        (Value::Null, _) => Some(Cell::Null),
        (Value::String(text), Kind::Text | Kind::Texts) => Some(Cell::Text(text)),
        (Value::String(text), Kind::Bool) if text == "Yes" || text == "No" => {
            Some(Cell::Text(text))
        }
        (Value::Array(items), Kind::Texts) => {
            items.iter().map(Value::as_str).collect::<Option<_>>().map(Cell::Texts)
        }
        (Value::Bool(value), Kind::Bool) => Some(Cell::Bool(*value)),
        (Value::Number(number), Kind::Int) => match number.as_i64() {
            Some(value) => Some(Cell::Int(value)),
            None => number.as_f64().and_then(|value| from_float(value).ok()),
        },
        _ => None,
    };
    cell.ok_or_else(|| {
        let mut shown: String = value.to_string().chars().take(41).collect();
        if shown.chars().count() > 40 {
            shown.pop();
            shown.push('…');
        }
        format!("{shown} where {} is expected", kind.name())
    })
}

fn to_json<R>(columns: &[Column<R>], row: &R) -> serde_json::Map<String, Value> {
    let value = |cell| match cell {
        Cell::Null => Value::Null,
        Cell::Text(text) => Value::from(text),
        Cell::Texts(texts) => Value::from(texts),
        Cell::Bool(value) => Value::from(value),
        Cell::Int(value) => Value::from(value),
    };
    columns.iter().map(|column| (column.name.clone(), value((column.get)(row)))).collect()
}

/// A whole number that a file holds as a float: pandas has no other way to mix integers and nulls.
fn from_float(value: f64) -> Result<Cell<'static>, String> {
    // Every integer below 2^63 that a double can hold survives the cast.
    match value {
        value if value.is_nan() => Ok(Cell::Null),
        value if value.fract() == 0.0 && value.abs() < 2f64.powi(63) => Ok(Cell::Int(value as i64)),
        _ => Err(format!("{value} where {} is expected", Kind::Int.name())),
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Texts => "a list of texts",
            Kind::Bool => "true or false",
            Kind::Int => "a whole number from 0 on",
        }
    }
}
