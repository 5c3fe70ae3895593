//! A whole run, from its beginning or from its last checkpoint: read, train, save, export.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use c10d::Rank;
use model::chat::Chat;
use model::{Layout, Unit};
use record::lock::Lock;
use record::publish::{self, Input, Manifest, Published};
use tch::{Kind, Tensor};

use crate::checkpoints::{Checkpoint, Checkpoints};
use crate::config::{Config, Init, Schedule};
use crate::data::{self, Examples, Order};
use crate::export::export;
use crate::fits::{self, Planned};
use crate::folder::{RunFolder, lies_in};
use crate::optimizer::{learning_rate, warmup_steps};
use crate::plan::Job;
use crate::progress::{Metrics, Progress};
use crate::save::{Provenance, Saver};
use crate::shards::Shards;
use crate::state::{self, State};
use crate::step::Trainer;
use crate::together::Together;
use crate::trace::Stage;
use crate::words::counted;
use crate::{balance, culprits, fault, mishap, recipe, save, setup, signals};

/// What `train run` or `train resume` was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The run's TOML file; to resume, its folder.
    pub config: PathBuf,
    /// `section.key=value` overrides.
    pub sets: Vec<String>,
    /// Replace an earlier run's folder.
    pub overwrite: bool,
    /// Go on with the run in the folder `config`.
    pub resume: bool,
}

/// How a run ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its model is exported.
    Finished,
    /// It was asked to leave, and can be resumed.
    Left,
}

/// Why a run's work stops in its middle: it was asked to leave.
#[derive(Debug)]
struct Leaving;

impl fmt::Display for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("asked to leave")
    }
}

impl std::error::Error for Leaving {}

/// Everything that can be said against a run before any work is done.
///
/// # Errors
/// An unreadable or contradictory config, an output that must not be replaced, or one that another
/// process is writing.
pub fn prepare(request: &Request, world_size: usize) -> Result<Config> {
    let (config, _) = read_config(request, world_size)?;
    let folder = RunFolder::new(&config.output);
    if folder.path.exists() {
        drop(folder.lock()?);
    }
    check_output(request, &config)?;
    Ok(config)
}

/// The config and the table of effective values.
fn read_config(request: &Request, world_size: usize) -> Result<(Config, toml::Table)> {
    let file = match request.resume {
        true => RunFolder::new(&request.config).config()?,
        false => request.config.clone(),
    };
    let (mut config, _) = record::config::load::<Config>(&file, &request.sets)?;
    // With every default as it is today: another may hold when the record is read.
    let table = toml::Table::try_from(&config).context("the effective config")?;
    config.check(world_size).with_context(|| file.display().to_string())?;
    if request.resume {
        // It may have been moved.
        config.output = request.config.display().to_string();
    }
    Ok((config, table))
}

fn check_output(request: &Request, config: &Config) -> Result<()> {
    if request.resume {
        return Ok(());
    }
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
    Ok(())
}

/// How many ranks the run in `folder` had: at its newest checkpoint, or when it began.
pub fn ranks_before(folder: &Path) -> Result<usize> {
    let run = RunFolder::new(folder);
    run.config()?;
    let newest = Checkpoints::of(folder).list()?.into_iter().rev();
    let state = newest.into_iter().find_map(|checkpoint| State::read(&checkpoint.path).ok());
    state.map_or_else(|| run.world_size(), |state| Ok(state.world_size))
}

/// What a rank has when it is ready to train.
struct Ready {
    config: Config,
    base: PathBuf,
    examples: Arc<Examples>,
    /// BLAKE3 of their tokens.
    digest: String,
    order: Order,
    together: Together,
    checkpoints: Checkpoints,
    trainer: Trainer,
    /// The step and tokens that the run goes on from, and whether they are saved.
    from: Option<State>,
    /// What rank 0 alone has.
    lead: Option<Lead>,
}

struct Lead {
    folder: RunFolder,
    provenance: Arc<Provenance>,
    planned: Planned,
    _lock: Lock,
}

/// Runs this rank's part. Rank 0 prints and writes; every rank writes its slices.
///
/// # Errors
/// See the stages; nothing is left half-written: checkpoints and `checkpoint/` appear whole or not
/// at all.
pub fn run(request: &Request, rank: &Rank) -> Result<Ending> {
    c10d::memory::count_cpu();
    c10d::memory::keep_freed();
    let (config, table) = read_config(request, rank.world_size)?;
    let folder = RunFolder::new(&config.output);
    if request.resume && folder.is_finished() {
        if rank.rank == 0 {
            println!("the run in {} has reached its end", config.output);
        }
        return Ok(Ending::Finished);
    }
    let lock = (rank.rank == 0).then(|| folder.lock()).transpose()?;
    check_output(request, &config)?;
    let mut ready = get_ready(request, config, table, rank, lock)?;
    let ranks = folder.ranks();
    ready.trainer.trace.open(&ranks, rank.rank, &Layout::new(&ready.trainer.shards.config))?;
    ready.together.watch(ranks.clone());
    let ending = mishap::unbroken(|| {
        let ending = if ready.together.begin()? { work(&mut ready)? } else { Ending::Left };
        ready.trainer.trace.note(Stage::Left, 0, 0);
        ready.together.part()?;
        Ok(ending)
    });
    let Ready { trainer, together, .. } = &ready;
    let ending = ending.map_err(|error| culprits::name(error, &trainer.trace, &ranks, together));
    if ending.is_err() {
        trainer.trace.note(Stage::Left, 0, 0);
    }
    ending
}

/// Reads, connects, and finds the checkpoint to go on from. Everything here may take long, and no
/// collective waits for it.
fn get_ready(
    request: &Request,
    config: Config,
    table: toml::Table,
    rank: &Rank,
    lock: Option<Lock>,
) -> Result<Ready> {
    let (device, mesh) = setup::connect(&config, rank)?;
    let together = Together::new(&mesh.world)?;
    fault::strike(rank.rank, 0, "prepare");
    let base = model::hub::model_folder(&config.model.path)?;
    let model = setup::read_model(&config, &base)?;
    let chat = Chat::read(&base)?;
    chat.check_template()?;
    let examples = Arc::new(Examples::read(&config.data, &chat, rank.rank == 0)?);
    let digest = state::digest(&examples.examples);
    let order = Order::new(&config, examples.examples.len());
    let folder = RunFolder::new(&config.output);
    let checkpoints = Checkpoints::of(&folder.path);
    let found = match request.resume {
        true => checkpoints.newest(&together)?,
        false => None,
    };
    let from = found.as_ref().map(|(checkpoint, _)| State::read(&checkpoint.path)).transpose()?;
    if let Some((state, (_, published))) = from.as_ref().zip(found.as_ref()) {
        state.check(&digest, &model, &config)?;
        recipe::check(&published.manifest.config, &table)?;
    }
    let job = Job::before(&config, model.clone(), (device, &mesh.world), order.steps())?;
    let planned = fits::check(&config, &job, &examples, &order, &together)?;
    let shards = match &from {
        Some(_) => setup::empty_shards(&config, model, mesh, device)?,
        None => setup::load_shards(&config, model, &base, mesh, device)?,
    };
    let Config { optimizer, memory, guard, .. } = &config;
    let positions = config.data.block_size as i64;
    let mut trainer = Trainer::new(shards, positions, optimizer, memory, guard);
    trainer.job = Job { limit: trainer.job.limit, ..job };
    if let (Some(state), Some((checkpoint, _))) = (&from, &found) {
        state.restore(&checkpoint.path, &mut trainer)?;
    }
    let lead = match lock.zip(planned) {
        None => None,
        Some((lock, planned)) => {
            if !request.resume {
                folder.create(&table, &examples, rank.world_size)?;
            }
            checkpoints.open()?;
            folder.clear_ranks()?;
            fault::strike(rank.rank, 0, "folder");
            describe(&config, &trainer.shards, &examples, &order);
            eprintln!("memory    {}", planned.text);
            tell_start(request, from.as_ref().zip(found.as_ref()));
            let provenance = provenance(&config, table, &base, &examples, found);
            Some(Lead { folder, provenance: Arc::new(provenance), planned, _lock: lock })
        }
    };
    together.meet("folder", "")?;
    Ok(Ready { config, base, examples, digest, order, together, checkpoints, trainer, from, lead })
}

fn tell_start(request: &Request, from: Option<(&State, &(Checkpoint, Published))>) {
    match from {
        Some((state, (_, published))) => eprintln!(
            "resumes   step {}, example {}, digest {}",
            state.step, state.example, published.digest
        ),
        None if request.resume => eprintln!("resumes   from the beginning: nothing was saved yet"),
        None => {}
    }
}

/// What all checkpoints and the model will say they were made from: the inputs that the first one
/// named, else the digests of what was read, reckoned while training goes on.
fn provenance(
    config: &Config,
    table: toml::Table,
    base: &Path,
    examples: &Arc<Examples>,
    found: Option<(Checkpoint, Published)>,
) -> Provenance {
    let known = |(_, published): &(Checkpoint, Published)| {
        published.manifest.inputs.iter().all(|input| input.sha256 != save::UNKNOWN)
    };
    if let Some((_, published)) = found.filter(known) {
        let files = Default::default();
        return Provenance::known(Manifest { config: table, files, ..published.manifest });
    }
    let (base, examples, name) = (base.to_owned(), examples.clone(), config.model.path.clone());
    let manifest = Manifest {
        tool: "train".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        command: publish::command(),
        config: table,
        seeds: [("run".to_string(), config.seed)].into(),
        ..Manifest::default()
    };
    Provenance::reckon(manifest, move || {
        // By its name in the config: a model of the hub lies in somebody's cache.
        let base = Input { path: name.clone(), ..publish::input(&base, None)? };
        Ok([examples.inputs()?, vec![base]].concat())
    })
}

/// Trains, and exports the model.
fn work(ready: &mut Ready) -> Result<Ending> {
    let Ready { config, checkpoints, together, trainer, from, lead, order, .. } = &mut *ready;
    let provenance = lead.as_ref().map(|lead| lead.provenance.clone());
    let saved = from.as_ref().map(|state| state.step);
    let mesh = &trainer.shards.mesh;
    let mut saver = Saver::new(together, mesh, checkpoints, &config.checkpoint, provenance, saved);
    let device = trainer.shards.placement.device;
    let progress = lead
        .as_ref()
        .map(|lead| Progress::new(&lead.folder.path, order.steps(), saved.unwrap_or(0), device));
    let mut progress = progress.transpose()?;
    let left = train(ready, &mut saver, progress.as_mut())?;
    ready.trainer.trace.note(Stage::Save, 0, 0);
    let is_saved = saver.finish()?;
    let step = ready.trainer.trace.place().step;
    ensure!(
        is_saved,
        "step {step} is not saved: make room in {}, then `train resume` it",
        ready.config.output
    );
    if left {
        if let Some(lead) = &ready.lead {
            let folder = lead.folder.path.display();
            eprintln!("leaves    step {step} is saved: `train resume {folder}` goes on");
        }
        return Ok(Ending::Left);
    }
    match finish(ready, progress) {
        Ok(()) => Ok(Ending::Finished),
        Err(error) if error.is::<Leaving>() => Ok(Ending::Left),
        Err(error) => Err(error),
    }
}

/// The loop over optimizer steps; whether it was left before its end.
fn train(
    ready: &mut Ready,
    saver: &mut Saver,
    mut progress: Option<&mut Progress>,
) -> Result<bool> {
    let Ready { config, examples, digest, order, trainer, from, .. } = ready;
    let first = from.as_ref().map_or(0, |state| state.step);
    let mut tokens = from.as_ref().map_or(0, |state| state.tokens);
    let steps = order.steps();
    let Schedule { warmup_ratio, .. } = config.schedule;
    trainer.trace.step(first);
    for step in first..steps {
        trainer.trace.step(step + 1);
        trainer.asked = signals::asked();
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
        if let Some(progress) = &mut progress {
            progress.step(metrics, flops_a_rank);
        }
        let done = step + 1;
        if found.asked || done == steps || done.is_multiple_of(config.checkpoint.every_steps) {
            trainer.trace.note(Stage::Save, 0, 0);
            if let Some(progress) = &mut progress {
                progress.sync();
            }
            saver.begin(trainer, State::of(trainer, config, done, tokens, digest))?;
            trainer.trace.note(Stage::Idle, 0, 0);
        }
        if found.asked {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where rank 0 says how the export ended.
const EXPORTED: &str = "exported";
const LEFT: &str = "left";

/// Rank 0 exports the model from the last checkpoint; the others wait.
fn finish(ready: &mut Ready, progress: Option<Progress>) -> Result<()> {
    let Ready { together, trainer, lead, .. } = &*ready;
    trainer.trace.note(Stage::Export, 0, 0);
    let (Some(lead), Some(progress)) = (lead, progress) else {
        let word = together.wait_for(EXPORTED, |word| Some(word.to_owned()))?;
        ensure!(word != LEFT, Leaving);
        return Ok(());
    };
    let exported = export_last(ready, lead);
    let left = exported.as_ref().is_err_and(|error| error.is::<Leaving>());
    if left || exported.is_ok() {
        together.tell(EXPORTED, if left { LEFT } else { "" })?;
    }
    exported?;
    let (history, time) = progress.finish();
    let planned = lead.planned.bytes;
    lead.folder.summarise(trainer, &ready.examples, &ready.order, &history, planned, time)
}

fn export_last(ready: &Ready, lead: &Lead) -> Result<()> {
    let Ready { config, base, checkpoints, order, trainer, .. } = ready;
    let last = checkpoints.path(order.steps());
    let weights = state::weights(&last)?;
    let unless_asked = |unit: &Unit| -> Result<Tensor> {
        ensure!(!ready.together.asked()?, Leaving);
        weights(unit)
    };
    let folder = lead.folder.checkpoint()?;
    let (model, dtype) = (&trainer.shards.config, config.model.save_dtype);
    export(model, unless_asked, dtype, base, folder.path(), None)?;
    folder.finish(lead.provenance.get())
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
        counted(world, "rank")
    );
    eprintln!(
        "examples  {} of {} rows, {} tokens, {} of them trained",
        examples.examples.len(),
        examples.rows,
        examples.tokens(),
        examples.trained_tokens()
    );
    eprintln!(
        "steps     {} = {} epochs x {}, {} with a rising rate; {} examples a step, in passes of up \
         to {} tokens",
        order.steps(),
        config.schedule.epochs,
        order.steps_per_epoch(),
        warmup_steps(config.schedule.warmup_ratio, order.steps()),
        config.batch.global_batch,
        config.batch.micro_batch_tokens
    );
    let longest = examples.examples.iter().map(|example| example.ids.len()).max().unwrap_or(0);
    if longest > config.batch.micro_batch_tokens {
        eprintln!(
            "          an example longer than batch.micro_batch_tokens passes alone; the longest \
             has {longest} tokens"
        );
    }
    if config.batch.global_batch > examples.examples.len() {
        eprintln!(
            "          batch.global_batch = {} is more than the {} examples: some stand in a step \
             more than once",
            config.batch.global_batch,
            examples.examples.len()
        );
    }
}
