//! Real weights against transformers: greedy tokens and log-probabilities; `just real-model`.
//!
//! They need `qwen2.5-coder-0.5b-instruct/` in the folder that S1_MODELS names, and say so and pass
//! without it: whether it can be had is not ours to promise.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use model::chat::Chat;
use model::{Decoder, Qwen2, Segment};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::compare::path_from_env;

const NAME: &str = "qwen2.5-coder-0.5b-instruct";

/// The model's folder, or None after saying what is missing.
pub fn model_folder() -> Option<PathBuf> {
    let folder = env::var_os("S1_MODELS").map(|_| path_from_env("S1_MODELS", "").join(NAME));
    let found = folder.filter(|folder| folder.join("tokenizer.json").exists());
    if found.is_none() {
        println!("skipped: S1_MODELS names no folder that holds {NAME}/");
    }
    found
}

/// `golden.json` beside the script that makes the models: numbers from transformers in fp32.
#[derive(Deserialize)]
struct Golden {
    models: BTreeMap<String, GoldenModel>,
}

#[derive(Deserialize)]
struct GoldenModel {
    chat: Vec<GoldenChat>,
    text: GoldenText,
}

#[derive(Deserialize)]
struct GoldenChat {
    user: String,
    input_ids: Vec<i64>,
    next_token_top5: Vec<(i64, f64)>,
    greedy_ids: Vec<i64>,
    greedy_text: String,
    smallest_top2_margin: f64,
}

#[derive(Deserialize)]
struct GoldenText {
    text: String,
    ids: Vec<i64>,
    logprobs_of_ids_from_second: Vec<f64>,
}

#[test]
fn greedy_tokens_and_log_probabilities_equal_transformers() {
    let Some(folder) = model_folder() else { return };
    let numbers = path_from_env("S1_SHARED", "../shared").join("models/golden.json");
    let Ok(text) = fs::read_to_string(&numbers) else {
        println!("skipped: no {} (S1_SHARED)", numbers.display());
        return;
    };
    let golden: Golden = serde_json::from_str(&text).unwrap();
    let golden = &golden.models[NAME];
    let started = Instant::now();
    let model = Qwen2::load(&folder, Device::Cpu, Kind::Float).unwrap();
    println!("loaded in {:.1} s", started.elapsed().as_secs_f64());
    let chat = Chat::read(&folder).unwrap();
    let decoder = Decoder::load(&folder, Device::Cpu, Kind::Float).unwrap();
    golden.chat.iter().for_each(|row| check_greedy(&decoder, &chat, row));
    check_log_probabilities(&model, &chat, &golden.text);
}

/// The prompt's ids, its five best next tokens, and every greedy token after it.
fn check_greedy(model: &Decoder, chat: &Chat, row: &GoldenChat) {
    assert_eq!(chat.prompt(&row.user).unwrap(), row.input_ids);
    let started = Instant::now();
    let mut cache = model.new_cache(1, 1024);
    let mut seen = 0;
    let mut extend = |ids: &[i64]| {
        let segment = Segment { ids, start: seen, blocks: &[0], logits: 1 };
        seen += ids.len();
        model.pass(&mut cache, &[segment]).unwrap().squeeze_dim(0)
    };
    let mut logits = extend(&row.input_ids);
    let (values, ids) = logits.topk(5, 0, true, true);
    let top5: Vec<i64> = row.next_token_top5.iter().map(|(id, _)| *id).collect();
    assert_eq!(Vec::<i64>::try_from(&ids).unwrap(), top5);
    let theirs: Vec<f64> = row.next_token_top5.iter().map(|(_, logit)| *logit).collect();
    let off =
        f64::try_from((values.to_kind(Kind::Double) - Tensor::from_slice(&theirs)).abs().max());
    let off = off.unwrap();
    assert!(off < 2e-4, "a top-five logit is off by {off}"); // stored with four digits
    let mut greedy = Vec::new();
    for expected in &row.greedy_ids {
        let next = logits.argmax(0, false).int64_value(&[]);
        greedy.push(next);
        if next != *expected {
            break;
        }
        logits = extend(&[next]);
    }
    assert_eq!(greedy, row.greedy_ids, "greedy tokens after `{}`", row.user);
    assert_eq!(chat.tokenizer.decode(&greedy).unwrap(), row.greedy_text);
    println!(
        "`{}`: {} greedy tokens equal (smallest margin {}), top-5 logits within {off:.1e}, {:.1} s",
        row.user,
        greedy.len(),
        row.smallest_top2_margin,
        started.elapsed().as_secs_f64()
    );
}

/// The log-probability of every token of a fixed text, given those before it.
fn check_log_probabilities(model: &Qwen2, chat: &Chat, row: &GoldenText) {
    assert_eq!(chat.tokenizer.encode_text(&row.text).unwrap(), row.ids);
    let count = row.ids.len() as i64;
    let logits = model.logits(&row.ids, &[0, count]);
    let targets = Tensor::from_slice(&row.ids[1..]).unsqueeze(1);
    let ours =
        logits.narrow(0, 0, count - 1).log_softmax(-1, Kind::Double).gather(1, &targets, false);
    let theirs = Tensor::from_slice(&row.logprobs_of_ids_from_second);
    let off = f64::try_from((ours.squeeze_dim(1) - theirs).abs().max()).unwrap();
    println!("log-probabilities of {} tokens: largest difference {off:.1e}", count - 1);
    // transformers itself, on another processor than theirs, is off by 1.4e-4.
    assert!(off < 5e-4, "a log-probability is off by {off}");
}
