//! The real trainer: numerics, real layer shapes, a whole model, leaks.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use c10d::memory;
use model::chat::Example;
use model::{Checkpoint, Config, Unit};
use record::seed;
use tch::{Device, Kind, Tensor};
use train::blame::Inspection;
use train::config::{Batch, Guard, LossAverage, Memory, Optimizer, Recompute};
use train::mesh::Mesh;
use train::plan::{self, Job};
use train::shards::{Placement, Shards};
use train::step::Trainer;
use train::{balance, data};

use crate::{Machine, Row, gib, qwen2, shape_of_32b};

/// s1's.
const OPTIMIZER: Optimizer = Optimizer {
    learning_rate: 1e-5,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weight_decay: 1e-4,
    max_grad_norm: 1.0,
};

fn trainer(
    config: &Config,
    (device, compute): (Device, Kind),
    recompute: Recompute,
    weights: impl FnMut(&Unit) -> Result<Tensor>,
) -> Result<Trainer> {
    let placement = Placement { device, compute, reduce: Kind::Float, offload: false };
    let shards = Shards::new(config.clone(), Mesh::solo(), placement, weights)?;
    let memory = Memory { recompute, ..Memory::default() };
    Ok(Trainer::new(shards, 32_768, &OPTIMIZER, &memory, &Guard::default()))
}

fn random(unit: &Unit) -> Result<Tensor> {
    Ok(Tensor::randn([unit.numel()], (Kind::Float, Device::Cpu)) * 0.02)
}

/// Examples of these lengths, all but a short prompt trained.
fn examples(lengths: &[usize], vocabulary: i64) -> Vec<Example> {
    let mut rng = seed::rng(1, &["gpu_check"]);
    let mut one = |length: &usize| {
        let ids = (0..*length).map(|_| rng.below(vocabulary as u64) as i64).collect();
        Example::new(ids, 1 + length / 20)
    };
    lengths.iter().map(&mut one).collect()
}

fn pack(trainer: &Trainer, examples: &[Example]) -> Vec<data::MicroBatch> {
    let batch: Vec<&Example> = examples.iter().collect();
    let how = Batch {
        global_batch: batch.len(),
        micro_batch_tokens: 32_768,
        loss_average: LossAverage::Example,
    };
    let Shards { config, mesh, placement, .. } = &trainer.shards;
    data::micro_batches(&batch, &how, config, mesh, placement.device)
}

/// Loss and gradients of the golden tiny models against the CPU's fp32.
pub fn numerics(machine: &Machine) -> Result<Vec<Row>> {
    let of = |folder: &str, place: (Device, Kind)| -> Result<(f64, Vec<Tensor>)> {
        let folder = Path::new("tests/golden").join(folder);
        let checkpoint = Checkpoint::open(&folder).context("run it in the repository's root")?;
        let config = checkpoint.config().clone();
        let weights = |unit: &Unit| checkpoint.read_unit(unit, Kind::Float);
        let mut trainer = trainer(&config, place, Recompute::All, weights)?;
        let batches = pack(&trainer, &examples(&[9, 17, 24], config.vocab_size));
        let (loss, ..) = trainer.gradients(&batches, &mut Inspection::off())?;
        let host = |grad: &Option<Tensor>| {
            grad.as_ref().expect("every unit has one").to_device(Device::Cpu).to_kind(Kind::Double)
        };
        Ok((loss, trainer.grads.iter().map(host).collect()))
    };
    let mut rows = Vec::new();
    let kinds = [
        (machine.device, Kind::Float, "fp32", "1e-4"),
        (machine.device, Kind::BFloat16, "bf16", "as torch's"),
    ];
    for (device, kind, name, aim) in kinds {
        if device == Device::Cpu && kind == Kind::Float {
            continue; // the tests compare it with torch
        }
        for folder in ["tiny-tied-gqa4", "tiny-untied-gqa1"] {
            let (loss, expected) = of(folder, (Device::Cpu, Kind::Float))?;
            let (found_loss, found) = of(folder, (device, kind))?;
            let square = |t: &Tensor| t.square().sum(Kind::Double).double_value(&[]);
            let apart: f64 = found.iter().zip(&expected).map(|(a, b)| square(&(a - b))).sum();
            let whole: f64 = expected.iter().map(square).sum();
            let (loss, norm) = ((found_loss / loss - 1.0).abs(), (apart / whole).sqrt());
            let measured = format!("loss {loss:.1e}, gradient {norm:.1e} (norm of the difference)");
            let bound = if kind == Kind::Float { 1e-4 } else { 5e-2 };
            ensure!(loss < bound && norm < bound, "{folder} in {name}: {measured}");
            let what = format!("{folder} in {name} against the CPU's fp32, relative");
            rows.push(Row::new("G1", what, measured, aim));
        }
    }
    Ok(rows)
}

/// Floating-point operations of a training step over these lengths, recomputation not counted.
fn model_flops(config: &Config, lengths: &[usize]) -> f64 {
    lengths.iter().map(|&length| 3.0 * balance::flops(config, length)).sum()
}

/// The lengths of s1K, mean 5.5K tokens and 74% above 4,096, at eight mid-quantiles.
const S1K: [usize; 8] = [2976, 3752, 4326, 4874, 5457, 6146, 7085, 8931];

/// Decoder layers of the real shape: share of the matmul ceiling that is model FLOPs.
pub fn layers(machine: &Machine) -> Result<Vec<Row>> {
    let count = machine.pick(4, 4);
    let config = shape_of_32b(machine, count, 1024);
    let shorter = machine.pick(1, 16);
    let long = vec![32_768 / shorter];
    // What a rank of 16 gets of a batch of 16: s1K's mean, as whole examples.
    let mix: Vec<usize> = S1K.iter().map(|length| length / shorter).collect();
    let mut rows = Vec::new();
    for (name, lengths, recompute, aim) in [
        ("one sequence, all recomputed", &long, Recompute::All, "0.55"),
        ("one sequence, none that fits", &long, Recompute::Auto, ""),
        ("s1K's mix packed, all recomputed", &mix, Recompute::All, ""),
        ("s1K's mix packed, none that fits", &mix, Recompute::Auto, "0.65"),
    ] {
        let mut trainer = trainer(&config, (machine.device, machine.kind), recompute, random)?;
        let batches = pack(&trainer, &examples(lengths, config.vocab_size));
        memory::reset_peak(machine.device);
        let mut step = || {
            trainer.step(&batches, 1e-5).expect("a step");
        };
        let seconds = machine.seconds(machine.pick(3, 1), &mut step);
        let tokens: usize = lengths.iter().sum();
        let what = format!("{count} layers {}, {tokens} tokens, {name}", config.hidden_size);
        let peak = gib(memory::peak(machine.device) as f64);
        let flops = model_flops(&config, lengths);
        let measured = format!("{}, peak {peak}", machine.of_matmul(flops, seconds));
        rows.push(Row::new("G3", what, measured, aim));
    }
    Ok(rows)
}

/// Whole models that fit: tests/bench/gpu_check.py has the same shapes in PyTorch.
pub fn whole_model(machine: &Machine) -> Result<Vec<Row>> {
    let models = machine.pick(
        vec![
            ("1.5B", qwen2([1536, 8960, 28, 12, 2, 151_936], true)),
            ("3B", qwen2([2048, 11008, 36, 16, 2, 151_936], true)),
        ],
        vec![("tiny", qwen2([256, 1024, 4, 4, 2, 8192], true))],
    );
    let shorter = machine.pick(1, 16);
    let lengths: Vec<usize> = S1K.iter().map(|length| length / shorter).collect();
    let tokens: usize = lengths.iter().sum();
    let mut rows = Vec::new();
    for (name, config) in models {
        let place = (machine.device, machine.kind);
        let mut trainer = trainer(&config, place, Recompute::Auto, random)?;
        let batches = pack(&trainer, &examples(&lengths, config.vocab_size));
        memory::reset_peak(machine.device);
        let step = || {
            trainer.step(&batches, 1e-5).expect("a step");
        };
        let seconds = machine.seconds(machine.pick(3, 1), step);
        let (rate, peak) = (tokens as f64 / seconds, gib(memory::peak(machine.device) as f64));
        let share = machine.of_matmul(model_flops(&config, &lengths), seconds);
        let what = format!("Qwen2.5 {name}, {tokens} tokens of s1K's mix");
        let measured = format!("{rate:.0} tokens/s, peak {peak}, {share}");
        rows.push(Row::new("G6", what, measured, "1.3 x torch at 0.7 x"));
    }
    Ok(rows)
}

/// What `train plan` reckons with, against what tensors took, in six shapes.
pub fn planned_memory(machine: &Machine) -> Result<Vec<Row>> {
    let small = |layers, vocabulary| match machine.is_gpu() {
        true => qwen2([2048, 11008, layers, 16, 2, vocabulary], false),
        false => qwen2([256, 1024, layers, 8, 2, vocabulary], false),
    };
    let (many, shorter) = (machine.pick(151_936, 16_384), machine.pick(1, 8));
    let mut rows = Vec::new();
    for (config, tokens, recompute) in [
        (small(8, 1024), 4096, Recompute::All),
        (small(8, 1024), 4096, Recompute::None),
        (small(16, 1024), 16_384, Recompute::All),
        (small(4, many), 4096, Recompute::None),
        (small(2, many), 16_384, Recompute::All),
        (shape_of_32b(machine, 2, 1024), 16_384, Recompute::None),
    ] {
        let tokens = tokens / shorter;
        let before = memory::allocated(machine.device);
        let mut trainer = trainer(&config, (machine.device, machine.kind), recompute, random)?;
        let settings = Memory { recompute, ..Memory::default() };
        let job = Job::of_rank(&trainer.shards, &settings, tokens as i64);
        let batches = pack(&trainer, &examples(&[tokens], config.vocab_size));
        memory::reset_peak(machine.device);
        trainer.step(&batches, 1e-5)?;
        let measured = (memory::peak(machine.device) - before) as f64;
        let targets = batches[0].targets.size()[0];
        let planned = plan::memory::peak(&job, tokens as i64, targets, false).bytes();
        let (h, layers) = (config.hidden_size, config.num_hidden_layers);
        let what = format!(
            "{layers} layers {h}, vocabulary {}, {tokens} tokens, recompute {recompute:?}",
            config.vocab_size
        );
        let off = (planned / measured - 1.0) * 100.0;
        let measured = format!("peak {}, planned {off:+.1}%", gib(measured));
        rows.push(Row::new("G7", what, measured, "10%"));
    }
    Ok(rows)
}

/// Memory after the first steps and after many more.
pub fn leaks(machine: &Machine) -> Result<Vec<Row>> {
    let config = qwen2([64, 128, 2, 4, 2, 256], false);
    let place = (machine.device, machine.kind);
    let mut trainer = trainer(&config, place, Recompute::Auto, random)?;
    let steps = machine.pick(500, 200);
    let (mut early, mut late) = ((0, 0), (0, 0));
    for step in 0..steps {
        let lengths = [20 + step % 13, 9 + step % 29];
        let batches = pack(&trainer, &examples(&lengths, config.vocab_size));
        trainer.step(&batches, 1e-5)?;
        drop(batches);
        let now = (memory::allocated(machine.device), resident());
        if step == steps / 5 {
            early = now;
        }
        late = now;
    }
    ensure!(late.0 == early.0, "tensors grew from {} to {} bytes", early.0, late.0);
    let grown = late.1 as i64 - early.1 as i64;
    let measured = format!("tensors 0 bytes, the process {} KiB", grown / 1024);
    Ok(vec![Row::new("G9", format!("growth over {} steps", steps * 4 / 5), measured, "flat")])
}

/// This process's resident bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}
