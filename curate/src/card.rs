//! The data card: README.md of an output folder, as the Hugging Face hub reads it.

use std::cmp::Reverse;
use std::fmt::Write;

use anyhow::{Context, Result};
use page::terminal::{count, line, percent};

use crate::outcome::{Group, Outcome};

/// Groups of a table; the rest is one line.
const ROWS: usize = 60;

/// The columns of selected.parquet.
const COLUMNS: &str = "\
| column | what it holds |
|---|---|
| `solution` | reference solution of the source, or its bare answer |
| `question` | what the model is asked, verbatim |
| `cot_type` | the kind of question: math, science, coding, ... |
| `source_type` | data set and subset the question comes from |
| `metadata` | the rest of the source's own row, as Python prints a dict |
| `cot` | always null, as in s1K |
| `thinking_trajectories` | the teacher's reasoning |
| `attempt` | the teacher's answer after the reasoning |
| `text` | the training example: question, reasoning and answer in Qwen2.5's chat format |
";

/// The card of a curation that ran with `config`.
pub fn card(outcome: &Outcome, config: &toml::Table) -> Result<String> {
    let config = toml::to_string_pretty(config).context("the config cannot be written as TOML")?;
    let mut text = header(outcome.all.selected);
    let Group { pool, selected, tokens, .. } = outcome.all;
    let domains = outcome.domains.values().filter(|domain| domain.selected > 0).count();
    // Writing to a string cannot fail, here and below.
    let _ = write!(
        text,
        "# {} questions with reasoning traces\n\n\
         Selected from a pool of {} questions with the stages and the selection of \
         [s1](https://arxiv.org/abs/2501.19393). They cover {} domains; their traces have {} \
         tokens by the pool's `gemini_length`, {} on average.\n\n\
         - `selected.parquet`: the training set\n\
         - `lineage.parquet`: every question of the pool with the stage that dropped it, the \
         reason, and what was found\n\
         - `funnel.json`, `report.html`, `summary.txt`: the same in numbers and pictures\n\
         - `manifest.json`: the whole config, and digests of everything read and written\n\n\
         ```python\n\
         from datasets import load_dataset\n\n\
         examples = load_dataset(\"path/to/this/folder\", split=\"train\")\n\
         lineage = load_dataset(\"path/to/this/folder\", \"lineage\", split=\"train\")\n\
         ```\n\n## Columns\n\n{COLUMNS}\n",
        count(selected),
        count(pool),
        count(domains),
        count(tokens as usize),
        count(tokens as usize / selected.max(1)),
    );
    text += &funnel(outcome);
    text += &groups("domain", outcome.domains.iter(), selected);
    text += &groups("source", outcome.sources.iter(), selected);
    text += &limits(outcome);
    let _ = write!(text, "## How to make it again\n\n{}\n", fenced("toml", &config));
    Ok(text)
}

/// The YAML that the hub reads: two configurations, so that the viewer shows both tables.
fn header(selected: usize) -> String {
    let size = match selected {
        0..1_000 => "n<1K",
        1_000..10_000 => "1K<n<10K",
        10_000..100_000 => "10K<n<100K",
        100_000..1_000_000 => "100K<n<1M",
        _ => "1M<n<10M",
    };
    format!(
        "---\nlanguage:\n- en\nlicense: other\nlicense_name: as-the-sources\ntask_categories:\n\
         - text-generation\nsize_categories:\n- {size}\ntags:\n- reasoning\n- s1\nconfigs:\n\
         - config_name: default\n  default: true\n  data_files:\n  - split: train\n    \
         path: selected.parquet\n- config_name: lineage\n  data_files:\n  - split: train\n    \
         path: lineage.parquet\n---\n\n"
    )
}

fn funnel(outcome: &Outcome) -> String {
    let mut text = "## Funnel\n\n| stage | in | dropped | kept |\n|---|--:|--:|--:|\n".to_owned();
    for stage in &outcome.funnel.stages {
        let numbers = [stage.rows_in, stage.dropped, stage.kept].map(count).join(" | ");
        let _ = writeln!(text, "| {} | {numbers} |", cell(&stage.stage));
    }
    text.push('\n');
    for note in &outcome.funnel.notes {
        let _ = writeln!(text, "Note: {}\n", cell(note));
    }
    text
}

/// The groups that have selected rows, the largest first.
fn groups<'a>(
    kind: &str,
    groups: impl Iterator<Item = (&'a String, &'a Group)>,
    all: usize,
) -> String {
    let mut ordered: Vec<_> = groups.filter(|(_, group)| group.selected > 0).collect();
    ordered.sort_by_key(|(name, group)| (Reverse(group.selected), *name));
    let mut text = format!(
        "## By {kind}\n\n| {kind} | selected | share | trace tokens | in the pool |\n\
         |---|--:|--:|--:|--:|\n"
    );
    for (name, group) in ordered.iter().take(ROWS) {
        let (selected, share) = (count(group.selected), percent(group.selected, all));
        let (tokens, pool) = (count(group.tokens as usize), count(group.pool));
        let _ = writeln!(text, "| {} | {selected} | {share} | {tokens} | {pool} |", cell(name));
    }
    let rest = ordered.iter().skip(ROWS).map(|(_, group)| group.selected);
    let (more, selected) = (rest.clone().count(), rest.sum::<usize>());
    if more > 0 {
        let _ = writeln!(text, "| {more} more | {} | | | |", count(selected));
    }
    text.push('\n');
    text
}

/// What a user of the set must not take for granted.
fn limits(outcome: &Outcome) -> String {
    let of = |grade| count(outcome.grades.get(&grade).copied().unwrap_or(0));
    let keeps = match outcome.grades.contains_key(&Some(false)) {
        true => " A wrong one is no reason to leave, as in s1.",
        false => "",
    };
    format!(
        "## Limits\n\n\
         - Of the teacher's answers {} are graded right, {} wrong, and {} have no \
         grade.{keeps}\n\
         - Questions were held out against the benchmarks that the config names, if any, by the \
         words they share. Paraphrases can pass that.\n\
         - Each source keeps its own licence and terms; see `source_type`.\n\n",
        of(Some(true)),
        of(Some(false)),
        of(None)
    )
}

/// Text of others in a table: on one line, and nothing in it is Markdown or HTML.
fn cell(text: &str) -> String {
    let mut shown = String::new();
    for character in line(text, 120).chars() {
        match character {
            '&' => shown += "&amp;",
            '<' => shown += "&lt;",
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '!' | '~' | '$' | '>' => {
                shown.push('\\');
                shown.push(character);
            }
            _ => shown.push(character),
        }
    }
    shown
}

/// A code block whose fence is longer than any in `text`.
fn fenced(language: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{}\n{fence}\n", page::html::visible(text).trim_end())
}
