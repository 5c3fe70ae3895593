//! The `curate` command: its subcommands by name, each with arguments and work in its own module.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use curate::{collect, diff, featurise, report_page, run, select, show, why};

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
    /// Find what the funnel must know of each question: lengths, domains, attempts and grades.
    Featurise(featurise::Args),
    /// Send a pool down the funnel and publish the selected set.
    Run(run::Args),
    /// Select again from a run's lineage, by one criterion or many.
    Select(select::Args),
    /// Tell a question's whole way through the funnel, and what was selected instead of it.
    Why(why::Args),
    /// Compare two sets: the questions of only one, and why the other lost each.
    Diff(diff::Args),
    /// List a set's questions, or show one with its trace and answer.
    Show(show::Args),
    /// Write a set's report as one HTML page.
    Report(report_page::Args),
    /// Print what a shell needs to complete these commands.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Collect(args) => collect::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Featurise(args) => featurise::run(&args),
        Command::Select(args) => select::run(&args),
        Command::Why(args) => why::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Report(args) => report_page::run(&args),
        Command::Completions { shell } => Ok(completions(shell)),
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

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "curate", &mut script);
    String::from_utf8(script).expect("our names are UTF-8")
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
