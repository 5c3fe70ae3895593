//! How often we agree with the makers of public graders: pairs of answers with their verdict.

use std::path::Path;

/// Pairs that their author calls different and we call equal, each with the reason.
const ARGUED: [(&str, &str); 1] = [
    // simple-evals forbids its judge any arithmetic; as numbers 3245/5 and 649 are the same.
    ("3245/5", "649"),
];

/// Prints the agreement over a file of pairs; a false positive that is not argued fails, and so do
/// fewer equal pairs found than `at_least`, the share that the rules find today.
#[track_caller]
fn check(file: &str, at_least: f64) {
    let shared = std::env::var("S1_SHARED").unwrap_or_else(|_| "../shared".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let Ok(cases) = std::fs::read_to_string(root.join(shared).join("data/grading").join(file))
    else {
        eprintln!("not run: no optional folder of real data (S1_SHARED, default ../shared)");
        return;
    };
    let (mut rows, mut agreed, mut found, mut equal) = (0, 0, 0, 0);
    for line in cases.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        // Without a verdict: the graders that saw this pair do not agree among themselves.
        let Some(truth) = case["equal"].as_bool() else {
            continue;
        };
        let (pred, gold) = (case["pred"].as_str().unwrap(), case["gold"].as_str().unwrap());
        let ours = grading::equivalent(pred, gold).equal;
        let argued = ARGUED.contains(&(pred, gold));
        assert!(truth || !ours || argued, "{}: {pred:?} is not {gold:?}", case["id"]);
        rows += 1;
        agreed += usize::from(ours == truth);
        equal += usize::from(truth);
        found += usize::from(ours && truth);
    }
    println!("{file}: agreement {agreed} of {rows}; {found} of {equal} equal pairs found");
    let share = f64::from(found as u32) / f64::from(equal as u32);
    assert!(share >= at_least, "{file}: only {share:.3} of the equal pairs are found");
}

/// Mostly symbolic mathematics and whole sentences, which the thin rules do not read.
#[test]
fn handwritten_cases() {
    check("handwritten_cases.jsonl", 0.16);
}

/// The last box of real outputs against the expected answer.
#[test]
fn pairs_from_generations() {
    check("pairs_from_generations.jsonl", 0.89);
}

/// Boxed answers of two recent models on MATH500.
#[test]
fn pairs_from_math500() {
    check("rasbt_math500_pairs.jsonl", 0.97);
}
