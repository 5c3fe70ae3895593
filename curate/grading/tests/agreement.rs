//! How often we agree with the makers of public graders, and every disagreement with its reason.
//!
//! `disagreements.jsonl` holds the pairs on which we differ: the reference's verdict, ours, who is
//! `right` (`ours`; `configuration`: the reference was run with a tolerance or a rule that is no
//! equality; `open`: the reference, and we do not do that) and why.

use std::path::Path;

/// The committed table of disagreements.
fn argued() -> Vec<serde_json::Value> {
    let lines = include_str!("disagreements.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn pair(row: &serde_json::Value) -> (&str, &str) {
    (row["pred"].as_str().unwrap(), row["gold"].as_str().unwrap())
}

/// Prints the agreement over a file of pairs. A disagreement that is not argued fails; so does a
/// share of agreement below `at_least`, and a share of right verdicts below 99% of the rows whose
/// reference is a verdict on equality: those with one that did not run with a tolerance.
#[track_caller]
fn check(file: &str, at_least: f64) {
    let shared = std::env::var("S1_SHARED").unwrap_or_else(|_| "../shared".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let Ok(cases) = std::fs::read_to_string(root.join(shared).join("data/grading").join(file))
    else {
        eprintln!("not run: no optional folder of real data (S1_SHARED, default ../shared)");
        return;
    };
    let argued = argued();
    let (mut rows, mut agreed, mut found, mut equal, mut open) = (0u32, 0u32, 0, 0, 0);
    let (mut ours_right, mut configured) = (0u32, 0u32);
    for line in cases.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(truth) = case["equal"].as_bool() else {
            open += 1;
            continue;
        };
        let (pred, gold) = pair(&case);
        let ours = grading::equivalent(pred, gold);
        if ours.equal == truth {
            agreed += 1;
        } else {
            let known = argued.iter().find(|row| pair(row) == (pred, gold));
            match known.map(|row| row["right"].as_str().unwrap()) {
                Some("ours") => ours_right += 1,
                Some("configuration") => configured += 1,
                Some(_) => {}
                None => panic!(
                    "{}: {pred:?} and {gold:?}: equal is said to be {truth}; argue it in \
                     disagreements.jsonl\n{}",
                    case["id"],
                    grading::explain(pred, gold)
                ),
            }
        }
        rows += 1;
        equal += u32::from(truth);
        found += u32::from(ours.equal && truth);
    }
    let share = f64::from(agreed) / f64::from(rows);
    let right = f64::from(agreed + ours_right) / f64::from(rows - configured);
    println!("{file}: agreement {agreed} of {rows}; {found} of {equal} equal pairs found");
    println!(
        "  right {:.2}% of {}: of the {} disagreements {ours_right} are the reference's \
         mistakes, {configured} its tolerance; {open} rows without a verdict, on which the \
         graders disagree, are left out",
        100.0 * right,
        rows - configured,
        rows - agreed
    );
    assert!(share >= at_least, "{file}: agreement is only {share:.4}");
    assert!(right >= 0.99, "{file}: right verdicts are only {right:.4}");
}

/// Symbolic mathematics and whole sentences; the disagreements are mostly rows whose reference ran
/// with a tolerance.
#[test]
fn handwritten_cases() {
    check("handwritten_cases.jsonl", 0.95);
}

/// The last box of real outputs against the expected answer.
#[test]
fn pairs_from_generations() {
    check("pairs_from_generations.jsonl", 0.996);
}

/// Boxed answers of two recent models on MATH500.
#[test]
fn pairs_from_math500() {
    check("rasbt_math500_pairs.jsonl", 0.999);
}

/// The table says what we do today, and nothing that is no disagreement.
#[test]
fn the_disagreements_are_as_argued() {
    for row in argued() {
        let (pred, gold) = pair(&row);
        let ours = grading::equivalent(pred, gold).equal;
        assert_eq!(Some(ours), row["ours"].as_bool(), "{}", grading::explain(pred, gold));
        assert_ne!(row["ours"], row["reference"], "{}: no disagreement", row["id"]);
        let right = row["right"].as_str().unwrap();
        assert!(["ours", "configuration", "open"].contains(&right), "{right}");
        assert!(row["why"].as_str().unwrap().len() > 20, "{}: why?", row["id"]);
    }
}
