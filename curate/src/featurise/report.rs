//! What a featurising run tells people: what came from where, and how the graders compare.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Result, bail};
use record::row::Features;

use super::ask::Asked;
use super::questions::{Column, Question};

/// The numbers of the summary.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    /// Questions that had each feature from the pool.
    from_pool: [usize; 5],
    /// Each model that was asked, in order.
    pub asked: Vec<Asked>,
    /// Two graders' verdicts beside each other: how often each pair of them.
    beside: BTreeMap<(Column, &'static str), BTreeMap<[&'static str; 2], usize>>,
    /// Questions whose domain the pool or a model says, and those of them whose words say the same.
    pub domains: [usize; 2],
}

/// A feature's column, and whether a question has it.
type Feature = (&'static str, fn(&Features) -> bool);

const FEATURES: [Feature; 5] = [
    ("gemini_length", |of| of.gemini_length.is_some()),
    ("domain", |of| of.domain.is_some()),
    ("isgeminicorrect", |of| of.isgeminicorrect.is_some()),
    ("isqwen7bcorrect", |of| of.isqwen7bcorrect.is_some()),
    ("isqwen32bcorrect", |of| of.isqwen32bcorrect.is_some()),
];

fn having(questions: &[Question]) -> [usize; 5] {
    FEATURES.map(|(_, has)| questions.iter().filter(|of| has(&of.features)).count())
}

impl Report {
    pub fn new(questions: &[Question]) -> Self {
        Self { from_pool: having(questions), ..Self::default() }
    }

    /// Counts one attempt's verdicts beside each other; `known` is the pool's.
    pub fn compare(
        &mut self,
        column: Column,
        rules: Option<bool>,
        judge: Option<bool>,
        known: Option<bool>,
    ) {
        let word = |right| match right {
            Some(true) => "right",
            Some(false) => "wrong",
            None => "cannot tell",
        };
        for (other, verdict) in [("judge", judge), ("pool", known)] {
            if verdict.is_some() {
                let pairs = self.beside.entry((column, other)).or_default();
                *pairs.entry([word(rules), word(verdict)]).or_default() += 1;
            }
        }
    }

    /// Counts what the pool or a model, if either, says of a question's domain beside its words.
    pub fn compare_domains(&mut self, said: Option<&str>, words: &str) {
        self.domains[0] += usize::from(said.is_some());
        self.domains[1] += usize::from(said == Some(words));
    }

    /// An error if some questions have no reply.
    pub fn check_complete(&self) -> Result<()> {
        for Asked { name, questions, failed, .. } in &self.asked {
            let missing: usize = failed.values().sum();
            if missing > 0 {
                bail!(
                    "the section [{name}]: {missing} of {questions} questions have no reply \
                     ({failed:?}): run again, which pays for these alone, or publish without them \
                     by allow_missing = true"
                );
            }
        }
        Ok(())
    }

    /// The contents of `summary.txt`.
    pub fn summary(&self, questions: &[Question]) -> String {
        let mut text = format!("{} different questions\n\n", questions.len());
        let heads = ["feature", "known before", "found here", "missing"];
        let [feature, before, here, missing] = heads;
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(text, "{feature:<20} {before:>12} {here:>12} {missing:>12}");
        let now = having(questions);
        for (at, (name, _)) in FEATURES.iter().enumerate() {
            let (before, now) = (self.from_pool[at], now[at]);
            let (here, missing) = (now - before, questions.len() - now);
            let _ = writeln!(text, "{name:<20} {before:>12} {here:>12} {missing:>12}");
        }
        let [said, same] = self.domains;
        if said > 0 {
            let who = "the words say the same as the model or the pool says";
            let _ = writeln!(text, "\ndomains: {who}, of {same} of {said} questions");
        }
        self.models(&mut text);
        self.graders(&mut text);
        text
    }

    fn models(&self, text: &mut String) {
        for asked in self.asked.iter().filter(|asked| asked.questions > 0) {
            let Asked { name, model, questions, answered, unreadable, failed, .. } = asked;
            let _ = write!(text, "\n[{name}] {model}: {questions} asked, {answered} answered");
            if *unreadable > 0 {
                let _ = write!(text, ", {unreadable} unreadable");
            }
            for (cause, count) in failed {
                let _ = write!(text, ", {count} {cause}");
            }
        }
        if self.asked.iter().any(|asked| asked.questions > 0) {
            text.push('\n');
        }
    }

    fn graders(&self, text: &mut String) {
        for ((column, other), pairs) in &self.beside {
            let all: usize = pairs.values().sum();
            let same = pairs.iter().filter(|(pair, _)| pair[0] == pair[1]);
            let same: usize = same.map(|(_, count)| count).sum();
            let untold = pairs.iter().filter(|(pair, _)| pair[0] == "cannot tell");
            let untold: usize = untold.map(|(_, count)| count).sum();
            let (told, name) = (all - untold, column.name());
            let _ = match told {
                0 => writeln!(text, "\n{name}: attempts that only the {other} can grade: {all}"),
                _ => writeln!(
                    text,
                    "\n{name}: the rules and the {other} agree on {same} of {told} attempts that \
                     the rules can grade"
                ),
            };
            for ([rules, verdict], count) in pairs {
                let _ = writeln!(text, "  rules: {rules:<12} {other}: {verdict:<12} {count:>8}");
            }
        }
    }
}
