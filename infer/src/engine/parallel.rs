//! One model over several ranks (tensor parallelism): rank 0 runs the engine and tells the others,
//! pass by pass, what to compute with it.
//!
//! `model.tensor_parallel = 2` starts a second process of this program with the same arguments;
//! where a launcher has started the ranks (torchrun's or Slurm's variables), nothing is started.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use c10d::{Backend, Group, Rank};
use model::Segment;
use serde::Deserialize;
use tch::{Device, Tensor};

use super::blocks::Copy;
use super::local::{self, Local};
use crate::config::{self, Engine, Model};

/// Set in the processes that rank 0 starts.
const STARTED: &str = "S1_INFER_RANK";

/// An idle server's ranks wait for it; one that dies is noticed by its connection at once.
const TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// What all ranks do next. On the wire a list of integers, of which the first says which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
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

/// Processes that this one has started. They end with it.
#[derive(Debug, Default)]
pub struct Started(Vec<Child>);

impl Drop for Started {
    fn drop(&mut self) {
        let limit = Instant::now() + Duration::from_secs(5);
        for child in &mut self.0 {
            drop(child.stdin.take()); // which it takes for a sign
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < limit {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// This process's rank among those that share the model, and the ranks it had to start.
///
/// # Errors
/// When a launcher has started another number of ranks than the config asks for.
pub fn join(model: &Model) -> Result<(Rank, Group, Started)> {
    let asked = model.tensor_parallel;
    let mut rank = Rank::from_env()?;
    let mut started = Started::default();
    if asked == 1 && rank.rank == 0 && rank.world_size == 1 {
        return Ok((rank, Group::solo(), started));
    }
    if rank.world_size == 1 {
        // Free now; the moment until rank 0 binds it is the price of telling the others first.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        rank = Rank::local(0, asked, port);
        let program = std::env::current_exe().context("finding this program's file")?;
        for other in 1..asked {
            let mut command = Command::new(&program);
            command.args(std::env::args_os().skip(1)).stdin(Stdio::piped());
            command.envs(Rank::local(other, asked, port).to_env()).env(STARTED, "1");
            let child = command.spawn().with_context(|| format!("starting rank {other}"))?;
            started.0.push(child);
        }
    }
    ensure!(
        rank.world_size == asked,
        "{} ranks were started, but model.tensor_parallel is {asked}: they must be equal",
        rank.world_size
    );
    let backend = match model.device {
        config::Device::Cpu => Backend::Gloo,
        config::Device::Cuda => Backend::Nccl,
    };
    let group = Group::connect(&rank, backend, TIMEOUT).context("joining the model's ranks")?;
    Ok((rank, group, started))
}

/// Whether this process only computes for another's engine.
///
/// # Errors
/// When a launcher's variables are not what they should be.
pub fn is_worker() -> Result<bool> {
    Ok(Rank::from_env()?.rank > 0)
}

/// The parts of any run's config that all ranks need.
#[derive(Deserialize)]
struct Parts {
    model: Model,
    #[serde(default)]
    engine: Engine,
}

/// Computes for rank 0 until it says stop: everything that a rank above 0 does.
///
/// # Errors
/// A config or model that rank 0 cannot use either, or a rank that is gone.
pub fn work(config: &Path, sets: &[String]) -> Result<()> {
    if std::env::var_os(STARTED).is_some() {
        // Rank 0 holds the other end of our standard input: it ends when rank 0 does.
        std::thread::spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::thread::sleep(Duration::from_secs(2));
            c10d::aten::exit_at_once(1);
        });
    }
    let (Parts { model, engine }, _) = record::config::load::<Parts>(config, sets)?;
    let folder = model::hub::model_folder(&model.path)?;
    let (mut local, _) = local::open(&folder, &model, &engine)?;
    let rank = local.ranks().rank();
    loop {
        match Order::hear(local.ranks(), local.device()) {
            Ok(Order::Stop) => return Ok(()),
            Ok(order) => run(&mut local, order).with_context(|| format!("rank {rank}"))?,
            Err(error) => bail!("rank {rank} has lost rank 0: {error:#}"),
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
        Order::Stop => Ok(()),
    }
}
