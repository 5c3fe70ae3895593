//! Real questions, when the optional folder of real data stands beside the checkout.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use curate::decontaminate::{Benchmark, Question, decontaminate};
use curate::deduplicate::Seen;
use curate::near_duplicates::{Settings, Stricter, similarity};
use curate::quality::patterns;
use curate::run::{self, Args};
use record::question::{question_hash, question_id};
use record::row::{Outline, Row};
use record::seed::rng;
use record::table::{read_rows, read_texts, stream_lineage, write_rows};
use serde_json::Value;

/// The folder named by S1_SHARED, or `../shared` beside the checkout; `None` with a message.
pub fn shared() -> Option<PathBuf> {
    let beside = || concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared").into();
    let folder = PathBuf::from(std::env::var_os("S1_SHARED").unwrap_or_else(beside)).join("data");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no real data in {} (S1_SHARED names it)", folder.display());
    None
}

/// The values of a JSONL file.
pub fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.split_terminator('\n').map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A text that must be there.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The pool's questions as rows of ours, in order of file names.
fn pool(folder: &Path) -> Vec<Row> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder.join("pool"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    let row = |line: Value| Row {
        question: text(&line["question"]).to_string(),
        source_type: text(&line["source"]).to_string(),
        solution: line["solution"].as_str().map(str::to_string),
        cot_type: text(&line["cot_type"]).to_string(),
        ..Row::default()
    };
    files.iter().flat_map(|file| lines(file)).map(row).collect()
}

fn benchmark(folder: &Path, name: &str) -> Benchmark {
    let questions = read_texts(&folder.join("eval").join(name).with_extension("jsonl"), "question");
    Benchmark { name: name.to_string(), questions: questions.unwrap() }
}

fn questions(pool: &[Row]) -> Vec<Question<'_>> {
    pool.iter()
        .enumerate()
        .map(|(row, of)| Question { row, text: &of.question, source_type: &of.source_type })
        .collect()
}

/// Hashes that the labels, made by s1's own code, say to share an 8-gram with `eval`.
fn labelled(folder: &Path, eval: &str) -> BTreeMap<String, String> {
    let mut labelled = BTreeMap::new();
    for label in lines(&folder.join("contamination/s1_8gram_labels.jsonl")) {
        for hit in label["hits"].as_array().unwrap().iter().filter(|hit| hit["eval"] == eval) {
            let gram = hit["first_8gram"].as_str().unwrap_or_default().to_string();
            labelled.entry(text(&label["question_hash"]).to_string()).or_insert(gram);
        }
    }
    labelled
}

#[track_caller]
fn check_labels(folder: &Path, pool: &[Row], file: &str, eval: &str) {
    let verdicts = decontaminate(&questions(pool), &[benchmark(folder, file)], 8, false);
    let found: BTreeSet<String> = std::iter::zip(pool, &verdicts)
        .filter_map(|(row, verdict)| verdict.as_ref().map(|_| row.hash()))
        .collect();
    let labelled = labelled(folder, eval);
    let missed: Vec<_> = labelled.iter().filter(|(hash, _)| !found.contains(*hash)).collect();
    let extra: Vec<_> = found.iter().filter(|hash| !labelled.contains_key(*hash)).collect();
    assert!(missed.is_empty() && extra.is_empty(), "{eval}: missed {missed:?}, extra {extra:?}");
    eprintln!("{eval}: {} questions flagged, exactly those of s1's own code", found.len());
}

#[test]
fn flags_what_the_originals_code_flags() {
    let Some(folder) = shared() else { return };
    let pool = pool(&folder);
    check_labels(&folder, &pool, "math500", "math500");
    check_labels(&folder, &pool, "aimo_validation_aime", "aimo-validation-aime");
    check_labels(&folder, &pool, "aime24", "aime24");

    let benchmarks = [benchmark(&folder, "math500"), benchmark(&folder, "aime24")];
    let questions = questions(&pool);
    let start = Instant::now();
    let flagged = decontaminate(&questions, &benchmarks, 8, false).iter().flatten().count();
    let (seconds, cores) = (start.elapsed().as_secs_f64(), rayon::current_num_threads());
    let count = pool.len();
    eprintln!(
        "{count} questions against MATH500 + AIME24: {flagged} flagged, {seconds:.3} s, \
         {cores} threads"
    );
}

#[test]
fn keeps_what_s1_selected() {
    let Some(folder) = shared() else { return };
    let mut with_diagram = 0;
    let mut hashes = BTreeSet::new();
    for line in lines(&folder.join("s1k/s1k_questions.jsonl")) {
        hashes.insert(text(&line["question_hash"]).to_string());
        // The texts of GPQA are withheld.
        let Some(question) = line["question"].as_str() else {
            continue;
        };
        let source_type = text(&line["source_type"]).to_string();
        let row = Row { question: question.to_string(), source_type, ..Row::default() };
        assert_eq!(patterns(&Outline::from(&row), &["AIME".to_string()]), None, "{question}");
        with_diagram += usize::from(question.contains("[asy]"));
        if line["hash_reproduced"] == true {
            assert_eq!(question_hash(question), text(&line["question_hash"]));
        }
    }
    assert_eq!((hashes.len(), with_diagram), (1000, 9));

    let pool = pool(&folder);
    let mut seen = Seen::default();
    let mut is_first =
        |(row, of): &(usize, &Row)| seen.judge(question_id(&of.question), *row).is_none();
    let unique: Vec<&Row> =
        pool.iter().enumerate().filter(|row| is_first(row)).map(|(_, row)| row).collect();
    let of_s1k = |rows: &[&Row]| {
        let in_s1k = rows.iter().map(|row| row.hash()).filter(|hash| hashes.contains(hash));
        (in_s1k.clone().count(), in_s1k.collect::<BTreeSet<_>>().len())
    };
    let (before, after) = (of_s1k(&pool.iter().collect::<Vec<_>>()), of_s1k(&unique));
    assert_eq!((after.0, after.1), (before.1, before.1), "one copy of each stays");
}

/// What the benchmarks of configs/curate/s1k.toml would take from s1K, which was made without: its
/// comment and curate/README.md say the number.
#[test]
fn benchmarks_reject_some_of_the_published_s1k() {
    let Some(folder) = shared() else { return };
    let published = lines(&folder.join("s1k/s1k_questions.jsonl"));
    let published = published.iter().filter_map(|line| {
        Some((line["question"].as_str()?, line["source_type"].as_str().unwrap_or_default()))
    });
    let questions = published.enumerate();
    let questions: Vec<Question> =
        questions.map(|(row, (text, source_type))| Question { row, text, source_type }).collect();
    let benchmarks = [benchmark(&folder, "aimo_validation_aime"), benchmark(&folder, "math500")];
    let verdicts = decontaminate(&questions, &benchmarks, 8, false);
    let rejected = verdicts.iter().flatten().count();
    eprintln!("{rejected} of {} questions of the published s1K are rejected", questions.len());
    for file in ["curate/README.md", "configs/curate/s1k.toml"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let said = std::fs::read_to_string(root.join(file)).unwrap();
        for number in [rejected, questions.len()] {
            assert!(said.contains(&format!(" {number} ")), "{file} does not say {number}");
        }
    }
}

/// Features that the real pool lacks, made up from the question's hash: `one_in` of each kind.
fn with_made_features(row: &Row, domains: &[String]) -> Row {
    let mut random = rng(0, &["features", &row.hash()]);
    let answered = random.below(1000) > 0;
    let graded = row.solution.is_some();
    Row {
        metadata: "{}".to_string(),
        thinking_trajectories: answered.then(|| "Made up.".to_string()).into_iter().collect(),
        attempt: answered.then(|| "Made up.".to_string()),
        domain: Some(domains[random.below(domains.len() as u64) as usize].clone()),
        isgeminicorrect: graded.then(|| random.below(2) == 0),
        isqwen7bcorrect: graded.then(|| random.below(3) == 0),
        isqwen32bcorrect: graded.then(|| random.below(3) == 0),
        gemini_length: Some(300 + random.below(8000) as i64),
        ..row.clone()
    }
}

/// The whole funnel by s1's recipe on the real questions, their features made up.
#[test]
fn runs_s1s_recipe_on_the_real_questions() {
    let Some(folder) = shared() else { return };
    let out = tempfile::tempdir().unwrap();
    let domains: Vec<String> =
        serde_json::from_slice::<Vec<Value>>(&std::fs::read(folder.join("s1k/msc.json")).unwrap())
            .unwrap()
            .iter()
            .map(|class| text(&class["title"]).to_string())
            .collect();
    let rows: Vec<Row> =
        pool(&folder).iter().map(|row| with_made_features(row, &domains)).collect();
    let pool_file = out.path().join("pool.parquet");
    write_rows(&pool_file, &rows).unwrap();

    let entry = |name: &str| {
        let file = folder.join("eval").join(name).with_extension("jsonl");
        format!("{{name = '{name}', from.files = ['{}'], column = 'question'}}", file.display())
    };
    let benchmarks = [entry("aimo_validation_aime"), entry("math500")].join(", ");
    let sets = [
        format!("output='{}'", out.path().join("out").display()),
        format!("pool.files=['{}']", pool_file.display()),
        "pool.features=[]".to_string(),
        format!("decontaminate.benchmarks=[{benchmarks}]"),
    ];
    let recipe = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/curate/s1k.toml"));
    let start = Instant::now();
    let config = recipe.to_path_buf();
    let summary = run::run(&Args { config, sets: sets.to_vec(), ..Args::default() }).unwrap();
    eprintln!("{summary}\n{:.1} s for the whole run", start.elapsed().as_secs_f64());
    let selected = read_rows(&out.path().join("out/selected.parquet")).unwrap();
    assert_eq!(selected.len(), 1000);

    let s1k = lines(&folder.join("s1k/s1k_questions.jsonl"));
    let s1k: BTreeSet<&str> = s1k.iter().map(|line| text(&line["question_hash"])).collect();
    let mut fate: BTreeMap<String, usize> = BTreeMap::new();
    for row in stream_lineage(&out.path().join("out/lineage.parquet")).unwrap() {
        let row = row.unwrap();
        if s1k.contains(row.question_hash.as_str()) {
            *fate.entry(row.stage).or_default() += 1;
        }
    }
    assert_eq!(fate.get("quality: patterns"), None, "s1K passes s1's own rule");
    eprintln!("questions of the published s1K that are in this pool got to: {fate:?}");
}

/// The stricter comparison on pairs that were labelled by another program, and on paraphrases.
#[test]
fn finds_the_labelled_near_duplicates() {
    let Some(folder) = shared() else { return };
    let mut texts = BTreeMap::new();
    let mut text_of = |of: &Value| {
        let file = text(&of["file"]).to_string();
        let of_file = texts.entry(file.clone()).or_insert_with(|| -> BTreeMap<String, String> {
            let id = |line: &Value| line["id"].as_str().map(str::to_string);
            let question = |line: &Value| line["question"].as_str().map(str::to_string);
            lines(&folder.join(file).with_extension("jsonl"))
                .iter()
                .filter_map(|line| Some((id(line)?, question(line)?)))
                .collect()
        });
        of_file.get(text(&of["id"])).cloned()
    };
    let settings = Settings {
        ngram: 1000,
        shingle: 3,
        threshold: 0.6,
        numbers_may_differ: true,
        within_pool: false,
    };
    let held_out =
        |one: &str| Benchmark { name: "A".to_string(), questions: vec![one.to_string()] };
    let verdict = |one: &str, other: &str, settings: &Settings| {
        let question = Question { row: 0, text: other, source_type: "" };
        Stricter::index(&[held_out(one)], settings).judge(&[question])[0].is_some()
    };
    let with_same_numbers = Settings { numbers_may_differ: false, ..settings.clone() };
    let mut counts: BTreeMap<String, [usize; 4]> = BTreeMap::new();
    for pair in lines(&folder.join("contamination/near_duplicates.jsonl")) {
        let (Some(one), Some(other)) = (text_of(&pair["a"]), text_of(&pair["b"])) else { continue };
        let reaches = similarity(&one, &other, 3) >= 0.6;
        let found = verdict(&one, &other, &settings);
        assert!(reaches || !found, "{one}\n{other}");
        let dropped = verdict(&one, &other, &with_same_numbers);
        let count = counts.entry(text(&pair["kind"]).to_string()).or_default();
        for (count, is_so) in count.iter_mut().zip([true, reaches, found, dropped]) {
            *count += usize::from(is_so);
        }
    }
    for (kind, [pairs, reach, found, dropped]) in &counts {
        eprintln!(
            "{kind}: {pairs} pairs, {reach} reach 0.6 by our words, {found} of them found, \
             {dropped} dropped when numbers must not differ"
        );
        assert!(*found as f64 >= 0.98 * *reach as f64, "{kind}");
    }
    let paraphrases = lines(&folder.join("contamination/rephrased_pairs.jsonl"));
    for threshold in [0.3, 0.5, 0.8] {
        let settings = Settings { threshold, ..settings.clone() };
        let found = paraphrases
            .iter()
            .filter(|pair| verdict(text(&pair["original"]), text(&pair["rephrased"]), &settings));
        eprintln!("{} of {} paraphrases from {threshold}", found.count(), paraphrases.len());
    }
}
