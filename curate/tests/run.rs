//! Whole runs on small made pools: the folder, its books, its bytes, and what a mistake says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use curate::run::{self, Args};
use record::row::{Lineage, Row};
use record::seed::{Rng, rng};
use record::table;
use serde_json::Value;
use tempfile::TempDir;

/// A pool of random rows: duplicates, contamination, gaps and easy questions all occur.
pub fn pool(rows: usize, rng: &mut Rng) -> Vec<Row> {
    (0..rows).map(|number| row(number, rng)).collect()
}

fn row(number: usize, rng: &mut Rng) -> Row {
    let mut one_in = |n: u64| rng.below(n) == 0;
    let mut question =
        format!("Question {number}: how many roads lead from town {number} to Rome?");
    if one_in(8) {
        question = "How many roads are there altogether?".to_string();
    }
    if one_in(8) {
        question += " Find the number of ordered pairs of whole numbers here.";
    }
    if one_in(8) {
        question += " **See** p12.";
    }
    let source = if one_in(5) { "qq8933/AIME_1983_2024" } else { "AI-MO/NuminaMath-CoT/olympiads" };
    let answered = !one_in(9);
    Row {
        question,
        source_type: source.to_string(),
        cot_type: "math".to_string(),
        metadata: "{}".to_string(),
        thinking_trajectories: answered
            .then(|| "One, two, many.".to_string())
            .into_iter()
            .collect(),
        attempt: answered.then(|| "42".to_string()),
        isgeminicorrect: (!one_in(9)).then(|| one_in(2)),
        isqwen7bcorrect: (!one_in(9)).then(|| one_in(5)),
        isqwen32bcorrect: Some(one_in(5)),
        domain: (!one_in(9)).then(|| format!("domain {}", rng.below(4))),
        gemini_length: Some(rng.below(9000) as i64),
        ..Row::default()
    }
}

/// Writes pool, benchmark and config into `folder` and returns the config's path.
pub fn prepare(folder: &Path, pool: &[Row]) -> std::path::PathBuf {
    let file = |name: &str| folder.join(name).display().to_string();
    table::write_rows(&folder.join("pool.jsonl"), pool).unwrap();
    let benchmark = r#"{"id": 1, "problem": "Find the number of ordered pairs of whole numbers."}"#;
    fs::write(file("benchmark.jsonl"), benchmark).unwrap();
    let recipe =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/curate/s1k.toml"));
    let mut config: toml::Table = recipe.unwrap().parse().unwrap();
    config["output"] = file("out").into();
    config["pool"]["files"] = vec![file("pool.jsonl")].into();
    config["pool"]["features"] = toml::Value::Array(Vec::new());
    let benchmark = toml::toml! { name = "held out" from = { files = [] } column = "problem" };
    config["decontaminate"]["benchmarks"] = vec![toml::Value::Table(benchmark)].into();
    config["decontaminate"]["benchmarks"][0]["from"]["files"] =
        vec![file("benchmark.jsonl")].into();
    config["selection"]["target"] = 30.into();
    config["selection"]["uniform_until"] = 20.into();
    fs::write(file("curate.toml"), config.to_string()).unwrap();
    folder.join("curate.toml")
}

fn run(config: &Path, sets: &[String], overwrite: bool) -> anyhow::Result<String> {
    let sets = sets.to_vec();
    run::run(&Args { config: config.to_path_buf(), sets, overwrite, dry_run: false })
}

pub fn lineage(folder: &Path) -> Vec<Lineage> {
    let rows = table::stream_lineage(&folder.join("lineage.parquet")).unwrap();
    rows.collect::<anyhow::Result<_>>().unwrap()
}

/// The row of the pool as the selected table has it.
fn without_features(row: &Row, selected: &Row) -> Row {
    Row {
        text: selected.text.clone(),
        domain: None,
        isgeminicorrect: None,
        isqwen7bcorrect: None,
        isqwen32bcorrect: None,
        gemini_length: None,
        ..row.clone()
    }
}

pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn every_row_of_a_random_pool_leaves_with_one_verdict() {
    for seed in 0..10 {
        let folder = TempDir::new().unwrap();
        let pool = pool(400, &mut rng(seed, &["pool"]));
        let config = prepare(folder.path(), &pool);
        let summary = run(&config, &[], false).unwrap();

        let out = folder.path().join("out");
        let selected = table::read_rows(&out.join("selected.parquet")).unwrap();
        let lineage = lineage(&out);
        assert_eq!((selected.len(), lineage.len()), (30, 400), "seed {seed}");
        let mut left = selected.iter();
        for (number, (row, of)) in std::iter::zip(&pool, &lineage).enumerate() {
            assert_eq!((of.row, &of.question_hash), (number as i64 + 1, &row.hash()));
            assert_eq!((&of.domain, of.gemini_length), (&row.domain, row.gemini_length));
            if of.stage == "selected" {
                let text = left.next().unwrap();
                assert_eq!(text, &without_features(row, text), "selected, in the pool's order");
            }
        }
        let mut draws: Vec<i64> = lineage.iter().filter_map(|row| row.draw).collect();
        draws.sort();
        assert!(draws.into_iter().eq(1..=30), "seed {seed}");
        let text = selected[0].text.as_deref().unwrap();
        assert!(text.ends_with("<|im_start|>answer\nAnswer: 42<|im_end|>\n"), "{text}");

        let funnel: Value =
            serde_json::from_slice(&fs::read(out.join("funnel.json")).unwrap()).unwrap();
        let stages = funnel["stages"].as_array().unwrap();
        let mut rows_in = 400;
        for stage in stages {
            assert_eq!(stage["rows_in"], rows_in);
            rows_in = stage["kept"].as_u64().unwrap();
            assert!(stage["dropped"].as_u64().unwrap() > 0, "seed {seed}: {stage}");
        }
        assert_eq!((stages.len(), rows_in), (7, 30));
        assert_eq!(fs::read_to_string(out.join("summary.txt")).unwrap(), summary);
    }
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    let folder = TempDir::new().unwrap();
    let config = prepare(folder.path(), &pool(300, &mut rng(1, &["pool"])));
    let with_threads = |threads, sets: &[String]| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&config, sets, true)).unwrap();
        files(&folder.path().join("out"))
    };
    let once = with_threads(1, &[]);
    let names: Vec<&str> = once.keys().map(String::as_str).collect();
    let expected = [
        "README.md",
        "funnel.json",
        "lineage.parquet",
        "manifest.json",
        "report.html",
        "selected.parquet",
        "summary.txt",
    ];
    assert_eq!(names, expected);
    for threads in [2, 3, 7] {
        assert!(once == with_threads(threads, &[]), "one thread and {threads}: other bytes");
    }
    let refused = format!("{:#}", run(&config, &[], false).unwrap_err());
    assert!(refused.contains("--overwrite"), "{refused}");
    let other = with_threads(2, &["seed=43".to_string()]);
    assert!(once["selected.parquet"] != other["selected.parquet"], "another seed, other rows");
    let manifest: Value = serde_json::from_slice(&other["manifest.json"]).unwrap();
    assert_eq!(
        (&manifest["config"]["seed"], &manifest["seeds"]["selection"]),
        (&43.into(), &43.into())
    );
    assert_eq!(
        (&manifest["inputs"][0]["rows"], &manifest["inputs"][1]["rows"]),
        (&1.into(), &300.into())
    );
}

/// What is selected does not depend on the order of the pool, nor on its cut into files.
#[test]
fn the_order_of_the_pool_does_not_matter() {
    check_order("first", |number, question| format!("{question} ({number})"));
    // Of equal questions the fullest row stays, wherever it stands.
    check_order("fullest", |number, question| {
        question.replace(&number.to_string(), &(number % 60).to_string())
    });
}

fn check_order(keep: &str, question: impl Fn(usize, &str) -> String) {
    let folder = TempDir::new().unwrap();
    let number =
        |(number, row): (usize, Row)| Row { question: question(number, &row.question), ..row };
    let mut rows: Vec<Row> =
        pool(300, &mut rng(2, &["pool"])).into_iter().enumerate().map(number).collect();
    let config = prepare(folder.path(), &rows);
    let file = |name: &str| folder.path().join(name);
    let selected = |files: &str, algorithm: &str| -> BTreeSet<_> {
        let sets = [
            format!("pool.files={files}"),
            format!("pool.keep={keep}"),
            format!("selection.algorithm={algorithm}"),
            "selection.allow_fewer=true".to_string(),
        ];
        run(&config, &sets, true).unwrap();
        let lineage = lineage(&file("out")).into_iter();
        lineage
            .filter(|row| row.draw.is_some())
            .map(|row| (row.question_hash, row.draw, row.source_type))
            .collect()
    };
    for (shuffle, algorithm) in
        ["released-code", "paper-text", "random", "diverse", "longest", "full"].iter().enumerate()
    {
        let whole = format!("['{}']", file("pool.jsonl").display());
        table::write_rows(&file("pool.jsonl"), &rows).unwrap();
        let before = selected(&whole, algorithm);
        rng(shuffle as u64, &["shuffle"]).shuffle(&mut rows);
        let (left, right) = rows.split_at(50 * shuffle);
        table::write_rows(&file("left.parquet"), left).unwrap();
        table::write_rows(&file("right.jsonl"), right).unwrap();
        let [left, right] = ["left.parquet", "right.jsonl"].map(&file);
        let parts = format!("['{}', '{}']", left.display(), right.display());
        assert!(selected(&parts, algorithm) == before, "{keep}, {algorithm}");
    }
}

#[test]
fn a_dry_run_publishes_nothing() {
    let folder = TempDir::new().unwrap();
    let config = prepare(folder.path(), &pool(300, &mut rng(1, &["pool"])));
    let args = Args { config: config.clone(), dry_run: true, ..Args::default() };
    let dry = run::run(&args).unwrap();
    assert!(!folder.path().join("out").exists());
    assert_eq!(run(&config, &[], false).unwrap(), dry);
    let before = files(&folder.path().join("out"));
    run::run(&Args { sets: vec!["seed=7".to_string()], ..args }).unwrap();
    assert!(files(&folder.path().join("out")) == before, "an existing folder stays as it is");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4, "and nothing else is left");
}

/// Runs a good setup after `spoil` and expects the error to hold all `parts`, and no output.
#[track_caller]
fn check_error(sets: &[&str], spoil: impl Fn(&Path), parts: &[&str]) {
    let folder = TempDir::new().unwrap();
    let config = prepare(folder.path(), &pool(100, &mut rng(3, &["pool"])));
    spoil(folder.path());
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let error = format!("{:#}", run(&config, &sets, false).unwrap_err());
    for part in parts {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
    assert!(!folder.path().join("out/manifest.json").exists(), "something was published");
}

#[test]
fn mistakes_name_the_place_and_the_cure() {
    let fine = |_: &Path| {};
    check_error(&["pool.files=[]"], fine, &["pool.files is empty"]);
    check_error(&["selection.target=10"], fine, &["uniform_until = 20", "target = 10", "paper"]);
    check_error(
        &["selection.target=99"],
        fine,
        &["rows are left to select 99 from", "allow_fewer"],
    );
    check_error(&["selection.colour=1"], fine, &["colour"]);
    check_error(&["decontaminate.ngram=0"], fine, &["decontaminate.ngram must be at least 1"]);
    check_error(&["pool.files=['nowhere.parquet']"], fine, &["nowhere.parquet", "pool.files"]);
    let empty = |folder: &Path| fs::write(folder.join("benchmark.jsonl"), "").unwrap();
    check_error(&[], empty, &["the benchmark \"held out\" has no questions", "benchmark.jsonl"]);
    let other = |folder: &Path| fs::write(folder.join("benchmark.jsonl"), r#"{"q": ""}"#).unwrap();
    check_error(&[], other, &["held out", "benchmark.jsonl", "problem"]);
    let bare = |folder: &Path| {
        let row = Row { question: "What?".to_string(), ..row(1, &mut rng(0, &[])) };
        let without = Row { domain: None, ..row };
        table::write_rows(&folder.join("pool.jsonl"), &[without]).unwrap();
    };
    check_error(&[], bare, &["no row has `"]);
    let occupied = |folder: &Path| fs::create_dir(folder.join("out")).unwrap();
    check_error(&[], occupied, &["out exists"]);
}
