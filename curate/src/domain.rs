//! What a question is about: one of the 61 classes of MSC2020, found by its words and its source.
//!
//! This is the offline labeller, for runs without a language model. It weighs terms, no more: how
//! often that is right is measured in the tests and said in the stage's guide.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// One class, as s1's taxonomy has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Two digits.
    pub code: String,
    /// What the column `domain` says.
    pub title: String,
    /// What belongs to it, in a phrase.
    pub about: String,
}

/// All classes, by code.
pub fn classes() -> &'static [Class] {
    &LABELLER.classes
}

/// The class of a two-digit code.
pub fn class(code: &str) -> Option<&'static Class> {
    classes().iter().find(|class| class.code == code)
}

/// The class that a question's words and source speak for most; always one.
///
/// A term counts its weight, shared out by the square root among the classes that have it, somewhat
/// more when it is repeated. A class adds up its terms, the strongest first, each further one at
/// nine tenths of the one before, so that many faint terms do not outweigh a clear one. A term that
/// is part of a longer one there does not count. The source adds a little, and so does the share
/// that the class has in s1K; of equals the first wins.
pub fn label(question: &str, source_type: &str) -> &'static Class {
    let labeller = &*LABELLER;
    let mut evidence = vec![Vec::new(); labeller.classes.len()];
    for (term, times) in labeller.terms_in(question) {
        let meanings = &labeller.terms[term.as_str()];
        let repeated = 1.0 + 0.6 * (times - 1) as f64 / (times + 1) as f64;
        for &(class, weight) in meanings {
            evidence[class].push(weight * repeated / (meanings.len() as f64).sqrt());
        }
    }
    let source = labeller.sources.iter().find(|source| source_type.contains(&source.contains));
    let mut best = (f64::NEG_INFINITY, 0);
    for (class, evidence) in evidence.iter_mut().enumerate() {
        evidence.sort_by(|a, b| b.total_cmp(a));
        let favoured = source.map_or(0.0, |source| source.favour(&labeller.classes[class].code));
        let mut score = labeller.shares[class] + favoured;
        let mut share = 1.0;
        for weight in evidence {
            score += *weight * share;
            share *= 0.9;
        }
        if score > best.0 {
            best = (score, class);
        }
    }
    &labeller.classes[best.1]
}

/// `domain/classes.toml` in the form that [`label`] needs.
struct Labeller {
    classes: Vec<Class>,
    /// What each class starts with.
    shares: Vec<f64>,
    /// The classes that a term speaks for, each with its weight; none for furniture.
    terms: HashMap<String, Vec<(usize, f64)>>,
    /// Words of the longest term.
    longest: usize,
    sources: Vec<Source>,
}

static LABELLER: LazyLock<Labeller> = LazyLock::new(|| {
    let table = toml::from_str(include_str!("domain/classes.toml"));
    Labeller::new(table.expect("classes.toml is a table of classes"))
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    class: Vec<Entry>,
    furniture: Furniture,
    source: Vec<Source>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    code: String,
    title: String,
    about: String,
    in_s1k: Option<u32>,
    #[serde(default)]
    certain: Vec<String>,
    #[serde(default)]
    sure: Vec<String>,
    #[serde(default)]
    likely: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Furniture {
    terms: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    contains: String,
    favours: Vec<String>,
}

impl Source {
    /// The weight of a `certain` term and a third off, shared out as a term's weight is, but less.
    fn favour(&self, code: &str) -> f64 {
        let favours = self.favours.iter().any(|favoured| favoured == code);
        if favours { 4.0 / (self.favours.len() as f64).sqrt().sqrt() } else { 0.0 }
    }
}

impl Labeller {
    fn new(table: Table) -> Self {
        let mut terms: HashMap<String, Vec<(usize, f64)>> =
            table.furniture.terms.into_iter().map(|term| (term, Vec::new())).collect();
        let (mut classes, mut shares) = (Vec::new(), Vec::new());
        for (class, entry) in table.class.into_iter().enumerate() {
            for (list, weight) in [(entry.certain, 6.0), (entry.sure, 3.0), (entry.likely, 1.0)] {
                for term in list {
                    terms.entry(term).or_default().push((class, weight));
                }
            }
            // The classes that the paper's table leaves to its rest have five rows on average.
            shares.push(0.1 * f64::from(entry.in_s1k.unwrap_or(5)).sqrt());
            classes.push(Class { code: entry.code, title: entry.title, about: entry.about });
        }
        let longest = terms.keys().map(|term| term.split(' ').count()).max().unwrap_or(0);
        Self { classes, shares, terms, longest, sources: table.source }
    }

    /// The terms of a question with how often each stands there; none overlap, longer ones first.
    fn terms_in(&self, question: &str) -> Vec<(String, u32)> {
        let words = words(question);
        let (mut found, mut at) = (Vec::new(), 0);
        while at < words.len() {
            let lengths = (1..=self.longest.min(words.len() - at)).rev();
            let term = lengths.map(|n| (n, words[at..at + n].join(" ")));
            let term = term.into_iter().find(|(_, term)| self.terms.contains_key(term));
            at += term.as_ref().map_or(1, |(n, _)| *n);
            found.extend(term.map(|(_, term)| term));
        }
        found.sort();
        let runs = found.chunk_by(|a, b| a == b);
        runs.map(|run| (run[0].clone(), run.len() as u32)).collect()
    }
}

/// A question as the labeller reads it: lower-case words without a plural's s, numbers, LaTeX
/// commands with their backslash, and single signs; no punctuation, and no commands of mere layout.
fn words(question: &str) -> Vec<String> {
    const LAYOUT: [&str; 9] =
        ["left", "right", "big", "bigg", "displaystyle", "text", "textbf", "quad", "qquad"];
    let lower = without_diagrams(question).to_lowercase().replace('’', "'");
    let mut words: Vec<String> = Vec::new();
    let (mut rest, mut before) = (lower.as_str(), ' ');
    while let Some(first) = rest.chars().next() {
        let mut length = run(rest, first);
        if first == '\\' {
            let name = &rest[1..1 + run(&rest[1..], 'a').min(ascii_letters(&rest[1..]))];
            length = 1 + name.len();
            let argument = || rest[length..].find('}').map_or(rest.len(), |end| length + end + 1);
            match name {
                "" if rest[1..].starts_with([',', ';', '!', ':']) => length = 2,
                "" => words.push(first.to_string()),
                "end" if rest[length..].starts_with('{') => length = argument(),
                "begin" if rest[length..].starts_with('{') => {
                    length = argument();
                    words.push(rest[..length].to_string());
                }
                _ if LAYOUT.contains(&name) => {}
                _ => words.push(rest[..length].to_string()),
            }
        } else if first.is_alphabetic() {
            words.push(singular(&rest[..length]).to_string());
        } else if first.is_numeric() {
            words.push(rest[..length].to_string());
        } else if first == '-' && before.is_alphabetic() {
            let joins = rest[1..].starts_with(char::is_alphabetic);
            words.extend((!joins).then(|| first.to_string()));
        } else if !first.is_whitespace() && !"$.,;:\"?!`".contains(first) {
            words.push(first.to_string());
        }
        before = rest[..length].chars().next_back().unwrap_or(' ');
        rest = &rest[length..];
    }
    words
}

/// The question without the programs that draw its pictures.
fn without_diagrams(question: &str) -> String {
    let mut parts = question.split("[asy]");
    let first = parts.next().unwrap_or_default();
    let after = parts.map(|part| part.split_once("[/asy]").map_or("", |(_, after)| after));
    std::iter::once(first).chain(after).collect::<Vec<_>>().join(" ")
}

/// Bytes at the start of `text` that are of the kind of `first`: letters, digits, or one sign.
fn run(text: &str, first: char) -> usize {
    let kind: fn(char) -> bool = match first {
        first if first.is_alphabetic() => char::is_alphabetic,
        first if first.is_numeric() => char::is_numeric,
        _ => return first.len_utf8(),
    };
    text.find(|c| !kind(c)).unwrap_or(text.len())
}

fn ascii_letters(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(text.len())
}

fn singular(word: &str) -> &str {
    let plural = word.chars().count() > 3
        && word.ends_with('s')
        && !["ss", "us", "is"].iter().any(|end| word.ends_with(end));
    if plural { &word[..word.len() - 1] } else { word }
}
