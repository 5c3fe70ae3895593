//! Quality, difficulty and exact duplicates, row by row.

use curate::config::Grade;
use curate::deduplicate::Seen;
use curate::difficulty::too_easy;
use curate::quality::{Columns, answered, complete, patterns};
use record::question::question_id;
use record::row::{Outline, Row};

#[track_caller]
fn check_patterns(source_type: &str, question: &str, expected: Option<&str>) {
    let row = Row {
        question: question.to_string(),
        source_type: source_type.to_string(),
        ..Row::default()
    };
    let reason = patterns(&Outline::from(&row), &["AIME".to_string()]).map(|reason| reason.text());
    assert_eq!(reason.as_deref(), expected, "{question:?} from {source_type}");
}

#[test]
fn string_patterns() {
    let check =
        |question, expected| check_patterns("simplescaling/openaimath/Algebra", question, expected);
    check("What is 2+2?", None);
    check("[asy] draw((0,0)--(1,1)); [/asy]", Some("[asy] diagram"));
    check("see ![Image](figure.png)", Some("![Image] link"));
    check("![image](figure.png)", None);
    check("see p12.", Some("problem number: p12."));
    check("p999.", Some("problem number: p999."));
    check("p1.", Some("problem number: p1."));
    check("a loop3. no, a loopp3.", Some("problem number: p3."));
    check("the map12. of", Some("problem number: p12."));
    check("P12. p0. p01. p1000. p12 . p. pp", None);
    check("p1000. and p7.", Some("problem number: p7."));
    check("**12**", Some("bold run before a digit: **12**"));
    check("**bold words 3**", None);
    check("**a** then 5", Some("bold run before a digit: **a**"));
    check("**a**\nthen 5", None);
    check("**abc**", None);
    check("**a]b** 5", None);
    check("****5", Some("bold run before a digit: ****"));
    check("***5", None);
    check("2**3 and 2**5", None);
    check("2**3**4", Some("bold run before a digit: **3**"));
    check("**un\u{1f}broken** 5", None);
    check("**open **a** 5", Some("bold run before a digit: **a**"));
    // Every rule that catches something is named, and so counted.
    check("p3. **4**", Some("problem number; bold run before a digit: p3.; **4**"));
    check("[asy] ![Image] p3.", Some("[asy] diagram; ![Image] link; problem number: p3."));
}

#[test]
fn diagrams_stay_in_aime() {
    check_patterns("qq8933/AIME_1983_2024", "[asy] x [/asy]", None);
    check_patterns("qq8933/AIME_1983_2024", "[asy] x [/asy] see p12.", None);
    check_patterns("qq8933/AIME_1983_2024", "see p12.", Some("problem number: p12."));
    check_patterns("baber/agieval", "[asy] x [/asy]", Some("[asy] diagram"));
}

/// A row that lacks nothing.
fn whole() -> Row {
    Row {
        question: "What is 2+2?".to_string(),
        thinking_trajectories: vec!["two and two".to_string()],
        attempt: Some("4".to_string()),
        domain: Some("Number theory".to_string()),
        isgeminicorrect: Some(false),
        isqwen7bcorrect: Some(false),
        isqwen32bcorrect: Some(false),
        gemini_length: Some(3),
        ..Row::default()
    }
}

#[track_caller]
fn check_missing(change: fn(&mut Row), expected: Option<&str>) {
    let mut row = whole();
    change(&mut row);
    let row = Outline::from(&row);
    let reason = answered(&row).or_else(|| complete(&row, true)).map(|reason| reason.text());
    assert_eq!(reason.as_deref(), expected);
}

#[test]
fn missing_answers_and_features() {
    check_missing(|_| {}, None);
    check_missing(|row| row.thinking_trajectories.clear(), Some("no thinking_trajectories"));
    let blank = |row: &mut Row| row.thinking_trajectories = vec!["\n ".to_string()];
    check_missing(blank, Some("no thinking_trajectories"));
    check_missing(|row| row.attempt = None, Some("no attempt"));
    check_missing(|row| row.domain = None, Some("no domain"));
    check_missing(|row| row.isgeminicorrect = None, Some("no isgeminicorrect"));
    check_missing(|row| row.gemini_length = None, Some("no gemini_length"));
    let ungraded = |row: &mut Row| (row.isqwen7bcorrect, row.isqwen32bcorrect) = (None, None);
    check_missing(ungraded, Some("no isqwen7bcorrect; no isqwen32bcorrect"));
    let mut row = whole();
    ungraded(&mut row);
    assert!(complete(&Outline::from(&row), false).is_none(), "grades are not required");
    assert_eq!(columns(&[row], true, false), Ok(()));
}

fn columns(rows: &[Row], features: bool, grades: bool) -> Result<(), String> {
    let mut columns = Columns::default();
    rows.iter().for_each(|row| columns.see(&Outline::from(row)));
    columns.check(features, grades).map_err(|error| error.to_string())
}

#[test]
fn a_column_that_no_row_has_is_an_error() {
    let without_domain = Row { domain: None, ..whole() };
    assert_eq!(columns(&[whole(), without_domain.clone()], true, true), Ok(()));
    let error = columns(std::slice::from_ref(&without_domain), true, true).unwrap_err();
    assert!(error.starts_with("no row has `domain`"), "{error}");
    assert_eq!(columns(&[without_domain], false, true), Ok(()));
    let without_attempt = Row { attempt: None, ..whole() };
    let error = columns(&[without_attempt], false, false).unwrap_err();
    assert!(error.starts_with("no row has `attempt`"), "{error}");
}

#[track_caller]
fn check_difficulty(small: bool, large: bool, rule: &[Grade], expected: Option<&str>) {
    let row = Row { isqwen7bcorrect: Some(small), isqwen32bcorrect: Some(large), ..whole() };
    let reason = too_easy(&Outline::from(&row), rule).map(|reason| reason.text());
    assert_eq!(reason.as_deref(), expected);
}

#[test]
fn solved_by_either_model_is_too_easy() {
    let both = &[Grade::IsQwen7bCorrect, Grade::IsQwen32bCorrect];
    check_difficulty(false, false, both, None);
    check_difficulty(true, false, both, Some("solved by the 7B model"));
    check_difficulty(false, true, both, Some("solved by the 32B model"));
    check_difficulty(true, true, both, Some("solved by the 7B model; solved by the 32B model"));
    check_difficulty(true, false, &[Grade::IsQwen32bCorrect], None);
    check_difficulty(true, true, &[], None);
}

#[test]
fn the_first_of_equal_questions_stays() {
    let questions = ["a", "b", "a", "A", "a ", "b", "a"];
    let mut seen = Seen::default();
    let reasons: Vec<String> = std::iter::zip(0.., questions)
        .map(|(row, text)| seen.judge(question_id(text), row))
        .map(|reason| reason.map_or("stays".to_string(), |reason| reason.detail))
        .collect();
    let (a, b) = ("as pool row 1", "as pool row 2");
    assert_eq!(reasons, ["stays", "stays", a, "stays", "stays", b, a]);
}
