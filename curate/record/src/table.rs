//! Tables in files: Parquet as s1, datasets, pandas and polars write it, or JSONL, by extension.

use std::path::Path;

use anyhow::{Result, bail};

use crate::row::{Attempt, Dropped, Row};

/// All rows of a `.parquet` or `.jsonl` file.
pub fn read_rows(_path: &Path) -> Result<Vec<Row>> {
    bail!("not built yet")
}

/// Row by row, for tables larger than memory.
pub fn stream_rows(_path: &Path) -> Result<impl Iterator<Item = Result<Row>>> {
    Ok(std::iter::empty())
}

/// Writes `rows` to a `.parquet` or `.jsonl` file.
pub fn write_rows(_path: &Path, _rows: &[Row]) -> Result<()> {
    bail!("not built yet")
}

/// All rows of a table of attempts.
pub fn read_attempts(_path: &Path) -> Result<Vec<Attempt>> {
    bail!("not built yet")
}

/// Writes a table of attempts.
pub fn write_attempts(_path: &Path, _rows: &[Attempt]) -> Result<()> {
    bail!("not built yet")
}

/// All rows of a table of dropped questions.
pub fn read_dropped(_path: &Path) -> Result<Vec<Dropped>> {
    bail!("not built yet")
}

/// Writes a table of dropped questions.
pub fn write_dropped(_path: &Path, _rows: &[Dropped]) -> Result<()> {
    bail!("not built yet")
}
