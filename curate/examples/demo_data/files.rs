//! Every file of the demo's data, written into a folder; the same bytes on every machine.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use record::table;

use crate::{pool, tokenizer};

/// Writes `pool.parquet`, `eval.jsonl` and `model/` into `folder`, over what is there.
pub fn write(folder: &Path) -> Result<()> {
    let model = folder.join("model");
    fs::create_dir_all(&model).with_context(|| model.display().to_string())?;
    for (name, content) in tokenizer::files() {
        save(&model.join(name), &format!("{content:#}\n"))?;
    }
    let tables = pool::tables();
    table::write_rows(&folder.join("pool.parquet"), &tables.pool)?;
    let lines: String = tables.eval.iter().map(|question| format!("{question}\n")).collect();
    save(&folder.join("eval.jsonl"), &lines)
}

fn save(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}
