//! The program itself: a run on one and two processes, what it leaves, and its refusals.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use model::{Checkpoint, Config, Layout};
use tch::{Kind, Tensor};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A Qwen2 of two layers without weights, with the demo's tokenizer.
fn copy_base(folder: &Path, name: &str, shape: &[(&str, u32)]) {
    let (base, demo) = (folder.join(name), workspace().join("data/demo/model"));
    fs::create_dir(&base).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        fs::copy(demo.join(file), base.join(file)).unwrap();
    }
    let config = fs::read_to_string(demo.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let layers = [("num_hidden_layers", 2), ("num_attention_heads", 4), ("num_key_value_heads", 2)];
    for &(key, value) in shape.iter().chain(&layers) {
        config[key] = value.into();
    }
    fs::write(base.join("config.json"), config.to_string()).unwrap();
}

/// A folder with twelve examples and the config of a run on them: a tiny Qwen2 with the demo's
/// tokenizer, from random weights.
fn prepare() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_base(folder.path(), "base", &[("hidden_size", 32), ("intermediate_size", 48)]);
    let row = |n: usize| {
        format!(
            r#"{{"question": "What follows {n}?", "cot_type": "math", "source_type": "t",
                "metadata": "", "thinking_trajectories": ["{n} and one."], "attempt": "{}"}}"#,
            n + 1
        )
        .replace('\n', " ")
    };
    let rows: Vec<String> = (0..12).map(row).collect();
    fs::write(folder.path().join("examples.jsonl"), rows.join("\n")).unwrap();
    let config = "seed = 42\noutput = \"out\"\n\
        [data]\nexamples = \"examples.jsonl\"\nblock_size = 128\nover_long = \"error\"\n\
        [model]\npath = \"base\"\ninit = \"random\"\n\
        [batch]\nglobal_batch = 4\nmicro_batch_tokens = 64\n\
        [optimizer]\nlearning_rate = 1e-2\nbeta1 = 0.9\nbeta2 = 0.95\neps = 1e-8\n\
        weight_decay = 1e-4\nmax_grad_norm = 1.0\n\
        [schedule]\nepochs = 3\nwarmup_ratio = 0.1\n";
    fs::write(folder.path().join("train.toml"), config).unwrap();
    folder
}

fn train(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_train"))
        .current_dir(folder)
        .args(["run", "train.toml"])
        .args(arguments)
        .env_remove("RANK")
        .env("OMP_NUM_THREADS", "1")
        .env("HF_HOME", folder.join("hub"))
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .output()
        .unwrap()
}

#[track_caller]
fn check_success(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn losses(folder: &Path) -> Vec<f64> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    text.lines().map(|text| line(text)["loss"].as_f64().unwrap()).collect()
}

/// All parameters of a checkpoint behind one another.
fn weights(folder: &Path) -> Tensor {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let layout = Layout::new(checkpoint.config());
    let flat = |unit| checkpoint.read_unit(unit, Kind::Float).unwrap();
    Tensor::cat(&layout.units.iter().map(flat).collect::<Vec<_>>(), 0)
}

#[test]
fn the_same_run_gives_the_same_bytes_and_two_ranks_the_same_losses() {
    let folder = prepare();
    let path = folder.path();
    check_success(&train(path, &["--set", "output=one"]));
    check_success(&train(path, &["--set", "output=again"]));
    check_success(&train(path, &["--set", "output=two", "--ranks", "2"]));
    for file in ["metrics.jsonl", "checkpoint/model.safetensors", "checkpoint/config.json"] {
        let read = |run: &str| fs::read(path.join(run).join(file)).unwrap();
        assert_eq!(read("one"), read("again"), "{file}");
    }
    let (one, two) = (losses(&path.join("one")), losses(&path.join("two")));
    assert_eq!(one.len(), 9, "12 examples by 4, three times");
    assert!(one[8] < 0.8 * one[0], "the loss falls: {one:?}");
    let worst = one.iter().zip(&two).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max);
    println!("largest relative difference of a loss, 1 against 2 processes: {worst:.1e}");
    assert!(worst < 1e-4);
    let (one, two) = (weights(&path.join("one/checkpoint")), weights(&path.join("two/checkpoint")));
    let apart = (&one - two).abs().max().double_value(&[]) / one.abs().max().double_value(&[]);
    println!("largest difference of a weight, relative to the largest weight: {apart:.1e}");
    assert!(apart < 1e-2);
}

#[test]
fn a_run_goes_on_from_a_checkpoint_it_wrote() {
    let folder = prepare();
    let path = folder.path();
    check_success(&train(path, &[]));
    let config = Config::read(&path.join("out/checkpoint")).unwrap();
    assert_eq!(config.hidden_size, 32);
    let sets = ["--set", "model.path=out/checkpoint", "--set", "model.init=checkpoint"];
    check_success(&train(path, &[&sets[..], &["--set", "output=more"]].concat()));
    let (first, more) = (losses(&path.join("out")), losses(&path.join("more")));
    assert!(more[0] < 0.8 * first[0], "it starts where the other ended: {first:?}, {more:?}");
}

/// Arguments of a run, and what its refusal says.
const REFUSALS: [(&[&str], &str); 24] = [
    (&[], "out exists; pass --overwrite to replace it"),
    (&["--set", "output=mine", "--overwrite"], "mine is not a run's folder"),
    (&["--set", "batch.size=4"], "unknown field `size`"),
    (&["--set", "batch.micro_batch_tokens=0"], "batch.micro_batch_tokens = 0"),
    (
        &["--set", "distributed.sequence_parallel=2"],
        "distributed.sequence_parallel = 2 must divide the ranks of one copy",
    ),
    (&["--set", "distributed.replicate=3"], "distributed.replicate = 3 must divide the 1"),
    (&["--set", "schedule.epochs=0"], "schedule.epochs = 0"),
    (&["--set", "schedule.warmup_ratio=7"], "schedule.warmup_ratio = 7: it must be from 0 to 1"),
    (&["--set", "optimizer.learning_rate=-1"], "optimizer.learning_rate = -1"),
    (&["--overwrite", "--set", "data.examples=out/run.toml"], "lies in the output out"),
    (&["--overwrite", "--set", "data.examples=none.jsonl"], "data.examples: the table that"),
    (&["--set", "output=train.toml"], "train.toml is a file; name a folder"),
    (&["--overwrite", "--set", "data.block_size=20"], "row 1, question"),
    (
        &["--overwrite", "--set", "model.path=none"],
        "`none` is neither a folder here nor a hub repository",
    ),
    (&["--set", "model.init=checkpoint", "--overwrite"], "neither model.safetensors nor"),
    (&["--set", "data.block_size=99999", "--overwrite"], "max_position_embeddings"),
    (&["--set", "data.block_size=0"], "data.block_size = 0: an example needs tokens"),
    (&["--overwrite", "--set", "memory.limit_gib=0.0001"], "of 0.1 MiB planned for a rank"),
    (
        &["--overwrite", "--set", "model.path=huge", "--set", "memory.limit_gib=1e9"],
        "make room, or choose another place",
    ),
    (
        &["--overwrite", "--set", "data.examples=messages.jsonl"],
        "to train on its column `messages`, set data.format = \"messages\"",
    ),
    (
        &["--overwrite", "--set", "data.examples=text.jsonl"],
        "to train on its column `text`, set data.format = \"text\"",
    ),
    (
        &["--overwrite", "--set", "data.examples=none.jsonl", "--set", "data.format=text"],
        "error: data.examples: none.jsonl",
    ),
    (
        &["--overwrite", "--set", "data.examples=empty.jsonl"],
        "thinking_trajectories and attempt are empty",
    ),
    (
        &["--overwrite", "--set", "data.examples=owner/name"],
        "error: data.examples: downloading owner/name@main from the Hugging Face hub: the hub \
         is not reachable",
    ),
];

#[test]
fn refusals_name_the_place_and_the_cure() {
    let folder = prepare();
    let path = folder.path();
    fs::create_dir(path.join("mine")).unwrap();
    fs::write(path.join("mine/thesis.txt"), "years of work").unwrap();
    fs::create_dir(path.join("out")).unwrap();
    fs::write(path.join("out/run.toml"), "").unwrap();
    let messages = r#"{"messages": [{"role": "user", "content": "2?"},
        {"role": "assistant", "content": "3."}]}"#;
    let empty = r#"{"question": "What?", "cot_type": "math", "source_type": "t", "metadata": "",
        "thinking_trajectories": [""], "attempt": ""}"#;
    for (name, row) in [("messages", messages), ("text", r#"{"text": "2? 3."}"#), ("empty", empty)]
    {
        fs::write(path.join(name).with_extension("jsonl"), row.replace('\n', " ")).unwrap();
    }
    copy_base(path, "huge", &[("hidden_size", 65536), ("intermediate_size", 262_144)]);
    for (arguments, expected) in REFUSALS {
        let output = train(path, arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text:?} lacks {expected:?}");
        assert!(path.join("out/run.toml").exists(), "{arguments:?}: it cost the earlier run");
    }
    let thesis = fs::read_to_string(path.join("mine/thesis.txt")).unwrap();
    assert_eq!(thesis, "years of work");
}

#[test]
fn a_run_tells_what_it_does_and_leaves_its_whole_config() {
    let folder = prepare();
    let path = folder.path();
    let small = ["--set", "batch.global_batch=13", "--set", "batch.micro_batch_tokens=8"];
    let output = train(path, &small);
    check_success(&output);
    let said = String::from_utf8(output.stderr).unwrap();
    for expected in [
        "batch.global_batch = 13 is more than the 12 examples",
        "in passes of up to 8 tokens",
        "an example longer than batch.micro_batch_tokens passes alone",
        " MiB  ",
    ] {
        assert!(said.contains(expected), "{said:?} lacks {expected:?}");
    }
    let read = |file: &str| fs::read_to_string(path.join("out").join(file)).unwrap();
    let run: toml::Table = read("run.toml").parse().unwrap();
    let manifest: serde_json::Value =
        serde_json::from_str(&read("checkpoint/manifest.json")).unwrap();
    let defaults: [(&str, &str, toml::Value); 5] = [
        ("distributed", "timeout_seconds", 600.into()),
        ("memory", "recompute", "auto".into()),
        ("checkpoint", "keep_last", 2.into()),
        ("model", "save_dtype", "float32".into()),
        ("data", "format", "s1".into()),
    ];
    for (section, key, value) in defaults {
        assert_eq!(run[section][key], value, "{section}.{key}");
        let written = &manifest["config"][section][key];
        assert_eq!(*written, serde_json::to_value(&value).unwrap(), "{section}.{key}");
    }
    assert!(read("summary.txt").contains("at the peak of rank 0, "), "{}", read("summary.txt"));
    let export = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
        let output = command.current_dir(path).args(["export", "out"]).args(arguments).output();
        output.map(|output| String::from_utf8(output.stderr).unwrap()).unwrap()
    };
    let rows: [(&[&str], &str); 4] = [
        (&["--checkpoint", "step-000009"], "there are: step-000003"),
        (&[], ""),
        (&[], "pass --overwrite"),
        (&["--overwrite"], ""),
    ];
    for (arguments, expected) in rows {
        let said = export(arguments);
        assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{said}");
    }
}

/// What `train plan` says of a CPU, and `train run` before its first step.
#[test]
fn a_run_plans_what_was_planned() {
    let folder = prepare();
    let saving = |steps: &str| {
        let set = format!("checkpoint.every_steps={steps}");
        let command = ["plan", "train.toml", "--gpus", "cpu", "--set", &set];
        let plan = Command::new(env!("CARGO_BIN_EXE_train"))
            .current_dir(folder.path())
            .args(command)
            .output()
            .unwrap();
        check_success(&plan);
        let run = train(folder.path(), &["--overwrite", "--set", &set]);
        check_success(&run);
        let find = |text: &[u8], before: &str, after: &str| -> f64 {
            let text = String::from_utf8_lossy(text).into_owned();
            let peak = text.split_once(before).and_then(|(_, rest)| rest.split_once(after));
            let peak = peak.unwrap_or_else(|| panic!("{before:?} is missing in {text}")).0.trim();
            peak.rsplit(' ').next().unwrap().parse().unwrap()
        };
        let planned = find(&plan.stdout, ": ", " MiB of");
        assert_eq!(find(&run.stderr, "memory ", " MiB of"), planned, "saves every {steps} steps");
        planned
    };
    assert!(saving("1") > saving("100"), "a checkpoint being saved takes memory");
}

#[test]
fn what_is_wrong_on_every_rank_is_said_once_under_any_launcher() {
    let folder = prepare();
    let port = c10d::Rank::free_port().unwrap();
    let start = |rank: &str| {
        Command::new(env!("CARGO_BIN_EXE_train"))
            .current_dir(folder.path())
            .args(["run", "train.toml", "--set", "data.block_size=20"])
            .envs([("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", "2")])
            .envs([("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &port.to_string())])
            .env("OMP_NUM_THREADS", "1")
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let (mut second, first) = (start("1"), start("0"));
    let first = first.wait_with_output().unwrap();
    // As torchrun and srun do.
    second.kill().unwrap();
    let text = [first.stderr, second.wait_with_output().unwrap().stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.matches("row 1, question").count(), 1, "{text}");
}

#[test]
fn a_finished_run_stays_until_its_replacement_has_finished() {
    let folder = prepare();
    let path = folder.path();
    check_success(&train(path, &[]));
    let nan = ["--overwrite", "--set", "optimizer.learning_rate=1e30"];
    let output = train(path, &nan);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("are not finite, twice; the update was not made"), "{text}");
    assert!(path.join("out.replaced/checkpoint/model.safetensors").exists());
    check_success(&train(path, &["--overwrite"]));
    assert!(path.join("out/checkpoint/model.safetensors").exists());
    assert!(!path.join("out.replaced").exists());
}

#[test]
fn a_failed_rank_ends_the_run_and_is_named() {
    let folder = prepare();
    let output = train(folder.path(), &["--ranks", "2", "--set", "data.block_size=20"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("rank 0 ended with exit status: 1; the others were stopped"), "{text}");
    assert_eq!(text.matches("row 1, question").count(), 1, "said once: {text}");
}

#[test]
fn no_rank_outlives_the_launcher() {
    let folder = prepare();
    let mut launcher = Command::new(env!("CARGO_BIN_EXE_train"))
        .current_dir(folder.path())
        .args(["run", "train.toml", "--ranks", "2", "--set", "schedule.epochs=100000"])
        .env_remove("RANK")
        .spawn()
        .unwrap();
    let metrics = folder.path().join("out/metrics.jsonl");
    let steps = || fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    let start = Instant::now();
    while steps() < 3 {
        assert!(start.elapsed() < Duration::from_secs(60), "no step in a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let then = steps();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(steps(), then, "somebody still trains");
}
