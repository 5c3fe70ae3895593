//! The block-wise step against whole-graph autograd (bitwise), and on every layout of ranks.

mod support;

use c10d::aten::vjp;
use c10d::{Group, fused};
use model::chat::Example;
use model::qwen2::{self, DecoderLayer, attend_segments};
use model::{Config, Layout, Rope};
use tch::{Device, Kind, Tensor};
use train::blame::Inspection;
use train::config::{Guard, LossAverage, LossSpike, Offload, Recompute, ReduceDtype};
use train::data::{self, MicroBatch, Part};
use train::loss::head_and_loss;
use train::step::Measured;

use support::{
    Gradients, ONE_RANK, OPTIMIZER, Run, by_tensor, config, difference, examples, on_ranks, weights,
};

/// Every unit's flat buffer, as a leaf of a graph.
fn leaves(config: &Config) -> Vec<Tensor> {
    let units = Layout::new(config).units;
    units.iter().map(|unit| weights(unit).set_requires_grad(true)).collect()
}

/// Logits of the rows `predicts` of some packed segments, as one graph over the whole model.
fn logits(
    config: &Config,
    flats: &[Tensor],
    [ids, positions, predicts]: [&Tensor; 3],
    cu_seqlens: &[i64],
) -> Tensor {
    let rotation = Rope::new(config, 512, Device::Cpu).at(positions, Kind::Float);
    let attend = attend_segments(cu_seqlens);
    let embedding = qwen2::embedding(config, &flats[0]);
    let mut x = qwen2::embed(&embedding, ids);
    for flat in &flats[1..flats.len() - 1] {
        x = DecoderLayer::from_flat(config, flat).forward(config, &x, &rotation, &attend);
    }
    let (norm, head) = qwen2::final_unit(config, flats.last().unwrap());
    let normed = fused::rms_norm(&x.index_select(0, predicts), &norm, config.rms_norm_eps);
    normed.linear(&head.unwrap_or(embedding), None::<Tensor>)
}

/// The same mathematics without blocks: one graph over the whole model, one backward.
fn whole_graph(config: &Config, batch: &MicroBatch) -> (Tensor, Vec<Tensor>) {
    let flats = leaves(config);
    let rows = [&batch.ids, &batch.positions, &batch.predicts];
    let logits = logits(config, &flats, rows, &batch.cu_seqlens);
    let mut gradient = logits.detach().copy();
    let loss = fused::cross_entropy_(&mut gradient, &batch.targets, &batch.weights);
    let gradients = vjp(&[&logits], &[&gradient], &flats.iter().collect::<Vec<_>>()).unwrap();
    (loss, gradients)
}

/// The mean loss over all trained tokens by its definition: every example alone, nothing packed,
/// nothing weighted, torch's own log-softmax.
fn mean_over_tokens(config: &Config, examples: &[Example]) -> Gradients {
    let flats = leaves(config);
    let (mut sum, mut count) = (Tensor::from(0f32), 0.0);
    for example in examples {
        let length = example.ids.len() as i64;
        let trained: Vec<i64> =
            example.trained.iter().cloned().flatten().map(|t| t as i64).collect();
        let (ids, trained) = (Tensor::from_slice(&example.ids), Tensor::from_slice(&trained));
        let positions = Tensor::arange(length, (Kind::Int64, Device::Cpu));
        let logits = logits(config, &flats, [&ids, &positions, &(&trained - 1)], &[0, length]);
        let targets = ids.index_select(0, &trained).unsqueeze(1);
        sum -= logits.log_softmax(-1, None::<Kind>).gather(1, &targets, false).sum(None::<Kind>);
        count += trained.numel() as f64;
    }
    let loss = sum / count;
    let flats: Vec<&Tensor> = flats.iter().collect();
    let gradients = vjp(&[&loss], &[&loss.ones_like().detach()], &flats).unwrap();
    let squares = gradients.iter().map(|g| g.square().sum(Kind::Double).double_value(&[]));
    let units = Layout::new(config).units;
    Gradients {
        loss: loss.double_value(&[]),
        norm: squares.sum::<f64>().sqrt(),
        tensors: units.iter().zip(&gradients).flat_map(|(u, flat)| by_tensor(u, flat)).collect(),
    }
}

/// All examples in one micro-batch, every example of the same weight.
fn pack(examples: &[Example]) -> MicroBatch {
    let all: Vec<&Example> = examples.iter().collect();
    let weights = data::weights(&all, LossAverage::Example);
    let weighted: Vec<_> = all.into_iter().zip(weights).collect();
    MicroBatch::pack(&weighted, Part::WHOLE, Device::Cpu)
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
            let run = Run { recompute, ..ONE_RANK };
            let mut trainer = run.trainer(&config, Group::solo(), &Guard::default());
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

/// The layouts that the sums must not show.
fn layouts() -> [Run; 11] {
    let (auto, none) = (Recompute::Auto, Recompute::None);
    let offload = Offload::Optimizer;
    [
        Run::on(1, 1, 1, 60),                            // several passes a step
        Run::on(2, 1, 1, 1000),                          // shards over two ranks
        Run { recompute: none, ..Run::on(2, 1, 1, 60) }, // released graphs, refilled
        Run { recompute: auto, ..Run::on(4, 1, 1, 30) }, // a round with idle ranks
        Run::on(2, 2, 1, 1000),                          // tokens over two ranks
        Run { recompute: none, ..Run::on(4, 2, 1, 60) }, // two groups of two
        Run { offload, ..Run::on(4, 2, 1, 1000) },       // one of them idle
        Run::on(2, 1, 2, 1000),                          // two whole copies
        Run { recompute: none, ..Run::on(4, 2, 2, 60) }, // copies of a shared sequence
        Run { offload, ..Run::on(2, 1, 1, 60) },         // weights on the host
        Run { recompute: none, offload, ..Run::on(4, 1, 2, 60) }, // in two copies
    ]
}

#[test]
fn every_layout_has_the_gradient_of_one_rank() {
    for (tied, examples) in [(true, examples(8)), (false, examples(8)), (false, examples(1))] {
        let expected = ONE_RANK.gradients(&config(tied, 2), &examples).swap_remove(0);
        for run in layouts() {
            for (rank, found) in run.gradients(&config(tied, 2), &examples).iter().enumerate() {
                let off = found.off(&expected);
                if rank == 0 {
                    println!("{} examples, tied {tied}, {off}: {run:?}", examples.len());
                }
                let same = off.loss < 1e-6 && off.norm < 1e-6 && off.tensor < 1e-5;
                assert!(same, "rank {rank}: {off}, {run:?}");
            }
        }
    }
    // Four ranks share a sequence, each with one of four key/value heads.
    let four = Run::on(4, 4, 1, 60);
    let gradients = |run: Run| run.gradients(&config(true, 4), &examples(8)).swap_remove(0);
    let (found, expected) = (gradients(four), gradients(ONE_RANK));
    let off = found.off(&expected);
    println!("{off}: {four:?}");
    assert!(off.loss < 1e-6 && off.norm < 1e-6 && off.tensor < 1e-5, "{off}, {four:?}");
}

#[test]
fn steps_on_every_layout_stay_together() {
    for tied in [true, false] {
        let expected = ONE_RANK.steps(&config(tied, 2), &examples(8), 5);
        let losses = expected.measured.iter().map(|step| step.loss).collect::<Vec<_>>();
        assert!(losses[4] < 0.97 * losses[0], "the loss falls: {losses:?}");
        for run in layouts() {
            let found = run.steps(&config(tied, 2), &examples(8), 5);
            let worst = |pick: fn(&Measured) -> f64| {
                let pairs = found.measured.iter().zip(&expected.measured);
                pairs.map(|(a, b)| (pick(a) / pick(b) - 1.0).abs()).fold(0.0, f64::max)
            };
            let (loss, norm) = (worst(|step| step.loss), worst(|step| step.grad_norm));
            let weight = found.weights.iter().zip(&expected.weights);
            let weight = weight.map(|(a, b)| difference(a, b)).fold(0.0, f64::max);
            println!("loss {loss:.1e}, norm {norm:.1e}, weights {weight:.1e}: {run:?}");
            assert!(loss < 1e-5 && norm < 1e-4 && weight < 1e-3, "see the line above");
        }
    }
}

/// Runs `others`, which must not differ from `run` in a bit.
#[track_caller]
fn same_bits(run: Run, others: impl IntoIterator<Item = Run>, config: &Config, batch: &[Example]) {
    let expected = run.steps(config, batch, 2);
    for other in others {
        let found = other.steps(config, batch, 2);
        assert_eq!(found.measured, expected.measured, "{other:?}");
        assert_eq!(found.weights, expected.weights, "{other:?}");
    }
}

/// All that `[memory]` can say: it may change the time a step takes, never a bit of its result.
fn memory_settings(run: Run, config: &Config, batch: &[Example]) -> Vec<Run> {
    let mut all = run.limited(config, batch);
    for offload in [Offload::None, Offload::Optimizer] {
        for recompute in [Recompute::All, Recompute::None, Recompute::Auto] {
            all.push(Run { recompute, offload, ..run });
        }
    }
    all
}

#[test]
fn recomputation_and_offload_are_bitwise_the_same() {
    let (config, examples) = (config(false, 2), examples(8));
    for run in [Run::on(1, 1, 1, 1000), Run::on(1, 1, 1, 60), Run::on(2, 1, 1, 60)] {
        same_bits(run, memory_settings(run, &config, &examples), &config, &examples);
    }
}

/// Ranks that share a sequence exchange tokens whenever a layer runs, so they must keep the same
/// layers, however unlike their parts of the targets and their limits are.
#[test]
fn a_shared_sequence_keeps_the_same_layers_on_all_ranks() {
    let mut config = config(false, 2);
    config.vocab_size = 2000; // logits take more than graphs
    let long_prompt = [Example::new((0..120).map(|t| t * t % 61).collect(), 62)];
    let run = Run::on(2, 2, 1, 1000);
    let limited = run.limited(&config, &long_prompt);
    same_bits(run, limited.iter().copied(), &config, &long_prompt);
    let expected = run.steps(&config, &long_prompt, 1).measured[0];
    let (least, most) = (limited[0], *limited.last().unwrap());
    on_ranks(2, |group| {
        let mine = if group.rank() == 0 { least } else { most };
        let mut trainer = mine.trainer(&config, group, &Guard::default());
        let batches = mine.micro_batches(&trainer, &long_prompt);
        let found = trainer.step(&batches, OPTIMIZER.learning_rate).unwrap();
        assert_eq!(found, expected, "limits of their own");
    });
}

/// A GPU's kind on this CPU: within a world size not a bit depends on memory's settings, and all
/// of them stay near fp32.
#[test]
fn steps_in_bf16() {
    let (config, examples) = (config(true, 2), examples(8));
    let exact = ONE_RANK.gradients(&config, &examples);
    for ranks in [1, 2] {
        let run = Run { compute: Kind::BFloat16, ..Run::on(ranks, 1, 1, 60) };
        same_bits(run, memory_settings(run, &config, &examples), &config, &examples);
        let found = run.gradients(&config, &examples);
        let off = found[0].off(&exact[0]);
        println!("bf16 on {ranks} ranks: {off}");
        assert!(off.loss < 1e-4 && off.norm < 5e-3 && off.whole < 2e-2, "{off}");
        assert!(off.tensor < 0.5, "{off}: one that is left out is off by 1");
    }
}

/// Gradients summed in bf16, between shards and between copies: near the others, not the same.
#[test]
fn sums_in_bf16() {
    let examples = examples(8);
    for run in [Run::on(2, 1, 1, 60), Run::on(2, 1, 2, 60), Run::on(4, 1, 2, 60)] {
        let exact = run.gradients(&config(false, 2), &examples);
        let reduced = Run { reduce: ReduceDtype::Bfloat16, ..run };
        let found = reduced.gradients(&config(false, 2), &examples);
        for (found, exact) in found.iter().zip(&exact) {
            let off = found.off(exact);
            println!("{off}: {reduced:?}");
            assert!(off.loss == 0.0 && off.norm < 1e-3, "{off}, {reduced:?}");
            // Eight bits of mantissa, rounded before and after the sum.
            assert!((1e-4..1e-2).contains(&off.tensor), "{off}, {reduced:?}");
        }
        let (steps, exact) = (
            reduced.steps(&config(false, 2), &examples, 3),
            run.steps(&config(false, 2), &examples, 3),
        );
        let worst = |pick: fn(&Measured) -> f64| {
            let pairs = steps.measured.iter().zip(&exact.measured);
            pairs.map(|(a, b)| (pick(a) / pick(b) - 1.0).abs()).fold(0.0, f64::max)
        };
        let (loss, norm) = (worst(|step| step.loss), worst(|step| step.grad_norm));
        println!("three steps: loss {loss:.1e}, norm {norm:.1e}");
        assert!(loss < 1e-3 && norm < 1e-2, "three steps: loss {loss:e}, norm {norm:e}");
    }
}

#[test]
fn every_token_counts_the_same_by_token_average() {
    let examples = examples(8);
    for tied in [true, false] {
        let expected = mean_over_tokens(&config(tied, 2), &examples);
        for run in [Run::on(1, 1, 1, 60), Run::on(4, 2, 1, 60)] {
            let by_token = Run { loss_average: LossAverage::Token, ..run };
            let found = by_token.gradients(&config(tied, 2), &examples);
            let off = found[0].off(&expected);
            println!("{off}: {by_token:?}");
            assert!(off.loss < 1e-6 && off.norm < 1e-6 && off.tensor < 1e-5, "{off}");
            let found = run.gradients(&config(tied, 2), &examples);
            assert!(found[0].off(&expected).whole > 0.1, "by example is the same here");
        }
    }
}

#[test]
fn numbers_that_are_not_finite_stop_a_step_before_the_update() {
    tch::set_num_threads(1);
    let run = Run::on(2, 1, 1, 1000);
    let errors = on_ranks(2, |group| {
        let mut trainer = run.trainer(&config(true, 2), group, &Guard::default());
        let batches = run.micro_batches(&trainer, &examples(8));
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
    let error = &errors[0];
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
    let mut trainer = ONE_RANK.trainer(&config(true, 2), Group::solo(), &guard);
    let mut batches = ONE_RANK.micro_batches(&trainer, &examples(8));
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
