//! What the tests of the step share: a tiny model, examples, and worlds of ranks that train it.

#![allow(dead_code)] // each test binary uses its part

use std::fmt;
use std::time::Duration;

use c10d::{Backend, Group, Rank};
use model::chat::Example;
use model::{Config, Unit};
use record::seed;
use tch::{Device, Kind, Tensor};
use train::blame::Inspection;
use train::config::{
    Batch, Distributed, Guard, LossAverage, Memory, Offload, Optimizer, Recompute, ReduceDtype,
};
use train::data::{self, MicroBatch};
use train::mesh::Mesh;
use train::plan;
use train::shards::{Placement, Shard, Shards};
use train::step::{Measured, Trainer};

pub const OPTIMIZER: Optimizer = Optimizer {
    learning_rate: 1e-2,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weight_decay: 0.1,
    max_grad_norm: 1.0,
};

/// Hidden, intermediate, layers, heads, key/value heads, vocabulary, tied head.
pub type Shape = (i64, i64, i64, i64, i64, i64, bool);

pub fn model((hidden, inner, layers, heads, kv_heads, vocab, tied): Shape) -> Config {
    Config::parse(&format!(
        r#"{{"model_type": "qwen2", "vocab_size": {vocab}, "hidden_size": {hidden},
            "intermediate_size": {inner}, "num_hidden_layers": {layers},
            "num_attention_heads": {heads}, "num_key_value_heads": {kv_heads},
            "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
            "tie_word_embeddings": {tied}}}"#
    ))
    .unwrap()
}

/// Three layers of four heads.
pub fn config(tied: bool, kv_heads: i64) -> Config {
    model((24, 36, 3, 4, kv_heads, 61, tied))
}

/// Weights of every tensor away from 0 and 1, so that each matters.
pub fn weights(unit: &Unit) -> Tensor {
    let mut rng = seed::rng(7, &["weights", &unit.name]);
    let values: Vec<f32> = (0..unit.numel()).map(|_| (rng.uniform() - 0.45) as f32 * 0.4).collect();
    Tensor::from_slice(&values)
}

/// `count` examples of 5 to 30 tokens.
pub fn examples(count: usize) -> Vec<Example> {
    let mut rng = seed::rng(7, &["examples"]);
    let mut one = || {
        let length = 5 + rng.below(26) as usize;
        let ids = (0..length).map(|_| rng.below(61) as i64).collect();
        Example::new(ids, 1 + rng.below(length as u64 - 1) as usize)
    };
    (0..count).map(|_| one()).collect()
}

/// How a run is laid out; the mathematics must not see it.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub ranks: usize,
    pub sequence_parallel: usize,
    pub replicate: usize,
    pub micro_batch_tokens: usize,
    pub loss_average: LossAverage,
    pub recompute: Recompute,
    pub offload: Offload,
    /// What a rank may use, in KiB.
    pub limit_kib: Option<f64>,
    pub compute: Kind,
    pub reduce: ReduceDtype,
}

pub const ONE_RANK: Run = Run {
    ranks: 1,
    sequence_parallel: 1,
    replicate: 1,
    micro_batch_tokens: 1000,
    loss_average: LossAverage::Example,
    recompute: Recompute::All,
    offload: Offload::None,
    limit_kib: None,
    compute: Kind::Float,
    reduce: ReduceDtype::Float32,
};

impl Run {
    /// Ranks in all, those that share a sequence, copies of the model, and tokens of a pass.
    pub fn on(
        ranks: usize,
        sequence_parallel: usize,
        replicate: usize,
        micro_batch_tokens: usize,
    ) -> Self {
        Self { ranks, sequence_parallel, replicate, micro_batch_tokens, ..ONE_RANK }
    }

    pub fn trainer(self, config: &Config, group: Group, guard: &Guard) -> Trainer {
        let Self { sequence_parallel, replicate, recompute, offload, .. } = self;
        let distributed = Distributed { sequence_parallel, replicate, ..Distributed::default() };
        let mesh = Mesh::new(group, &distributed).unwrap();
        let mut placement = Placement::new(Device::Cpu, self.reduce, offload);
        placement.compute = self.compute;
        let shards = Shards::new(config.clone(), mesh, placement, |unit| Ok(weights(unit)));
        let limit_gib = self.limit_kib.map(|kib| kib / 1024.0 / 1024.0);
        let memory = Memory { recompute, offload, limit_gib };
        Trainer::new(shards.unwrap(), 512, &OPTIMIZER, &memory, guard)
    }

    /// This rank's part of a step over `examples`.
    pub fn micro_batches(self, trainer: &Trainer, examples: &[Example]) -> Vec<MicroBatch> {
        let batch: Vec<&Example> = examples.iter().collect();
        let how = Batch {
            global_batch: batch.len(),
            micro_batch_tokens: self.micro_batch_tokens,
            loss_average: self.loss_average,
        };
        let Shards { config, mesh, .. } = &trainer.shards;
        data::micro_batches(&batch, &how, config, mesh, Device::Cpu)
    }

    /// Some steps; what rank 0 measured and all units' weights after them.
    pub fn steps(self, config: &Config, examples: &[Example], steps: usize) -> Outcome {
        on_ranks(self.ranks, |group| {
            let mut trainer = self.trainer(config, group, &Guard::default());
            let batches = self.micro_batches(&trainer, examples);
            let mut step = |_| trainer.step(&batches, OPTIMIZER.learning_rate).unwrap();
            let measured = (0..steps).map(&mut step).collect();
            let shards = &trainer.shards;
            let whole = |u: usize| {
                let Shard { unit, master, .. } = &shards.shards[u];
                gathered(&shards.mesh, master).narrow(0, 0, unit.numel()).copy()
            };
            Outcome { measured, weights: (0..=shards.last()).map(whole).collect() }
        })
        .swap_remove(0)
    }

    /// This run with `recompute = "auto"` and limits from so little that no layer keeps its graph
    /// to so much that all do: one for each way of keeping some of them that lies between.
    pub fn limited(self, config: &Config, examples: &[Example]) -> Vec<Self> {
        const LIMITS: usize = 250;
        let auto = Self { recompute: Recompute::Auto, ..self };
        let kib = |n: usize| 100.0 * 1.02f64.powi(n as i32);
        let kept = on_ranks(self.ranks, |group| {
            let mut trainer = auto.trainer(config, group, &Guard::default());
            let batches = self.micro_batches(&trainer, examples);
            let mut kept = |n| {
                trainer.job.limit = kib(n) * 1024.0;
                kept(&trainer, &batches)
            };
            (0..LIMITS).map(&mut kept).collect::<Vec<_>>()
        });
        // In all passes of all ranks.
        let kept = |n: usize| -> Vec<i64> {
            kept.iter().flat_map(|rank| rank[n].iter().copied()).collect()
        };
        let layers = config.num_hidden_layers;
        let partial = |n| kept(n).iter().all(|&k| k > 0) && kept(n).iter().any(|&k| k < layers);
        assert!((0..LIMITS).any(partial), "no limit keeps some of the layers");
        assert!(kept(0).iter().all(|&k| k == 0), "the least limit keeps none");
        assert!(kept(LIMITS - 1).iter().all(|&k| k == layers), "the largest keeps all");
        let changes = (0..LIMITS).filter(|&n| n == 0 || kept(n) != kept(n - 1));
        changes.map(|n| Self { limit_kib: Some(kib(n)), ..auto }).collect()
    }

    /// Loss, norm and every tensor's gradient of one step as each rank sees them.
    pub fn gradients(self, config: &Config, examples: &[Example]) -> Vec<Gradients> {
        on_ranks(self.ranks, |group| {
            let mut trainer = self.trainer(config, group, &Guard::default());
            let batches = self.micro_batches(&trainer, examples);
            let found = trainer.gradients(&batches, &mut Inspection::off()).unwrap();
            let Shards { mesh, shards, .. } = &trainer.shards;
            let mut tensors = Vec::new();
            for (shard, grad) in shards.iter().zip(&trainer.grads) {
                let part = grad.as_ref().expect("every unit has one").contiguous();
                tensors.extend(by_tensor(&shard.unit, &gathered(mesh, &part)));
            }
            Gradients { loss: found.0, norm: found.1, tensors }
        })
    }
}

/// What a world of ranks made of some steps.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub measured: Vec<Measured>,
    pub weights: Vec<Tensor>,
}

pub struct Gradients {
    pub loss: f64,
    pub norm: f64,
    /// By the tensor's name.
    pub tensors: Vec<(String, Tensor)>,
}

impl Gradients {
    /// How far these are off, and the worst tensor's name.
    pub fn off(&self, expected: &Self) -> Off<'_> {
        let mut off = Off {
            loss: (self.loss / expected.loss - 1.0).abs(),
            norm: (self.norm / expected.norm - 1.0).abs(),
            whole: 0.0,
            tensor: 0.0,
            name: "",
        };
        let (mut apart, mut all) = (0.0, 0.0);
        assert_eq!(self.tensors.len(), expected.tensors.len());
        for ((name, found), (other, expected)) in self.tensors.iter().zip(&expected.tensors) {
            assert_eq!(name, other);
            apart += square(&(found - expected));
            all += square(expected);
            assert!(expected.abs().max().double_value(&[]) > 0.0, "{name}: no gradient");
            let difference = difference(found, expected);
            if difference.is_nan() || difference > off.tensor {
                (off.tensor, off.name) = (difference, name);
            }
        }
        off.whole = (apart / all).sqrt();
        off
    }
}

/// Largest relative differences.
pub struct Off<'a> {
    pub loss: f64,
    pub norm: f64,
    /// The norm of the gradients' difference.
    pub whole: f64,
    /// The largest difference of an element, relative to its tensor's largest.
    pub tensor: f64,
    /// That tensor.
    pub name: &'a str,
}

impl fmt::Display for Off<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { loss, norm, whole, tensor, name } = self;
        write!(f, "loss {loss:.1e}, norm {norm:.1e}, gradient {whole:.1e}, at most {tensor:.1e}")?;
        write!(f, " of {name}")
    }
}

/// The slices of all ranks behind one another.
pub fn gathered(mesh: &Mesh, slice: &Tensor) -> Tensor {
    let numel = (slice.numel() * mesh.shard.world_size()) as i64;
    let flat = Tensor::zeros([numel], (slice.kind(), Device::Cpu));
    mesh.shard.all_gather_into(&flat, slice).unwrap().wait().unwrap();
    flat
}

/// A flat buffer's tensors with their names.
pub fn by_tensor(unit: &Unit, flat: &Tensor) -> Vec<(String, Tensor)> {
    let params = unit.params.iter();
    params.map(|p| (p.name.clone(), flat.narrow(0, p.offset, p.numel()).copy())).collect()
}

/// How many layers keep their graph in each pass of a step.
fn kept(trainer: &Trainer, batches: &[MicroBatch]) -> Vec<i64> {
    let of = |(round, batch): (usize, &MicroBatch)| {
        let (tokens, targets) = (batch.ids.size()[0], batch.most_targets);
        plan::memory::kept_layers(&trainer.job, tokens, targets, round > 0)
    };
    batches.iter().enumerate().map(of).collect()
}

fn square(tensor: &Tensor) -> f64 {
    tensor.square().sum(Kind::Double).double_value(&[])
}

/// Largest difference relative to the largest value.
pub fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    let scale = expected.abs().max().double_value(&[]);
    (found - expected).abs().max().double_value(&[]) / scale.max(f64::MIN_POSITIVE)
}

pub fn connect(rank: &Rank) -> Group {
    Group::connect(rank, Backend::Gloo, Duration::from_secs(60)).unwrap()
}

/// Runs `work` as every rank of a world of threads; what each returns.
pub fn on_ranks<T: Send>(ranks: usize, work: impl Fn(Group) -> T + Sync) -> Vec<T> {
    tch::set_num_threads(1);
    let port = Rank::free_port().unwrap();
    let one = |rank: usize| work(connect(&Rank::local(rank, ranks, port)));
    std::thread::scope(|scope| {
        let one = &one;
        let ranks: Vec<_> = (0..ranks).map(|rank| scope.spawn(move || one(rank))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}
