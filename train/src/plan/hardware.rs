//! What a run is planned for: devices, their memory, and the rates that times are reckoned with.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::words::GIB;

/// Devices of one kind, one for each rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Hardware {
    /// GPUs, or processes that share one machine's cores and memory.
    pub device: Device,
    /// Machines.
    pub nodes: usize,
    /// Ranks on each.
    pub ranks_per_node: usize,
    /// Bytes that one rank's device has.
    pub memory: f64,
    /// What times are reckoned with.
    pub rates: Rates,
}

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// An H100 or one like it.
    Cuda,
    /// The cores of a machine.
    Cpu,
}

impl Hardware {
    /// Reads `16x80GB` (more than 8 are nodes of 8), `2x8x80GB` (nodes x GPUs x memory), `cpu` (this
    /// machine) or `cpu:24GB`. `ranks` is how many processes share the CPU.
    ///
    /// A card's 80GB are taken as 80 GiB, of which [`Hardware::usable`] are there to use.
    pub fn parse(text: &str, ranks: Option<usize>) -> Result<Self> {
        let cure =
            "write 16x80GB (GPUs x memory), 2x8x80GB (nodes x GPUs x memory), cpu or cpu:24GB";
        let context = || format!("--gpus {text}: {cure}");
        if let Some(rest) = text.strip_prefix("cpu") {
            let memory = match rest.strip_prefix(':') {
                Some(memory) => gigabytes(memory).with_context(context)?,
                None if rest.is_empty() => machine_memory().with_context(context)?,
                None => bail!(context()),
            };
            return Ok(Self::cpu(memory, ranks.unwrap_or(1)));
        }
        ensure!(
            ranks.is_none(),
            "--ranks goes with --gpus cpu; the number of GPUs says how many ranks there are"
        );
        let parts: Vec<&str> = text.split('x').collect();
        let count = |text: &str| text.parse::<usize>().ok().filter(|count| *count > 0);
        let (nodes, ranks_per_node, memory) = match parts[..] {
            [gpus, memory] => match count(gpus).with_context(context)? {
                gpus if gpus <= 8 => (1, gpus, memory),
                gpus if gpus.is_multiple_of(8) => (gpus / 8, 8, memory),
                gpus => bail!(
                    "--gpus {text}: {gpus} GPUs are no whole number of nodes with 8; write nodes x \
                     GPUs x memory, such as 3x4x80GB"
                ),
            },
            [nodes, gpus, memory] => {
                (count(nodes).with_context(context)?, count(gpus).with_context(context)?, memory)
            }
            _ => bail!(context()),
        };
        let memory = gigabytes(memory).with_context(context)?;
        let rates = if memory > 100.0 * GIB { Rates::H200 } else { Rates::H100 };
        Ok(Self { device: Device::Cuda, nodes, ranks_per_node, memory, rates })
    }

    /// `ranks` processes on one machine with `memory` bytes.
    pub fn cpu(memory: f64, ranks: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let rates = Rates::cpu((cores / ranks).max(1) as f64);
        let memory = memory / ranks as f64;
        Self { device: Device::Cpu, nodes: 1, ranks_per_node: ranks, memory, rates }
    }

    /// All ranks.
    pub fn ranks(&self) -> usize {
        self.nodes * self.ranks_per_node
    }

    /// Bytes of the memory that a program can have at all: a card keeps 0.45% back, so that the
    /// driver shows 79.6 GiB of 80 and 140.4 of 141.
    pub fn usable(&self) -> f64 {
        match self.device {
            Device::Cuda => self.memory * (1.0 - 0.0045),
            Device::Cpu => self.memory,
        }
    }

    /// Bytes that the plan leaves alone. On a GPU what the card keeps back, 0.5 GiB for the CUDA
    /// context with libtorch's kernels, 1.0 for NCCL's buffers (none on a rank alone), and 3% for
    /// the allocator's gaps; on a CPU 0.3 GiB a process for libtorch itself, and 3%.
    pub fn reserve(&self) -> f64 {
        let fixed = match (self.device, self.ranks()) {
            (Device::Cuda, 1) => 0.5,
            (Device::Cuda, _) => 1.5,
            (Device::Cpu, _) => 0.3,
        };
        self.memory - self.usable() + fixed * GIB + 0.03 * self.memory
    }

    /// As people say it.
    pub fn name(&self) -> String {
        let memory = format!("{:.0} GiB", self.memory / GIB);
        match (self.device, self.ranks()) {
            (Device::Cpu, 1) => format!("the CPU, {memory}"),
            (Device::Cpu, ranks) => format!("{ranks} processes on the CPU, {memory} each"),
            (Device::Cuda, 1) => format!("1 GPU of {memory}"),
            (Device::Cuda, ranks) if self.nodes == 1 => format!("{ranks} GPUs of {memory}"),
            (Device::Cuda, ranks) => format!("{ranks} GPUs of {memory} in {} nodes", self.nodes),
        }
    }

    /// Replaces rates, each given as `name=value`.
    pub fn set_rates(&mut self, sets: &[String]) -> Result<()> {
        let mut table = toml::Table::try_from(self.rates).context("rates are numbers")?;
        for set in sets {
            let (name, value) =
                set.split_once('=').with_context(|| format!("--rate {set}: write NAME=VALUE"))?;
            let known: Vec<&str> = table.keys().map(String::as_str).collect();
            ensure!(known.contains(&name), "--rate {set}: the rates are {}", known.join(", "));
            let number: f64 = value
                .parse()
                .ok()
                .filter(|value: &f64| value.is_finite() && *value >= 0.0)
                .with_context(|| format!("--rate {set}: {value} is no number from 0 on"))?;
            // What things are divided by.
            let speed = ["_tflops", "_tb_s", "_gb_s"].iter().any(|unit| name.ends_with(unit));
            ensure!(!speed || number > 0.0, "--rate {set}: a speed must be above 0");
            table.insert(name.to_string(), number.into());
        }
        self.rates = table.try_into().context("rates are numbers")?;
        Ok(())
    }
}

/// `80GB` or `80GiB` in bytes: both are what the makers of cards mean by it, GiB.
fn gigabytes(text: &str) -> Result<f64> {
    let lower = text.to_ascii_lowercase();
    let number = lower.strip_suffix("gib").or(lower.strip_suffix("gb")).unwrap_or("");
    let number = number.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    Ok(number.with_context(|| format!("`{text}` is no memory size such as 80GB"))? * GIB)
}

/// What `/proc/meminfo` calls MemTotal.
fn machine_memory() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.context("this machine does not say how much memory it has")? * 1024.0)
}

/// What times are reckoned with: none of it was measured by this program. Each can be replaced by
/// `--rate NAME=VALUE`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Matrix products of a layer's shapes, TFLOP/s.
    pub matmul_tflops: f64,
    /// Attention forward, TFLOP/s of the causal half.
    pub attention_forward_tflops: f64,
    /// Attention backward.
    pub attention_backward_tflops: f64,
    /// Memory's bandwidth, reading and writing counted, TB/s.
    pub memory_tb_s: f64,
    /// Norms, rotation, gating and residuals: bytes moved, over those of one kernel for each.
    pub elementwise_passes: f64,
    /// Bytes moved for each logit between the head's matrix products.
    pub logit_bytes: f64,
    /// Bytes moved for each weight of the head when a chunk's gradient is added to its sum.
    pub head_sum_bytes: f64,
    /// Bytes moved for each parameter of the shard at a step's end: 12 read to see that weight and
    /// moments are sound, 4 for the norm, 8 to scale the gradient, 28 by AdamW.
    pub optimizer_bytes: f64,
    /// What one rank reaches in collectives inside a node, GB/s.
    pub node_gb_s: f64,
    /// What all ranks of a node together reach between nodes, GB/s.
    pub network_gb_s: f64,
    /// Between a GPU and its host, GB/s.
    pub host_link_gb_s: f64,
    /// The host's memory, one rank's share of the bandwidth, GB/s.
    pub host_memory_gb_s: f64,
    /// Start of a collective, microseconds.
    pub latency_us: f64,
    /// Slowdown of computing by collectives beside it, as a share.
    pub collective_share: f64,
    /// Work of the host that nothing hides, milliseconds a step.
    pub host_ms: f64,
}

impl Rates {
    /// H100 SXM with NVLink and 8 x 400 Gb/s a node.
    ///
    /// Matrix products: 90% of the 798 TFLOP/s that such a card does on bf16 8192^3. Attention:
    /// FlashAttention 2 on H100 does 370 forward (arXiv 2407.08608) and about 300 backward. Memory:
    /// 90% of a measured device copy of 3.0. Elementwise: separate kernels move twice what fused
    /// ones would. Node: NCCL all-gather over 8 GPUs, 361 (stas00/ml-engineering). Network: 85% of
    /// 8 x 50 GB/s.
    pub const H100: Self = Self {
        matmul_tflops: 720.0,
        attention_forward_tflops: 370.0,
        attention_backward_tflops: 300.0,
        memory_tb_s: 2.7,
        elementwise_passes: 2.0,
        logit_bytes: 38.0,
        head_sum_bytes: 12.0,
        optimizer_bytes: 52.0,
        node_gb_s: 361.0,
        network_gb_s: 340.0,
        host_link_gb_s: 50.0,
        host_memory_gb_s: 30.0,
        latency_us: 30.0,
        collective_share: 0.04,
        host_ms: 20.0,
    };

    /// The same processor with faster memory: 4.8 TB/s on paper instead of 3.35.
    pub const H200: Self = Self { memory_tb_s: 3.9, ..Self::H100 };

    /// `cores` cores with AVX2: a core of an AMD EPYC does 80 to 87 GFLOP/s of fp32 products and
    /// reaches 65 in training; processes meet in memory.
    fn cpu(cores: f64) -> Self {
        Self {
            matmul_tflops: 0.075 * cores,
            attention_forward_tflops: 0.03 * cores,
            attention_backward_tflops: 0.03 * cores,
            memory_tb_s: 0.008 * cores,
            elementwise_passes: 1.0,
            logit_bytes: 20.0,
            head_sum_bytes: 0.0,
            optimizer_bytes: 52.0,
            node_gb_s: 1.0,
            network_gb_s: 1.0,
            host_link_gb_s: 8.0,
            host_memory_gb_s: 8.0,
            latency_us: 100.0,
            collective_share: 0.0,
            host_ms: 5.0,
        }
    }
}
