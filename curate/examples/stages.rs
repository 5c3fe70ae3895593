//! Runs single stages over a pool as often as it is told: our side of `tests/bench/curate`.
//!
//! `stages HELD_OUT.jsonl POOL.parquet...` reads the pool once, without its traces. Then every line
//! of standard input names a stage with what it needs, and is answered by one line of JSON:
//! `cpu_seconds` of that one run, all threads together, and what was `found`:
//!
//! - `decontaminate`: rows, from 1, that share 8 words with a held-out question
//! - `patterns`: rows whose text is broken
//! - `sketches`: how many rows have a MinHash signature, by 3-word shingles
//! - `near-duplicates THRESHOLD`: rows so alike to an earlier row that stays, by 3-word shingles
//! - `tokens TOKENIZER TEXTS.jsonl`: the length of each text in tokens
//!
//! With `RAYON_NUM_THREADS=1` the stages run on one thread.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::{env, fs, io, thread};

use anyhow::{Context, Result, bail};
use curate::decontaminate::{Benchmark, Question, decontaminate};
use curate::near_duplicates::{Settings, Stricter, sketch};
use curate::quality::patterns;
use curate::tokens::Tokens;
use record::row::Outline;
use record::{jsonl, table};
use serde_json::json;

fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let held_out = arguments.next().context("usage: stages HELD_OUT.jsonl POOL.parquet...")?;
    let mut pool = Vec::new();
    for file in arguments {
        for row in table::stream_outlines(&file)? {
            pool.push(row?);
        }
    }
    let mut counting = None;
    for stage in io::stdin().lock().lines() {
        let stage = stage?;
        let words: Vec<&str> = stage.split_whitespace().collect();
        if let (["tokens", tokenizer, texts], None) = (words.as_slice(), &counting) {
            let texts: Vec<String> = jsonl::read(Path::new(texts))?.collect::<Result<_>>()?;
            counting = Some((Tokens::open(Path::new(tokenizer))?, texts));
        }
        let begin = cpu_seconds()?;
        let found = match (words.as_slice(), &counting) {
            (["decontaminate"], _) => contaminated(&pool, &held_out)?,
            (["patterns"], _) => malformed(&pool),
            (["sketches"], _) => vec![pool.iter().flat_map(|of| sketch(&of.question, 3)).count()],
            (["near-duplicates", threshold], _) => near_duplicates(&pool, threshold.parse()?),
            (["tokens", ..], Some((tokens, texts))) => lengths(tokens, texts)?,
            _ => bail!("there is no stage \"{stage}\""),
        };
        let cpu_seconds = cpu_seconds()? - begin;
        println!("{}", json!({ "cpu_seconds": cpu_seconds, "found": found }));
    }
    Ok(())
}

/// Reading the benchmark is part of the stage.
fn contaminated(pool: &[Outline], held_out: &Path) -> Result<Vec<usize>> {
    let name = "held out".to_string();
    let benchmark = Benchmark { name, questions: table::read_texts(held_out, "question")? };
    let verdicts = decontaminate(&questions(pool), &[benchmark], 8, false);
    Ok(rows(verdicts.iter().map(Option::is_some)))
}

fn malformed(pool: &[Outline]) -> Vec<usize> {
    let allowed = ["AIME".to_string()];
    rows(pool.iter().map(|row| patterns(row, &allowed).is_some()))
}

fn near_duplicates(pool: &[Outline], threshold: f64) -> Vec<usize> {
    let settings =
        Settings { ngram: 8, shingle: 3, threshold, numbers_may_differ: true, within_pool: true };
    let verdicts = Stricter::index(&[], &settings).judge(&questions(pool));
    rows(verdicts.iter().map(Option::is_some))
}

fn questions(pool: &[Outline]) -> Vec<Question<'_>> {
    let questions = pool.iter().enumerate();
    questions
        .map(|(row, of)| Question { row, text: &of.question, source_type: &of.source_type })
        .collect()
}

fn lengths(tokens: &Tokens, texts: &[String]) -> Result<Vec<usize>> {
    texts.iter().map(|text| Ok(tokens.count(text)? as usize)).collect()
}

/// The numbers, from 1, of the rows that are marked.
fn rows(marked: impl Iterator<Item = bool>) -> Vec<usize> {
    (1..).zip(marked).filter(|(_, marked)| *marked).map(|(row, _)| row).collect()
}

/// CPU time of all threads so far, as Linux's scheduler counts it.
fn cpu_seconds() -> Result<f64> {
    // The count of a running thread is brought up to date when it yields.
    thread::yield_now();
    let mut nanoseconds = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        let counts = fs::read_to_string(thread?.path().join("schedstat"))?;
        let on_cpu = counts.split(' ').next().unwrap_or_default();
        nanoseconds += on_cpu.parse::<u64>().context("a thread's schedstat is not as expected")?;
    }
    Ok(nanoseconds as f64 / 1e9)
}
