//! The books: one verdict for every row, and a fault is found.

use curate::funnel::{Funnel, Reason, Stage, adds_up};

#[track_caller]
fn check(selected: &[usize], dropped: &[usize], expected: Result<(), &str>) {
    let result = adds_up(3, selected.iter().copied(), dropped.iter().copied());
    match (result, expected) {
        (Ok(()), Ok(())) => {}
        (Err(error), Err(part)) if error.to_string().contains(part) => {}
        (result, expected) => panic!("{result:?}, expected {expected:?}"),
    }
}

#[test]
fn every_row_has_one_verdict() {
    check(&[1], &[0, 2], Ok(()));
    check(&[], &[2, 0, 1], Ok(()));
    check(&[1], &[0], Err("pool row 3 left it with 0 verdicts"));
    check(&[1], &[0, 1, 2], Err("pool row 2 left it with 2 verdicts"));
    check(&[1, 3], &[0, 2], Err("row 4 of 3"));
}

#[test]
fn stages_count_what_they_drop() {
    let mut funnel = Funnel::new(4);
    let drop = |yes: bool| yes.then(|| Reason::new("cause", "detail"));
    funnel.apply(Stage::Deduplicate, [false, true, false, true].map(drop).to_vec());
    funnel.apply(Stage::Difficulty, [true, false].map(drop).to_vec());
    assert_eq!(funnel.kept, [2]);
    let left: Vec<_> = funnel.dropped.iter().map(|d| (d.row, d.stage.name())).collect();
    assert_eq!(left, [(1, "deduplicate"), (3, "deduplicate"), (0, "difficulty")]);
    let counts: Vec<_> = funnel.counts.iter().map(|c| (c.rows_in, c.dropped, c.kept)).collect();
    assert_eq!(counts, [(4, 2, 2), (2, 1, 1)]);
}
