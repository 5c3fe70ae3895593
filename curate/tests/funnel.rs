//! The books: one verdict for every row, and a fault is found.

use curate::funnel::{Funnel, Stage, adds_up};
use record::row::{Lineage, Row};

/// A lineage written as `row stage`, and the selected questions, `q` and the number of the row.
#[track_caller]
fn check(lineage: &[(i64, &str)], selected: &[&str], expected: Result<(), &str>) {
    let question = |row: i64| Row { question: format!("q{row}"), ..Row::default() };
    let lineage = lineage.iter().map(|&(row, stage)| {
        let question_hash = question(row).hash();
        Ok(Lineage { row, question_hash, stage: stage.to_string(), ..Lineage::default() })
    });
    let selected = selected.iter().map(|q| Ok(Row { question: q.to_string(), ..Row::default() }));
    let result = adds_up(3, lineage, selected).map(|_| ()).map_err(|error| format!("{error:#}"));
    match (&result, expected) {
        (Ok(()), Ok(())) => {}
        (Err(error), Err(part)) if error.contains(part) => {}
        (result, expected) => panic!("{result:?}, expected {expected:?}"),
    }
}

#[test]
fn every_row_has_one_verdict() {
    let whole = [(1, "deduplicate"), (2, "selected"), (3, "diversity")];
    check(&whole, &["q2"], Ok(()));
    check(&[(1, "selected"), (2, "selected"), (3, "selected")], &["q1", "q2", "q3"], Ok(()));
    check(&whole[..2], &["q2"], Err("2 of 3 rows have a verdict"));
    check(&whole[1..], &["q2"], Err("row 2 in the place of row 1"));
    check(&[whole[0], whole[1], whole[1]], &["q2", "q2"], Err("row 2 in the place of row 3"));
    check(&[(1, "colour")], &[], Err("row 1: `colour` is no stage"));
    check(&whole, &[], Err("but no row stands in its place"));
    check(&whole, &["q3"], Err("is selected, but"));
    check(&whole, &["q2", "q3"], Err("without a verdict"));
}

#[test]
fn stages_and_rules_count_what_they_drop() {
    let mut funnel = Funnel::default();
    for (stage, reason) in [
        (Some(Stage::Deduplicate), "same"),
        (Some(Stage::Patterns), "a; b"),
        (None, "drawn"),
        (Some(Stage::Patterns), "b"),
        (Some(Stage::Diversity), "not drawn"),
    ] {
        funnel.book(stage, reason);
    }
    let counts = funnel.counts([Stage::Deduplicate, Stage::Patterns, Stage::Diversity]);
    let counts: Vec<_> = counts.iter().map(|c| (c.rows_in, c.dropped, c.kept)).collect();
    assert_eq!(counts, [(5, 1, 4), (4, 2, 2), (2, 1, 1)]);
    assert_eq!((funnel.rows_in, funnel.selected), (5, 1));
    let rules: Vec<_> = funnel.rules(Stage::Patterns).into_iter().collect();
    assert_eq!(rules, [("a", 1), ("b", 2)]);
}
