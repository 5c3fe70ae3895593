//! `curate select`: sets from a run's lineage, equal to those of whole runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use curate::run;
use curate::select::{self, Args};
use record::row::{Features, Lineage, Row};
use record::seed::rng;
use record::table;

use crate::run::{files, lineage, pool, prepare};

/// A run in `folder` of 400 random rows, with `sets` over its config.
fn prepared(folder: &Path, sets: &[&str]) -> PathBuf {
    let config = prepare(folder, &pool(400, &mut rng(5, &["pool"])));
    let sets = sets.iter().map(|set| set.to_string()).collect();
    run::run(&run::Args { config: config.clone(), sets, ..run::Args::default() }).unwrap();
    config
}

/// Writes a criterion, its selection as TOML in one line, and returns its path; its folder has the
/// same name.
fn criterion(folder: &Path, name: &str, selection: &str) -> PathBuf {
    let path = folder.join(name).with_extension("toml");
    let output = folder.join(name);
    let text = format!("output = '{}'\nseed = 42\nselection = {selection}\n", output.display());
    fs::write(&path, text).unwrap();
    path
}

fn select(folder: &Path, criteria: &[PathBuf]) -> anyhow::Result<String> {
    select::run(&Args { from: folder.join("out"), criteria: criteria.to_vec(), ..Args::default() })
}

/// Rows by their stage.
fn stages(lineage: &[Lineage]) -> BTreeMap<&str, usize> {
    let mut stages = BTreeMap::new();
    lineage.iter().for_each(|row| *stages.entry(row.stage.as_str()).or_insert(0) += 1);
    stages
}

#[test]
fn a_criterion_gives_what_a_run_gives() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let config = prepared(folder, &[]);
    let config: toml::Table = fs::read_to_string(config).unwrap().parse().unwrap();
    let own = criterion(folder, "own", &config["selection"].to_string());
    let random = criterion(folder, "random", "{algorithm='random', target=25, after='quality'}");
    let summary = select(folder, &[own, random]).unwrap();
    assert!(summary.contains("random.toml"), "{summary}");

    let (run, own) = (files(&folder.join("out")), files(&folder.join("own")));
    for table in ["lineage.parquet", "selected.parquet"] {
        assert!(run[table] == own[table], "{table} differs");
    }
    let set = "selection={algorithm='random', target=25, after='quality'}".to_string();
    let sets = vec![set, format!("output='{}'", folder.join("whole").display())];
    run::run(&run::Args { config: folder.join("curate.toml"), sets, ..run::Args::default() })
        .unwrap();
    let (whole, random) = (files(&folder.join("whole")), files(&folder.join("random")));
    for table in ["lineage.parquet", "selected.parquet"] {
        assert!(whole[table] == random[table], "{table} of random differs");
    }
}

#[test]
fn each_algorithm_takes_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepared(folder, &[]);
    let of = |name: &str, after: &str| {
        let target = if name == "full" { "" } else { "target=20, " };
        criterion(
            folder,
            &format!("{name}-{after}"),
            &format!("{{algorithm='{name}', {target}after='{after}'}}"),
        )
    };
    let criteria = [
        of("random", "answered"),
        of("random", "difficulty"),
        of("diverse", "quality"),
        of("longest", "quality"),
        of("full", "answered"),
        of("paper-text", "difficulty"),
    ];
    select(folder, &criteria).unwrap();
    let made = criteria.map(|path| lineage(&path.with_extension("")));
    let chosen = |lineage: &[Lineage]| -> BTreeSet<i64> {
        lineage.iter().filter(|row| row.draw.is_some()).map(|row| row.row).collect()
    };
    for (set, wanted) in made.iter().zip([20, 20, 20, 20, 0, 20]) {
        assert!(wanted == 0 || chosen(set).len() == wanted, "{:?}", stages(set));
    }
    let [random, _, diverse, longest, full, _] = &made;
    let before = |set: &[Lineage]| {
        let mut stages = stages(set);
        let candidates =
            stages.remove("selected").unwrap() + stages.remove("diversity").unwrap_or(0);
        (candidates, stages.into_keys().map(str::to_string).collect::<Vec<_>>())
    };
    let early = ["deduplicate", "decontaminate", "quality: answered"].map(str::to_string);
    let mut early_sorted = early.to_vec();
    early_sorted.sort();
    assert_eq!(before(random), (stages(full)["selected"], early_sorted.clone()));
    assert_eq!(before(full).1, early_sorted);
    // The longest are longer than what they left.
    let lengths = |picked: bool| {
        let rows = longest.iter().filter(move |row| match picked {
            true => row.stage == "selected",
            false => row.stage == "diversity",
        });
        rows.map(|row| row.gemini_length.unwrap())
    };
    assert!(lengths(true).min() >= lengths(false).max());
    // Four domains, each as likely: none is left out of twenty draws by much.
    let mut domains = BTreeMap::new();
    for row in diverse.iter().filter(|row| row.stage == "selected") {
        *domains.entry(&row.domain).or_insert(0) += 1;
    }
    assert_eq!(domains.len(), 4, "{domains:?}");
}

#[track_caller]
fn check_error(folder: &Path, criteria: &[PathBuf], parts: &[&str]) {
    let error = format!("{:#}", select(folder, criteria).unwrap_err());
    for part in parts {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
}

#[test]
fn mistakes_name_the_place_and_the_cure() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let random = criterion(folder, "random", "{algorithm='random', target=20}");
    check_error(folder, std::slice::from_ref(&random), &["manifest.json", "curate run"]);
    prepared(folder, &["selection.after=quality"]);
    check_error(folder, std::slice::from_ref(&random), &["random.toml", "selection.after"]);
    let quality = criterion(folder, "quality", "{algorithm='random', target=20, after='quality'}");
    check_error(folder, &[quality.clone(), quality.clone()], &["that of another criterion"]);
    let no_target = criterion(folder, "none", "{algorithm='random', after='quality'}");
    check_error(folder, &[no_target], &["none.toml", "selection.target is missing"]);
    let many = criterion(folder, "many", "{algorithm='longest', target=999, after='quality'}");
    check_error(folder, &[many], &["rows are left to select 999 from"]);
    let early = criterion(folder, "early", "{algorithm='diverse', target=9, after='answered'}");
    check_error(folder, &[early], &["has no domain", "selection.after"]);
    let mut pool = table::read_rows(&folder.join("pool.jsonl")).unwrap();
    pool[7].question.push('!');
    table::write_rows(&folder.join("pool.jsonl"), &pool).unwrap();
    check_error(folder, &[quality], &["pool.jsonl has changed since"]);
}

/// Features in a side table are as good as in the pool, win over it, and are counted.
#[test]
fn features_come_from_side_tables() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepared(folder, &[]);
    let pool: Vec<Row> = table::read_rows(&folder.join("pool.jsonl")).unwrap();
    // Of questions that stand there twice the first decides; the second is a duplicate anyhow.
    let mut features: BTreeMap<String, Features> = BTreeMap::new();
    for row in &pool {
        features.entry(row.hash()).or_insert_with(|| Features {
            question_hash: row.hash(),
            domain: row.domain.clone(),
            isgeminicorrect: row.isgeminicorrect,
            isqwen7bcorrect: row.isqwen7bcorrect,
            isqwen32bcorrect: row.isqwen32bcorrect,
            gemini_length: row.gemini_length,
        });
    }
    let questions = features.len();
    let mut once = BTreeSet::new();
    let pool_once: Vec<Row> = pool.iter().filter(|row| once.insert(row.hash())).cloned().collect();
    let stranger =
        Features { question_hash: "0123456789abcdef".to_string(), ..Features::default() };
    let rows: Vec<Features> = features.into_values().chain([stranger]).collect();
    table::write_features(&folder.join("features.parquet"), &rows).unwrap();
    let bare = |row: &Row| Row {
        domain: None,
        isgeminicorrect: None,
        isqwen7bcorrect: None,
        isqwen32bcorrect: None,
        // To be overruled.
        gemini_length: row.gemini_length.map(|length| length + 1),
        ..row.clone()
    };
    let bare: Vec<Row> = pool.iter().map(bare).collect();
    table::write_rows(&folder.join("bare.parquet"), &bare).unwrap();
    let set = |key: &str, name: &str| format!("{key}=['{}']", folder.join(name).display());
    let joined = format!("output='{}'", folder.join("joined").display());
    let sets =
        vec![set("pool.files", "bare.parquet"), set("pool.features", "features.parquet"), joined];
    let config = folder.join("curate.toml");
    let summary =
        run::run(&run::Args { config: config.clone(), sets, ..run::Args::default() }).unwrap();
    let note = format!("Of {questions} different questions of the pool 0 have no row in the side");
    assert!(summary.contains(&note) && summary.contains("1 rows there are about no"), "{summary}");

    // A table with texts instead of hashes, as qfq/train_featurized is.
    let set_again = |name: &str| {
        let output = format!("output='{}'", folder.join(name).display());
        vec![set("pool.files", "bare.parquet"), set("pool.features", "texts.parquet"), output]
    };
    table::write_rows(&folder.join("texts.parquet"), &pool_once).unwrap();
    let again = run::Args { config, sets: set_again("texts"), ..run::Args::default() };
    run::run(&again).unwrap();

    let verdicts = |folder: &Path| -> Vec<_> {
        let lineage = lineage(folder).into_iter();
        lineage.map(|row| (row.question_hash, row.stage, row.reason, row.draw)).collect()
    };
    assert_eq!(verdicts(&folder.join("joined")), verdicts(&folder.join("out")));
    assert_eq!(verdicts(&folder.join("texts")), verdicts(&folder.join("out")));
}
