//! Reading Parquet as others write it, in memory bounded by bytes.
//!
//! Two decisions carry this file. The Arrow schema that writers embed is ignored: it says how they
//! held the data (LargeUtf8, dictionary, view, categorical), not what the data is. And every text
//! is read as a view into the decoded page: no column can overflow 2 GiB, and a value that a
//! dictionary repeats a million times is held once, so the sizes in the footer bound the memory.

use std::cell;
use std::fs::File;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use anyhow::{Context, Result, anyhow, bail};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};

use super::{Cell, Column, Kind, Presence, from_float};

/// Decoded bytes of one batch, about; a single row may be larger.
const BATCH_BYTES: u64 = 64 << 20;
/// Rows of one batch at most, however short they are.
const BATCH_ROWS: u64 = 8192;

/// The rows of a Parquet file, one at a time. The first error ends them.
pub(super) struct Rows<R> {
    path: PathBuf,
    file: File,
    metadata: ArrowReaderMetadata,
    /// Every column of the table that the file has, with the name it has there.
    columns: Vec<(Column<R>, String)>,
    row_groups: Range<usize>,
    batches: Option<ParquetRecordBatchReader>,
    /// Rows of the row group in `batches` that no batch had yet.
    group_left: usize,
    batch: RecordBatch,
    /// Rows of `batch` already given out.
    taken: usize,
    /// Rows of the file already given out.
    row: u64,
    failed: bool,
}

impl<R: Default> Rows<R> {
    pub(super) fn open(path: &Path, columns: Vec<Column<R>>) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let place = || format!("{}: not a Parquet file this program can read", path.display());
        let options = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata =
            guard(|| Ok(ArrowReaderMetadata::load(&file, options())?)).with_context(place)?;
        let columns = find_columns(path, columns, metadata.schema())?;
        let schema = Arc::new(as_views(metadata.schema(), &columns));
        let metadata = guard(|| {
            let options = options().with_schema(schema);
            Ok(ArrowReaderMetadata::try_new(metadata.metadata().clone(), options)?)
        })
        .with_context(place)?;
        Ok(Rows {
            path: path.to_path_buf(),
            file,
            row_groups: 0..metadata.metadata().num_row_groups(),
            metadata,
            columns,
            batches: None,
            group_left: 0,
            batch: RecordBatch::new_empty(Arc::new(Schema::empty())),
            taken: 0,
            row: 0,
            failed: false,
        })
    }

    fn next_row(&mut self) -> Result<Option<R>> {
        if !self.load_batch()? {
            return Ok(None);
        }
        let mut row = R::default();
        for (column, name) in &self.columns {
            let array = self.batch.column_by_name(name).expect("open() projected this column");
            let put = cell(array.as_ref(), self.taken).and_then(|cell| column.put(&mut row, cell));
            if let Err(what) = put {
                let path = self.path.display();
                bail!("{path}: row {}, column `{name}`: {what}", self.row + 1);
            }
        }
        self.taken += 1;
        self.row += 1;
        Ok(Some(row))
    }

    /// Makes sure that `batch` has a row to give, unless the file has none.
    fn load_batch(&mut self) -> Result<bool> {
        while self.taken == self.batch.num_rows() {
            // The old batch goes first: two at a time would need twice the memory.
            self.batch = RecordBatch::new_empty(self.batch.schema());
            self.taken = 0;
            let path = self.path.display().to_string();
            let read = guard(|| self.next_batch());
            let place = || {
                let row = self.row + 1;
                format!(
                    "{path}: cannot read row {row} and those behind it: the file is damaged or cut \
                     off; copy, download or make it again"
                )
            };
            match read.with_context(place)? {
                Some(batch) => self.batch = batch,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Goes `rows` rows on; whole row groups are not even read.
    fn pass_over(&mut self, mut rows: usize) -> Result<()> {
        while rows > 0 {
            let in_batch = rows.min(self.batch.num_rows() - self.taken);
            self.taken += in_batch;
            self.row += in_batch as u64;
            rows -= in_batch;
            while self.group_left == 0
                && !self.row_groups.is_empty()
                && self.rows_in(self.row_groups.start) <= rows
            {
                let passed = self.rows_in(self.row_groups.start);
                self.row_groups.start += 1;
                self.row += passed as u64;
                rows -= passed;
            }
            if rows > 0 && !self.load_batch()? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn rows_in(&self, row_group: usize) -> usize {
        self.metadata.metadata().row_group(row_group).num_rows().max(0) as usize
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.batches.as_mut().and_then(Iterator::next) {
                let batch = with_wide_numbers(&batch?)?;
                self.group_left -= batch.num_rows().min(self.group_left);
                return Ok(Some(batch));
            }
            let Some(row_group) = self.row_groups.next() else {
                return Ok(None);
            };
            self.batches = Some(self.read_row_group(row_group)?);
            self.group_left = self.rows_in(row_group);
        }
    }

    /// Starts reading a row group in batches of as many rows as [`BATCH_BYTES`] hold on average.
    fn read_row_group(&self, index: usize) -> Result<ParquetRecordBatchReader> {
        let schema = self.metadata.schema();
        let roots = self.columns.iter().map(|(_, name)| schema.index_of(name));
        let roots = roots.collect::<Result<Vec<_>, _>>()?;
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), roots);
        let group = self.metadata.metadata().row_group(index);
        let bytes: u64 = (0..group.num_columns())
            .filter(|leaf| mask.leaf_included(*leaf))
            .map(|leaf| group.column(leaf).uncompressed_size().max(0) as u64)
            .sum();
        let row_bytes = bytes / (group.num_rows().max(1) as u64);
        let batch_rows = (BATCH_BYTES / row_bytes.max(1)).clamp(1, BATCH_ROWS);
        let file = self.file.try_clone()?;
        let reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                .with_projection(mask)
                .with_row_groups(vec![index])
                .with_batch_size(batch_rows as usize)
                .build()?;
        Ok(reader)
    }
}

impl<R: Default> Iterator for Rows<R> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        if self.failed {
            return None;
        }
        let row = self.next_row().transpose();
        self.failed = matches!(row, Some(Err(_)));
        row
    }

    fn nth(&mut self, rows: usize) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match self.pass_over(rows) {
            Ok(()) => self.next(),
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

/// How many rows the footer of the file at `path` counts.
pub(super) fn count_rows(path: &Path) -> Result<u64> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let metadata = guard(|| Ok(ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?));
    let place = || format!("{}: not a Parquet file this program can read", path.display());
    Ok(metadata.with_context(place)?.metadata().file_metadata().num_rows().max(0) as u64)
}

/// The names of the columns of the file at `path`.
pub(super) fn column_names(path: &Path) -> Result<Vec<String>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let metadata = guard(|| Ok(ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?));
    let place = || format!("{}: not a Parquet file this program can read", path.display());
    let metadata = metadata.with_context(place)?;
    Ok(metadata.schema().fields().iter().map(|field| field.name().clone()).collect())
}

thread_local! {
    /// This thread is inside [`guard`], whose caller reports the panic as an error.
    static GUARDED: cell::Cell<bool> = const { cell::Cell::new(false) };
}

/// The parquet crate panics on some damaged files; here that is one more error, without the
/// panic's own lines on stderr.
pub(super) fn guard<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                loud(info);
            }
        }));
    });
    GUARDED.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(read));
    GUARDED.set(false);
    outcome.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(anyhow!("damaged file (the Parquet reader stopped with: {message})"))
    })
}

/// Which of the table's columns the file has, under which name; a wrong type is an error here,
/// before any row is read.
fn find_columns<R>(
    path: &Path,
    columns: Vec<Column<R>>,
    schema: &Schema,
) -> Result<Vec<(Column<R>, String)>> {
    let path = path.display();
    let mut found = Vec::new();
    for column in columns {
        let field = column.names().find_map(|name| schema.field_with_name(name).ok());
        match field {
            Some(field) if is_readable(column.kind, field.data_type()) => {
                found.push((column, field.name().clone()));
            }
            Some(field) => {
                let (name, is, wanted) = (field.name(), field.data_type(), column.kind.name());
                bail!("{path}: column `{name}` is {is} where {wanted} is expected");
            }
            None if column.presence == Presence::Required => {
                let has: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                bail!("{path}: no column `{}`; it has: {}", column.name, has.join(", "));
            }
            None => {}
        }
    }
    Ok(found)
}

/// Can a Parquet column of this type hold values of that kind? (Without the embedded Arrow schema
/// there is one type for text, and one for lists.)
fn is_readable(kind: Kind, data_type: &DataType) -> bool {
    let is_text = |data_type: &DataType| {
        matches!(data_type, DataType::Utf8 | DataType::Binary | DataType::Null)
    };
    match (kind, data_type) {
        (_, DataType::Null) => true,
        (Kind::Text, data_type) => is_text(data_type),
        (Kind::Texts, DataType::List(item)) => is_text(item.data_type()),
        (Kind::Texts, data_type) => is_text(data_type),
        (Kind::Bool, data_type) => *data_type == DataType::Boolean || is_text(data_type),
        (Kind::Int, data_type) => data_type.is_integer() || data_type.is_floating(),
    }
}

/// `schema` with every text of `columns` as a view. Text without Parquet's string mark, as some
/// writers leave it, is taken for UTF-8.
fn as_views<R>(schema: &Schema, columns: &[(Column<R>, String)]) -> Schema {
    let view = |data_type: &DataType| match data_type {
        DataType::Utf8 | DataType::Binary => DataType::Utf8View,
        other => other.clone(),
    };
    let fields = schema.fields().iter().map(|field| -> Field {
        if !columns.iter().any(|(_, name)| name == field.name()) {
            return field.as_ref().clone();
        }
        let data_type = match field.data_type() {
            DataType::List(item) => {
                let item = item.as_ref().clone();
                let data_type = view(item.data_type());
                DataType::List(Arc::new(item.with_data_type(data_type)))
            }
            other => view(other),
        };
        field.as_ref().clone().with_data_type(data_type)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// `batch` with all integers as Int64 and all floats as Float64.
fn with_wide_numbers(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|array| match array.data_type() {
        data_type if data_type.is_integer() => cast(array, &DataType::Int64),
        data_type if data_type.is_floating() => cast(array, &DataType::Float64),
        _ => Ok(array.clone()),
    });
    let schema = batch.schema();
    let names = schema.fields().iter().map(|field| field.name().clone());
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_from_iter(names.zip(columns))?)
}

fn cell(array: &dyn Array, index: usize) -> Result<Cell<'_>, String> {
    if array.is_null(index) {
        return Ok(Cell::Null);
    }
    match array.data_type() {
        DataType::Null => Ok(Cell::Null),
        DataType::Utf8View => Ok(Cell::Text(array.as_string_view().value(index))),
        DataType::Boolean => Ok(Cell::Bool(array.as_boolean().value(index))),
        DataType::Int64 => Ok(Cell::Int(array.as_primitive::<Int64Type>().value(index))),
        DataType::Float64 => from_float(array.as_primitive::<Float64Type>().value(index)),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let items =
                list.value_offsets()[index] as usize..list.value_offsets()[index + 1] as usize;
            let texts = items.map(|item| match cell(list.values().as_ref(), item)? {
                Cell::Text(text) => Ok(text),
                _ => Err("a null inside the list".to_owned()),
            });
            Ok(Cell::Texts(texts.collect::<Result<_, _>>()?))
        }
        other => panic!("{other} is not among the types open() lets pass"),
    }
}
