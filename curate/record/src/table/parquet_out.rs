//! Writing Parquet: zstd, row groups bounded by bytes.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, ListBuilder, NullArray, RecordBatch, StringArray,
    StringBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::{Cell, Column, Kind, Presence};

/// Text of one row group, about; a single row may be larger.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// Arrow counts a column's bytes in 31 bits; longer rows than this are refused.
const ROW_BYTES_MAX: usize = i32::MAX as usize - ROW_GROUP_BYTES;

/// Writes `rows` with these columns to `path`.
pub(super) fn write<R>(path: &Path, columns: &[&Column<R>], rows: &[R]) -> Result<()> {
    let schema = schema(columns, rows);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .build();
    let write = || -> Result<()> {
        let file = File::create(path)?;
        let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties))?;
        let mut start = 0;
        while start < rows.len() {
            let end = row_group_end(columns, rows, start)?;
            let arrays = columns.iter().zip(schema.fields());
            let arrays = arrays.map(|(column, field)| array(column, field, &rows[start..end]));
            writer.write(&RecordBatch::try_new(schema.clone(), arrays.collect())?)?;
            writer.flush()?;
            start = end;
        }
        writer.close()?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The row behind the last one of the row group that begins at `start`.
fn row_group_end<R>(columns: &[&Column<R>], rows: &[R], start: usize) -> Result<usize> {
    let mut bytes = 0;
    for (index, row) in rows.iter().enumerate().skip(start) {
        let row_bytes: usize = columns.iter().map(|column| size((column.get)(row))).sum();
        ensure!(row_bytes <= ROW_BYTES_MAX, "row {}: {row_bytes} bytes are too many", index + 1);
        bytes += row_bytes;
        if bytes >= ROW_GROUP_BYTES {
            return Ok(index + 1);
        }
    }
    Ok(rows.len())
}

fn size(cell: Cell<'_>) -> usize {
    match cell {
        Cell::Text(text) => text.len(),
        Cell::Texts(texts) => texts.iter().map(|text| text.len()).sum(),
        Cell::Null | Cell::Bool(_) | Cell::Int(_) => 8,
    }
}

fn schema<R>(columns: &[&Column<R>], rows: &[R]) -> SchemaRef {
    let fields = columns.iter().map(|column| {
        let is_null_type = column.presence == Presence::Reserved && !column.has_value(rows);
        let data_type = match column.kind {
            _ if is_null_type => DataType::Null,
            Kind::Text => DataType::Utf8,
            Kind::Texts => DataType::List(list_item()),
            Kind::Bool => DataType::Boolean,
            Kind::Int => DataType::Int64,
        };
        Field::new(&column.name, data_type, true)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The item of a list under the name the Parquet specification gives it.
fn list_item() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Utf8, true))
}

fn array<R>(column: &Column<R>, field: &Field, rows: &[R]) -> ArrayRef {
    let cells = rows.iter().map(|row| (column.get)(row));
    let wrong = |cell: Cell<'_>| -> ! { panic!("column `{}` holds {cell:?}", column.name) };
    match field.data_type() {
        DataType::Null => Arc::new(NullArray::new(rows.len())),
        DataType::Utf8 => Arc::new(StringArray::from_iter(cells.map(|cell| match cell {
            Cell::Null => None,
            Cell::Text(text) => Some(text),
            cell => wrong(cell),
        }))),
        DataType::Boolean => Arc::new(BooleanArray::from_iter(cells.map(|cell| match cell {
            Cell::Null => None,
            Cell::Bool(value) => Some(value),
            cell => wrong(cell),
        }))),
        DataType::Int64 => Arc::new(Int64Array::from_iter(cells.map(|cell| match cell {
            Cell::Null => None,
            Cell::Int(value) => Some(value),
            cell => wrong(cell),
        }))),
        _ => {
            let mut lists = ListBuilder::new(StringBuilder::new()).with_field(list_item());
            for cell in cells {
                match cell {
                    Cell::Texts(texts) => lists.append_value(texts.into_iter().map(Some)),
                    cell => wrong(cell),
                }
            }
            Arc::new(lists.finish())
        }
    }
}
