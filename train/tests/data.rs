//! Order, shares and over-long examples: what each optimizer step sees.

use std::fs;

use model::chat::{Chat, Example};
use tch::{Device, Tensor};
use train::config::{Config, Data, LossAverage, OverLong};
use train::data::{MicroBatch, Order, Part, weights};
use train::examples::Examples;
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

/// A word-level tokenizer with ChatML's control tokens, in `folder`.
fn write_tokenizer(folder: &std::path::Path) {
    let words = ["user", "assistant", "think", "answer", "Answer:", "a", "b", "c"];
    let vocab: Vec<String> =
        words.iter().enumerate().map(|(i, w)| format!("\"{w}\": {i}")).collect();
    let added: Vec<String> = ["<|im_start|>", "<|im_end|>"]
        .iter()
        .enumerate()
        .map(|(i, name)| {
            format!(
                r#"{{"id": {}, "content": "{name}", "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true}}"#,
                100 + i
            )
        })
        .collect();
    let json = format!(
        r#"{{"version": "1.0", "added_tokens": [{}],
            "pre_tokenizer": {{"type": "WhitespaceSplit"}},
            "model": {{"type": "WordLevel", "unk_token": "c", "vocab": {{{}}}}}}}"#,
        added.join(","),
        vocab.join(",")
    );
    fs::write(folder.join("tokenizer.json"), json).unwrap();
    let template = r#"{"chat_template": "<|im_start|>user\n{{ q }}<|im_end|>\n"}"#;
    fs::write(folder.join("tokenizer_config.json"), template).unwrap();
}

#[test]
fn over_long_rows_are_truncated_dropped_or_refused_and_always_listed() {
    let folder = tempfile::tempdir().unwrap();
    write_tokenizer(folder.path());
    let chat = Chat::read(folder.path()).unwrap();
    let path = folder.path().join("examples.jsonl");
    let row = |trace: &str| {
        format!(
            r#"{{"question": "a {trace}", "cot_type": "math", "source_type": "t", "metadata": "",
                "thinking_trajectories": ["{trace}"], "attempt": "b"}}"#
        )
        .replace('\n', " ")
    };
    // Around the trace: im_start user a … im_end im_start assistant | im_start think …
    // im_start answer Answer: b im_end, with the trace once on either side.
    fs::write(&path, [row("b"), row("b b b b"), row("b b")].join("\n")).unwrap();
    let read = |block_size, over_long| {
        let examples = path.display().to_string();
        Examples::read(&Data { examples, block_size, over_long }, &chat)
    };
    let lengths = |found: &Examples| -> Vec<usize> {
        found.examples.iter().map(|example| example.ids.len()).collect()
    };
    let whole = read(64, OverLong::Error).unwrap();
    assert_eq!(lengths(&whole), [15, 21, 17]);
    assert_eq!((whole.tokens(), whole.trained_tokens()), (53, 53 - 7 - 10 - 8));
    assert!(whole.over_long.is_empty());

    let cut = read(17, OverLong::Truncate).unwrap();
    assert_eq!(lengths(&cut), [15, 17, 17]);
    assert!(cut.over_long[0].starts_with("truncated ") && cut.over_long[0].contains("row 2"));

    let dropped = read(17, OverLong::Drop).unwrap();
    assert_eq!((lengths(&dropped), dropped.rows), (vec![15, 17], 3));
    assert!(
        dropped.over_long[0].contains("21 tokens, block_size is 17"),
        "{:?}",
        dropped.over_long
    );

    for (block_size, over_long, expected) in [
        (17, OverLong::Error, "row 2"),
        (17, OverLong::Error, "raise it, or set over_long to truncate or drop"),
        (8, OverLong::Truncate, "no token would be trained"),
        (3, OverLong::Drop, "every row was dropped"),
    ] {
        let text = format!("{:#}", read(block_size, over_long).unwrap_err());
        assert!(text.contains(expected), "{text:?} lacks {expected:?}");
    }
}
