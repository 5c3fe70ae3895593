//! `curate featurise`: what the funnel must know of each question besides its text.
//!
//! Steps in order: traces and answers where the pool has none (a teacher), their lengths, attempts
//! by the two graded models, grades, domains. What the pool already says stays and is not asked for
//! again. Every reply is in the cache before it is used: a run that was stopped goes on for free.

mod ask;
mod config;
mod grade;
mod prompt;
mod questions;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use endpoint::{Reply, verdict};
use rayon::prelude::*;
use record::publish::{Input, Manifest, OutputFolder, command, input};
use record::row::{Attempt, Row};
use record::table;

pub use ask::{Asked, Mode};
pub use config::{Config, Grader, Model};
pub use grade::{Verdict, by_rules};
pub use prompt::{Prompt, Texts};

use crate::domain;
use crate::progress;
use crate::tokens::Tokens;
use ask::Asker;
use questions::{Column, Question, Tried, read_pool};
use report::Report;

/// A verdict or code that cannot be read is drawn again, so many times in all.
const DRAWS: u64 = 3;

/// Rows of the pool that are held with their traces at a time.
const CHUNK: usize = 512;

/// The columns of the pool that is written with a teacher's traces; its features stand beside it.
const POOL: [&str; 8] = [
    "solution",
    "question",
    "cot_type",
    "source_type",
    "metadata",
    "cot",
    "thinking_trajectories",
    "attempt",
];

/// The arguments of `curate featurise`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// The run: a TOML file such as configs/curate/featurise.toml.
    pub config: PathBuf,
    /// Override one value of the config, such as grading.decides=judge; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub sets: Vec<String>,
    /// Replace the output folder if it exists.
    #[arg(long)]
    pub overwrite: bool,
    /// Say how many requests there would be and what they would cost; send and publish nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Write the requests that have no reply yet into this folder, for a vendor's batch API, and
    /// publish nothing.
    #[arg(long, value_name = "FOLDER", conflicts_with = "dry_run")]
    pub write_batches: Option<PathBuf>,
    /// Take a batch API's result files into the cache first: FOLDER/SECTION/*.jsonl.
    #[arg(long, value_name = "FOLDER")]
    pub read_batches: Option<PathBuf>,
}

impl Args {
    fn mode(&self) -> Mode {
        match &self.write_batches {
            Some(folder) => Mode::Batches(folder.clone()),
            None if self.dry_run => Mode::Estimate,
            None => Mode::Send,
        }
    }
}

/// Runs a config with its `--set` overrides and returns the summary.
///
/// Publishes `output` with `features.parquet` (a row for each different question, in the pool's
/// order), `attempts.parquet` (every answer that was graded, with both graders' reasons),
/// `summary.txt` and `manifest.json`, or nothing at all; with a teacher also `pool.parquet`:
/// the pool's rows with its traces. Refuses an existing `output` unless `overwrite`, and to publish
/// while requests have no reply unless the config says `allow_missing`.
pub fn run(args: &Args) -> Result<String> {
    let (config, effective): (Config, toml::Table) =
        record::config::load(&args.config, &args.sets)?;
    config.check().with_context(|| args.config.display().to_string())?;
    let mode = args.mode();
    let folder = match mode {
        Mode::Send => Some(OutputFolder::create(&config.output, args.overwrite)?),
        _ => None,
    };
    let models = Models::open(&config, &mode, args.read_batches.as_deref())?;
    let mut inputs = models.inputs(&config)?;
    let tokens = Tokens::open(&config.length.tokenizer)?;
    inputs.push(input(&config.length.tokenizer, None)?);
    let mut questions = read_pool(&config.pool.files, &tokens, &mut inputs)?;

    let mut report = Report::new(&questions);
    questions.iter_mut().for_each(Question::measure);
    teach(&models, &tokens, &mut questions, &mut report)?;
    let given = given(&config, &questions, &mut inputs)?;
    let mut tried = attempts(&models, &questions, given, &mut report)?;
    judge(&config, &models, &mut questions, &mut tried, &mut report)?;
    label(&models, &mut questions, &mut report)?;

    let Some(folder) = folder else {
        let mut lines: Vec<&str> = report.asked.iter().map(|of| of.preview.as_str()).collect();
        lines.push("Nothing was sent, and nothing is published.\n");
        return Ok(lines.join("\n"));
    };
    if !config.allow_missing {
        report.check_complete()?;
    }
    let summary = report.summary(&questions);
    let features: Vec<_> = questions.iter().map(|of| of.features.clone()).collect();
    table::write_features(&folder.path().join("features.parquet"), &features)?;
    let graded: Vec<Attempt> = tried.into_iter().map(|of| of.row(&questions)).collect();
    table::write_attempts(&folder.path().join("attempts.parquet"), &graded)?;
    if let Some(teacher) = &models.teacher {
        write_pool(&config.pool.files, teacher, &questions, folder.path())?;
    }
    folder.write("summary.txt", &summary)?;
    folder.finish(Manifest {
        tool: "curate".to_string(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        command: command(),
        config: effective,
        inputs,
        seeds: BTreeMap::new(),
        files: BTreeMap::new(),
    })?;
    progress::line(&format!("published {}", config.output.display()));
    Ok(summary)
}

/// Those models that the config has.
struct Models {
    teacher: Option<Asker>,
    solvers: Vec<(Column, Asker)>,
    judge: Option<Asker>,
    domain: Option<Asker>,
}

impl Models {
    fn open(config: &Config, mode: &Mode, results: Option<&Path>) -> Result<Self> {
        let open = |name, model: &Option<Model>| -> Result<Option<Asker>> {
            let Some(model) = model else { return Ok(None) };
            let cache = config.cache.as_deref().expect("a config with a model has a cache");
            Asker::open(name, model, cache, mode, results).map(Some)
        };
        if let Some(folder) = results {
            check_results(config, folder)?;
        }
        let mut solvers = Vec::new();
        let sections = [
            (Column::Qwen7b, &config.isqwen7bcorrect),
            (Column::Qwen32b, &config.isqwen32bcorrect),
        ];
        for (column, model) in sections {
            solvers.extend(open(column.name(), model)?.map(|asker| (column, asker)));
        }
        Ok(Self {
            teacher: open("teacher", &config.teacher)?,
            solvers,
            judge: open("judge", &config.judge)?,
            domain: open("domain", &config.domain)?,
        })
    }

    /// The prompts, for the manifest.
    fn inputs(&self, config: &Config) -> Result<Vec<Input>> {
        config.models().map(|(_, model)| input(&model.prompt, None)).collect()
    }
}

/// A folder of batch results holds nothing but folders of the config's sections: what is misspelt
/// would be passed over, and paid again.
fn check_results(config: &Config, folder: &Path) -> Result<()> {
    let shown = folder.display();
    let sections: Vec<&str> = config.models().map(|(name, _)| name).collect();
    let entries = fs::read_dir(folder).with_context(|| {
        format!("{shown}: --read-batches takes a folder, of FOLDER/SECTION/*.jsonl")
    })?;
    let mut found = 0;
    for entry in entries {
        let name = entry?.file_name();
        ensure!(
            sections.iter().any(|section| name == *section),
            "{shown}/{} is no section of the config: --read-batches takes FOLDER/SECTION/*.jsonl, \
             where SECTION is one of {sections:?}",
            name.display()
        );
        found += 1;
    }
    ensure!(found > 0, "{shown} is empty: --read-batches takes FOLDER/SECTION/*.jsonl");
    Ok(())
}

/// Traces and answers for questions that have none. A reply without both is none: a model that does
/// not think aloud cannot be the teacher.
fn teach(
    models: &Models,
    tokens: &Tokens,
    questions: &mut [Question],
    report: &mut Report,
) -> Result<()> {
    let Some(teacher) = &models.teacher else { return Ok(()) };
    let open: Vec<usize> = (0..questions.len()).filter(|&at| !questions[at].answered()).collect();
    let asking: Vec<_> = open.iter().map(|&at| questions[at].asking()).collect();
    let (replies, asked) = teacher.ask(&asking, 1, |reply| {
        let (trace, attempt) = trace_of(reply)?;
        Some((tokens.count(trace).ok()?, attempt.to_string()))
    })?;
    for (at, reply) in open.into_iter().zip(replies) {
        let reply = reply.or_else(|| Some((0, teacher.stand_in()?)));
        if let Some((length, attempt)) = reply {
            questions[at].teacher = Some(asked.model.clone());
            questions[at].features.gemini_length = Some(length);
            questions[at].attempt = Some(attempt);
        }
    }
    report.asked.push(asked);
    Ok(())
}

fn trace_of(reply: &Reply) -> Option<(&str, &str)> {
    let trace = reply.thinking.as_deref()?.trim();
    (!trace.is_empty() && !reply.text.trim().is_empty()).then_some((trace, reply.text.trim()))
}

/// Those answers that the config has tables of, the first of each model at each question.
fn given(config: &Config, questions: &[Question], inputs: &mut Vec<Input>) -> Result<Vec<Tried>> {
    let hash = |(at, of): (usize, &Question)| (of.features.question_hash.clone(), at);
    let mut given = Vec::new();
    for (column, files) in [
        (Column::Qwen7b, &config.attempts.isqwen7bcorrect),
        (Column::Qwen32b, &config.attempts.isqwen32bcorrect),
    ] {
        let mut open: BTreeMap<String, usize> = questions.iter().enumerate().map(hash).collect();
        for file in files {
            let rows = table::read_attempts(file)?;
            inputs.push(input(file, Some(rows.len() as u64))?);
            let (all, before) = (rows.len(), given.len());
            for row in rows {
                let Some(question) = open.remove(&row.question_hash) else { continue };
                let (model, text) = (row.model, row.attempt);
                given.push(Tried { question, column, model, text, verdict: None });
            }
            let (shown, used) = (file.display(), given.len() - before);
            ensure!(
                used > 0,
                "{shown}: none of its {all} attempts is at a question of the pool that has none \
                 yet; their question_hash is that of the pool's question"
            );
            progress::line(&format!("{shown}: {used} of {all} attempts are taken"));
        }
    }
    Ok(given)
}

/// Every answer that is to be graded: the teacher's, and those of the two models, given or asked
/// for.
///
/// Differs from s1: a question without a solution is not tried, since nobody could grade it; it
/// leaves the funnel as incomplete in either case.
fn attempts(
    models: &Models,
    questions: &[Question],
    given: Vec<Tried>,
    report: &mut Report,
) -> Result<Vec<Tried>> {
    let gradable = |at: &usize| questions[*at].solution.is_some();
    let mut tried = Vec::new();
    for at in (0..questions.len()).filter(gradable) {
        tried.extend(questions[at].attempt.as_ref().map(|text| Tried {
            question: at,
            column: Column::Teacher,
            model: questions[at].teacher.clone().unwrap_or_else(|| "teacher".to_string()),
            text: text.clone(),
            verdict: None,
        }));
    }
    for (column, asker) in &models.solvers {
        let there: BTreeSet<usize> =
            given.iter().filter(|of| of.column == *column).map(|of| of.question).collect();
        let unknown =
            |at: &usize| column.grade(&questions[*at].features).is_none() && !there.contains(at);
        let open: Vec<usize> = (0..questions.len()).filter(gradable).filter(unknown).collect();
        let asking: Vec<_> = open.iter().map(|&at| questions[at].asking()).collect();
        let read = |reply: &Reply| (!reply.text.is_empty()).then(|| reply.text.clone());
        let (replies, asked) = asker.ask(&asking, 1, read)?;
        for (at, reply) in open.into_iter().zip(replies) {
            tried.extend(reply.or_else(|| asker.stand_in()).map(|text| Tried {
                question: at,
                column: *column,
                model: asked.model.clone(),
                text,
                verdict: None,
            }));
        }
        report.asked.push(asked);
    }
    tried.extend(given.into_iter().filter(|of| gradable(&of.question)));
    Ok(tried)
}

/// Grades every attempt by rules, and by the judge, where the pool has no grade, what the rules
/// cannot tell; all where the judge decides or both are compared. The pool's grade stays.
fn judge(
    config: &Config,
    models: &Models,
    questions: &mut [Question],
    tried: &mut [Tried],
    report: &mut Report,
) -> Result<()> {
    let known = |of: &Tried| of.column.grade(&questions[of.question].features);
    let by_rules: Vec<Verdict> =
        tried.par_iter().map(|of| by_rules(&of.text, questions[of.question].solution())).collect();
    let known: Vec<Option<bool>> = tried.iter().map(known).collect();
    let mut by_judge: Vec<Option<bool>> = vec![None; tried.len()];
    if let Some(judge) = &models.judge {
        let all = config.grading.compare || config.grading.decides == Grader::Judge;
        let is_open = |at: &usize| known[*at].is_none() && (all || by_rules[*at].right.is_none());
        let open: Vec<usize> = (0..tried.len()).filter(is_open).collect();
        let asking: Vec<_> = open.iter().map(|&at| tried[at].asking(questions)).collect();
        let (replies, asked) = judge.ask(&asking, DRAWS, verdict::yes_no)?;
        open.into_iter().zip(replies).for_each(|(at, reply)| by_judge[at] = reply);
        report.asked.push(asked);
    }
    for (at, (of, rules)) in tried.iter_mut().zip(by_rules).enumerate() {
        report.compare(of.column, rules.right, by_judge[at], known[at]);
        let right = match config.grading.decides {
            Grader::Rules => rules.right.or(by_judge[at]),
            Grader::Judge => by_judge[at],
        };
        let says = |who: &str, right: Option<bool>| match right {
            Some(true) => format!("; the {who} says yes"),
            Some(false) => format!("; the {who} says no"),
            None => String::new(),
        };
        let why = rules.why + &says("judge", by_judge[at]) + &says("pool", known[at]);
        of.verdict = Some(Verdict { right: known[at].or(right), why });
        of.column.set(&mut questions[of.question].features, right);
    }
    Ok(())
}

/// The domain of every question without one: by its model, else by its words.
fn label(models: &Models, questions: &mut [Question], report: &mut Report) -> Result<()> {
    let by_words: Vec<&str> = questions
        .par_iter()
        .map(|of| domain::label(&of.question, &of.source_type).title.as_str())
        .collect();
    let open: Vec<usize> =
        (0..questions.len()).filter(|&at| questions[at].features.domain.is_none()).collect();
    let mut found: Vec<Option<&str>> = open.iter().map(|&at| Some(by_words[at])).collect();
    if let Some(asker) = &models.domain {
        let asking: Vec<_> = open.iter().map(|&at| questions[at].asking()).collect();
        let title =
            |reply: &Reply| Some(domain::class(verdict::two_digits(reply)?)?.title.as_str());
        let (replies, asked) = asker.ask(&asking, DRAWS, title)?;
        found = replies;
        report.asked.push(asked);
    }
    let by_others = models.domain.is_some();
    for (of, words) in questions.iter().zip(&by_words) {
        report.compare_domains(of.features.domain.as_deref(), words);
    }
    for (at, title) in open.into_iter().zip(found) {
        if by_others {
            report.compare_domains(title, by_words[at]);
        }
        questions[at].features.domain = title.map(str::to_string);
    }
    Ok(())
}

/// The pool's rows again as `pool.parquet`, with the teacher's traces and answers from the cache.
fn write_pool(
    files: &[PathBuf],
    teacher: &Asker,
    questions: &[Question],
    folder: &Path,
) -> Result<()> {
    let by_hash: BTreeMap<&str, &Question> =
        questions.iter().map(|of| (of.features.question_hash.as_str(), of)).collect();
    let mut pool = table::create_rows(&folder.join("pool.parquet"), &POOL)?;
    for file in files {
        let mut rows = table::stream_rows(file)?;
        loop {
            let mut chunk = rows.by_ref().take(CHUNK).collect::<Result<Vec<Row>>>()?;
            if chunk.is_empty() {
                break;
            }
            let taught = |row: &Row| {
                let question = by_hash[row.hash().as_str()];
                question.teacher.is_some().then_some(question)
            };
            let asking: BTreeMap<String, Texts> =
                chunk.iter().filter_map(taught).map(Question::asking).collect();
            let asking: Vec<_> = asking.into_iter().collect();
            let read = |reply: &Reply| trace_of(reply).map(|(trace, _)| trace.to_string());
            let (traces, _) = teacher.ask(&asking, 1, read)?;
            let hashes = asking.into_iter().map(|(hash, _)| hash);
            let traces: BTreeMap<String, Option<String>> = hashes.zip(traces).collect();
            for row in &mut chunk {
                if let Some(question) = taught(row) {
                    let trace = &traces[&question.features.question_hash];
                    row.thinking_trajectories = trace.iter().cloned().collect();
                    row.attempt = question.attempt.clone();
                }
            }
            chunk.into_iter().try_for_each(|row| pool.push(row))?;
        }
    }
    pool.finish()
}
