//! The first pass over the pool: every stage before the selection, in memory that hardly grows.
//!
//! The pool is streamed in parts, without its traces; what is kept of a row is its id, to find it
//! again. Every row's verdict goes straight into a lineage, where the rows that got to the
//! selection stand as not drawn yet.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use record::publish::{Input, input};
use record::question::question_id;
use record::row::{Features, Lineage, Outline};
use record::table;

use crate::collect;
use crate::config::{After, Config};
use crate::decontaminate::{Benchmark, HeldOut, Question};
use crate::deduplicate::{Keep, Seen};
use crate::difficulty::too_easy;
use crate::funnel::{Reason, Stage};
use crate::near_duplicates::Stricter;
use crate::progress;
use crate::quality::{self, Columns};

/// Rows that are judged together.
const PART: usize = 8192;

/// What a survey leaves beside its lineage.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// The pool's files, with the rows of each.
    pub pool: Vec<(PathBuf, usize)>,
    /// Everything that was read.
    pub inputs: Vec<Input>,
    /// What a reader must know, in whole sentences.
    pub notes: Vec<String>,
}

/// Sends the pool through every stage before the selection and writes the lineage of its rows to
/// `lineage`.
///
/// Errors when a file cannot be read, or no row of the pool has some column that the stages up to
/// `selection.after` need.
pub fn survey(config: &Config, lineage: &Path) -> Result<Survey> {
    let files = &config.pool.files;
    for file in files {
        ensure!(
            file.exists(),
            "{} does not exist: pool.files names it, relative to the current directory; `curate \
             collect` makes a pool, `curate featurise` adds what it lacks (curate/README.md)",
            file.display()
        );
    }
    let mut found = Survey::default();
    let benchmarks = read_benchmarks(config, &mut found)?;
    let rules = &config.decontaminate;
    let mut stages = Stages {
        config,
        rows: 0,
        seen: match config.pool.keep {
            Keep::First => Seen::default(),
            Keep::Fullest => Seen::fullest(outlines(files)?)?,
        },
        held_out: HeldOut::index(&benchmarks, rules.ngram, rules.earlier_sources),
        stricter: rules.stricter.as_ref().map(|rules| Stricter::index(&benchmarks, rules)),
        features: read_features(&config.pool.features, &mut found.inputs)?,
        without_features: 0,
        columns: Columns::default(),
    };
    let mut writer = table::create_lineage(lineage)?;
    for file in files {
        let before = stages.rows;
        let bar = progress::bar(&file.display().to_string(), table::count_rows(file)?);
        let mut rows = table::stream_outlines(file)?;
        loop {
            let part: Vec<Outline> = rows.by_ref().take(PART).collect::<Result<_>>()?;
            if part.is_empty() {
                break;
            }
            bar.advance(part.len());
            stages.judge(part).into_iter().try_for_each(|row| writer.push(row))?;
        }
        drop(bar);
        let rows = stages.rows - before;
        found.inputs.push(input(file, Some(rows as u64))?);
        found.pool.push((file.clone(), rows));
        progress::line(&format!("{} ({rows} questions)", file.display()));
    }
    writer.finish()?;
    ensure!(stages.rows > 0, "the pool has no rows: is pool.files right?");
    let features_required = config.selection.after > After::Answered;
    stages.columns.check(features_required, config.quality.grades_required)?;
    found.notes.extend(stages.notes());
    Ok(found)
}

/// The rows of the whole pool.
fn outlines(files: &[PathBuf]) -> Result<impl Iterator<Item = Result<Outline>>> {
    let rows = files.iter().map(|file| table::stream_outlines(file)).collect::<Result<Vec<_>>>()?;
    Ok(rows.into_iter().flatten())
}

fn read_benchmarks(config: &Config, found: &mut Survey) -> Result<Vec<Benchmark>> {
    let tables = &config.decontaminate.benchmarks;
    let benchmarks = collect::read_benchmarks(tables, &mut found.inputs)?;
    if benchmarks.is_empty() {
        let note = "No benchmark is named, so nothing was held out from the pool.";
        found.notes.push(note.to_string());
    }
    Ok(benchmarks)
}

/// What a side table knows of a question; there are few different domains.
#[derive(Debug, Clone, Default)]
struct Known {
    domain: Option<Arc<str>>,
    isgeminicorrect: Option<bool>,
    isqwen7bcorrect: Option<bool>,
    isqwen32bcorrect: Option<bool>,
    gemini_length: Option<i64>,
}

fn read_features(files: &[PathBuf], inputs: &mut Vec<Input>) -> Result<HashMap<u64, Known>> {
    let (mut features, mut domains) = (HashMap::new(), HashMap::<String, Arc<str>>::new());
    for file in files {
        let mut rows = 0;
        let context = "pool.features: `curate featurise` makes such a table";
        for row in table::stream_features(file).context(context)? {
            let row: Features = row?;
            rows += 1;
            let hash = &row.question_hash;
            let id = u64::from_str_radix(hash, 16).ok().filter(|_| hash.len() == 16);
            let id = id.with_context(|| {
                format!(
                    "{}: row {rows}, column `question_hash`: \"{hash}\" where 16 hex digits are \
                     expected",
                    file.display()
                )
            })?;
            let known: &mut Known = features.entry(id).or_default();
            let domain = row.domain.map(|domain| {
                domains.entry(domain).or_insert_with_key(|domain| domain.as_str().into()).clone()
            });
            known.domain = domain.or(known.domain.take());
            known.isgeminicorrect = row.isgeminicorrect.or(known.isgeminicorrect);
            known.isqwen7bcorrect = row.isqwen7bcorrect.or(known.isqwen7bcorrect);
            known.isqwen32bcorrect = row.isqwen32bcorrect.or(known.isqwen32bcorrect);
            known.gemini_length = row.gemini_length.or(known.gemini_length);
        }
        inputs.push(input(file, Some(rows))?);
        progress::line(&format!("{} (features of {rows} questions)", file.display()));
    }
    Ok(features)
}

/// The stages, and what they remember from one part of the pool to the next.
struct Stages<'a> {
    config: &'a Config,
    /// Rows that were judged.
    rows: usize,
    seen: Seen,
    held_out: HeldOut,
    stricter: Option<Stricter>,
    features: HashMap<u64, Known>,
    /// Different questions without a row in the side tables.
    without_features: usize,
    columns: Columns,
}

/// `None` is a row that got to the selection.
type Verdict = Option<(Stage, Reason)>;

impl Stages<'_> {
    /// The lineage of the next rows of the pool.
    fn judge(&mut self, mut part: Vec<Outline>) -> Vec<Lineage> {
        let ids: Vec<u64> = part.par_iter().map(|row| question_id(&row.question)).collect();
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(part.len());
        for (index, (row, &id)) in part.iter_mut().zip(&ids).enumerate() {
            let duplicate = self.seen.judge(id, self.rows + index);
            self.join_features(row, id, duplicate.is_none());
            self.columns.see(row);
            verdicts.push(duplicate.map(|reason| (Stage::Deduplicate, reason)));
        }
        let unique: Vec<usize> = (0..part.len()).filter(|&i| verdicts[i].is_none()).collect();
        let question = |&i: &usize| {
            let Outline { question: text, source_type, .. } = &part[i];
            Question { row: self.rows + i, text, source_type }
        };
        let questions: Vec<Question> = unique.iter().map(question).collect();
        let mut reasons = self.held_out.judge(&questions);
        if let Some(stricter) = &mut self.stricter {
            let left = (0..questions.len()).filter(|&i| reasons[i].is_none());
            let left: Vec<usize> = left.collect();
            let others: Vec<Question> = left.iter().map(|&i| questions[i]).collect();
            for (i, reason) in left.into_iter().zip(stricter.judge(&others)) {
                reasons[i] = reason;
            }
        }
        for (i, reason) in unique.into_iter().zip(reasons) {
            verdicts[i] = reason.map(|reason| (Stage::Decontaminate, reason));
        }
        let first = self.rows;
        self.rows += part.len();
        let rows = part.into_par_iter().zip(verdicts).zip(ids).enumerate();
        rows.map(|(index, ((row, verdict), id))| {
            let verdict = verdict.or_else(|| judge_alone(self.config, &row));
            lineage(first + index, id, row, verdict)
        })
        .collect()
    }

    fn join_features(&mut self, row: &mut Outline, id: u64, is_first: bool) {
        let Some(known) = self.features.get(&id) else {
            self.without_features += usize::from(is_first);
            return;
        };
        row.domain = known.domain.as_deref().map(str::to_string).or(row.domain.take());
        row.isgeminicorrect = known.isgeminicorrect.or(row.isgeminicorrect);
        row.isqwen7bcorrect = known.isqwen7bcorrect.or(row.isqwen7bcorrect);
        row.isqwen32bcorrect = known.isqwen32bcorrect.or(row.isqwen32bcorrect);
        row.gemini_length = known.gemini_length.or(row.gemini_length);
    }

    /// What was let go, and how the side tables and the pool fit together.
    fn notes(&self) -> Vec<String> {
        let mut notes = self.stricter.as_ref().map(Stricter::notes).unwrap_or_default();
        if self.config.pool.features.is_empty() {
            return notes;
        }
        let strangers = self.features.keys().filter(|id| !self.seen.has(**id)).count();
        if self.without_features + strangers > 0 {
            notes.push(format!(
                "Of {} different questions of the pool {} have no row in the side tables of \
                 features; {strangers} rows there are about no question of the pool.",
                self.seen.len(),
                self.without_features,
            ));
        }
        notes
    }
}

/// The stages that look at one row alone.
fn judge_alone(config: &Config, row: &Outline) -> Verdict {
    let at = |stage: Stage| move |reason: Reason| (stage, reason);
    let grades = config.quality.grades_required;
    let diagrams = &config.quality.diagrams_allowed_from;
    quality::answered(row)
        .map(at(Stage::Answered))
        .or_else(|| quality::complete(row, grades).map(at(Stage::Complete)))
        .or_else(|| quality::patterns(row, diagrams).map(at(Stage::Patterns)))
        .or_else(|| too_easy(row, &config.difficulty.too_easy_if).map(at(Stage::Difficulty)))
}

fn lineage(row: usize, id: u64, of: Outline, verdict: Verdict) -> Lineage {
    let not_drawn = || (Stage::Diversity, Reason::new("not drawn", ""));
    let (stage, Reason { cause, detail }) = verdict.unwrap_or_else(not_drawn);
    Lineage {
        row: row as i64 + 1,
        question_hash: format!("{id:016x}"),
        source_type: of.source_type,
        cot_type: of.cot_type,
        question: of.question,
        domain: of.domain,
        gemini_length: of.gemini_length,
        isgeminicorrect: of.isgeminicorrect,
        isqwen7bcorrect: of.isqwen7bcorrect,
        isqwen32bcorrect: of.isqwen32bcorrect,
        stage: stage.name().to_string(),
        reason: cause,
        evidence: (!detail.is_empty()).then_some(detail),
        ..Lineage::default()
    }
}
