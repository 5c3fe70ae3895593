//! `train plan`: from a config and a word about hardware to a [`Plan`].

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use model::Config as Model;
use model::chat::Chat;
use model::hub::tokenizer_folder;

use super::hardware::Hardware;
use super::lengths::Lengths;
use super::{Plan, report, shapes};
use crate::balance::Spread;
use crate::config::Config;
use crate::examples::Examples;
use crate::show::Shown;
use crate::words::counted;

/// What `train plan` was asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Request {
    /// The run's TOML file.
    pub config: PathBuf,
    /// Override a value of the config, as section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// 16x80GB, 2x8x80GB (nodes x GPUs x memory), 1x141GB, cpu or cpu:24GB.
    #[arg(long, value_name = "HARDWARE")]
    pub gpus: String,
    /// Processes that share the CPU.
    #[arg(long)]
    pub ranks: Option<usize>,
    /// Plan without the data: lengths as this set's are modelled.
    #[arg(long, value_name = "SET", ignore_case = true)]
    pub lengths: Option<Spread>,
    /// Plan without the data: the lengths of --lengths, or of the set that data.examples sounds
    /// like, scaled to this mean.
    #[arg(long, value_name = "MEAN")]
    pub tokens: Option<usize>,
    /// As many lengths with --lengths or --tokens; s1K has 1000.
    #[arg(long, default_value_t = 1000)]
    pub examples: usize,
    /// Dollars for a GPU-hour.
    #[arg(long, default_value_t = 2.5)]
    pub price: f64,
    /// Show where the time goes and the rates that were assumed.
    #[arg(long)]
    pub explain: bool,
    /// Replace an assumed rate; --explain lists them.
    #[arg(long = "rate", value_name = "NAME=VALUE")]
    pub rates: Vec<String>,
}

/// Plans, and returns what to print; that the run does not fit is its trouble.
///
/// # Errors
/// A config that cannot be run on that hardware, or data that are not at hand.
pub fn run(request: &Request) -> Result<Shown> {
    let price = request.price;
    ensure!(price.is_finite() && price >= 0.0, "--price {price}: it must be 0 or more dollars");
    let (mut config, _) = record::config::load::<Config>(&request.config, &request.sets)?;
    let place = request.config.display().to_string();
    let mut hardware = Hardware::parse(&request.gpus, request.ranks)?;
    hardware.set_rates(&request.rates)?;
    let (model, folder) = model_of(&config.model.path)?;
    let lengths = match request.lengths.is_some() || request.tokens.is_some() {
        true => {
            let (mean, examples) = (request.tokens, request.examples);
            ensure!(mean != Some(0) && examples > 0, "--tokens and --examples must be above 0");
            let spread = request.lengths.unwrap_or(Spread::of(&config.data.examples));
            Lengths::modelled(spread, mean, examples, config.data.block_size)
        }
        false => lengths_of(&config, folder)?,
    };
    let note = lower_sequence_parallel(&mut config, hardware.ranks());
    let on = hardware.name();
    let plan = Plan::new(&config, model, hardware, lengths).with_context(|| {
        format!("{place} on {on} (--set section.key=value plans another value)")
    })?;
    let text = note + &report::table(&plan, &place, price, request.explain);
    let trouble = (!plan.fits()).then(|| format!("{place} does not fit on {on}"));
    Ok(Shown { text, trouble })
}

/// Lowers `sequence_parallel` to the largest of its divisors that goes with so many ranks, and says
/// so: a run file written for a node is planned on one device as well.
fn lower_sequence_parallel(config: &mut Config, ranks: usize) -> String {
    let wanted = config.distributed.sequence_parallel;
    let goes = |group: usize| {
        let mut config = config.clone();
        config.distributed.sequence_parallel = group;
        config.check(ranks).is_ok()
    };
    let mut divisors = (1..=wanted).rev().filter(|&group| wanted.is_multiple_of(group));
    match divisors.find(|&group| goes(group)) {
        Some(group) if group != wanted => {
            config.distributed.sequence_parallel = group;
            format!(
                "planned with distributed.sequence_parallel = {group}: the config's {wanted} does \
                 not go with {}\n\n",
                counted(ranks, "rank")
            )
        }
        // As it is, or refused with the reason.
        _ => String::new(),
    }
}

/// The model's shape without its weights, and its folder if that is here.
fn model_of(path: &str) -> Result<(Model, Option<PathBuf>)> {
    let folder = Path::new(path);
    if folder.is_dir() {
        return Ok((Model::read(folder)?, Some(folder.to_path_buf())));
    }
    if let Some(shape) = shapes::published(path) {
        return Ok((shape, None));
    }
    let folder = tokenizer_folder(path).context("model.path")?;
    Ok((Model::read(&folder)?, Some(folder)))
}

/// The lengths of the run's own examples.
fn lengths_of(config: &Config, folder: Option<PathBuf>) -> Result<Lengths> {
    let read = || -> Result<Examples> {
        let folder = match folder {
            Some(folder) => folder,
            None => tokenizer_folder(&config.model.path)
                .context("model.path, whose tokenizer counts the tokens")?,
        };
        Examples::read(&config.data, &Chat::read(&folder)?, true)
    };
    let without = "to plan without the data, give --lengths s1K or s1.1 (as they are modelled)";
    let examples = read().map_err(|error| anyhow!("{error:#}\n{without}"))?;
    Ok(Lengths::of(&examples, &config.data.examples))
}
