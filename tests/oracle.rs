//! What others read of our files: checkpoints in transformers, event files in TensorBoard, results
//! in lm-evaluation-harness.
//!
//! `just oracle` runs these with the Python it prepares; elsewhere they say so and pass.

use std::env;
use std::path::Path;
use std::process::Command;

use model::Qwen2;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use train::config::SaveDtype;
use train::progress::{Metrics, Progress};

use crate::compare::{golden, integers, path_from_env, read_tensors};
use crate::export_golden::export_from;

/// The JSON that a script of `tests/oracle` prints, or None after saying what is missing.
#[track_caller]
pub fn ask(script: &str, arguments: &[&Path]) -> Option<Value> {
    if env::var_os("S1_ORACLE").is_none() {
        println!("skipped: `just oracle` compares with Python (S1_ORACLE, S1_ORACLE_PYTHON)");
        return None;
    }
    let python = path_from_env("S1_ORACLE_PYTHON", ".venv/bin/python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle").join(script);
    let output = Command::new(&python).arg(script).args(arguments).output();
    let output =
        output.unwrap_or_else(|e| panic!("{}: {e}; set S1_ORACLE_PYTHON", python.display()));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// Our logits on an exported folder, for `tests/oracle/checkpoint_loads.py` to compare.
fn write_our_logits(folder: &Path, inputs: &Path, to: &Path) {
    let model = Qwen2::load(folder, Device::Cpu, Kind::Float).unwrap();
    let inputs = read_tensors(inputs);
    let mut stored = Vec::new();
    for i in 0..3 {
        let ids = integers(&inputs[&format!("ids.{i}")]);
        let logits = model.logits(&ids, &[0, ids.len() as i64]);
        let shape = logits.size().iter().map(|&n| n as usize).collect();
        let bytes = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        stored.push((format!("ids.{i}"), Dtype::I64, vec![ids.len()], bytes));
        stored.push((format!("logits.{i}"), Dtype::F32, shape, f32_bytes(&logits)));
    }
    let views = stored.iter().map(|(name, dtype, shape, bytes): &(_, _, _, Vec<u8>)| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, to).unwrap();
}

fn f32_bytes(tensor: &Tensor) -> Vec<u8> {
    let values = Vec::<f32>::try_from(tensor.view([-1])).unwrap();
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Exports a golden folder; transformers must find every tensor and our logits.
#[track_caller]
fn check_checkpoint(folder: &str, dtype: SaveDtype, file_limit: Option<usize>) {
    let out = tempfile::tempdir().unwrap();
    let checkpoint = out.path().join("checkpoint");
    std::fs::create_dir(&checkpoint).unwrap();
    export_from(folder, 2, dtype, file_limit, &checkpoint);
    let ours = out.path().join("ours.safetensors");
    write_our_logits(&checkpoint, &golden("tiny-tied-gqa4/expected.safetensors"), &ours);
    let Some(report) = ask("checkpoint_loads.py", &[&checkpoint, &ours, &golden(folder)]) else {
        return;
    };
    println!("{folder} as {dtype:?} in transformers: {report}");
    for list in ["missing", "unexpected", "mismatched"] {
        assert_eq!(report[list], json!([]), "{folder}: {list}");
    }
    assert_eq!(report["tied"], folder.contains("-tied"), "{folder}: tied");
    assert_eq!(report["examples"], 3, "{folder}: examples");
    let relative = report["largest_relative"].as_f64().unwrap();
    assert!(relative <= 1e-5, "{folder}: logits differ by {relative}");
    // Rounding to bf16 is told; nothing else may change a single bit of what transformers computes.
    let changed = report["largest_from_base"].as_f64().unwrap();
    let is_exact = dtype == SaveDtype::Float32 || folder.ends_with("-bf16");
    assert!(changed == 0.0 || !is_exact, "{folder}: the export changed logits by {changed}");
}

#[test]
fn transformers_loads_our_checkpoints() {
    let (float32, bfloat16) = (SaveDtype::Float32, SaveDtype::Bfloat16);
    check_checkpoint("tiny-tied-gqa4", float32, None);
    check_checkpoint("tiny-tied-gqa1", float32, Some(20_000));
    check_checkpoint("tiny-untied-gqa1", float32, None);
    check_checkpoint("tiny-untied-gqa4-sharded", float32, Some(35_000));
    check_checkpoint("tiny-tied-gqa1", bfloat16, None);
    check_checkpoint("tiny-untied-gqa1", bfloat16, Some(20_000));
    check_checkpoint("tiny-untied-gqa4-bf16", bfloat16, None);
}

/// lm-eval's own loaders read what `infer eval` has published in this folder, with our numbers.
#[track_caller]
pub fn check_lm_eval(folder: &Path) {
    let Some(report) = ask("lm_eval_reads.py", &[folder]) else { return };
    println!("{}", report["table"].as_str().unwrap());
    let text = std::fs::read_to_string(folder.join("results.json")).unwrap();
    let ours: infer::report::Results = serde_json::from_str(&text).unwrap();
    let samples = infer::report::read_samples(folder).unwrap();
    let mut names = Vec::new();
    for task in &ours.tasks {
        for row in &task.budgets {
            let name = format!("{}-{}", task.task, row.name);
            let own = samples.iter().filter(|s| (&s.task, &s.budget) == (&task.task, &row.name));
            let thinking: usize = own.map(|sample| sample.thinking_tokens).sum();
            let theirs = &report["samples"][&name];
            for hashes in ["rows", "doc_hashes", "prompt_hashes", "target_hashes"] {
                assert_eq!(theirs[hashes], task.questions, "{name}: {hashes} in {report}");
            }
            assert_eq!(theirs["task_hash"], true, "{name}");
            assert_eq!(theirs["thinking_tokens"], thinking, "{name}");
            let from_samples = theirs["exact_match"].as_f64().unwrap();
            assert!((from_samples - row.accuracy).abs() < 1e-12, "{name}: {from_samples}");
            assert_eq!(report["results"][&name]["exact_match,none"], row.accuracy, "{name}");
            let stem = report["results_datetime"].as_str().unwrap().trim_end_matches(".json");
            assert_eq!(theirs["datetime"], stem, "{name}");
            assert!(report["table"].as_str().unwrap().contains(&name), "{name}");
            names.push(name);
        }
    }
    assert_eq!(report["samples"].as_object().unwrap().len(), names.len());
    // Only the samples: lm-eval 0.4.13 looks for the date of a results file with its `.json`, and so
    // lists none of its own files either.
    assert_eq!(report["card"].as_array().unwrap().len(), names.len(), "{}", report["card"]);
}

#[test]
fn tensorboard_reads_our_events() {
    let out = tempfile::tempdir().unwrap();
    let mut progress = Progress::new(out.path(), 3, 0, Device::Cpu).unwrap();
    for step in 1..=3 {
        let (loss, grad_norm) = (4.0 / step as f64, 0.5 * step as f64);
        let (learning_rate, epoch) = (2.0_f64.powi(-(step as i32)), step as f64 / 4.0);
        let tokens = 100 * step;
        let (recomputed, skipped) = (false, false);
        let metrics =
            Metrics { step, epoch, loss, grad_norm, learning_rate, tokens, recomputed, skipped };
        progress.step(metrics, 1e9);
    }
    progress.finish();
    let folder = out.path().join("tensorboard");
    let Some(scalars) = ask("tensorboard_reads.py", &[&folder]) else { return };
    for (tag, values) in [
        ("train/loss", json!([[1, 4.0], [2, 2.0], [3, f64::from(4.0_f32 / 3.0)]])),
        ("train/grad_norm", json!([[1, 0.5], [2, 1.0], [3, 1.5]])),
        ("train/learning_rate", json!([[1, 0.5], [2, 0.25], [3, 0.125]])),
        ("train/epoch", json!([[1, 0.25], [2, 0.5], [3, 0.75]])),
    ] {
        assert_eq!(scalars[tag], values, "{tag} in {scalars}");
    }
}
