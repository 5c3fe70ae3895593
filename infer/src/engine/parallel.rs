//! One model over several ranks (tensor parallelism): rank 0 runs the engine and tells the others,
//! pass by pass, what to compute with it.
//!
//! `model.tensor_parallel = 2` starts a second process of this program with the same arguments;
//! where a launcher has started the ranks (torchrun's or Slurm's variables), nothing is started. All
//! ranks meet before they do anything else ([`begin`]), lest one waits for another that found a
//! reason to end; then rank 0 says whether there is anything to do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};
use c10d::{Backend, Children, Group, Rank};
use model::Segment;
use serde::Deserialize;
use tch::{Device, Tensor};

use super::blocks::Copy;
use super::local::{self, Local};
use crate::config::{self, Engine, Model};

/// Set in the processes that rank 0 starts.
const STARTED: &str = "S1_INFER_RANK";

/// Ranks arrive within this time, or not at all.
const JOINING: Duration = Duration::from_secs(300);

/// An idle server's ranks wait for it; one that dies is noticed by its connection or by [`watch`].
const TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// How this program starts itself again; only its main knows that.
static AGAIN: OnceLock<(PathBuf, Vec<OsString>)> = OnceLock::new();

/// A launcher's ranks, or those of rank 0's child, until a model is opened on them.
static JOINED: Mutex<Option<Ranks>> = Mutex::new(None);

/// The ranks that share a model.
pub struct Ranks {
    /// This process's place.
    pub rank: Rank,
    /// All of them.
    pub group: Group,
    /// Where this one computes.
    pub device: Device,
    /// Those that this process had to start.
    pub started: Started,
}

/// What all ranks do next. On the wire a list of integers, of which the first says which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// The model is to be loaded.
    Load,
    /// A pass over these segments: ids, start, blocks, rows of logits that are wanted.
    Pass(Vec<(Vec<i64>, usize, Vec<usize>, usize)>),
    /// A copy in the cache.
    Copy(Copy),
    /// No more passes will come.
    Stop,
}

impl Order {
    /// What [`Model::pass`](super::Model::pass) was asked for.
    pub fn pass(segments: &[Segment]) -> Order {
        let own = |s: &Segment| (s.ids.to_vec(), s.start, s.blocks.to_vec(), s.logits);
        Order::Pass(segments.iter().map(own).collect())
    }

    /// As integers.
    pub fn encode(&self) -> Vec<i64> {
        match self {
            Order::Stop => vec![0],
            Order::Copy(Copy { from, to, positions }) => {
                vec![1, *from as i64, *to as i64, *positions as i64]
            }
            Order::Load => vec![3],
            Order::Pass(segments) => {
                let mut words = vec![2];
                for (ids, start, blocks, logits) in segments {
                    words.extend([*start, *logits].map(|word| word as i64));
                    words.push(ids.len() as i64);
                    words.extend(ids);
                    words.push(blocks.len() as i64);
                    words.extend(blocks.iter().map(|&block| block as i64));
                }
                words
            }
        }
    }

    /// From integers; `None` if they are no order.
    pub fn decode(words: &[i64]) -> Option<Order> {
        let (&kind, words) = words.split_first()?;
        let mut words = words.iter().copied();
        let order = match kind {
            0 => Order::Stop,
            1 => {
                let mut next = || usize::try_from(words.next()?).ok();
                Order::Copy(Copy { from: next()?, to: next()?, positions: next()? })
            }
            2 => {
                let mut segments = Vec::new();
                while let Some(start) = words.next() {
                    let logits = words.next()? as usize;
                    let count = words.next()? as usize;
                    let ids: Vec<i64> = words.by_ref().take(count).collect();
                    let blocks = words.next()? as usize;
                    let blocks = words.by_ref().take(blocks).map(|block| block as usize).collect();
                    segments.push((ids, start as usize, blocks, logits));
                }
                Order::Pass(segments)
            }
            3 => Order::Load,
            _ => return None,
        };
        words.next().is_none().then_some(order)
    }

    /// Sends it from rank 0 to the others.
    pub fn tell(&self, ranks: &Group, device: Device) -> Result<()> {
        let words = self.encode();
        let length = Tensor::from_slice(&[words.len() as i64]).to_device(device);
        ranks.broadcast(&length, 0)?.wait()?;
        ranks.broadcast(&Tensor::from_slice(&words).to_device(device), 0)?.wait()
    }

    /// Waits for rank 0's next one.
    fn hear(ranks: &Group, device: Device) -> Result<Order> {
        let length = Tensor::zeros([1], (tch::Kind::Int64, device));
        ranks.broadcast(&length, 0)?.wait()?;
        let words = Tensor::zeros([length.int64_value(&[0])], (tch::Kind::Int64, device));
        ranks.broadcast(&words, 0)?.wait()?;
        Order::decode(&Vec::<i64>::try_from(words)?).context("rank 0 speaks another language")
    }
}

/// Rank 1 and those behind it, where this process has started them; none once they may end.
#[derive(Default)]
pub struct Started(Arc<Mutex<Children>>);

impl Started {
    fn lock(&self) -> MutexGuard<'_, Children> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of something that all ranks do, with the rank that has ended, if one has.
    pub fn blame(&self, error: Error) -> Error {
        let limit = Instant::now() + Duration::from_secs(1);
        while Instant::now() < limit && !self.lock().0.is_empty() {
            if let Some((rank, status)) = ended(&self.0) {
                return error.context(format!("rank {rank} ended too early ({status})"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        error
    }

    /// From now on they may end.
    pub fn let_go(&mut self) {
        let children = std::mem::take(&mut *self.lock());
        self.0 = Arc::new(Mutex::new(children)); // the watch goes on over none
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let limit = Instant::now() + Duration::from_secs(5);
        let mut children = std::mem::take(&mut *self.lock());
        children.0.iter_mut().for_each(|child| drop(child.stdin.take())); // they take it for a sign
        while children.ended().is_ok_and(|ended| ended.len() < children.0.len())
            && Instant::now() < limit
        {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The first of the ranks that has ended, and how.
fn ended(children: &Mutex<Children>) -> Option<(usize, ExitStatus)> {
    let mut children = children.lock().unwrap_or_else(PoisonError::into_inner);
    let (number, status) = *children.ended().ok()?.first()?;
    Some((number + 1, status))
}

/// Ends this process if a rank that it started ends: whatever waits for that rank might wait
/// forever. Most errors of their own come first.
fn watch(children: Arc<Mutex<Children>>) {
    // Whoever lets them go leaves this side alone with none.
    while Arc::strong_count(&children) > 1 {
        if let Some((rank, status)) = ended(&children) {
            eprintln!("error: rank {rank} ended too early ({status})");
            thread::sleep(Duration::from_secs(3));
            if ended(&children).is_some() {
                c10d::aten::exit_at_once(1);
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Rank 0 of however many: when it is dropped, the others are free to end.
pub struct Lead(());

impl Drop for Lead {
    fn drop(&mut self) {
        if let Some(Ranks { group, device, .. }) = take_joined() {
            // A rank that is gone needs not be told.
            let _ = Order::Stop.tell(&group, device);
        }
    }
}

fn take_joined() -> Option<Ranks> {
    JOINED.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The parts of any run's config that all ranks need.
#[derive(Deserialize)]
struct Parts {
    model: Model,
    #[serde(default)]
    engine: Engine,
    endpoint: Option<toml::Value>,
}

/// What `main` does first: `program` with `arguments` is what it would start for another of itself,
/// and `config` with its overrides what it is to run, if that has a model. `None` if this process is
/// none that leads, and has done its part.
///
/// # Errors
/// When a launcher's variables are not what they should be, it has started another number of ranks
/// than the config asks for, not all come, or as this rank's part of a model's passes.
pub fn begin(
    program: PathBuf,
    arguments: Vec<OsString>,
    config: Option<(&Path, &[String])>,
) -> Result<Option<Lead>> {
    if std::env::var_os(STARTED).is_some() {
        // Rank 0 holds the other end of our standard input: it ends when rank 0 does.
        thread::spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            thread::sleep(Duration::from_secs(2));
            c10d::aten::exit_at_once(1);
        });
    }
    let _ = AGAIN.set((program, arguments));
    let rank = Rank::from_env()?;
    let leads = rank.rank == 0;
    let Some((config, sets)) = config.filter(|_| rank.world_size > 1) else {
        return Ok(leads.then_some(Lead(())));
    };
    let (Parts { model, engine, endpoint }, _) = record::config::load::<Parts>(config, sets)?;
    if endpoint.is_some() {
        return Ok(leads.then_some(Lead(())));
    }
    let ranks = connect(rank, &model, Started::default())?;
    if !leads {
        return work(ranks, &model, &engine).map(|()| None);
    }
    *JOINED.lock().unwrap_or_else(PoisonError::into_inner) = Some(ranks);
    Ok(Some(Lead(())))
}

/// This program once more, with the same arguments.
///
/// # Errors
/// When another program uses this library.
pub fn again() -> Result<Command> {
    let (program, arguments) =
        AGAIN.get().context("only the program `infer` itself starts further processes")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// The ranks that share the model with this one, which leads them. They load it from now on.
///
/// # Errors
/// When they cannot be started, or not all come.
pub fn join(model: &Model) -> Result<Ranks> {
    let ranks = match take_joined() {
        Some(ranks) => ranks,
        None if model.tensor_parallel == 1 => {
            let rank = Rank::solo();
            let device = local::device(model.device, rank.local_rank)?;
            return Ok(Ranks { rank, group: Group::solo(), device, started: Started::default() });
        }
        None => start(model)?,
    };
    Order::Load.tell(&ranks.group, ranks.device)?;
    Ok(ranks)
}

fn start(model: &Model) -> Result<Ranks> {
    let world_size = model.tensor_parallel;
    // Free now; the moment until rank 0 binds it is the price of telling the others first.
    let port = Rank::free_port()?;
    let started = Started::default();
    for other in 1..world_size {
        let mut command = again().context("model.tensor_parallel")?;
        command.stdin(Stdio::piped());
        command.envs(Rank::local(other, world_size, port).to_env()).env(STARTED, "1");
        let child = command.spawn().with_context(|| format!("starting rank {other}"))?;
        started.lock().0.push(child);
    }
    let children = Arc::clone(&started.0);
    thread::spawn(move || watch(children));
    connect(Rank::local(0, world_size, port), model, started)
}

fn connect(rank: Rank, model: &Model, started: Started) -> Result<Ranks> {
    ensure!(
        rank.world_size == model.tensor_parallel,
        "{} ranks were started, but model.tensor_parallel is {}: they must be equal",
        rank.world_size,
        model.tensor_parallel
    );
    let backend = match model.device {
        config::Device::Cpu => Backend::Gloo,
        config::Device::Cuda => Backend::Nccl,
    };
    let device = local::device(model.device, rank.local_rank)?;
    let group = Group::connect_within(JOINING, &rank, backend, TIMEOUT);
    Ok(Ranks { group: group.context("joining the model's ranks")?, rank, device, started })
}

/// Computes for rank 0 until it says stop: everything that a rank above 0 does.
fn work(ranks: Ranks, model: &Model, engine: &Engine) -> Result<()> {
    let rank = ranks.rank.rank;
    let lost = || format!("rank {rank} has lost rank 0");
    match Order::hear(&ranks.group, ranks.device).with_context(lost)? {
        Order::Load => {}
        Order::Stop => return Ok(()),
        order => bail!("rank {rank} is to begin with {order:?}"),
    }
    let folder = model::hub::model_folder(&model.path)?;
    let (mut local, _) = local::open(ranks, &folder, model, engine)?;
    loop {
        match Order::hear(local.ranks(), local.device()).with_context(lost)? {
            Order::Stop => return Ok(()),
            order => run(&mut local, order).with_context(|| format!("rank {rank}"))?,
        }
    }
}

fn run(local: &mut Local, order: Order) -> Result<()> {
    match order {
        Order::Pass(segments) => {
            let segments: Vec<Segment> = segments
                .iter()
                .map(|(ids, start, blocks, logits)| Segment {
                    ids,
                    start: *start,
                    blocks,
                    logits: *logits,
                })
                .collect();
            local.compute(&segments).map(drop)
        }
        Order::Copy(copy) => {
            local.copy_here(copy);
            Ok(())
        }
        Order::Load | Order::Stop => Ok(()),
    }
}
