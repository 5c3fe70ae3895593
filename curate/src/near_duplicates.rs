//! The stricter comparison: texts that are alike although no passage is the same, found by MinHash.
//!
//! Texts are compared by their words alone: Unicode-normalised (NFKC), lower case, punctuation and
//! markup no longer there. How alike two are is the Jaccard index of their shingles, which are all
//! runs of a few words. MinHash only proposes pairs; every pair that is reported was compared
//! exactly.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Result, ensure};
use rayon::prelude::*;
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;

use crate::decontaminate::{Benchmark, HeldOut, Question};
use crate::funnel::Reason;

/// `[decontaminate.stricter]`: beyond s1, when two questions are taken for one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Words in a row that two questions must not share, punctuation aside.
    pub ngram: usize,
    /// Words of a shingle.
    pub shingle: usize,
    /// The least Jaccard index of a near-duplicate, above 0 and at most 1.
    pub threshold: f64,
    /// Whether a pair counts although its numbers differ: mostly two problems by one pattern.
    pub numbers_may_differ: bool,
    /// Whether questions kept of the pool are held out for the ones after them.
    pub within_pool: bool,
}

impl Settings {
    /// What the types cannot say; errors name the key and the cure.
    pub fn check(&self) -> Result<()> {
        let section = "decontaminate.stricter";
        ensure!(self.ngram > 0, "{section}.ngram must be at least 1");
        ensure!(self.shingle > 0, "{section}.shingle must be at least 1");
        ensure!(
            self.threshold > 0.0 && self.threshold <= 1.0,
            "{section}.threshold = {} must be above 0 and at most 1",
            self.threshold
        );
        Ok(())
    }
}

/// What is held out, to be compared with more strictly than s1 does.
#[derive(Debug, Clone)]
pub struct Stricter {
    settings: Settings,
    passages: HeldOut,
    texts: Vec<Text>,
    /// Texts by the keys of their bands, as indices into `texts`.
    bands: HashMap<u64, Vec<u32>>,
    benchmarks: Vec<String>,
    /// Pairs that were let go because their numbers differ.
    overlooked: usize,
}

/// One held-out text.
#[derive(Debug, Clone)]
struct Text {
    shingles: Vec<u64>,
    numbers: Vec<String>,
    /// An index into `benchmarks`; `None` is the pool.
    benchmark: Option<usize>,
    row: usize,
}

/// The text that another one is alike to.
struct Near<'a> {
    text: &'a Text,
    similarity: f64,
    numbers_differ: bool,
}

impl Stricter {
    /// Holds out the benchmarks' questions.
    pub fn index(benchmarks: &[Benchmark], settings: &Settings) -> Self {
        let plain = |of: &Benchmark| Benchmark {
            name: format!("{}, punctuation aside", of.name),
            questions: of.questions.iter().map(|question| words(question)).collect(),
        };
        let passages: Vec<Benchmark> = benchmarks.iter().map(plain).collect();
        let mut stricter = Self {
            settings: settings.clone(),
            passages: HeldOut::index(&passages, settings.ngram, false),
            texts: Vec::new(),
            bands: HashMap::new(),
            benchmarks: benchmarks.iter().map(|of| of.name.clone()).collect(),
            overlooked: 0,
        };
        for (benchmark, of) in benchmarks.iter().enumerate() {
            for (row, question) in of.questions.iter().enumerate() {
                let keys = stricter.keys(question);
                stricter.add(question, keys, Some(benchmark), row);
            }
        }
        stricter
    }

    /// One verdict a question. `questions` may be a part of the pool; the parts are given in the
    /// pool's order.
    ///
    /// A question first meets the passages, then the near-duplicates; of these it is told the one
    /// with the same numbers before any other, then the more similar, then the earlier. A pair
    /// just at the threshold is overlooked with a probability of about 1%.
    pub fn judge(&mut self, questions: &[Question]) -> Vec<Option<Reason>> {
        let texts: Vec<String> = questions.par_iter().map(|of| words(of.text)).collect();
        let plain: Vec<Question> =
            std::iter::zip(questions, &texts).map(|(of, text)| Question { text, ..*of }).collect();
        let mut verdicts = self.passages.judge(&plain);
        let keys: Vec<Vec<u64>> = texts.par_iter().map(|text| self.keys(text)).collect();
        for ((verdict, question), keys) in verdicts.iter_mut().zip(&plain).zip(keys) {
            if verdict.is_some() {
                continue;
            }
            let near = self.nearest(question.text, &keys);
            let may_differ = self.settings.numbers_may_differ;
            let counts = near.as_ref().is_some_and(|near| may_differ || !near.numbers_differ);
            let is_overlooked = near.is_some() && !counts;
            *verdict = near.filter(|_| counts).map(|near| self.reason(&near));
            self.overlooked += usize::from(is_overlooked);
            if verdict.is_none() && self.settings.within_pool {
                self.add(question.text, keys, None, question.row);
            }
        }
        verdicts
    }

    /// What a reader must know, in whole sentences.
    pub fn notes(&self) -> Vec<String> {
        let pairs = match self.overlooked {
            0 => return Vec::new(),
            1 => "1 question stays though it is".to_string(),
            many => format!("{many} questions stay though they are"),
        };
        vec![format!(
            "{pairs} a near-duplicate, because the numbers differ \
             (decontaminate.stricter.numbers_may_differ)."
        )]
    }

    fn add(&mut self, text: &str, keys: Vec<u64>, benchmark: Option<usize>, row: usize) {
        let index = self.texts.len() as u32;
        let shingles = shingles(text, self.settings.shingle);
        self.texts.push(Text { shingles, numbers: numbers(text), benchmark, row });
        for key in keys {
            self.bands.entry(key).or_default().push(index);
        }
    }

    /// One key for each band of the text's sketch.
    fn keys(&self, text: &str) -> Vec<u64> {
        let Some(sketch) = sketch(text, self.settings.shingle) else { return Vec::new() };
        let bands = sketch.chunks(rows_of_a_band(self.settings.threshold)).enumerate();
        let key = |(band, values): (usize, &[u32])| {
            values
                .iter()
                .fold(band as u64, |key, &value| mix(key.rotate_left(32) ^ u64::from(value)))
        };
        bands.map(key).collect()
    }

    fn nearest(&self, text: &str, keys: &[u64]) -> Option<Near<'_>> {
        let candidates: BTreeSet<u32> =
            keys.iter().filter_map(|key| self.bands.get(key)).flatten().copied().collect();
        if candidates.is_empty() {
            return None;
        }
        let (shingles, numbers) = (shingles(text, self.settings.shingle), numbers(text));
        let near = candidates.into_iter().map(|index| {
            let text = &self.texts[index as usize];
            let similarity = jaccard(&shingles, &text.shingles);
            Near { text, similarity, numbers_differ: text.numbers != numbers }
        });
        let near = near.filter(|near| near.similarity >= self.settings.threshold);
        // Of equal ones the first is told.
        near.min_by(|one, other| {
            let similarity = other.similarity.total_cmp(&one.similarity);
            one.numbers_differ.cmp(&other.numbers_differ).then(similarity)
        })
    }

    fn reason(&self, near: &Near) -> Reason {
        let (of, place) = match near.text.benchmark {
            Some(benchmark) => (self.benchmarks[benchmark].as_str(), "its row"),
            None => ("an earlier question", "pool row"),
        };
        let numbers = if near.numbers_differ { ", numbers differ" } else { "" };
        let (similarity, row) = (near.similarity, near.text.row + 1);
        Reason::new(
            format!("near-duplicate of {of}{numbers}"),
            format!(
                "{similarity:.3} of the {}-word shingles of both are shared with {place} {row}",
                self.settings.shingle
            ),
        )
    }
}

/// The Jaccard index of the shingles of two texts, exactly.
pub fn similarity(one: &str, other: &str, shingle: usize) -> f64 {
    jaccard(&shingles(one, shingle), &shingles(other, shingle))
}

/// Values of a sketch.
pub const BINS: usize = 128;

/// The MinHash of a text: two texts agree in a value about as often as their Jaccard index says.
/// `None` for a text without words.
///
/// Every shingle falls into one bin, and the smallest of a bin is its value; an empty bin takes
/// that of another, chosen by a fixed walk (one permutation with optimal densification,
/// Shrivastava 2017). So the cost does not grow with the number of bins.
pub fn sketch(text: &str, shingle: usize) -> Option<[u32; BINS]> {
    let mut sketch = [u32::MAX; BINS];
    for hash in hashes(&words(text), shingle) {
        let value = &mut sketch[(hash >> 57) as usize];
        // Below the value of an empty bin.
        *value = (*value).min(hash as u32 >> 1);
    }
    let sparse = sketch;
    if sparse.iter().all(|&value| value == u32::MAX) {
        return None;
    }
    for (bin, value) in sketch.iter_mut().enumerate() {
        let mut step = bin as u64;
        while *value == u32::MAX {
            step = mix(step.wrapping_add(0x9e37_79b9_7f4a_7c15));
            *value = sparse[(step >> 57) as usize];
        }
    }
    Some(sketch)
}

/// Values that must agree for a pair to be proposed: as many as overlook at most 1% of the pairs
/// at the threshold, in any of the bands of so many values.
fn rows_of_a_band(threshold: f64) -> usize {
    let overlooked = |rows: i32| (1.0 - threshold.powi(rows)).powi(BINS as i32 / rows);
    [8, 4, 2].into_iter().find(|&rows| overlooked(rows) <= 0.01).unwrap_or(1) as usize
}

/// The words of a text one blank apart: NFKC, lower case, letters and digits only.
pub fn words(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    let mut push = |c: char| {
        if c.is_alphanumeric() {
            words.push(c);
        } else if !words.is_empty() && !words.ends_with(' ') {
            words.push(' ');
        }
    };
    if text.is_ascii() {
        text.bytes().for_each(|byte| push(byte.to_ascii_lowercase() as char));
    } else {
        text.nfkc().flat_map(char::to_lowercase).for_each(push);
    }
    words.truncate(words.trim_end().len());
    words
}

/// The hashes of the shingles, in order: of runs of so many words, or of all words if there are
/// fewer.
fn hashes(words: &str, shingle: usize) -> Vec<u64> {
    let words: Vec<u64> = words.split(' ').filter(|word| !word.is_empty()).map(hash).collect();
    let of_run = |run: &[u64]| run.iter().fold(0, |all, &word| mix(all ^ word));
    match words.len() {
        0 => Vec::new(),
        count => words.windows(shingle.min(count)).map(of_run).collect(),
    }
}

fn hash(word: &str) -> u64 {
    word.as_bytes().chunks(8).fold(word.len() as u64, |hash, bytes| {
        let mut eight = [0; 8];
        eight[..bytes.len()].copy_from_slice(bytes);
        mix(hash ^ u64::from_le_bytes(eight))
    })
}

/// Every bit of the result depends on every bit of the number (the finaliser of MurmurHash3).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 33).wrapping_add(1).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ bits >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ bits >> 33
}

/// The set of shingles, sorted.
fn shingles(text: &str, shingle: usize) -> Vec<u64> {
    let mut hashes = hashes(&words(text), shingle);
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

/// Of two sets, sorted; two empty ones are not alike.
fn jaccard(one: &[u64], other: &[u64]) -> f64 {
    let (mut i, mut j, mut both) = (0, 0, 0);
    while i < one.len() && j < other.len() {
        both += usize::from(one[i] == other[j]);
        let (a, b) = (one[i], other[j]);
        i += usize::from(a <= b);
        j += usize::from(b <= a);
    }
    both as f64 / (one.len() + other.len() - both).max(1) as f64
}

/// All numbers of a text, sorted.
fn numbers(text: &str) -> Vec<String> {
    let words = words(text);
    let runs = words.split(|c: char| !c.is_numeric()).filter(|run| !run.is_empty());
    let mut numbers: Vec<String> = runs.map(str::to_string).collect();
    numbers.sort_unstable();
    numbers
}
