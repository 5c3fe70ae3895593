//! A model over several ranks: real processes over Gloo, the same tokens as on one.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use infer::engine::blocks::Copy;
use infer::engine::parallel::Order;
use serde_json::Value;

mod support;

/// `infer generate` over six prompts of different lengths, three slots, in a folder.
fn generate(folder: &Path, sets: &[&str]) -> Output {
    let mut infer = Command::new(env!("CARGO_BIN_EXE_infer"));
    infer.current_dir(folder).args(["generate", "generate.toml", "--overwrite"]);
    for name in ["RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS"] {
        infer.env_remove(name);
    }
    infer.env("OMP_NUM_THREADS", "1").env("TORCH_CPP_LOG_LEVEL", "FATAL");
    infer.args(sets.iter().flat_map(|set| ["--set", set])).output().unwrap()
}

fn prepare(folder: &Path, heads: usize, kv_heads: usize) {
    support::write_checkpoint_of(&folder.join("model"), heads, kv_heads);
    let prompts =
        ["a", "Once upon a time", "2 + 2 = ", "Zebra", "why", "the longest of all of them"];
    let rows: Vec<String> =
        prompts.iter().map(|text| serde_json::json!({"text": text}).to_string()).collect();
    fs::write(folder.join("prompts.jsonl"), rows.join("\n")).unwrap();
    let config = "seed = 3\noutput = \"out\"\nsamples = 2\nlogprobs = 1\n\
                  [model]\npath = \"model\"\ndevice = \"cpu\"\ndtype = \"float32\"\n\
                  max_model_len = 200\n[engine]\nslots = 3\nprefill_chunk = 8\n\
                  [prompts]\npath = \"prompts.jsonl\"\nprompt = \"text\"\nchat = false\n\
                  [generation]\nmax_gen_toks = 60\ntemperature = 0.7\nuntil = [\"<|im_end|>\"]\n";
    fs::write(folder.join("generate.toml"), config).unwrap();
}

#[track_caller]
fn completions(folder: &Path, sets: &[&str]) -> Vec<Value> {
    let out = generate(folder, sets);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = fs::read_to_string(folder.join("out/completions.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn ranks_write_the_tokens_of_one() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 8, 4);
    let alone = completions(folder.path(), &[]);
    assert_eq!(alone.len(), 12);
    for ranks in [2, 4] {
        let set = format!("model.tensor_parallel={ranks}");
        let shared = completions(folder.path(), &[&set]);
        let mut largest: f64 = 0.0;
        for (alone, shared) in alone.iter().zip(&shared) {
            assert_eq!(shared["token_ids"], alone["token_ids"], "{ranks} ranks");
            let scores = |line: &Value| line["logprobs"].as_array().unwrap().clone();
            for (a, b) in scores(alone).iter().zip(scores(shared)) {
                let apart = a["logprob"].as_f64().unwrap() - b["logprob"].as_f64().unwrap();
                largest = largest.max(apart.abs());
            }
        }
        println!("{ranks} ranks: log-probabilities {largest:.1e} apart");
        assert!(largest < 1e-4, "{ranks} ranks: {largest}");
        // To the bit the same whatever is written at once.
        let one_by_one = completions(folder.path(), &[&set, "engine.slots=1"]);
        assert_eq!(one_by_one, shared, "{ranks} ranks");
    }
}

#[test]
fn what_cannot_be_shared_is_said() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 4, 2);
    let out = generate(folder.path(), &["model.tensor_parallel=4"]);
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success());
    assert!(text.contains("4 ranks cannot share a model of 4 heads, 2 key and value"), "{text}");
}

#[test]
fn orders_arrive_as_they_were_sent() {
    let segments = vec![(vec![5, 6, 7], 12, vec![3, 0], 2), (vec![9], 0, vec![], 0)];
    let copy = Order::Copy(Copy { from: 3, to: 1, positions: 40 });
    for order in [Order::Pass(segments), Order::Pass(vec![]), copy, Order::Stop] {
        assert_eq!(Order::decode(&order.encode()), Some(order));
    }
    for words in [&[][..], &[7], &[1, 2, 3], &[1, -2, 3, 4], &[0, 0], &[2, 5, 1]] {
        assert_eq!(Order::decode(words), None, "{words:?}");
    }
}
