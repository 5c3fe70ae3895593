//! What people ask of a published folder: `why`, `diff`, `show`, the report and the data card.

use std::path::{Path, PathBuf};

use curate::outcome::Outcome;
use curate::{card, diff, report_page, show, why};
use record::question::question_hash;
use record::row::{Lineage, Row};
use record::table::{create_lineage, write_rows};
use tempfile::TempDir;

/// A text that would take over a page or a terminal.
const HOSTILE: &str = "</pre><script>alert(1)</script>\u{1b}]0;owned\u{7} | `x` \u{202e}";

const STAGES: [&str; 3] = ["deduplicate", "difficulty", "diversity"];

fn row(number: i64, question: &str, stage: &str, reason: &str) -> Lineage {
    Lineage {
        row: number,
        question_hash: question_hash(question),
        source_type: "lab/physics/mechanics".to_string(),
        cot_type: "science".to_string(),
        question: question.to_string(),
        domain: Some("Mechanics".to_string()),
        gemini_length: Some(1000 - number),
        isgeminicorrect: Some(number % 2 == 0),
        stage: stage.to_string(),
        reason: reason.to_string(),
        ..Lineage::default()
    }
}

fn picked(number: i64, question: &str, rank: i64, draw: i64) -> Lineage {
    Lineage {
        rank: Some(rank),
        phase: Some("uniform".to_string()),
        draw: Some(draw),
        ..row(number, question, "selected", "picked")
    }
}

fn found(row: Lineage, evidence: &str) -> Lineage {
    Lineage { evidence: Some(evidence.to_string()), ..row }
}

/// Six rows: two selected, one of them with a copy, two lost on the way, one not drawn.
fn rows() -> Vec<Lineage> {
    vec![
        picked(1, "a falling stone", 0, 2),
        found(row(2, "a falling stone", "deduplicate", "same question text"), "as pool row 1"),
        row(3, "an easy sum", "difficulty", "solved by 7B; solved by 32B"),
        found(row(4, "another easy sum", "difficulty", "solved by 32B"), HOSTILE),
        Lineage { rank: Some(2), ..row(5, "a swinging rod", "diversity", "not drawn") },
        picked(6, HOSTILE, 1, 1),
    ]
}

/// An output folder as far as its readers look.
fn publish(folder: &Path, rows: &[Lineage]) {
    std::fs::create_dir_all(folder).unwrap();
    let mut lineage = create_lineage(&folder.join("lineage.parquet")).unwrap();
    rows.iter().for_each(|row| lineage.push(row.clone()).unwrap());
    lineage.finish().unwrap();
    let selected = rows.iter().filter(|row| row.stage == "selected");
    let selected: Vec<Row> = selected
        .map(|row| Row {
            question: row.question.clone(),
            thinking_trajectories: vec![format!("thinking about {}", row.row)],
            attempt: Some("42".to_string()),
            ..Row::default()
        })
        .collect();
    write_rows(&folder.join("selected.parquet"), &selected).unwrap();
    let mut left = rows.len();
    let stages = STAGES.map(|stage| {
        let rows_in = left;
        let dropped = rows.iter().filter(|row| row.stage == stage).count();
        left -= dropped;
        serde_json::json!({
            "stage": stage, "rows_in": rows_in, "dropped": dropped, "kept": left
        })
    });
    let funnel = serde_json::json!({ "stages": stages, "notes": [HOSTILE] });
    std::fs::write(folder.join("funnel.json"), funnel.to_string()).unwrap();
    let manifest = serde_json::json!({ "config": { "seed": 42, "note": HOSTILE } });
    std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
}

fn published(rows: &[Lineage]) -> (TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("out");
    publish(&folder, rows);
    (temp, folder)
}

/// The text, which must not steer a terminal.
#[track_caller]
fn calm(text: String) -> String {
    let acts = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!text.contains(acts), "{text:?}");
    text
}

#[track_caller]
fn check_why(folder: &Path, id: &str, expected: &[&str]) {
    let args = why::Args { folder: folder.to_path_buf(), id: id.to_string() };
    let text = match why::run(&args) {
        Ok(text) => calm(text),
        Err(error) => format!("{error:#}"),
    };
    // Spaces stand for any number of them.
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in expected {
        assert!(words.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn why_tells_the_whole_way() {
    let (_temp, folder) = published(&rows());
    let easy = question_hash("an easy sum");
    check_why(
        &folder,
        &easy,
        &[
            "row 3 of 6",
            "deduplicate passed difficulty DROPPED: solved by 7B; solved by 32B",
            "solved by 32B diversity not reached",
            "997 tokens; the teacher's answer is wrong",
            "question an easy sum",
        ],
    );
    check_why(&folder, &easy.to_uppercase()[..6], &["row 3 of 6"]);
    check_why(
        &folder,
        "row:5",
        &[
            "diversity DROPPED: not drawn",
            "Mechanics: 3 candidates, 2 selected; this one has rank 2 (0 is the longest trace)",
            "0 999 2 uniform adb62e262f5dbafc a falling stone",
        ],
    );
    check_why(
        &folder,
        &question_hash("a falling stone"),
        &["diversity passed selected uniform, pick 2", "DROPPED: same question text as pool row 1"],
    );
    check_why(&folder, "row:6", &["⟦U+202E⟧", "␛]0;owned␇"]);
    check_why(&folder, "row:4", &["DROPPED: solved by 32B </pre>"]);

    check_why(&folder, "row:7", &["has no question row:7 among its 6 rows"]);
    check_why(&folder, "row:0", &["the first row is 1"]);
    check_why(&folder, "abc", &["no question's id: give 4 to 16"]);
    check_why(&folder, "xyzw", &["no question's id"]);
    check_why(folder.parent().unwrap(), "row:1", &["cannot read", "funnel.json", "curate run"]);
}

#[test]
fn one_token_and_no_picks_read_well() {
    let mut rows = rows();
    rows[2].gemini_length = Some(1);
    rows[4].domain = Some("Optics".to_string());
    let (_temp, folder) = published(&rows);
    check_why(&folder, "row:3", &["trace 1 token;"]);
    let alone = "Optics: 1 candidates, 0 selected; this one has rank 2 (0 is the longest trace) \
                 question";
    check_why(&folder, "row:5", &[alone]);
}

#[test]
fn why_refuses_digits_of_two_questions() {
    let mut rows = rows();
    rows[2].question_hash = "abcd000000000000".to_string();
    rows[3].question_hash = "abcd000000000001".to_string();
    let (_temp, folder) = published(&rows);
    check_why(&folder, "abcd", &["begins more than one hash", "abcd000000000001: give more"]);
    check_why(&folder, "abcd000000000001", &["row 4 of 6"]);
}

#[track_caller]
fn check_diff(a: &Path, b: &Path, expected: &[&str]) {
    let args = diff::Args { a: a.to_path_buf(), b: b.to_path_buf(), rows: 1 };
    let text = calm(diff::run(&args).unwrap());
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in expected {
        assert!(words.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn diff_says_why_each_was_lost() {
    let (temp, a) = published(&rows());
    let b = temp.path().join("b");
    let mut others = rows();
    others.swap(0, 1);
    others[1] = Lineage { rank: Some(0), ..row(2, "a falling stone", "diversity", "not drawn") };
    others[4] = picked(5, "a swinging rod", 2, 1);
    others.remove(5);
    publish(&b, &others);

    check_diff(&a, &a, &["in both 2", "nothing is only in A", "nothing is only in B"]);
    check_diff(
        &a,
        &b,
        &[
            "out 2 2",
            "b 1 1",
            "in both 0",
            "only in A: 2, which B lost so rows in B 1 diversity: not drawn 1 not in B's pool",
            "and 1 more; --rows 0 lists all",
            "only in B: 1, which A lost so rows in A 1 diversity: not drawn",
        ],
    );
    check_diff(&a, &b.join("selected.parquet"), &["only in A: 2", "2 absent", "only in B: 1"]);

    // A released table may withhold texts and give their hashes alone.
    let withheld = serde_json::json!({
        "question": null, "question_hash": question_hash("a falling stone"), "source_type": "lab"
    });
    let table = a.join("withheld.jsonl");
    std::fs::write(&table, withheld.to_string()).unwrap();
    check_diff(&a, &table, &["in both 1", "only in A: 1", "nothing is only in B"]);
}

#[track_caller]
fn check_show(folder: &Path, id: Option<&str>, stage: &str, rows: usize, expected: &[&str]) {
    let (id, stage) = (id.map(str::to_string), stage.to_string());
    let text = match show::run(&show::Args { folder: folder.to_path_buf(), id, stage, rows }) {
        Ok(text) => calm(text),
        Err(error) => format!("{error:#}"),
    };
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in expected {
        assert!(words.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn show_lists_and_opens() {
    let (_temp, folder) = published(&rows());
    let (one, six) = ("a falling stone uniform", "</pre><script>");
    check_show(&folder, None, "selected", 0, &["row hash tokens", one, six]);
    check_show(&folder, None, "selected", 1, &[one, "and 1 more; --rows 0 lists all"]);
    check_show(&folder, None, "difficulty", 20, &["an easy sum solved by 7B; solved by 32B"]);
    check_show(
        &folder,
        None,
        "easy",
        20,
        &["no stage \"easy\"", "difficulty, diversity, selected"],
    );
    let whole =
        ["question a falling stone", "trace thinking about 1", "answer 42", "solution none"];
    check_show(&folder, Some("row:1"), "selected", 20, &whole);
    check_show(&folder, Some(&question_hash("a falling stone")), "selected", 20, &whole);
    let lost = ["question an easy sum", "not selected (difficulty: solved by 7B", "`curate why "];
    check_show(&folder, Some("row:3"), "selected", 20, &lost);
}

#[test]
fn the_outcome_counts_every_row_once() {
    let (_temp, folder) = published(&rows());
    let outcome = Outcome::read(&folder).unwrap();
    let all = &outcome.all;
    assert_eq!((all.pool, all.candidates, all.selected, all.tokens), (6, 3, 2, 1993));
    assert_eq!(outcome.domains["Mechanics"], *all);
    assert_eq!(outcome.sources["lab/physics"], *all);
    assert_eq!(outcome.lengths, (vec![994, 995, 999], vec![994, 999]));
    let rule = |stage: &str, rule: &str| outcome.rules[&(stage.to_string(), rule.to_string())];
    assert_eq!(rule("difficulty", "solved by 32B"), 2, "rules count one by one");
    assert_eq!(rule("difficulty", "solved by 7B"), 1);
    assert_eq!(outcome.phases["uniform"], 2);
    assert_eq!((outcome.grades[&Some(true)], outcome.grades[&Some(false)]), (1, 1));
}

#[test]
fn samples_do_not_depend_on_the_order_of_rows() {
    let many: Vec<Lineage> =
        (1..=40).map(|n| row(n, &format!("question {n}"), "diversity", "not drawn")).collect();
    let (_temp, there) = published(&many);
    let (_temp, back) = published(&many.iter().rev().cloned().collect::<Vec<_>>());
    let [there, back] = [there, back].map(|folder| Outcome::read(&folder).unwrap().samples);
    assert_eq!(there, back);
    let first = many.iter().map(|row| &row.question_hash).min().unwrap();
    let samples = there.values().next().unwrap();
    assert_eq!((samples.len(), &samples.keys().next().unwrap().0), (3, first));
}

#[test]
fn the_report_shows_everything_and_runs_nothing() {
    let (_temp, folder) = published(&rows());
    let args = report_page::Args { folder: folder.clone(), ..report_page::Args::default() };
    let file = folder.join("report.html");
    assert_eq!(report_page::run(&args).unwrap(), format!("{}\n", file.display()));
    let html = std::fs::read_to_string(&file).unwrap();
    for part in
        ["2 of 6 questions", "59,029", "24,496", "solved by 7B", "&lt;script&gt;", "seed = 42"]
    {
        assert!(html.contains(part), "{part:?} is not in\n{html}");
    }
    for part in ["<script", "\u{1b}", "\u{202e}", "http:", "https:", "NaN"] {
        assert!(!html.contains(part), "{part:?} is in\n{html}");
    }
    report_page::run(&args).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), html, "the same bytes again");
    std::fs::write(&file, "older").unwrap();
    let error = report_page::run(&args).unwrap_err().to_string();
    assert!(error.contains("name a file"), "{error}");

    let note = folder.join("note.html");
    std::fs::write(&note, "mine").unwrap();
    let named = report_page::Args { file: Some(note.clone()), ..args };
    let error = report_page::run(&named).unwrap_err().to_string();
    assert!(error.contains("exists") && error.contains("--overwrite"), "{error}");
    assert_eq!(std::fs::read_to_string(&note).unwrap(), "mine");
    report_page::run(&report_page::Args { overwrite: true, ..named }).unwrap();
    assert_eq!(std::fs::read_to_string(&note).unwrap(), html);
}

#[test]
fn an_empty_set_has_pages_too() {
    let lost: Vec<Lineage> = (rows().into_iter()).filter(|row| row.stage == "difficulty").collect();
    for rows in [lost, Vec::new()] {
        let (_temp, folder) = published(&rows);
        let outcome = Outcome::read(&folder).unwrap();
        let html = report_page::html(&outcome, &toml::Table::new()).unwrap();
        assert!(html.contains("0 of ") && !html.contains("NaN"));
        assert!(card::card(&outcome, &toml::Table::new()).unwrap().contains("# 0 questions"));
    }
}

#[track_caller]
fn check_limits(grades: [Option<bool>; 2], expected: &str) {
    let mut rows = rows();
    (rows[0].isgeminicorrect, rows[5].isgeminicorrect) = (grades[0], grades[1]);
    let (_temp, folder) = published(&rows);
    let card = card::card(&Outcome::read(&folder).unwrap(), &toml::Table::new()).unwrap();
    assert!(card.contains(expected), "{card}");
}

#[test]
fn the_card_says_how_the_answers_were_graded() {
    check_limits([Some(true); 2], "2 are graded right, 0 wrong, and 0 have no grade.\n");
    check_limits([Some(false), None], "0 are graded right, 1 wrong, and 1 have no grade. A wrong");
}

#[test]
fn the_card_has_the_hubs_header_and_no_strangers_markup() {
    let (_temp, folder) = published(&rows());
    let mut outcome = Outcome::read(&folder).unwrap();
    let group = outcome.domains["Mechanics"].clone();
    outcome.domains.insert(HOSTILE.to_string(), group);
    let config: toml::Table = toml::from_str("note = \"```\\n# not a heading\"").unwrap();
    let card = card::card(&outcome, &config).unwrap();
    assert!(card.starts_with("---\nlanguage:\n- en\n"));
    let header = card.split("---\n").nth(1).unwrap();
    for part in ["- n<1K\n", "path: selected.parquet", "path: lineage.parquet", "default: true"] {
        assert!(header.contains(part), "{part:?} is not in\n{header}");
    }
    for part in ["| Mechanics | 2 | 100.0% | 1,993 | 6 |", "| difficulty | 5 | 2 | 3 |", "````toml"]
    {
        assert!(card.contains(part), "{part:?} is not in\n{card}");
    }
    for part in ["<script", "\u{1b}", "| `x`", "\u{202e}"] {
        assert!(!card.contains(part), "{part:?} is in\n{card}");
    }
}

#[track_caller]
fn check_completions(shell: &str) {
    let program = env!("CARGO_BIN_EXE_curate");
    let out = std::process::Command::new(program).args(["completions", shell]).output().unwrap();
    let script = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && script.contains("curate"), "{shell}");
    for command in ["run", "select", "why", "diff", "show", "report", "completions"] {
        assert!(script.contains(command), "{command} is missing for {shell}");
    }
}

#[test]
fn shells_complete_every_command() {
    ["bash", "elvish", "fish", "powershell", "zsh"].into_iter().for_each(check_completions);
}
