//! JSONL: round trips, what other writers put in it, and where errors point.

use std::fs;

use record::row::{Attempt, Dropped, Row};
use record::table::{
    read_attempts, read_dropped, read_rows, read_texts, stream_rows, write_attempts, write_dropped,
    write_rows,
};

use crate::{error_text, full_row, pool_row, shared};

#[track_caller]
fn check_rows(content: &str, expected: &[Row]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pool.jsonl");
    fs::write(&file, content).unwrap();
    assert_eq!(read_rows(&file).unwrap(), expected);
}

#[track_caller]
fn check_error(content: &[u8], expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pool.jsonl");
    fs::write(&file, content).unwrap();
    assert_eq!(error_text(read_rows(&file), folder.path()), expected);
}

fn question(text: &str) -> Row {
    Row { question: text.into(), ..Row::default() }
}

#[test]
fn lines_of_other_writers() {
    check_rows("", &[]);
    check_rows("{\"question\": \"q\"}", &[question("q")]);
    check_rows("\n{\"question\": \"q\"}\r\n \n\n", &[question("q")]);
    // A line ends at LF alone: both separators below are text.
    check_rows("{\"question\": \"a\u{2028}b\u{85}c\"}\n", &[question("a\u{2028}b\u{85}c")]);
    check_rows(r#"{"question": "q", "id": 7, "meta": {"level": [1]}}"#, &[question("q")]);
    check_rows(r#"{"question": "q", "cot_type": null, "attempt": null}"#, &[question("q")]);
}

#[test]
fn spellings_of_other_writers() {
    let row = |row: Row| Row { question: "q".into(), ..row };
    check_rows(
        r#"{"question": "q", "source": "openai/gsm8k"}"#,
        &[row(Row { source_type: "openai/gsm8k".into(), ..Row::default() })],
    );
    check_rows(
        r#"{"question": "q", "genmini_length": 12.0, "isgenminicorrect": true}"#,
        &[row(Row { gemini_length: Some(12), isgeminicorrect: Some(true), ..Row::default() })],
    );
    check_rows(
        r#"{"question": "q", "thinking_trajectories": "one"}"#,
        &[row(Row { thinking_trajectories: vec!["one".into()], ..Row::default() })],
    );
    check_rows(
        r#"{"question": "q", "gemini_attempt": "g", "deepseek_attempt": "d"}"#,
        &[row(Row { attempt: Some("d".into()), ..Row::default() })],
    );
}

#[test]
fn errors_name_line_and_column() {
    let after_a_good_line = |line: &[u8]| [b"{\"question\": \"q\"}\n\n", line].concat();
    let check =
        |line: &str, expected: &str| check_error(&after_a_good_line(line.as_bytes()), expected);
    check(
        r#"{"problem": "q", "id": 1}"#,
        "pool.jsonl: line 3: no column `question`; it has: problem, id",
    );
    check(
        r#"{"question": null}"#,
        "pool.jsonl: line 3, column `question`: null; every row needs a question",
    );
    check(r#"{"question": 5}"#, "pool.jsonl: line 3, column `question`: 5 where text is expected");
    check(
        r#"{"question": "q", "thinking_trajectories": ["a", null]}"#,
        "pool.jsonl: line 3, column `thinking_trajectories`: \
         [\"a\",null] where a list of texts is expected",
    );
    check(
        r#"{"question": "q", "gemini_length": 1.5}"#,
        "pool.jsonl: line 3, column `gemini_length`: 1.5 where a whole number is expected",
    );
    check(
        r#"{"question": "q", "isqwen7bcorrect": "Yes"}"#,
        "pool.jsonl: line 3, column `isqwen7bcorrect`: \"Yes\" where true or false is expected",
    );
    check(r#"{"question": }"#, "pool.jsonl: line 3, column 14: expected value");
    check(r#"["q"]"#, "pool.jsonl: line 3, column 0: invalid type: sequence, expected a map");
    check_error(
        &after_a_good_line(b"{\"question\": \"\xff\"}"),
        "pool.jsonl: line 3, byte 15: not UTF-8",
    );
}

#[test]
fn the_first_error_ends_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pool.jsonl");
    fs::write(&file, "{\"question\": \"q\"}\nnonsense\n{\"question\": \"q\"}\n").unwrap();
    let rows: Vec<bool> = stream_rows(&file).unwrap().map(|row| row.is_ok()).collect();
    assert_eq!(rows, [true, false]);
}

#[test]
fn files_that_are_no_tables() {
    let folder = tempfile::tempdir().unwrap();
    let error = |name: &str| error_text(read_rows(&folder.path().join(name)), folder.path());
    assert_eq!(error("pool.csv"), "pool.csv: a table's name ends in .parquet or .jsonl");
    assert_eq!(error("pool.jsonl"), "pool.jsonl: No such file or directory (os error 2)");
    assert_eq!(error("pool.parquet"), "pool.parquet: No such file or directory (os error 2)");
}

#[test]
fn one_column_as_texts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("eval.jsonl");
    fs::write(&file, "{\"problem\": \"p\", \"answer\": 1}\n{\"problem\": \"r\"}\n").unwrap();
    assert_eq!(read_texts(&file, "problem").unwrap(), ["p", "r"]);
    assert_eq!(
        error_text(read_texts(&file, "Question"), folder.path()),
        "eval.jsonl: line 1: no column `Question`; it has: problem, answer"
    );
}

/// Every table, in both formats, comes back as it was written, and twice as the same bytes.
#[test]
fn round_trips() {
    let folder = tempfile::tempdir().unwrap();
    let attempts = [
        Attempt {
            question_hash: "52cb6b5e4a038af1".into(),
            model: "Qwen/Qwen2.5-7B-Instruct".into(),
            attempt: "5".into(),
            grade: Some(false),
            reason: Some("5 is not 4".into()),
        },
        Attempt { question_hash: "52cb6b5e4a038af1".into(), ..Attempt::default() },
    ];
    let dropped = [Dropped {
        question_hash: "52cb6b5e4a038af1".into(),
        source_type: "s".into(),
        stage: "quality".into(),
        reason: "mentions a figure".into(),
        row: 17,
    }];
    for format in ["parquet", "jsonl"] {
        let path = |name: &str| folder.path().join(format!("{name}.{format}"));
        for rows in [vec![], vec![pool_row("q")], vec![full_row(), pool_row("q"), full_row()]] {
            write_rows(&path("rows"), &rows).unwrap();
            assert_eq!(read_rows(&path("rows")).unwrap(), rows, "{format}");
            write_rows(&path("again"), &rows).unwrap();
            assert_eq!(fs::read(path("rows")).unwrap(), fs::read(path("again")).unwrap());
        }
        write_attempts(&path("attempts"), &attempts).unwrap();
        assert_eq!(read_attempts(&path("attempts")).unwrap(), attempts, "{format}");
        write_dropped(&path("dropped"), &dropped).unwrap();
        assert_eq!(read_dropped(&path("dropped")).unwrap(), dropped, "{format}");
        write_dropped(&path("dropped"), &[]).unwrap();
        assert_eq!(read_dropped(&path("dropped")).unwrap(), [], "{format}");
    }
}

#[test]
fn written_lines_have_the_columns_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pool.jsonl");
    let row = Row { gemini_length: Some(3), ..pool_row("q\u{2028}") };
    write_rows(&file, &[row, pool_row("r")]).unwrap();
    let expected = "{\"solution\":null,\"question\":\"q\u{2028}\",\"cot_type\":\"math\",\
        \"source_type\":\"s\",\"metadata\":\"{}\",\"cot\":null,\"gemini_length\":3}\n\
        {\"solution\":null,\"question\":\"r\",\"cot_type\":\"math\",\
        \"source_type\":\"s\",\"metadata\":\"{}\",\"cot\":null,\"gemini_length\":null}\n";
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
}

/// Real questions of s1's sources, each with the id that s1's own function gave it.
#[test]
fn real_pools() {
    let Some(shared) = shared("real_pools") else { return };
    for entry in fs::read_dir(shared.join("data/pool")).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let rows = read_rows(&file).unwrap();
        let hashes: Vec<String> = rows.iter().map(Row::hash).collect();
        assert!(rows.iter().all(|row| !row.source_type.is_empty() && !row.cot_type.is_empty()));
        assert_eq!(hashes, read_texts(&file, "question_hash").unwrap(), "{}", file.display());
    }
}
