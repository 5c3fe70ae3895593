//! Several answers to one question: what most of them say, and how often some of them is right.

use std::collections::BTreeMap;

/// One answer to the question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vote<'a> {
    /// What it says, the same text for all that say the same; `None` does not vote.
    ///
    /// Differs from s1: where nothing is extracted, its harness lets the whole completion vote.
    pub answer: Option<&'a str>,
    /// Whether it is right.
    pub correct: bool,
}

/// What the first `k` answers are worth together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtK {
    /// So many answers.
    pub k: usize,
    /// cov@k: one of them is right.
    pub cov: bool,
    /// maj@k: the most frequent of them is right.
    pub maj: bool,
}

/// cov@k and maj@k over the first 2, 4, 8, … of the `votes`, as many as there are (s1's
/// `tasks/aime/utils.py`, `process_results`: nothing is drawn at random).
pub fn at_powers_of_two(votes: &[Vote]) -> Vec<AtK> {
    let powers = std::iter::successors(Some(2), |k| Some(2 * k)).take_while(|k| *k <= votes.len());
    powers.map(|k| at(&votes[..k])).collect()
}

/// cov@k and maj@k over all `votes`.
pub fn at(votes: &[Vote]) -> AtK {
    let equal: Vec<_> = votes.iter().map(|vote| (vote.answer, 1.0)).collect();
    AtK {
        k: votes.len(),
        cov: votes.iter().any(|vote| vote.correct),
        maj: majority(&equal).is_some_and(|winner| votes[winner].correct),
    }
}

/// The place of the answer with the most weight, where it first stands; of equals the first seen.
/// `None` if nobody votes.
pub fn majority(votes: &[(Option<&str>, f64)]) -> Option<usize> {
    let mut tally: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
    for (place, (answer, weight)) in votes.iter().enumerate() {
        if let Some(answer) = answer {
            tally.entry(answer).or_insert((place, 0.0)).1 += weight;
        }
    }
    let mut candidates: Vec<_> = tally.into_values().collect();
    candidates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    candidates.first().map(|(place, _)| *place)
}

/// pass@k: how likely one of `k` answers is right that are drawn from `n`, of which `correct` are.
/// It is an unbiased estimate of the same for `k` fresh answers. `k` is from 1 to `n`.
///
/// Source: M. Chen et al., Evaluating large language models trained on code, 2021, section 2.1.
pub fn pass_at(k: usize, correct: usize, n: usize) -> f64 {
    assert!((1..=n).contains(&k) && correct <= n, "pass@{k} of {correct} correct in {n}");
    if n - correct < k {
        return 1.0;
    }
    1.0 - (n - correct + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}
