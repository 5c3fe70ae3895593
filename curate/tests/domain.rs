//! The offline labeller: what it says of plain cases, and how often it is right.

use std::collections::BTreeMap;
use std::path::Path;

use curate::domain::{class, classes, label};
use serde_json::Value;

use crate::shared::{lines, shared, text};

#[track_caller]
fn check(question: &str, source_type: &str, expected: &str) {
    let class = label(question, source_type);
    assert_eq!(class.code, expected, "{question:?} from {source_type:?}: {}", class.title);
}

#[test]
fn plain_questions_get_their_class() {
    check("What is the remainder when $7^{100}$ is divided by $13$, a prime?", "", "11");
    check("In triangle $ABC$, $AB = 13$ and $\\angle B = 60^\\circ$. Find its area.", "", "51");
    check("A fair coin is tossed ten times. What is the probability of six heads?", "", "60");
    check("Find the determinant of \\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}.", "", "15");
    check("Find all functions $f$ with $f(x+y) = f(x) + f(y)$ for all real numbers", "", "39");
    check("Evaluate $\\int_0^1 x e^x dx$.", "", "26");
    check("A block of mass 2 kg slides down a frictionless inclined plane.", "", "70");
    check("What is the entropy change when the ideal gas expands isothermally?", "", "80");
    check("Which enzyme copies DNA into RNA in the cell?", "", "92");
    check("What is the time complexity of this algorithm?", "", "68");
    check("Show that every subgroup of a cyclic group is cyclic.", "", "20");
    check("Is every compact metric space complete?", "", "54");
}

#[test]
fn the_source_decides_where_words_do_not() {
    check("Solve it.", "qfq/openaimath/Number Theory", "11");
    check("Solve it.", "GAIR/OlympicArena/Astronomy", "85");
    check("Solve it.", "LiveCodeBench/release_v1", "68");
    check("", "", "51");
}

/// Signs of every kind, cut at every place: always a class, never a panic.
#[test]
fn any_text_has_a_class() {
    let text = "\\begin{array} \\end{ \\, \\\\ \\text{’é\u{301}Σ} 3½x-ray -- 漢字 \u{2028}\\ \\";
    for (at, _) in text.char_indices() {
        for part in [&text[..at], &text[at..]] {
            assert!(classes().contains(label(part, part)));
        }
    }
}

#[test]
fn classes_are_those_of_s1() {
    assert_eq!(classes().len(), 61);
    assert_eq!(class("19").unwrap().title, "$K$-theory");
    assert_eq!(class("01"), None);
    let Some(folder) = shared() else { return };
    let theirs: Vec<Value> =
        serde_json::from_slice(&std::fs::read(folder.join("s1k/msc.json")).unwrap()).unwrap();
    let theirs: Vec<(&str, &str)> =
        theirs.iter().map(|class| (text(&class["code"]), text(&class["title"]))).collect();
    let ours: Vec<(&str, &str)> =
        classes().iter().map(|class| (class.code.as_str(), class.title.as_str())).collect();
    assert_eq!(ours, theirs);
}

/// Of s1K's own questions, 159 were read and labelled for this test, before the labeller was run
/// on those that are not `seen`; the first code is the label, the others would do as well.
#[test]
fn agrees_with_a_reader_on_s1k() {
    let Some(folder) = shared() else { return };
    let questions: BTreeMap<String, Value> = lines(&folder.join("s1k/s1k_questions.jsonl"))
        .into_iter()
        .map(|line| (text(&line["question_hash"]).to_string(), line))
        .collect();
    let labels =
        lines(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/domain_labels.jsonl")));
    for (seen, least) in [(true, 80), (false, 75)] {
        let (mut rows, mut equal, mut will_do) = (0, 0, 0);
        for line in labels.iter().filter(|line| line["seen"] == seen) {
            let question = &questions[text(&line["question_hash"])];
            let label = label(text(&question["question"]), text(&question["source_type"]));
            let codes: Vec<&str> = line["codes"].as_array().unwrap().iter().map(text).collect();
            rows += 1;
            equal += usize::from(codes[0] == label.code);
            will_do += usize::from(codes.contains(&label.code.as_str()));
        }
        eprintln!("s1K by a reader, seen {seen}: {equal} of {rows} equal, {will_do} will do");
        assert!(will_do * 100 >= rows * least, "{will_do} of {rows}");
    }
}

/// Subjects that a data set names, and the classes that belong to them.
const SUBJECTS: [(&str, &str, &[&str]); 35] = [
    ("olympiadbench_en", "Number Theory", &["11"]),
    ("olympiadbench_en", "Combinatorics", &["05"]),
    ("olympiadbench_en", "Geometry", &["51", "52"]),
    ("olympiadbench_en", "Mechanics", &["70", "74", "76"]),
    ("olympiadbench_en", "Electromagnetism", &["78"]),
    ("olympiadbench_en", "Thermodynamics", &["76", "80", "82"]),
    ("olympiadbench_en", "Optics", &["78"]),
    ("olympiadbench_en", "Modern Physics", &["81", "82", "83", "85"]),
    ("theoremqa", "Combinatorics", &["05"]),
    ("theoremqa", "Graph theory", &["05"]),
    ("theoremqa", "Number theory", &["11"]),
    ("theoremqa", "Complex analysis", &["30"]),
    ("theoremqa", "Group theory", &["20"]),
    ("theoremqa", "Geometry", &["51", "52"]),
    ("theoremqa", "Numerical analysis", &["65"]),
    ("theoremqa", "Statistics", &["60", "62"]),
    ("theoremqa", "Probability theory", &["60"]),
    ("theoremqa", "Stochastic process", &["60"]),
    ("theoremqa", "Kinetics", &["70"]),
    ("theoremqa", "Atomic physics", &["81"]),
    ("theoremqa", "Economics", &["91"]),
    ("theoremqa", "Information theory", &["94"]),
    ("theoremqa", "Functional analysis", &["46", "47"]),
    ("mmlu_stem", "high_school_biology", &["92"]),
    ("mmlu_stem", "college_biology", &["92"]),
    ("mmlu_stem", "high_school_statistics", &["60", "62"]),
    ("mmlu_stem", "high_school_chemistry", &["80", "81", "92"]),
    ("mmlu_stem", "astronomy", &["83", "85"]),
    ("mmlu_stem", "electrical_engineering", &["78", "93", "94"]),
    ("mmlu_stem", "machine_learning", &["62", "68"]),
    ("mmlu_stem", "abstract_algebra", &["08", "12", "13", "16", "20"]),
    ("mmlu_stem", "computer_security", &["68", "94"]),
    ("openaimath_test4500", "Geometry", &["51", "52"]),
    ("openaimath_test4500", "Number Theory", &["11"]),
    ("openaimath_test4500", "Counting & Probability", &["05", "60"]),
];

/// Questions with a subject of their own, their source withheld where it names the subject. Half of
/// them took part in placing the terms.
#[test]
fn finds_the_class_of_a_named_subject() {
    let Some(folder) = shared() else { return };
    let mut files: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let (mut all_rows, mut all_right) = (0, 0);
    for (file, subject, codes) in SUBJECTS {
        let path = folder.join("pool").join(file).with_extension("jsonl");
        let rows = files.entry(file).or_insert_with(|| lines(&path));
        let (mut asked, mut right) = (0, 0);
        for row in rows.iter() {
            let source_type = text(&row["source"]);
            let named = row["meta"]["subfield"].as_str();
            if named.unwrap_or(source_type.rsplit('/').next().unwrap()) != subject {
                continue;
            }
            let source_type = if named.is_some() { source_type } else { "" };
            asked += 1;
            let found = &label(text(&row["question"]), source_type).code;
            right += usize::from(codes.contains(&found.as_str()));
        }
        assert!(asked > 0, "{file} has no {subject}");
        eprintln!("{file} {subject}: {right} of {asked}");
        (all_rows, all_right) = (all_rows + asked, all_right + right);
    }
    eprintln!("all subjects: {all_right} of {all_rows}");
    assert!(all_right * 100 >= all_rows * 72, "{all_right} of {all_rows}");
}
