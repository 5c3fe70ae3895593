//! Diversity: the rules that choose the training set, as pure functions of the candidates.
//!
//! Source: simplescaling/s1 `data/filter.ipynb`, and Algorithm 1 of arXiv 2501.19393.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use record::seed::Rng;

use crate::config::{Algorithm, Benchmark, Seeded, Selection};

/// A question that got as far as the selection, as far as that depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its id, unique; breaks ties of `length`, so that the order of candidates does not matter.
    pub id: u64,
    /// Title of its MSC class.
    pub domain: Option<&'a str>,
    /// Data set and subset it comes from.
    pub source_type: &'a str,
    /// Tokens of the teacher's trace.
    pub length: Option<i64>,
    /// Whether the teacher's answer is right.
    pub correct: bool,
}

/// What a row was picked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Phase 1: taken at once, by its source.
    Seeded,
    /// Phase 2, or `diverse`: its domain was drawn uniformly.
    Uniform,
    /// Phase 3: its domain was drawn in the benchmarks' proportions.
    Benchmark,
    /// `random`: drawn from all.
    Random,
    /// `longest`: by its length.
    Longest,
    /// `full`: all are.
    All,
}

impl Phase {
    /// The name in `lineage.parquet` and `funnel.json`.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Seeded => "seeded",
            Phase::Uniform => "uniform",
            Phase::Benchmark => "benchmark",
            Phase::Random => "random",
            Phase::Longest => "longest",
            Phase::All => "all",
        }
    }

    /// Why a row of this phase is selected.
    pub fn reason(self) -> &'static str {
        match self {
            Phase::Seeded => "taken at once, by its source",
            Phase::Uniform => "its domain was drawn uniformly",
            Phase::Benchmark => "its domain was drawn in the benchmarks' proportions",
            Phase::Random => "drawn from all rows",
            Phase::Longest => "among the longest traces",
            Phase::All => "every row is taken",
        }
    }
}

/// The selected rows.
#[derive(Debug, Clone, Default)]
pub struct Picks {
    /// For each candidate the phase that picked it and when, counted from 1; or `None`.
    pub picked: Vec<Option<(Phase, usize)>>,
    /// What a reader of the summary must know, in whole sentences.
    pub notes: Vec<String>,
}

/// Selects `rules.target` of the candidates; which ones does not depend on their order.
///
/// `ReleasedCode` is s1's: phase 1 takes every correctly solved row of the seeded sources. Then,
/// until the target is reached, a domain is drawn and from it one row, of rank r (the longest trace
/// has 0) with weight 2^-r. Up to `uniform_until` each domain is equally likely (phase 2), from
/// there on it is as likely as the benchmarks have it (phase 3). As in the original, rows of phase
/// 1 stay in their domain's pool: drawing one again uses it up and picks nothing. `PaperText` has
/// no phase 3. The others are the paper's ablations (section 5.1); their rows have no phases.
///
/// Differs from s1: the draws are seeded, domains are sorted, equal lengths are ranked by hash, and
/// phase 3 goes on uniformly where the original has no benchmark domain left to draw from.
///
/// Errors when fewer than the target are there (unless `allow_fewer`), phase 1 exceeds it, or a
/// candidate lacks what the algorithm reads.
pub fn select(candidates: &[Candidate], rules: &Selection, rng: &mut Rng) -> Result<Picks> {
    rules.check()?;
    check_features(candidates, rules.algorithm)?;
    let mut picks = Picker { picked: vec![None; candidates.len()], count: 0 };
    // The same order whatever the pool's.
    let mut rows: Vec<usize> = (0..candidates.len()).collect();
    rows.sort_by_key(|&row| candidates[row].id);
    let target = rules.target.unwrap_or(candidates.len());
    check_target(candidates.len(), target, rules)?;
    match rules.algorithm {
        Algorithm::ReleasedCode | Algorithm::PaperText => {
            rows.retain(|&row| is_seeded(&candidates[row], &rules.seeded));
            picks.take(rows, Phase::Seeded);
            check_seeded(picks.count, target)?;
            draw_by_length(candidates, rules, target, &mut picks, rng);
        }
        Algorithm::Diverse => draw_by_domain(candidates, target, &mut picks, rng),
        Algorithm::Random => {
            rng.shuffle(&mut rows);
            rows.truncate(target);
            picks.take(rows, Phase::Random);
        }
        Algorithm::Longest => {
            rows.sort_by_key(|&row| Reverse(candidates[row].length));
            rows.truncate(target);
            picks.take(rows, Phase::Longest);
        }
        Algorithm::Full => picks.take(rows, Phase::All),
    }
    let notes = notes(&picks.picked, target, rules);
    Ok(Picks { picked: picks.picked, notes })
}

/// Each domain's candidates, the longest trace first; those without domain or length are left out.
pub fn pools<'a>(candidates: &[Candidate<'a>]) -> BTreeMap<&'a str, Vec<usize>> {
    let mut pools: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (row, candidate) in candidates.iter().enumerate() {
        if let (Some(domain), Some(_)) = (candidate.domain, candidate.length) {
            pools.entry(domain).or_default().push(row);
        }
    }
    for pool in pools.values_mut() {
        pool.sort_by_key(|&row| (Reverse(candidates[row].length), candidates[row].id));
    }
    pools
}

/// The picks so far.
struct Picker {
    picked: Vec<Option<(Phase, usize)>>,
    count: usize,
}

impl Picker {
    /// Picks a row, unless it is picked already.
    fn pick(&mut self, row: usize, phase: Phase) {
        if self.picked[row].is_none() {
            self.count += 1;
            self.picked[row] = Some((phase, self.count));
        }
    }

    fn take(&mut self, rows: Vec<usize>, phase: Phase) {
        rows.into_iter().for_each(|row| self.pick(row, phase));
    }
}

/// Phases 2 and 3.
fn draw_by_length(
    candidates: &[Candidate],
    rules: &Selection,
    target: usize,
    picks: &mut Picker,
    rng: &mut Rng,
) {
    let mut pools = pools(candidates);
    let mut weights = match &rules.benchmark {
        Some(benchmark) if rules.algorithm == Algorithm::ReleasedCode => {
            benchmark_weights(candidates, benchmark)
        }
        _ => BTreeMap::new(),
    };
    let uniform_until = rules.uniform_until.unwrap_or(target);
    while picks.count < target && !pools.is_empty() {
        let (drawn_for, domain) = if picks.count < uniform_until || weights.is_empty() {
            (Phase::Uniform, draw_uniform(&pools, rng))
        } else {
            (Phase::Benchmark, draw_weighted(&weights, rng))
        };
        let pool = pools.get_mut(domain).expect("a domain that is drawn has rows");
        let row = pool.remove(draw_rank(pool.len(), rng));
        if pool.is_empty() {
            pools.remove(domain);
            weights.remove(domain);
        }
        picks.pick(row, drawn_for);
    }
}

/// A domain uniformly, then one of its rows uniformly, over and over.
fn draw_by_domain(candidates: &[Candidate], target: usize, picks: &mut Picker, rng: &mut Rng) {
    let mut pools = pools(candidates);
    while picks.count < target && !pools.is_empty() {
        let domain = draw_uniform(&pools, rng);
        let pool = pools.get_mut(domain).expect("a domain that is drawn has rows");
        let row = pool.swap_remove(rng.below(pool.len() as u64) as usize);
        if pool.is_empty() {
            pools.remove(domain);
        }
        picks.pick(row, Phase::Uniform);
    }
}

/// Fails when a candidate lacks what the algorithm reads.
fn check_features(candidates: &[Candidate], algorithm: Algorithm) -> Result<()> {
    let needs_domain =
        !matches!(algorithm, Algorithm::Random | Algorithm::Longest | Algorithm::Full);
    let needs_length = !matches!(algorithm, Algorithm::Random | Algorithm::Full);
    for Candidate { id, domain, length, .. } in candidates {
        let missing = match (domain, length) {
            (None, _) if needs_domain => "domain",
            (_, None) if needs_length => "gemini_length",
            _ => continue,
        };
        bail!(
            "question {id:016x} has no {missing}, which this selection.algorithm reads: only rows \
             after \"quality\" all have it (selection.after)"
        );
    }
    Ok(())
}

/// Whether `source_type` is the one named or one of its parts.
fn is_from(row: &Candidate, source_type: &str) -> bool {
    row.source_type.starts_with(source_type)
}

fn is_seeded(row: &Candidate, seeded: &[Seeded]) -> bool {
    let long_enough =
        |rule: &Seeded| rule.longer_than.is_none_or(|tokens| row.length > Some(tokens));
    row.correct && seeded.iter().any(|rule| is_from(row, &rule.source_type) && long_enough(rule))
}

fn check_target(candidates: usize, target: usize, rules: &Selection) -> Result<()> {
    ensure!(
        candidates >= target || rules.allow_fewer,
        "{candidates} rows are left to select {target} from: lower selection.target, set \
         selection.allow_fewer = true, or widen the pool"
    );
    Ok(())
}

fn check_seeded(seeded: usize, target: usize) -> Result<()> {
    ensure!(
        seeded <= target,
        "phase 1 alone takes {seeded} rows, more than selection.target = {target}: raise the \
         target, or narrow selection.seeded (a higher longer_than, fewer sources)"
    );
    Ok(())
}

/// How often phase 3 draws each domain: AIME's rows plus GPQA's, these scaled to their share of
/// AIME's total and cut to whole rows. Rows count whether solved or not.
fn benchmark_weights<'a>(
    candidates: &[Candidate<'a>],
    rules: &Benchmark,
) -> BTreeMap<&'a str, u64> {
    let rows_from = |source_type: &str| {
        let mut rows: BTreeMap<&str, u64> = BTreeMap::new();
        for row in candidates.iter().filter(|row| is_from(row, source_type)) {
            *rows.entry(row.domain.unwrap_or_default()).or_default() += 1;
        }
        rows
    };
    let (mut weights, gpqa) = (rows_from(&rules.aime), rows_from(&rules.gpqa));
    let (aime_rows, gpqa_rows): (u64, u64) = (weights.values().sum(), gpqa.values().sum());
    let scale = rules.gpqa_to_aime * aime_rows as f64 / gpqa_rows as f64;
    for (domain, rows) in gpqa {
        *weights.entry(domain).or_default() += (rows as f64 * scale) as u64;
    }
    weights.retain(|_, weight| *weight > 0);
    weights
}

/// A domain, each equally likely.
fn draw_uniform<'a>(pools: &BTreeMap<&'a str, Vec<usize>>, rng: &mut Rng) -> &'a str {
    let nth = rng.below(pools.len() as u64) as usize;
    pools.keys().nth(nth).expect("below the number of domains")
}

/// A domain, as likely as its weight says.
fn draw_weighted<'a>(weights: &BTreeMap<&'a str, u64>, rng: &mut Rng) -> &'a str {
    let mut left = rng.below(weights.values().sum());
    for (domain, &weight) in weights {
        if left < weight {
            return domain;
        }
        left -= weight;
    }
    unreachable!("the draw is below the sum of the weights")
}

/// A rank in `0..rows`, rank r with weight 2^-r.
///
/// The zeros at the head of random bits are r with probability 2^-(r+1); drawing again when r is
/// not a rank leaves the proportions as they are, and no rounding enters.
fn draw_rank(rows: usize, rng: &mut Rng) -> usize {
    loop {
        let rank = rng.next_u64().leading_zeros() as usize;
        if rank < rows {
            return rank;
        }
    }
}

fn notes(picked: &[Option<(Phase, usize)>], target: usize, rules: &Selection) -> Vec<String> {
    let count = |of: Phase| picked.iter().flatten().filter(|(phase, _)| *phase == of).count();
    let all = picked.iter().flatten().count();
    let mut notes = Vec::new();
    if all < target {
        notes.push(format!("Only {all} rows were left for a target of {target}."));
    }
    let (Algorithm::ReleasedCode, Some(benchmark), Some(uniform_until)) =
        (rules.algorithm, &rules.benchmark, rules.uniform_until)
    else {
        return notes;
    };
    let phase_3 = all.saturating_sub(uniform_until.max(count(Phase::Seeded)));
    let uniform = phase_3 - count(Phase::Benchmark).min(phase_3);
    if uniform > 0 {
        notes.push(format!(
            "Phase 3 drew the domain of {uniform} of its {phase_3} picks uniformly: no rows like \
             {} and {} were left to give it a shape.",
            benchmark.aime, benchmark.gpqa
        ));
    }
    notes
}
