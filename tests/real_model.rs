//! Real weights and the real tokenizer against transformers: `just real-model` runs these.
//!
//! They need `qwen2.5-coder-0.5b-instruct/` in the folder that S1_MODELS names, and say so and pass
//! without it: whether it can be had is not ours to promise.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use model::Qwen2;
use model::chat::Chat;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::compare::golden;

const NAME: &str = "qwen2.5-coder-0.5b-instruct";

/// The model's folder, or None after saying what is missing.
fn model_folder() -> Option<PathBuf> {
    let folder = env::var_os("S1_MODELS").map(|models| PathBuf::from(models).join(NAME));
    let found = folder.filter(|folder| folder.join("tokenizer.json").exists());
    if found.is_none() {
        println!("skipped: S1_MODELS names no folder that holds {NAME}/");
    }
    found
}

/// A row of `tests/golden/chat.jsonl`.
#[derive(Deserialize)]
struct Conversation {
    name: String,
    question: String,
    thinking_trajectories: Vec<String>,
    attempt: String,
    text: String,
    ids: Vec<i64>,
    train: Vec<u8>,
}

/// `golden.json` beside the script that makes the models: numbers from transformers in fp32.
#[derive(Deserialize)]
struct Golden {
    models: std::collections::BTreeMap<String, GoldenModel>,
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
#[ignore = "needs real weights: just real-model"]
fn chat_ids_and_mask_equal_transformers_and_trl() {
    let Some(folder) = model_folder() else { return };
    let chat = Chat::read(&folder).unwrap();
    let file = fs::read_to_string(golden("chat.jsonl")).unwrap();
    let mut tokens = 0;
    for line in file.lines() {
        let row: Conversation = serde_json::from_str(line).unwrap();
        let content =
            record::example::assistant_content(&row.thinking_trajectories, &row.attempt);
        let (thinking, answer) = content
            .strip_prefix("<|im_start|>think\n")
            .and_then(|rest| rest.rsplit_once("\n<|im_start|>answer\n"))
            .unwrap();
        let example = chat.example(&row.question, thinking, answer).unwrap();
        assert_eq!(example.ids, row.ids, "ids of `{}`", row.name);
        let train: Vec<u8> =
            (0..row.ids.len()).map(|i| u8::from(i >= example.trained_from)).collect();
        assert_eq!(train, row.train, "train mask of `{}`", row.name);
        // NFC is the one change that decoding cannot undo.
        if row.name != "decomposed accents" {
            assert_eq!(chat.tokenizer.decode(&row.ids).unwrap(), row.text, "`{}`", row.name);
        }
        tokens += row.ids.len();
    }
    println!("{} conversations, {tokens} ids: all equal", file.lines().count());
}

#[test]
#[ignore = "needs real weights: just real-model"]
fn greedy_tokens_and_log_probabilities_equal_transformers() {
    let Some(folder) = model_folder() else { return };
    let shared = env::var("S1_SHARED").unwrap_or_else(|_| "../../shared".into());
    let Ok(text) = fs::read_to_string(PathBuf::from(&shared).join("models/golden.json")) else {
        println!("skipped: no models/golden.json in {shared} (S1_SHARED)");
        return;
    };
    let golden: Golden = serde_json::from_str(&text).unwrap();
    let golden = &golden.models[NAME];
    let started = Instant::now();
    let model = Qwen2::load(&folder, Device::Cpu, Kind::Float).unwrap();
    println!("loaded in {:.1} s", started.elapsed().as_secs_f64());
    let chat = Chat::read(&folder).unwrap();
    golden.chat.iter().for_each(|row| check_greedy(&model, &chat, row));
    check_log_probabilities(&model, &chat, &golden.text);
}

/// The prompt's ids, its five best next tokens, and every greedy token after it.
fn check_greedy(model: &Qwen2, chat: &Chat, row: &GoldenChat) {
    assert_eq!(chat.prompt(&row.user).unwrap(), row.input_ids);
    let started = Instant::now();
    let mut cache = model.new_cache();
    let mut logits = model.extend(&mut cache, &row.input_ids);
    let (values, ids) = logits.topk(5, 0, true, true);
    let top5: Vec<i64> = row.next_token_top5.iter().map(|(id, _)| *id).collect();
    assert_eq!(Vec::<i64>::try_from(&ids).unwrap(), top5);
    let theirs: Vec<f64> = row.next_token_top5.iter().map(|(_, logit)| *logit).collect();
    let off = f64::try_from((values.to_kind(Kind::Double) - Tensor::from_slice(&theirs)).abs().max());
    let off = off.unwrap();
    assert!(off < 1e-3, "a top-five logit is off by {off}"); // they are stored with four digits
    let mut greedy = Vec::new();
    for expected in &row.greedy_ids {
        let next = logits.argmax(0, false).int64_value(&[]);
        greedy.push(next);
        if next != *expected {
            break;
        }
        logits = model.extend(&mut cache, &[next]);
    }
    assert_eq!(greedy, row.greedy_ids, "greedy tokens after `{}`", row.user);
    assert_eq!(chat.tokenizer.decode(&greedy).unwrap(), row.greedy_text);
    println!(
        "`{}`: all {} greedy tokens equal (smallest margin {}), top-5 logits within {off:.1e}, {:.1} s",
        row.user,
        greedy.len(),
        row.smallest_top2_margin,
        started.elapsed().as_secs_f64(),
    );
}

/// The log-probability of every token of a fixed text, given those before it.
fn check_log_probabilities(model: &Qwen2, chat: &Chat, row: &GoldenText) {
    assert_eq!(chat.tokenizer.encode_text(&row.text).unwrap(), row.ids);
    let count = row.ids.len() as i64;
    let logits = model.logits(&row.ids, &[0, count]);
    let targets = Tensor::from_slice(&row.ids[1..]).unsqueeze(1);
    let ours = logits.narrow(0, 0, count - 1).log_softmax(-1, Kind::Double).gather(1, &targets, false);
    let theirs = Tensor::from_slice(&row.logprobs_of_ids_from_second);
    let off = f64::try_from((ours.squeeze_dim(1) - theirs).abs().max()).unwrap();
    println!("log-probabilities of {} tokens: largest difference {off:.1e}", count - 1);
    assert!(off < 1e-3, "a log-probability is off by {off}"); // they are stored with four digits
}
