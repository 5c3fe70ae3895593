//! A thousand random pipelines: each closes, and judges every row as a plain statement of the
//! rules.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use curate::run::{self, Args};
use proptest::prelude::*;
use record::row::{Lineage, Row};
use record::table;
use serde_json::Value;

/// A row of a random pool, in choices that shrink.
#[derive(Debug, Clone)]
struct Choices {
    question: u8,
    contaminated: bool,
    diagram: bool,
    numbered: bool,
    source: u8,
    trace: Option<bool>,
    attempt: bool,
    domain: Option<u8>,
    length: Option<u8>,
    grades: [Option<bool>; 3],
}

fn choices() -> impl Strategy<Value = Choices> {
    let text = (0..40u8, prop::bool::weighted(0.1), prop::bool::weighted(0.1), any::<bool>());
    let answer = (prop::option::weighted(0.9, prop::bool::weighted(0.95)), 0..12u8);
    let features = (prop::option::weighted(0.9, 0..3u8), prop::option::weighted(0.9, 0..9u8));
    let grade = || prop::option::weighted(0.9, prop::bool::weighted(0.3));
    (text, 0..3u8, answer, features, [grade(), grade(), grade()]).prop_map(
        |((question, contaminated, diagram, numbered), source, answer, features, grades)| Choices {
            question,
            contaminated,
            diagram,
            numbered: numbered && question % 8 == 0,
            source,
            trace: answer.0,
            attempt: answer.1 > 0,
            domain: features.0,
            length: features.1,
            grades,
        },
    )
}

const SOURCES: [&str; 3] =
    ["Idavidrein/gpqa", "qq8933/AIME_1983_2024", "simplescaling/openaimath/A"];

fn row(of: &Choices) -> Row {
    let mut question = format!("What is {} and {}?", of.question, of.question);
    question += if of.contaminated { " one two three four five six seven eight" } else { "" };
    question += if of.diagram { " [asy]" } else { "" };
    question += if of.numbered { " p7." } else { "" };
    let trace = |said: bool| if said { "so it is" } else { " \n" }.to_string();
    Row {
        question,
        source_type: SOURCES[of.source as usize].to_string(),
        cot_type: "math".to_string(),
        thinking_trajectories: of.trace.map(trace).into_iter().collect(),
        attempt: of.attempt.then(|| "42".to_string()),
        domain: of.domain.map(|domain| format!("domain {domain}")),
        gemini_length: of.length.map(i64::from),
        isgeminicorrect: of.grades[0],
        isqwen7bcorrect: of.grades[1],
        isqwen32bcorrect: of.grades[2],
        ..Row::default()
    }
}

/// What a random config chooses.
#[derive(Debug, Clone)]
struct Plan {
    algorithm: &'static str,
    after: &'static str,
    target: usize,
    allow_fewer: bool,
    uniform_until: usize,
    grades_required: bool,
    too_easy_if: bool,
    seed: u8,
}

fn plan() -> impl Strategy<Value = Plan> {
    let algorithm = prop::sample::select(vec![
        "released-code",
        "paper-text",
        "random",
        "diverse",
        "longest",
        "full",
    ]);
    let after = prop::sample::select(vec!["answered", "quality", "difficulty"]);
    (
        algorithm,
        after,
        1..12usize,
        prop::bool::weighted(0.8),
        0..9usize,
        any::<[bool; 2]>(),
        any::<u8>(),
    )
        .prop_map(|(algorithm, after, target, allow_fewer, uniform, [grades, easy], seed)| {
            Plan {
                algorithm,
                after,
                target,
                allow_fewer,
                uniform_until: uniform.min(target),
                grades_required: grades,
                too_easy_if: easy,
                seed,
            }
        })
}

fn config(folder: &Path, plan: &Plan) -> String {
    let folder = folder.display();
    let Plan { algorithm, after, target, allow_fewer, uniform_until, .. } = plan;
    let easy = if plan.too_easy_if { "'isqwen7bcorrect', 'isqwen32bcorrect'" } else { "" };
    format!(
        "output = '{folder}/out'\nseed = {}\npool.files = ['{folder}/pool.jsonl']\n\
         quality = {{grades_required = {}, diagrams_allowed_from = ['AIME']}}\n\
         difficulty.too_easy_if = [{easy}]\n\
         [decontaminate]\nngram = 8\nearlier_sources = false\n\
         [[decontaminate.benchmarks]]\nname = 'held out'\ncolumn = 'q'\n\
         from.files = ['{folder}/held_out.jsonl']\n\
         [selection]\nalgorithm = '{algorithm}'\nafter = '{after}'\ntarget = {target}\n\
         allow_fewer = {allow_fewer}\nuniform_until = {uniform_until}\n\
         seeded = [{{source_type = 'Idavidrein/gpqa'}}, \
                   {{source_type = 'simplescaling/openaimath', longer_than = 6}}]\n\
         benchmark = {{aime = 'qq8933/AIME', gpqa = 'Idavidrein/gpqa', gpqa_to_aime = 0.5}}\n",
        plan.seed, plan.grades_required
    )
}

/// The stage that drops the row, said as plainly as the rules are; `None` gets to the selection.
fn stage(row: &Row, seen: &mut Vec<String>, plan: &Plan) -> Option<&'static str> {
    if seen.contains(&row.question) {
        return Some("deduplicate");
    }
    seen.push(row.question.clone());
    let traced = row.thinking_trajectories.iter().any(|trace| !trace.trim().is_empty());
    let grades = [row.isgeminicorrect, row.isqwen7bcorrect, row.isqwen32bcorrect];
    let ungraded = plan.grades_required && grades.contains(&None);
    let diagram = row.question.contains("[asy]");
    let broken =
        if diagram { !row.source_type.contains("AIME") } else { row.question.contains("p7.") };
    let easy = plan.too_easy_if && grades[1..].contains(&Some(true));
    let stages = [
        ("decontaminate", row.question.contains("eight")),
        ("quality: answered", !traced || row.attempt.is_none()),
        ("quality: complete", row.domain.is_none() || row.gemini_length.is_none() || ungraded),
        ("quality: patterns", broken),
        ("difficulty", easy),
    ];
    let last = match plan.after {
        "answered" => "quality: answered",
        "quality" => "quality: patterns",
        _ => "difficulty",
    };
    let last = stages.iter().position(|(stage, _)| *stage == last).unwrap();
    stages[..=last].iter().find(|(_, drops)| *drops).map(|(stage, _)| *stage)
}

/// Everything a published folder must hold of this pool.
fn check(out: &Path, pool: &[Row], plan: &Plan) {
    let lineage = table::stream_lineage(&out.join("lineage.parquet")).unwrap();
    let lineage: Vec<Lineage> = lineage.collect::<anyhow::Result<_>>().unwrap();
    assert_eq!(lineage.len(), pool.len());
    let mut seen = Vec::new();
    let mut stages: BTreeMap<&str, u64> = BTreeMap::new();
    let mut ranks: BTreeMap<&Option<String>, Vec<i64>> = BTreeMap::new();
    for (number, (row, of)) in std::iter::zip(pool, &lineage).enumerate() {
        assert_eq!((of.row, &of.question), (number as i64 + 1, &row.question));
        match stage(row, &mut seen, plan) {
            Some(stage) => assert_eq!((of.stage.as_str(), of.rank), (stage, None), "{row:?}"),
            None => {
                assert!(["diversity", "selected"].contains(&of.stage.as_str()), "{of:?}");
                assert_eq!(of.rank.is_some(), of.domain.is_some() && of.gemini_length.is_some());
                ranks.entry(&of.domain).or_default().extend(of.rank);
            }
        }
        assert_eq!(of.phase.is_some(), of.stage == "selected");
        *stages.entry(&of.stage).or_default() += 1;
    }
    for (domain, mut ranks) in ranks {
        ranks.sort();
        assert!(ranks.iter().copied().eq(0..ranks.len() as i64), "{domain:?}: {ranks:?}");
    }
    let mut draws: Vec<i64> = lineage.iter().filter_map(|of| of.draw).collect();
    draws.sort();
    let selected = table::read_rows(&out.join("selected.parquet")).unwrap();
    assert!(draws.into_iter().eq(1..=selected.len() as i64));
    let of_lineage = lineage.iter().filter(|of| of.stage == "selected").map(|of| &of.question);
    assert!(selected.iter().map(|row| &row.question).eq(of_lineage));

    let funnel: Value =
        serde_json::from_slice(&fs::read(out.join("funnel.json")).unwrap()).unwrap();
    let mut left = pool.len() as u64;
    for count in funnel["stages"].as_array().unwrap() {
        let dropped = stages.remove(count["stage"].as_str().unwrap()).unwrap_or(0);
        assert_eq!((&count["rows_in"], &count["dropped"]), (&left.into(), &dropped.into()));
        left -= dropped;
    }
    assert_eq!(stages.remove("selected").unwrap_or(0), left);
    assert!(stages.is_empty(), "{stages:?} are not among the funnel's stages");
    assert_eq!(funnel["selected"], left);
}

/// One pipeline: it closes, or says in one of the known ways why there is nothing to publish.
fn pipeline(rows: &[Choices], plan: &Plan) {
    let pool: Vec<Row> = rows.iter().map(row).collect();
    // Publishing flushes to disk, which a thousand folders need not: memory, where it is a folder.
    let memory = Some(Path::new("/dev/shm")).filter(|memory| memory.is_dir());
    let folder = memory.map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    let file = |name: &str| folder.path().join(name);
    table::write_rows(&file("pool.jsonl"), &pool).unwrap();
    fs::write(file("held_out.jsonl"), r#"{"q": "One two THREE four five six seven eight"}"#)
        .unwrap();
    fs::write(file("curate.toml"), config(folder.path(), plan)).unwrap();
    match run::run(&Args { config: file("curate.toml"), ..Args::default() }) {
        Ok(_) => check(&file("out"), &pool, plan),
        Err(error) => {
            let mut message = String::new();
            write!(message, "{error:#}").unwrap();
            let known = ["no row has `", "rows are left to select", "phase 1 alone", "has no rows"];
            let featureless = message.contains("which this selection.algorithm reads");
            assert!(known.iter().any(|known| message.contains(known)) || featureless, "{message}");
            assert!(!file("out").exists(), "something was published");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_random_pipeline_closes(
        rows in prop::collection::vec(choices(), 0..50),
        plan in plan(),
    ) {
        pipeline(&rows, &plan);
    }
}
