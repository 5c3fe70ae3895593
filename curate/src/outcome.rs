//! A curation read back from its output folder: all that its pages say, from one pass over it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use record::row::Lineage;
use record::table;
use serde::Deserialize;

use crate::decontaminate::source;
use crate::funnel::SELECTED;

/// Rows kept of each stage and rule, for people to look at.
const SAMPLES: usize = 3;

/// The lineage of the output folder `folder`, one row at a time.
pub fn lineage(folder: &Path) -> Result<impl Iterator<Item = Result<Lineage>> + use<>> {
    let file = folder.join("lineage.parquet");
    ensure!(
        file.is_file(),
        "{} has no lineage.parquet: name a folder that `curate run` or `curate select` wrote",
        folder.display()
    );
    table::stream_lineage(&file)
}

/// The `config` of the folder's manifest.
pub fn config(folder: &Path) -> Result<toml::Table> {
    #[derive(Deserialize)]
    struct Manifest {
        config: toml::Table,
    }
    let manifest: Manifest = json(&folder.join("manifest.json"))?;
    Ok(manifest.config)
}

fn json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).with_context(|| {
        format!(
            "cannot read {}: name a folder that `curate run` or `curate select` wrote",
            path.display()
        )
    })?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is not what this curate writes", path.display()))
}

/// What one stage did, in funnel.json's words.
#[derive(Debug, Clone, Deserialize)]
pub struct Stage {
    /// Its name.
    pub stage: String,
    /// Rows that reached it.
    pub rows_in: usize,
    /// Rows that it dropped.
    pub dropped: usize,
    /// Rows that it let through.
    pub kept: usize,
}

/// What the pages need of funnel.json: the order of the stages, and the notes.
#[derive(Debug, Clone, Deserialize)]
pub struct Funnel {
    /// In order.
    pub stages: Vec<Stage>,
    /// What a reader must know beside the numbers, in whole sentences.
    pub notes: Vec<String>,
}

impl Funnel {
    /// From the folder's funnel.json.
    pub fn read(folder: &Path) -> Result<Self> {
        json(&folder.join("funnel.json"))
    }
}

/// The rows that share a domain or a source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Group {
    /// In the pool.
    pub pool: usize,
    /// That reached the selection.
    pub candidates: usize,
    /// That were selected.
    pub selected: usize,
    /// In the traces of the selected ones.
    pub tokens: i64,
}

/// A curation in numbers and samples.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Stages and notes.
    pub funnel: Funnel,
    /// The whole pool as one group.
    pub all: Group,
    /// By domain, of the rows that have one.
    pub domains: BTreeMap<String, Group>,
    /// By data set, which is the first two parts of `source_type`.
    pub sources: BTreeMap<String, Group>,
    /// Dropped rows by stage and rule; a row that several rules of its stage caught counts at each.
    pub rules: BTreeMap<(String, String), usize>,
    /// Selected rows by what they were picked for.
    pub phases: BTreeMap<String, usize>,
    /// Of the selected rows, by the grade of the teacher's answer.
    pub grades: BTreeMap<Option<bool>, usize>,
    /// Tokens of the traces of all candidates, and of the selected ones, both ascending.
    pub lengths: (Vec<i64>, Vec<i64>),
    /// By stage and reason, the rows whose hashes come first.
    pub samples: BTreeMap<(String, String), BTreeMap<(String, i64), Lineage>>,
}

impl Outcome {
    /// Of the output folder `folder`, which needs no manifest yet.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut outcome = Self {
            funnel: Funnel::read(folder)?,
            all: Group::default(),
            domains: BTreeMap::new(),
            sources: BTreeMap::new(),
            rules: BTreeMap::new(),
            phases: BTreeMap::new(),
            grades: BTreeMap::new(),
            lengths: (Vec::new(), Vec::new()),
            samples: BTreeMap::new(),
        };
        for row in lineage(folder)? {
            outcome.add(row?);
        }
        let (candidates, selected) = &mut outcome.lengths;
        candidates.sort_unstable();
        selected.sort_unstable();
        Ok(outcome)
    }

    fn add(&mut self, row: Lineage) {
        self.all.add(&row);
        self.sources.entry(source(&row.source_type).to_owned()).or_default().add(&row);
        if let Some(domain) = &row.domain {
            self.domains.entry(domain.clone()).or_default().add(&row);
        }
        if row.stage == SELECTED {
            *self.phases.entry(row.phase.clone().unwrap_or_default()).or_default() += 1;
            *self.grades.entry(row.isgeminicorrect).or_default() += 1;
            self.lengths.1.extend(row.gemini_length);
        } else {
            for rule in row.reason.split("; ") {
                *self.rules.entry((row.stage.clone(), rule.to_owned())).or_default() += 1;
            }
        }
        if is_candidate(&row) {
            self.lengths.0.extend(row.gemini_length);
        }
        let of_reason = self.samples.entry((row.stage.clone(), row.reason.clone())).or_default();
        let key = (row.question_hash.clone(), row.row);
        if of_reason.len() < SAMPLES
            || of_reason.last_key_value().is_some_and(|(last, _)| key < *last)
        {
            of_reason.insert(key, row);
        }
        if of_reason.len() > SAMPLES {
            of_reason.pop_last();
        }
    }
}

impl Group {
    fn add(&mut self, row: &Lineage) {
        let selected = row.stage == SELECTED;
        self.pool += 1;
        self.candidates += usize::from(is_candidate(row));
        self.selected += usize::from(selected);
        self.tokens += row.gemini_length.filter(|_| selected).unwrap_or(0);
    }
}

/// Whether the row reached the selection.
pub fn is_candidate(row: &Lineage) -> bool {
    row.rank.is_some() || row.stage == SELECTED
}
