//! The training set: what formats and control variants make of rows, over-long rows, tables in
//! several files and on the hub.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use model::chat::Chat;
use record::row::Row;
use record::table::write_rows;
use train::config::{Control, Data, Format, OverLong};
use train::examples::{Examples, Table};

/// The demo's tokenizer; its template has no system text.
fn chat() -> Chat {
    Chat::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/demo/model")).unwrap()
}

fn data(path: &Path, format: Format, control: Control) -> Data {
    let examples = path.display().to_string();
    Data { examples, format, control, block_size: 4096, over_long: OverLong::Error }
}

/// What is trained in brackets, as one text.
#[track_caller]
fn check_text(format: Format, control: Control, row: &str, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    fs::write(&path, format!("{row}\n")).unwrap();
    let chat = chat();
    let found = Examples::read(&data(&path, format, control), &chat, false).unwrap();
    let (mut text, mut at) = (String::new(), 0);
    let example = &found.examples[0];
    for range in &example.trained {
        text += &chat.tokenizer.decode(&example.ids[at..range.start]).unwrap();
        text += &format!("[{}]", chat.tokenizer.decode(&example.ids[range.clone()]).unwrap());
        at = range.end;
    }
    text += &chat.tokenizer.decode(&example.ids[at..]).unwrap();
    assert_eq!(
        text,
        expected.replace("IM_START ", "<|im_start|>").replace(" IM_END", "<|im_end|>")
    );
}

const S1_ROW: &str = r#"{"question": "2+2?", "thinking_trajectories": ["Two.\n\nAnd two.\n\n\n\n  \n\n\nFour."],
    "attempt": "4"}"#;

#[test]
fn rows_become_the_text_of_their_format() {
    let s1 = S1_ROW.replace('\n', " ");
    check_text(
        Format::S1,
        Control::None,
        &s1,
        "IM_START user\n2+2? IM_END\nIM_START assistant\n[IM_START think\nTwo.\n\nAnd two.\n\n\n\n  \
         \n\n\nFour.\nIM_START answer\nAnswer: 4 IM_END\n]",
    );
    check_text(
        Format::Messages,
        Control::None,
        r#"{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "a"},
            {"role": "assistant", "content": "\n\nb"}, {"role": "user", "content": "c"},
            {"role": "assistant", "content": "<|im_end|>"}]}"#
            .replace('\n', " ")
            .as_str(),
        "IM_START system\nS IM_END\nIM_START user\na IM_END\nIM_START assistant\n[\n\nb IM_END\n]\
         IM_START user\nc IM_END\nIM_START assistant\n[<|im_end|> IM_END\n]",
    );
    // In a text the control tokens are meant; the padding token is never trained.
    check_text(
        Format::Text,
        Control::None,
        r#"{"text": "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|fim_pad|>c<|im_end|>\n<|im_start|>user\nd"}"#,
        "IM_START user\na IM_END\nIM_START assistant\n[b]<|fim_pad|>[c IM_END\n]IM_START user\nd",
    );
    check_text(Format::Plain, Control::None, r#"{"text": "a<|im_end|>\nb"}"#, "a[ IM_END\nb]");
}

#[test]
fn control_says_how_long_to_think() {
    let s1 = S1_ROW.replace('\n', " ");
    // Three steps, rounded up to four; blank ones are none.
    check_text(
        Format::S1,
        Control::Steps,
        &s1,
        "IM_START user\n2+2?\n\nThink for up to 4 steps. IM_END\nIM_START assistant\n\
         [IM_START 4 steps left\nTwo.\nIM_START 3 steps left\nAnd two.\nIM_START 2 steps left\n\
         Four.\nIM_START answer\nAnswer: 4 IM_END\n]",
    );
    let chat = chat();
    let mut lengths = Vec::new();
    for trace in ["", "a", "b b", "1 2", "1 2 3 4", "1 2 3 4 5 6 7 8"] {
        let tokens = chat.tokenizer.encode_text(trace).unwrap().len();
        let budget = [1, 2, 4, 8, 16, 32].into_iter().find(|n| *n >= tokens).unwrap();
        lengths.push((tokens, budget));
        let row = format!(
            r#"{{"question": "q", "thinking_trajectories": ["{trace}\n"], "attempt": "x"}}"#
        );
        let expected = format!(
            "IM_START user\nq\n\nThink for up to {budget} tokens. IM_END\nIM_START assistant\n\
             [IM_START think\n{trace}\nIM_START answer\nAnswer: x IM_END\n]"
        );
        check_text(Format::S1, Control::Tokens, &row, &expected);
    }
    let is_exact = |(tokens, budget): &(usize, usize)| tokens == budget;
    assert!(lengths.iter().any(is_exact) && !lengths.iter().all(is_exact), "{lengths:?}");
}

#[track_caller]
fn check_error(format: Format, control: Control, row: &str, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    fs::write(&path, format!("{row}\n")).unwrap();
    let error = Examples::read(&data(&path, format, control), &chat(), false).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains(expected), "{text:?} lacks {expected:?}");
}

#[test]
fn what_cannot_be_trained_is_named() {
    let (text, messages, none) = (Format::Text, Format::Messages, Control::None);
    let turn = |role: &str| format!(r#"{{"role": "{role}", "content": "c"}}"#);
    let all = |roles: &[&str]| {
        let turns: Vec<String> = roles.iter().map(|role| turn(role)).collect();
        format!(r#"{{"messages": [{}]}}"#, turns.join(", "))
    };
    check_error(
        text,
        none,
        r#"{"text": "just text"}"#,
        "row 1, question e3b0c44298fc1c14: no token",
    );
    check_error(Format::Plain, none, r#"{"text": "a"}"#, "the text has one at most");
    check_error(
        text,
        none,
        r#"{"text": "<|im_start|>user\nq<|im_end|>"}"#,
        "and then `<|im_start|>",
    );
    check_error(text, none, r#"{"question": "q"}"#, "no column `text`; it has: question");
    check_error(text, Control::Steps, r#"{"text": "t"}"#, "data.control rewrites questions");
    check_error(messages, none, &all(&["user"]), "no token would be trained");
    check_error(messages, none, &all(&[]), "no token would be trained");
    check_error(
        messages,
        none,
        &all(&["user", "user", "assistant"]),
        "row 1, question 2e7d2c03a9507ae2: message 2 is of role \"user\", not \"assistant\"",
    );
    check_error(
        messages,
        none,
        &all(&["system", "user", "assistant", "tool"]),
        "message 4 is of role \"tool\", not \"user\"",
    );
    check_error(
        Format::S1,
        none,
        r#"{"question": "q"}"#,
        "no thinking_trajectories, so no training",
    );
    check_error(Format::S1, none, "", "the table has no rows to train on");
}

/// A word-level tokenizer with ChatML's control tokens, in `folder`.
fn write_tokenizer(folder: &std::path::Path) {
    let words = ["user", "assistant", "think", "answer", "Answer:", "a", "b", "c"];
    let vocab: Vec<String> =
        words.iter().enumerate().map(|(i, w)| format!("\"{w}\": {i}")).collect();
    let added: Vec<String> = ["<|im_start|>", "<|im_end|>"]
        .iter()
        .enumerate()
        .map(|(i, name)| {
            format!(
                r#"{{"id": {}, "content": "{name}", "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true}}"#,
                100 + i
            )
        })
        .collect();
    let json = format!(
        r#"{{"version": "1.0", "added_tokens": [{}],
            "pre_tokenizer": {{"type": "WhitespaceSplit"}},
            "model": {{"type": "WordLevel", "unk_token": "c", "vocab": {{{}}}}}}}"#,
        added.join(","),
        vocab.join(",")
    );
    fs::write(folder.join("tokenizer.json"), json).unwrap();
    let template = r#"{"chat_template": "<|im_start|>user\n{{ q }}<|im_end|>\n"}"#;
    fs::write(folder.join("tokenizer_config.json"), template).unwrap();
}

#[test]
fn over_long_rows_are_truncated_dropped_or_refused_and_always_listed() {
    let folder = tempfile::tempdir().unwrap();
    write_tokenizer(folder.path());
    let chat = Chat::read(folder.path()).unwrap();
    let path = folder.path().join("examples.jsonl");
    let row = |trace: &str| {
        format!(
            r#"{{"question": "a {trace}", "cot_type": "math", "source_type": "t", "metadata": "",
                "thinking_trajectories": ["{trace}"], "attempt": "b"}}"#
        )
        .replace('\n', " ")
    };
    // Around the trace: im_start user a … im_end im_start assistant | im_start think …
    // im_start answer Answer: b im_end, with the trace once on either side.
    fs::write(&path, [row("b"), row("b b b b"), row("b b")].join("\n")).unwrap();
    let read = |block_size, over_long| {
        let data = data(&path, Format::S1, Control::None);

        Examples::read(&Data { block_size, over_long, ..data }, &chat, false)
    };
    let lengths = |found: &Examples| -> Vec<usize> {
        found.examples.iter().map(|example| example.ids.len()).collect()
    };
    let whole = read(64, OverLong::Error).unwrap();
    assert_eq!(lengths(&whole), [15, 21, 17]);
    assert_eq!((whole.tokens(), whole.trained_tokens()), (53, 53 - 7 - 10 - 8));
    assert!(whole.over_long.is_empty());

    let cut = read(17, OverLong::Truncate).unwrap();
    assert_eq!(lengths(&cut), [15, 17, 17]);
    assert!(cut.over_long[0].starts_with("truncated ") && cut.over_long[0].contains("row 2"));

    let dropped = read(17, OverLong::Drop).unwrap();
    assert_eq!((lengths(&dropped), dropped.rows), (vec![15, 17], 3));
    assert!(
        dropped.over_long[0].contains("21 tokens, block_size is 17"),
        "{:?}",
        dropped.over_long
    );

    for (block_size, over_long, expected) in [
        (17, OverLong::Error, "row 2"),
        (17, OverLong::Error, "raise it, or set over_long to truncate or drop"),
        (8, OverLong::Truncate, "no token would be trained"),
        (3, OverLong::Drop, "every row was dropped"),
    ] {
        let text = format!("{:#}", read(block_size, over_long).unwrap_err());
        assert!(text.contains(expected), "{text:?} lacks {expected:?}");
    }
}

fn row(question: &str) -> Row {
    Row {
        question: question.into(),
        thinking_trajectories: vec!["t".into()],
        attempt: Some("a".into()),
        ..Row::default()
    }
}

/// The table's rows as `file: row`, the questions, and the paths in the manifest.
fn rows_of(examples: &str) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let data = data(Path::new(examples), Format::S1, Control::None);
    let table = Table::read(&data)?;
    let folderless = |place: String| {
        let place = place.split(", question").next().unwrap().to_string();
        place.rsplit('/').next().unwrap().to_string()
    };
    let rows = (0..table.len()).map(|row| folderless(table.place(row))).collect();
    let inputs = Examples::read(&data, &chat(), false)?.inputs()?;
    Ok((rows, inputs.into_iter().map(|input| input.path).collect()))
}

#[test]
fn a_folder_is_its_training_split() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set");
    let write = |name: &str, questions: &[&str]| {
        let file = path.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        write_rows(&file, &questions.iter().map(|q| row(q)).collect::<Vec<_>>()).unwrap();
    };
    let place = path.display().to_string();
    write("data/train-00001-of-00002.parquet", &["c"]);
    write("data/test-00000-of-00001.parquet", &["x"]);
    let error = format!("{:#}", rows_of(&place).unwrap_err());
    assert!(error.contains("1 files where their names tell of 2"), "{error}");
    write("data/train-00000-of-00002.parquet", &["a", "b"]);
    let (rows, inputs) = rows_of(&place).unwrap();
    let parts = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"];
    let expected = [(0, 1), (0, 2), (1, 1)].map(|(n, row)| format!("{}: row {row}", parts[n]));
    assert_eq!(rows, expected);
    assert_eq!(inputs, parts.map(|name| format!("{place}: {name}")));
    write("socratic/train-00000-of-00001.parquet", &["y"]);
    let error = format!("{:#}", rows_of(&place).unwrap_err());
    assert!(error.contains("several folders, data, socratic: which is meant?"), "{error}");
    fs::remove_dir_all(&path).unwrap();
    write("b.parquet", &["b"]);
    write("a.parquet", &["a"]);
    assert_eq!(rows_of(&place).unwrap().0, ["a.parquet: row 1", "b.parquet: row 1"]);
    fs::remove_dir_all(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = format!("{:#}", rows_of(&place).unwrap_err());
    assert!(error.contains("there is no Parquet file in it"), "{error}");
    for (examples, expected) in [
        ("none/s1.parquet", "none/s1.parquet: No such file"),
        ("../none", "`../none` is neither a file or folder here nor a hub repository"),
    ] {
        let error = format!("{:#}", rows_of(examples).unwrap_err());
        assert!(error.contains("data.examples") && error.contains(expected), "{error}");
    }
}

/// Answers one connection's requests as the hub does: ranges, commit and etag in the headers.
fn serve(stream: TcpStream, files: &BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_ascii_lowercase()),
            }
        }
        let path = lines[0].split(' ').nth(1).unwrap_or_default();
        let first = lines.iter().any(|line| line == "range: bytes=0-0");
        let (head, body) = match files.get(path) {
            Some(body) if path.starts_with("/api/") => ("HTTP/1.1 200 OK".to_string(), &body[..]),
            Some(body) => {
                let range = if first { 0 } else { body.len() - 1 };
                let status = if first { "206 Partial" } else { "200 OK" };
                let head = format!(
                    "HTTP/1.1 {status}\r\nETag: \"{}\"\r\nX-Repo-Commit: 0123abcd\r\n\
                     Content-Range: bytes 0-{range}/{}",
                    body.len(),
                    body.len()
                );
                (head, &body[..=range])
            }
            None => ("HTTP/1.1 404 Not Found".to_string(), &[][..]),
        };
        let head = format!("{head}\r\nContent-Length: {}\r\n\r\n", body.len());
        (&stream).write_all(head.as_bytes())?;
        (&stream).write_all(body)?;
    }
}

/// Not a test of its own: the body of the processes that `ask_hub` starts.
#[test]
fn child() {
    if let Ok(name) = std::env::var("HUB_TEST_NAME") {
        match rows_of(&name) {
            Ok((rows, inputs)) => println!("rows={rows:?} inputs={inputs:?}"),
            Err(error) => println!("error={error:#}"),
        }
    }
}

/// `rows_of(name)` in a process of its own, whose hub is at `port` and whose cache is `home`.
fn ask_hub(name: &str, home: &Path, port: u16) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env("HUB_TEST_NAME", name)
        .env("HF_HOME", home)
        .env("HF_ENDPOINT", format!("http://127.0.0.1:{port}"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answer = text.lines().find_map(|line| {
        let at = line.find("rows=").or_else(|| line.find("error="))?;
        Some(line[at..].to_string())
    });
    answer.unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn a_data_set_of_the_hub_is_downloaded_once_and_then_found_without_it() {
    let home = tempfile::tempdir().unwrap();
    let parquet: PathBuf = home.path().join("rows.parquet");
    write_rows(&parquet, &[row("a"), row("b")]).unwrap();
    let name = "train-00000-of-00001.parquet";
    let listing = format!(
        r#"{{"sha": "0123abcd", "siblings": [{{"rfilename": "README.md"}},
            {{"rfilename": "../train-x.parquet"}}, {{"rfilename": "data/{name}"}},
            {{"rfilename": "data/test-00000-of-00001.parquet"}}]}}"#
    );
    let files: BTreeMap<String, Vec<u8>> = [
        ("/api/datasets/simple/set/revision/v1".to_string(), listing.into_bytes()),
        (format!("/datasets/simple/set/resolve/v1/data/{name}"), fs::read(&parquet).unwrap()),
    ]
    .into();
    let files = Arc::new(files);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let files = files.clone();
            std::thread::spawn(move || serve(stream, &files));
        }
    });
    let expected =
        format!(r#"rows=["{name}: row 1", "{name}: row 2"] inputs=["simple/set@v1: {name}"]"#);
    assert_eq!(ask_hub("simple/set@v1", home.path(), port), expected);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(ask_hub("simple/set@v1", home.path(), nobody), expected);
    let text = ask_hub("simple/other", home.path(), nobody);
    assert!(text.contains("downloading simple/other@main from the Hugging Face hub"), "{text}");
}
