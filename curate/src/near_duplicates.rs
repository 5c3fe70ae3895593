//! The stricter comparison: texts that are alike although no passage is the same, found by MinHash.
//!
//! Texts are compared by their words alone: Unicode-normalised (NFKC), lower case, punctuation and
//! markup no longer there. How alike two are is the Jaccard index of their shingles, which are all
//! runs of a few words. MinHash only proposes pairs; every pair that is reported was compared
//! exactly.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use anyhow::{Result, ensure};
use rayon::prelude::*;
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;

use crate::decontaminate::{Benchmark, HeldOut, Mixed, Question};
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
    bands: Bands,
    passages: HeldOut,
    texts: Vec<Text>,
    index: Index,
    benchmarks: Vec<String>,
    /// Pairs that were let go because their numbers differ.
    overlooked: usize,
    /// Questions that are near-duplicates of others in the pool.
    within: usize,
}

/// One held-out text.
#[derive(Debug, Clone)]
struct Text {
    /// Its [`words`]; pairs are so few that shingles are made when one comes up.
    words: String,
    /// An index into `benchmarks`; `None` is the pool.
    benchmark: Option<u32>,
    row: u32,
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
            bands: Bands::of(settings.threshold),
            passages: HeldOut::index(&passages, settings.ngram, false),
            texts: Vec::new(),
            index: Index::default(),
            benchmarks: benchmarks.iter().map(|of| of.name.clone()).collect(),
            overlooked: 0,
            within: 0,
        };
        for (benchmark, of) in (0..).zip(passages) {
            for (row, words) in of.questions.into_iter().enumerate() {
                let keys = stricter.keys(&words);
                stricter.add(words, &keys, Some(benchmark), row);
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
        for (i, (words, keys)) in std::iter::zip(texts, keys).enumerate() {
            if verdicts[i].is_some() {
                continue;
            }
            let near = self.nearest(&words, &keys);
            let may_differ = self.settings.numbers_may_differ;
            let counts = near.as_ref().is_some_and(|near| may_differ || !near.numbers_differ);
            let is_overlooked = near.is_some() && !counts;
            let near = near.filter(|_| counts);
            let is_within = near.as_ref().is_some_and(|near| near.text.benchmark.is_none());
            verdicts[i] = near.map(|near| self.reason(&near));
            self.within += usize::from(is_within);
            self.overlooked += usize::from(is_overlooked);
            if verdicts[i].is_none() && self.settings.within_pool {
                self.add(words, &keys, None, questions[i].row);
            }
        }
        verdicts
    }

    /// What a reader must know, in whole sentences.
    pub fn notes(&self) -> Vec<String> {
        let stays = match self.overlooked {
            1 => "1 question stays though it is".to_string(),
            many => format!("{many} questions stay though they are"),
        };
        let left = match self.within {
            1 => "1 question leaves as a near-duplicate".to_string(),
            many => format!("{many} questions leave as near-duplicates"),
        };
        let stays = format!(
            "{stays} a near-duplicate, because the numbers differ \
             (decontaminate.stricter.numbers_may_differ)."
        );
        let left = format!(
            "{left} of another in the pool; different questions about one long passage count as \
             such (decontaminate.stricter.within_pool)."
        );
        let notes = [(self.overlooked, stays), (self.within, left)];
        notes.into_iter().filter(|(questions, _)| *questions > 0).map(|(_, note)| note).collect()
    }

    /// The keys of a text's bands; none of a text without words.
    fn keys(&self, words: &str) -> Vec<u64> {
        let shingles: Vec<u64> = hashes(words, self.settings.shingle).collect();
        let sketch = sketch_of(&shingles);
        sketch.map_or(Vec::new(), |sketch| self.bands.keys(&sketch))
    }

    fn add(&mut self, words: String, keys: &[u64], benchmark: Option<u32>, row: usize) {
        self.index.add(self.texts.len() as u32, keys);
        self.texts.push(Text { words, benchmark, row: row as u32 });
    }

    fn nearest(&self, words: &str, keys: &[u64]) -> Option<Near<'_>> {
        let candidates = self.index.find(keys);
        if candidates.is_empty() {
            return None;
        }
        let (own, own_numbers) = (shingles(words, self.settings.shingle), numbers(words));
        let near = candidates.into_iter().map(|of| {
            let text = &self.texts[of as usize];
            let similarity = jaccard(&own, &shingles(&text.words, self.settings.shingle));
            Near { text, similarity, numbers_differ: numbers(&text.words) != own_numbers }
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
            Some(benchmark) => (self.benchmarks[benchmark as usize].as_str(), "its row"),
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

/// Texts by the keys of their bands.
#[derive(Debug, Clone, Default)]
struct Index {
    /// The last entry of a key.
    last: HashMap<u64, u32, BuildHasherDefault<Mixed>>,
    /// A text, and the entry of the same key before this one.
    entries: Vec<(u32, Option<u32>)>,
}

impl Index {
    fn add(&mut self, text: u32, keys: &[u64]) {
        for &key in keys {
            let before = self.last.insert(key, self.entries.len() as u32);
            self.entries.push((text, before));
        }
    }

    /// The texts that share a key with these, ascending.
    fn find(&self, keys: &[u64]) -> Vec<u32> {
        let mut found = Vec::new();
        for key in keys {
            let mut next = self.last.get(key).copied();
            while let Some(entry) = next {
                let (text, before) = self.entries[entry as usize];
                found.push(text);
                next = before;
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The Jaccard index of the shingles of two texts, exactly.
pub fn similarity(one: &str, other: &str, shingle: usize) -> f64 {
    jaccard(&shingles(&words(one), shingle), &shingles(&words(other), shingle))
}

/// Values of a sketch.
pub const BINS: usize = 128;
/// The walk that an empty bin takes to another.
const START_AND_STRIDE: [(usize, usize); BINS] = {
    let (mut walks, mut bin) = ([(0, 0); BINS], 0);
    while bin < BINS {
        let bits = mix(bin as u64);
        walks[bin] = ((bits >> 57) as usize, (bits >> 20) as usize | 1);
        bin += 1;
    }
    walks
};

/// The MinHash of a text: two texts agree in a value about as often as their Jaccard index says.
/// `None` for a text without words.
///
/// Every shingle falls into one bin, and the smallest of a bin is its value; an empty bin takes
/// that of another, to which a walk of its own leads (one permutation with optimal densification,
/// Shrivastava 2017). So the cost does not grow with the number of bins.
pub fn sketch(text: &str, shingle: usize) -> Option<[u32; BINS]> {
    sketch_of(&hashes(&words(text), shingle).collect::<Vec<u64>>())
}

/// The same of the hashes of the shingles.
fn sketch_of(hashes: &[u64]) -> Option<[u32; BINS]> {
    if hashes.is_empty() {
        return None;
    }
    let mut sketch = [u32::MAX; BINS];
    for hash in hashes {
        let value = &mut sketch[(hash >> 57) as usize];
        // Below the value of an empty bin.
        *value = (*value).min(*hash as u32 >> 1);
    }
    let sparse = sketch;
    for (bin, value) in sketch.iter_mut().enumerate() {
        // An odd stride comes to every bin.
        let (mut at, stride) = START_AND_STRIDE[bin];
        while *value == u32::MAX {
            at = at.wrapping_add(stride);
            *value = sparse[at % BINS];
        }
    }
    Some(sketch)
}

/// How sketches are cut: a pair is proposed when all values of one of its bands agree.
#[derive(Debug, Clone, Copy)]
struct Bands {
    count: usize,
    rows: usize,
}

impl Bands {
    /// Of so many rows, and only so many, that at most 1% of the pairs at the threshold are
    /// overlooked.
    fn of(threshold: f64) -> Self {
        for rows in [8, 4, 2, 1] {
            let (mut overlooked, agree) = (1.0, threshold.powi(rows as i32));
            for count in 1..=BINS / rows {
                overlooked *= 1.0 - agree;
                if overlooked <= 0.01 {
                    return Self { count, rows };
                }
            }
        }
        Self { count: BINS, rows: 1 }
    }

    /// One key for each band of a sketch.
    fn keys(&self, sketch: &[u32; BINS]) -> Vec<u64> {
        let key = |(band, values): (usize, &[u32])| {
            let both = |key: u64, &value: &u32| mix(key.rotate_left(32) ^ u64::from(value));
            values.iter().fold(band as u64, both)
        };
        sketch.chunks(self.rows).take(self.count).enumerate().map(key).collect()
    }
}

/// The words of a text one blank apart: NFKC, lower case, letters and digits only.
pub fn words(text: &str) -> String {
    if text.is_ascii() {
        return ascii_words(text);
    }
    let mut words = String::with_capacity(text.len());
    for c in text.nfkc().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            words.push(c);
        } else if !words.is_empty() && !words.ends_with(' ') {
            words.push(' ');
        }
    }
    words.truncate(words.trim_end().len());
    words
}

/// The same for ASCII, without a branch on what a byte is.
fn ascii_words(text: &str) -> String {
    let mut words = vec![0; text.len()];
    let (mut length, mut before) = (0, b' ');
    for byte in text.bytes() {
        let byte = PLAIN[byte as usize];
        words[length] = byte;
        // The next byte overwrites a blank after a blank.
        length += usize::from(byte != b' ' || before != b' ');
        before = byte;
    }
    words.truncate(length - usize::from(length > 0 && before == b' '));
    String::from_utf8(words).expect("ASCII")
}

/// Each byte's letter in lower case, or digit, or else a blank.
const PLAIN: [u8; 256] = {
    let (mut plain, mut byte) = ([b' '; 256], 0);
    while byte < 256 {
        if (byte as u8).is_ascii_alphanumeric() {
            plain[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    plain
};

/// The hashes of the shingles, in order: of runs of so many words, or of all words if there are
/// fewer.
fn hashes(words: &str, shingle: usize) -> impl Iterator<Item = u64> {
    let words: Vec<u64> = match words {
        "" => Vec::new(),
        words => words.as_bytes().split(|&byte| byte == b' ').map(hash).collect(),
    };
    // Of no words there is no run, but a run has a word.
    let length = shingle.min(words.len()).max(1);
    let runs = 0..(words.len() + 1).saturating_sub(length);
    runs.map(move |at| {
        let run = &words[at..at + length];
        mix(run.iter().fold(0, |all: u64, &word| all.rotate_left(21) ^ word))
    })
}

fn hash(word: &[u8]) -> u64 {
    word.chunks(8).fold(word.len() as u64, |hash, bytes| {
        let eight = bytes.iter().rev().fold(0, |eight, &byte| eight << 8 | u64::from(byte));
        mix(hash ^ eight)
    })
}

/// Every bit of the result depends on every bit of the number (the finaliser of MurmurHash3).
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 33).wrapping_add(1).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ bits >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ bits >> 33
}

/// The set of shingles, sorted.
fn shingles(words: &str, shingle: usize) -> Vec<u64> {
    let mut shingles: Vec<u64> = hashes(words, shingle).collect();
    shingles.sort_unstable();
    shingles.dedup();
    shingles
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
fn numbers(words: &str) -> Vec<&str> {
    let runs = words.split(|c: char| !c.is_numeric());
    let mut numbers: Vec<&str> = runs.filter(|run| !run.is_empty()).collect();
    numbers.sort_unstable();
    numbers
}
