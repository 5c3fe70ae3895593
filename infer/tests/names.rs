//! Names and texts that would lead elsewhere: 200 of them at every entry point, nothing written
//! outside the output, no script that runs, errors that a terminal can show.

#[path = "../../curate/page/tests/browser/mod.rs"]
mod browser;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use browser::Browser;
use infer::show;
use serde_json::json;
use support::run::write_run;

/// 100 that are paths or would be, and 100 texts that act in a page or a terminal.
fn names() -> Vec<String> {
    let ends = [
        "../up",
        "../../up",
        "/../up",
        "..",
        "/",
        "\\..\\up",
        "%2e%2e%2fup",
        "．．／up",
        "\u{0}up",
        "\nup",
        "\tup",
        "\u{1b}[2Jup",
        "\u{7f}",
        "\u{202e}pu",
        "é",
        "e\u{301}",
        " ",
        "$(touch up)",
        "`touch up`",
        "|touch up",
    ];
    let long = "é".repeat(150);
    let starts = ["", "a/", ".", "/none", &long];
    let paths = ends.iter().flat_map(|end| starts.map(|start| format!("{start}{end}")));
    let acting = browser::hostile().into_iter().step_by(3);
    let names: Vec<String> = paths.chain(acting).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 200);
    names
}

/// Everything in a folder, as paths from it.
fn all(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            found.insert(path.strip_prefix(folder).unwrap().to_path_buf());
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            }
        }
    }
    found
}

/// A run of one question, one answer of one token, two folders deep.
fn small(folder: &Path, change: impl FnOnce(String) -> String) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    write_run(folder, 1, |text| {
        let (text, _) = text.split_once("[[budget]]\nname = \"0\"").unwrap();
        change(text.replace("max_gen_toks = 12", "max_gen_toks = 1"))
    })
}

/// What is new in a folder, but for locks.
fn new(folder: &Path, before: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let is_lock = |path: &PathBuf| path.extension().is_some_and(|end| end == "lock");
    all(folder).difference(before).filter(|path| !is_lock(path)).cloned().collect()
}

/// A run that is told each of `values` in the place of the line that begins so: it is refused with
/// an error that has all these parts, and writes nothing.
#[track_caller]
fn check_refused(values: &[String], line: &str, parts: &[&str]) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("one/two");
    for value in values {
        let config = small(&folder, |text| replace(&text, line, value));
        let before = all(root.path());
        let error = format!("{:#}", infer::run::eval(&config, &[], false, 1).unwrap_err());
        assert!(parts.iter().all(|part| error.contains(part)), "{value:?}: {error}");
        assert_eq!(new(root.path(), &before), Vec::<PathBuf>::new(), "{value:?}");
    }
}

/// The config with this value in the one line that begins so.
#[track_caller]
fn replace(config: &str, line: &str, value: &str) -> String {
    let mut lines: Vec<String> = config.lines().map(String::from).collect();
    let at = lines.iter().position(|own| own.starts_with(line)).expect("there is such a line");
    let (key, _) = line.split_once(' ').expect("a key and its value");
    lines[at] = format!("{key} = {}", toml::Value::from(value));
    lines.join("\n")
}

#[test]
fn of_budgets_and_tasks() {
    // As legal as they are, files of such names cannot be.
    let long = ["x".repeat(101), "-".repeat(5000)];
    let names = [&names()[..], &long].concat();
    check_refused(&names, "name = \"plain\"", &["budget name", "letters, digits"]);
    check_refused(&names, "name = \"tiny\"", &["task name", "letters, digits"]);
}

#[test]
fn names_as_long_as_they_may_be() {
    let root = tempfile::tempdir().unwrap();
    let longest = "x".repeat(100);
    let config = small(root.path(), |text| {
        let text = replace(&text, "name = \"plain\"", &longest);
        replace(&text, "name = \"tiny\"", &longest)
    });
    infer::run::eval(&config, &[], false, 1).unwrap();
}

#[test]
fn of_models() {
    let names = names();
    check_refused(&names, "path = ", &["model.path"]);
    let revisions: Vec<String> = names.iter().map(|name| format!("owner/name@{name}")).collect();
    check_refused(&revisions, "path = ", &["model.path", "nor a hub repository"]);
}

/// What goes to a terminal of it shows, and does nothing.
#[test]
fn errors_do_not_steer_terminals() {
    let root = tempfile::tempdir().unwrap();
    let config = small(root.path(), |text| replace(&text, "path = ", "a\u{1b}[2Jb\u{202e}c"));
    let out = Command::new(env!("CARGO_BIN_EXE_infer")).arg("eval").arg(config).output().unwrap();
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(!text.trim_end().chars().any(char::is_control), "{text:?}");
    assert!(!text.contains('\u{202e}') && text.contains("error: "), "{text:?}");
}

/// An output folder may have any name that the system allows; files are in it and nowhere else.
/// `just faults-infer`: all names, in a minute.
#[test]
fn of_outputs() {
    let mut published = 0;
    let step = if std::env::var_os("S1_FULL").is_some() { 1 } else { 20 };
    for name in names().iter().step_by(step) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("one/two");
        let output = format!("{}/{name}", folder.display());
        let config = small(&folder, |text| replace(&text, "output = ", &output));
        let before = all(root.path());
        let done = infer::run::eval(&config, &[], false, 1);
        let mut plain = PathBuf::new();
        for part in Path::new(&output).components() {
            match part {
                Component::ParentDir => drop(plain.pop()),
                part => plain.push(part),
            }
        }
        let mut files = new(root.path(), &before);
        files.retain(|path| root.path().join(path).is_file());
        let is_outside = |path: &&PathBuf| !root.path().join(path).starts_with(&plain);
        let outside: Vec<&PathBuf> = files.iter().filter(is_outside).collect();
        assert_eq!(outside, Vec::<&PathBuf>::new(), "{name:?}: {done:?}");
        assert_eq!(done.is_ok(), !files.is_empty(), "{name:?}: {done:?} {files:?}");
        published += usize::from(done.is_ok());
    }
    assert!(published >= 100 / step, "only {published} were published");
    println!("{} names of outputs: {published} published, 0 files elsewhere", 200 / step);
}

/// Whatever stands in a table lands in the same files, and acts neither in the page nor in `show`.
#[test]
fn of_questions() {
    let mut names = names();
    names.retain(|name| !name.trim().is_empty()); // that is no id
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("one/two");
    let config = small(&folder, |text| text.replace("answer =", "id = \"id\"\nanswer ="));
    let row = |(nth, name): (usize, &String)| {
        let start: String = name.chars().take(40).collect();
        json!({"id": name, "question": format!("{nth} {start}"), "answer": name, name: name})
    };
    let rows: Vec<String> =
        names.iter().enumerate().map(|row_of| row(row_of).to_string()).collect();
    fs::write(folder.join("task.jsonl"), rows.join("\n")).unwrap();
    let before = all(root.path());
    infer::run::eval(&config, &[], false, 1).unwrap();
    let written = new(root.path(), &before);
    assert_eq!(written.len(), 9, "the folder and its files: {written:?}");
    let out = folder.join("out");
    for name in &names {
        let one = show::Args {
            folder: out.clone(),
            sample: Some(name.clone()),
            budget: Some("plain".into()),
            ..show::Args::default()
        };
        let shown = show::run(&one, false).unwrap();
        assert!(!shown.chars().any(|c| !"\n\t".contains(c) && c.is_control()), "{shown:?}");
    }
    let Some(browser) = Browser::find() else { return };
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(!browser.runs_script(&page), "one of the texts runs");
}
