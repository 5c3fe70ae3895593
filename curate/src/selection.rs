//! Diversity: the three phases that choose the training set, as a pure function of the candidates.
//!
//! Source: simplescaling/s1 `data/filter.ipynb`, and Algorithm 1 of arXiv 2501.19393.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use record::seed::Rng;

use crate::config::{Algorithm, Benchmark, Seeded, Selection};

/// A hard question, as far as its selection depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Unique; breaks ties of `length`, so that the order of the candidates does not matter.
    pub hash: &'a str,
    /// Title of its MSC class.
    pub domain: &'a str,
    /// Data set and subset it comes from.
    pub source_type: &'a str,
    /// Tokens of the teacher's trace.
    pub length: i64,
    /// Whether the teacher's answer is right.
    pub correct: bool,
}

/// What a row was picked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Phase 1: taken at once, by its source.
    Seeded,
    /// Phase 2: its domain was drawn uniformly.
    Uniform,
    /// Phase 3: its domain was drawn in the benchmarks' proportions.
    Benchmark,
}

/// The selected rows.
#[derive(Debug, Clone, Default)]
pub struct Picks {
    /// For each candidate the phase that picked it, or `None`.
    pub phase: Vec<Option<Phase>>,
    /// What a reader of the summary must know, in whole sentences.
    pub notes: Vec<String>,
}

/// Selects `rules.target` of the candidates.
///
/// Phase 1 takes every correctly solved row of the seeded sources. Then, until the target is
/// reached, a domain is drawn and from it one row, of rank r (the longest trace has 0) with weight
/// 2^-r. Up to `uniform_until` each domain is equally likely (phase 2), from there on it is as
/// likely as the benchmarks have it (phase 3). As in the original, rows of phase 1 stay in their
/// domain's pool: drawing one again uses it up and picks nothing.
///
/// Differs from s1: the draws are seeded, domains are sorted, equal lengths are ranked by hash, and
/// phase 3 goes on uniformly where the original has no benchmark domain left to draw from.
///
/// Errors when fewer than the target are there (unless `allow_fewer`), or phase 1 exceeds it.
pub fn select(candidates: &[Candidate], rules: &Selection, rng: &mut Rng) -> Result<Picks> {
    let seeded = |row: &Candidate| is_seeded(row, &rules.seeded).then_some(Phase::Seeded);
    let mut phase: Vec<Option<Phase>> = candidates.iter().map(seeded).collect();
    let mut picked = phase.iter().flatten().count();
    check_target(candidates.len(), picked, rules)?;

    let mut pools = pools(candidates);
    let mut weights = match rules.algorithm {
        Algorithm::ReleasedCode => benchmark_weights(candidates, &rules.benchmark),
        Algorithm::PaperText => BTreeMap::new(),
    };
    while picked < rules.target && !pools.is_empty() {
        let (drawn_for, domain) = if picked < rules.uniform_until || weights.is_empty() {
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
        if phase[row].is_none() {
            phase[row] = Some(drawn_for);
            picked += 1;
        }
    }
    let notes = notes(&phase, rules);
    Ok(Picks { phase, notes })
}

/// Whether `source_type` is the one named or one of its parts.
fn is_from(row: &Candidate, source_type: &str) -> bool {
    row.source_type.starts_with(source_type)
}

fn is_seeded(row: &Candidate, seeded: &[Seeded]) -> bool {
    let long_enough = |rule: &Seeded| rule.longer_than.is_none_or(|tokens| row.length > tokens);
    row.correct && seeded.iter().any(|rule| is_from(row, &rule.source_type) && long_enough(rule))
}

fn check_target(candidates: usize, seeded: usize, rules: &Selection) -> Result<()> {
    let target = rules.target;
    ensure!(
        candidates >= target || rules.allow_fewer,
        "{candidates} rows are left to select {target} from: lower selection.target, set \
         selection.allow_fewer = true, or widen the pool"
    );
    ensure!(
        seeded <= target,
        "phase 1 alone takes {seeded} rows, more than selection.target = {target}: raise the \
         target, or narrow selection.seeded (a higher longer_than, fewer sources)"
    );
    Ok(())
}

/// Each domain's rows, the longest trace first.
fn pools<'a>(candidates: &[Candidate<'a>]) -> BTreeMap<&'a str, Vec<usize>> {
    let mut pools: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (row, candidate) in candidates.iter().enumerate() {
        pools.entry(candidate.domain).or_default().push(row);
    }
    for pool in pools.values_mut() {
        pool.sort_by_key(|&row| (Reverse(candidates[row].length), candidates[row].hash));
    }
    pools
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
            *rows.entry(row.domain).or_default() += 1;
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

fn notes(phase: &[Option<Phase>], rules: &Selection) -> Vec<String> {
    let count = |of: Phase| phase.iter().filter(|phase| **phase == Some(of)).count();
    let picked = phase.iter().flatten().count();
    let mut notes = Vec::new();
    if picked < rules.target {
        notes.push(format!("Only {picked} rows were left for a target of {}.", rules.target));
    }
    let phase_3 = picked.saturating_sub(rules.uniform_until.max(count(Phase::Seeded)));
    let uniform = phase_3 - count(Phase::Benchmark).min(phase_3);
    if rules.algorithm == Algorithm::ReleasedCode && uniform > 0 {
        notes.push(format!(
            "Phase 3 drew the domain of {uniform} of its {phase_3} picks uniformly: no rows like \
             {} and {} were left to give it a shape.",
            rules.benchmark.aime, rules.benchmark.gpqa
        ));
    }
    notes
}
