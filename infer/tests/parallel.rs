//! A model over several ranks: real processes over Gloo, the same tokens as on one, and an end for
//! all where one ends.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use c10d::Rank;
use infer::engine::blocks::Copy;
use infer::engine::parallel::Order;
use serde_json::Value;

mod support;

/// Nobody may wait longer than this, on however busy a machine.
const LIMIT: Duration = Duration::from_secs(120);

/// `infer` in a folder, under no launcher.
fn infer(folder: &Path, arguments: &[&str]) -> Command {
    let mut infer = Command::new(env!("CARGO_BIN_EXE_infer"));
    infer.current_dir(folder).args(arguments);
    for name in ["RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS"] {
        infer.env_remove(name);
    }
    infer.env("OMP_NUM_THREADS", "1");
    infer
}

/// `infer generate` over six prompts of different lengths, three slots, in a folder.
fn generate(folder: &Path, sets: &[&str]) -> Output {
    let mut infer = infer(folder, &["generate", "generate.toml", "--overwrite"]);
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
    for order in [Order::Pass(segments), Order::Pass(vec![]), copy, Order::Stop, Order::Load] {
        assert_eq!(Order::decode(&order.encode()), Some(order));
    }
    for words in [&[][..], &[7], &[1, 2, 3], &[1, -2, 3, 4], &[0, 0], &[2, 5, 1]] {
        assert_eq!(Order::decode(words), None, "{words:?}");
    }
}

/// Starts `infer generate` on two ranks with far more to do than there is time, and waits for the
/// second one.
fn start_two(folder: &Path) -> (Child, u32) {
    let mut infer = infer(folder, &["generate", "generate.toml", "--overwrite"]);
    infer.args(["--set", "model.tensor_parallel=2", "--set", "samples=3000"]);
    let mut child = infer.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let limit = Instant::now() + LIMIT;
    while Instant::now() < limit {
        if let [worker] = children(child.id())[..] {
            return (child, worker);
        }
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    panic!("there is no second rank");
}

/// Processes that `parent` has started and that have not ended.
fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    all.filter(|&pid| stat(pid).is_some_and(|(_, of)| of == parent)).collect()
}

/// A living process's CPU time in hundredths of a second, and its parent.
fn stat(pid: u32) -> Option<(u64, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let time = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
    (fields[0] != "Z").then_some((time, fields[1].parse().ok()?))
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

/// What a process that ends within the limit said.
#[track_caller]
fn ended(mut child: Child) -> Output {
    let limit = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > limit {
            child.kill().unwrap();
            panic!("it still runs: {}", error(&child.wait_with_output().unwrap()));
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn check_lost_worker(working: bool) {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 4, 2);
    let (rank_0, worker) = start_two(folder.path());
    if working {
        work_for_a_while(rank_0.id());
    }
    kill(worker);
    let output = ended(rank_0);
    assert!(!output.status.success(), "{}", error(&output));
    assert!(error(&output).contains("rank 1 ended too early"), "{}", error(&output));
}

/// Until the process has computed for a second more than it takes to start.
#[track_caller]
fn work_for_a_while(pid: u32) {
    let limit = Instant::now() + LIMIT;
    while stat(pid).expect("it still runs").0 < 300 {
        assert!(Instant::now() < limit, "it does nothing");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_rank_that_dies_ends_all() {
    check_lost_worker(false);
    check_lost_worker(true);
}

#[test]
fn no_rank_outlives_rank_0() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 4, 2);
    for working in [false, true] {
        let (mut rank_0, worker) = start_two(folder.path());
        if working {
            work_for_a_while(rank_0.id());
        }
        rank_0.kill().unwrap();
        rank_0.wait().unwrap();
        let limit = Instant::now() + LIMIT;
        while stat(worker).is_some() {
            assert!(Instant::now() < limit, "rank 1 still runs");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Both ranks of a launcher, each to its end.
fn launched(folder: &Path, arguments: &[&str]) -> [Output; 2] {
    let port = c10d::Rank::free_port().unwrap();
    let start = |rank| {
        let mut infer = infer(folder, arguments);
        infer.envs(Rank::local(rank, 2, port).to_env());
        infer.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    [start(0), start(1)].map(ended)
}

#[test]
fn a_launchers_ranks_end_whatever_rank_0_finds() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 4, 2);
    let two = ["generate", "generate.toml", "--set", "model.tensor_parallel=2"];
    for output in launched(folder.path(), &two) {
        assert!(output.status.success(), "{}", error(&output));
    }
    let refused = [
        (two.to_vec(), "exists"),
        ([&two[..], &["--overwrite", "--set", "samples=0"]].concat(), "samples is 0"),
        (vec!["generate", "generate.toml"], "2 ranks were started"),
    ];
    for (arguments, reason) in refused {
        let [rank_0, _] = launched(folder.path(), &arguments);
        assert!(!rank_0.status.success() && error(&rank_0).contains(reason), "{}", error(&rank_0));
    }
    // These have nothing for a second rank to do.
    for arguments in [
        [&two[..], &["--set", "endpoint.server.model=none"]].concat(),
        vec!["judge", "there/is/no.toml"],
    ] {
        let [rank_0, rank_1] = launched(folder.path(), &arguments);
        assert!(!rank_0.status.success());
        assert!(rank_1.status.success(), "{}", error(&rank_1));
    }
}

/// Whoever uses the library gets no copies of itself.
#[test]
fn only_the_program_starts_ranks() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 4, 2);
    let paths = [("output", "out"), ("model.path", "model"), ("prompts.path", "prompts.jsonl")];
    let sets = paths.map(|(key, name)| format!("{key}={}", folder.path().join(name).display()));
    let sets = [&sets[..], &["model.tensor_parallel=2".to_string()]].concat();
    let refused = infer::generate::run(&folder.path().join("generate.toml"), &sets, false);
    let text = format!("{:#}", refused.unwrap_err());
    assert!(text.contains("only the program `infer`"), "{text}");
}
