//! The `train` program: `train run CONFIG`, `train show CONFIG`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use c10d::Rank;
use clap::{Parser, Subcommand};
use train::config::Config;
use train::launch::{follow_launcher, is_launched, launch};
use train::run::{Request, prepare, run};
use train::show;

/// Full-parameter fine-tuning of Qwen2.5 on reasoning traces.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train as a config file says; ends with a checkpoint in Hugging Face layout.
    Run {
        /// The run's TOML file.
        config: PathBuf,
        /// Processes to start on this machine; leave it out under torchrun or srun.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        ranks: Option<u16>,
        /// Override a value of the config, as section.key=value.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        sets: Vec<String>,
        /// Replace the output folder of an earlier run.
        #[arg(long)]
        overwrite: bool,
    },
    /// Show what would be trained: an example with its trained tokens, or a check of all rows.
    /// Needs the model's tokenizer, no weights.
    Show {
        /// The run's TOML file.
        config: PathBuf,
        /// The row to show, from 1; without it all rows are checked.
        #[arg(long)]
        row: Option<usize>,
        /// Check all rows: totals, lengths, over-long and refused rows, duplicates.
        #[arg(long)]
        check: bool,
        /// A line for each token of the row.
        #[arg(long, requires = "row")]
        ids: bool,
        /// Override a value of the config, as section.key=value.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        sets: Vec<String>,
    },
}

fn main() -> ExitCode {
    c10d::aten::keep_freed_memory();
    match start(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What is wrong on every rank is said once: rank 0's end makes the launcher stop the
            // others before they get to speak.
            if is_launched() && std::env::var("RANK").is_ok_and(|rank| rank != "0") {
                thread::sleep(Duration::from_secs(2));
            }
            let text = format!("error: {error:#}\n");
            let _ = std::io::stderr().write_all(text.as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> Result<()> {
    match command {
        Command::Run { config, ranks, sets, overwrite } => train(config, ranks, sets, overwrite),
        Command::Show { config, row, check, ids, sets } => {
            let (config, _) = record::config::load::<Config>(&config, &sets)?;
            let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let colour = std::io::stdout().is_terminal() && !no_colour;
            show::print(&show::show(&config, show::Request { row, check, ids, colour })?)
        }
    }
}

fn train(config: PathBuf, ranks: Option<u16>, sets: Vec<String>, overwrite: bool) -> Result<()> {
    let request = Request { config, sets, overwrite };
    if is_launched() {
        follow_launcher();
        return run(&request, &Rank::from_env()?);
    }
    let outside = Rank::from_env()?;
    match ranks.map(usize::from) {
        Some(_) if outside.world_size > 1 => {
            bail!("--ranks starts processes itself; leave it out under torchrun or srun")
        }
        Some(ranks) if ranks > 1 => {
            prepare(&request, ranks)?;
            launch(ranks)
        }
        _ => run(&request, &outside),
    }
}
