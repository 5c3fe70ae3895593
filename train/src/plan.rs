//! What a run will need before anything is rented: memory of one rank by parts, time and cost.
//!
//! [`memory`] goes through the step's allocations, [`time`] through the run's steps, both over the
//! packing that [`crate::balance`] gives. Nothing here was measured; `tests/plan.rs` holds the
//! memory against measured peaks.
//!
//! Reading order: [`hardware`], [`shapes`], [`lengths`], [`memory`], [`time`], [`report`],
//! [`command`].

pub mod hardware;

pub mod shapes;

pub mod lengths;

pub mod memory;

pub mod time;

pub mod report;

pub mod command;

use anyhow::{Result, ensure};
use c10d::Group;
use model::{Config as Model, Layout};

use crate::config::{Checkpoint, Config, Memory, Offload, Recompute, ReduceDtype, SaveDtype};
use crate::data::Order;
use crate::shards::{Placement, Shards};
use crate::words::GIB;
use hardware::{Device, Hardware};
use lengths::Lengths;
use memory::Peak;
use time::Estimate;

/// What decides over memory and time of a rank.
#[derive(Debug, Clone)]
pub struct Job {
    /// The model's shape.
    pub model: Model,
    /// Elements of each of its units, in forward order.
    pub units: Vec<f64>,
    /// Where layers compute: in bf16 on GPUs, in fp32 on CPUs.
    pub device: Device,
    /// All ranks.
    pub ranks: usize,
    /// Ranks of one machine.
    pub ranks_per_node: usize,
    /// Ranks that share each micro-batch.
    pub sequence_parallel: usize,
    /// Copies of the sharded model.
    pub replicate: usize,
    /// Bytes of a gradient's element between ranks.
    pub reduce_element: f64,
    /// Which layers run again for their backward.
    pub recompute: Recompute,
    /// Whether master weights and moments live on the host.
    pub offload: bool,
    /// Tokens packed into one pass of a group.
    pub micro_batch_tokens: usize,
    /// The longest segment.
    pub block_size: usize,
    /// Examples of a step.
    pub global_batch: usize,
    /// Whether a copy of the slices that is being saved is in the memory that the run computes in.
    pub snapshot: bool,
    /// Bytes that a rank may use.
    pub limit: f64,
}

impl Job {
    /// The run of `config`, of `steps` steps, on `hardware`.
    ///
    /// # Errors
    /// What [`Config::check`] says against that many ranks.
    pub fn new(config: &Config, model: Model, hardware: &Hardware, steps: usize) -> Result<Self> {
        let ranks = hardware.ranks();
        config.check(ranks)?;
        let group = config.distributed.sequence_parallel as i64;
        let (heads, kv) = (model.num_attention_heads, model.num_key_value_heads);
        ensure!(
            heads % group == 0 && kv % group == 0,
            "distributed.sequence_parallel = {group} must divide the model's {heads} heads and \
             {kv} key/value heads"
        );
        let most = hardware.memory - hardware.reserve();
        let limit = config.memory.limit_gib.map_or(most, |gib| most.min(gib * GIB));
        Ok(Self {
            units: unit_sizes(&model),
            model,
            device: hardware.device,
            ranks,
            ranks_per_node: hardware.ranks_per_node,
            sequence_parallel: config.distributed.sequence_parallel,
            replicate: config.distributed.replicate,
            reduce_element: match config.distributed.reduce_dtype {
                ReduceDtype::Float32 => 4.0,
                ReduceDtype::Bfloat16 => 2.0,
            },
            recompute: config.memory.recompute,
            offload: config.memory.offload == Offload::Optimizer,
            micro_batch_tokens: config.batch.micro_batch_tokens,
            block_size: config.data.block_size,
            global_batch: config.batch.global_batch,
            // Made between two steps, and in this memory if that is the host's.
            snapshot: hardware.device == Device::Cpu && config.checkpoint.every_steps < steps,
            limit,
        })
    }

    /// The steps of a trainer that is in no run: it saves nothing, and its passes and batches are
    /// as they come. Without a limit of its own it may use what is in use now and nine tenths of
    /// what is free; the ranks of a machine share the CPU's memory.
    pub fn of_rank(shards: &Shards, settings: &Memory, positions: i64) -> Self {
        let Placement { device, reduce, offload, .. } = shards.placement;
        let (mesh, is_cuda) = (&shards.mesh, device.is_cuda());
        let ranks_per_node = mesh.world.local_world_size();
        Self {
            model: shards.config.clone(),
            units: unit_sizes(&shards.config),
            device: if is_cuda { Device::Cuda } else { Device::Cpu },
            ranks: mesh.world.world_size(),
            ranks_per_node,
            sequence_parallel: mesh.sequence.world_size(),
            replicate: mesh.replicas.world_size(),
            reduce_element: reduce.elt_size_in_bytes() as f64,
            recompute: settings.recompute,
            offload,
            micro_batch_tokens: usize::MAX,
            block_size: positions as usize,
            limit: limit(settings, device, ranks_per_node),
            global_batch: usize::MAX,
            snapshot: false,
        }
    }

    /// The run, of `steps` steps, that a rank on `device` begins, before it has loaded anything.
    ///
    /// # Errors
    /// As [`Job::new`].
    pub fn before(
        config: &Config,
        model: Model,
        (device, world): (tch::Device, &Group),
        steps: usize,
    ) -> Result<Self> {
        let kind = if device.is_cuda() { Device::Cuda } else { Device::Cpu };
        let hardware = Hardware { device: kind, ..Hardware::cpu(f64::MAX, world.world_size()) };
        let job = Self::new(config, model, &hardware, steps)?;
        let ranks_per_node = world.local_world_size();
        let limit = limit(&config.memory, device, ranks_per_node);
        Ok(Self { ranks_per_node, limit, ..job })
    }

    /// Ranks that hold one copy of the parameters together.
    pub fn shards(&self) -> usize {
        self.ranks / self.replicate
    }

    /// Groups with micro-batches of their own.
    pub fn groups(&self) -> usize {
        self.ranks / self.sequence_parallel
    }

    /// Whether a step can have a second pass, which finds the first one's gradient.
    pub fn several_passes(&self) -> bool {
        self.global_batch > self.groups()
    }

    /// Tokens of one rank of a group that passes over `tokens`, and how many of the pass's
    /// `targets` it may have to predict: they are where the trained tokens are, perhaps all on
    /// this rank. An empty pass has one of each.
    pub fn part(&self, tokens: usize, targets: usize) -> (i64, i64) {
        let tokens = tokens.div_ceil(self.sequence_parallel).max(1);
        (tokens as i64, targets.clamp(1, tokens) as i64)
    }

    /// Bytes of an element that layers compute with.
    pub fn element(&self) -> f64 {
        if self.device == Device::Cuda { 2.0 } else { 4.0 }
    }
}

fn limit(settings: &Memory, device: tch::Device, ranks_per_node: usize) -> f64 {
    let sharing = if device.is_cuda() { 1 } else { ranks_per_node };
    let free = 0.9 * c10d::memory::available(device) as f64 / sharing as f64;
    match settings.limit_gib {
        Some(gib) => gib * GIB,
        None => c10d::memory::allocated(device) as f64 + free,
    }
}

fn unit_sizes(model: &Model) -> Vec<f64> {
    Layout::new(model).units.iter().map(|unit| unit.numel() as f64).collect()
}

/// The examples of the steps that a plan goes through: an epoch at least, and not all of a run of
/// many.
pub fn batches(order: &Order) -> Vec<Vec<usize>> {
    let enough = order.steps_per_epoch().max(1000);
    (0..order.steps().min(enough)).map(|step| order.step(step)).collect()
}

/// The answer of `train plan`.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What was planned.
    pub job: Job,
    /// On what.
    pub hardware: Hardware,
    /// Over which lengths.
    pub lengths: Lengths,
    /// The pass that needs most memory.
    pub peak: Peak,
    /// The longest example that fits on its own, in tokens.
    pub longest: usize,
    /// What to change, in this order, until it fits; empty if it does.
    pub cures: Vec<Cure>,
    /// The whole run; if that does not fit, with the first cure that makes it fit.
    pub estimate: Estimate,
    /// Bytes of checkpoints and exported model on the disk.
    pub on_disk: f64,
    /// The same data and hardware in s1's own way.
    pub as_s1_ran: Estimate,
}

/// A change and what it brings, all changes before it included.
#[derive(Debug, Clone)]
pub struct Cure {
    /// The setting, as it is written in the config.
    pub change: String,
    /// The peak with it, in bytes.
    pub peak: f64,
    /// Whether that fits.
    pub fits: bool,
    /// The run with it.
    pub job: Job,
    /// What the examples are cut to.
    pub length: usize,
}

impl Cure {
    fn new(job: &Job, change: String, peak: f64, length: usize) -> Self {
        Self { change, peak, fits: peak <= job.limit, job: job.clone(), length }
    }
}

impl Plan {
    /// Plans the run of `config` for the examples of `lengths` on `hardware`.
    pub fn new(
        config: &Config,
        model: Model,
        hardware: Hardware,
        lengths: Lengths,
    ) -> Result<Self> {
        let order = Order::new(config, lengths.tokens.len());
        let job = Job::new(config, model, &hardware, order.steps())?;
        let batches = batches(&order);
        let peak = memory::largest(&job, &lengths, &batches);
        let of_cut =
            |job: &Job, length: usize| memory::largest(job, &lengths.cut(length), &batches).bytes();
        let cures = if peak.bytes() > job.limit {
            cures(&job, lengths.longest(), of_cut)
        } else {
            Vec::new()
        };
        let of = |job: &Job, rates, lengths: &Lengths| {
            let found = time::estimate(job, rates, lengths, &batches);
            Estimate { steps: order.steps(), ..found }
        };
        let (s1_job, s1_rates) = time::as_s1_ran(&job, &hardware.rates);
        Ok(Self {
            longest: memory::longest(&job),
            estimate: match cures.iter().find(|cure| cure.fits) {
                Some(cure) => of(&cure.job, &hardware.rates, &lengths.cut(cure.length)),
                None => of(&job, &hardware.rates, &lengths),
            },
            as_s1_ran: of(&s1_job, &s1_rates, &lengths),
            on_disk: OnDisk::of(config, &job, order.steps()).bytes(0),
            cures,
            peak,
            job,
            hardware,
            lengths,
        })
    }

    /// What the estimate is of: the job, or the first cure with which it fits; none if nothing is
    /// enough.
    pub fn timed(&self) -> Option<&Job> {
        match self.fits() {
            true => Some(&self.job),
            false => self.cures.iter().find(|cure| cure.fits).map(|cure| &cure.job),
        }
    }

    /// Whether the largest pass fits into what a rank may use.
    pub fn fits(&self) -> bool {
        self.peak.bytes() <= self.job.limit
    }
}

/// What a run has on the disk at the most.
#[derive(Debug, Clone, Copy)]
pub struct OnDisk {
    /// Checkpoints: those that stay, and the one in the making.
    pub checkpoints: usize,
    /// Bytes of each.
    pub checkpoint: f64,
    /// Bytes of the finished model.
    pub model: f64,
}

impl OnDisk {
    /// That of `job`, a run of `config` of `steps` steps.
    pub fn of(config: &Config, job: &Job, steps: usize) -> Self {
        let Checkpoint { every_steps, keep_last, keep_every } = config.checkpoint;
        let saves = steps.div_ceil(every_steps);
        let for_good = if keep_every == 0 {
            0
        } else {
            (1..saves).filter(|save| (save * every_steps).is_multiple_of(keep_every)).count()
        };
        let element = match config.model.save_dtype {
            SaveDtype::Float32 => 4.0,
            SaveDtype::Bfloat16 => 2.0,
        };
        let parameters = job.units.iter().sum::<f64>();
        Self {
            checkpoints: saves.min(keep_last + for_good + 1),
            checkpoint: memory::STATE * parameters,
            model: element * parameters,
        }
    }

    /// All that is missing when `there` checkpoints are written already.
    pub fn bytes(&self, there: usize) -> f64 {
        self.checkpoints.saturating_sub(there) as f64 * self.checkpoint + self.model
    }
}

/// What helps a rank that ran out of memory in a pass over `tokens` tokens, one on top of the
/// other: each lowers what the plan says, although it may have said that the pass fits.
pub fn cures_of_pass(job: &Job, tokens: i64) -> Vec<Cure> {
    let before = job.sequence_parallel as i64;
    let peak = |job: &Job, length: usize| {
        let group = job.sequence_parallel as i64;
        let most = length.min(job.micro_batch_tokens).min(1 << 40) as i64;
        let part = |count: i64| (count * before).min(most).div_euclid(group).max(1);
        memory::peak(job, part(tokens), part(tokens), false).bytes()
    };
    // What was planned did not fit: look for the first that needs a tenth less.
    let needed = peak(job, usize::MAX);
    let tight = Job { limit: job.limit.min(0.9 * needed), ..job.clone() };
    cures(&tight, job.block_size, peak)
}

/// Settings that need less memory, one on top of the other, the cheapest in time first, up to the
/// first with which the run fits. `longest` is the longest example; `peak` is what a job needs, its
/// examples cut to a length.
pub fn cures(job: &Job, longest: usize, peak: impl Fn(&Job, usize) -> f64) -> Vec<Cure> {
    let mut job = job.clone();
    let mut found: Vec<Cure> = Vec::new();
    let mut lowest = peak(&job, usize::MAX);
    let mut attempt = |job: &Job, change: String| {
        let mut helps = false;
        let done = found.last().is_some_and(|cure| cure.fits);
        let peak = if done { lowest } else { peak(job, usize::MAX) };
        if peak < lowest {
            lowest = peak;
            helps = true;
            found.push(Cure::new(job, change, peak, usize::MAX));
        }
        helps
    };
    if job.recompute != Recompute::All {
        job.recompute = Recompute::All;
        attempt(&job, "memory.recompute = \"all\"".into());
    }
    let tokens = longest.next_multiple_of(1024);
    if tokens < job.micro_batch_tokens {
        let smaller = Job { micro_batch_tokens: tokens, ..job.clone() };
        if attempt(&smaller, format!("batch.micro_batch_tokens = {tokens}")) {
            job = smaller;
        }
    }
    for ranks in [2, 4, 8] {
        let (model, before) = (&job.model, job.sequence_parallel);
        let divides = model.num_attention_heads % ranks == 0
            && model.num_key_value_heads % ranks == 0
            && job.shards().is_multiple_of(ranks as usize)
            && ranks as usize <= job.ranks_per_node;
        if divides && ranks as usize > before {
            job.sequence_parallel = ranks as usize;
            attempt(&job, format!("distributed.sequence_parallel = {ranks}"));
        }
    }
    if !job.offload && job.device == Device::Cuda {
        job.offload = true;
        attempt(&job, "memory.offload = \"optimizer\"".into());
    }
    if found.last().is_some_and(|cure| cure.fits) {
        return found;
    }
    let length = memory::longest(&job);
    if length > 0 && length < job.block_size {
        let cut = Job { micro_batch_tokens: job.micro_batch_tokens.min(length), ..job.clone() };
        let peak = peak(&cut, length);
        let change = format!("data.block_size and batch.micro_batch_tokens = {length}");
        found.push(Cure::new(&cut, change, peak, length));
    }
    while job.device == Device::Cuda && job.ranks < 1024 {
        (job.ranks, job.ranks_per_node) = (2 * job.ranks, (2 * job.ranks).min(8));
        let peak = peak(&job, usize::MAX);
        found.push(Cure::new(&job, format!("{} GPUs", job.ranks), peak, usize::MAX));
        if peak <= job.limit {
            break;
        }
    }
    found
}
