//! The chain as users run it: the three programs on the demo's data, small, from config to folder.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use record::{config, publish, table};
use serde_json::Value;

use crate::oracle::check_lm_eval;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests stand in the repository")
}

/// The folder of the three programs, up to date with their sources; cargo is quick where they are.
pub fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let test = env::current_exe().unwrap(); // target/PROFILE/deps/s1-…
        let folder = test.ancestors().nth(2).expect("cargo's layout").to_path_buf();
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(root());
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success(), "the programs do not build");
        folder
    })
}

/// Runs one stage from the repository's root, and checks what every stage publishes.
#[track_caller]
fn run(command: &str, config: &str, output: &Path, sets: &[&str], more: &[&str]) {
    let (program, subcommand) = command.split_once(' ').unwrap();
    let mut stage = Command::new(programs().join(program));
    stage.arg(subcommand).arg(root().join(config)).args(more).current_dir(root());
    stage.arg("--set").arg(format!("output={}", output.display()));
    stage.env("SOURCE_DATE_EPOCH", "1740787200"); // lm-eval's files bear the time in their names
    for set in sets {
        stage.args(["--set", set]);
    }
    let out = stage.output().unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{command}: {errors}");
    // A training run's log grows before everybody's eyes; published at once is its checkpoint.
    let published = if program == "train" { output.join("checkpoint") } else { output.into() };
    let manifest = json(&published.join("manifest.json"));
    assert_eq!(manifest["tool"], program);
    for (file, digest) in manifest["files"].as_object().unwrap() {
        let bytes = fs::metadata(published.join(file)).unwrap().len();
        assert_eq!(digest["bytes"], bytes, "{file}");
    }
    let summary = fs::read_to_string(output.join("summary.txt")).unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).contains(&summary), "the summary is printed");
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn sha256(folder: &Path) -> String {
    publish::input(folder, None).unwrap().sha256
}

/// Every pool row is accounted for once, from stage to stage and in the tables.
fn check_funnel(curated: &Path, target: usize) {
    let funnel = json(&curated.join("funnel.json"));
    let count = |value: &Value| value.as_u64().expect("a count") as usize;
    let pool = table::read_rows(&root().join("data/demo/pool.parquet")).unwrap().len();
    let mut left = pool;
    for stage in funnel["stages"].as_array().unwrap() {
        assert_eq!(count(&stage["rows_in"]), left, "{stage}");
        left -= count(&stage["dropped"]);
        assert_eq!(count(&stage["kept"]), left, "{stage}");
    }
    assert_eq!((count(&funnel["rows_in"]), count(&funnel["selected"])), (pool, target));
    let selected = table::read_rows(&curated.join("selected.parquet")).unwrap().len();
    let lineage = table::stream_lineage(&curated.join("lineage.parquet")).unwrap();
    let stages: Vec<String> = lineage.map(|row| row.unwrap().stage).collect();
    let kept = stages.iter().filter(|stage| *stage == "selected").count();
    assert_eq!((left, selected, kept, stages.len()), (target, target, target, pool));
}

#[test]
fn the_three_programs_make_a_chain() {
    let folder = tempfile::tempdir().unwrap();
    let [curated, trained, scored] = ["curate", "train", "infer"].map(|s| folder.path().join(s));
    let small = ["selection.target=48", "selection.uniform_until=34", "selection.seeded=[]"];
    let curate = |more: &[&str]| run("curate run", CURATE, &curated, &small, more);
    curate(&[]);
    check_funnel(&curated, 48);

    let examples = format!("data.examples={}/selected.parquet", curated.display());
    let short = [examples.as_str(), "batch.global_batch=16", "schedule.epochs=2"];
    run("train run", TRAIN, &trained, &short, &["--ranks", "2"]);
    let metrics = fs::read_to_string(trained.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 2 * 48 / 16, "one line a step");

    let model = format!("model.path={}/checkpoint", trained.display());
    let budgets = "budget=[{name='0', max_tokens_thinking=0}, {name='8', max_tokens_thinking=8}]";
    let few = [model.as_str(), "limit=6", budgets];
    let infer = |more: &[&str]| run("infer eval", INFER, &scored, &few, more);
    infer(&[]);
    let results = json(&scored.join("results.json"));
    let task = &results["tasks"][0];
    assert_eq!(task["questions"], 6);
    let names: Vec<&Value> = task["budgets"].as_array().unwrap().iter().collect();
    assert_eq!(names.iter().map(|budget| &budget["name"]).collect::<Vec<_>>(), ["0", "8"]);
    let samples = infer::report::read_samples(&scored).unwrap();
    assert_eq!(samples.len(), 2 * 6);

    check_attempts(folder.path(), &model);
    let before = [&curated, &scored].map(|folder| sha256(folder));
    curate(&["--overwrite"]);
    infer(&["--overwrite"]);
    assert_eq!([&curated, &scored].map(|folder| sha256(folder)), before, "the same bytes again");
}

/// What a model answers to a pool under `infer eval` becomes its grade in `curate featurise`, and
/// `curate run` drops what it solved as too easy.
fn check_attempts(folder: &Path, model: &str) {
    let at = |name: &str| folder.join(name).display().to_string();
    let mut pool = table::read_rows(&root().join("data/demo/pool.parquet")).unwrap();
    pool.truncate(60);
    pool.iter_mut().for_each(|row| row.isqwen7bcorrect = None);
    let file = folder.join("small.parquet");
    table::write_rows(&file, &pool).unwrap();
    let dataset = format!("task.dataset={}", file.display());
    let budgets = "budget=[{name='4', max_tokens_thinking=4}]";
    let sets = [model, dataset.as_str(), "task.answer=metadata", "task.id=question", budgets];
    run("infer eval", INFER, &folder.join("tried"), &sets, &[]);

    // What this hardly trained model says to every second question is taken for the truth.
    let samples = infer::report::read_samples(&folder.join("tried")).unwrap();
    for (row, sample) in pool.iter_mut().zip(&samples).step_by(2) {
        let said = sample.extracted.as_deref().filter(|said| !said.trim().is_empty());
        row.metadata = said.unwrap_or("nothing").trim().to_string();
        row.solution = Some(format!("Answer: {}", row.metadata));
    }
    table::write_rows(&file, &pool).unwrap();
    run("infer eval", INFER, &folder.join("tried"), &sets, &["--overwrite"]);
    check_lm_eval(&folder.join("tried"));
    let files = format!("pool.files=['{}']", file.display());
    let attempts = format!("attempts.isqwen7bcorrect=['{}']", at("tried/attempts.parquet"));
    let tokenizer = "length.tokenizer=data/demo/model/tokenizer.json";
    let sets = [files.as_str(), &attempts, tokenizer];
    run("curate featurise", "configs/real/featurise.toml", &folder.join("features"), &sets, &[]);
    let features = table::stream_features(&folder.join("features/features.parquet")).unwrap();
    let solved: Vec<String> = features
        .map(Result::unwrap)
        .filter(|row| row.isqwen7bcorrect == Some(true))
        .map(|row| row.question_hash)
        .collect();
    assert!(solved.len() >= 20, "only {} of 60 questions are solved", solved.len());

    let features = format!("pool.features=['{}']", at("features/features.parquet"));
    let small = ["selection.target=9", "selection.uniform_until=6", "selection.seeded=[]"];
    let sets = [&[files.as_str(), &features, "quality.grades_required=false"], &small[..]].concat();
    run("curate run", CURATE, &folder.join("easy"), &sets, &[]);
    let lineage = table::stream_lineage(&folder.join("easy/lineage.parquet")).unwrap();
    let rows: Vec<_> = lineage.map(Result::unwrap).collect();
    let easy: Vec<_> = rows.iter().filter(|row| row.stage == "difficulty").collect();
    assert!(easy.len() >= 15, "only {} rows are too easy", easy.len());
    for row in rows.iter().filter(|row| solved.contains(&row.question_hash)) {
        assert_ne!(row.stage, "selected", "{row:?}");
    }
    assert!(
        easy.iter()
            .all(|row| solved.contains(&row.question_hash) || row.isqwen32bcorrect == Some(true))
    );
}

const CURATE: &str = "configs/demo/curate.toml";
const TRAIN: &str = "configs/demo/train.toml";
const INFER: &str = "configs/demo/infer.toml";

/// Every file under `configs/` is a run of the stage that its folder or its name says.
#[test]
fn every_config_loads() {
    let mut loaded = 0;
    for folder in fs::read_dir(root().join("configs")).unwrap() {
        let folder = folder.unwrap().path();
        for file in fs::read_dir(&folder).unwrap() {
            let file = file.unwrap().path();
            let is_run = file.extension().is_some_and(|extension| extension == "toml");
            if !is_run || folder.ends_with("train") || folder.ends_with("tasks") {
                // What only its own stage's tests read: criteria, sources and prompts of curate,
                // train's runs on many ranks and their launchers. Tasks are read with infer's runs.
                continue;
            }
            let stem = file.file_stem().unwrap().to_str().unwrap();
            let folder = folder.file_name().unwrap().to_str().unwrap();
            let kind = match (folder, stem) {
                (_, "collect" | "featurise" | "judge" | "generate" | "serve" | "chat") => stem,
                (_, "curve") => "infer",
                ("curate" | "train" | "infer", _) => folder,
                _ => stem,
            };
            check_config(kind, &file);
            loaded += 1;
        }
    }
    assert!(loaded > 0, "configs/ holds no runs");
}

#[track_caller]
fn check_config(kind: &str, file: &Path) {
    let checked = match kind {
        "collect" => return, // curate's own tests run it on every source
        "featurise" => {
            config::load::<curate::featurise::Config>(file, &[]).and_then(|c| c.0.check())
        }
        "judge" => config::load::<infer::judge::Config>(file, &[]).map(drop),
        "serve" => config::load::<infer::serve::Config>(file, &[]).map(drop),
        "chat" => config::load::<infer::chat::Config>(file, &[]).map(drop),
        "generate" => config::load::<infer::generate::Config>(file, &[]).and_then(|c| c.0.check()),
        "curate" => config::load::<curate::config::Config>(file, &[]).and_then(|c| c.0.check()),
        "train" => config::load::<train::config::Config>(file, &[]).and_then(|c| c.0.check(1)),
        "infer" => config::load::<infer::config::Config>(file, &[]).and_then(|(mut config, _)| {
            config.tasks.iter_mut().for_each(|task| *task = root().join(&*task));
            config.check()
        }),
        _ => panic!("{}: neither folder nor name says what it is", file.display()),
    };
    checked.unwrap_or_else(|error| panic!("{}: {error:#}", file.display()));
}
