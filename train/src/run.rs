//! A whole run: read, train, export.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use c10d::Rank;
use model::chat::Chat;
use record::publish::{self, Input, Manifest, OutputFolder};
use tch::Kind;

use crate::config::{Config, Init, Schedule};
use crate::data::{self, Examples, Order};
use crate::export::export;
use crate::folder::{RunFolder, lies_in, ranks};
use crate::optimizer::{learning_rate, warmup_steps};
use crate::plan::{lengths::Lengths, report};
use crate::progress::{Metrics, Progress};
use crate::shards::Shards;
use crate::step::Trainer;
use crate::{balance, mishap, setup};

/// What `train run` was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The run's TOML file.
    pub config: PathBuf,
    /// `section.key=value` overrides.
    pub sets: Vec<String>,
    /// Replace an earlier run's folder.
    pub overwrite: bool,
}

/// Everything that can be said against a run before any work is done; its config and the table of
/// effective values.
///
/// # Errors
/// An unreadable or contradictory config, or an output that must not be replaced.
pub fn prepare(request: &Request, world_size: usize) -> Result<(Config, toml::Table)> {
    let (config, table) = record::config::load::<Config>(&request.config, &request.sets)?;
    config.check(world_size).with_context(|| request.config.display().to_string())?;
    RunFolder::new(&config.output).check(request.overwrite)?;
    for (key, input) in
        [("model.path", &config.model.path), ("data.examples", &config.data.examples)]
    {
        ensure!(
            !lies_in(Path::new(input), Path::new(&config.output)),
            "{key} = {input} lies in the output {}, which this run replaces; choose another output",
            config.output
        );
    }
    Ok((config, table))
}

/// Runs this rank's part. Rank 0 prints and writes.
///
/// # Errors
/// See the stages; nothing is left half-written: `checkpoint/` appears whole or not at all.
pub fn run(request: &Request, rank: &Rank) -> Result<()> {
    c10d::memory::count_cpu();
    c10d::memory::keep_freed();
    let (config, table) = prepare(request, rank.world_size)?;
    let base = model::hub::model_folder(&config.model.path)?;
    let model = setup::read_model(&config, &base)?;
    let chat = Chat::read(&base)?;
    let examples = Examples::read(&config.data, &chat, rank.rank == 0)?;
    let order = Order::new(&config, examples.examples.len());
    let lead = (rank.rank == 0).then(|| RunFolder::new(&config.output));
    let (device, mesh) = setup::connect(&config, rank)?;
    let shards = setup::load_shards(&config, model, &base, mesh, device)?;
    let mut manifest_of_run = None;
    if let Some(lead) = &lead {
        lead.create(&table, &examples)?;
        describe(&config, &shards, &examples, &order);
        manifest_of_run = Some(manifest(&config, table, &base, &examples)?);
    }
    let Config { optimizer, memory, guard, .. } = &config;
    let positions = config.data.block_size as i64;
    let mut trainer = Trainer::new(shards, positions, optimizer, memory, guard);
    if lead.is_some() {
        let (budget, lengths) = (config.batch.micro_batch_tokens, Lengths::of(&examples, ""));
        eprintln!("memory    {}", report::planned(&trainer.job, budget, &lengths, &order));
    }
    let progress = lead.as_ref().map(|lead| Progress::new(&lead.path, order.steps(), device));
    let progress = train(&config, &examples, &order, &mut trainer, progress.transpose()?)?;

    let folder = lead.as_ref().map(RunFolder::checkpoint).transpose()?;
    let path = folder.as_ref().map(OutputFolder::path);
    export(&trainer.shards, config.model.save_dtype, &base, path, None)?;
    if let (Some(lead), Some(folder), Some(progress), Some(manifest)) =
        (lead, folder, progress, manifest_of_run)
    {
        folder.finish(manifest)?;
        let (history, time) = progress.finish()?;
        lead.summarise(&trainer, &examples, &order, &history, time)?;
    }
    Ok(())
}

/// What the checkpoint will say it was made from; reckoned before the first step, of the files
/// that were read.
fn manifest(
    config: &Config,
    table: toml::Table,
    base: &Path,
    examples: &Examples,
) -> Result<Manifest> {
    // By its name in the config: a model of the hub lies in somebody's cache.
    let base = Input { path: config.model.path.clone(), ..publish::input(base, None)? };
    Ok(Manifest {
        tool: "train".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        command: publish::command(),
        config: table,
        inputs: [examples.inputs()?, vec![base]].concat(),
        seeds: [("run".to_string(), config.seed)].into(),
        ..Manifest::default()
    })
}

/// The loop over optimizer steps.
fn train(
    config: &Config,
    examples: &Examples,
    order: &Order,
    trainer: &mut Trainer,
    mut progress: Option<Progress>,
) -> Result<Option<Progress>> {
    let (steps, mut tokens) = (order.steps(), 0);
    let Schedule { warmup_ratio, .. } = config.schedule;
    for step in 0..steps {
        let batch: Vec<_> = order.step(step).iter().map(|&i| &examples.examples[i]).collect();
        let rate = learning_rate(config.optimizer.learning_rate, warmup_ratio, step, steps);
        let shards = &trainer.shards;
        let (model, device) = (&shards.config, shards.placement.device);
        let micro_batches = data::micro_batches(&batch, &config.batch, model, &shards.mesh, device);
        let lengths = batch.iter().map(|example| example.ids.len());
        tokens += lengths.clone().sum::<usize>();
        let flops: f64 = lengths.map(|length| 3.0 * balance::flops(model, length)).sum();
        let flops_a_rank = flops / shards.mesh.world.world_size() as f64;
        let place = || format!("step {} of {steps}", step + 1);
        let found =
            mishap::caught(trainer, |t| t.step(&micro_batches, rate)).with_context(place)?;
        let metrics = Metrics {
            step: step + 1,
            epoch: (step + 1) as f64 / order.steps_per_epoch() as f64,
            loss: found.loss,
            grad_norm: found.grad_norm,
            learning_rate: rate,
            tokens,
            recomputed: found.recomputed,
            skipped: found.skipped,
        };
        progress.as_mut().map_or(Ok(()), |progress| progress.step(metrics, flops_a_rank))?;
    }
    Ok(progress)
}

/// The derived quantities, so that a wrong config is seen in the first lines.
fn describe(config: &Config, shards: &Shards, examples: &Examples, order: &Order) {
    let world = shards.mesh.world.world_size();
    let weights = match config.model.init {
        Init::Checkpoint => "its weights",
        Init::Random => "fresh random weights",
    };
    let kind = if shards.placement.compute == Kind::BFloat16 { "bfloat16" } else { "float32" };
    let device = if shards.placement.device.is_cuda() { "GPU" } else { "CPU" };
    eprintln!(
        "model     {} with {weights}, {} parameters, computed in {kind} on {} of a {device}",
        config.model.path,
        shards.config.num_parameters(),
        ranks(world)
    );
    eprintln!(
        "examples  {} of {} rows, {} tokens, {} of them trained",
        examples.examples.len(),
        examples.rows,
        examples.tokens(),
        examples.trained_tokens()
    );
    eprintln!(
        "steps     {} = {} epochs x {}, {} with a rising rate; {} examples a step, packed to {} \
         tokens",
        order.steps(),
        config.schedule.epochs,
        order.steps_per_epoch(),
        warmup_steps(config.schedule.warmup_ratio, order.steps()),
        config.batch.global_batch,
        config.batch.micro_batch_tokens
    );
}
