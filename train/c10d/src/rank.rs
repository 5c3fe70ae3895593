//! Who this process is among the others, from torchrun's or Slurm's environment variables.

use std::env;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

/// One process's place in the run, in torch.distributed's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rank {
    /// 0 to `world_size` - 1 over all nodes.
    pub rank: usize,
    /// 0 to the node's processes - 1; the CUDA device's index.
    pub local_rank: usize,
    /// The node's processes; where the launcher does not say, those over all nodes.
    pub local_world_size: usize,
    /// The processes over all nodes.
    pub world_size: usize,
    /// Where rank 0 serves the rendezvous store.
    pub master_addr: String,
    /// The store's port on `master_addr`.
    pub master_port: u16,
}

impl Rank {
    /// A process on its own.
    pub fn solo() -> Self {
        Self::local(0, 1, 0)
    }

    /// Rank `rank` of `world_size` processes on this machine.
    pub fn local(rank: usize, world_size: usize, master_port: u16) -> Self {
        let master_addr = "127.0.0.1".to_string();
        let local_world_size = world_size;
        Self { rank, local_rank: rank, local_world_size, world_size, master_addr, master_port }
    }

    /// A port of this machine for rank 0's store that nobody listens on; never the same twice in a
    /// process. It lies below those that systems give to outgoing connections, any of which could
    /// take it before the store does.
    ///
    /// # Errors
    /// None is left.
    pub fn free_port() -> Result<u16> {
        const FIRST: u32 = 10_000;
        const COUNT: u32 = 22_768;
        static ASKED: AtomicU32 = AtomicU32::new(0);
        // Processes that start together look in different places.
        let start = std::process::id().wrapping_mul(7919);
        let ports = (0..COUNT).map(|_| {
            let nth = ASKED.fetch_add(1, Ordering::Relaxed);
            (FIRST + start.wrapping_add(nth) % COUNT) as u16
        });
        let mut free =
            ports.filter(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok());
        free.next().context("no port from 10,000 to 32,767 is free")
    }

    /// The variables that torchrun sets, which is also how a parent hands a rank to its child.
    pub fn to_env(&self) -> [(&'static str, String); 6] {
        [
            ("RANK", self.rank.to_string()),
            ("LOCAL_RANK", self.local_rank.to_string()),
            ("LOCAL_WORLD_SIZE", self.local_world_size.to_string()),
            ("WORLD_SIZE", self.world_size.to_string()),
            ("MASTER_ADDR", self.master_addr.clone()),
            ("MASTER_PORT", self.master_port.to_string()),
        ]
    }

    /// Reads this process's environment; see [`Rank::from_vars`].
    pub fn from_env() -> Result<Self> {
        Self::from_vars(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// torchrun's RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT if RANK is set; else
    /// Slurm's SLURM_PROCID, SLURM_LOCALID, SLURM_STEP_NUM_TASKS with the launch node's address
    /// (under srun with several tasks, not in the batch script itself); else a process on its own.
    /// LOCAL_WORLD_SIZE and SLURM_NTASKS_PER_NODE may be missing.
    ///
    /// Errors name the variable that is missing or malformed.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let number = |name: &str| -> Result<usize> {
            let text = var(name).with_context(|| {
                format!(
                    "{name} is not set although other launcher variables are; start through \
                     torchrun, srun or --ranks"
                )
            })?;
            text.parse().with_context(|| format!("{name}={text} is not a whole number"))
        };
        let local = |name: &str, world_size: usize| -> Result<usize> {
            let given = var(name).map(|_| number(name)).transpose()?;
            Ok(given.unwrap_or(world_size).clamp(1, world_size.max(1)))
        };
        let rank = if var("RANK").is_some() {
            Self {
                rank: number("RANK")?,
                local_rank: number("LOCAL_RANK")?,
                local_world_size: local("LOCAL_WORLD_SIZE", number("WORLD_SIZE")?)?,
                world_size: number("WORLD_SIZE")?,
                master_addr: var("MASTER_ADDR").context("MASTER_ADDR is not set")?,
                master_port: port(number("MASTER_PORT")?, "MASTER_PORT")?,
            }
        } else if number("SLURM_STEP_NUM_TASKS").unwrap_or(1) > 1 {
            Self {
                rank: number("SLURM_PROCID")?,
                local_rank: number("SLURM_LOCALID")?,
                local_world_size: local("SLURM_NTASKS_PER_NODE", number("SLURM_STEP_NUM_TASKS")?)?,
                world_size: number("SLURM_STEP_NUM_TASKS")?,
                master_addr: var("MASTER_ADDR")
                    .or_else(|| var("SLURM_LAUNCH_NODE_IPADDR"))
                    .context("set MASTER_ADDR to the address of the node that rank 0 runs on")?,
                master_port: match var("MASTER_PORT") {
                    Some(_) => port(number("MASTER_PORT")?, "MASTER_PORT")?,
                    // Jobs that share a node must not share a port.
                    None => 20_000 + (number("SLURM_JOB_ID")? % 20_000) as u16,
                },
            }
        } else {
            Self::solo()
        };
        if rank.rank >= rank.world_size {
            bail!("rank {} is not below the world size {}", rank.rank, rank.world_size);
        }
        Ok(rank)
    }
}

fn port(number: usize, name: &str) -> Result<u16> {
    u16::try_from(number).with_context(|| format!("{name}={number} is not a port"))
}
