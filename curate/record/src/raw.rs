//! Others' tables, of any shape, row by row as JSON objects: Parquet, JSONL and CSV, by extension.

use std::fs::File;
use std::path::Path;

use crate::jsonl;
use anyhow::{Context, Result, bail};
use parquet::file::reader::SerializedFileReader;
use parquet::record::Field;
use parquet::record::reader::RowIter;
use serde_json::{Map, Number, Value};

/// A row, its columns in the table's order.
pub type Object = Map<String, Value>;

/// The rows of the `.parquet`, `.jsonl` or `.csv` file at `path`, one at a time. Errors name the
/// file, and the row or line.
pub fn read(path: &Path) -> Result<Box<dyn Iterator<Item = Result<Object>>>> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => parquet(path),
        Some("jsonl") => {
            let objects = jsonl::read_numbered::<Object>(path)?;
            Ok(Box::new(objects.map(|numbered| Ok(numbered?.1))))
        }
        Some("csv") => csv(path),
        _ => bail!("{}: a table's name ends in .parquet, .jsonl or .csv", path.display()),
    }
}

/// The text of one column in every row; null is left out.
pub fn texts(path: &Path, column: &str) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for row in read(path)? {
        match row?.swap_remove(column) {
            Some(Value::String(text)) => texts.push(text),
            Some(Value::Null) => {}
            Some(_) => bail!("{}: column `{column}` is not text", path.display()),
            None => bail!("{}: no column `{column}`", path.display()),
        }
    }
    Ok(texts)
}

fn parquet(path: &Path) -> Result<Box<dyn Iterator<Item = Result<Object>>>> {
    let shown = path.display().to_string();
    let file = File::open(path).with_context(|| shown.clone())?;
    let place = format!("{shown}: not a Parquet file this program can read");
    let reader = SerializedFileReader::new(file).with_context(|| place)?;
    let rows = RowIter::from_file_into(Box::new(reader)).enumerate();
    Ok(Box::new(rows.map(move |(row, fields)| {
        let fields = fields.with_context(|| format!("{shown}: row {}", row + 1))?;
        Ok(fields.into_columns().into_iter().map(|(name, field)| (name, value(&field))).collect())
    })))
}

/// A Parquet value as JSON. Bytes without the string mark are taken for UTF-8, as writers leave
/// texts; times and decimals become what they print as.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => Value::Bool(*value),
        Field::Byte(number) => Value::from(*number),
        Field::Short(number) => Value::from(*number),
        Field::Int(number) => Value::from(*number),
        Field::Long(number) => Value::from(*number),
        Field::UByte(number) => Value::from(*number),
        Field::UShort(number) => Value::from(*number),
        Field::UInt(number) => Value::from(*number),
        Field::ULong(number) => Value::from(*number),
        // Not a number is null, as pandas means it.
        Field::Float(number) => {
            Number::from_f64(f64::from(*number)).map_or(Value::Null, Value::from)
        }
        Field::Double(number) => Number::from_f64(*number).map_or(Value::Null, Value::from),
        Field::Str(text) => Value::String(text.clone()),
        Field::Bytes(bytes) => Value::String(String::from_utf8_lossy(bytes.data()).into_owned()),
        Field::Group(row) => {
            row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect()
        }
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        other => Value::String(other.to_string()),
    }
}

/// Every cell is text; an empty one is null, as pandas and datasets have it.
fn csv(path: &Path) -> Result<Box<dyn Iterator<Item = Result<Object>>>> {
    let shown = path.display().to_string();
    let mut reader = csv::Reader::from_path(path).with_context(|| shown.clone())?;
    let header = reader.headers().with_context(|| shown.clone())?.clone();
    let cell = |text: &str| (!text.is_empty()).then(|| text.to_string());
    Ok(Box::new(reader.into_records().map(move |record| {
        let record = record.with_context(|| shown.clone())?;
        let cells = record.iter().map(|text| Value::from(cell(text)));
        Ok(header.iter().map(str::to_string).zip(cells).collect())
    })))
}
