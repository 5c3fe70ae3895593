//! `infer generate` end to end on a tiny model: texts and ids in, completions out.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::write_checkpoint;

const CONFIG: &str = r#"
output = "DIR/out"
seed = 3
[model]
path = "DIR/checkpoint"
device = "cpu"
dtype = "float32"
max_model_len = 160
threads = 1
[engine]
slots = 4
[prompts]
path = "DIR/prompts.jsonl"
prompt = "prompt"
id = "name"
chat = false
[generation]
max_gen_toks = 12
temperature = 0.0
"#;

fn set_up(rows: &[Value]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(&folder.path().join("checkpoint"));
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(folder.path().join("prompts.jsonl"), lines).unwrap();
    let config = folder.path().join("generate.toml");
    fs::write(&config, CONFIG.replace("DIR", &folder.path().display().to_string())).unwrap();
    (folder, config)
}

/// The lines of the output with these `--set`s.
#[track_caller]
fn lines(rows: &[Value], sets: &[&str]) -> Vec<Value> {
    let (folder, config) = set_up(rows);
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    infer::generate::run(&config, &sets, false).unwrap();
    let text = fs::read_to_string(folder.path().join("out/completions.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn rows() -> Vec<Value> {
    vec![
        json!({"prompt": "Tell me.", "name": "a"}),
        json!({"prompt": [52, 69, 76, 76, 0, 77, 69, 14], "name": 7}), // the same in ids
        json!({"prompt": "Something else", "name": null}),
    ]
}

#[test]
fn texts_and_ids_are_continued() {
    let all = lines(&rows(), &[]);
    assert_eq!(all.len(), 3);
    for (n, line) in all.iter().enumerate() {
        assert_eq!((&line["row"], &line["sample"]), (&json!(n), &json!(0)));
        let ids = line["token_ids"].as_array().unwrap();
        assert!(ids.len() == 12 || line["ending"] == "stop", "{line}");
        assert!(line.get("budget").is_none() && line.get("logprobs").is_none(), "{line}");
    }
    assert_eq!(all[0]["token_ids"], all[1]["token_ids"]);
    assert_eq!(all[0]["text"], all[1]["text"]);
    assert_ne!(all[0]["text"], all[2]["text"]);
    assert_eq!([&all[0]["id"], &all[1]["id"]], [&json!("a"), &json!(7)]);
    let chat = lines(&rows(), &["prompts.chat=true"]);
    assert!(chat[0]["prompt_tokens"].as_u64() > all[0]["prompt_tokens"].as_u64());
}

#[test]
fn samples_budgets_and_log_probabilities() {
    let sets = [
        "samples=3",
        "generation.temperature=1.5",
        "logprobs=2",
        r#"budget=[{name="0", max_tokens_thinking=0}, {name="9", max_tokens_thinking=9}]"#,
    ];
    let all = lines(&rows(), &sets);
    let order = |line: &Value| {
        let number = |key: &str| line[key].as_u64().unwrap();
        (number("row"), line["budget"].as_str().unwrap().to_owned(), number("sample"))
    };
    assert!(all.is_sorted_by_key(order), "by row, budget, sample");
    assert_eq!(all.len(), 18);
    assert_ne!(all[0]["text"], all[1]["text"], "samples are drawn apart");
    for line in &all {
        let ids = line["token_ids"].as_array().unwrap();
        for scored in line["logprobs"].as_array().unwrap() {
            assert!(scored["at"].as_u64().unwrap() < ids.len() as u64);
            assert!(scored["logprob"].as_f64().unwrap() <= scored["top"][0][1].as_f64().unwrap());
        }
    }
    assert_eq!(all, lines(&rows(), &[&sets[..], &["engine.slots=1"]].concat()));
    assert_ne!(all, lines(&rows(), &[&sets[..], &["seed=4"]].concat()));
}

/// Killed after its first answer and begun again, it asks for nothing twice and publishes what an
/// unbroken run does; so does one with a cache.
#[test]
fn what_is_finished_is_kept() {
    let sets =
        ["samples=80", "generation.temperature=1.5", "generation.max_gen_toks=100", "logprobs=2"];
    let expected = lines(&rows(), &sets);
    let (folder, config) = set_up(&rows());
    let infer = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
        command.arg("generate").arg(&config).args(sets.iter().flat_map(|set| ["--set", set]));
        command.stderr(Stdio::piped()).stdout(Stdio::null());
        command
    };
    let kept = folder.path().join(".out.journal");
    let entries = || {
        let file = fs::read_to_string(kept.join("0.log")).unwrap_or_default();
        file.lines().filter(|line| line.len() > 100).count()
    };
    let mut child = infer().spawn().unwrap();
    while entries() == 0 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = entries();
    assert!((1..140).contains(&before), "{before} of 160 different ones before the kill");
    let out = infer().output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.contains("answers are there already"), "{said}");
    let text = fs::read_to_string(folder.path().join("out/completions.jsonl")).unwrap();
    let found: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found, expected);
    assert!(!kept.exists(), "the journal of a run that is published");
}

/// A chat template is needed where a chat's prompt is put together, and nowhere else.
#[test]
fn a_model_without_chatml_continues_texts() {
    let (folder, config) = set_up(&rows());
    fs::write(folder.path().join("checkpoint/chat_template.jinja"), "[INST]").unwrap();
    infer::generate::run(&config, &[], false).unwrap();
    let chat = infer::generate::run(&config, &["prompts.chat=true".into()], true).unwrap_err();
    assert!(format!("{chat:#}").contains("not ChatML"), "{chat:#}");
}

#[track_caller]
fn check_error(row: Value, set: &str, parts: &[&str]) {
    let (folder, config) = set_up(&[row]);
    let error = infer::generate::run(&config, &[set.into()], false).unwrap_err();
    for part in parts {
        assert!(format!("{error:#}").contains(part), "{part:?} is not in: {error:#}");
    }
    assert!(!folder.path().join("out").exists(), "something was published");
}

#[test]
fn mistakes_are_explained() {
    let good = || json!({"prompt": "x"});
    check_error(json!({"text": "x"}), "seed=1", &["line 1", "no column `prompt`"]);
    check_error(json!({"prompt": 3}), "seed=1", &["line 1", "neither a text nor a list"]);
    check_error(json!({"prompt": [1, "b"]}), "seed=1", &["line 1", "no list of ids"]);
    check_error(json!({"prompt": [1, 500]}), "seed=1", &["line 1", "does not have"]);
    check_error(json!({"prompt": ""}), "seed=1", &["line 1", "is empty"]);
    check_error(good(), "samples=0", &["samples is 0"]);
    check_error(good(), "samples=2", &["samples is 2", "generation.temperature"]);
    check_error(good(), "model.max_model_len=1", &["row 0", "leave no room"]);
    check_error(good(), "generation.top_p=2", &["top_p 2"]);
    let long = "budget=[{name=\"x\", max_tokens_thinking=150}]";
    check_error(good(), long, &["budget \"x\"", "behind 150 tokens of thinking", "row 0"]);
    check_error(good(), "model.threads=999", &["model.threads is 999"]);
    check_error(good(), "generation.stop=[\"\"]", &["empty text"]);
}
