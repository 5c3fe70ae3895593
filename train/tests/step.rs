//! The block-wise step against whole-graph autograd (bitwise), and on every layout of ranks.

use std::net::TcpListener;
use std::time::Duration;

use c10d::aten::vjp;
use c10d::{Backend, Group, Rank, fused};
use model::chat::Example;
use model::qwen2::{self, DecoderLayer, attend_segments};
use model::{Config, Layout, Rope, Unit};
use record::seed;
use tch::{Device, Kind, Tensor};
use train::blame::Inspection;
use train::config::{
    Batch, Distributed, Guard, LossAverage, LossSpike, Memory, Offload, Optimizer, Recompute,
    ReduceDtype,
};
use train::data::{self, MicroBatch, Part};
use train::loss::head_and_loss;
use train::mesh::Mesh;
use train::shards::{Placement, Shards};
use train::step::{Measured, Trainer};

const OPTIMIZER: Optimizer = Optimizer {
    learning_rate: 1e-2,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weight_decay: 0.1,
    max_grad_norm: 1.0,
};

fn config(tied: bool, kv_heads: i64) -> Config {
    Config::parse(&format!(
        r#"{{"model_type": "qwen2", "vocab_size": 61, "hidden_size": 24, "intermediate_size": 36,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": {kv_heads},
            "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
            "tie_word_embeddings": {tied}}}"#
    ))
    .unwrap()
}

/// Weights of every tensor away from 0 and 1, so that each matters.
fn weights(unit: &Unit) -> Tensor {
    let mut rng = seed::rng(7, &["weights", &unit.name]);
    let values: Vec<f32> = (0..unit.numel()).map(|_| (rng.uniform() - 0.45) as f32 * 0.4).collect();
    Tensor::from_slice(&values)
}

/// `count` examples of 5 to 30 tokens.
fn examples(count: usize) -> Vec<Example> {
    let mut rng = seed::rng(7, &["examples"]);
    let mut one = || {
        let length = 5 + rng.below(26) as usize;
        let ids = (0..length).map(|_| rng.below(61) as i64).collect();
        Example::new(ids, 1 + rng.below(length as u64 - 1) as usize)
    };
    (0..count).map(|_| one()).collect()
}

/// The same mathematics without blocks: one graph over the whole model, one backward.
fn whole_graph(config: &Config, batch: &MicroBatch) -> (Tensor, Vec<Tensor>) {
    let units = Layout::new(config).units;
    let flats: Vec<Tensor> =
        units.iter().map(|unit| weights(unit).set_requires_grad(true)).collect();
    let rotation = Rope::new(config, 512, Device::Cpu).at(&batch.positions, Kind::Float);
    let attend = attend_segments(&batch.cu_seqlens);
    let embedding = qwen2::embedding(config, &flats[0]);
    let mut x = qwen2::embed(&embedding, &batch.ids);
    for flat in &flats[1..flats.len() - 1] {
        x = DecoderLayer::from_flat(config, flat).forward(config, &x, &rotation, &attend);
    }
    let (norm, head) = qwen2::final_unit(config, flats.last().unwrap());
    let normed = fused::rms_norm(&x.index_select(0, &batch.predicts), &norm, config.rms_norm_eps);
    let logits = normed.linear(&head.unwrap_or(embedding), None::<Tensor>);
    let mut gradient = logits.detach().copy();
    let loss = fused::cross_entropy_(&mut gradient, &batch.targets, &batch.weights);
    let gradients = vjp(&[&logits], &[&gradient], &flats.iter().collect::<Vec<_>>()).unwrap();
    (loss, gradients)
}

/// How a run is laid out; the mathematics must not see it.
#[derive(Debug, Clone, Copy)]
struct Layouted {
    ranks: usize,
    sequence_parallel: usize,
    replicate: usize,
    micro_batch_tokens: usize,
    recompute: Recompute,
    offload: Offload,
}

const ONE_RANK: Layouted = Layouted {
    ranks: 1,
    sequence_parallel: 1,
    replicate: 1,
    micro_batch_tokens: 1000,
    recompute: Recompute::All,
    offload: Offload::None,
};

fn trainer(config: &Config, group: Group, layout: Layouted, guard: &Guard) -> Trainer {
    let Layouted { sequence_parallel, replicate, recompute, offload, .. } = layout;
    let distributed = Distributed { sequence_parallel, replicate, ..Distributed::default() };
    let mesh = Mesh::new(group, &distributed).unwrap();
    let placement = Placement::new(Device::Cpu, ReduceDtype::Float32, offload);
    let shards = Shards::new(config.clone(), mesh, placement, |unit| Ok(weights(unit)));
    let memory = Memory { recompute, offload, limit_gib: None };
    Trainer::new(shards.unwrap(), 512, &OPTIMIZER, &memory, guard)
}

/// All examples in one micro-batch, every example of the same weight.
fn pack(examples: &[Example]) -> MicroBatch {
    let all: Vec<&Example> = examples.iter().collect();
    let weights = data::weights(&all, LossAverage::Example);
    let weighted: Vec<_> = all.into_iter().zip(weights).collect();
    MicroBatch::pack(&weighted, Part::WHOLE, Device::Cpu)
}

/// Largest difference relative to the largest value.
fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    let scale = expected.abs().max().double_value(&[]);
    (found - expected).abs().max().double_value(&[]) / scale.max(f64::MIN_POSITIVE)
}

#[test]
fn one_rank_equals_whole_graph_autograd_bit_for_bit() {
    tch::set_num_threads(1);
    for (tied, kv_heads) in [(false, 1), (false, 4), (true, 1), (true, 2)] {
        let config = config(tied, kv_heads);
        let examples = examples(5);
        let batch = pack(&examples);
        let (loss, gradients) = whole_graph(&config, &batch);
        for recompute in [Recompute::All, Recompute::None, Recompute::Auto] {
            let layout = Layouted { recompute, ..ONE_RANK };
            let mut trainer = trainer(&config, Group::solo(), layout, &Guard::default());
            let found = trainer.accumulate(&batch, true, &mut Inspection::off()).unwrap();
            assert_eq!(found, loss, "loss, tied {tied}, {kv_heads} kv heads");
            let units = trainer.shards.shards.iter().map(|shard| &shard.unit);
            for ((unit, found), expected) in units.zip(&trainer.grads).zip(&gradients) {
                let name = &unit.name;
                assert!(expected.abs().max().double_value(&[]) > 0.0, "{name}: no gradient");
                let found = found.as_ref().unwrap().narrow(0, 0, unit.numel());
                let worst = difference(&found, expected);
                assert_eq!(found, *expected, "{name}, tied {tied}: differs by {worst:e}");
            }
        }
    }
}

/// Loss and gradients of everything after the last layer in fp64, composed, without chunks.
fn exact_head(
    config: &Config,
    hidden: &Tensor,
    norm: &Tensor,
    head: &Tensor,
    batch: &MicroBatch,
) -> [Tensor; 4] {
    let leaf = |t: &Tensor| t.detach().to_kind(Kind::Double).set_requires_grad(true);
    let (hidden, norm, head) = (leaf(hidden), leaf(norm), leaf(head));
    let x = hidden.index_select(0, &batch.predicts);
    let mean_square = x.square().mean_dim(-1, true, None::<Kind>);
    let normed = &norm * (x * (mean_square + config.rms_norm_eps).rsqrt());
    let log_p = normed.matmul(&head.tr()).log_softmax(-1, None::<Kind>);
    let log_p = log_p.gather(1, &batch.targets.unsqueeze(1), false).squeeze_dim(1);
    let loss = -(log_p * &batch.weights).sum(None::<Kind>);
    let gradients = Tensor::run_backward(&[&loss], &[hidden, norm, head], false, false);
    let [hidden, norm, head] = gradients.try_into().expect("three gradients");
    [loss.detach(), hidden, norm, head]
}

#[test]
fn chunks_of_the_head_add_up() {
    tch::set_num_threads(1);
    let config = config(false, 2);
    let examples = examples(5);
    let batch = pack(&examples);
    let units = Layout::new(&config).units;
    let (norm, head) = qwen2::final_unit(&config, &weights(units.last().unwrap()));
    let tokens = batch.ids.size()[0];
    let hidden = weights(&units[1]).narrow(0, 0, tokens * config.hidden_size);
    let hidden = hidden.view([tokens, config.hidden_size]);
    let head = head.unwrap();
    let exact = exact_head(&config, &hidden, &norm, &head, &batch);
    for chunk in [1, 3, 7, 1024] {
        let dhead = head.empty_like();
        let found = head_and_loss(&config, &hidden, &norm, &head, &dhead, &batch, chunk).unwrap();
        let found = [found.loss, found.hidden, found.norm, dhead];
        let pairs = found.iter().zip(&exact);
        let worst = pairs.map(|(a, b)| difference(a, b)).fold(0.0, f64::max);
        println!("chunks of {chunk}: largest relative difference to fp64 {worst:.1e}");
        assert!(worst < 1e-6);
    }
}

/// Runs `work` as every rank of a world of threads; what rank 0 returns.
fn on_ranks<T: Send>(ranks: usize, work: impl Fn(Group) -> T + Sync) -> T {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let one = |rank: usize| {
        let rank = Rank::local(rank, ranks, port);
        work(Group::connect(&rank, Backend::Gloo, Duration::from_secs(60)).unwrap())
    };
    std::thread::scope(|scope| {
        let one = &one;
        let ranks: Vec<_> = (0..ranks).map(|rank| scope.spawn(move || one(rank))).collect();
        let mut results: Vec<T> = ranks.into_iter().map(|rank| rank.join().unwrap()).collect();
        results.swap_remove(0)
    })
}

/// This rank's part of a step over `examples`.
fn micro_batches(trainer: &Trainer, examples: &[Example], layout: Layouted) -> Vec<MicroBatch> {
    let batch: Vec<&Example> = examples.iter().collect();
    let how = Batch {
        global_batch: batch.len(),
        micro_batch_tokens: layout.micro_batch_tokens,
        loss_average: LossAverage::Example,
    };
    let Shards { config, mesh, .. } = &trainer.shards;
    data::micro_batches(&batch, &how, config, mesh, Device::Cpu)
}

/// Ten steps on a layout; rank 0's losses and norms, and all units' final weights.
fn ten_steps(tied: bool, layout: Layouted) -> (Vec<Measured>, Vec<Tensor>) {
    on_ranks(layout.ranks, |group| {
        let mut trainer = trainer(&config(tied, 2), group, layout, &Guard::default());
        let batches = micro_batches(&trainer, &examples(8), layout);
        let mut step = |_| trainer.step(&batches, OPTIMIZER.learning_rate).unwrap();
        let measured = (0..10).map(&mut step).collect();
        let shards = &trainer.shards;
        let whole = |u: usize| {
            let numel = shards.shards[u].unit.numel();
            shards.gather(u).unwrap().wait().unwrap().narrow(0, 0, numel).copy()
        };
        (measured, (0..=shards.last()).map(whole).collect())
    })
}

#[test]
fn layouts_change_nothing_but_the_order_of_sums() {
    tch::set_num_threads(1);
    let (auto, none) = (Recompute::Auto, Recompute::None);
    let row = |ranks, sequence_parallel, replicate, micro_batch_tokens| Layouted {
        ranks,
        sequence_parallel,
        replicate,
        micro_batch_tokens,
        ..ONE_RANK
    };
    let rows = [
        row(1, 1, 1, 60),                                 // several passes a step
        row(2, 1, 1, 1000),                               // shards over two ranks
        Layouted { recompute: none, ..row(2, 1, 1, 60) }, // released graphs, refilled
        Layouted { recompute: auto, ..row(4, 1, 1, 30) }, // a round with idle ranks
        row(2, 2, 1, 1000),                               // tokens over two ranks
        Layouted { recompute: none, ..row(4, 2, 1, 60) }, // two groups of two
        row(2, 1, 2, 1000),                               // two whole copies
        Layouted { recompute: none, ..row(4, 2, 2, 60) }, // copies of a shared sequence
        Layouted { offload: Offload::Optimizer, ..row(2, 1, 1, 60) },
    ];
    for tied in [true, false] {
        let (expected, weights) = ten_steps(tied, ONE_RANK);
        assert!(expected[9].loss < 0.95 * expected[0].loss, "the loss falls: {expected:?}");
        for layout in rows {
            let (found, found_weights) = ten_steps(tied, layout);
            let worst = |pick: fn(&Measured) -> f64| {
                let off = found.iter().zip(&expected).map(|(a, b)| (pick(a) / pick(b) - 1.0).abs());
                off.fold(0.0, f64::max)
            };
            let (loss, norm) = (worst(|step| step.loss), worst(|step| step.grad_norm));
            let weight = found_weights.iter().zip(&weights).map(|(a, b)| difference(a, b));
            let weight = weight.fold(0.0, f64::max);
            println!("loss {loss:.1e}, norm {norm:.1e}, weights {weight:.1e}: {layout:?}");
            assert!(loss < 1e-5 && norm < 1e-4 && weight < 1e-3, "see the line above");
        }
    }
}

/// Memory's settings may change the time a step takes, never a bit of its result.
#[test]
fn recomputation_and_offload_are_bitwise_the_same() {
    tch::set_num_threads(1);
    for ranks in [1, 2] {
        let layout = Layouted { ranks, ..ONE_RANK };
        let expected = ten_steps(false, layout);
        for layout in [
            Layouted { recompute: Recompute::None, ..layout },
            Layouted { recompute: Recompute::Auto, ..layout },
            Layouted { offload: Offload::Optimizer, ..layout },
            Layouted { offload: Offload::Optimizer, recompute: Recompute::None, ..layout },
        ] {
            assert_eq!(ten_steps(false, layout), expected, "{layout:?}");
        }
    }
}

#[test]
fn numbers_that_are_not_finite_stop_a_step_before_the_update() {
    tch::set_num_threads(1);
    let layout = Layouted { ranks: 2, ..ONE_RANK };
    let error = on_ranks(2, |group| {
        let mut trainer = trainer(&config(true, 2), group, layout, &Guard::default());
        let batches = micro_batches(&trainer, &examples(8), layout);
        trainer.step(&batches, 1e-2).unwrap();
        if trainer.shards.mesh.world.rank() == 1 {
            let shard = &trainer.shards.shards[2];
            let _ = shard.master.narrow(0, shard.master.numel() as i64 - 20, 1).fill_(f64::NAN);
        }
        let before = trainer.shards.shards[1].master.copy();
        let error = trainer.step(&batches, 1e-2).unwrap_err();
        assert_eq!(before, trainer.shards.shards[1].master, "the update was made");
        format!("{error:#}")
    });
    assert!(
        error.contains("rank 1: the weight model.layers.1.mlp.down_proj.weight has 1 values"),
        "{error}"
    );
    assert!(!error.contains("rank 0:"), "{error}");
}

#[test]
fn the_guard_leaves_a_spike_out_and_goes_on() {
    tch::set_num_threads(1);
    let loss_spike = Some(LossSpike { window: 4, factor: 3.0 });
    let guard = Guard { loss_spike, ..Guard::default() };
    let mut trainer = trainer(&config(true, 2), Group::solo(), ONE_RANK, &guard);
    let mut batches = micro_batches(&trainer, &examples(8), ONE_RANK);
    for step in 0..4 {
        assert!(!trainer.step(&batches, 1e-3).unwrap().skipped, "step {step}");
    }
    let usual = batches[0].weights.copy();
    batches[0].weights = &usual * 10.0;
    let before = trainer.shards.shards[1].master.copy();
    let spike = trainer.step(&batches, 1e-3).unwrap();
    assert!(spike.skipped, "{spike:?}");
    assert_eq!(before, trainer.shards.shards[1].master);
    batches[0].weights = usual;
    assert!(!trainer.step(&batches, 1e-3).unwrap().skipped);
    assert_ne!(before, trainer.shards.shards[1].master);
}
