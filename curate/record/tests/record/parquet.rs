//! Parquet as other tools write it, and damaged.

use std::fs;

use record::row::Row;
use record::table::{passed_over, read_rows, read_texts, write_rows};

use crate::{error_text, fixture, full_row, pool_row};

/// The rows that tests/oracle/parquet_fixtures.py wrote with many tools.
fn expected() -> Vec<Row> {
    let some = |text: &str| Some(text.to_owned());
    vec![
        Row {
            solution: some("It is 4."),
            question: "What is 2+2?".into(),
            cot_type: "math".into(),
            source_type: "qfq/quant".into(),
            metadata: "{'level': 5}".into(),
            thinking_trajectories: vec!["Two and two.".into()],
            attempt: some("Answer: 4"),
            domain: some("Number theory"),
            isgeminicorrect: Some(true),
            isqwen7bcorrect: Some(false),
            isqwen32bcorrect: Some(false),
            gemini_length: Some(120),
            ..Row::default()
        },
        Row {
            question: "How many r in raspberry".into(),
            cot_type: "english".into(),
            source_type: "Idavidrein/gpqa".into(),
            metadata: "{}".into(),
            thinking_trajectories: vec!["r, r, r".into()],
            isqwen32bcorrect: Some(false),
            ..Row::default()
        },
        Row {
            solution: some("x\u{2028}y"),
            question: "naïve – 多少?".into(),
            cot_type: "science".into(),
            source_type: "qfq/quant".into(),
            metadata: "None".into(),
            thinking_trajectories: vec!["first\n".into(), "second".into()],
            attempt: some("Answer: 7"),
            domain: some("Geometry"),
            isgeminicorrect: Some(false),
            isqwen7bcorrect: Some(false),
            isqwen32bcorrect: Some(true),
            gemini_length: Some(31000),
            ..Row::default()
        },
    ]
}

#[track_caller]
fn check(name: &str, expected: &[Row]) {
    assert_eq!(read_rows(&fixture(name)).unwrap(), expected, "{name}");
}

#[track_caller]
fn check_error(name: &str, expected: &str) {
    let path = fixture(name);
    assert_eq!(error_text(read_rows(&path), path.parent().unwrap()), expected);
}

#[test]
fn the_same_rows_from_every_tool() {
    check("datasets.parquet", &expected());
    check("pandas.parquet", &expected());
    check("pandas_category_gzip.parquet", &expected());
    check("polars.parquet", &expected());
    check("polars_categorical_snappy.parquet", &expected());
    check("string_zstd.parquet", &expected());
    check("large_string.parquet", &expected());
    check("string_view.parquet", &expected());
    check("dictionary.parquet", &expected());
    check("float_length.parquet", &expected());
    check("binary.parquet", &expected());
    check("old_spellings.parquet", &expected());
}

#[test]
fn s1k_11_gives_deepseeks_trace_and_attempt() {
    let rows = expected().into_iter().enumerate().map(|(index, row)| Row {
        thinking_trajectories: vec![format!("deepseek thinks {index}")],
        attempt: Some(format!("deepseek answers {index}")),
        domain: None,
        isgeminicorrect: Some(index != 1),
        isqwen7bcorrect: None,
        isqwen32bcorrect: None,
        gemini_length: None,
        ..row
    });
    check("s1k_11.parquet", &rows.collect::<Vec<_>>());
    assert_eq!(
        passed_over(&fixture("s1k_11.parquet")).unwrap(),
        [
            "gemini_thinking_trajectory",
            "gemini_attempt",
            "gemini_grade",
            "gemini_grade_reason",
            "deepseek_grade_reason",
        ]
    );
    assert!(passed_over(&fixture("datasets.parquet")).unwrap().is_empty());
}

#[test]
fn a_question_is_enough() {
    let rows = expected().into_iter().map(|row| Row { question: row.question, ..Row::default() });
    check("only_a_question.parquet", &rows.collect::<Vec<_>>());
    let texts = read_texts(&fixture("datasets.parquet"), "source_type").unwrap();
    assert_eq!(texts, ["qfq/quant", "Idavidrein/gpqa", "qfq/quant"]);
}

#[test]
fn errors_name_row_and_column() {
    check_error(
        "null_question.parquet",
        "null_question.parquet: row 17, column `question`: null; every row needs a question",
    );
    check_error(
        "half_length.parquet",
        "half_length.parquet: row 1, column `gemini_length`: 1.5 where a whole number from 0 on is expected",
    );
    check_error(
        "text_length.parquet",
        "text_length.parquet: column `gemini_length` is Utf8 where a whole number from 0 on is expected",
    );
    let path = fixture("only_a_question.parquet");
    assert_eq!(
        error_text(read_texts(&path, "problem"), path.parent().unwrap()),
        "only_a_question.parquet: no column `problem`; it has: id, question, nested, when"
    );
}

/// Any damage is rows or an error, never a panic; and the error names the file.
#[test]
fn damaged_files_are_errors() {
    let whole = fs::read(fixture("string_zstd.parquet")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pool.parquet");
    let mut errors = 0;
    let mut rng = record::seed::rng(0, &["damaged parquet"]);
    let cuts = (0..whole.len()).step_by(256).map(|end| whole[..end].to_vec());
    let flips: Vec<Vec<u8>> = (0..600)
        .map(|_| {
            let mut bytes = whole.clone();
            for _ in 0..=rng.below(3) {
                bytes[rng.below(whole.len() as u64) as usize] = rng.next_u64() as u8;
            }
            bytes
        })
        .collect();
    for bytes in cuts.chain(flips) {
        fs::write(&file, bytes).unwrap();
        if let Err(error) = read_rows(&file) {
            errors += 1;
            assert!(format!("{error:#}").contains("pool.parquet"), "{error:#}");
        }
    }
    assert!(errors > 200, "{errors} of 600 damaged files were noticed");
}

/// More text than one row group holds comes back in order.
#[test]
fn many_row_groups() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pool.parquet");
    let long = "z".repeat(40 << 20);
    let rows: Vec<Row> = (0..5)
        .map(|index| Row { solution: Some(format!("{index}{long}")), ..pool_row("q") })
        .chain([full_row()])
        .collect();
    write_rows(&file, &rows).unwrap();
    // Not assert_eq: nobody wants to read 200 MB.
    assert!(read_rows(&file).unwrap() == rows);
}
