//! The block-wise step against whole-graph autograd (bitwise), and over 1, 2 and 4 ranks.

use std::net::TcpListener;
use std::time::Duration;

use c10d::aten::vjp;
use c10d::{Backend, Group, Rank, fused};
use model::chat::Example;
use model::qwen2::{self, DecoderLayer, attend_segments};
use model::{Config, Layout, Rope, Unit};
use record::seed;
use tch::{Device, Kind, Tensor};
use train::config::Optimizer;
use train::data::{MicroBatch, share};
use train::loss::head_and_loss;
use train::shards::Shards;
use train::step::Trainer;

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
        Example { ids, trained_from: 1 + rng.below(length as u64 - 1) as usize }
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

fn trainer(config: &Config, group: Group) -> Trainer {
    let shards = Shards::new(config.clone(), group, Device::Cpu, |unit| Ok(weights(unit)));
    Trainer::new(shards.unwrap(), &OPTIMIZER, 512)
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
        let batch = MicroBatch::pack(&examples.iter().collect::<Vec<_>>(), 5, Device::Cpu);
        let (loss, gradients) = whole_graph(&config, &batch);
        let trainer = trainer(&config, Group::solo());
        let found = {
            let _guard = tch::no_grad_guard();
            trainer.accumulate(&batch).unwrap()
        };
        assert_eq!(found, loss, "loss, tied {tied}, {kv_heads} kv heads");
        for (shard, expected) in trainer.shards.shards.iter().zip(&gradients) {
            let name = &shard.unit.name;
            assert!(expected.abs().max().double_value(&[]) > 0.0, "{name}: no gradient at all");
            let worst = difference(&shard.grad, expected);
            assert_eq!(shard.grad, *expected, "{name}, tied {tied}: differs by {worst:e}");
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
    let batch = MicroBatch::pack(&examples.iter().collect::<Vec<_>>(), 5, Device::Cpu);
    let units = Layout::new(&config).units;
    let (norm, head) = qwen2::final_unit(&config, &weights(units.last().unwrap()));
    let tokens = batch.ids.size()[0];
    let hidden = weights(&units[1]).narrow(0, 0, tokens * config.hidden_size);
    let hidden = hidden.view([tokens, config.hidden_size]);
    let of = |chunk| head_and_loss(&config, &hidden, &norm, head.as_ref().unwrap(), &batch, chunk);
    let exact = exact_head(&config, &hidden, &norm, head.as_ref().unwrap(), &batch);
    for chunk in [1, 3, 7, 1024] {
        let found = of(chunk).unwrap();
        let found = [found.loss, found.hidden, found.norm, found.head];
        let pairs = found.iter().zip(&exact);
        let worst = pairs.map(|(a, b)| difference(a, b)).fold(0.0, f64::max);
        println!("chunks of {chunk}: largest relative difference to fp64 {worst:.1e}");
        assert!(worst < 1e-6);
    }
}

/// Ten steps on `world_size` threads; rank 0's losses and norms, and all units' final weights.
fn ten_steps(world_size: usize, micro_batch: usize) -> (Vec<(f64, f64)>, Vec<Tensor>) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let one = |rank: usize| {
        let rank = Rank::local(rank, world_size, port);
        let group = Group::connect(&rank, Backend::Gloo, Duration::from_secs(60)).unwrap();
        let mut trainer = trainer(&config(true, 2), group);
        let examples = examples(8);
        let batch: Vec<&Example> = examples.iter().collect();
        let mut measured = Vec::new();
        for _ in 0..10 {
            let parts = share(&batch, micro_batch, rank.rank, world_size);
            let pack = |part: &Vec<&Example>| MicroBatch::pack(part, batch.len(), Device::Cpu);
            let parts: Vec<MicroBatch> = parts.iter().map(pack).collect();
            let found = trainer.step(&parts, OPTIMIZER.learning_rate).unwrap();
            measured.push((found.loss.double_value(&[]), found.grad_norm.double_value(&[])));
        }
        let shards = &trainer.shards;
        let whole = |u: usize| {
            let numel = shards.shards[u].unit.numel();
            shards.gather(u).unwrap().wait().unwrap().narrow(0, 0, numel)
        };
        (measured, (0..=shards.last()).map(whole).collect())
    };
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..world_size).map(|rank| scope.spawn(move || one(rank))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).next().unwrap()
    })
}

#[test]
fn ranks_and_micro_batches_change_nothing_but_the_order_of_sums() {
    tch::set_num_threads(1);
    let (expected, weights) = ten_steps(1, 8);
    assert!(expected[9].0 < 0.95 * expected[0].0, "ten steps lower the loss: {expected:?}");
    for (world_size, micro_batch) in [(1, 2), (2, 4), (2, 1), (4, 2)] {
        let (found, found_weights) = ten_steps(world_size, micro_batch);
        let pairs = || found.iter().zip(&expected);
        let loss = pairs().map(|(a, b)| (a.0 / b.0 - 1.0).abs()).fold(0.0, f64::max);
        let norm = pairs().map(|(a, b)| (a.1 / b.1 - 1.0).abs()).fold(0.0, f64::max);
        let weight = found_weights.iter().zip(&weights).map(|(a, b)| difference(a, b));
        let weight = weight.fold(0.0, f64::max);
        let layout = format!("{world_size} ranks x {micro_batch}");
        println!("{layout}: loss {loss:.1e}, norm {norm:.1e}, weights {weight:.1e}");
        assert!(loss < 1e-5 && norm < 1e-4 && weight < 1e-3, "see the line above");
    }
}

#[test]
fn a_share_holds_every_example_once_and_evenly() {
    let examples = examples(16);
    let batch: Vec<&Example> = examples.iter().collect();
    for (world_size, micro_batch) in [(1, 16), (2, 4), (4, 2), (16, 1)] {
        let mut seen: Vec<&Example> = Vec::new();
        for rank in 0..world_size {
            let parts = share(&batch, micro_batch, rank, world_size);
            assert_eq!(parts.len(), 16 / world_size / micro_batch);
            assert!(parts.iter().all(|part| part.len() == micro_batch));
            seen.extend(parts.into_iter().flatten());
        }
        let sorted = |list: &[&Example]| {
            let mut ids: Vec<Vec<i64>> = list.iter().map(|e| e.ids.clone()).collect();
            ids.sort();
            ids
        };
        assert_eq!(sorted(&seen), sorted(&batch), "{world_size} ranks");
    }
}
