//! The `infer` program: see `infer --help`.

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

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
    Eval {
        /// The run's TOML file; paths in it are relative to the current folder.
        config: PathBuf,
        /// Change a key for this run, as in `--set model.threads=4`; written into the manifest.
        #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
        sets: Vec<String>,
        /// Replace the output folder if it exists.
        #[arg(long)]
        overwrite: bool,
        /// Processes that answer a share of the questions each, with a model of their own.
        #[arg(long, default_value_t = 1)]
        ranks: usize,
    },
    /// Draw how accuracy goes with thinking: `eval` over a config's grid of budgets, with a page.
    Curve {
        /// The run's TOML file, such as configs/real/curve.toml; it has a section [curve].
        config: PathBuf,
        /// Change a key for this run, as in `--set limit=20`; written into the manifest.
        #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
        sets: Vec<String>,
        /// Replace the output folder if it exists.
        #[arg(long)]
        overwrite: bool,
        /// Processes that answer a share of the questions each, with a model of their own.
        #[arg(long, default_value_t = 1)]
        ranks: usize,
    },
    /// Draw curves of several evaluations, and of others' papers, on one page.
    Draw(infer::draw::Args),
    /// Show one answer: question, thinking with its forced parts, answer, verdict.
    Show(infer::show::Args),
    /// Compare two evaluations of the same questions.
    Compare(infer::compare::Args),
    /// Continue the prompts of a JSONL file.
    Generate {
        /// The run's TOML file, such as configs/infer/generate.toml.
        config: PathBuf,
        /// Change a key for this run, as in `--set engine.slots=8`; written into the manifest.
        #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
        sets: Vec<String>,
        /// Replace the output folder if it exists.
        #[arg(long)]
        overwrite: bool,
    },
    /// Take requests as OpenAI's API has them, with limits on thinking in their bodies.
    Serve {
        /// The server's TOML file, such as configs/infer/serve.toml.
        config: PathBuf,
        /// Change a key for this run, as in `--set server.address=127.0.0.1:8080`.
        #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
        sets: Vec<String>,
    },
    /// Talk to a model in the terminal.
    Chat {
        /// The conversation's TOML file, such as configs/infer/chat.toml.
        config: PathBuf,
        /// Change a key for this run, as in `--set thinking.max_thinking_tokens=500`.
        #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
        sets: Vec<String>,
    },
    /// Show the answers that an evaluation's rules call wrong to a language model (never needed).
    Judge {
        /// The judge's TOML file, such as configs/infer/judge.toml.
        config: PathBuf,
        /// Change a key for this run, as in `--set results=runs/demo/infer`.
        #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
        sets: Vec<String>,
        /// Replace the output folder if it exists.
        #[arg(long)]
        overwrite: bool,
    },
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
        Command::Eval { config, sets, overwrite, ranks } => {
            infer::run::eval(&config, &sets, overwrite, ranks)
        }
        Command::Curve { config, sets, overwrite, ranks } => {
            infer::run::curve(&config, &sets, overwrite, ranks)
        }
        Command::Draw(args) => print(infer::draw::run(&args)),
        Command::Show(args) => print(infer::show::run(&args, shows_colours())),
        Command::Compare(args) => print(infer::compare::run(&args)),
        Command::Generate { config, sets, overwrite } => {
            infer::generate::run(&config, &sets, overwrite)
        }
        Command::Chat { config, sets } => infer::chat::run(&config, &sets),
        Command::Serve { config, sets } => infer::serve::run(&config, &sets),
        Command::Judge { config, sets, overwrite } => infer::judge::run(&config, &sets, overwrite),
    }
}

impl Command {
    /// Its config and overrides; those that run no model have no part for other ranks.
    fn config(&self) -> Option<(&Path, &[String])> {
        match self {
            Command::Eval { config, sets, .. }
            | Command::Curve { config, sets, .. }
            | Command::Generate { config, sets, .. }
            | Command::Chat { config, sets }
            | Command::Serve { config, sets } => Some((config, sets)),
            Command::Draw(_) | Command::Show(_) | Command::Compare(_) | Command::Judge { .. } => {
                None
            }
        }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
