//! The `curate` command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// From a pool of reasoning questions to a small training set, with every row accounted for.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send a pool down the funnel and publish the selected set.
    Run {
        /// The run: a TOML file such as configs/curate/s1k.toml.
        config: PathBuf,
        /// Override one value of the config, such as selection.target=200; may be repeated.
        #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
        sets: Vec<String>,
        /// Replace the output folder if it exists.
        #[arg(long)]
        overwrite: bool,
    },
}

fn main() -> ExitCode {
    let Command::Run { config, sets, overwrite } = Arguments::parse().command;
    match curate::run::run(&config, &sets, overwrite) {
        Ok(summary) => {
            print!("{summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
