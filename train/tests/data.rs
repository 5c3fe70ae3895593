//! Order, shares and weights: what each optimizer step sees.

use model::chat::Example;
use tch::{Device, Tensor};
use train::config::{Config, LossAverage};
use train::data::{MicroBatch, Order, Part, weights};
use train::optimizer::{learning_rate, warmup_steps};

fn order(examples: usize, global_batch: usize, epochs: usize, seed: u64) -> Order {
    let config = format!(
        r#"seed = {seed}
        output = "out"
        [data]
        examples = "examples.jsonl"
        block_size = 32768
        over_long = "error"
        [model]
        path = "model"
        init = "checkpoint"
        [batch]
        global_batch = {global_batch}
        micro_batch_tokens = 32768
        [optimizer]
        learning_rate = 1e-5
        beta1 = 0.9
        beta2 = 0.95
        eps = 1e-8
        weight_decay = 1e-4
        max_grad_norm = 1.0
        [schedule]
        epochs = {epochs}
        warmup_ratio = 0.05"#
    );
    Order::new(&toml::from_str::<Config>(&config).unwrap(), examples)
}

#[test]
fn steps_are_those_of_the_paper() {
    // (examples, global batch, epochs) -> (steps, warm-up)
    let rows = [((1000, 16, 5), (315, 16)), ((1000, 8, 5), (625, 32)), ((3, 4, 2), (2, 1))];
    for ((examples, global_batch, epochs), expected) in rows {
        let steps = order(examples, global_batch, epochs, 42).steps();
        assert_eq!((steps, warmup_steps(0.05, steps)), expected);
    }
    // s1's rates by step, worked out by hand from the schedule's formula.
    let rates = [
        (0, 0.0),
        (1, 6.25e-7),
        (8, 5e-6),
        (16, 1e-5),
        (100, 8.1758e-6),
        (165, 5.0263e-6),
        (200, 3.227e-6),
        (300, 6.2e-8),
        (315, 0.0),
    ];
    for (step, expected) in rates {
        let found = learning_rate(1e-5, 0.05, step, 315);
        assert!((found - expected).abs() < 1e-9, "step {step}: {found:e}, expected {expected:e}");
    }
}

#[test]
fn an_epoch_sees_every_example_and_refills_its_last_batch_from_its_start() {
    let order = order(1000, 16, 2, 42);
    let epoch =
        |n: usize| -> Vec<usize> { (63 * n..63 * (n + 1)).flat_map(|s| order.step(s)).collect() };
    let (first, second) = (epoch(0), epoch(1));
    for epoch in [&first, &second] {
        let mut seen = epoch[..1000].to_vec();
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
        assert_eq!(epoch[1000..], epoch[..8], "the refill");
    }
    assert_ne!(first, second, "each epoch has its own order");
    let other_seed = self::order(1000, 16, 2, 43).step(0);
    assert_ne!(other_seed, order.step(0));
    assert_eq!(order.step(5), order.step(5));
}

#[test]
fn packing_restarts_positions_and_weighs_every_example_the_same() {
    let example = |ids: &[i64], trained: &[(usize, usize)]| Example {
        ids: ids.to_vec(),
        trained: trained.iter().map(|&(from, to)| from..to).collect(),
    };
    let examples = [
        example(&[5, 6, 7, 8], &[(1, 2), (3, 4)]),
        example(&[9, 10], &[(1, 2)]),
        example(&[1, 2, 3], &[(2, 3)]),
    ];
    let all: Vec<&Example> = examples.iter().collect();
    // 1 / (trained tokens x examples), or 1 / all trained tokens.
    assert_eq!(weights(&all, LossAverage::Token), [0.25, 0.25, 0.25]);
    let weights = weights(&all, LossAverage::Example);
    assert_eq!(weights, [1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0]);
    let weighted: Vec<_> = all.into_iter().zip([0.125, 0.25, 0.5]).collect();
    let same = |found: &Tensor, expected: &[i64]| assert_eq!(*found, Tensor::from_slice(expected));
    let batch = MicroBatch::pack(&weighted, Part::WHOLE, Device::Cpu);
    same(&batch.ids, &[5, 6, 7, 8, 9, 10, 1, 2, 3]);
    same(&batch.positions, &[0, 1, 2, 3, 0, 1, 0, 1, 2]);
    assert_eq!(batch.cu_seqlens, [0, 4, 6, 9]);
    same(&batch.predicts, &[0, 2, 4, 7]);
    same(&batch.targets, &[6, 8, 10, 3]);
    assert_eq!(batch.weights, Tensor::from_slice(&[0.125f32, 0.125, 0.25, 0.5]));

    // Cut over two ranks: one token more, which weighs nothing.
    let part = |rank| MicroBatch::pack(&weighted, Part { rank, ranks: 2 }, Device::Cpu);
    let (first, second) = (part(0), part(1));
    same(&first.ids, &[5, 6, 7, 8, 9]);
    same(&second.ids, &[10, 1, 2, 3, 0]);
    same(&second.positions, &[1, 0, 1, 2, 0]);
    assert_eq!(first.cu_seqlens, [0, 4, 6, 9, 10]);
    assert_eq!(second.cu_seqlens, first.cu_seqlens);
    same(&first.predicts, &[0, 2, 4]);
    same(&second.predicts, &[2]);
    same(&second.targets, &[3]);

    // Nothing to do in this round: a token that weighs nothing.
    let idle = MicroBatch::pack(&[], Part { rank: 1, ranks: 2 }, Device::Cpu);
    same(&idle.ids, &[0]);
    assert_eq!(idle.cu_seqlens, [0, 2]);
    assert_eq!(idle.weights, Tensor::from_slice(&[0f32]));
}
