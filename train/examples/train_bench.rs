//! Our side of tests/bench/train/compare.py: single steps of the real trainer on demand.
//!
//!     train_bench MODEL_FOLDER BATCH.json [all|auto|none|GIB]
//!
//! Which layers run again: all, none, or what the free memory or a limit of so many GiB demands.
//!
//! A line on standard input names what to do: `warm`, a step over the batch's two shortest examples,
//! or `step`, one over all. Each answers with a line of JSON. One rank, all examples packed.

use std::io::{BufRead, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use model::chat::Example;
use model::{Checkpoint, Unit};
use serde::Deserialize;
use serde_json::json;
use tch::{Device, Kind};
use train::config::{
    Batch, Guard, LossAverage, Memory, Offload, Optimizer, Recompute, ReduceDtype,
};
use train::data;
use train::mesh::Mesh;
use train::shards::{Placement, Shards};
use train::step::Trainer;

/// As in peers.py.
const OPTIMIZER: Optimizer = Optimizer {
    learning_rate: 1e-4,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weight_decay: 1e-4,
    max_grad_norm: 1.0,
};

/// The batch, as compare.py writes it.
#[derive(Deserialize)]
struct Given {
    ids: Vec<Vec<i64>>,
    trained_from: usize,
}

fn main() -> Result<()> {
    tch::set_num_threads(1);
    c10d::memory::keep_freed(); // as `train run` does
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, batch, memory) = match &arguments[..] {
        [folder, batch] => (folder, batch, Memory::default()),
        [folder, batch, how] => (folder, batch, memory(how)?),
        _ => bail!("usage: train_bench MODEL_FOLDER BATCH.json [all|auto|none|GIB]"),
    };
    let text = std::fs::read_to_string(batch).with_context(|| batch.clone())?;
    let given: Given = serde_json::from_str(&text)?;
    let mut examples: Vec<Example> =
        given.ids.into_iter().map(|ids| Example::new(ids, given.trained_from)).collect();
    examples.sort_by_key(|example| example.ids.len());
    let mut trainer = trainer(Path::new(folder), &memory)?;
    for line in std::io::stdin().lock().lines() {
        let some = match line?.as_str() {
            "warm" => &examples[..2],
            "step" => &examples[..],
            other => bail!("`{other}`: say warm or step"),
        };
        println!("{}", step(&mut trainer, some)?);
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn memory(how: &str) -> Result<Memory> {
    let (recompute, limit_gib) = match how {
        "all" => (Recompute::All, None),
        "auto" => (Recompute::Auto, None),
        "none" => (Recompute::None, None),
        gib => (Recompute::Auto, Some(gib.parse().context("all, auto, none or a limit in GiB")?)),
    };
    Ok(Memory { recompute, limit_gib, ..Memory::default() })
}

fn trainer(folder: &Path, memory: &Memory) -> Result<Trainer> {
    let checkpoint = Checkpoint::open(folder)?;
    let flat = |unit: &Unit| checkpoint.read_unit(unit, Kind::Float);
    let placement = Placement::new(Device::Cpu, ReduceDtype::Float32, Offload::None);
    let shards = Shards::new(checkpoint.config().clone(), Mesh::solo(), placement, flat)?;
    Ok(Trainer::new(shards, 4096, &OPTIMIZER, memory, &Guard::default()))
}

/// One step, every target token of the same weight, as transformers has it by default.
fn step(trainer: &mut Trainer, examples: &[Example]) -> Result<serde_json::Value> {
    let batch: Vec<&Example> = examples.iter().collect();
    let how = Batch {
        global_batch: batch.len(),
        micro_batch_tokens: 32768,
        loss_average: LossAverage::Token,
    };
    let Shards { config, mesh, placement, .. } = &trainer.shards;
    let micro_batches = data::micro_batches(&batch, &how, config, mesh, placement.device);
    let found = trainer.step(&micro_batches, OPTIMIZER.learning_rate)?;
    Ok(json!({"loss": found.loss, "grad_norm": found.grad_norm}))
}
