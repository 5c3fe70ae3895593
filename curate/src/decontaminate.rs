//! Questions that share a passage of n words with a held-out question leave the pool.
//!
//! The small side (the benchmarks) is indexed, the large one streamed past it on all cores. An
//! n-gram is a slice of the normalised text: words stand one blank apart there, so equal slices
//! are equal n-grams, exactly. Nearly all n-grams of the large side are held out by nobody, and
//! [`filter`] says so without normalising them.

mod filter;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::iter::once;

use rayon::prelude::*;
use record::example::is_python_space;

use crate::funnel::Reason;
use filter::{Filter, Words, is_plain};

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

/// One verdict a question of a whole pool: [`HeldOut`] over all of it at once.
pub fn decontaminate(
    questions: &[Question],
    benchmarks: &[Benchmark],
    ngram: usize,
    earlier_sources: bool,
) -> Vec<Option<Reason>> {
    HeldOut::index(benchmarks, ngram, earlier_sources).judge(questions)
}

/// A hasher for keys that are hashes.
#[derive(Debug, Clone, Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("its keys are u64")
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Every held-out n-gram, with the row (from 0) that holds it out.
#[derive(Debug, Clone)]
pub struct HeldOut {
    ngram: usize,
    earlier_sources: bool,
    /// The held-out texts, normalised, with the side (an index into `sides`) and row of each.
    texts: Vec<(String, usize, usize)>,
    /// For each n-gram, under its hash or, where another one has that, under the next free
    /// number: of the sides that have it the first, by an index into `texts` and its place there.
    origins: HashMap<u64, (u32, u32, u32), BuildHasherDefault<AsItIs>>,
    filter: Filter,
    /// The benchmarks, then the sources in order of their first rows.
    sides: Vec<Side>,
    /// Indices into `sides` by name of the source.
    sources: HashMap<String, usize>,
}

impl HeldOut {
    /// The n-grams of all benchmarks.
    ///
    /// With `earlier_sources`, what [`HeldOut::judge`] keeps of one source is held out for the
    /// sources after it, in the order in which sources first appear; the index then grows with
    /// the pool. Two questions of one source never compete.
    pub fn index(benchmarks: &[Benchmark], ngram: usize, earlier_sources: bool) -> Self {
        let mut held_out = Self {
            ngram,
            earlier_sources,
            texts: Vec::new(),
            origins: HashMap::default(),
            filter: Filter::new(0),
            sides: benchmarks.iter().map(|of| Side::Benchmark(of.name.clone())).collect(),
            sources: HashMap::new(),
        };
        for (side, benchmark) in benchmarks.iter().enumerate() {
            for (row, text) in benchmark.questions.iter().enumerate() {
                held_out.add(normalise(text), side, row);
            }
        }
        held_out
    }

    /// One verdict a question, naming the benchmark, the row in it and the first shared n-gram. A
    /// text of fewer than `ngram` words has no n-gram and always stays.
    ///
    /// `questions` may be a part of the pool; the parts are given in the pool's order. With
    /// `earlier_sources` a question meets what the parts up to its own kept of earlier sources:
    /// all of it when each source stands together in the pool.
    ///
    /// Source: simplescaling/s1 `data/decontaminate_util.py` and `data/collect_data.py`.
    pub fn judge(&mut self, questions: &[Question]) -> Vec<Option<Reason>> {
        let mut verdicts = vec![None; questions.len()];
        for (side, group) in self.groups(questions) {
            let find = |words: &mut Words, &i: &usize| self.find(questions[i].text, side, words);
            let found: Vec<_> = group.par_iter().map_init(Words::default, find).collect();
            for (i, found) in group.into_iter().zip(found) {
                if self.earlier_sources && found.is_none() {
                    self.add(normalise(questions[i].text), side, questions[i].row);
                }
                verdicts[i] = found;
            }
        }
        verdicts
    }

    /// One verdict a question, none of which holds out anything from another.
    pub fn judge_alone(&self, questions: &[Question]) -> Vec<Option<Reason>> {
        let find = |words: &mut Words, of: &Question| self.find(of.text, self.sides.len(), words);
        questions.par_iter().map_init(Words::default, find).collect()
    }

    /// Holds out questions, each with its row (from 0), of a source of that name from everything
    /// judged later.
    pub fn hold_out<'a>(
        &mut self,
        source: &str,
        questions: impl IntoIterator<Item = (usize, &'a str)>,
    ) {
        self.sides.push(Side::EarlierSource(source.to_string()));
        for (row, text) in questions {
            self.add(normalise(text), self.sides.len() - 1, row);
        }
    }

    /// Holds out a text that is normalised.
    fn add(&mut self, text: String, side: usize, row: usize) {
        let mut words = Words::default();
        let in_text = self.texts.len() as u32;
        self.texts.push((text, side, row));
        let text = &self.texts[in_text as usize].0;
        let grams: Vec<(u64, u32, u32)> = if is_plain(text) {
            words.read(text);
            let place = |first| words.place(first, self.ngram);
            let places = (0..).map(place).map(|at| (at.start as u32, at.end as u32));
            words.ngrams(self.ngram).zip(places).map(|(hash, at)| (hash, at.0, at.1)).collect()
        } else {
            let start = |gram: &str| gram.as_ptr() as usize - text.as_ptr() as usize;
            ngrams(text, self.ngram)
                .map(|gram| {
                    words.read(gram);
                    (words.whole(), start(gram) as u32, (start(gram) + gram.len()) as u32)
                })
                .collect()
        };
        for (hash, start, end) in grams {
            self.add_gram(hash, (in_text, start, end));
        }
    }

    fn add_gram(&mut self, hash: u64, origin: (u32, u32, u32)) {
        let key = self.key(hash, self.gram(origin));
        let of = |origin: (u32, u32, u32)| (self.texts[origin.0 as usize].1, origin);
        let first = self.origins.entry(key).or_insert(origin);
        *first = of(*first).min(of(origin)).1;
        self.filter.add(hash);
        if !self.filter.has_room(self.origins.len()) {
            self.filter = Filter::new(2 * self.origins.len());
            // Where a key is not its n-gram's hash, that hash is the key of another one.
            self.origins.keys().for_each(|&key| self.filter.add(key));
        }
    }

    /// What a side before `side` holds out of the text.
    fn find(&self, text: &str, side: usize, words: &mut Words) -> Option<Reason> {
        let text = match is_plain(text) {
            true => Cow::Borrowed(text),
            false => Cow::Owned(normalise(text)),
        };
        if matches!(text, Cow::Owned(_)) && !is_plain(&text) {
            return ngrams(&text, self.ngram).find_map(|gram| {
                words.read(gram);
                self.reason(words.whole(), gram, side)
            });
        }
        words.read(&text);
        self.filter.hits(words, self.ngram).find_map(|(first, hash)| {
            let gram = normalise(&text[words.place(first, self.ngram)]);
            self.reason(hash, &gram, side)
        })
    }

    /// The reason to drop a text with this n-gram, if a side before `side` holds it out.
    fn reason(&self, hash: u64, gram: &str, side: usize) -> Option<Reason> {
        let origin = self.origins.get(&self.key(hash, gram))?;
        let &(_, by, row) = &self.texts[origin.0 as usize];
        let (cause, place) = match &self.sides[by] {
            Side::Benchmark(name) => (name.clone(), "its row"),
            Side::EarlierSource(name) => (format!("earlier source {name}"), "pool row"),
        };
        let place = format!("shares \"{gram}\" with {place} {}", row + 1);
        (by < side).then(|| Reason::new(cause, place))
    }

    fn gram(&self, (text, start, end): (u32, u32, u32)) -> &str {
        &self.texts[text as usize].0[start as usize..end as usize]
    }

    /// The key of `origins` under which this n-gram is, or belongs.
    fn key(&self, hash: u64, gram: &str) -> u64 {
        let other = |key| self.origins.get(&key).is_some_and(|&origin| self.gram(origin) != gram);
        (0..).map(|step| hash.wrapping_add(step)).find(|&key| !other(key)).expect("a free key")
    }

    /// Indices into `questions` by source in order of first appearance, or all in one group, each
    /// with the source's side.
    fn groups(&mut self, questions: &[Question]) -> Vec<(usize, Vec<usize>)> {
        if !self.earlier_sources {
            return vec![(self.sides.len(), (0..questions.len()).collect())];
        }
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (i, question) in questions.iter().enumerate() {
            let source = source(question.source_type);
            if !self.sources.contains_key(source) {
                self.sources.insert(source.to_string(), self.sides.len());
                self.sides.push(Side::EarlierSource(source.to_string()));
            }
            groups.entry(self.sources[source]).or_default().push(i);
        }
        groups.into_iter().collect()
    }
}

/// Lower case, trimmed, and every run of white space one blank; punctuation stays.
///
/// Equal to Python's `" ".join(text.lower().strip().split())`.
pub fn normalise(text: &str) -> String {
    let mut normalised = String::with_capacity(text.len());
    for word in text.to_lowercase().split(is_space).filter(|word| !word.is_empty()) {
        if !normalised.is_empty() {
            normalised.push(' ');
        }
        normalised.push_str(word);
    }
    normalised
}

/// As [`is_python_space`], quicker where it is ASCII.
fn is_space(c: char) -> bool {
    match c {
        '\0'..='\x7f' => matches!(c, '\t'..='\r' | '\x1c'..=' '),
        c => is_python_space(c),
    }
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
#[derive(Debug, Clone)]
enum Side {
    Benchmark(String),
    EarlierSource(String),
}

/// The data set in a `source_type`: its first two parts, as in `owner/dataset/subject`.
///
/// Differs from s1: LiveCodeBench's releases are one source there, named by owner and release.
pub(crate) fn source(source_type: &str) -> &str {
    let end = source_type.match_indices('/').nth(1).map_or(source_type.len(), |(at, _)| at);
    &source_type[..end]
}
