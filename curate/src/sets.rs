//! From the lineage of a pool to selected sets: draws by each criterion, and its folder.
//!
//! A lineage says of every row how far it got, so a selection needs nothing else: no model, no
//! other stage, and of the pool only the selected rows. Many sets are made in one pass.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use record::publish::{Input, Manifest, OutputFolder, command};
use record::question::question_id;
use record::row::{Lineage, Row};
use record::table::{self, Writer};
use record::{example, seed};

use crate::card;
use crate::config::{After, Selection};
use crate::funnel::{SELECTED, Stage, adds_up};
use crate::outcome::Outcome;
use crate::progress;
use crate::report::Report;
use crate::report_page;
use crate::selection::{Candidate, Picks, pools, select};

/// s1K's columns, and the training example as text: features stay in the lineage.
const COLUMNS: [&str; 9] = [
    "solution",
    "question",
    "cot_type",
    "source_type",
    "metadata",
    "cot",
    "thinking_trajectories",
    "attempt",
    "text",
];
/// Selected rows that wait together to be written.
const PART: usize = 128;

/// What the sets are made from.
#[derive(Debug)]
pub struct Source<'a> {
    /// The lineage of every row of the pool.
    pub lineage: &'a Path,
    /// The pool's files, with the rows of each.
    pub pool: &'a [(PathBuf, usize)],
    /// For the manifests: everything that was read.
    pub inputs: Vec<Input>,
    /// For the reports.
    pub notes: Vec<String>,
}

/// One set to be made.
#[derive(Debug)]
pub struct Order {
    /// Its folder.
    pub folder: OutputFolder,
    /// Its criterion.
    pub selection: Selection,
    /// Seed of its draws.
    pub seed: u64,
    /// The whole effective config, for the manifest.
    pub config: toml::Table,
}

/// Makes all sets, each a folder that waits for [`Set::publish`].
///
/// Each folder has `selected.parquet` (pool order, `text` rendered), `lineage.parquet`,
/// `funnel.json`, `summary.txt`, `report.html` and `README.md`; the tables were read back and add
/// up.
pub fn make(source: &Source, orders: Vec<Order>) -> Result<Vec<Set>> {
    let after = orders.iter().map(|order| order.selection.after).min().context("no criterion")?;
    let reached = Reached::read(source.lineage, after)?;
    let mut sets: Vec<Set> =
        orders.into_par_iter().map(|order| Set::draw(order, &reached)).collect::<Result<_>>()?;
    let selected = write_selected(source.pool, &reached, &sets)?;
    sets.par_iter_mut().zip(selected).try_for_each(|(set, selected)| {
        let lineage = set.write_lineage(source.lineage, &reached)?;
        set.report(source, &reached, [lineage, selected])
    })?;
    Ok(sets)
}

/// The rows that got far enough to be candidates of some set, in the pool's order.
struct Reached {
    /// Rows of the pool.
    pool: usize,
    rows: Vec<Sketch>,
    domains: Names,
    sources: Names,
}

/// What is kept of such a row.
struct Sketch {
    /// From 0.
    row: usize,
    id: u64,
    domain: Option<usize>,
    source: usize,
    length: Option<i64>,
    correct: bool,
    /// The stage that would drop it.
    stage: Stage,
}

impl Reached {
    fn read(lineage: &Path, after: After) -> Result<Self> {
        let (domains, sources) = (Names::default(), Names::default());
        let mut reached = Reached { pool: 0, rows: Vec::new(), domains, sources };
        for row in table::stream_lineage(lineage)? {
            let row = row?;
            let place = || format!("{}: row {}", lineage.display(), row.row);
            let stage = Stage::of_lineage(&row.stage).with_context(place)?;
            let stage = stage.unwrap_or(Stage::Diversity);
            if stage > after.stage() {
                reached.rows.push(Sketch {
                    row: reached.pool,
                    id: question_id(&row.question),
                    domain: row.domain.map(|domain| reached.domains.number(domain)),
                    source: reached.sources.number(row.source_type),
                    length: row.gemini_length,
                    correct: row.isgeminicorrect == Some(true),
                    stage,
                });
            }
            reached.pool += 1;
        }
        Ok(reached)
    }

    fn candidate(&self, index: usize) -> Candidate<'_> {
        let Sketch { id, domain, source, length, correct, .. } = self.rows[index];
        let domain = domain.map(|domain| self.domains.names[domain].as_str());
        Candidate { id, domain, source_type: &self.sources.names[source], length, correct }
    }
}

/// Few different texts, each held once.
#[derive(Default)]
struct Names {
    names: Vec<String>,
    numbers: HashMap<String, usize>,
}

impl Names {
    fn number(&mut self, name: String) -> usize {
        let next = self.names.len();
        *self.numbers.entry(name).or_insert_with_key(|name| {
            self.names.push(name.clone());
            next
        })
    }
}

/// An order whose rows are drawn.
pub struct Set {
    /// What people read first.
    pub summary: String,
    order: Order,
    /// Indices into the rows reached.
    candidates: Vec<usize>,
    picks: Picks,
    places: Vec<Option<Place>>,
}

/// Where a candidate stands in its domain.
#[derive(Debug, Clone, Copy)]
struct Place {
    rank: usize,
    /// Candidates of the domain, and picked ones.
    of: (usize, usize),
    /// The next longer candidate that was picked.
    above: Option<u64>,
}

impl Set {
    fn draw(order: Order, reached: &Reached) -> Result<Self> {
        let last = order.selection.after.stage();
        let is_candidate = |&index: &usize| reached.rows[index].stage > last;
        let indices: Vec<usize> = (0..reached.rows.len()).filter(is_candidate).collect();
        let candidates: Vec<Candidate> = indices.iter().map(|&i| reached.candidate(i)).collect();
        let mut rng = seed::rng(order.seed, &["selection"]);
        let picks = select(&candidates, &order.selection, &mut rng)?;
        let mut places = vec![None; candidates.len()];
        for pool in pools(&candidates).into_values() {
            let picked = pool.iter().filter(|&&row| picks.picked[row].is_some()).count();
            let mut above = None;
            for (rank, &row) in pool.iter().enumerate() {
                places[row] = Some(Place { rank, of: (pool.len(), picked), above });
                if picks.picked[row].is_some() {
                    above = Some(candidates[row].id);
                }
            }
        }
        Ok(Set { summary: String::new(), order, candidates: indices, picks, places })
    }

    /// The selected ones of the rows reached, as indices, ascending.
    fn selected(&self) -> impl Iterator<Item = usize> {
        let candidates = self.candidates.iter().zip(&self.picks.picked);
        candidates.filter_map(|(&index, picked)| picked.map(|_| index))
    }

    /// Writes this set's lineage: the given one with the selection's verdicts.
    fn write_lineage(&self, base: &Path, reached: &Reached) -> Result<u64> {
        let path = self.order.folder.path().join("lineage.parquet");
        let mut writer = Summed::new(table::create_lineage(&path)?);
        let mut candidates = self.candidates.iter().enumerate().peekable();
        for (number, row) in table::stream_lineage(base)?.enumerate() {
            let mut row = Lineage { rank: None, phase: None, draw: None, ..row? };
            let is_next = |(_, index): &(usize, &usize)| reached.rows[**index].row == number;
            if let Some((candidate, _)) = candidates.next_if(is_next) {
                self.verdict(candidate, &mut row);
            }
            writer.push(row)?;
        }
        writer.finish()
    }

    fn verdict(&self, candidate: usize, row: &mut Lineage) {
        row.rank = self.places[candidate].map(|place| place.rank as i64);
        if let Some((phase, draw)) = self.picks.picked[candidate] {
            row.stage = SELECTED.to_string();
            row.reason = phase.reason().to_string();
            row.evidence = None;
            row.phase = Some(phase.name().to_string());
            row.draw = Some(draw as i64);
            return;
        }
        row.stage = Stage::Diversity.name().to_string();
        row.reason = "not drawn".to_string();
        row.evidence = self.places[candidate].map(|Place { rank, of: (all, picked), above }| {
            let above = match above {
                Some(id) => format!("the next longer one of them is {id:016x}"),
                None => "none of them longer".to_string(),
            };
            format!("rank {rank} of {all} in its domain, of which {picked} were picked, {above}")
        });
    }

    /// Reads lineage and selected rows back, checks them against the sums of what was written,
    /// and writes what people read.
    fn report(&mut self, source: &Source, reached: &Reached, written: [u64; 2]) -> Result<()> {
        let folder = &self.order.folder;
        let (mut lineage_sum, mut selected_sum) = (Sum::default(), Sum::default());
        let lineage = table::stream_lineage(&folder.path().join("lineage.parquet"))?;
        let selected = table::stream_rows(&folder.path().join("selected.parquet"))?;
        let funnel = adds_up(
            reached.pool,
            lineage.inspect(|row| row.iter().for_each(|row| lineage_sum.add(row))),
            selected.inspect(|row| row.iter().for_each(|row| selected_sum.add(row))),
        )?;
        ensure!(
            [lineage_sum.finish(), selected_sum.finish()] == written,
            "the tables of {} read back different from what was written; nothing was published",
            folder.destination().display()
        );
        let candidates: Vec<Candidate> =
            self.candidates.iter().map(|&index| reached.candidate(index)).collect();
        let notes = [self.picks.notes.clone(), source.notes.clone()].concat();
        let after = self.order.selection.after.stage();
        let report = Report::new(&funnel, after, &candidates, &self.picks, notes);
        self.summary = report.summary();
        folder.write("funnel.json", &(serde_json::to_string_pretty(&report)? + "\n"))?;
        folder.write("summary.txt", &self.summary)?;
        let outcome = Outcome::read(folder.path())?;
        folder.write("report.html", &report_page::html(&outcome, &self.order.config)?)?;
        folder.write("README.md", &card::card(&outcome, &self.order.config)?)
    }

    /// Publishes the folder with its manifest.
    pub fn publish(self, source: &Source) -> Result<()> {
        let shown = self.order.folder.destination().display().to_string();
        self.order.folder.finish(Manifest {
            tool: "curate".to_string(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            command: command(),
            config: self.order.config,
            inputs: source.inputs.clone(),
            seeds: BTreeMap::from([("selection".to_string(), self.order.seed)]),
            files: BTreeMap::new(),
        })?;
        progress::line(&format!("published {shown}"));
        Ok(())
    }
}

/// Fetches the selected rows of all sets from the pool and writes each set's table; returns the
/// sums of what was written.
fn write_selected(pool: &[(PathBuf, usize)], reached: &Reached, sets: &[Set]) -> Result<Vec<u64>> {
    let create = |set: &Set| {
        let path = set.order.folder.path().join("selected.parquet");
        Ok(Summed::new(table::create_rows(&path, &COLUMNS)?))
    };
    let mut writers: Vec<Summed<Row>> = sets.iter().map(create).collect::<Result<_>>()?;
    let wanted = wanted(reached, sets);
    let bar = progress::bar("selected rows", Some(wanted.len() as u64));
    let mut wanted = wanted.into_iter().peekable();
    let mut first = 0;
    for (file, count) in pool {
        let mut rows = table::stream_rows(file)?;
        // The row that `rows` gives next.
        let mut next = first;
        let end = first + count;
        while wanted.peek().is_some_and(|want| want.row < end) {
            let mut part = Vec::new();
            while part.len() < PART
                && let Some(want) = wanted.next_if(|want| want.row < end)
            {
                let row = rows.nth(want.row - next).transpose()?;
                let row = row.with_context(|| changed(file, want.row + 1 - first))?;
                next = want.row + 1;
                part.push((want, row));
            }
            bar.advance(part.len());
            let part: Vec<(Want, Row)> = part
                .into_par_iter()
                .map(|(want, row)| {
                    let row = rendered(row, want.id, file, want.row + 1 - first)?;
                    Ok((want, row))
                })
                .collect::<Result<_>>()?;
            writers.par_iter_mut().enumerate().try_for_each(|(set, writer)| {
                let of_set = part.iter().filter(|(want, _)| want.sets.contains(&set));
                of_set.into_iter().try_for_each(|(_, row)| writer.push(row.clone()))
            })?;
        }
        first = end;
    }
    writers.into_iter().map(Summed::finish).collect()
}

/// A selected row, from 0, and the sets that want it.
struct Want {
    row: usize,
    id: u64,
    sets: Vec<usize>,
}

/// Every row that some set wants, in the pool's order.
fn wanted(reached: &Reached, sets: &[Set]) -> Vec<Want> {
    let mut of_row: Vec<Vec<usize>> = vec![Vec::new(); reached.rows.len()];
    for (number, set) in sets.iter().enumerate() {
        set.selected().for_each(|index| of_row[index].push(number));
    }
    let rows = reached.rows.iter().zip(of_row).filter(|(_, sets)| !sets.is_empty());
    rows.map(|(row, sets)| Want { row: row.row, id: row.id, sets }).collect()
}

/// The row as the selected table has it: no features, but the training example.
fn rendered(row: Row, id: u64, file: &Path, number: usize) -> Result<Row> {
    ensure!(question_id(&row.question) == id, changed(file, number));
    let place = || format!("{}: row {number}, question {id:016x}", file.display());
    let text = Some(example::text(&row).with_context(place)?);
    Ok(Row {
        text,
        domain: None,
        isgeminicorrect: None,
        isqwen7bcorrect: None,
        isqwen32bcorrect: None,
        gemini_length: None,
        ..row
    })
}

fn changed(file: &Path, row: usize) -> String {
    let file = file.display();
    format!("{file}: row {row} is not the question of the lineage: did the file change meanwhile?")
}

/// A table being written, and a sum over its rows.
struct Summed<R> {
    writer: Writer<R>,
    sum: Sum,
}

impl<R: Hash + Sync> Summed<R> {
    fn new(writer: Writer<R>) -> Self {
        Self { writer, sum: Sum::default() }
    }

    fn push(&mut self, row: R) -> Result<()> {
        self.sum.add(&row);
        self.writer.push(row)
    }

    fn finish(self) -> Result<u64> {
        self.writer.finish()?;
        Ok(self.sum.finish())
    }
}

/// Equal for equal rows in the same order.
#[derive(Default)]
struct Sum(DefaultHasher);

impl Sum {
    fn add(&mut self, row: &impl Hash) {
        row.hash(&mut self.0);
    }

    fn finish(&self) -> u64 {
        self.0.finish()
    }
}
