//! `curate collect`: from data sets of the hub, or files, to one pool in s1's columns.
//!
//! The sources come one after the other, in the config's order. Of each, what shares a passage
//! with a benchmark or an earlier source goes, then a part is taken if only a part is wanted; at
//! the end, equal questions but the first. That is the order of simplescaling/s1
//! `data/collect_data.py`; `fix_gpqa.py` and `add_aime.py` are part of those two sources here.

mod place;
pub mod python;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use record::publish::{Input, Manifest, OutputFolder, command, input};
use record::question::question_id;
use record::row::Row;
use record::{raw, seed, table};
use serde::{Deserialize, Serialize};

use crate::config::BenchmarkTable;
use crate::decontaminate::{Benchmark, HeldOut, Question};
use crate::deduplicate::Seen;
use crate::funnel::Reason;
use crate::progress;
pub use place::Place;
use source::{Gathered, Source, Take};

/// Rows of a source that comes as it is that are held at a time; with s1's metadata of coding
/// questions one can have many megabytes.
const PART: usize = 256;
/// s1's columns of a pool.
const POOL_COLUMNS: [&str; 6] =
    ["solution", "question", "cot_type", "source_type", "metadata", "cot"];
/// Those that a released set may have beside them.
const MORE_COLUMNS: [&str; 8] = [
    "thinking_trajectories",
    "attempt",
    "domain",
    "isgeminicorrect",
    "isqwen7bcorrect",
    "isqwen32bcorrect",
    "gemini_length",
    "text",
];

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
    /// Only list the files that would be read, with the commits of those on the hub.
    #[arg(long)]
    pub dry_run: bool,
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

/// As in a run's config, without its stricter mode.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Decontaminate {
    ngram: usize,
    earlier_sources: bool,
    benchmarks: Vec<BenchmarkTable>,
}

/// What became of one source: an entry of `sources.json`.
#[derive(Debug, Clone, Default, Serialize)]
struct Account {
    name: String,
    /// Rows of its tables.
    read: usize,
    /// Columns of a table that came as it is that no column of the pool takes.
    passed_over: BTreeSet<String>,
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
    /// Each of the rows `contaminated`, `not_taken` and `duplicates`.
    #[serde(skip)]
    gone: Vec<Gone>,
}

/// A row that met its source's conditions and is not in the pool: a line of `left_out.jsonl`.
#[derive(Debug, Clone, Serialize)]
struct Gone {
    source: String,
    question_hash: String,
    /// `contaminated`, `not taken` or `duplicate`.
    reason: &'static str,
    /// What it shares with whom, or the row of the pool that it repeats.
    evidence: String,
}

/// Collects and returns the summary.
///
/// Publishes `output` with `pool.parquet`, `sources.json`, `left_out.jsonl`, `summary.txt` and
/// `manifest.json`,
/// which names every file that was read with its commit and SHA-256; or nothing at all.
pub fn run(args: &Args) -> Result<String> {
    let (config, effective): (Config, toml::Table) =
        record::config::load(&args.config, &args.sets)?;
    let shown = args.config.display();
    ensure!(!config.sources.is_empty(), "{shown}: sources is empty: name at least one file");
    let rules = config.decontaminate.as_ref();
    let no_words = rules.is_some_and(|rules| rules.ngram == 0);
    ensure!(!no_words, "{shown}: decontaminate.ngram must be at least 1");
    let mut inputs = Vec::new();
    let sources = config.sources.iter().map(|path| read_source(path, &mut inputs));
    let sources = sources.collect::<Result<Vec<Source>>>()?;
    if args.dry_run {
        return plan(&config, &sources);
    }
    let folder = OutputFolder::create(&config.output, args.overwrite)?;
    let pinned = read_pinned(&config, &mut inputs)?;
    let mut held_out = hold_out_benchmarks(&config, &mut inputs)?;

    let mut pool = Pool::create(&folder.path().join("pool.parquet"), &sources)?;
    let mut accounts = Vec::new();
    for source in &sources {
        progress::line(&format!("{}: reading", source.name));
        let context = || format!("the source {}", source.name);
        let account = pool.collect(&config, source, &pinned, held_out.as_mut(), &mut inputs);
        let account = account.with_context(context)?;
        progress::line(&format!("{}: {} of {} rows", account.name, account.rows, account.read));
        accounts.push(account);
    }
    pool.finish()?;

    let summary = summary(&accounts);
    folder.write("sources.json", &(serde_json::to_string_pretty(&accounts)? + "\n"))?;
    let gone = accounts.iter().flat_map(|account| &account.gone);
    record::jsonl::write(&folder.path().join("left_out.jsonl"), gone)?;
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
    progress::line(&format!("published {}", config.output.display()));
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
    let benchmarks = read_benchmarks(&rules.benchmarks, inputs)?;
    Ok(Some(HeldOut::index(&benchmarks, rules.ngram, false)))
}

/// The held-out sets of a config, each of them with at least one question; their files are added to
/// `inputs`.
pub(crate) fn read_benchmarks(
    tables: &[BenchmarkTable],
    inputs: &mut Vec<Input>,
) -> Result<Vec<Benchmark>> {
    let mut benchmarks = Vec::new();
    for BenchmarkTable { name, from, column } in tables {
        let place = || format!("the benchmark \"{name}\" of decontaminate.benchmarks");
        let mut questions = Vec::new();
        for file in from.find().with_context(place)? {
            let texts = raw::texts(&file.path, column).with_context(place)?;
            inputs.push(Input { rows: Some(texts.len() as u64), ..file.input });
            questions.extend(texts);
        }
        ensure!(
            !questions.is_empty(),
            "the benchmark \"{name}\" has no questions in {}: name the right files in \
             decontaminate.benchmarks, or take the entry out",
            from.files.join(", ")
        );
        progress::line(&format!("held out: {name} ({} questions)", questions.len()));
        benchmarks.push(Benchmark { name: name.clone(), questions });
    }
    Ok(benchmarks)
}

/// The files that would be read, one a line behind the name of what they are read for.
fn plan(config: &Config, sources: &[Source]) -> Result<String> {
    let benchmarks = config.decontaminate.iter().flat_map(|rules| &rules.benchmarks);
    let mut places: Vec<(&str, &Place)> =
        benchmarks.map(|of| (of.name.as_str(), &of.from)).collect();
    for source in sources {
        places.extend(source.places().into_iter().map(|place| (source.name.as_str(), place)));
    }
    let mut plan = String::new();
    for (name, place) in places {
        for file in place.list().with_context(|| name.to_string())? {
            plan += &format!("{name:<24} {file}\n");
        }
    }
    Ok(plan)
}

fn read_source(path: &Path, inputs: &mut Vec<Input>) -> Result<Source> {
    let (source, _): (Source, _) = record::config::load(path, &[])?;
    source.check().with_context(|| path.display().to_string())?;
    inputs.push(input(path, None)?);
    Ok(source)
}

/// The pool while it is written; at most one source is held in memory, and of one that comes as
/// it is a part.
struct Pool {
    path: PathBuf,
    writer: table::Writer<Row>,
    seen: Seen,
    /// Ids of the questions as they were written, with choices.
    written: Vec<u64>,
}

impl Pool {
    fn create(path: &Path, sources: &[Source]) -> Result<Self> {
        let comes_with_more = sources.iter().any(|source| source.as_it_is.is_some());
        let columns = [&POOL_COLUMNS[..], if comes_with_more { &MORE_COLUMNS } else { &[] }];
        let writer = table::create_rows(path, &columns.concat())?;
        let path = path.to_path_buf();
        Ok(Self { path, writer, seen: Seen::default(), written: Vec::new() })
    }

    /// Appends one source.
    fn collect(
        &mut self,
        config: &Config,
        source: &Source,
        pinned: &BTreeSet<String>,
        held_out: Option<&mut HeldOut>,
        inputs: &mut Vec<Input>,
    ) -> Result<Account> {
        let mut account = Account { name: source.name.clone(), ..Account::default() };
        let mut accepted = Vec::new();
        for file in source.as_it_is.iter().map(Place::find).collect::<Result<Vec<_>>>()?.concat() {
            let before = account.read;
            account.passed_over.extend(table::passed_over(&file.path)?);
            let mut stream = table::stream_rows(&file.path)?;
            loop {
                let rows: Vec<Row> = stream.by_ref().take(PART).collect::<Result<_>>()?;
                if rows.is_empty() {
                    break;
                }
                account.read += rows.len();
                let asks = |row: &Row| !row.question.trim().is_empty();
                let (rows, mute): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(asks);
                if !mute.is_empty() {
                    *account.left_out.entry("no question".to_string()).or_default() += mute.len();
                }
                let gathered = Gathered { rows, ..Gathered::default() };
                let gathered =
                    refine(config, source, gathered, pinned, held_out.as_deref(), &mut account);
                accepted.extend(self.append(gathered, &mut account)?);
            }
            let rows = Some((account.read - before) as u64);
            inputs.push(Input { rows, ..file.input });
        }
        if source.as_it_is.is_none() {
            let mut gathered = source.gather(config.seed, pinned)?;
            inputs.append(&mut gathered.inputs);
            account.read = gathered.read;
            account.left_out = std::mem::take(&mut gathered.left_out);
            let gathered =
                refine(config, source, gathered, pinned, held_out.as_deref(), &mut account);
            accepted = self.append(gathered, &mut account)?;
        }
        account.check()?;
        let rules = config.decontaminate.as_ref();
        if let Some(held_out) = held_out.filter(|_| rules.is_some_and(|of| of.earlier_sources)) {
            let accepted = accepted.iter().map(|(row, text)| (*row, text.as_str()));
            held_out.hold_out(&source.name, accepted);
        }
        Ok(account)
    }

    /// Writes the rows whose question is new, and returns these questions with their rows.
    fn append(
        &mut self,
        gathered: Gathered,
        account: &mut Account,
    ) -> Result<Vec<(usize, String)>> {
        let mut accepted = Vec::new();
        let mut choices = gathered.choices.into_iter();
        for mut row in gathered.rows {
            let choices = choices.next().flatten();
            let verdict = self.seen.judge(question_id(&row.question), self.seen.len());
            if let Some(Reason { detail, .. }) = verdict {
                account.duplicates += 1;
                account.leaves(&row, "duplicate", detail);
                continue;
            }
            accepted.push((self.written.len(), row.question.clone()));
            if let Some(choices) = choices {
                choices.append(&mut row);
            }
            self.written.push(question_id(&row.question));
            self.writer.push(row)?;
            account.rows += 1;
        }
        Ok(accepted)
    }

    /// Closes the table and reads it back.
    fn finish(self) -> Result<()> {
        self.writer.finish()?;
        ensure!(!self.written.is_empty(), "no row is left of any source");
        let read_back = table::stream_rows(&self.path)?.map(|row| Ok(question_id(&row?.question)));
        ensure!(
            read_back.collect::<Result<Vec<u64>>>()? == self.written,
            "pool.parquet reads back other rows than were written"
        );
        Ok(())
    }
}

/// Of the rows of one source, or of a part of it, those that stay: clean, and not beyond what is
/// wanted.
fn refine(
    config: &Config,
    source: &Source,
    gathered: Gathered,
    pinned: &BTreeSet<String>,
    held_out: Option<&HeldOut>,
    account: &mut Account,
) -> Gathered {
    let Gathered { mut rows, groups, mut choices, .. } = gathered;
    let mut stays = vec![true; rows.len()];
    if let Some(held_out) = held_out.filter(|_| source.decontaminate) {
        for (row, verdict) in held_out.judge_alone(&questions(&rows)).into_iter().enumerate() {
            if let Some(reason) = verdict {
                stays[row] = false;
                account.leaves(&rows[row], "contaminated", reason.text());
                *account.contaminated.entry(reason.cause).or_default() += 1;
            }
        }
    }
    if let Some(take) = &source.take {
        let clean: Vec<usize> = (0..rows.len()).filter(|&row| stays[row]).collect();
        for row in beyond(take, &source.name, clean, &rows, &groups, pinned, config.seed) {
            stays[row] = false;
            account.not_taken += 1;
            account.leaves(&rows[row], "not taken", format!("beyond the {} wanted", take.rows));
        }
    }
    let mut stay = stays.iter();
    rows.retain(|_| *stay.next().expect("one for each row"));
    let mut stay = stays.iter();
    choices.retain(|_| *stay.next().expect("one for each row"));
    Gathered { rows, choices, ..Gathered::default() }
}

fn questions(rows: &[Row]) -> Vec<Question<'_>> {
    let mut questions = Vec::with_capacity(rows.len());
    for (row, Row { question, source_type, .. }) in rows.iter().enumerate() {
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

impl Account {
    fn leaves(&mut self, row: &Row, reason: &'static str, evidence: String) {
        let (source, question_hash) = (self.name.clone(), row.hash());
        self.gone.push(Gone { source, question_hash, reason, evidence });
    }

    /// An error if the source gave nothing that its conditions let stay: they say something else
    /// than its tables.
    fn check(&self) -> Result<()> {
        let left_out: usize = self.left_out.values().sum();
        ensure!(self.read > 0, "its tables have no rows");
        if left_out == self.read {
            let reasons = self.left_out.iter().map(|(why, rows)| format!("{why} ({rows})"));
            let reasons = reasons.collect::<Vec<_>>().join(", ");
            bail!("of {} rows none stays; correct its conditions: {reasons}", self.read);
        }
        Ok(())
    }
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
