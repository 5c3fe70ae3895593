//! Makes a pool of s1's published shape out of nothing, for measurements at full size.
//!
//! `cargo run --release -p curate --example synthetic_pool -- FOLDER [ROWS [SEED]]`
//!
//! FOLDER gets `pool.parquet` (ROWS rows with traces and features, 59,029 unless said otherwise)
//! and `held_out.jsonl`, the benchmark's questions. The same ROWS and SEED give the same bytes; memory
//! does not grow with ROWS. No text is anybody's: words are drawn one by one.

mod rows;
mod sources;
mod text;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use record::row::Row;
use record::table;
use rows::{BENCHMARK, Pool};
use serde_json::json;

/// Rows made at once, some 20 MB of text.
const PART: u64 = 1_000;
const COLUMNS: [&str; 13] = [
    "solution",
    "question",
    "cot_type",
    "source_type",
    "metadata",
    "cot",
    "thinking_trajectories",
    "attempt",
    "domain",
    "isgeminicorrect",
    "isqwen7bcorrect",
    "isqwen32bcorrect",
    "gemini_length",
];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().context("usage: synthetic_pool FOLDER [ROWS [SEED]]")?;
    let mut number = |name: &str, default: u64| match arguments.next() {
        None => Ok(default),
        Some(text) => text.parse().with_context(|| format!("{name} is \"{text}\", not a number")),
    };
    let (rows, seed) = (number("ROWS", 59_029)?, number("SEED", 42)?);
    ensure!(rows > 0, "ROWS must be at least 1");
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;

    let pool = Pool::new(rows, seed);
    let mut file = table::create_rows(&folder.join("pool.parquet"), &COLUMNS)?;
    let (mut questions, mut traces) = (0, 0);
    for from in (0..rows).step_by(PART as usize) {
        let part: Vec<Row> =
            (from..rows.min(from + PART)).into_par_iter().map(|row| pool.row(row)).collect();
        for row in part {
            questions += row.question.len();
            traces += row.thinking_trajectories.iter().map(String::len).sum::<usize>();
            file.push(row)?;
        }
    }
    file.finish()?;
    // Last, so that who finds it finds a whole pool.
    let held_out = (0..BENCHMARK).map(|number| json!({ "question": pool.held_out(number) }));
    record::jsonl::write(&folder.join("held_out.jsonl"), held_out)?;
    println!(
        "{}: {rows} rows, {:.1} MB of questions, {:.1} MB of traces",
        folder.display(),
        questions as f64 / 1e6,
        traces as f64 / 1e6
    );
    Ok(())
}
