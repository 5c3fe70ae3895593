//! Conversations in files: a column `messages` of lists of `{role, content}`, as chat APIs have it.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Format, format, parquet_in};
use crate::jsonl;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or what else the file says.
    pub role: String,
    /// What was said, verbatim.
    pub content: String,
}

const COLUMN: &str = "messages";
/// Rows decoded at a time: few, since one conversation may be long.
const BATCH_ROWS: usize = 64;

/// The conversations of a `.parquet` or `.jsonl` table. Other columns are passed over; what a
/// message holds besides role and content must be null, since it would be lost.
pub fn read_messages(path: &Path) -> Result<Vec<Vec<Message>>> {
    match format(path)? {
        Format::Jsonl => of_jsonl(path),
        Format::Parquet => {
            let place = || format!("{}: column `{COLUMN}`", path.display());
            parquet_in::guard(|| of_parquet(path)).with_context(place)
        }
    }
}

fn of_jsonl(path: &Path) -> Result<Vec<Vec<Message>>> {
    let rows = jsonl::read_numbered::<Map<String, Value>>(path)?;
    let conversation = |row: Result<(u64, Map<String, Value>)>| {
        let (line, mut row) = row?;
        let place = || format!("{}: line {line}, column `{COLUMN}`", path.display());
        let Some(Value::Array(messages)) = row.remove(COLUMN) else {
            let has: Vec<&str> = row.keys().map(String::as_str).collect();
            bail!("{}: no list of messages; the row has: {}", place(), has.join(", "));
        };
        let numbered = messages.into_iter().enumerate();
        let message = |(n, value)| of_json(value).with_context(|| format!("message {}", n + 1));
        numbered.map(message).collect::<Result<Vec<_>>>().with_context(place)
    };
    rows.map(conversation).collect()
}

fn of_json(value: Value) -> Result<Message> {
    let Value::Object(object) = &value else {
        bail!("{value} where an object with role and content is expected")
    };
    let more = |(name, value): &(&String, &Value)| {
        !["role", "content"].contains(&name.as_str()) && !value.is_null()
    };
    if let Some((name, _)) = object.iter().find(more) {
        return Err(would_be_lost(name));
    }
    serde_json::from_value(value).map_err(|error| anyhow!("{error}"))
}

fn would_be_lost(name: &str) -> anyhow::Error {
    anyhow!("it has a {name}, which would be lost: only role and content are read; leave it out")
}

fn of_parquet(path: &Path) -> Result<Vec<Vec<Message>>> {
    let file = File::open(path)?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)?;
    let names: Vec<_> = reader.schema().fields().iter().map(|field| field.name().clone()).collect();
    let index = names.iter().position(|name| name == COLUMN);
    let index = index.with_context(|| format!("not there; the table has: {}", names.join(", ")))?;
    let mask = ProjectionMask::roots(reader.parquet_schema(), [index]);
    let mut rows = Vec::new();
    for batch in reader.with_projection(mask).with_batch_size(BATCH_ROWS).build()? {
        let first = rows.len() + 1;
        let place = || format!("rows {first} to {}", first + BATCH_ROWS - 1);
        rows.extend(of_batch(&batch?, first).with_context(place)?);
    }
    Ok(rows)
}

/// The rows of a batch whose only column is that of messages; the first is row `first`.
fn of_batch(batch: &RecordBatch, first: usize) -> Result<Vec<Vec<Message>>> {
    let array = batch.column(0);
    let wrong = || format!("{} where a list of {{role, content}} is expected", array.data_type());
    let lists = array.as_list_opt::<i32>().with_context(wrong)?;
    let structs = lists.values().as_struct_opt().with_context(wrong)?;
    let text = |name| {
        let column = structs.column_by_name(name).with_context(wrong)?;
        ensure!(matches!(column.data_type(), DataType::Utf8 | DataType::Binary), "{}", wrong());
        Ok(cast(column, &DataType::Utf8View)?)
    };
    let (roles, contents) = (text("role")?, text("content")?);
    let (roles, contents) = (roles.as_string_view(), contents.as_string_view());
    let more: Vec<(&str, _)> = structs.column_names().into_iter().zip(structs.columns()).collect();
    let more: Vec<_> = more.into_iter().filter(|(n, _)| !["role", "content"].contains(n)).collect();
    let mut rows = Vec::new();
    for (row, ends) in lists.value_offsets().windows(2).enumerate() {
        let place = || format!("row {}", first + row);
        ensure!(!lists.is_null(row), "{}: null where messages are expected", place());
        let mut messages = Vec::new();
        for at in ends[0] as usize..ends[1] as usize {
            let place = || format!("{}, message {}", place(), messages.len() + 1);
            let is_whole = !(structs.is_null(at) || roles.is_null(at) || contents.is_null(at));
            ensure!(is_whole, "{}: null where role and content are expected", place());
            if let Some((name, _)) = more.iter().find(|(_, column)| !column.is_null(at)) {
                return Err(would_be_lost(name)).with_context(place);
            }
            let (role, content) = (roles.value(at).to_owned(), contents.value(at).to_owned());
            messages.push(Message { role, content });
        }
        rows.push(messages);
    }
    Ok(rows)
}
