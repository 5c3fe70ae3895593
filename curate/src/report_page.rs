//! `curate report`: the curation as one HTML page, beside what s1 published.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use page::bars::{Bars, Group as BarGroup};
use page::document::{Page, details, figures, paragraph, verbatim};
use page::histogram::Histogram;
use page::html::Html;
use page::table::{Kind, Table};
use page::terminal::{count, line, percent, tokens};
use record::row::Lineage;

use crate::funnel::{SELECTED, Stage};
use crate::outcome::{self, Group, Outcome};

/// The arguments of `curate report`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// An output folder of `curate run` or `curate select`.
    pub folder: PathBuf,
    /// Where to write the page; without it, to report.html in the folder if none is there.
    pub file: Option<PathBuf>,
    /// Replace FILE if it exists.
    #[arg(long)]
    pub overwrite: bool,
}

/// Rows left after each stage: in the notebook data/filter.ipynb of simplescaling/s1 as its saved
/// cells print them (the released code), and in the paper (arXiv 2501.19393 v3, section 2.2).
const PUBLISHED: [(Stage, Option<usize>, Option<usize>); 5] = [
    (Stage::Answered, Some(58_986), None),
    (Stage::Complete, Some(54_116), Some(54_116)),
    (Stage::Patterns, Some(51_607), Some(51_581)),
    (Stage::Difficulty, Some(24_517), Some(24_496)),
    (Stage::Diversity, Some(1000), Some(1000)),
];
/// Questions of s1's pool (the paper's Table 7), where both columns begin.
const PUBLISHED_POOL: usize = 59_029;

/// Groups of a chart; tables have them all.
const BARS: usize = 24;
/// Rules, domains or sources of a table, against pools that have one for each row.
const TABLE_ROWS: usize = 300;
/// Reasons of a stage that are shown with rows.
const REASONS: usize = 6;
/// Characters of a sample's question.
const QUESTION: usize = 1200;

/// Writes the page and says where it is.
///
/// A report.html in the folder that has other bytes is left alone: the manifest names its digest.
/// So is another file, unless `overwrite`.
pub fn run(args: &Args) -> Result<String> {
    let html = html(&Outcome::read(&args.folder)?, &outcome::config(&args.folder)?)?;
    let file = args.file.clone().unwrap_or_else(|| args.folder.join("report.html"));
    let shown = file.display();
    let is_there = std::fs::read(&file).is_ok_and(|bytes| bytes == html.as_bytes());
    if !is_there {
        if args.file.is_none() && file.exists() {
            bail!(
                "{shown} was made by another version: name a file, as in `curate report OUT FILE`"
            );
        }
        ensure!(
            args.overwrite || !file.exists(),
            "{shown} exists: name another file, or replace it with --overwrite"
        );
        std::fs::write(&file, html).with_context(|| format!("cannot write {shown}"))?;
    }
    Ok(format!("{shown}\n"))
}

/// The page of a curation that ran with `config`.
pub fn html(outcome: &Outcome, config: &toml::Table) -> Result<String> {
    let Group { pool, selected, .. } = outcome.all;
    let title = format!("{} of {} questions", count(selected), count(pool));
    let mut page = Page::new(&title, lead(outcome));
    page.section("Funnel", funnel(outcome));
    page.section("Rules", rules(outcome));
    page.section("Domains", groups("domain", &outcome.domains, outcome));
    page.section("Lengths", lengths(outcome));
    page.section("Sources", groups("source", &outcome.sources, outcome));
    page.section("Questions", samples(outcome));
    let config = toml::to_string_pretty(config).context("the config cannot be written as TOML")?;
    let words = "Every number that shaped this set, with the overrides of the command line.";
    page.section("Config", [paragraph(words), verbatim(&config)]);
    Ok(page.html())
}

/// The numbers to see first, and the notes.
fn lead(outcome: &Outcome) -> Html {
    let Group { pool, candidates, selected, tokens } = outcome.all;
    let domains = outcome.domains.values().filter(|domain| domain.selected > 0).count();
    let right = outcome.grades.get(&Some(true)).copied().unwrap_or(0);
    let graded = right + outcome.grades.get(&Some(false)).copied().unwrap_or(0);
    let mut numbers = vec![
        (count(pool), "questions in"),
        (count(candidates), "reached the selection"),
        (count(selected), "selected"),
        (count(domains), "domains among them"),
        (count(tokens as usize), "trace tokens"),
        (count(tokens as usize / selected.max(1)), "tokens a trace"),
    ];
    if graded > 0 {
        numbers.push((percent(right, graded), "of the graded answers are right"));
    }
    let note = |note: &String| paragraph(format!("Note: {note}"));
    let phases = outcome.phases.iter().filter(|(phase, _)| !phase.is_empty());
    let phases: Vec<_> = phases.map(|(phase, rows)| format!("{} {phase}", count(*rows))).collect();
    let mut parts = vec![figures(&numbers)];
    parts.extend(outcome.funnel.notes.iter().map(note));
    if !phases.is_empty() {
        parts.push(paragraph(format!("Selected by phase: {}.", phases.join(", "))));
    }
    parts.into()
}

/// Rows left after each stage, here and as published.
fn funnel(outcome: &Outcome) -> Html {
    let pool = outcome.all.pool;
    let bar = |rows: usize, all| {
        let share = 100.0 * rows as f64 / (all as f64).max(1.0);
        (share, format!("{} ({})", count(rows), percent(rows, all)))
    };
    let published = |rows: Option<usize>| rows.map(|rows| bar(rows, PUBLISHED_POOL));
    let mut bars = Bars {
        title: "Questions left after each stage, in % of the pool".to_owned(),
        series: ["this run", "s1, notebook", "s1, paper"].map(String::from).to_vec(),
        rows: vec![BarGroup {
            label: "pool".to_owned(),
            bars: vec![Some(bar(pool, pool)), published(Some(PUBLISHED_POOL)), None],
        }],
    };
    let mut table = Table::new(&[
        ("stage", Kind::Text),
        ("in", Kind::Number),
        ("dropped", Kind::Number),
        ("kept", Kind::Number),
        ("kept of in", Kind::Number),
        ("s1's notebook", Kind::Number),
        ("s1's paper", Kind::Number),
    ]);
    for stage in &outcome.funnel.stages {
        let known = PUBLISHED.iter().find(|known| known.0.name() == stage.stage);
        let (notebook, paper) = known.map_or((None, None), |known| (known.1, known.2));
        bars.rows.push(BarGroup {
            label: stage.stage.clone(),
            bars: vec![Some(bar(stage.kept, pool)), published(notebook), published(paper)],
        });
        let shown = |rows: Option<usize>| rows.map_or("–".to_owned(), count);
        table.row([
            stage.stage.clone(),
            count(stage.rows_in),
            count(stage.dropped),
            count(stage.kept),
            percent(stage.kept, stage.rows_in),
            shown(notebook),
            shown(paper),
        ]);
    }
    let words = "s1 began with 59,029 questions. Its notebook (data/filter.ipynb, the released \
                 code) and its paper differ by a few rows, and its pool was not decontaminated \
                 (questions held out here leave before these stages); where a column says –, \
                 nothing was published. Of its 1,000, the first phase took 393 in the notebook \
                 and 384 in the paper.";
    [bars.html(), table.html(), paragraph(words)].into()
}

/// How many rows each rule caught.
fn rules(outcome: &Outcome) -> Html {
    let mut table = Table::new(&[
        ("stage", Kind::Text),
        ("rule", Kind::Text),
        ("rows", Kind::Number),
        ("of those that reached the stage", Kind::Number),
    ]);
    for stage in &outcome.funnel.stages {
        for (rule, rows) in rules_of(outcome, &stage.stage).into_iter().take(TABLE_ROWS) {
            let share = percent(rows, stage.rows_in);
            table.row([stage.stage.as_str(), rule, &count(rows), &share]);
        }
    }
    let words = "A question that several rules of a stage caught counts at each of them.";
    [paragraph(words), table.html()].into()
}

/// The stage's rules, those that caught most rows first.
fn rules_of<'a>(outcome: &'a Outcome, stage: &str) -> Vec<(&'a str, usize)> {
    let of_stage = outcome.rules.iter().filter(|((of, _), _)| of == stage);
    let mut rules: Vec<_> = of_stage.map(|((_, rule), rows)| (rule.as_str(), *rows)).collect();
    rules.sort_by_key(|(rule, rows)| (Reverse(*rows), *rule));
    rules
}

/// Domains or sources: their shares among candidates and selected rows, and their counts.
fn groups(kind: &str, groups: &BTreeMap<String, Group>, outcome: &Outcome) -> Html {
    let Group { candidates: all_candidates, selected: all_selected, .. } = outcome.all;
    let mut ordered: Vec<(&String, &Group)> = groups.iter().collect();
    ordered.sort_by_key(|(_, group)| (Reverse(group.selected), Reverse(group.candidates)));
    let reached = ordered.iter().filter(|(_, group)| group.candidates > 0);
    let left_out = reached.clone().count().saturating_sub(BARS);
    let share = |rows: usize, all: usize| {
        Some((100.0 * rows as f64 / all.max(1) as f64, percent(rows, all)))
    };
    let bars = Bars {
        title: format!("Share of each {kind} among the candidates and in the selected set"),
        series: vec!["candidates".to_owned(), "selected".to_owned()],
        rows: (reached.take(BARS))
            .map(|(name, group)| BarGroup {
                label: name.to_string(),
                bars: vec![
                    share(group.candidates, all_candidates),
                    share(group.selected, all_selected),
                ],
            })
            .collect(),
    };
    let mut table = Table::new(&[
        (kind, Kind::Text),
        ("pool", Kind::Number),
        ("candidates", Kind::Number),
        ("selected", Kind::Number),
        ("trace tokens", Kind::Number),
        ("tokens a trace", Kind::Number),
    ]);
    for (name, group) in ordered.iter().take(TABLE_ROWS) {
        table.row([
            name.to_string(),
            count(group.pool),
            count(group.candidates),
            count(group.selected),
            count(group.tokens as usize),
            count(group.tokens as usize / group.selected.max(1)),
        ]);
    }
    let words = match left_out {
        0 => String::new(),
        more => {
            format!("The chart has the {BARS} that were selected most; {more} more had candidates.")
        }
    };
    [bars.html(), details(format!("All counts by {kind}"), table.html()), paragraph(words)].into()
}

/// Tokens of the traces, before and after the selection.
fn lengths(outcome: &Outcome) -> Html {
    let (candidates, selected) = &outcome.lengths;
    if candidates.is_empty() {
        return paragraph("No question that reached the selection has a length.");
    }
    let values = |lengths: &[i64]| lengths.iter().map(|&tokens| tokens as f64).collect();
    let histogram = Histogram {
        title: "How long the traces are".to_owned(),
        values: "tokens of the trace".to_owned(),
        sets: vec![
            (format!("{} candidates", count(candidates.len())), values(candidates)),
            (format!("{} selected", count(selected.len())), values(selected)),
        ],
    };
    let heads = ["shortest", "10%", "median", "90%", "longest", "mean"];
    let mut columns = vec![("tokens", Kind::Text)];
    columns.extend(heads.map(|head| (head, Kind::Number)));
    let mut table = Table::new(&columns);
    for (name, sorted) in [("candidates", candidates), ("selected", selected)] {
        let mut cells = vec![name.to_owned()];
        let at = |part: usize| sorted.get(sorted.len().saturating_sub(1) * part / 10);
        let shown = |tokens: Option<&i64>| tokens.map_or("–".to_owned(), |t| count(*t as usize));
        cells.extend([0, 1, 5, 9, 10].map(|part| shown(at(part))));
        let mean = sorted.iter().sum::<i64>() / (sorted.len() as i64).max(1);
        cells.push(count(mean as usize));
        table.row(cells);
    }
    [histogram.html(), table.html()].into()
}

/// Some rows of each stage and of the selected set, with what was found in them.
fn samples(outcome: &Outcome) -> Html {
    let mut parts = vec![paragraph([
        "A few questions for each reason, chosen by their hash. ".into(),
        Html::plain("code", "curate why OUT ID"),
        " tells the whole way of any question.".into(),
    ])];
    let stages = outcome.funnel.stages.iter().map(|stage| stage.stage.as_str());
    for stage in stages.chain([SELECTED]) {
        let of_stage = outcome.samples.iter().filter(|((of, _), _)| of == stage);
        let mut reasons: Vec<_> = of_stage.map(|((_, reason), rows)| (reason, rows)).collect();
        if reasons.is_empty() {
            continue;
        }
        let rows_of = |reason: &str| outcome.rules.get(&(stage.to_owned(), reason.to_owned()));
        reasons.sort_by_key(|(reason, _)| (Reverse(rows_of(reason)), *reason));
        parts.push(Html::plain("h3", stage));
        for (reason, rows) in reasons.into_iter().take(REASONS) {
            parts.extend(rows.values().map(|row| sample(reason, row)));
        }
    }
    parts.into()
}

fn sample(reason: &str, row: &Lineage) -> Html {
    let summary = [
        Html::plain("code", &row.question_hash),
        format!(" {}: {}", reason, line(&row.question, 80)).into(),
    ];
    let mut question: String = row.question.chars().take(QUESTION).collect();
    if question.len() < row.question.len() {
        question.push('…');
    }
    let mut facts = vec![format!("row {}", count(row.row as usize)), row.source_type.clone()];
    facts.extend(row.domain.clone());
    facts.extend(row.gemini_length.map(|length| tokens(length as usize)));
    facts.extend(row.rank.map(|rank| format!("rank {} in its domain", count(rank as usize))));
    facts.extend(row.phase.as_ref().map(|phase| format!("picked: {phase}")));
    facts.extend(row.draw.map(|draw| format!("draw {}", count(draw as usize))));
    // Each on its own, or text written from right to left would move its neighbours.
    let facts: Html = facts.into_iter().map(|fact| Html::plain("bdi", fact)).collect();
    let mut content = vec![Html::element("p", &[("class", "quiet")], facts)];
    content.extend(row.evidence.as_ref().map(|evidence| paragraph(format!("Found: {evidence}"))));
    content.push(verbatim(&question));
    details(summary, content)
}
