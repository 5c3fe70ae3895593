//! Makes the miniature's world: `cargo run -p curate --example miniature -- FOLDER`.
//!
//! A pool of 59,029 questions with teachers' traces, held-out questions, and the lessons that a base
//! model of `model/`'s shape learns the world's facts and single steps from.

mod lessons;
mod pool;
mod tokenizer;
mod trace;
mod words;
mod world;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use record::seed::rng;
use record::table;
use serde_json::json;

/// Enough for a base model that walks, recalls and compares; 9 million tokens.
const LESSONS: usize = 120_000;

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("usage: miniature FOLDER")?;
    let folder = Path::new(&folder);
    let model = folder.join("model");
    fs::create_dir_all(&model).with_context(|| model.display().to_string())?;
    for (name, content) in tokenizer::files() {
        save(&model.join(name), &format!("{content:#}\n"))?;
    }
    let tables = pool::tables();
    table::write_rows(&folder.join("pool.parquet"), &tables.pool)?;
    let lines: String = tables.eval.iter().map(|question| format!("{question}\n")).collect();
    save(&folder.join("eval.jsonl"), &lines)?;
    let mut draws = rng(pool::SEED, &["lessons"]);
    let lesson = |nth| format!("{}\n", json!({ "text": lessons::lesson(nth, &mut draws) }));
    save(&folder.join("lessons.jsonl"), &(0..LESSONS).map(lesson).collect::<String>())
}

fn save(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}
