//! Makes a pool of real questions out of the optional folder of real data, for `just real-data`.
//!
//! `cargo run -p curate --example real_pool -- SHARED_FOLDER POOL.parquet`
//!
//! These questions have reference solutions but no teacher's traces and no grades. So the solution
//! stands in for the trace. Lengths, domains and grades are for `curate featurise` to find.

use std::path::PathBuf;

use anyhow::{Context, Result};
use record::row::Row;
use serde::Deserialize;

const FILES: [&str; 8] = [
    "agieval_en",
    "aime_1983_2023",
    "gsm8k_train",
    "jeebench",
    "olympiadbench_en",
    "openaimath_test4500",
    "openaimath_train7500_noexpl",
    "theoremqa",
];

#[derive(Deserialize)]
struct Question {
    source: String,
    question: String,
    solution: Option<String>,
    answer: Option<serde_json::Value>,
    cot_type: String,
    meta: serde_json::Value,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let usage = "usage: real_pool SHARED_FOLDER POOL.parquet";
    let shared = arguments.next().context(usage)?;
    let pool = arguments.next().context(usage)?;
    let mut rows = Vec::new();
    for file in FILES {
        let path = shared.join("data/pool").join(file).with_extension("jsonl");
        for question in record::jsonl::read(&path)? {
            rows.push(row(question?));
        }
    }
    if let Some(folder) = pool.parent() {
        std::fs::create_dir_all(folder)?;
    }
    record::table::write_rows(&pool, &rows)?;
    println!("{}: {} questions", pool.display(), rows.len());
    Ok(())
}

fn row(from: Question) -> Row {
    let answer = from.answer.map(|answer| match answer {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    });
    // Some sources repeat the bare answer as the solution; that is no reasoning.
    let worked = |text: &String| !text.trim().is_empty() && Some(text) != answer.as_ref();
    let solution = from.solution.filter(worked);
    Row {
        thinking_trajectories: solution.iter().cloned().collect(),
        attempt: answer.map(|answer| format!("Answer: {answer}")),
        solution,
        question: from.question,
        cot_type: from.cot_type,
        source_type: from.source,
        metadata: from.meta.to_string(),
        ..Row::default()
    }
}
