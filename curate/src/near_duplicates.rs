//! The stricter comparison: texts that are alike although no passage is the same, found by MinHash.
//!
//! Texts are compared by their words alone: Unicode-normalised (NFKC), lower case, punctuation and
//! markup no longer there. How alike two are is the Jaccard index of their shingles, which are all
//! runs of a few words. MinHash only proposes pairs; every pair that is reported was compared
//! exactly.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;

/// `[decontaminate.near_duplicates]`: when two questions are taken for one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Words of a shingle.
    pub shingle: usize,
    /// The least Jaccard index of a near-duplicate, above 0 and at most 1.
    pub threshold: f64,
    /// Whether questions of a pool are compared with each other too, and the first of them stays.
    pub within_pool: bool,
    /// Whether a pair counts although its numbers differ: mostly two problems by one pattern.
    pub numbers_may_differ: bool,
}

/// The text that another one is alike to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Near {
    /// Its index.
    pub other: usize,
    /// The Jaccard index of both.
    pub similarity: f64,
    /// Have they different numbers in them?
    pub numbers_differ: bool,
}

/// For each text from the one at `first` on, the most similar of the texts before `first` (and,
/// `within_pool`, of all before itself) that reaches the threshold; one with the same numbers
/// comes before any other, then the more similar, then the earlier.
///
/// A pair just at the threshold is overlooked with a probability of 1% at most.
pub fn near_duplicates(texts: &[&str], first: usize, settings: &Settings) -> Vec<Option<Near>> {
    let rows = rows_of_a_band(settings.threshold);
    let bands = BINS / rows;
    let mut keys = vec![0; texts.len() * bands];
    let of_text = keys.par_chunks_mut(bands).zip(texts).enumerate();
    of_text.for_each(|(index, (keys, text))| match sketch(text, settings.shingle) {
        Some(sketch) => keys.iter_mut().zip(sketch.chunks(rows)).for_each(|(key, values)| {
            *key = values.iter().fold(0, |key, &value| mix(key ^ u64::from(value)));
        }),
        // A key of its own: a text without words is alike to none.
        None => keys.fill(mix(!(index as u64))),
    });
    let mut candidates: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (later, earlier) in pairs(&keys, bands, first, settings.within_pool) {
        candidates.entry(later).or_default().push(earlier);
    }
    let best = |(later, earlier): (usize, Vec<usize>)| {
        let own = (shingles(texts[later], settings.shingle), numbers(texts[later]));
        let near = earlier.into_iter().filter_map(|other| {
            let similarity = jaccard(&own.0, &shingles(texts[other], settings.shingle));
            (similarity >= settings.threshold).then(|| {
                let numbers_differ = own.1 != numbers(texts[other]);
                Near { other, similarity, numbers_differ }
            })
        });
        let order = |near: &Near| {
            // Similarities are positive, so their bits have the order that they have.
            (near.numbers_differ, Reverse(near.similarity.to_bits()), near.other)
        };
        (later - first, near.min_by_key(order))
    };
    let mut found = vec![None; texts.len() - first];
    for (index, near) in candidates.into_par_iter().map(best).collect::<Vec<_>>() {
        found[index] = near;
    }
    found
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

/// The pairs of texts `(later, earlier)` that have the same key in some band, each once.
fn pairs(keys: &[u64], bands: usize, first: usize, within_pool: bool) -> Vec<(usize, usize)> {
    let of_text = |text: usize| &keys[text * bands..(text + 1) * bands];
    let mut texts: Vec<usize> = (0..keys.len() / bands).collect();
    let mut all = Vec::new();
    for band in 0..bands {
        texts.par_sort_unstable_by_key(|&text| (of_text(text)[band], text));
        let of_group = |group: &[usize]| {
            let mut pairs = Vec::new();
            for (i, &later) in group.iter().enumerate().filter(|(_, text)| **text >= first) {
                let earlier = group[..i].iter().filter(|&&text| within_pool || text < first);
                // Only in the first band in which they agree.
                let is_new = |&&text: &&usize| {
                    let both = of_text(text).iter().zip(of_text(later));
                    both.take(band).all(|(one, other)| one != other)
                };
                pairs.extend(earlier.filter(is_new).map(|&earlier| (later, earlier)));
            }
            pairs
        };
        let groups: Vec<&[usize]> = texts
            .chunk_by(|&a, &b| of_text(a)[band] == of_text(b)[band])
            .filter(|group| group.len() > 1)
            .collect();
        all.par_extend(groups.into_par_iter().flat_map_iter(of_group));
    }
    all
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
