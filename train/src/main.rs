//! The `train` program: `train run CONFIG`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use c10d::Rank;
use clap::{Parser, Subcommand};
use train::launch::launch;
use train::run::{Request, run};

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
        #[arg(long)]
        ranks: Option<usize>,
        /// Override a value of the config, as section.key=value.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        sets: Vec<String>,
        /// Replace the output folder of an earlier run.
        #[arg(long)]
        overwrite: bool,
    },
}

fn main() -> ExitCode {
    match start(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(Command::Run { config, ranks, sets, overwrite }: Command) -> Result<()> {
    let launched = std::env::var_os("RANK").is_some();
    match ranks {
        Some(ranks) if ranks > 1 && !launched => launch(ranks),
        _ => run(&Request { config, sets, overwrite }, &Rank::from_env()?),
    }
}
