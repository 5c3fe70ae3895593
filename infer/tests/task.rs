//! Reading a task: values, choices, and errors that name row and column.

use std::fs;

use infer::task::{Grading, Question, Task, grade};
use serde_json::{Map, Value, json};

const PLAIN: &str = r#"name = "t"
dataset = "DIR/task.jsonl"
prompt = "{question}"
answer = "gold"
id = "id"
grading = "exact"
"#;

fn task(toml: &str) -> anyhow::Result<Task> {
    let task: Task = toml::from_str(toml)?;
    task.check()?;
    Ok(task)
}

/// The questions of a task whose table has this text.
fn read(
    toml: &str,
    file: &str,
    table: &str,
    limit: Option<usize>,
) -> anyhow::Result<Vec<Question>> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(file), table).unwrap();
    let task = task(&toml.replace("DIR", folder.path().to_str().unwrap()))?;
    task.load(&task.files()?, limit)
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn rows_in_order() {
    let lines = "{\"id\": 7, \"question\": \"1+1?\", \"gold\": 2, \"x\": null}\n\
                 {\"id\": \"b\", \"question\": \" q\\n\", \"gold\": \"\\\\pi\"}\n";
    let question = |doc_id, id: &str, question: &str, target: &str, row: Value| Question {
        doc_id,
        id: Some(id.into()),
        question: question.into(),
        target: target.into(),
        row: object(row),
    };
    let rows = [
        question(0, "7", "1+1?", "2", json!({"id": 7, "question": "1+1?", "gold": 2, "x": null})),
        question(1, "b", " q\n", "\\pi", json!({"id": "b", "question": " q\n", "gold": "\\pi"})),
    ];
    assert_eq!(read(PLAIN, "task.jsonl", lines, None).unwrap(), rows);
    assert_eq!(read(PLAIN, "task.jsonl", lines, Some(1)).unwrap(), rows[..1]);
}

/// As spreadsheets and Python's `utf-8-sig` write it.
#[test]
fn a_byte_order_mark_and_fractions_are_read() {
    for (file, table) in [
        ("task.jsonl", "\u{feff}{\"id\": 1, \"question\": \"q\", \"gold\": 4.5}\n"),
        ("task.csv", "\u{feff}id,question,gold\n1,q,4.5\n"),
    ] {
        let toml = PLAIN.replace("task.jsonl", file);
        let found = read(&toml, file, table, None).unwrap_or_else(|error| panic!("{error:#}"));
        let Question { id, question, target, .. } = &found[0];
        assert_eq!((id.as_deref(), question.as_str(), target.as_str()), (Some("1"), "q", "4.5"));
    }
}

#[test]
fn templates_and_the_answer_behind_a_mark() {
    let toml = PLAIN
        .replace("{question}", "Q {id}: {question} (of {question})")
        .replace("id = \"id\"", "")
        + "answer_after = \"####\"\n";
    let line = json!({"id": 3, "question": "2*3?", "gold": "2*3 = 6\n#### 1\n#### 6 "});
    let found = read(&toml, "task.jsonl", &line.to_string(), None).unwrap();
    let Question { id, question, target, .. } = &found[0];
    assert_eq!((id, question.as_str(), target.as_str()), (&None, "Q 3: 2*3? (of 2*3?)", "6"));
}

/// Choices as GPQA has them: every order occurs, a question's own never changes, and the letter is
/// that of the right one.
#[test]
fn choices_in_an_order_of_their_own() {
    let toml = r#"name = "t"
dataset = "DIR/task.csv"
prompt = "{Question}\n\n{choices}"
grading = "choice"
[choices]
right = "Correct Answer"
wrong = ["Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]
"#;
    let head = "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n";
    let table: String = (0..200).map(|n| format!("\"q {n}?\",right,w1,w2,w3\n")).collect();
    let found = read(toml, "task.csv", &format!("{head}{table}"), None).unwrap();
    let mut letters = std::collections::BTreeMap::new();
    for (n, question) in found.iter().enumerate() {
        let (stem, choices) = question.question.split_once("\n\n").unwrap();
        assert_eq!(stem, format!("q {n}?"));
        let lines: Vec<&str> = choices.lines().collect();
        assert_eq!(lines.len(), 4);
        for (line, letter) in lines.iter().zip(["A) ", "B) ", "C) ", "D) "]) {
            assert!(line.starts_with(letter), "{choices}");
        }
        assert!(lines.contains(&format!("{}) right", question.target).as_str()), "{choices}");
        *letters.entry(question.target.clone()).or_insert(0) += 1;
    }
    assert!(letters.len() == 4 && letters.values().all(|n| (30..71).contains(n)), "{letters:?}");
    // The order knows neither the row's place nor the table.
    let last = format!("{head}{}", table.lines().last().unwrap());
    assert_eq!(read(toml, "task.csv", &last, None).unwrap()[0].question, found[199].question);
}

#[track_caller]
fn check_error(table: &str, parts: &[&str]) {
    let error = format!("{:#}", read(PLAIN, "task.jsonl", table, None).unwrap_err());
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn errors_name_the_place() {
    check_error("", &["task t", "no questions"]);
    let good = "{\"id\": 1, \"question\": \"q\", \"gold\": 2}\n";
    check_error(
        &format!("{good}{{\"id\": 1, \"question\": \"q\"}}\n"),
        &["task.jsonl: row 2", "no column `gold`", "id, question"],
    );
    check_error(&good.replace("2}", "true}"), &["row 1", "`gold` holds true", "a number"]);
    check_error(&good.repeat(2), &["row 2", "question 0 (from 0) has the id \"1\" too"]);
    check_error(&good.replace("\"q\"", "\" \""), &["row 1", "`question` is empty"]);
    check_error(&good.replace("\"q\"", "[]"), &["row 1", "`question` holds []"]);
    check_error(&good.replace("2}", "2"), &["task.jsonl"]);
}

#[track_caller]
fn check_mistake(from: &str, to: &str, parts: &[&str]) {
    let done = task(&PLAIN.replace(from, to)).and_then(|task| task.files().map(drop));
    let error = format!("{:#}", done.unwrap_err());
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn mistakes_are_explained() {
    check_mistake("answer = \"gold\"", "", &["task t", "`answer`", "`choices`"]);
    check_mistake("{question}", "hello", &["task t", "names no {column}"]);
    check_mistake("{question}", "{question} {choices}", &["{choices}", "belong together"]);
    check_mistake("\"t\"", "\"a/b\"", &["task name \"a/b\""]);
    check_mistake("DIR/task.jsonl", "nowhere.jsonl", &["task t", "no file nowhere.jsonl"]);
    check_mistake("DIR/task.jsonl", "owner/name", &["task t", "owner/name", "which `file`"]);
    check_mistake("grading", "grader", &["grader"]);
}

#[test]
fn grading_modes() {
    let rows = [
        (Grading::Exact, Some("042"), "42", true, "integer"),
        (Grading::Exact, Some("$42$"), "42", false, "different"),
        (Grading::Equivalent, Some("$42$"), "42", true, "integer"),
        (Grading::Equivalent, None, "42", false, "no answer"),
        (Grading::Exact, None, "", false, "no answer"),
        (Grading::Choice, Some("(B) is right"), "B", true, "choice"),
        (Grading::Choice, Some("C"), "B", false, "choice"),
        (Grading::Choice, Some("I do not know"), "A", false, "no letter"),
    ];
    for (mode, extracted, target, equal, rule) in rows {
        let verdict = grade(mode, extracted, target);
        assert_eq!((verdict.equal, verdict.rule), (equal, rule), "{extracted:?} {target:?}");
    }
}
