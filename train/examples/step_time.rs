//! Times the training step of a small model with random weights: CPU time, and its share by rate.
//!
//! Arguments: vocabulary (8192), threads (1), steps (5), tokens (2000), layers (12).

use std::time::Instant;

use c10d::Group;
use model::Config;
use model::chat::Example;
use tch::{Device, Kind, Tensor};
use train::config::Optimizer;
use train::data::MicroBatch;
use train::shards::Shards;
use train::step::Trainer;

fn main() {
    let number = |n, default| {
        std::env::args().nth(n).map_or(default, |text| text.parse().expect("a number"))
    };
    let (vocab, threads, steps) = (number(1, 8192), number(2, 1), number(3, 5));
    let (tokens, layers) = (number(4, 2000), number(5, 12));
    tch::set_num_threads(threads as i32);
    let config = Config::parse(&format!(
        r#"{{"model_type": "qwen2", "vocab_size": {vocab}, "hidden_size": 512,
            "intermediate_size": 2816, "num_hidden_layers": {layers}, "num_attention_heads": 8,
            "num_key_value_heads": 2, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
            "rope_theta": 1e6, "tie_word_embeddings": false}}"#
    ))
    .expect("a valid shape");
    let flat =
        |unit: &model::Unit| Ok(Tensor::randn([unit.numel()], (Kind::Float, Device::Cpu)) * 0.02);
    let shards = Shards::new(config, Group::solo(), Device::Cpu, flat).expect("shards");
    let optimizer = Optimizer {
        learning_rate: 1e-5,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 1e-4,
        max_grad_norm: 1.0,
    };
    let mut trainer = Trainer::new(shards, &optimizer, 32_768);
    // Eight segments, the longest thrice the shortest; a tenth of each is the question.
    let lengths = (0..8).map(|n| (tokens * (4 + n + n / 7) / 61) as usize);
    let examples: Vec<Example> = lengths
        .map(|length| Example {
            ids: (0..length as i64).map(|i| i * 7919 % vocab).collect(),
            trained_from: length / 10,
        })
        .collect();
    let batch = MicroBatch::pack(&examples.iter().collect::<Vec<_>>(), 8, Device::Cpu);
    let tokens = batch.ids.numel() as f64;
    for step in 0..steps {
        let (wall, cpu) = (Instant::now(), clock());
        let measured = trainer.step(std::slice::from_ref(&batch), 1e-5).expect("a step");
        let loss = measured.loss.double_value(&[]);
        let (wall, cpu) = (wall.elapsed().as_secs_f64(), (clock() - cpu) as f64 / 1e6);
        println!(
            "step {step}: loss {loss:.6}, {tokens} tokens, {cpu:.3} s of CPU ({:.1} tokens/s), \
             {wall:.3} s",
            tokens / cpu
        );
    }
}

/// CPU time of all threads in microseconds.
fn clock() -> i64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit(") ").next().expect("a name in brackets");
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = |n: usize| fields[n].parse::<i64>().expect("a number of ticks");
    (ticks(11) + ticks(12)) * 10_000 // user and system, 100 ticks a second
}
