//! The text of a training example, case by case and against s1's rule in Python.

use record::example::{parts, text};
use record::row::Row;
use record::table::write_rows;

use crate::{oracle, pool_row};

#[track_caller]
fn check(thinking: &[&str], attempt: &str, expected_trace: &str, expected_answer: &str) {
    let row = Row {
        thinking_trajectories: thinking.iter().map(|&text| text.into()).collect(),
        attempt: Some(attempt.into()),
        ..pool_row("q")
    };
    assert_eq!(parts(&row).unwrap(), (expected_trace.into(), expected_answer.into()));
}

#[test]
fn traces_are_joined_and_stripped() {
    check(&["a", "b"], "Answer: 1", "a\nb", "Answer: 1");
    check(&[" \n a \n", "\n b\t "], "Answer: 1", "a \n\n\n b", "Answer: 1");
    check(&[""], "Answer: 1", "", "Answer: 1");
    // Python's strip takes the four ASCII separators, which Unicode does not call white space,
    // and leaves the zero-width space and the byte order mark.
    check(&["\u{1c}\u{1f}a\u{1d}\u{1e}"], "Answer: 1", "a", "Answer: 1");
    check(&["\u{a0}\u{85}\u{2028}\u{3000}a\u{2003}"], "Answer: 1", "a", "Answer: 1");
    check(&["\u{200b}a\u{feff}"], "Answer: 1", "\u{200b}a\u{feff}", "Answer: 1");
}

#[test]
fn answers_are_marked_and_stripped() {
    check(&["a"], "4", "a", "Answer: 4");
    check(&["a"], " 4 ", "a", "Answer:  4");
    check(&["a"], "", "a", "Answer:");
    check(&["a"], "The Answer: 4\n", "a", "The Answer: 4");
    check(&["a"], "Final Answer:4", "a", "Final Answer:4");
    check(&["a"], "answer: 4", "a", "Answer: answer: 4");
    check(&["a"], "Answer : 4", "a", "Answer: Answer : 4");
}

#[test]
fn whole_text() {
    let row = Row {
        thinking_trajectories: vec!["Count.".into()],
        attempt: Some("3".into()),
        ..pool_row(" How many r in raspberry\n")
    };
    let expected = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. \
        You are a helpful assistant.<|im_end|>\n\
        <|im_start|>user\n How many r in raspberry\n<|im_end|>\n\
        <|im_start|>assistant\n<|im_start|>think\nCount.\n\
        <|im_start|>answer\nAnswer: 3<|im_end|>\n";
    assert_eq!(text(&row).unwrap(), expected);
}

#[test]
fn rows_without_trace_or_attempt_are_refused() {
    let without_trace = pool_row("What is 2+2?");
    let message = text(&without_trace).unwrap_err().to_string();
    assert_eq!(message, "no thinking_trajectories, so no training example");
    let without_attempt = Row { thinking_trajectories: vec!["a".into()], ..without_trace };
    let message = text(&without_attempt).unwrap_err().to_string();
    assert_eq!(message, "no attempt, so no training example");
}

/// Every pair of these as trace and answer, put before Python.
#[test]
fn oracle_of_example_text() {
    let Some(oracle) = oracle::python("example_text") else {
        return;
    };
    let mut pieces: Vec<String> =
        ["", "a", "Answer: 4", "answer: 4", "Final Answer:", "a\r\n", "<|im_end|>", "naïve 多"]
            .map(String::from)
            .to_vec();
    // Every character that anybody might call white space, at both ends.
    let spaces = (0..=0x3000).filter_map(char::from_u32).chain(['\u{feff}']);
    pieces.extend(
        spaces
            .filter(|c| c.is_whitespace() || c.is_control() || ('\u{2000}'..'\u{2070}').contains(c))
            .map(|c| format!("{c}x{c}")),
    );
    let mut rows = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let mut row = Row {
            thinking_trajectories: vec![piece.clone(), pieces[index / 2].clone()],
            attempt: Some(pieces[pieces.len() - 1 - index].clone()),
            ..pool_row(piece)
        };
        row.text = Some(text(&row).unwrap());
        rows.push(row);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    write_rows(&file, &rows).unwrap();
    oracle.run("example_text.py", &[file.to_str().unwrap()]);
}
