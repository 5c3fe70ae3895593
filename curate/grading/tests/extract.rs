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

/// A row of strict mode: the completion, the answer and the rule that finds it.
#[track_caller]
fn strict(completion: &str, expected: &str, rule: &str) {
    let found = grading::extract(completion, Mode::Strict);
    let found = found.as_ref().map(|found| (found.text.as_str(), found.rule));
    let expected = (rule != "none").then_some((expected, rule));
    assert_eq!(found, expected, "{completion:?}");
}

#[test]
fn strict_the_answer_part() {
    strict("\\boxed{1}<|im_start|>answer\nAnswer: 2", "2", "statement");
    strict("<think>\\boxed{1}</think>It is \\boxed{2}.", "2", "box");
    strict("\\boxed{1}<|begin_of_solution|>\\boxed{2}<|end_of_solution|>", "2", "box");
    strict("So it is 2/3. <|im_start|>user", "2/3", "number");
    strict("<|im_start|>answer\n\\boxed{4}<|im_end|>\n<|im_start|>user\n\\boxed{5}", "4", "box");
    strict("<think>\\boxed{1}</think>", "", "none");
    strict("<think>so 3 and then $x = 4$. Wait", "", "none");
    strict("<think>so the answer is 4. Wait", "4", "statement");
    strict("", "", "none");
}

#[test]
fn strict_boxes() {
    strict("so \\boxed{1}, no, \\boxed{\\sqrt{2}}.", "\\sqrt{2}", "box");
    strict("so $\\boxed 7$.", "7", "box");
    strict("\\fbox{9} it is", "9", "box");
    strict("\\\\boxed{004} is right", "004", "box");
    strict("$\\boxed{\\boxed{5}}$", "5", "box");
    strict("$\\boxed{\\{1\\}}$", "\\{1\\}", "box");
    strict("$\\boxed{\\left\\{ 1 \\right.}$", "\\left\\{ 1 \\right.", "box");
    strict("\\boxed{20} percent", "20\\%", "box");
    strict("the \\boxedx{3} of it all", "3", "number");
    // Unfinished ones and echoes of the instruction are no answers.
    strict("\\boxed{1} then \\boxed{2", "1", "box");
    strict("It is \\boxed{4", "", "none");
    strict("We have 3 boxes, the answer is \\boxed{4", "", "none");
    strict("The answer is 5. So \\boxed{", "5", "statement");
    strict("put it in \\boxed{}. The sum is 7.", "7", "number");
    strict("Write \\boxed{...}: \\boxed{6}", "6", "box");
}

#[test]
fn strict_several_boxes() {
    strict("\\boxed{1} and \\boxed{2}", "1, 2", "boxes");
    strict("$x = \\boxed{1}$ and $y = \\boxed{2}$", "1, 2", "boxes");
    strict("\\boxed{k = 4} \\quad \\text{and} \\quad \\boxed{n = 2}", "k = 4, n = 2", "boxes");
    strict("\\boxed{1} papers and \\boxed{2} bins", "1, 2", "boxes");
    strict("\\boxed{(1,2)}, \\boxed{(2,1)} or \\boxed{(3,0)}", "(1,2), (2,1), (3,0)", "boxes");
    strict("\\boxed{5}, \\boxed{5}", "5", "box");
    strict("\\boxed{1}. Also \\boxed{2}", "2", "box");
    strict("\\boxed{1} = \\boxed{2}", "2", "box");
    strict("\\boxed{1}, so \\boxed{2}", "2", "box");
    strict("\\boxed{1}\n\n\\boxed{2}", "2", "box");
}

#[test]
fn strict_ambiguity_is_flagged() {
    let rows = [
        ("\\boxed{1}. No: \\boxed{2}", true),
        ("\\boxed{1}. Again: \\boxed{ 1 }", false),
        ("\\boxed{\\left(1\\right)}. Again: \\boxed{(1)}", false),
        ("\\boxed{1} and \\boxed{2}", false),
        ("\\boxed{3}. So \\boxed{1} and \\boxed{2}", true),
        ("\\boxed{1}. Final Answer: 2", true),
        ("\\boxed{1}. Final Answer: 1", false),
        ("Answer: 1", false),
    ];
    for (completion, ambiguous) in rows {
        let found = grading::extract(completion, Mode::Strict).unwrap();
        assert_eq!(found.ambiguous, ambiguous, "{completion:?}");
    }
}

#[test]
fn strict_statements() {
    strict(
        "Final Answer: The final answer is $28 \\%$. I hope it is correct.",
        "28 \\%",
        "statement",
    );
    strict("**Final Answer**\n\n\\[ \\frac{1}{2} \\]\n", "\\frac{1}{2}", "statement");
    strict("**Answer:** 3.14 cm.\nSome note of 7 words.", "3.14 cm", "statement");
    strict("Answer $ 9 $", "9", "statement");
    strict("Answer \\[ \n 9 \n \\]", "9", "statement");
    strict("### Answer\n42\n", "42", "statement");
    strict("The answer is 4. No, the answer is 5.", "5", "statement");
    strict("the answer to the question is $x = 5$, as 3 shows.", "x = 5", "statement");
    strict("Answer: 1\nAnswer: 2", "2", "statement");
    strict("The answer is: Paris.", "Paris", "statement");
    strict("The answer is 1,234.50 dollars. Good.", "1,234.50 dollars", "statement");
    strict("It is 4 + 5 = 9\nA: 9", "9", "statement");
    strict("adds to 18\n#### 18", "18", "statement");
    strict("Final Answer: The volume of $ABCD$ is 120. I hope.", "120", "statement");
    strict("Final Answer: Jane began 3 hours ago. I hope it is correct.", "3", "statement");
    strict("The answer is $3/4$, which is about $0.75$.", "3/4", "statement");
    strict("The answer is Yes, because $3 < 4$.", "Yes", "statement");
    strict("hm <answer>The sum is $x=3$</answer> thanks", "x=3", "statement");
    strict("We find 12. I hope the answer is correct.", "12", "number");
    // A box goes before a mere `the answer is`; a later final answer goes before the box.
    strict("\\boxed{1}. The answer is 2.", "1", "box");
    strict("\\boxed{1}. Final Answer: The final answer is 2.", "2", "statement");
    strict("\\boxed{1}. The final answer is correct.", "1", "box");
}

#[test]
fn strict_last_words() {
    strict("Therefore $x \\geq 5$ is the solution.", "x \\geq 5", "formula");
    strict("So the pair $(x, y)$ that solves it is $(7, 6)$.", "(7, 6)", "formula");
    strict("The solutions are $1$, $2$ and $3$ here now.", "$1$, $2$ and $3$", "formula");
    strict("Hence it costs $7.78 for her and $8 for him now.", "$8", "number");
    strict("so the number is 10 which is 1,000.99m²", "1,000.99m²", "number");
    strict("It grows.\n\\[ a = 5 \\]\nWe are done here, at last.", "a = 5", "formula");
    strict("The sum of the parts comes to 5/6 in the end.", "5/6", "number");
    strict("He gets -4 back from them then.", "-4", "number");
    strict("There are 12 ways.\n\nIf you have 2 more questions, ask!", "12 ways", "number");
    strict("Total = $25.00", "$25.00", "number");
    strict("x = 3, y = 4", "x = 3, y = 4", "number");
    strict("...it is navin.", "navin", "text");
    strict("Cost : 2,74 $ in all", "2,74 $", "number");
    strict("Alice is tall", "", "none");
    strict("Of the four of them, Alice is a knight.", "", "none");
    strict(">35", ">35", "number");
    strict("## 35", "35", "number");
    strict("I cannot solve this problem.\nSorry about that, my friend.", "", "none");
    // A few words are their own answer.
    for answer in ["42", "x^2 + 1", "1 000", "28 percent", "11,\\! 111", "5!"] {
        strict(answer, answer, "number");
    }
    for answer in ["Navin", "x + y", "\\text{odd}"] {
        strict(answer, answer, "text");
    }
}

#[track_caller]
fn chosen(text: &str, expected: Option<char>) {
    assert_eq!(grading::choice(text, Mode::Strict), expected, "{text:?}");
}

#[test]
fn choices() {
    let forms = [
        "B",
        "(B)",
        "B.",
        "B)",
        "b",
        "(b)",
        "**B**",
        "\\text{B}",
        "\\textbf{(B)}",
        "$\\text{(B)}$",
        "option B",
        "Option (B)",
        "(B) 12 cm",
        "B. Paris",
        "B: 12 cm",
        "\\boxed{B}",
        "so \\boxed{\\text{(B)}}.",
        "The answer is B.",
        "The answer is (B) 12 cm.",
        "**Answer: B**",
        "the correct answer is option B because A is wrong",
        "Answer: B. Paris",
        "Final Answer\n\n(B)",
        "Let me see. Of these, option B fits best.\nI am sure.",
        "I think B is correct. Good luck.",
        "(A) is wrong.\n(B) is right, as we saw above.\nB",
    ];
    for form in forms {
        chosen(form, Some('B'));
    }
    chosen("The answer is (H).", Some('H'));
    let none = [
        "",
        "12",
        "Bob",
        "A, C",
        "(a, b)",
        "A and B",
        "x",
        "D = (0, 1)",
        "C(5,2)",
        "e",
        "A triangle",
        "The answer is A triangle.",
        "The answer is I do not know.",
        "K",
        "\\boxed{12}",
        "\\boxed{B",
    ];
    for text in none {
        chosen(text, None);
    }
}

/// s1's harness makes an `A` of what names no letter; here that is no choice.
#[test]
fn choices_as_s1_reads_them() {
    let rows = [
        ("\\boxed{c}", Some('C')),
        ("Answer: D", Some('D')),
        ("D", Some('D')),
        ("Answer: (D)", None),
        ("\\boxed{E}", None),
        ("I do not know", None),
        ("", None),
    ];
    for (text, expected) in rows {
        assert_eq!(grading::choice(text, Mode::S1), expected, "{text:?}");
    }
}
