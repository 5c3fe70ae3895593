//! One H100 measured in one call, or whatever of it this machine can do: `just gpu-check`.
//!
//!     gpu_check [PART,...]
//!
//! First the machine's two ceilings, then part after part; a part that fails is a row that says so,
//! and the next one runs. Weights are random, of the real shapes on a GPU and of small ones on a
//! CPU. Reads tests/golden from the working directory. The table at the end is for the record.

mod pieces;
mod steps;
mod virtual_rank;

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow};
use model::Config;
use tch::{Device, Kind, Tensor};

/// Where everything runs, and what the machine can do at best.
pub struct Machine {
    /// The first GPU, or the CPU.
    pub device: Device,
    /// What layers compute in.
    pub kind: Kind,
    /// Floating-point operations a second of a large matrix product.
    pub matmul: f64,
    /// Bytes a second of a large copy, read and written.
    pub copy: f64,
}

/// A line of the table.
pub struct Row {
    part: &'static str,
    what: String,
    measured: String,
    aim: &'static str,
}

impl Row {
    /// What was measured, and what is aimed at.
    pub fn new(
        part: &'static str,
        what: impl Into<String>,
        measured: impl Into<String>,
        aim: &'static str,
    ) -> Self {
        Self { part, what: what.into(), measured: measured.into(), aim }
    }

    /// What did not run, and why.
    pub fn skipped(part: &'static str, what: &str, why: &str) -> Self {
        Self::new(part, what, format!("skipped: {why}"), "")
    }
}

type Part = fn(&Machine) -> Result<Vec<Row>>;

const PARTS: [(&str, Part); 9] = [
    ("G1", steps::numerics),
    ("G2", pieces::collectives),
    ("G3", steps::layers),
    ("G3b", virtual_rank::steps),
    ("G4", pieces::head_and_loss),
    ("G5", pieces::adamw),
    ("G6", steps::whole_model),
    ("G7", steps::planned_memory),
    ("G9", steps::leaks),
];

fn main() -> ExitCode {
    c10d::memory::count_cpu();
    let chosen = std::env::args().nth(1);
    let chosen: Option<Vec<&str>> = chosen.as_ref().map(|list| list.split(',').collect());
    let machine = Machine::measure();
    let mut rows = vec![machine.row()];
    let mut failed = false;
    for (name, part) in PARTS {
        if chosen.as_ref().is_some_and(|chosen| !chosen.contains(&name)) {
            continue;
        }
        let start = Instant::now();
        let found = panic::catch_unwind(AssertUnwindSafe(|| part(&machine)));
        let found = found.unwrap_or_else(|panic| Err(anyhow!(message(&*panic))));
        match found {
            Ok(found) => rows.extend(found),
            Err(error) => {
                failed = true;
                let line = format!("{error:#}");
                let line = line.lines().next().unwrap_or_default().replace('|', "/");
                rows.push(Row::new(name, "this part", format!("FAILED: {line}"), ""));
            }
        }
        eprintln!("{name}: {:.1} s", start.elapsed().as_secs_f64());
    }
    println!("| part | what | measured | aim |\n|---|---|---|---|");
    for Row { part, what, measured, aim } in rows {
        println!("| {part} | {what} | {measured} | {aim} |");
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("an unknown panic").to_string()
}

impl Machine {
    /// Finds the device and measures both ceilings.
    fn measure() -> Self {
        let gpu = c10d::aten::load_cuda() && tch::Cuda::is_available();
        let device = if gpu { Device::Cuda(0) } else { Device::Cpu };
        let kind = if gpu { Kind::BFloat16 } else { Kind::Float };
        let mut machine = Self { device, kind, matmul: 0.0, copy: 0.0 };
        let n = machine.pick(8192, 1024);
        let a = Tensor::randn([n, n], (kind, device));
        let b = Tensor::randn([n, n], (kind, device));
        let seconds = machine.seconds(5, || drop(a.matmul(&b)));
        machine.matmul = 2.0 * (n as f64).powi(3) / seconds;
        let numel = machine.pick(1 << 30, 1 << 24);
        let from = Tensor::randn([numel], (Kind::Float, device));
        let mut to = from.zeros_like();
        let seconds = machine.seconds(5, || to.copy_(&from));
        machine.copy = 8.0 * numel as f64 / seconds;
        machine
    }

    fn row(&self) -> Row {
        let name = match self.device {
            Device::Cpu => format!("the CPU, {} threads", tch::get_num_threads()),
            _ => "the GPU".to_string(),
        };
        let kind = if self.kind == Kind::Float { "fp32" } else { "bf16" };
        let (tera, giga) = (self.matmul / 1e12, self.copy / 1e9);
        let measured = format!("{kind} matmul {tera:.3} TFLOP/s, copy {giga:.1} GB/s");
        Row::new("G0", format!("ceilings of {name}"), measured, "")
    }

    /// One of two sizes.
    pub fn pick<T>(&self, on_gpu: T, on_cpu: T) -> T {
        if self.is_gpu() { on_gpu } else { on_cpu }
    }

    /// Whether this is a GPU at all.
    pub fn is_gpu(&self) -> bool {
        self.device.is_cuda()
    }

    /// Waits until the device has done all that it was given.
    pub fn settle(&self) {
        if let Device::Cuda(index) = self.device {
            tch::Cuda::synchronize(index as i64);
        }
    }

    /// The median time of `times` runs after one that warms up.
    pub fn seconds(&self, times: usize, mut work: impl FnMut()) -> f64 {
        work();
        let mut once = |_| {
            self.settle();
            let start = Instant::now();
            work();
            self.settle();
            start.elapsed().as_secs_f64()
        };
        let mut all: Vec<f64> = (0..times).map(&mut once).collect();
        all.sort_by(f64::total_cmp);
        all[times / 2]
    }

    /// A share of the measured matmul ceiling.
    pub fn of_matmul(&self, flops: f64, seconds: f64) -> String {
        let rate = flops / seconds;
        format!("{:.2} of matmul ({:.3} TFLOP/s)", rate / self.matmul, rate / 1e12)
    }
}

/// A Qwen2 by its sizes: hidden, intermediate, layers, heads, key/value heads, vocabulary.
pub fn qwen2([h, inner, layers, heads, kv, vocabulary]: [i64; 6], tied: bool) -> Config {
    let text = format!(
        r#"{{"model_type": "qwen2", "vocab_size": {vocabulary}, "hidden_size": {h},
            "intermediate_size": {inner}, "num_hidden_layers": {layers},
            "num_attention_heads": {heads}, "num_key_value_heads": {kv},
            "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
            "tie_word_embeddings": {tied}}}"#
    );
    Config::parse(&text).expect("these sizes fit together")
}

/// One layer after another of Qwen2.5-32B on a GPU; small ones on a CPU.
pub fn shape_of_32b(machine: &Machine, layers: i64, vocabulary: i64) -> Config {
    match machine.is_gpu() {
        true => qwen2([5120, 27648, layers, 40, 8, vocabulary], false),
        false => qwen2([128, 512, layers, 8, 2, vocabulary], false),
    }
}

/// Bytes for people.
pub fn gib(bytes: f64) -> String {
    format!("{:.2} GiB", bytes / 1024f64.powi(3))
}
