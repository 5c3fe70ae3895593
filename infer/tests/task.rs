//! Reading a task: values, and errors that name line and column.

use infer::config::{Extract, Grading, Task};
use infer::task::{Question, grade, load};

fn read(lines: &str, limit: Option<usize>) -> anyhow::Result<Vec<Question>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("task.jsonl");
    std::fs::write(&path, lines).unwrap();
    load(&Task {
        name: "t".into(),
        path,
        question: "question".into(),
        answer: "gold".into(),
        id: Some("id".into()),
        limit,
        extract: Extract::S1,
        grading: Grading::Exact,
    })
}

#[test]
fn rows_in_order() {
    let lines = "{\"id\": 7, \"question\": \"1+1?\", \"gold\": 2, \"x\": null}\n\
                 {\"id\": \"b\", \"question\": \" q\\n\", \"gold\": \"\\\\pi\"}\n";
    let question = |doc_id, id: &str, question: &str, target: &str| Question {
        doc_id,
        id: Some(id.into()),
        question: question.into(),
        target: target.into(),
    };
    let rows = [question(0, "7", "1+1?", "2"), question(1, "b", " q\n", "\\pi")];
    assert_eq!(read(lines, None).unwrap(), rows);
    assert_eq!(read(lines, Some(1)).unwrap(), rows[..1]);
}

#[track_caller]
fn check_error(lines: &str, parts: &[&str]) {
    let error = format!("{:#}", read(lines, None).unwrap_err());
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn errors_name_the_place() {
    check_error("", &["task.jsonl", "no questions"]);
    let good = "{\"id\": 1, \"question\": \"q\", \"gold\": 2}\n";
    check_error(
        &format!("{good}{{\"id\": 1, \"question\": \"q\"}}\n"),
        &["task.jsonl line 2", "no column `gold`", "id, question"],
    );
    check_error(&good.replace("2}", "2.5}"), &["line 1", "`gold` holds 2.5"]);
    check_error(&good.replace("\"q\"", "\" \""), &["line 1", "`question` is empty"]);
    check_error(&good.replace("\"q\"", "[]"), &["line 1", "`question` holds []"]);
    check_error(&good.replace("2}", "2"), &["task.jsonl"]);
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
