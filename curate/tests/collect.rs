//! Collecting: Python's way of printing, local tables, the shipped sources over a miniature hub,
//! and what is refused.

mod hub;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use curate::collect::python;
use record::row::Row;
use record::table::read_rows;
use serde_json::Value;
use tempfile::TempDir;

/// `text` is a JSON object; expected is what Python's `str(json.loads(text))` gives.
#[track_caller]
fn check_python(text: &str, expected: &str) {
    assert_eq!(python::dict(&serde_json::from_str(text).unwrap()), expected);
}

#[test]
fn prints_as_python_does() {
    check_python("{}", "{}");
    check_python(
        r#"{"b": null, "a": [true, false, []], "c": {"d": 1}}"#,
        "{'b': None, 'a': [True, False, []], 'c': {'d': 1}}",
    );
    check_python(
        "{\"f\": [0.5, 1.0, 1e-05, 0.0001, 123456789012345680.0, 1e16, 9007199254740993, -0.0, \
         1.7976931348623157e308, 2.5e-7]}",
        "{'f': [0.5, 1.0, 1e-05, 0.0001, 1.2345678901234568e+17, 1e+16, 9007199254740993, -0.0, \
         1.7976931348623157e+308, 2.5e-07]}",
    );
    check_python(
        r#"{"it's": "it's", "q": "say \"it's\"", "s": "say \"it\""}"#,
        r#"{"it's": "it's", 'q': 'say "it\'s"', 's': 'say "it"'}"#,
    );
    check_python(
        r#"{"t": "a\nb\tc\rd\\e\u0000\u001b\u007f\u0085\u00a0é\u00ad\u200b\u2028中\ufeff😀"}"#,
        r"{'t': 'a\nb\tc\rd\\e\x00\x1b\x7f\x85\xa0é\xad\u200b\u2028中\ufeff😀'}",
    );
    check_python(
        "{\"m\": \"\u{301}e\u{301}\u{e0001}\u{10ffff}\"}",
        "{'m': '\u{301}e\u{301}\\U000e0001\\U0010ffff'}",
    );
}

/// The program in `folder`, with a cache there and no other settings of the hub's.
fn curate(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_curate"));
    for name in ["HF_HOME", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"] {
        command.env_remove(name);
    }
    command.env("HF_HUB_CACHE", folder.join("cache")).envs(env.iter().copied());
    command.arg("collect").args(args).current_dir(folder).output().unwrap()
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A folder with the given files and a config for the one source `source.toml`.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = "output = 'out'\nseed = 1\nsources = ['source.toml']\n";
    for (name, text) in [("collect.toml", config)].iter().chain(files) {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn pool(folder: &Path) -> Vec<Row> {
    read_rows(&folder.join("out/pool.parquet")).unwrap()
}

const TABLE: &str = r#"{"n": 1, "q": " one? ", "list": ["a", "b"], "s": "x"}
{"n": 2, "q": "two?", "list": [], "s": null}
{"n": 3, "q": null, "list": ["c"], "s": "z"}
{"n": 4, "q": "one?", "list": ["d"], "s": "w"}
"#;

/// What a source with these lines in its one `[[read]]` makes of [`TABLE`]: of each row
/// `question | solution | metadata`.
#[track_caller]
fn check_read(read: &str, expected: &[&str]) {
    let source = format!(
        "name = 'S'\n[[read]]\nfrom = {{ files = ['t.jsonl'] }}\ncot_type = 'math'\n\
         source_type = 'a/b'\n{read}"
    );
    let folder = folder(&[("t.jsonl", TABLE), ("source.toml", &source)]);
    succeeds(&curate(folder.path(), &["collect.toml"], &[]));
    let line = |row: Row| {
        format!("{} | {} | {}", row.question, row.solution.as_deref().unwrap_or("-"), row.metadata)
    };
    assert_eq!(pool(folder.path()).into_iter().map(line).collect::<Vec<_>>(), expected);
}

#[test]
fn conditions_changes_and_templates() {
    check_read(
        "question = '{q}'\nsolution = '{s}'",
        &[
            " one?  | x | {'n': 1, 'list': ['a', 'b']}",
            "two? | - | {'n': 2, 'list': []}",
            "one? | w | {'n': 4, 'list': ['d']}",
        ],
    );
    // Stripped, the last question is the first one again.
    check_read(
        "question = 'Q {q}'\nedit = [{ strip = 'q' }]\nmetadata_without = ['list', 's']",
        &["Q one? | - | {'n': 1}", "Q two? | - | {'n': 2}"],
    );
    check_read(
        "question = '{n}: {list}'\nsolution = '{s}{list}'\nedit = [{ lines = 'list' }]",
        &[
            "1: a\nb | xa\nb | {'q': ' one? '}",
            "2:  | - | {'q': 'two?'}",
            "3: c | zc | {'q': None}",
            "4: d | wd | {'q': 'one?'}",
        ],
    );
    check_read(
        "question = '{list}'\nmetadata_without = ['q', 's', 'n']\nedit = [{ first = 'list' }]",
        &["a | - | {}", "c | - | {}", "d | - | {}"],
    );
    check_read(
        "question = '{n}{q}'\nmetadata_without = ['s', 'list']\n\
         edit = [{ before = ['q', '?'] }, { replace = ['q', 'o', '0'] }]",
        &["1 0ne | - | {}", "2tw0 | - | {}", "40ne | - | {}"],
    );
    let only = "question = '{n}'\nmetadata_without = ['q', 's', 'list']\nkeep = ";
    check_read(&format!("{only}[{{ is = ['n', 2] }}]"), &["2 | - | {}"]);
    check_read(
        &format!("{only}[{{ is_not = ['s', 'x'] }}, {{ not_null = 's' }}]"),
        &["3 | - | {}", "4 | - | {}"],
    );
    check_read(&format!("{only}[{{ null = 'q' }}]"), &["3 | - | {}"]);
    check_read(&format!("{only}[{{ is = ['n', 2.0] }}]"), &["2 | - | {}"]);
    check_read(
        &format!("{only}[{{ is_not = ['n', 2.0] }}, {{ below = ['n', '4'] }}]"),
        &["1 | - | {}", "3 | - | {}"],
    );
    check_read(&format!("{only}[{{ below = ['n', '3'] }}]"), &["1 | - | {}", "2 | - | {}"]);
    let list = "{ files = ['t.jsonl'] }";
    check_read(
        &format!("{only}[{{ in = ['s', {list}, 's'] }}]"),
        &["1 | - | {}", "3 | - | {}", "4 | - | {}"],
    );
    check_read(&format!("{only}[{{ not_in = ['q', {list}, 'q'] }}]"), &["3 | - | {}"]);
    check_read(
        &format!("{only}[{{ any = [{{ not_in = ['q', {list}, 'q'] }}, {{ is = ['s', 'w'] }}] }}]"),
        &["3 | - | {}", "4 | - | {}"],
    );
    // Without a question there is no row.
    check_read(
        "question = '{q}'\nmetadata_without = ['s', 'list', 'n']\n\
         edit = [{ before = ['q', 'two?'] }, { strip = 'q' }]",
        &["one? | - | {}"],
    );
}

/// The error of a collection from [`TABLE`] by this source file.
#[track_caller]
fn check_error(source: &str, expected: &str) {
    let folder = folder(&[("t.jsonl", TABLE), ("source.toml", source)]);
    let output = curate(folder.path(), &["collect.toml"], &[("HF_HUB_OFFLINE", "1")]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && errors.contains(expected), "{errors}");
    assert!(!folder.path().join("out").exists());
}

#[test]
fn errors_name_place_and_cure() {
    let read = |lines: &str| {
        format!(
            "name = 'S'\n[[read]]\nfrom = {{ files = ['t.jsonl'] }}\ncot_type = 'm'\n\
             source_type = 's'\n{lines}"
        )
    };
    check_error("name = 'S'", "name tables: [[read]], or as_it_is");
    check_error(&read("question = '{x}'"), "no column `x`; it has: n, q, list, s");
    check_error(&read("question = '{x}'"), "t.jsonl, row 1");
    check_error(&read("question = '{q'"), "a { without its }");
    check_error(&read("question = '{q}'\nedit = [{ first = 'q' }]"), "column `q` is not a list");
    check_error(&read("question = '{q}'\nedit = [{ strip = 'list' }]"), "`list` is not text");
    check_error(&read("question = '{q}'\nedit = [{ after = ['q', '##'] }]"), "there is no \"##\"");
    check_error(&read("question = '{q}'\nedit = [{ upper = 'q' }]"), "unknown variant `upper`");
    check_error(
        &read("question = '{q}'\nkeep = [{ is = ['n', 9] }]"),
        "the source S: of 4 rows none stays; correct its conditions: n is not 9 (4)",
    );
    let choices = "question = '{n}'\nchoices = { right = 's', wrong = ['q'] }";
    check_error(&read(choices), "t.jsonl, row 2: the choice `s` is null; `keep` can leave");
    let by_value = read("question = '{n}'").replace("'m'", "{ of = 's', x = 'math' }");
    check_error(
        &by_value,
        "cot_type says nothing for the s \"None\": name it or `otherwise` there",
    );
    let place = |place: &str| format!("name = 'S'\nas_it_is = {{ {place} }}");
    check_error(&place("files = ['none.parquet']"), "none.parquet does not exist");
    check_error(&place("splits = ['train']"), "belong to a `dataset` of the hub");
    check_error(&place(""), "name a `dataset` of the hub, or `files`");
    check_error(&place("dataset = 'a/b'"), "name either `splits`");
    check_error(&place("dataset = 'a/b', splits = ['train']"), "HF_HUB_OFFLINE is set");
    for name in ["../b", "a/..", "a/b/c", "a//b", "a\\\\b/c"] {
        let source = place(&format!("dataset = \"{name}\", splits = ['train']"));
        check_error(&source, "is no name on the hub");
    }
    check_error(&place("files = ['t.jsonl'], x = 1"), "unknown field `x`");
}

#[test]
fn takes_an_even_part_with_the_pinned_questions() {
    let row = |nth: usize| {
        let (task, topic) = if nth < 80 { ("a", nth % 2) } else { ("b", 0) };
        format!("{{\"q\": \"{nth}\", \"task\": \"{task}\", \"topic\": {topic}}}\n")
    };
    let table: String = (0..100).map(row).collect();
    let source = "name = 'S'\ntake = { rows = 30, evenly_over = ['task', 'topic'] }\n[[read]]\n\
                  from = { files = ['t.jsonl'] }\nquestion = '{q}'\ncot_type = '{topic}'\n\
                  source_type = '{task}'\n";
    let pinned = "{\"question\": \"7\"}\n{\"question\": \"not there\"}\n";
    let folder = folder(&[("t.jsonl", &table), ("source.toml", source), ("pinned.jsonl", pinned)]);
    let with_pinned = ["collect.toml", "--set", "pinned='pinned.jsonl'"];
    succeeds(&curate(folder.path(), &with_pinned, &[]));
    let rows = pool(folder.path());
    let mut shares = BTreeMap::new();
    for row in &rows {
        *shares.entry((row.source_type.as_str(), row.cot_type.as_str())).or_insert(0) += 1;
    }
    // The pinned row, one of topic 1, comes beyond the even order of the others.
    assert_eq!(rows.len(), 30);
    assert!((14..=15).contains(&shares[&("b", "0")]), "{shares:?}");
    assert!((7..=8).contains(&shares[&("a", "0")]), "{shares:?}");
    assert!(rows.iter().any(|row| row.question == "7"));
    let numbers: Vec<u32> = rows.iter().map(|row| row.question.parse().unwrap()).collect();
    assert!(numbers.is_sorted(), "the source's order stays");

    let bytes = |name: &str| fs::read(folder.path().join("out").join(name)).unwrap();
    let first = (bytes("pool.parquet"), bytes("manifest.json"));
    succeeds(&curate(folder.path(), &[&with_pinned[..], &["--overwrite"]].concat(), &[]));
    assert_eq!((bytes("pool.parquet"), bytes("manifest.json")), first);
    let other_seed = [&with_pinned[..], &["--overwrite", "--set", "seed=2"]].concat();
    succeeds(&curate(folder.path(), &other_seed, &[]));
    assert_ne!(bytes("pool.parquet"), first.0);
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hub")
}

fn names_below(folder: &Path, root: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names_below(&path, root, names);
        } else {
            names.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_string());
        }
    }
}

/// The miniature data sets as huggingface_hub's cache has them after a download.
fn fill_cache(cache: &Path) {
    for dataset in fs::read_dir(fixtures()).unwrap() {
        let dataset = dataset.unwrap();
        let name = dataset.file_name().into_string().unwrap();
        let folder = cache.join(format!("datasets--{name}"));
        let mut names = Vec::new();
        if dataset.path().is_dir() {
            names_below(&dataset.path(), &dataset.path(), &mut names);
        }
        for file in names {
            let is_converted = file.ends_with(".parquet");
            let revision = if is_converted { "refs/convert/parquet" } else { "main" };
            let commit = if is_converted { "c0ffee" } else { "0b5e55" };
            let reference = folder.join("refs").join(revision);
            let copy = folder.join("snapshots").join(commit).join(&file);
            for path in [&reference, &copy] {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
            }
            fs::write(reference, commit).unwrap();
            fs::copy(dataset.path().join(&file), copy).unwrap();
        }
    }
}

/// The five columns that s1 itself makes.
type Columns = (String, Option<String>, String, String, String);

fn columns(row: &Row) -> Columns {
    let Row { question, solution, cot_type, source_type, metadata, .. } = row.clone();
    (question, solution, cot_type, source_type, metadata)
}

/// `configs/curate/collect.toml` as it is shipped, over the miniature hub.
#[test]
fn the_shipped_sources_make_what_s1_makes() {
    let folder = tempfile::tempdir().unwrap();
    fill_cache(&folder.path().join("cache"));
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    std::os::unix::fs::symlink(configs, folder.path().join("configs")).unwrap();
    fs::write(folder.path().join("pinned.jsonl"), "{\"question\": \"Pinned by us.\"}\n").unwrap();
    let args =
        ["configs/curate/collect.toml", "--set", "output=out", "--set", "pinned=pinned.jsonl"];
    let offline = [("HF_HUB_OFFLINE", "1")];
    let plan = succeeds(&curate(folder.path(), &[&args[..], &["--dry-run"]].concat(), &offline));
    assert!(plan.contains("hf://datasets/simplescaling/numinamath_500@c0ffee/default/train/"));
    assert!(!folder.path().join("out").exists() && plan.lines().count() > 50, "{plan}");
    let summary = succeeds(&curate(folder.path(), &args, &offline));
    assert!(summary.lines().count() == 18, "{summary}");

    let (mut gpqa, mut code, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for row in pool(folder.path()) {
        match row.source_type.split('/').next().unwrap() {
            "Idavidrein" => gpqa.push(row),
            "LiveCodeBench" => code.push(row),
            _ => others.push(columns(&row)),
        }
    }
    let expected = fs::read_to_string(fixtures().join("pool.jsonl")).unwrap();
    let expected = expected.lines().map(|line| columns(&serde_json::from_str(line).unwrap()));
    assert_eq!(others, expected.collect::<Vec<_>>());

    let code: Vec<_> = code.iter().map(|row| (&*row.question, &*row.source_type)).collect();
    assert_eq!(
        code,
        [
            ("Solve one.", "LiveCodeBench/release_v1"),
            ("Solve three.", "LiveCodeBench/release_v2"),
            ("Solve four.", "LiveCodeBench/release_v3"),
        ]
    );
    // Every table is read once, so what was read and what left out are rows of the source.
    let accounts = fs::read_to_string(folder.path().join("out/sources.json")).unwrap();
    let accounts: Vec<Value> = serde_json::from_str(&accounts).unwrap();
    let of = |name: &str| accounts.iter().find(|of| of["name"] == name).unwrap();
    for (name, read, rows) in
        [("JEEBench", 3, 3), ("SciEval", 6, 5), ("NuminaMath", 4, 3), ("LiveCodeBench", 4, 3)]
    {
        assert_eq!(of(name)["read"], read, "{name}");
        assert_eq!(of(name)["rows"], rows, "{name}");
    }
    let [gpqa] = &gpqa[..] else { panic!("{gpqa:?}") };
    let question = gpqa.question.strip_prefix("Which particle, \"exactly\"?\nAnswer Choices:\n");
    let answer = gpqa.solution.as_ref().unwrap().strip_prefix("By spin.\n\nAnswer: ").unwrap();
    let mut choices: Vec<&str> = question.unwrap().lines().collect();
    let right = format!("({answer}) right");
    assert!(choices.contains(&right.as_str()), "{choices:?} {answer}");
    choices.sort_by_key(|choice| &choice[4..]);
    let texts: Vec<&str> = choices.iter().map(|choice| &choice[4..]).collect();
    assert_eq!(texts, ["right", "wrong 1", "wrong 2", "wrong 3"]);

    let manifest = fs::read_to_string(folder.path().join("out/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let paths: Vec<_> =
        manifest["inputs"].as_array().unwrap().iter().map(|of| &of["path"]).collect();
    for path in [
        "hf://datasets/GAIR/OlympicArena@c0ffee/CS/val/0000.parquet",
        "hf://datasets/Idavidrein/gpqa@0b5e55/gpqa_diamond.csv",
    ] {
        assert!(paths.iter().any(|known| **known == path), "{path} is not among {paths:?}");
    }
}

/// What shares a passage with a benchmark leaves where the config holds it out, except in a source
/// that says otherwise, and choices do not count.
#[test]
fn decontaminates_when_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    fill_cache(&folder.path().join("cache"));
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/curate/sources");
    let benchmark = "{\"q\": \"(A) one passage of eight words that all choices share\"}\n";
    fs::write(folder.path().join("benchmark.jsonl"), benchmark).unwrap();
    let choices = "name = 'Choices'\n[[read]]\nfrom = { files = ['choices.jsonl'] }\n\
                   question = '{q}'\ncot_type = 'math'\nsource_type = 'own/choices'\n\
                   choices = { right = 'r', wrong = [] }\n";
    fs::write(folder.path().join("choices.toml"), choices).unwrap();
    let row = "{\"q\": \"Which?\", \"r\": \"one passage of eight words that all choices share\"}\n";
    // The bare question decides what is the same, too.
    let rows = format!("{row}{}", row.replace("one", "another"));
    fs::write(folder.path().join("choices.jsonl"), rows).unwrap();
    let config = format!(
        "output = 'out'\nseed = 1\nsources = ['{0}/math.toml', '{0}/aime.toml', 'choices.toml']\n\
         [decontaminate]\nngram = 8\nearlier_sources = true\nbenchmarks = [\n\
         {{ name = 'MATH500', column = 'problem', from = {{ dataset = 'simplescaling/openaimath', \
         splits = ['test'] }} }},\n\
         {{ name = 'own', column = 'q', from = {{ files = ['benchmark.jsonl'] }} }}]\n",
        sources.display()
    );
    fs::write(folder.path().join("collect.toml"), config).unwrap();
    succeeds(&curate(folder.path(), &["collect.toml"], &[("HF_HUB_OFFLINE", "1")]));
    let questions: Vec<String> = pool(folder.path()).into_iter().map(|row| row.question).collect();
    assert_eq!(
        questions,
        [
            "What is 1 + 1?",
            "Old?",
            "Newer?",
            "Tell how many of the red apples are left in the basket.",
            "Which?\nAnswer Choices:\n(A) one passage of eight words that all choices share",
        ]
    );
    let accounts = fs::read_to_string(folder.path().join("out/sources.json")).unwrap();
    let accounts: Value = serde_json::from_str(&accounts).unwrap();
    assert_eq!(accounts[0]["contaminated"]["MATH500"], 1);
    assert_eq!(accounts[2]["read"], 2);
    assert_eq!(accounts[2]["duplicates"], 1);
    // Each of them by name, with what shows it.
    let gone = fs::read_to_string(folder.path().join("out/left_out.jsonl")).unwrap();
    let gone: Vec<Value> = gone.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<[&str; 2]> = gone
        .iter()
        .map(|row| ["reason", "evidence"].map(|key| row[key].as_str().unwrap()))
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0][0], "contaminated");
    assert!(told[0][1].starts_with("MATH500: shares \""), "{told:?}");
    assert_eq!(told[1], ["duplicate", "as pool row 5"]);
    assert_eq!(gone[1]["question_hash"], record::question::question_hash("Which?"));
}

/// Every released set has a source file, and all of them name a place.
#[test]
fn released_sets_come_as_they_are() {
    let released = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/curate/sources/released");
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("record/tests/fixtures/s1k_11.parquet");
    let mut sets = 0;
    for source in fs::read_dir(released).unwrap() {
        sets += 1;
        let text = fs::read_to_string(source.unwrap().path()).unwrap();
        let dataset = text.split('"').nth(3).unwrap();
        let folder = folder(&[("source.toml", &text)]);
        let cache =
            folder.path().join("cache").join(format!("datasets--{}", dataset.replace('/', "--")));
        let snapshot = cache.join("snapshots/abc/default/train");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(cache.join("refs/refs/convert")).unwrap();
        fs::write(cache.join("refs/refs/convert/parquet"), "abc").unwrap();
        fs::copy(&fixture, snapshot.join("0000.parquet")).unwrap();
        succeeds(&curate(folder.path(), &["collect.toml"], &[("HF_HUB_OFFLINE", "1")]));
        assert_eq!(pool(folder.path()), read_rows(&fixture).unwrap());
        let accounts = fs::read_to_string(folder.path().join("out/sources.json")).unwrap();
        assert!(accounts.contains("\"gemini_thinking_trajectory\""), "{accounts}");
    }
    assert_eq!(sets, 8);
}
