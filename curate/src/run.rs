//! One run: read the pool, send it down the funnel, check the books, publish the folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use record::publish::{Input, Manifest, OutputFolder, command, input};
use record::row::{Dropped, Row};
use record::{example, seed, table};

use crate::config::Config;
use crate::decontaminate::{Benchmark, Question, decontaminate};
use crate::deduplicate::deduplicate;
use crate::difficulty::too_easy;
use crate::funnel::{self, Funnel, Reason, Stage, adds_up};
use crate::quality;
use crate::report::Report;
use crate::selection::{Candidate, Phase, Picks, select};

/// The arguments of `curate run`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// The run: a TOML file such as configs/curate/s1k.toml.
    pub config: PathBuf,
    /// Override one value of the config, such as selection.target=200; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub sets: Vec<String>,
    /// Replace the output folder if it exists.
    #[arg(long)]
    pub overwrite: bool,
}

/// Runs a config with its `--set` overrides and returns the summary.
///
/// Publishes `output` with `selected.parquet` (pool order, `text` rendered), `dropped.parquet`,
/// `funnel.json`, `summary.txt` and `manifest.json`, or nothing at all. Refuses an existing
/// `output` unless `overwrite`.
pub fn run(args: &Args) -> Result<String> {
    let (config, effective): (Config, toml::Table) =
        record::config::load(&args.config, &args.sets)?;
    config.check().with_context(|| format!("{}", args.config.display()))?;
    let folder = OutputFolder::create(&config.output, args.overwrite)?;
    let mut inputs = Vec::new();
    let pool = read_pool(&config, &mut inputs)?;
    let benchmarks = read_benchmarks(&config, &mut inputs)?;
    quality::columns_present(&pool, config.quality.grades_required)?;

    let mut funnel = Funnel::new(pool.len());
    sift(&config, &pool, &benchmarks, &mut funnel);
    let candidates: Vec<&Row> = funnel.kept.iter().map(|&row| &pool[row]).collect();
    let picks = choose(&config, &candidates)?;
    funnel.apply(Stage::Diversity, candidates.iter().zip(&picks.phase).map(not_drawn).collect());

    let mut notes = picks.notes.clone();
    if benchmarks.is_empty() {
        notes.push("No benchmark is named, so nothing was held out from the pool.".to_string());
    }
    let report = Report::new(&funnel, &candidates, &picks, notes);
    let summary = report.summary();
    write_tables(&pool, &funnel, folder.path())?;
    folder.write("funnel.json", &(serde_json::to_string_pretty(&report)? + "\n"))?;
    folder.write("summary.txt", &summary)?;
    folder.finish(Manifest {
        tool: "curate".to_string(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        command: command(),
        config: effective,
        inputs,
        seeds: BTreeMap::from([("selection".to_string(), config.seed)]),
        files: BTreeMap::new(),
    })?;
    progress(&format!("published {}", config.output.display()));
    Ok(summary)
}

fn read_pool(config: &Config, inputs: &mut Vec<Input>) -> Result<Vec<Row>> {
    let mut pool = Vec::new();
    for file in &config.pool.files {
        ensure!(
            file.exists(),
            "{} does not exist: pool.files names it, relative to the current directory; \
             curate/README.md says what a pool holds",
            file.display()
        );
        let rows = table::read_rows(file)?;
        inputs.push(input(file, Some(rows.len() as u64))?);
        progress(&format!("{} ({} questions)", file.display(), rows.len()));
        pool.extend(rows);
    }
    Ok(pool)
}

fn read_benchmarks(config: &Config, inputs: &mut Vec<Input>) -> Result<Vec<Benchmark>> {
    let mut benchmarks = Vec::new();
    for benchmark in &config.decontaminate.benchmarks {
        let (name, file) = (&benchmark.name, &benchmark.file);
        let questions = table::read_texts(file, &benchmark.column)
            .with_context(|| format!("the benchmark \"{name}\""))?;
        ensure!(
            !questions.is_empty(),
            "the benchmark \"{name}\" has no questions in {}: name the right file in \
             decontaminate.benchmarks, or take the entry out",
            file.display()
        );
        inputs.push(input(file, Some(questions.len() as u64))?);
        progress(&format!("held out: {name} ({} questions)", questions.len()));
        benchmarks.push(Benchmark { name: name.clone(), questions });
    }
    Ok(benchmarks)
}

/// Every stage before the selection, in order.
fn sift(config: &Config, pool: &[Row], benchmarks: &[Benchmark], funnel: &mut Funnel) {
    let questions = funnel.kept.iter().map(|&row| (row, pool[row].question.as_str()));
    let verdicts = deduplicate(questions);
    funnel.apply(Stage::Deduplicate, verdicts);

    let question = |&row: &usize| {
        let Row { question: text, source_type, .. } = &pool[row];
        Question { row, text, source_type }
    };
    let questions: Vec<Question> = funnel.kept.iter().map(question).collect();
    let rules = &config.decontaminate;
    let verdicts = decontaminate(&questions, benchmarks, rules.ngram, rules.earlier_sources);
    funnel.apply(Stage::Decontaminate, verdicts);

    judge(Stage::Answered, pool, funnel, quality::answered);
    let grades = config.quality.grades_required;
    judge(Stage::Complete, pool, funnel, |row| quality::complete(row, grades));
    let allowed = &config.quality.diagrams_allowed_from;
    judge(Stage::Patterns, pool, funnel, |row| quality::patterns(row, allowed));
    let rules = &config.difficulty.too_easy_if;
    judge(Stage::Difficulty, pool, funnel, |row| too_easy(row, rules));
}

/// A stage that looks at one row at a time.
fn judge(stage: Stage, pool: &[Row], funnel: &mut Funnel, rule: impl Fn(&Row) -> Option<Reason>) {
    let verdicts = funnel.kept.iter().map(|&row| rule(&pool[row])).collect();
    funnel.apply(stage, verdicts);
}

/// The three-phase selection among the rows that got this far, all of them complete.
fn choose(config: &Config, rows: &[&Row]) -> Result<Picks> {
    let hashes: Vec<String> = rows.iter().map(|row| row.hash()).collect();
    let known = "the stage before has dropped incomplete rows";
    let candidates: Vec<Candidate> = std::iter::zip(rows, &hashes)
        .map(|(row, hash)| Candidate {
            hash,
            domain: row.domain.as_deref().expect(known),
            source_type: &row.source_type,
            length: row.gemini_length.expect(known),
            correct: row.isgeminicorrect == Some(true),
        })
        .collect();
    progress(&format!("selecting from {} candidates", candidates.len()));
    select(&candidates, &config.selection, &mut seed::rng(config.seed, &["selection"]))
}

/// The selection's verdict about a candidate.
fn not_drawn((row, phase): (&&Row, &Option<Phase>)) -> Option<Reason> {
    let domain = row.domain.as_deref().unwrap_or_default();
    phase.is_none().then(|| Reason::new("not drawn", format!("from domain \"{domain}\"")))
}

/// Writes both tables, reads them back, and makes sure that together they hold every pool row once.
fn write_tables(pool: &[Row], funnel: &Funnel, folder: &Path) -> Result<()> {
    let (selected_path, dropped_path) =
        (folder.join("selected.parquet"), folder.join("dropped.parquet"));
    let with_text = |&row: &usize| {
        let place = || format!("row {} of the pool, question {}", row + 1, pool[row].hash());
        let text = Some(example::text(&pool[row]).with_context(place)?);
        Ok(Row { text, ..pool[row].clone() })
    };
    let selected = funnel.kept.iter().map(with_text).collect::<Result<Vec<Row>>>()?;
    table::write_rows(&selected_path, &selected)?;
    let mut dropped: Vec<Dropped> =
        funnel.dropped.iter().map(|dropped| dropped_row(pool, dropped)).collect();
    dropped.sort_by_key(|dropped| dropped.row);
    table::write_dropped(&dropped_path, &dropped)?;

    ensure!(
        table::read_rows(&selected_path)? == selected,
        "selected.parquet reads back different from what was written; nothing was published"
    );
    let read_back = table::read_dropped(&dropped_path)?;
    let dropped_rows = read_back.iter().map(|dropped| dropped.row as usize - 1);
    adds_up(pool.len(), funnel.kept.iter().copied(), dropped_rows)
}

fn dropped_row(pool: &[Row], dropped: &funnel::Dropped) -> Dropped {
    let row = &pool[dropped.row];
    Dropped {
        question_hash: row.hash(),
        source_type: row.source_type.clone(),
        stage: dropped.stage.name().to_string(),
        reason: dropped.reason.text(),
        row: dropped.row as u64 + 1,
    }
}

/// A line about what is going on; the longest stage takes seconds, so no bar.
fn progress(line: &str) {
    eprintln!("curate: {line}");
}
