//! The rules of extraction, one table row per branch, and s1's own extraction on real outputs.

use std::path::Path;

use grading::Mode;

#[track_caller]
fn check(completion: &str, expected: Option<&str>) {
    let found = grading::extract(completion, Mode::S1);
    assert_eq!(found.map(|found| found.text).as_deref(), expected, "{completion:?}");
}

#[test]
fn rule_1_the_answer_part() {
    check("x<|im_start|>answer\nFinal Answer: \\boxed{\\frac{1}{2}}", Some("\\frac{1}{2}"));
    check("…<|im_start|>answer\nAnswer: 042", Some("042"));
    check("<|im_start|>answer\nAnswer: 1<|im_start|>answer\n2", Some("2"));
    check("\\boxed{1}<|im_start|>answer\nAnswer: 2", Some("2"));
    check("Answer: 1<|im_start|>reply\nsecond\nthird", Some("second\nthird"));
    check("Answer: 1<|im_start|>only line", Some("only line"));
    check("\\boxed{1}<|im_start|>think\nno box here", Some("no box here"));
}

#[test]
fn rule_2_boxes() {
    check("so \\boxed{1} or \\boxed{\\sqrt{2}}.", Some("\\sqrt{2}"));
    check("so $\\boxed 7$ or \\boxed{3}", Some("7"));
    check("so $\\boxed 7$ and $\\boxed 8 $.", Some("8 "));
    check("\\boxed to the end", Some("to the end"));
    check("\\fbox{9}", Some("9"));
    check("\\fbox{9} \\boxed{8}", Some("8"));
    check("\\boxed{}", Some(""));
    // An unfinished box is none; the next rules go on.
    check("Answer: \\boxed{1", Some("\\boxed{1"));
    check("\\boxed{1} then \\boxed{2", Some("\\boxed{1} then \\boxed{2"));
    check("\\boxedx{3}", Some("\\boxedx{3}"));
}

#[test]
fn rule_3_everything_after_the_first_answer() {
    check("Answer: 1\nAnswer: 2", Some("1\nAnswer: 2"));
    check("the FINAL ANSWER \n:\n\n 5 ", Some("5 "));
    check("the answer is: 4. Answer : 5", Some("5"));
    check("Answer:", Some(""));
    check("ÄAnswer:ß", Some("ß"));
}

#[test]
fn rule_4_the_text_itself() {
    check("<|im_start|>answer\n42", Some("42"));
    check("42", Some("42"));
    check("", None);
    check("<|im_start|>answer\n \n", None);
}

/// Outputs of real models, each with what s1's own Python code extracts from it.
#[test]
fn agrees_with_s1_on_real_outputs() {
    let shared = std::env::var("S1_SHARED").unwrap_or_else(|_| "../shared".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = root.join(shared).join("data/generations");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("not run: no optional folder of real data (S1_SHARED, default ../shared)");
        return;
    };
    let mut rows = 0;
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let (Some(output), Some(seen)) = (row["output"].as_str(), row.get("ref")) else {
                continue;
            };
            let ours = grading::extract(output, Mode::S1).map_or(String::new(), |found| found.text);
            // s1 makes an integer of an extracted answer that is all digits ("001" is "1").
            let same = |theirs: &str| grading::exact(&ours, theirs).equal;
            let ok = match (seen.get("s1_extracted"), seen["s1_extracted_len"].as_u64()) {
                (_, Some(chars)) => ours.chars().count() as u64 == chars,
                (Some(theirs), None) => same(theirs.as_str().unwrap()),
                (None, None) => same(seen["boxed"].as_str().unwrap()),
            };
            assert!(ok, "{}: ours is {ours:?}, s1's is in {seen}", row["id"]);
            rows += 1;
        }
    }
    println!("extraction agrees with s1's on all {rows} real outputs");
    assert!(rows > 1000, "only {rows} rows with s1's extraction in {}", folder.display());
}
