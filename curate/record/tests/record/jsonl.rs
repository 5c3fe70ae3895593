//! JSONL: round trips, what other writers put in it, and where errors point.

use std::fs;

use anyhow::Result;
use record::row::{Attempt, Features, Lineage, Row};
use record::table::{
    create_lineage, create_rows, read_attempts, read_rows, read_texts, stream_features,
    stream_lineage, stream_questions, stream_rows, write_attempts, write_features, write_rows,
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
        "pool.jsonl: line 3, column `gemini_length`: 1.5 where a whole number from 0 on is expected",
    );
    check(
        r#"{"question": "q", "gemini_length": -3}"#,
        "pool.jsonl: line 3, column `gemini_length`: -3 where a whole number from 0 on is expected",
    );
    check(
        r#"{"question": "q", "isqwen7bcorrect": "yes"}"#,
        "pool.jsonl: line 3, column `isqwen7bcorrect`: \"yes\" where true or false is expected",
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

fn all<R>(rows: Result<impl Iterator<Item = Result<R>>>) -> Vec<R> {
    rows.unwrap().collect::<Result<_>>().unwrap()
}

fn full_lineage() -> Lineage {
    Lineage {
        row: 1 << 40,
        question_hash: "bc8a3cdb5684fd1e".into(),
        source_type: "s".into(),
        cot_type: "math".into(),
        question: "How many r in raspberry".into(),
        domain: Some("Geometry".into()),
        gemini_length: Some(120),
        isgeminicorrect: Some(true),
        isqwen7bcorrect: Some(false),
        isqwen32bcorrect: Some(false),
        stage: "selected".into(),
        reason: "its domain was drawn uniformly".into(),
        evidence: Some("\u{2028}".into()),
        rank: Some(0),
        phase: Some("uniform".into()),
        draw: Some(1000),
    }
}

/// `nth` gives the rows that going on one by one gives, in both formats, across row groups.
#[test]
fn passing_over_rows() {
    let folder = tempfile::tempdir().unwrap();
    let long = "z".repeat(6 << 20);
    let row = |n: usize| Row { solution: Some(format!("{n}{long}")), ..pool_row(&format!("q{n}")) };
    let rows: Vec<Row> = (0..10).map(row).collect();
    for format in ["parquet", "jsonl"] {
        let file = folder.path().join("pool").with_extension(format);
        write_rows(&file, &rows).unwrap();
        for steps in [vec![0, 0, 7], vec![9], vec![3, 2, 1], vec![10], vec![4, 4, 4], vec![2, 6]] {
            let (mut ours, mut theirs) = (stream_rows(&file).unwrap(), rows.iter());
            for step in steps {
                let found = ours.nth(step).transpose().unwrap();
                assert!(found.as_ref() == theirs.nth(step), "{format}, a step of {step}");
            }
        }
    }
}

/// A table written row by row has the named columns; one that s1 leaves null is settled by the
/// first row group.
#[test]
fn named_columns_row_by_row() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("selected.parquet");
    let write = |rows: &[Row]| -> Result<Vec<Row>> {
        let mut writer = create_rows(&file, &["question", "cot", "text"])?;
        rows.iter().try_for_each(|row| writer.push(row.clone()))?;
        writer.finish()?;
        read_rows(&file)
    };
    let text = || Some("z".repeat(17 << 20));
    let plain = |q: &str| Row { question: q.into(), text: text(), ..Row::default() };
    let with_cot = |q: &str| Row { cot: Some("steps".into()), ..plain(q) };
    let more = Row { domain: Some("Geometry".into()), ..with_cot("a") };
    assert!(write(&[more, plain("b")]).unwrap() == [with_cot("a"), plain("b")]);
    assert!(write(&[plain("a"), plain("b")]).unwrap() == [plain("a"), plain("b")]);
    let late = error_text(write(&[plain("a"), with_cot("b")]), folder.path());
    assert!(late.contains("behind row 1 is the first with a `cot`"), "{late}");
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
    let hash = || "52cb6b5e4a038af1".to_string();
    let features = [
        Features { question_hash: hash(), gemini_length: Some(7), ..Features::default() },
        Features {
            question_hash: hash(),
            domain: Some("Geometry".into()),
            isgeminicorrect: Some(true),
            isqwen7bcorrect: Some(false),
            isqwen32bcorrect: Some(true),
            gemini_length: None,
        },
    ];
    let lineage = [full_lineage(), Lineage { question_hash: hash(), ..Lineage::default() }];
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
        write_features(&path("features"), &features).unwrap();
        assert_eq!(all(stream_features(&path("features"))), features, "{format}");
        for rows in [&lineage[..], &[]] {
            let mut writer = create_lineage(&path("lineage")).unwrap();
            rows.iter().for_each(|row| writer.push(row.clone()).unwrap());
            writer.finish().unwrap();
            assert_eq!(all(stream_lineage(&path("lineage"))), rows, "{format}");
        }
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

#[test]
fn a_row_says_which_question_it_is_about() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("table.jsonl");
    let rows = [r#"{"question": "q"}"#, r#"{"question_hash": "52cb6b5e4a038af1"}"#, "{}"];
    fs::write(&file, rows.join("\n")).unwrap();
    let hash = record::question::question_hash("q");
    let expected = [hash.as_str(), "52cb6b5e4a038af1"];
    let told = |rows: Vec<anyhow::Result<String>>| {
        let error = rows[2].as_ref().unwrap_err().to_string();
        assert!(error.contains("table.jsonl: row 3 has neither `question` nor"), "{error}");
        assert!(rows[..2].iter().map(|row| row.as_ref().unwrap()).eq(expected));
    };
    told(stream_features(&file).unwrap().map(|row| Ok(row?.question_hash)).collect());
    told(stream_questions(&file).unwrap().map(|row| Ok(row?.question_hash)).collect());
}
