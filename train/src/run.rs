//! A whole run: read, train, export.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use c10d::{Backend, Group, Rank};
use model::chat::Chat;
use model::{Checkpoint, Config as ModelConfig, Unit};
use record::publish::{self, Input, Manifest, OutputFolder};
use tch::{Device, Kind, Tensor};

use crate::config::{Config, Init};
use crate::data::{self, Examples, MicroBatch, Order};
use crate::export::export;
use crate::init::random_unit;
use crate::launch::is_launched;
use crate::optimizer::{learning_rate, warmup_steps};
use crate::progress::{Metrics, Progress};
use crate::shards::Shards;
use crate::step::{Measured, Trainer};

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

/// Whether `path` exists inside `folder`, links resolved.
fn lies_in(path: &Path, folder: &Path) -> bool {
    let (path, folder) = (fs::canonicalize(path), fs::canonicalize(folder));
    matches!((path, folder), (Ok(path), Ok(folder)) if path.starts_with(&folder))
}

/// Runs this rank's part. Rank 0 prints and writes.
///
/// # Errors
/// See the stages; nothing is left half-written: `checkpoint/` appears whole or not at all.
pub fn run(request: &Request, rank: &Rank) -> Result<()> {
    let (config, table) = prepare(request, rank.world_size)?;
    let base = model::hub::model_folder(&config.model.path)?;
    let chat = Chat::read(&base)?;
    let examples = Examples::read(&config.data, &chat, rank.rank == 0)?;
    let lead = (rank.rank == 0).then(|| RunFolder::new(&config.output));
    let (device, backend) = choose_device(rank)?;
    let timeout = Duration::from_secs(config.distributed.timeout_seconds);
    let group = Group::connect(rank, backend, timeout)?;
    let shards = load_shards(&config, &base, group, device)?;
    let order = Order::new(&config, examples.examples.len());
    let mut manifest_of_run = None;
    if let Some(lead) = &lead {
        lead.create(&table, &examples)?;
        describe(&config, &shards, &examples, &order);
        manifest_of_run = Some(manifest(&config, table, &base, &examples)?);
    }
    let positions = config.data.block_size as i64;
    let mut trainer = Trainer::new(shards, &config.optimizer, positions);
    let progress =
        lead.as_ref().map(|lead| Progress::new(&lead.path, order.steps())).transpose()?;
    let progress = train(&config, &examples, &order, &mut trainer, progress)?;

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

/// The loop over optimizer steps. What a step measured is read while the next one runs.
fn train(
    config: &Config,
    examples: &Examples,
    order: &Order,
    trainer: &mut Trainer,
    mut progress: Option<Progress>,
) -> Result<Option<Progress>> {
    let (rank, world) = (trainer.shards.group.rank(), trainer.shards.group.world_size());
    let (steps, mut tokens) = (order.steps(), 0);
    let mut waiting: Option<(Metrics, Measured)> = None;
    for step in 0..steps {
        let batch: Vec<_> = order.step(step).iter().map(|&i| &examples.examples[i]).collect();
        tokens += batch.iter().map(|example| example.ids.len()).sum::<usize>();
        let rate = learning_rate(
            config.optimizer.learning_rate,
            config.schedule.warmup_ratio,
            step,
            steps,
        );
        let micro_batches: Vec<MicroBatch> =
            data::share(&batch, config.batch.micro_batch, rank, world)
                .iter()
                .map(|part| MicroBatch::pack(part, batch.len(), trainer.shards.device))
                .collect();
        let measured = trainer.step(&micro_batches, rate)?;
        let epoch = (step + 1) as f64 / order.steps_per_epoch() as f64;
        let metrics = Metrics {
            step: step + 1,
            epoch,
            loss: 0.0,
            grad_norm: 0.0,
            learning_rate: rate,
            tokens,
        };
        if let Some(earlier) = waiting.replace((metrics, measured)) {
            note(earlier, progress.as_mut())?;
        }
    }
    if let Some(last) = waiting {
        note(last, progress.as_mut())?;
    }
    Ok(progress)
}

/// Reads a step's numbers and records them; all ranks stop together at one that is not finite.
fn note(
    (mut metrics, measured): (Metrics, Measured),
    progress: Option<&mut Progress>,
) -> Result<()> {
    metrics.loss = measured.loss.double_value(&[]);
    metrics.grad_norm = measured.grad_norm.double_value(&[]);
    ensure!(
        metrics.loss.is_finite() && metrics.grad_norm.is_finite(),
        "step {}: loss {} and gradient norm {} are not finite; lower learning_rate, or look at the \
         examples of this step",
        metrics.step,
        metrics.loss,
        metrics.grad_norm
    );
    progress.map_or(Ok(()), |progress| progress.step(metrics))
}

/// CUDA when libtorch has it and a device is there, one a local rank; else the CPU.
///
/// # Errors
/// Fewer devices than local ranks (a launcher that shows each rank one device is fine).
fn choose_device(rank: &Rank) -> Result<(Device, Backend)> {
    if !c10d::aten::load_cuda() || !tch::Cuda::is_available() {
        return Ok((Device::Cpu, Backend::Gloo));
    }
    let devices = tch::Cuda::device_count() as usize;
    // Slurm may show each rank its own device alone; our own launcher shows all to all.
    let device = if devices == 1 && !is_launched() { 0 } else { rank.local_rank };
    ensure!(
        device < devices,
        "local rank {} has no GPU of its own: {devices} are visible; start as many ranks, or set \
         CUDA_VISIBLE_DEVICES= to train on the CPU",
        rank.local_rank
    );
    Ok((Device::Cuda(device), Backend::Nccl))
}

fn load_shards(config: &Config, base: &Path, group: Group, device: Device) -> Result<Shards> {
    let model = ModelConfig::read(base)?;
    let longest = model.max_position_embeddings;
    ensure!(
        config.data.block_size as i64 <= longest,
        "block_size {} is more than the model's max_position_embeddings {longest}",
        config.data.block_size
    );
    match config.model.init {
        Init::Random => {
            let seed = config.seed;
            let shape = model.clone();
            Shards::new(model, group, device, |unit| Ok(random_unit(&shape, unit, seed)))
        }
        Init::Checkpoint => {
            let checkpoint = Checkpoint::open(base)?;
            let flat = |unit: &Unit| -> Result<Tensor> { checkpoint.read_unit(unit, Kind::Float) };
            Shards::new(model, group, device, flat)
        }
    }
}

fn ranks(count: usize) -> String {
    if count == 1 { "1 rank".to_string() } else { format!("{count} ranks") }
}

/// The derived quantities, so that a wrong config is seen in the first lines.
fn describe(config: &Config, shards: &Shards, examples: &Examples, order: &Order) {
    let world = shards.group.world_size();
    let passes = config.batch.global_batch / (config.batch.micro_batch * world);
    let weights = match config.model.init {
        Init::Checkpoint => "its weights",
        Init::Random => "fresh random weights",
    };
    let kind = if shards.compute == Kind::BFloat16 { "bfloat16" } else { "float32" };
    let device = if shards.device.is_cuda() { "GPU" } else { "CPU" };
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
        "steps     {} = {} epochs x {}, {} with a rising rate; {} examples a step = {world} x \
         {passes} x {} (ranks x passes x micro_batch)",
        order.steps(),
        config.schedule.epochs,
        order.steps_per_epoch(),
        warmup_steps(config.schedule.warmup_ratio, order.steps()),
        config.batch.global_batch,
        config.batch.micro_batch
    );
}

/// A run's folder: logs grow in it while training, `checkpoint/` appears whole at the end, and the
/// summary last.
struct RunFolder {
    path: PathBuf,
}

/// Marks a run's folder and says what it runs.
const RUN_FILE: &str = "run.toml";
/// Marks a run that reached its end.
const SUMMARY: &str = "summary.txt";

impl RunFolder {
    fn new(output: &str) -> Self {
        Self { path: PathBuf::from(output) }
    }

    /// Where an earlier run waits until the new one has reached its end.
    fn aside(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!("{name}.replaced"))
    }

    /// Refuses a folder that holds something, unless it is an earlier run's and to be replaced.
    fn check(&self, overwrite: bool) -> Result<()> {
        let place = self.path.display();
        ensure!(!self.path.is_file(), "output {place} is a file; name a folder");
        let filled = |mut entries: fs::ReadDir| entries.next().is_some();
        if !fs::read_dir(&self.path).is_ok_and(filled) {
            return Ok(());
        }
        ensure!(
            overwrite,
            "{place} exists; pass --overwrite to replace it, or --set output=... for another"
        );
        ensure!(
            self.path.join(RUN_FILE).exists(),
            "{place} is not a run's folder ({RUN_FILE} is not in it); remove it yourself or choose \
             another output"
        );
        Ok(())
    }

    /// Starts the folder anew. An earlier run that reached its end is only moved aside, until this
    /// one has reached its own; one that did not is removed.
    fn create(&self, table: &toml::Table, examples: &Examples) -> Result<()> {
        let place = || self.path.display().to_string();
        if self.path.join(SUMMARY).exists() {
            if self.aside().exists() {
                fs::remove_dir_all(self.aside()).with_context(place)?;
            }
            fs::rename(&self.path, self.aside()).with_context(place)?;
            eprintln!("replaces  the run that waits in {} until the end", self.aside().display());
        } else if self.path.exists() {
            fs::remove_dir_all(&self.path).with_context(place)?;
        }
        fs::create_dir_all(&self.path).with_context(place)?;
        let text = format!("# The effective config of this run.\n{}", toml::to_string(table)?);
        fs::write(self.path.join(RUN_FILE), text).with_context(place)?;
        if !examples.over_long.is_empty() {
            let lines = examples.over_long.join("\n") + "\n";
            fs::write(self.path.join("over_long.txt"), &lines).with_context(place)?;
            let count = examples.over_long.len();
            eprintln!("over-long {count} examples, listed in {}/over_long.txt", place());
        }
        Ok(())
    }

    fn checkpoint(&self) -> Result<OutputFolder> {
        OutputFolder::create(&self.path.join("checkpoint"), false)
    }

    fn summarise(
        &self,
        trainer: &Trainer,
        examples: &Examples,
        order: &Order,
        history: &[Metrics],
        time: Duration,
    ) -> Result<()> {
        let tail = &history[history.len().saturating_sub(10)..];
        let last = tail.iter().map(|metrics| metrics.loss).sum::<f64>() / tail.len() as f64;
        let place = self.path.display();
        let text = format!(
            "parameters       {}\n\
             examples         {} ({} tokens, {} trained)\n\
             steps            {} of {} examples, on {}\n\
             loss             first step {:.4}, mean of the last {} steps {last:.4}\n\
             checkpoint       {place}/checkpoint\n\
             metrics          {place}/metrics.jsonl, {place}/tensorboard\n",
            trainer.shards.config.num_parameters(),
            examples.examples.len(),
            examples.tokens(),
            examples.trained_tokens(),
            order.steps(),
            order.global_batch(),
            ranks(trainer.shards.group.world_size()),
            history[0].loss,
            tail.len()
        );
        fs::write(self.path.join(SUMMARY), &text).context("writing summary.txt")?;
        if self.aside().exists() {
            fs::remove_dir_all(self.aside()).context("removing the replaced run")?;
        }
        let seconds = time.as_secs_f64();
        let tokens = history.last().map_or(0, |metrics| metrics.tokens);
        println!("{text}time             {seconds:.1} s, {:.0} tokens/s", tokens as f64 / seconds);
        Ok(())
    }
}
