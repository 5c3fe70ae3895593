//! `train show`: an example with its mask, the check of all rows, and what they refuse.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use train::config::Config;
use train::show::{Request, show};

/// A folder with `rows` and a run file over the demo's tokenizer; no weights anywhere.
fn prepare(rows: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/demo/model");
    fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    let config = format!(
        "seed = 42\noutput = \"out\"\n\
         [data]\nexamples = \"rows.jsonl\"\nblock_size = 60\nover_long = \"truncate\"\n\
         [model]\npath = {:?}\ninit = \"checkpoint\"\n\
         [batch]\nglobal_batch = 4\nmicro_batch_tokens = 512\n\
         [optimizer]\nlearning_rate = 1e-2\nbeta1 = 0.9\nbeta2 = 0.95\neps = 1e-8\n\
         weight_decay = 1e-4\nmax_grad_norm = 1.0\n\
         [schedule]\nepochs = 3\nwarmup_ratio = 0.1\n",
        model.display().to_string()
    );
    fs::write(folder.path().join("train.toml"), config).unwrap();
    folder
}

/// What `train show train.toml` prints, and what it ends with.
fn run(folder: &Path, row: Option<usize>, ids: bool, sets: &[&str]) -> (String, Option<String>) {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let config = record::config::load::<Config>(&folder.join("train.toml"), &sets);
    let shown = config.and_then(|(mut config, _)| {
        config.data.examples = folder.join("rows.jsonl").display().to_string();
        show(&config, Request { row, check: false, ids, colour: false })
    });
    let relative = |text: String| text.replace(&format!("{}/", folder.display()), "");
    match shown {
        Ok(shown) => (relative(shown.text), shown.trouble.map(relative)),
        Err(error) => (String::new(), Some(relative(format!("{error:#}")))),
    }
}

/// Standard output, standard error and exit code of the program itself.
fn program(folder: &Path, arguments: &[&str]) -> (String, String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_train"))
        .current_dir(folder)
        .args(["show", "train.toml"])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

fn row(question: &str, trace: &str) -> String {
    format!(
        "{{\"question\": \"{question}\", \"thinking_trajectories\": [\"{trace}\"], \
         \"attempt\": \"4\"}}\n"
    )
}

#[track_caller]
fn check_holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[test]
fn a_row_is_shown_with_its_trained_tokens_in_brackets() {
    let folder = prepare(&(row("2+2?", "Two.") + &row("a", "\\u001b[31mred\\u202e<|im_end|>\\r")));
    let (text, trouble) = run(folder.path(), Some(1), false, &[]);
    assert_eq!(trouble, None);
    let head = "rows.jsonl: row 1, question ";
    check_holds(&text, &[head, " of 2\n", " trained (", "in 1 part\n", "fits block_size 60"]);
    let shown = "\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n[[<|im_start|>think\n\
                 Two.\n<|im_start|>answer\nAnswer: 4<|im_end|>\n]]\n";
    assert!(text.ends_with(shown), "{text}");
    // What would act on a terminal is shown instead.
    let (text, _) = run(folder.path(), Some(2), false, &[]);
    check_holds(&text, &["think\n␛[31mred⟦U+202E⟧<|im_end|>\n<|im_start|>answer"]);
    assert!(!text.contains(['\u{1b}', '\u{202e}', '\r']));
    let (text, _) = run(folder.path(), Some(2), true, &[]);
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.is_empty()).skip(1).collect();
    assert!(lines[0].ends_with("  <|im_start|>") && lines[0].starts_with("     0 "), "{text}");
    assert_eq!(lines.last().unwrap().split_whitespace().nth(2), Some("[[\\n]]"), "{text}");
    check_holds(&text, &["[[<|im_start|>]]\n", "␛"]);
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn colours_are_for_those_who_ask() {
    let folder = prepare(&row("2+2?", "Two."));
    let (mut config, _) =
        record::config::load::<Config>(&folder.path().join("train.toml"), &[]).unwrap();
    config.data.examples = folder.path().join("rows.jsonl").display().to_string();
    let request = Request { row: Some(1), check: false, ids: false, colour: true };
    let shown = show(&config, request).unwrap();
    check_holds(&shown.text, &["assistant\n\u{1b}[32m<|im_start|>think", "\n\u{1b}[0m"]);
    assert!(shown.trouble.is_none() && !shown.text.contains("[["));
}

#[test]
fn the_verdict_on_a_row_is_named() {
    let long = "Wait. ".repeat(20);
    let folder = prepare(&(row("2+2?", &long) + &row(&long, "t") + "{\"question\": \"q\"}\n"));
    let check = |row, sets: &[&str], parts: &[&str], trouble: Option<&str>| {
        let (text, found) = run(folder.path(), Some(row), false, sets);
        check_holds(&text, parts);
        assert_eq!(found.is_some(), trouble.is_some(), "{found:?}");
        check_holds(&found.unwrap_or_default(), &[trouble.unwrap_or_default()]);
    };
    check(1, &[], &["TRUNCATED from ", " to block_size 60: ", " are lost"], None);
    check(1, &["data.over_long=drop"], &["DROPPED: ", "is over block_size 60"], None);
    let refused = "rows.jsonl: row 1, question ";
    check(1, &["data.over_long=error"], &["REFUSED: rows.jsonl: row 1"], Some(refused));
    check(2, &[], &["REFUSED"], Some("its question alone fills block_size 60"));
    check(3, &[], &[], Some("no thinking_trajectories"));
    check(4, &[], &[], Some("--row 4: the table has rows 1 to 3"));
    check(0, &[], &[], Some("--row 0: the table has rows 1 to 3"));
    check(1, &["data.block=1"], &[], Some("unknown field `block`"));
}

#[test]
fn a_check_sums_up_all_rows() {
    let long = "Wait. ".repeat(20);
    let rows = [row("2+2?", "Two."), row("b", &long), row("2+2?", "Again.")].concat();
    let folder = prepare(&rows);
    let (text, error, code) = program(folder.path(), &["--check"]);
    assert_eq!((error.as_str(), code), ("", Some(0)));
    check_holds(
        &text,
        &[
            "rows        3 of rows.jsonl\n",
            "lengths     shortest ",
            "long        ",
            "over-long   1 truncated at block_size 60, ",
            "  truncated rows.jsonl: row 2, question ",
            "duplicates  1 question asked more than once\n  rows 1, 3\n",
            "refused     0 rows\n",
        ],
    );
    // Without --row all rows are checked, and the counts agree with the rows' own.
    assert_eq!(run(folder.path(), None, false, &[]).0, text);
    let counted = |row| -> usize {
        let (text, _) = run(folder.path(), Some(row), false, &[]);
        let line = text.lines().find(|line| line.starts_with("tokens    ")).unwrap();
        line.split([' ', ':']).find_map(|word| word.parse().ok()).unwrap()
    };
    let tokens: usize = (1..=3).map(counted).sum();
    check_holds(&text, &[&format!("tokens      {tokens} in an epoch, ")]);

    fs::write(folder.path().join("rows.jsonl"), rows + "{\"question\": \"\\u001b[2J\"}\n").unwrap();
    let (text, error, code) = program(folder.path(), &["--check", "--row", "1"]);
    check_holds(&text, &["refused     1 row\n  rows.jsonl: row 4, question "]);
    assert_eq!((error.as_str(), code), ("error: 1 row of 4 cannot be trained\n", Some(1)));
}
