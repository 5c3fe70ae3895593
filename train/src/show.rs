//! `train show`: one example with what is trained of it, or a check of all rows. Needs no weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::ops::Range;

use anyhow::{Result, bail, ensure};
use model::chat::Chat;

use crate::config::{Config, OverLong};
use crate::examples::{Table, Tokens, Verdict};
use crate::words::counted;

/// What `train show` was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Shown, counted from 1.
    pub row: Option<usize>,
    /// All rows are looked at.
    pub check: bool,
    /// Every token with its id, in place of the text.
    pub ids: bool,
    /// Trained tokens are coloured; else they stand in brackets.
    pub colour: bool,
}

/// The text to print, and whether every row that was looked at can be trained.
#[derive(Debug)]
pub struct Shown {
    /// Control characters of the data are made visible in it.
    pub text: String,
    /// What keeps training from starting, if anything.
    pub trouble: Option<String>,
}

/// Shows what the run of `config` would train on.
///
/// # Errors
/// When table or tokenizer cannot be read, or there is no such row.
pub fn show(config: &Config, request: Request) -> Result<Shown> {
    let chat = Chat::read(&model::hub::tokenizer_folder(&config.model.path)?)?;
    let table = Table::read(&config.data)?;
    let mut shown = Shown { text: String::new(), trouble: None };
    if request.check || request.row.is_none() {
        check(config, &table, &chat, &mut shown)?;
    }
    if let Some(row) = request.row {
        let rows = table.len();
        ensure!((1..=rows).contains(&row), "--row {row}: the table has rows 1 to {rows}");
        show_row(config, &table, &chat, row - 1, request, &mut shown)?;
    }
    Ok(shown)
}

fn show_row(
    config: &Config,
    table: &Table,
    chat: &Chat,
    row: usize,
    request: Request,
    shown: &mut Shown,
) -> Result<()> {
    let tokens = table.tokens(row, chat)?;
    let trained = tokens.example.trained_tokens();
    let count = tokens.example.ids.len();
    let verdict = match table.verdict(row, &tokens) {
        Verdict::Whole => format!("fits block_size {}", config.data.block_size),
        Verdict::Truncated(_) => format!(
            "TRUNCATED from {} to block_size {}: {} trained tokens are lost",
            tokens.length,
            config.data.block_size,
            tokens.trained - trained
        ),
        Verdict::Dropped(_) => {
            format!("DROPPED: {} is over block_size {}", tokens.length, config.data.block_size)
        }
        Verdict::Refused(what) => {
            shown.trouble = Some(what.clone());
            format!("REFUSED: {what}")
        }
    };
    let text = &mut shown.text;
    writeln!(text, "{} of {}", visible(&table.place(row)), table.len())?;
    writeln!(
        text,
        "tokens    {count}: {} not trained, {trained} trained ({:.1}%), in {}",
        count - trained,
        100.0 * trained as f64 / count.max(1) as f64,
        counted(tokens.example.trained.len(), "part")
    )?;
    writeln!(text, "length    {}", visible(&verdict))?;
    let (open, close) = marks(request.colour);
    writeln!(text, "trained   {open}like this{close}\n")?;
    match request.ids {
        true => write_ids(text, &tokens, chat, (open, close)),
        false => write_text(text, &tokens, chat, (open, close)),
    }
}

/// What stands before and behind trained text.
fn marks(colour: bool) -> (&'static str, &'static str) {
    if colour { ("\u{1b}[32m", "\u{1b}[0m") } else { ("[[", "]]") }
}

/// All positions in runs that are trained or not.
fn runs(tokens: &Tokens) -> Vec<(bool, Range<usize>)> {
    let (mut runs, mut at) = (Vec::new(), 0);
    for trained in &tokens.example.trained {
        runs.extend([(false, at..trained.start), (true, trained.clone())]);
        at = trained.end;
    }
    runs.push((false, at..tokens.example.ids.len()));
    runs.retain(|(_, run)| run.start < run.end);
    runs
}

fn write_text(
    text: &mut String,
    tokens: &Tokens,
    chat: &Chat,
    (open, close): (&str, &str),
) -> Result<()> {
    for (is_trained, run) in runs(tokens) {
        let part = visible(&chat.tokenizer.decode(&tokens.example.ids[run])?);
        match is_trained {
            true => write!(text, "{open}{part}{close}")?,
            false => text.push_str(&part),
        }
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(())
}

/// A line a token: position, id, the text of it alone.
fn write_ids(
    text: &mut String,
    tokens: &Tokens,
    chat: &Chat,
    (open, close): (&str, &str),
) -> Result<()> {
    for (is_trained, run) in runs(tokens) {
        for at in run {
            let id = tokens.example.ids[at];
            let part = visible(&chat.tokenizer.decode(&[id])?.replace('\n', "\\n"));
            let part = if is_trained { format!("{open}{part}{close}") } else { part };
            writeln!(text, "{at:>6} {id:>7}  {part}")?;
        }
    }
    Ok(())
}

/// What a look at all rows found.
#[derive(Default)]
struct Findings {
    /// (tokens before any cut, row).
    lengths: Vec<(usize, usize)>,
    tokens: usize,
    trained: usize,
    lost: usize,
    over_long: Vec<String>,
    refused: Vec<String>,
    questions: BTreeMap<String, Vec<usize>>,
}

fn check(config: &Config, table: &Table, chat: &Chat, shown: &mut Shown) -> Result<()> {
    let mut found = Findings::default();
    for (row, tokens) in table.tokenise(chat, true).into_iter().enumerate() {
        found.questions.entry(table.question(row).to_owned()).or_default().push(row + 1);
        let tokens = match tokens {
            Ok(tokens) => tokens,
            Err(error) => {
                found.refused.push(format!("{error:#}"));
                continue;
            }
        };
        found.lengths.push((tokens.length, row));
        match table.verdict(row, &tokens) {
            Verdict::Whole => {}
            Verdict::Truncated(what) => found.over_long.push(format!("truncated {what}")),
            Verdict::Dropped(what) => {
                found.over_long.push(format!("dropped {what}"));
                found.lost += tokens.trained;
                continue;
            }
            Verdict::Refused(what) => {
                found.refused.push(what);
                continue;
            }
        }
        let trained = tokens.example.trained_tokens();
        found.tokens += tokens.example.ids.len();
        found.trained += trained;
        found.lost += tokens.trained - trained;
    }
    found.lengths.sort_unstable();
    write_findings(&mut shown.text, config, table, &found)?;
    if !found.refused.is_empty() {
        let rows = counted(found.refused.len(), "row");
        shown.trouble = Some(format!("{rows} of {} cannot be trained", table.len()));
    }
    Ok(())
}

/// So many of the longest rows are named.
const LONGEST: usize = 5;

fn write_findings(
    text: &mut String,
    config: &Config,
    table: &Table,
    found: &Findings,
) -> Result<()> {
    let data = &config.data;
    writeln!(text, "rows        {} of {}", table.len(), visible(&data.examples))?;
    writeln!(
        text,
        "tokens      {} in an epoch, {} of them trained ({:.1}%)",
        found.tokens,
        found.trained,
        100.0 * found.trained as f64 / found.tokens.max(1) as f64
    )?;
    if let Some((longest, _)) = found.lengths.last() {
        let at = |share: f64| {
            let rank = (share * found.lengths.len() as f64).ceil() as usize;
            found.lengths[rank.max(1) - 1].0
        };
        writeln!(
            text,
            "lengths     shortest {}, a quarter up to {}, half {}, three quarters {}, 95% {}, \
             99% {}, longest {longest}",
            found.lengths[0].0,
            at(0.25),
            at(0.5),
            at(0.75),
            at(0.95),
            at(0.99)
        )?;
    }
    for (length, row) in found.lengths.iter().rev().take(LONGEST) {
        writeln!(text, "long        {length} tokens in {}", visible(&table.place(*row)))?;
    }
    let done = match data.over_long {
        OverLong::Truncate => "truncated",
        OverLong::Drop => "dropped",
        OverLong::Error => "cut",
    };
    writeln!(
        text,
        "over-long   {} {done} at block_size {}, {} trained tokens lost",
        found.over_long.len(),
        data.block_size,
        found.lost
    )?;
    for what in &found.over_long {
        writeln!(text, "  {}", visible(what))?;
    }
    let twice = found.questions.values().filter(|rows| rows.len() > 1);
    let twice: BTreeSet<&Vec<usize>> = twice.collect();
    writeln!(text, "duplicates  {} asked more than once", counted(twice.len(), "question"))?;
    for rows in twice {
        let rows: Vec<String> = rows.iter().map(usize::to_string).collect();
        writeln!(text, "  rows {}", rows.join(", "))?;
    }
    writeln!(text, "refused     {}", counted(found.refused.len(), "row"))?;
    for what in &found.refused {
        writeln!(text, "  {}", visible(what))?;
    }
    Ok(())
}

/// `text` with every character that would act on a terminal instead of showing made visible:
/// control characters as their pictures (ESC is `␛`), marks that turn the reading direction or
/// cannot be seen as `⟦U+202E⟧`. Tabs and line feeds stay.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match u32::from(c) {
            0x09 | 0x0A => shown.push(c),
            code @ 0..0x20 => shown.extend(char::from_u32(0x2400 + code)),
            0x7F => shown.push('␡'),
            // C1 controls, line and paragraph separators, directions, zero width, tags; the
            // joiners 200C and 200D stay, since scripts and emoji need them.
            code @ (0x80..=0x9F
            | 0x61C
            | 0x200B
            | 0x200E
            | 0x200F
            | 0x2028..=0x202E
            | 0x2060..=0x2069
            | 0xFEFF
            | 0xE0000..=0xE007F) => {
                shown.push_str(&format!("⟦U+{code:04X}⟧"));
            }
            _ => shown.push(c),
        }
    }
    shown
}

/// Prints what was shown; the trouble becomes the program's error.
pub fn print(shown: &Shown) -> Result<()> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().lock().write_all(shown.text.as_bytes()) {
        // Whoever read has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        outcome => outcome?,
    }
    match &shown.trouble {
        Some(trouble) => bail!("{}", visible(trouble)),
        None => Ok(()),
    }
}
