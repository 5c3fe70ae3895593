//! The `train` program: plan, run, resume, and look at examples and at what a run saved.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Error, Result, bail};
use c10d::Rank;
use c10d::aten::exit_at_once;
use clap::{Parser, Subcommand, ValueEnum};
use train::commands::export::{self, export};
use train::commands::runs::runs;
use train::commands::verify::verify;
use train::config::{Config, SaveDtype};
use train::culprits::{Culprits, Said};
use train::folder::RunFolder;
use train::launch::{follow_launcher, is_launched, launch};
use train::mishap::unbroken;
use train::plan;
use train::run::{Ending, Request, prepare, ranks_before, run};
use train::show;
use train::signals::{self, AGAIN};

/// Full-parameter fine-tuning of Qwen2.5 on reasoning traces.
///
/// Exit codes: 0, all is done; 75, it was asked to leave (SIGTERM or SIGUSR1 to any of its
/// processes), and all is saved: `train resume` goes on; 1, an error, which is printed; 2, a
/// command line that is not understood.
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
    /// What a run will need: memory of a GPU by parts, time, cost. Needs no GPU and no weights.
    Plan(plan::command::Request),
    /// Go on with a run from its newest whole checkpoint.
    ///
    /// Paths in the run's config are as they were given: start it from the same place. It may run
    /// on another number of ranks.
    Resume {
        /// The run's folder.
        folder: PathBuf,
        /// Processes to start on this machine; without it, as many as before.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        ranks: Option<u16>,
    },
    /// List a run's checkpoints: step, age, size, state.
    Runs {
        /// The run's folder, or one that holds runs.
        folder: PathBuf,
    },
    /// Check digests, and that everything can be loaded.
    Verify {
        /// A run's folder, one of its checkpoints, or any published folder.
        folder: PathBuf,
    },
    /// Make a Hugging Face folder from a checkpoint.
    Export {
        /// The run's folder.
        folder: PathBuf,
        /// Such as step-000120; without it, the newest whole one.
        #[arg(long)]
        checkpoint: Option<String>,
        /// The weights' kind; without it, as the run's config says.
        #[arg(long)]
        dtype: Option<Dtype>,
        /// The new folder; without it, `exported/CHECKPOINT` in the run's folder.
        #[arg(long)]
        output: Option<PathBuf>,
        /// Replace an earlier export.
        #[arg(long)]
        overwrite: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Dtype {
    Float32,
    Bfloat16,
}

fn main() {
    let command = Cli::parse().command;
    let ended = unbroken(|| start(command));
    let code = match ended {
        Ok(Ending::Finished) => 0,
        Ok(Ending::Left) => AGAIN,
        Err(error) => {
            tell(&error);
            1
        }
    };
    // Threads of libtorch, or of a save that was given up, may still be at work.
    let _ = std::io::stdout().flush();
    exit_at_once(code.into());
}

fn tell(error: &Error) {
    if error.is::<Said>() {
        return;
    }
    // What is wrong on every rank is said once: rank 0's end makes the launcher stop the others
    // before they get to speak. torchrun and srun take longer to notice than our own launcher.
    let is_rank_0 = Rank::from_env().is_ok_and(|rank| rank.rank == 0);
    if !is_rank_0 && !error.is::<Culprits>() {
        thread::sleep(Duration::from_secs(if is_launched() { 2 } else { 6 }));
    }
    let text = format!("error: {error:#}\n");
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn start(command: Command) -> Result<Ending> {
    let finished = |text: String| {
        print!("{text}");
        Ok(Ending::Finished)
    };
    match command {
        Command::Plan(request) => {
            show::print(&plan::command::run(&request)?)?;
            Ok(Ending::Finished)
        }
        Command::Run { config, ranks, sets, overwrite } => {
            train(&Request { config, sets, overwrite, resume: false }, ranks)
        }
        Command::Resume { folder, ranks } => {
            let sets = Vec::new();
            train(&Request { config: folder, sets, overwrite: false, resume: true }, ranks)
        }
        Command::Show { config, row, check, ids, sets } => {
            let (config, _) = record::config::load::<Config>(&config, &sets)?;
            let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let colour = std::io::stdout().is_terminal() && !no_colour;
            show::print(&show::show(&config, show::Request { row, check, ids, colour })?)?;
            Ok(Ending::Finished)
        }
        Command::Runs { folder } => finished(runs(&folder)?),
        Command::Verify { folder } => finished(verify(&folder)?),
        Command::Export { folder, checkpoint, dtype, output, overwrite } => {
            let dtype = dtype.map(|dtype| match dtype {
                Dtype::Float32 => SaveDtype::Float32,
                Dtype::Bfloat16 => SaveDtype::Bfloat16,
            });
            finished(export(&export::Request { folder, checkpoint, dtype, output, overwrite })?)
        }
    }
}

fn train(request: &Request, ranks: Option<u16>) -> Result<Ending> {
    signals::listen()?;
    if is_launched() {
        signals::leave_at_once(true);
        follow_launcher();
        return run(request, &Rank::from_env()?);
    }
    let outside = Rank::from_env()?;
    if outside.world_size > 1 && ranks.is_some() {
        bail!("--ranks starts processes itself; leave it out under torchrun or srun");
    }
    let ranks = match ranks {
        Some(ranks) => ranks.into(),
        None if request.resume => ranks_before(&request.config)?,
        None => 1,
    };
    if ranks > 1 && outside.world_size == 1 {
        let config = prepare(request, ranks)?;
        return launch(ranks, &RunFolder::new(config.output).ranks());
    }
    signals::leave_at_once(true);
    run(request, &outside)
}
