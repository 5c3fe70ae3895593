//! The `grade` program, end to end: rows in, verdicts out, summaries, errors with a cure.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

fn start(arguments: &[&str]) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_grade"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = start(arguments);
    let mut stdin = child.stdin.take().unwrap();
    // It stops reading at the first wrong row.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn check(arguments: &[&str], row: Value, expected: Value) {
    let output = run(arguments, &format!("{row}\n"));
    assert_eq!(text(&output.stderr), "", "{row}");
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdict, expected, "{row}");
}

#[test]
fn rows() {
    let verdict = |equal: bool, rule: &str, extracted: Value| json!({"equal": equal, "rule": rule, "extracted": extracted, "ambiguous": false});
    let identical = |answer: &str| verdict(true, "identical", json!(answer));
    check(&[], json!({"pred": "x+1", "gold": "x+1", "more": [1]}), identical("x+1"));
    check(&[], json!({"pred": 7, "gold": 7}), identical("7"));
    check(&[], json!({"output": "so \\boxed{7}", "gold": "7"}), identical("7"));
    check(&[], json!({"output": "The answer is (B) 12.", "gold": "B"}), identical("B"));
    check(&[], json!({"pred": "023", "gold": "23"}), verdict(true, "integer", json!("023")));
    let nothing = verdict(false, "no_answer", Value::Null);
    check(&[], json!({"output": "it is \\boxed{7", "gold": "7"}), nothing.clone());
    check(&[], json!({"output": "", "gold": "7"}), nothing.clone());
    check(&[], json!({"pred": null, "gold": "7"}), nothing);
    let two = json!({"output": "\\boxed{1}. Or rather \\boxed{5}", "gold": "5"});
    let mut doubtful = identical("5");
    doubtful["ambiguous"] = json!(true);
    check(&[], two, doubtful);
}

#[test]
fn s1_mode_is_s1() {
    let row = json!({"output": "Answer: 1 or\n2", "gold": "1 or\n2"});
    let identical =
        json!({"equal": true, "rule": "identical", "extracted": "1 or\n2", "ambiguous": false});
    check(&["--extract", "s1"], row.clone(), identical.clone());
    check(&["--extract=s1"], row, identical);
}

/// Half of a surrogate pair, as a completion that was cut inside a character leaves it behind, is
/// no reason to stop.
#[test]
fn half_a_character_is_read() {
    let rows = [
        r#"{"output": "\\boxed{7} \ud83d", "gold": "7"}"#,
        r#"{"pred": "\udE00x", "gold": "\udfffx"}"#,
        r#"{"pred": "\ud83d\ude00", "gold": "😀"}"#,
        r#"{"pred": "\\ud83d", "gold": "\\ud83d"}"#,
    ];
    let output = run(&[], &rows.join("\n"));
    assert_eq!(text(&output.stderr), "");
    for line in text(&output.stdout).lines() {
        assert!(line.contains("\"rule\":\"identical\""), "{line}");
    }
    assert_eq!(text(&output.stdout).lines().count(), rows.len());
}

#[test]
fn one_verdict_for_each_row_in_order() {
    let rows: String =
        (0..2000).map(|i| format!("{}\n\n", json!({"pred": i.to_string(), "gold": "7"}))).collect();
    let output = run(&[], &rows);
    let verdicts: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(verdicts.len(), 2000);
    for (i, verdict) in verdicts.iter().enumerate() {
        assert_eq!(verdict["extracted"], i.to_string());
        assert_eq!(verdict["equal"], i == 7);
    }
}

/// A verdict comes before the next row is sent.
#[test]
fn keeps_up_with_a_pipe() {
    let mut child = start(&[]);
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for i in 0..3 {
        writeln!(stdin, "{}", json!({"pred": i.to_string(), "gold": "1"})).unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let verdict: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(verdict["equal"], i == 1);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_table_lists_what_was_not_sure() {
    let rows = [
        json!({"pred": "1", "gold": "1", "equal": true}),
        json!({"pred": "2", "gold": "3", "equal": true}),
        json!({"output": "\\boxed{1}. Or rather \\boxed{5}", "gold": "5", "equal": true}),
        json!({"output": "I do not know what to say here.", "gold": "5", "equal": false}),
    ];
    let rows: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    std::fs::write(&file, &rows).unwrap();
    let from_file = run(&["--table", file.to_str().unwrap()], "");
    let from_pipe = run(&["--table", "-"], &rows);
    assert_eq!(from_file.stdout, from_pipe.stdout);
    let table = text(&from_file.stdout);
    for line in [
        "line 2: should be equal: \"2\" against \"3\"",
        "line 3: ambiguous: \"5\" against \"5\"",
        "line 4: no_answer: nothing against \"5\"",
        "rows              4",
        "  identical       2",
        "  no_answer       1",
        "agreement with the rows' \"equal\": 3 of 4, 75.00%",
    ] {
        assert!(table.contains(line), "{line:?} is not in\n{table}");
    }
}

#[test]
fn explanations_show_both_sides() {
    let output = run(&["--explain"], "{\"output\": \"\\\\boxed{1/2}\", \"gold\": \"0.5\"}\n");
    let shown = text(&output.stdout);
    assert!(
        shown.contains("line 1") && shown.contains("1/2") && shown.contains("number"),
        "{shown}"
    );
}

#[track_caller]
fn fails(arguments: &[&str], input: &str, code: i32, words: &[&str]) {
    let output = run(arguments, input);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    for word in words {
        assert!(errors.contains(word), "{word:?} is not in {errors:?}");
    }
}

#[test]
fn errors_name_the_line_and_the_cure() {
    let good = "{\"pred\": \"1\", \"gold\": \"1\"}\n";
    let cure = "{\"pred\": \"…\", \"gold\": \"…\"}";
    fails(&[], &format!("{good}\nnonsense\n"), 1, &["standard input, line 3", "not JSON", cure]);
    fails(&[], "[1]\n", 1, &["line 1", "not an object", cure]);
    fails(&[], "{\"pred\": \"1\"}\n", 1, &["line 1", "no \"gold\"", cure]);
    fails(&[], "{\"gold\": \"1\"}\n", 1, &["neither \"pred\" nor \"output\"", cure]);
    fails(
        &[],
        "{\"pred\": \"1\", \"output\": \"1\", \"gold\": \"1\"}\n",
        1,
        &["both", "leave out"],
    );
    fails(&[], "{\"pred\": [], \"gold\": \"1\"}\n", 1, &["\"pred\"", "write it as a string"]);
    fails(&["--table", "no such file"], "", 1, &["no such file", "--table needs a file"]);
    fails(&["--extract", "loose"], "", 2, &["strict or s1", "loose", "grade --help"]);
    fails(&["--table", "x", "--explain"], "", 2, &["--table and --explain", "leave one out"]);
    fails(&["--explain", "--table=x"], "", 2, &["--table and --explain", "leave one out"]);
    fails(&[], &format!("{good}{{\"pred\": \"1\",\n"), 1, &["line 2", "column 13"]);
    fails(&["--table"], "", 2, &["--table needs a file"]);
    fails(&["--tabel", "x"], "", 2, &["--tabel", "grade --help"]);
    // What came before the wrong row was graded.
    assert!(text(&run(&[], &format!("{good}nonsense\n")).stdout).contains("identical"));
}

#[test]
fn help_is_kind() {
    let output = run(&["--help"], "");
    assert!(output.status.success());
    for word in [
        "Usage",
        "--extract",
        "--table",
        "--explain",
        "no_answer",
        "\\\\boxed",
        "unparsed",
        "budget",
        "probe",
    ] {
        assert!(text(&output.stdout).contains(word), "{word}");
    }
}
