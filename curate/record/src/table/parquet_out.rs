//! Writing Parquet: zstd, row groups bounded by bytes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, ListBuilder, NullArray, StringArray, StringBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use rayon::prelude::*;

use super::{Cell, Column, Kind, Presence};

/// Text of one row group, about; a single row may be larger.
const ROW_GROUP_BYTES: usize = 16 << 20;
/// Traces at level 3 take twice the time for a tenth less on disk.
const ZSTD_LEVEL: i32 = 1;
/// Arrow counts a column's bytes in 31 bits; longer rows than this are refused.
const ROW_BYTES_MAX: usize = i32::MAX as usize - ROW_GROUP_BYTES;

/// A Parquet file being written; its columns are the same in every call.
pub(super) struct Writer<R> {
    path: PathBuf,
    /// Created at once, given to `writer` when the schema is settled.
    file: Option<File>,
    writer: Option<Settled>,
    /// Rows of the next row group, and their bytes.
    pending: Vec<R>,
    bytes: usize,
    /// Rows of the row groups before.
    written: usize,
}

/// What writes row groups of one schema.
struct Settled {
    schema: SchemaRef,
    file: SerializedFileWriter<File>,
    factory: ArrowRowGroupWriterFactory,
    /// Row groups written.
    groups: usize,
}

impl<R: Sync> Writer<R> {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| cannot_write(path))?;
        let path = path.to_path_buf();
        let (writer, pending) = (None, Vec::new());
        Ok(Writer { path, file: Some(file), writer, pending, bytes: 0, written: 0 })
    }

    /// Settles the types of the columns: null for a reserved one of which `rows` have no value.
    pub(super) fn settle(&mut self, columns: &[Column<R>], rows: &[R]) -> Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let schema = schema(columns, rows);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .build();
        let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties))
            .and_then(ArrowWriter::into_serialized_writer);
        let (file, factory) = writer.with_context(|| cannot_write(&self.path))?;
        self.writer = Some(Settled { schema, file, factory, groups: 0 });
        Ok(())
    }

    pub(super) fn push(&mut self, columns: &[Column<R>], row: R) -> Result<()> {
        let bytes: usize = columns.iter().map(|column| size((column.get)(&row))).sum();
        let number = self.written + self.pending.len() + 1;
        ensure!(
            bytes <= ROW_BYTES_MAX,
            "{}: row {number}: {bytes} bytes are too many",
            cannot_write(&self.path)
        );
        self.pending.push(row);
        self.bytes += bytes;
        if self.bytes >= ROW_GROUP_BYTES { self.flush(columns) } else { Ok(()) }
    }

    pub(super) fn finish(mut self, columns: &[Column<R>]) -> Result<()> {
        self.flush(columns)?;
        let writer = self.writer.expect("flush() settles the columns");
        writer.file.close().with_context(|| cannot_write(&self.path))?;
        Ok(())
    }

    /// Writes the pending rows as one row group.
    fn flush(&mut self, columns: &[Column<R>]) -> Result<()> {
        let rows = std::mem::take(&mut self.pending);
        self.settle(columns, &rows)?;
        let writer = self.writer.as_mut().expect("settle() makes it");
        for (column, field) in columns.iter().zip(writer.schema.fields()) {
            ensure!(
                *field.data_type() != DataType::Null || !column.has_value(&rows),
                "{}: a row behind row {} is the first with a `{}`: give it to a row before, or to \
                 none",
                cannot_write(&self.path),
                self.written,
                column.name
            );
        }
        self.written += rows.len();
        self.bytes = 0;
        if rows.is_empty() {
            return Ok(());
        }
        writer.write(columns, &rows).with_context(|| cannot_write(&self.path))
    }
}

impl Settled {
    /// Writes one row group, its columns on all cores: compressing them is most of the work.
    fn write<R: Sync>(&mut self, columns: &[Column<R>], rows: &[R]) -> Result<()> {
        let writers = self.factory.create_column_writers(self.groups)?;
        let fields = self.schema.fields();
        let chunks = (columns, fields.as_ref(), writers).into_par_iter().map(|of| {
            let (column, field, mut writer) = of;
            for leaf in compute_leaves(field, &array(column, field, rows))? {
                writer.write(&leaf)?;
            }
            Ok(writer.close()?)
        });
        let chunks: Vec<ArrowColumnChunk> = chunks.collect::<Result<_>>()?;
        let mut group = self.file.next_row_group()?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut group)?;
        }
        group.close()?;
        self.groups += 1;
        Ok(())
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

fn size(cell: Cell<'_>) -> usize {
    match cell {
        Cell::Text(text) => text.len(),
        Cell::Texts(texts) => texts.iter().map(|text| text.len()).sum(),
        Cell::Null | Cell::Bool(_) | Cell::Int(_) => 8,
    }
}

fn schema<R>(columns: &[Column<R>], rows: &[R]) -> SchemaRef {
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
