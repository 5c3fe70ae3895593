//! The `infer` program: see `infer --help`.

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use page::html::visible;

/// Continue prompts, and evaluate a model under thinking budgets.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer a task's questions under every budget of a config, and score the answers.
    Eval(Shared),
    /// Draw how accuracy goes with thinking: `eval` over a config's grid of budgets, its section
    /// [curve], as in configs/real/curve.toml.
    Curve(Shared),
    /// Draw curves of several evaluations, and of others' papers, on one page.
    Draw(infer::draw::Args),
    /// Show one answer: question, thinking with its forced parts, answer, verdict.
    Show(infer::show::Args),
    /// Compare two evaluations of the same questions.
    Compare(infer::compare::Args),
    /// Continue the prompts of a JSONL file (configs/infer/generate.toml).
    Generate(Written),
    /// Take requests as OpenAI's API has them, with limits on thinking in their bodies
    /// (configs/infer/serve.toml).
    Serve(Told),
    /// Talk to a model in the terminal (configs/infer/chat.toml).
    Chat(Told),
    /// Show the answers that an evaluation's rules call wrong to a language model (never needed;
    /// configs/infer/judge.toml).
    Judge(Written),
}

/// What every run is told.
#[derive(clap::Args)]
struct Told {
    /// The run's TOML file; paths in it are relative to the current folder.
    config: PathBuf,
    /// Change a key for this run, as in `--set model.threads=4`; written into the manifest.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
}

/// A run with an output folder.
#[derive(clap::Args)]
struct Written {
    #[command(flatten)]
    told: Told,
    /// Replace the output folder if it exists.
    #[arg(long)]
    overwrite: bool,
}

/// A run that several processes may share.
#[derive(clap::Args)]
struct Shared {
    #[command(flatten)]
    written: Written,
    /// Processes that answer a share of the questions each, with a model of their own.
    #[arg(long, default_value_t = 1)]
    ranks: usize,
}

/// Colours are for people who watch, and do not mind (no-color.org).
fn shows_colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
}

/// A reader that has seen enough, such as `head`, is no error.
fn print(text: anyhow::Result<String>) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text?.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// What the command does, or a part of another rank's passes if this process has such a rank.
fn run(command: Command) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("finding this program's file")?;
    let arguments = std::env::args_os().skip(1).collect();
    let Some(_lead) = infer::engine::parallel::begin(program, arguments, command.config())? else {
        return Ok(());
    };
    match command {
        Command::Eval(Shared { written: Written { told, overwrite }, ranks }) => {
            infer::run::eval(&told.config, &told.sets, overwrite, ranks)
        }
        Command::Curve(Shared { written: Written { told, overwrite }, ranks }) => {
            infer::run::curve(&told.config, &told.sets, overwrite, ranks)
        }
        Command::Draw(args) => print(infer::draw::run(&args)),
        Command::Show(args) => print(infer::show::run(&args, shows_colours())),
        Command::Compare(args) => print(infer::compare::run(&args)),
        Command::Generate(Written { told, overwrite }) => {
            infer::generate::run(&told.config, &told.sets, overwrite)
        }
        Command::Chat(told) => infer::chat::run(&told.config, &told.sets),
        Command::Serve(told) => infer::serve::run(&told.config, &told.sets),
        Command::Judge(Written { told, overwrite }) => {
            infer::judge::run(&told.config, &told.sets, overwrite)
        }
    }
}

impl Command {
    /// Its config and overrides; those that run no model have no part for other ranks.
    fn config(&self) -> Option<(&Path, &[String])> {
        let told = match self {
            Command::Eval(shared) | Command::Curve(shared) => &shared.written.told,
            Command::Generate(written) => &written.told,
            Command::Chat(told) | Command::Serve(told) => told,
            Command::Draw(_) | Command::Show(_) | Command::Compare(_) | Command::Judge(_) => {
                return None;
            }
        };
        Some((&told.config, &told.sets))
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", visible(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}
