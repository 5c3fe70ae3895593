//! JSONL in and out: one JSON value a line, lines end at LF alone (texts contain U+2028).

use std::path::Path;

use anyhow::{Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The values of a JSONL file, one at a time, with errors naming file and line. Blank lines are
/// passed over.
pub fn read<T: DeserializeOwned>(_path: &Path) -> Result<impl Iterator<Item = Result<T>>> {
    Ok(std::iter::empty())
}

/// Writes one value a line.
pub fn write<'a, T: Serialize + 'a>(
    _path: &Path,
    _values: impl IntoIterator<Item = &'a T>,
) -> Result<()> {
    bail!("not built yet")
}
