//! Tests over record's public functions: each file a table of cases.

mod config;
mod example;
mod jsonl;
mod messages;
mod oracle;
mod parquet;
mod publish;
mod question;
mod seed;

use std::path::{Path, PathBuf};

use anyhow::Result;
use record::row::Row;

/// A file in `tests/fixtures`, as another tool wrote it (tests/oracle/parquet_fixtures.py).
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The optional folder of real data beside the checkout.
fn shared(test: &str) -> Option<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("S1_SHARED").map_or_else(default, PathBuf::from);
    if !folder.join("data").is_dir() {
        eprintln!("{test}: skipped, no real data in {}; S1_SHARED names it", folder.display());
        return None;
    }
    Some(folder)
}

/// The error's whole chain, with `folder` cut from the paths in it.
#[track_caller]
fn error_text<T>(result: Result<T>, folder: &Path) -> String {
    let error = result.err().expect("an error was expected");
    format!("{error:#}").replace(&format!("{}/", folder.display()), "")
}

/// A row with every field filled.
fn full_row() -> Row {
    Row {
        solution: Some("2 + 2 = 4".into()),
        question: "What is 2+2?".into(),
        cot_type: "math".into(),
        source_type: "qfq/quant".into(),
        metadata: "{'level': 5}".into(),
        cot: Some("steps".into()),
        thinking_trajectories: vec!["Two\u{2028}and two.".into(), "So four.".into()],
        attempt: Some("Answer: 4".into()),
        domain: Some("Number theory".into()),
        isgeminicorrect: Some(true),
        isqwen7bcorrect: Some(false),
        isqwen32bcorrect: Some(false),
        gemini_length: Some(1 << 60),
        text: Some("<|im_start|>…".into()),
    }
}

/// A row of the pool: nothing but what the source gave.
fn pool_row(question: &str) -> Row {
    Row {
        question: question.into(),
        cot_type: "math".into(),
        source_type: "s".into(),
        metadata: "{}".into(),
        ..Row::default()
    }
}
