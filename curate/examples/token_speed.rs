//! Counts tokens beside Hugging Face's tokenizer: equal ids, and how many times faster on one core.
//!
//! `token_speed TOKENIZER.json TEXTS.jsonl...`: every text column of the files is counted by both,
//! in turns, on one thread each; the figure is the median of the rounds' ratios of CPU time.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use curate::tokens::Tokens;
use serde_json::Value;

const ROUNDS: usize = 5;

fn main() -> Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    let mut arguments = std::env::args().skip(1);
    let tokenizer = arguments.next().context("token_speed TOKENIZER.json TEXTS.jsonl...")?;
    let texts = texts(arguments)?;
    let bytes: usize = texts.iter().map(String::len).sum();
    println!("{} texts, {:.1} MB, one thread", texts.len(), bytes as f64 / 1e6);
    let theirs =
        tokenizers::Tokenizer::from_file(&tokenizer).map_err(|error| anyhow!("{error}"))?;
    let (mut ratios, mut tokens) = (Vec::new(), 0);
    for round in 1..=ROUNDS {
        // A new one each round: its cache of words begins empty, as in a real run.
        let ours = Tokens::open(Path::new(&tokenizer))?;
        let (by_ours, our_ids) = timed(&texts, |text| ours.ids(text))?;
        let (by_theirs, their_ids) = timed(&texts, |text| {
            let encoding = theirs.encode_fast(text, false).map_err(|error| anyhow!("{error}"))?;
            Ok(encoding.get_ids().to_vec())
        })?;
        ensure!(our_ids == their_ids, "the ids differ");
        tokens = our_ids.iter().map(Vec::len).sum();
        let ratio = by_theirs.as_secs_f64() / by_ours.as_secs_f64();
        let speed = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
        println!(
            "round {round}: ours {:.1} MB/s, tokenizers {:.2} MB/s per CPU second: {ratio:.1} times",
            speed(by_ours),
            speed(by_theirs)
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "{tokens} ids, all equal; median {:.1} times faster, from {:.1} to {:.1}",
        ratios[ROUNDS / 2],
        ratios[0],
        ratios[ROUNDS - 1]
    );
    Ok(())
}

/// Every value of the columns that hold texts.
fn texts(files: impl Iterator<Item = String>) -> Result<Vec<String>> {
    const COLUMNS: [&str; 5] = ["question", "solution", "thinking", "answer", "output"];
    let mut texts = Vec::new();
    for file in files {
        for line in record::jsonl::read::<Value>(Path::new(&file))? {
            let line = line?;
            texts.extend(COLUMNS.iter().filter_map(|column| Some(line[*column].as_str()?.into())));
        }
    }
    ensure!(!texts.is_empty(), "no texts: name JSONL files with a column of {COLUMNS:?}");
    Ok(texts)
}

/// The CPU time of this process for all texts, and their ids.
fn timed(
    texts: &[String],
    ids: impl Fn(&str) -> Result<Vec<u32>>,
) -> Result<(Duration, Vec<Vec<u32>>)> {
    let before = cpu_time()?;
    let ids = texts.iter().map(|text| ids(text)).collect::<Result<_>>()?;
    Ok((cpu_time()? - before, ids))
}

/// User and system time of this process, as Linux counts it, in steps of 10 ms.
fn cpu_time() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("needs Linux's /proc")?;
    // The second field is the program's name in parentheses; user time is the fourteenth.
    let fields = stat.rsplit(") ").next().context("no fields in /proc/self/stat")?;
    let ticks: Vec<u64> =
        fields.split(' ').skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(Duration::from_millis(10 * ticks.iter().sum::<u64>()))
}
