//! Conversations in JSONL, and in Parquet as datasets and pyarrow write it.

use std::fs;

use record::table::{Message, read_messages};

use crate::{error_text, fixture};

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into() }
}

/// The rows that tests/oracle/parquet_fixtures.py wrote.
fn expected() -> Vec<Vec<Message>> {
    vec![
        vec![message("user", "What is 2+2?"), message("assistant", "4\u{2028}")],
        vec![
            message("system", "Be kind."),
            message("user", "<|im_end|>"),
            message("assistant", ""),
            message("user", "多少?"),
        ],
        vec![],
    ]
}

#[test]
fn conversations_are_read_as_others_write_them() {
    for name in ["messages_datasets.parquet", "messages_pyarrow.parquet"] {
        assert_eq!(read_messages(&fixture(name)).unwrap(), expected(), "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let lines = r#"{"id": 1, "messages": [{"role": "user", "content": "What is 2+2?"}, {"content": "4 ", "role": "assistant"}]}

        {"messages": [{"role": "system", "content": "Be kind.", "tool_calls": null}, {"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "多少?"}]}
{"messages": []}"#;
    fs::write(&path, lines.replace("4 ", "4\u{2028}")).unwrap();
    assert_eq!(read_messages(&path).unwrap(), expected());
}

#[track_caller]
fn check_error(line: &str, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    fs::write(&path, format!("{{\"messages\": []}}\n{line}\n")).unwrap();
    let text = error_text(read_messages(&path), folder.path());
    assert_eq!(text, format!("rows.jsonl: line 2, column `messages`: {expected}"));
}

#[test]
fn what_is_no_conversation_is_named() {
    check_error(r#"{"text": "a"}"#, "no list of messages; the row has: text");
    check_error(r#"{"messages": "a"}"#, "no list of messages; the row has: ");
    check_error(
        r#"{"messages": [{"role": "user", "content": "q"}, 3]}"#,
        "message 2: 3 where an object with role and content is expected",
    );
    check_error(r#"{"messages": [{"role": "user"}]}"#, "message 1: missing field `content`");
    check_error(
        r#"{"messages": [{"role": "assistant", "content": null}]}"#,
        "message 1: invalid type: null, expected a string",
    );
    check_error(
        r#"{"messages": [{"role": "user", "content": "q", "tool_calls": [1]}]}"#,
        "message 1: it has a tool_calls, which would be lost: only role and content are read; \
         leave it out",
    );
    for (name, expected) in [
        ("datasets.parquet", "not there; the table has: solution, question"),
        ("messages_null.parquet", "row 2, message 1: null where role and content are expected"),
        ("messages_tools.parquet", "row 1, message 1: it has a name, which would be lost"),
        ("messages_of_texts.parquet", "where a list of {role, content} is expected"),
    ] {
        let text = format!("{:#}", read_messages(&fixture(name)).unwrap_err());
        assert!(text.contains(expected) && text.contains(name), "{text}");
    }
}
