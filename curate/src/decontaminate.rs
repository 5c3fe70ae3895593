//! Questions that share a passage of n words with a held-out question leave the pool.
//!
//! The small side (the benchmarks) is indexed, the large one streamed past it on all cores. An
//! n-gram is a slice of the normalised text: words stand one blank apart there, so equal slices
//! are equal n-grams, exactly, and nothing is copied.

use std::collections::HashMap;
use std::iter::once;

use rayon::prelude::*;
use record::example::is_python_space;

use crate::funnel::Reason;

/// A held-out set: no question sharing an n-gram with it may train a model.
#[derive(Debug, Clone)]
pub struct Benchmark {
    /// What the reasons call it.
    pub name: String,
    /// Their texts, as they are.
    pub questions: Vec<String>,
}

/// One question of the pool, as far as this stage needs it.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Its row in the pool, from 0.
    pub row: usize,
    /// The question as it is.
    pub text: &'a str,
    /// Data set and subset it comes from.
    pub source_type: &'a str,
}

/// One verdict a question, naming the benchmark, the row in it and the first shared n-gram.
///
/// With `earlier_sources`, what was kept of one source is held out for the sources after it, in
/// the order in which sources first appear. Two questions of one source never compete. A text
/// of fewer than `ngram` words has no n-gram and always stays.
///
/// Source: simplescaling/s1 `data/decontaminate_util.py` and `data/collect_data.py`.
pub fn decontaminate(
    questions: &[Question],
    benchmarks: &[Benchmark],
    ngram: usize,
    earlier_sources: bool,
) -> Vec<Option<Reason>> {
    let texts: Vec<String> = questions.par_iter().map(|of| normalise(of.text)).collect();
    let held_out = |of: &Benchmark| of.questions.par_iter().map(|text| normalise(text)).collect();
    let held_out: Vec<Vec<String>> = benchmarks.iter().map(held_out).collect();
    let origins = HashMap::new();
    let mut index = Index { ngram, origins };
    for (benchmark, texts) in benchmarks.iter().zip(&held_out) {
        for (row, text) in texts.iter().enumerate() {
            index.add(text, Side::Benchmark(&benchmark.name), row);
        }
    }
    let mut verdicts = vec![None; questions.len()];
    for group in groups(questions, earlier_sources) {
        let found: Vec<_> = group.par_iter().map(|&i| index.find(&texts[i])).collect();
        for (i, found) in group.into_iter().zip(found) {
            if earlier_sources && found.is_none() {
                let side = Side::EarlierSource(source(questions[i].source_type));
                index.add(&texts[i], side, questions[i].row);
            }
            verdicts[i] = found;
        }
    }
    verdicts
}

/// Lower case, trimmed, and every run of white space one blank; punctuation stays.
///
/// Equal to Python's `" ".join(text.lower().strip().split())`.
pub fn normalise(text: &str) -> String {
    let mut normalised = String::with_capacity(text.len());
    for word in text.to_lowercase().split(is_python_space).filter(|word| !word.is_empty()) {
        if !normalised.is_empty() {
            normalised.push(' ');
        }
        normalised.push_str(word);
    }
    normalised
}

/// The n-grams of a normalised text, in order, each a slice of it.
pub fn ngrams(normalised: &str, n: usize) -> impl Iterator<Item = &str> {
    let blanks = normalised.match_indices(' ').map(|(at, _)| at);
    let starts = once(0).chain(blanks.clone().map(|at| at + 1));
    let ends = blanks.chain(once(normalised.len()));
    // An empty text would count as one empty word.
    starts
        .zip(ends.skip(n - 1))
        .map(|(start, end)| &normalised[start..end])
        .filter(|gram| !gram.is_empty())
}

/// Who holds an n-gram out, by name.
#[derive(Debug, Clone, Copy)]
enum Side<'a> {
    Benchmark(&'a str),
    EarlierSource(&'a str),
}

/// Every held-out n-gram, with the side and the row (from 0) that have it first.
struct Index<'a> {
    ngram: usize,
    origins: HashMap<&'a str, (Side<'a>, usize)>,
}

impl<'a> Index<'a> {
    fn add(&mut self, normalised: &'a str, side: Side<'a>, row: usize) {
        for gram in ngrams(normalised, self.ngram) {
            self.origins.entry(gram).or_insert((side, row));
        }
    }

    fn find(&self, normalised: &str) -> Option<Reason> {
        let held_out = |gram| self.origins.get(gram).map(|&(side, row)| (gram, side, row + 1));
        let (gram, side, row) = ngrams(normalised, self.ngram).find_map(held_out)?;
        let (cause, place) = match side {
            Side::Benchmark(name) => (name.to_string(), "its row"),
            Side::EarlierSource(name) => (format!("earlier source {name}"), "pool row"),
        };
        Some(Reason::new(cause, format!("shares \"{gram}\" with {place} {row}")))
    }
}

/// Indices into `questions` by source in order of first appearance, or all in one group.
fn groups(questions: &[Question], earlier_sources: bool) -> Vec<Vec<usize>> {
    if !earlier_sources {
        return vec![(0..questions.len()).collect()];
    }
    let mut group_of = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (i, question) in questions.iter().enumerate() {
        let group = *group_of.entry(source(question.source_type)).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(i);
    }
    groups
}

/// The data set in a `source_type`: its first two parts, as in `owner/dataset/subject`.
///
/// Differs from s1: LiveCodeBench's releases are one source there, named by owner and release.
pub(crate) fn source(source_type: &str) -> &str {
    let end = source_type.match_indices('/').nth(1).map_or(source_type.len(), |(at, _)| at);
    &source_type[..end]
}
