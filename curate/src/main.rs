//! The `curate` command: its subcommands by name, each with arguments and work in its own module.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use curate::{collect, run, select};

/// From a pool of reasoning questions to a small training set, with every row accounted for.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read sources of the hub or of this machine into one pool.
    Collect(collect::Args),
    /// Send a pool down the funnel and publish the selected set.
    Run(run::Args),
    /// Select again from a run's lineage, by one criterion or many.
    Select(select::Args),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Collect(args) => collect::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Select(args) => select::run(&args),
    };
    match outcome.and_then(|text| Ok(std::io::stdout().lock().write_all(text.as_bytes())?)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output, `head` for instance, may have enough of it.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
