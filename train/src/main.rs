//! The `train` program: `train run CONFIG`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use c10d::Rank;
use clap::{Parser, Subcommand};
use train::launch::{follow_launcher, is_launched, launch};
use train::run::{Request, prepare, run};

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
}

fn main() -> ExitCode {
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

fn start(Command::Run { config, ranks, sets, overwrite }: Command) -> Result<()> {
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
