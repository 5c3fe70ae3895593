//! `curate collect`: from data sets of the hub, or files, to one pool in s1's columns.
//!
//! The sources come one after the other, in the config's order. Of each, what shares a passage
//! with a benchmark or an earlier source goes, then a part is taken if only a part is wanted; at
//! the end, equal questions but the first. That is the order of simplescaling/s1
//! `data/collect_data.py`; `fix_gpqa.py` and `add_aime.py` are part of those two sources here.

mod place;
pub mod python;
mod raw;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use record::publish::{Input, Manifest, OutputFolder, command, input};
use record::row::Row;
use record::{seed, table};
use serde::{Deserialize, Serialize};

use crate::decontaminate::{Benchmark, HeldOut, Question};
use crate::deduplicate::deduplicate;
pub use place::Place;
use source::{Gathered, Source, Take};

/// The arguments of `curate collect`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// The collection: a TOML file such as configs/curate/collect.toml.
    pub config: PathBuf,
    /// Override one value of the config, such as seed=7; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub sets: Vec<String>,
    /// Replace the output folder if it exists.
    #[arg(long)]
    pub overwrite: bool,
}

/// The config of a collection.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The folder to publish.
    output: PathBuf,
    /// Seed of what is drawn: parts of sources, the order of choices.
    seed: u64,
    /// The sources' files, in the order of their rows in the pool.
    sources: Vec<PathBuf>,
    /// A table whose column `question` has questions to be taken in any case.
    pinned: Option<PathBuf>,
    /// What is held out from the pool; absent: nothing.
    decontaminate: Option<Decontaminate>,
}

/// As in a run's config, but the benchmarks may be on the hub.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Decontaminate {
    ngram: usize,
    earlier_sources: bool,
    benchmarks: Vec<BenchmarkPlace>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct BenchmarkPlace {
    name: String,
    from: Place,
    column: String,
}

/// What became of one source: an entry of `sources.json`.
#[derive(Debug, Clone, Default, Serialize)]
struct Account {
    name: String,
    /// Rows of its tables.
    read: usize,
    /// Rows that did not stay, by its conditions.
    left_out: BTreeMap<String, usize>,
    /// Rows that share a passage, by who holds it out.
    contaminated: BTreeMap<String, usize>,
    /// Rows beyond those wanted.
    not_taken: usize,
    /// Rows whose question stood earlier in the pool.
    duplicates: usize,
    /// Rows in the pool.
    rows: usize,
}

/// Collects and returns the summary.
///
/// Publishes `output` with `pool.parquet`, `sources.json`, `summary.txt` and `manifest.json`,
/// which names every file that was read with its commit and SHA-256; or nothing at all.
pub fn run(args: &Args) -> Result<String> {
    let (config, effective): (Config, toml::Table) =
        record::config::load(&args.config, &args.sets)?;
    let shown = args.config.display();
    ensure!(!config.sources.is_empty(), "{shown}: sources is empty: name at least one file");
    let rules = config.decontaminate.as_ref();
    let no_words = rules.is_some_and(|rules| rules.ngram == 0);
    ensure!(!no_words, "{shown}: decontaminate.ngram must be at least 1");
    let folder = OutputFolder::create(&config.output, args.overwrite)?;
    let mut inputs = Vec::new();
    let pinned = read_pinned(&config, &mut inputs)?;
    let mut held_out = hold_out_benchmarks(&config, &mut inputs)?;

    let mut pool = Vec::new();
    let mut accounts = Vec::new();
    for path in &config.sources {
        let (source, _): (Source, _) = record::config::load(path, &[])?;
        inputs.push(input(path, None)?);
        progress(&format!("{}: reading", source.name));
        let mut gathered = source
            .gather(config.seed, &pinned)
            .with_context(|| format!("{}: the source {}", path.display(), source.name))?;
        inputs.append(&mut gathered.inputs);
        let account = refine(&config, &source, gathered, &pinned, held_out.as_mut(), &mut pool);
        progress(&format!("{}: {} of {} rows", account.name, account.rows, account.read));
        accounts.push(account);
    }
    let pool = without_duplicates(pool, &mut accounts);
    ensure!(!pool.is_empty(), "no row is left of {} sources", accounts.len());

    let path = folder.path().join("pool.parquet");
    table::write_rows(&path, &pool)?;
    ensure!(
        table::read_rows(&path)? == pool,
        "pool.parquet reads back different from what was written; nothing was published"
    );
    let summary = summary(&accounts);
    folder.write("sources.json", &(serde_json::to_string_pretty(&accounts)? + "\n"))?;
    folder.write("summary.txt", &summary)?;
    folder.finish(Manifest {
        tool: "curate".to_string(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        command: command(),
        config: effective,
        inputs,
        seeds: BTreeMap::from([("collect".to_string(), config.seed)]),
        files: BTreeMap::new(),
    })?;
    progress(&format!("published {}", config.output.display()));
    Ok(summary)
}

fn read_pinned(config: &Config, inputs: &mut Vec<Input>) -> Result<BTreeSet<String>> {
    let Some(path) = &config.pinned else { return Ok(BTreeSet::new()) };
    let pinned = table::read_texts(path, "question").context("the pinned questions")?;
    inputs.push(input(path, Some(pinned.len() as u64))?);
    Ok(pinned.into_iter().collect())
}

fn hold_out_benchmarks(config: &Config, inputs: &mut Vec<Input>) -> Result<Option<HeldOut>> {
    let Some(rules) = &config.decontaminate else { return Ok(None) };
    let mut benchmarks = Vec::new();
    for BenchmarkPlace { name, from, column } in &rules.benchmarks {
        let mut questions = Vec::new();
        for file in from.find().with_context(|| format!("the benchmark \"{name}\""))? {
            let texts = raw::texts(&file.path, column)?;
            inputs.push(Input { rows: Some(texts.len() as u64), ..file.input });
            questions.extend(texts);
        }
        progress(&format!("held out: {name} ({} questions)", questions.len()));
        benchmarks.push(Benchmark { name: name.clone(), questions });
    }
    Ok(Some(HeldOut::index(&benchmarks, rules.ngram, false)))
}

/// Decontaminates one source, takes what is wanted of it, and appends that to the pool, each row
/// with the number of its source.
fn refine(
    config: &Config,
    source: &Source,
    gathered: Gathered,
    pinned: &BTreeSet<String>,
    held_out: Option<&mut HeldOut>,
    pool: &mut Vec<Row>,
) -> Account {
    let Gathered { mut rows, groups, read, left_out, .. } = gathered;
    let mut account = Account { name: source.name.clone(), read, left_out, ..Account::default() };
    let mut stays = vec![true; rows.len()];
    if let Some(held_out) = &held_out {
        for (stays, verdict) in stays.iter_mut().zip(held_out.judge_alone(&questions(&rows, 0))) {
            if let Some(reason) = verdict {
                *stays = false;
                *account.contaminated.entry(reason.cause).or_default() += 1;
            }
        }
    }
    if let Some(take) = &source.take {
        let clean: Vec<usize> = (0..rows.len()).filter(|&row| stays[row]).collect();
        for row in beyond(take, &source.name, clean, &rows, &groups, pinned, config.seed) {
            stays[row] = false;
            account.not_taken += 1;
        }
    }
    let mut stay = stays.iter();
    rows.retain(|_| *stay.next().expect("one for each row"));
    let earlier_sources = config.decontaminate.as_ref().is_some_and(|rules| rules.earlier_sources);
    if let Some(held_out) = held_out.filter(|_| earlier_sources) {
        held_out.hold_out(&source.name, &questions(&rows, pool.len()));
    }
    account.rows = rows.len();
    pool.append(&mut rows);
    account
}

fn questions(rows: &[Row], first: usize) -> Vec<Question<'_>> {
    let mut questions = Vec::with_capacity(rows.len());
    for (row, Row { question, source_type, .. }) in (first..).zip(rows) {
        questions.push(Question { row, text: question, source_type });
    }
    questions
}

/// Those of the rows `clean` that are not among the wanted ones.
///
/// Differs from s1: the draw is by our own seed, and an even share is exact; s1 rounds the shares
/// up, stops at the number wanted and takes some rows twice, which its de-duplication then drops.
fn beyond(
    take: &Take,
    name: &str,
    mut clean: Vec<usize>,
    rows: &[Row],
    groups: &[Vec<String>],
    pinned: &BTreeSet<String>,
    seed: u64,
) -> Vec<usize> {
    seed::rng(seed, &["take", name]).shuffle(&mut clean);
    let mut order = evenly(clean, groups, 0, take.evenly_over.len());
    // Stable: behind the pinned rows the order stays.
    order.sort_by_key(|&row| !pinned.contains(&rows[row].question));
    order.split_off(take.rows.min(order.len()))
}

/// The rows in an order whose every beginning has, as nearly as can be, equally many of each value
/// of the column `depth`, and within these of the next.
fn evenly(rows: Vec<usize>, groups: &[Vec<String>], depth: usize, columns: usize) -> Vec<usize> {
    if depth == columns {
        return rows;
    }
    let mut of_value: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for row in rows {
        // Rows of a table that came as it is have no such columns.
        let value = groups[row].get(depth).map_or("", String::as_str);
        of_value.entry(value).or_default().push(row);
    }
    let of_value = of_value.into_values().map(|rows| evenly(rows, groups, depth + 1, columns));
    let mut ranked: Vec<(usize, usize)> =
        of_value.flat_map(|rows| rows.into_iter().enumerate()).collect();
    ranked.sort_by_key(|&(rank, _)| rank);
    ranked.into_iter().map(|(_, row)| row).collect()
}

/// Drops every question that stood earlier; the accounts' rows are in the pool one after another.
fn without_duplicates(pool: Vec<Row>, accounts: &mut [Account]) -> Vec<Row> {
    let texts = pool.iter().enumerate().map(|(row, of)| (row, of.question.as_str()));
    let mut verdicts = deduplicate(texts).into_iter();
    let mut unique = Vec::with_capacity(pool.len());
    let mut rows = pool.into_iter();
    for account in accounts {
        let before = unique.len();
        let own = rows.by_ref().take(account.rows).zip(verdicts.by_ref());
        unique.extend(own.filter(|(_, verdict)| verdict.is_none()).map(|(row, _)| row));
        account.duplicates = account.rows - (unique.len() - before);
        account.rows -= account.duplicates;
    }
    unique
}

fn summary(accounts: &[Account]) -> String {
    let mut text = format!(
        "{:<24} {:>9} {:>9} {:>12} {:>9} {:>10} {:>9}\n",
        "source", "read", "left out", "contaminated", "not taken", "duplicates", "in pool"
    );
    let mut all = Account { name: "all".to_string(), ..Account::default() };
    let sum = |of: &BTreeMap<String, usize>| of.values().sum::<usize>();
    let line = |of: &Account, left_out, contaminated| {
        let Account { name, read, not_taken, duplicates, rows, .. } = of;
        format!(
            "{name:<24} {read:>9} {left_out:>9} {contaminated:>12} {not_taken:>9} \
             {duplicates:>10} {rows:>9}\n"
        )
    };
    let (mut left_out, mut contaminated) = (0, 0);
    for account in accounts {
        text += &line(account, sum(&account.left_out), sum(&account.contaminated));
        left_out += sum(&account.left_out);
        contaminated += sum(&account.contaminated);
        all.read += account.read;
        all.not_taken += account.not_taken;
        all.duplicates += account.duplicates;
        all.rows += account.rows;
    }
    text + &line(&all, left_out, contaminated)
}

/// A line about what is going on.
fn progress(line: &str) {
    eprintln!("curate: {line}");
}
