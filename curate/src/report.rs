//! What a run tells: `funnel.json` for programs, `summary.txt` for people, from the same numbers.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::funnel::{Count, Funnel, Stage};
use crate::selection::{Candidate, Picks};

/// The contents of `funnel.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Questions of the pool.
    pub rows_in: usize,
    /// Questions that were selected.
    pub selected: usize,
    /// What each stage did, in order.
    pub stages: Vec<Count>,
    /// Dropped rows by stage and reason.
    pub causes: BTreeMap<&'static str, BTreeMap<String, usize>>,
    /// By stage and rule, the rows of the stage in which the rule caught something; a row that
    /// several rules caught counts in each.
    pub rules: BTreeMap<&'static str, BTreeMap<String, usize>>,
    /// Selected rows by the phase that picked them.
    pub phases: BTreeMap<&'static str, usize>,
    /// By domain, of the rows that reached the selection.
    pub domains: BTreeMap<String, Domain>,
    /// Tokens of the selected traces.
    pub tokens: i64,
    /// What a reader must know beside the numbers, in whole sentences.
    pub notes: Vec<String>,
}

/// One domain in the selection.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Domain {
    /// Rows that reached the selection.
    pub candidates: usize,
    /// Rows that were selected.
    pub chosen: usize,
    /// Tokens of the chosen traces.
    pub tokens: i64,
}

impl Report {
    /// The books of a funnel whose last stage but the selection is `after`, and the `picks` among
    /// its `candidates`.
    pub fn new(
        funnel: &Funnel,
        after: Stage,
        candidates: &[Candidate],
        picks: &Picks,
        notes: Vec<String>,
    ) -> Self {
        let stages: Vec<Stage> = Stage::ALL
            .into_iter()
            .filter(|stage| *stage <= after || *stage == Stage::Diversity)
            .collect();
        let (mut causes, mut rules) = (BTreeMap::new(), BTreeMap::new());
        for (stage, of_stage) in &funnel.causes {
            causes.insert(stage.name(), of_stage.clone());
            let of_rules = funnel.rules(*stage).into_iter();
            rules.insert(stage.name(), of_rules.map(|(rule, n)| (rule.to_string(), n)).collect());
        }
        let mut phases = BTreeMap::new();
        let mut domains: BTreeMap<String, Domain> = BTreeMap::new();
        for (row, picked) in candidates.iter().zip(&picks.picked) {
            let domain = domains.entry(row.domain.unwrap_or("(none)").to_string()).or_default();
            domain.candidates += 1;
            if let Some((phase, _)) = picked {
                domain.chosen += 1;
                domain.tokens += row.length.unwrap_or(0);
                *phases.entry(phase.name()).or_insert(0) += 1;
            }
        }
        Self {
            rows_in: funnel.rows_in,
            selected: funnel.selected,
            stages: funnel.counts(stages),
            causes,
            rules,
            phases,
            tokens: domains.values().map(|domain| domain.tokens).sum(),
            domains,
            notes,
        }
    }

    /// The contents of `summary.txt`.
    pub fn summary(&self) -> String {
        let mut text = format!(
            "{} questions in, {} selected\n",
            thousands(self.rows_in as i64),
            thousands(self.selected as i64)
        );
        self.stage_table(&mut text);
        self.domain_table(&mut text);
        let phases: Vec<String> =
            self.phases.iter().map(|(name, rows)| format!("{rows} {name}")).collect();
        let mean = self.tokens / (self.selected as i64).max(1);
        let tokens = (thousands(self.tokens), thousands(mean));
        // Writing to a string cannot fail, here and below.
        let _ = write!(
            text,
            "\npicked: {}\ntrace tokens: {} in all, {} on average\n",
            phases.join(", "),
            tokens.0,
            tokens.1
        );
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        text
    }

    /// One line a stage, under it one line for each of its rules.
    fn stage_table(&self, text: &mut String) {
        let _ = writeln!(text, "\n{:<46} {:>9} {:>9} {:>9}", "stage", "in", "dropped", "kept");
        for Count { stage, rows_in, dropped, kept } in &self.stages {
            let [rows_in, dropped, kept] = [rows_in, dropped, kept].map(|n| thousands(*n as i64));
            let _ = writeln!(text, "{stage:<46} {rows_in:>9} {dropped:>9} {kept:>9}");
            for (rule, &rows) in self.rules.get(stage).into_iter().flatten() {
                let rows = thousands(rows as i64);
                let _ = writeln!(text, "  {:<54} {rows:>9}", shorten(rule, 54));
            }
        }
    }

    fn domain_table(&self, text: &mut String) {
        let heads = ("domain", "candidates", "chosen", "tokens");
        let (domain, candidates, chosen, tokens) = heads;
        let _ = writeln!(text, "\n{domain:<45} {candidates:>10} {chosen:>9} {tokens:>9}");
        // The most chosen first; equal ones stay in the order of their names.
        let mut domains: Vec<_> = self.domains.iter().collect();
        domains.sort_by_key(|(_, domain)| std::cmp::Reverse(domain.chosen));
        for (name, domain) in domains {
            let candidates = thousands(domain.candidates as i64);
            let chosen = thousands(domain.chosen as i64);
            let tokens = thousands(domain.tokens);
            let name = shorten(name, 45);
            let _ = writeln!(text, "{name:<45} {candidates:>10} {chosen:>9} {tokens:>9}");
        }
    }
}

/// Digits in groups of three.
fn thousands(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).expect("ASCII digits"))
        .collect();
    format!("{}{}", if n < 0 { "-" } else { "" }, groups.join(","))
}

/// At most `width` characters, an ellipsis for the rest.
fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_string();
    }
    let head: String = text.chars().take(width - 1).collect();
    format!("{head}…")
}
