//! JSONL in and out: one JSON value a line, lines end at LF alone (texts contain U+2028).

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The values of a JSONL file one at a time, in memory that does not grow with the file. Blank
/// lines are passed over; object keys unknown to `T` are `T`'s affair. Errors name file, line and
/// column or byte; the first error is the last item.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<impl Iterator<Item = Result<T>>> {
    Ok(read_numbered(path)?.map(|numbered| Ok(numbered?.1)))
}

/// Writes one value a line to `path`, which it replaces.
pub fn write<T: Serialize>(path: &Path, values: impl IntoIterator<Item = T>) -> Result<()> {
    let mut writer = Writer::create(path)?;
    values.into_iter().try_for_each(|value| writer.push(&value))?;
    writer.finish()
}

/// A JSONL file being written, one value at a time.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Writer {
    /// Starts the file at `path`, which it replaces.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| cannot_write(path))?;
        Ok(Writer { path: path.to_path_buf(), file: BufWriter::new(file) })
    }

    /// Writes one more line.
    pub fn push(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.file, value).with_context(|| cannot_write(&self.path))?;
        self.file.write_all(b"\n").with_context(|| cannot_write(&self.path))
    }

    /// Writes what is still buffered; without it the file may end too early.
    pub fn finish(mut self) -> Result<()> {
        self.file.flush().with_context(|| cannot_write(&self.path))
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// As [`read`], each value with the number of its line; the first is 1.
pub fn read_numbered<T: DeserializeOwned>(
    path: &Path,
) -> Result<impl Iterator<Item = Result<(u64, T)>> + use<T>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut lines = Lines { path: path.to_path_buf(), file: BufReader::new(file), line: 0 };
    let mut failed = false;
    Ok(std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let value = lines.next_value().transpose();
        failed = matches!(value, Some(Err(_)));
        value
    }))
}

/// A byte order mark, which some programs put before UTF-8.
const MARK: &[u8] = b"\xEF\xBB\xBF";

struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    line: u64,
}

impl Lines {
    fn next_value<T: DeserializeOwned>(&mut self) -> Result<Option<(u64, T)>> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let read = self.file.read_until(b'\n', &mut bytes);
            if read.with_context(|| self.path.display().to_string())? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if !bytes.trim_ascii().is_empty() {
                break;
            }
        }
        let place = format!("{}: line {}", self.path.display(), self.line);
        let mark = if self.line == 1 { MARK } else { b"" };
        let text = std::str::from_utf8(bytes.strip_prefix(mark).unwrap_or(&bytes))
            .map_err(|error| anyhow!("{place}, byte {}: not UTF-8", error.valid_up_to() + 1))?;
        let value = serde_json::from_str(text).map_err(|error| {
            // serde counts lines inside this one line; say only what it adds.
            let message = error.to_string();
            let what = message.split(" at line ").next().unwrap_or(&message);
            anyhow!("{place}, column {}: {what}", error.column())
        })?;
        Ok(Some((self.line, value)))
    }
}
