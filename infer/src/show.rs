//! `infer show`: what was asked, thought, forced, answered and judged.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use page::html::visible;
use page::terminal::{block, columns, count, line};

use crate::budget::Ending;
use crate::forced::pieces;
use crate::report::{Sample, read_samples};

/// The arguments of `infer show`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// An output folder of `infer eval`.
    pub folder: PathBuf,
    /// The row of the task's table, from 0, or the row's own name; without it, all are listed.
    pub sample: Option<String>,
    /// Only answers to this task.
    #[arg(long)]
    pub task: Option<String>,
    /// Only answers under this budget.
    #[arg(long)]
    pub budget: Option<String>,
    /// Only wrong answers.
    #[arg(long)]
    pub wrong: bool,
    /// Show the one behind SAMPLE.
    #[arg(long, requires = "sample")]
    pub next: bool,
    /// Of several answers to a question under one budget, the one with this number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub repeat: usize,
    /// Answers to list; 0 for all.
    #[arg(long, default_value_t = 40, conflicts_with = "sample")]
    pub rows: usize,
}

/// The list, or the one answer; with colours for a terminal that shows them.
///
/// Nothing that a model or a table wrote can steer the terminal.
///
/// # Errors
/// When the folder, task, budget or sample does not exist; names those that do.
pub fn run(args: &Args, colours: bool) -> Result<String> {
    text(&read_samples(&args.folder)?, args, colours)
}

/// [`run`] with the folder's samples.
pub fn text(samples: &[Sample], args: &Args, colours: bool) -> Result<String> {
    let names = |of: fn(&Sample) -> &String| {
        let mut names: Vec<&String> = Vec::new();
        samples.iter().for_each(|s| {
            if !names.contains(&of(s)) {
                names.push(of(s))
            }
        });
        names
    };
    known("task", &args.task, &names(|sample| &sample.task))?;
    known("budget", &args.budget, &names(|sample| &sample.budget))?;
    let wanted = |sample: &&Sample| {
        args.task.as_ref().is_none_or(|task| *task == sample.task)
            && args.budget.as_ref().is_none_or(|budget| *budget == sample.budget)
            && sample.repeat == args.repeat
    };
    let mut chosen: Vec<&Sample> = samples.iter().filter(wanted).collect();
    let Some(id) = &args.sample else {
        chosen.retain(|sample| !args.wrong || !sample.correct);
        return Ok(list(&chosen, args.rows));
    };
    let is_it = |sample: &Sample| {
        *id == sample.doc_id.to_string() || sample.id.as_ref().is_some_and(|name| name == id)
    };
    let place = chosen.iter().position(|sample| is_it(sample)).with_context(|| {
        format!("there is no answer {id:?} here; without SAMPLE all are listed")
    })?;
    let fits = |sample: &&Sample| !args.wrong || !sample.correct;
    let from = if args.next { place + 1 } else { place };
    let candidates = chosen[from..].iter().copied();
    // Without --next it is that question's, under the first budget that fits.
    let found = match args.next {
        true => candidates.clone().find(fits),
        false => candidates.clone().filter(|sample| is_it(sample)).find(fits),
    };
    let Some(sample) = found else {
        let (kind, end) =
            (if args.wrong { "wrong " } else { "" }, if args.next { " behind it" } else { "" });
        bail!("there is no {kind}answer {id:?}{end} among the {} chosen", chosen.len());
    };
    let following = chosen.iter().skip_while(|other| !std::ptr::eq(**other, sample)).skip(1);
    let following = following.copied().find(fits);
    Ok(one(samples, sample, colours) + &hint(&args.folder, sample, following, args.wrong))
}

fn known(kind: &str, wanted: &Option<String>, names: &[&String]) -> Result<()> {
    if let Some(name) = wanted {
        let shown: Vec<String> = names.iter().map(|name| line(name, 40)).collect();
        ensure!(
            names.contains(&name),
            "there is no {kind} {name:?}; this evaluation has: {}",
            shown.join(", ")
        );
    }
    Ok(())
}

fn list(samples: &[&Sample], limit: usize) -> String {
    let heads =
        ["task", "budget", "sample", "id", "verdict", "given", "expected", "thinking", "answer"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    let limit = if limit == 0 { samples.len() } else { limit };
    for sample in samples.iter().take(limit) {
        rows.push(vec![
            line(&sample.task, 24),
            line(&sample.budget, 24),
            sample.doc_id.to_string(),
            line(sample.id.as_deref().unwrap_or("–"), 32),
            if sample.correct { "right".into() } else { "wrong".into() },
            line(sample.extracted.as_deref().unwrap_or("–"), 24),
            line(&sample.target, 24),
            count(sample.thinking_tokens),
            count(sample.answer_tokens),
        ]);
    }
    let mut text = columns(&rows);
    if samples.len() > limit {
        let more = count(samples.len() - limit);
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(text, "and {more} more; --rows 0 lists all");
    }
    text
}

/// Marks of a terminal, or what stands in their place.
struct Marks {
    forced: [&'static str; 2],
    right: [&'static str; 2],
    wrong: [&'static str; 2],
    head: [&'static str; 2],
}

const RESET: &str = "\u{1b}[0m";
const COLOURS: Marks = Marks {
    forced: ["\u{1b}[1;33m", RESET],
    right: ["\u{1b}[1;32m", RESET],
    wrong: ["\u{1b}[1;31m", RESET],
    head: ["\u{1b}[1m", RESET],
};
const PLAIN: Marks =
    Marks { forced: ["⟦", "⟧"], right: ["", ""], wrong: ["", ""], head: ["", ""] };

fn one(samples: &[Sample], sample: &Sample, colours: bool) -> String {
    let marks = if colours { COLOURS } else { PLAIN };
    let head = |text: &str| format!("{}{text}{}", marks.head[0], marks.head[1]);
    let named = sample.id.as_ref().map_or(String::new(), |id| format!(" ({})", line(id, 60)));
    let mut text = format!(
        "{}\n\n{}\n{}",
        head(&format!(
            "{}, question {}{named}, budget {}",
            line(&sample.task, 60),
            sample.doc_id,
            line(&sample.budget, 60)
        )),
        head("question"),
        block(&sample.question)
    );
    let _ = writeln!(text, "\n{} {}", head("completion"), forced_note(colours));
    text += &completion(sample, &marks);
    let [open, close] = if sample.correct { marks.right } else { marks.wrong };
    let verdict = if sample.correct { "right" } else { "wrong" };
    let rows = [
        ("given", line(sample.extracted.as_deref().unwrap_or("nothing was found"), 200)),
        ("expected", line(&sample.target, 200)),
        ("verdict", format!("{open}{verdict}{close}, by the rule “{}”", line(&sample.rule, 60))),
        ("prompt", tokens(sample.prompt_tokens)),
        (
            "thinking",
            format!("{}{}", tokens(sample.thinking_tokens), ended(sample.thinking_ending)),
        ),
        ("answer", format!("{}{}", tokens(sample.answer_tokens), ended(Some(sample.ending)))),
        ("elsewhere", elsewhere(samples, sample)),
    ];
    text.push('\n');
    for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{name:<10} {value}");
    }
    text
}

fn forced_note(colours: bool) -> &'static str {
    if colours { "(in colour: forced)" } else { "(⟦…⟧: forced)" }
}

/// The text, moved in by two spaces, with its forced parts between marks.
fn completion(sample: &Sample, marks: &Marks) -> String {
    let mut text = String::from("  ");
    for (forced, piece) in pieces(&sample.completion, &sample.forced, 0..sample.completion.len()) {
        let [open, close] = if forced { marks.forced } else { ["", ""] };
        let shown = visible(piece).replace('\n', &format!("{close}\n  {open}"));
        let _ = write!(text, "{open}{shown}{close}");
    }
    // A line end closes its marks and opens them anew: where nothing is between, none are needed.
    let nothing = format!("{}{}", marks.forced[0], marks.forced[1]);
    text = text.replace(&nothing, "");
    let lines = text.split('\n').map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

fn tokens(tokens: usize) -> String {
    page::terminal::tokens(tokens)
}

fn ended(ending: Option<Ending>) -> String {
    ending.map_or(String::new(), |ending| format!(", {}", words(ending)))
}

/// How a stage ended, for people.
pub fn words(ending: Ending) -> &'static str {
    match ending {
        Ending::Stop => "ended by the model",
        Ending::Length => "cut off at its limit",
        Ending::Context => "cut off where the context was full",
    }
}

/// The same question's verdicts under the other budgets.
fn elsewhere(samples: &[Sample], sample: &Sample) -> String {
    let same = |other: &&Sample| {
        other.task == sample.task
            && other.doc_id == sample.doc_id
            && other.repeat == sample.repeat
            && other.budget != sample.budget
    };
    let verdict = |other: &Sample| {
        format!("{} {}", line(&other.budget, 24), if other.correct { "right" } else { "wrong" })
    };
    samples.iter().filter(same).map(verdict).collect::<Vec<_>>().join(", ")
}

/// The command for the next one.
fn hint(folder: &Path, sample: &Sample, following: Option<&Sample>, wrong: bool) -> String {
    let Some(next) = following else { return String::new() };
    let only = if wrong { " --wrong" } else { "" };
    format!(
        "\nnext: infer show {} {} --task {} --budget {}{only}{}\n",
        visible(&folder.display().to_string()),
        next.doc_id,
        line(&next.task, 60),
        line(&next.budget, 60),
        if sample.repeat > 0 { format!(" --repeat {}", sample.repeat) } else { String::new() }
    )
}
