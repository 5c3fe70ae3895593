//! Equivalence: pairs that a rule proves equal, pairs that must stay different, hostile text.

#[track_caller]
fn check(given: &str, expected: &str, rule: &str) {
    for (a, b) in [(given, expected), (expected, given)] {
        let verdict = grading::equivalent(a, b);
        assert_eq!(verdict.rule, rule, "{a:?} against {b:?}");
        assert_eq!(verdict.equal, rule != "different", "{a:?} against {b:?}");
    }
}

#[test]
fn equal_by_rule() {
    check("x+1", "x+1", "identical");
    check("023", "23", "integer");
    check("-0", "0", "integer");
    check("+7", "7", "integer");
    check("1,234", "1234", "integer");
    check("11,\\! 111,\\! 111,\\! 100", "11111111100", "integer");
    check("1{,}234", "1234", "integer");
    check("2.0", "2", "integer");
    check("$204$.", "204", "integer");
    check("\\(-5\\)", "−5", "integer");
    check("0123456789012345678901234567890", "123456789012345678901234567890", "integer");
    check("0.50", ".5", "number");
    check("1/2", "\\frac{1}{2}", "number");
    check("-\\dfrac{1}{2}", "\\frac{-1}{2}", "number");
    check("\\frac12", "0.5", "number");
    check("2/4", "1/2", "number");
    check("4/2", "2", "number");
    check("\\dfrac{\\pi}{2}", "\\frac{\\pi}{2}", "normalised");
    check("\\left( 3, \\frac{\\pi}{2} \\right)", "(3, \\frac{\\pi}{2})", "normalised");
    check("\\text{Evelyn}", "Evelyn", "normalised");
    check("\\mathrm{(B)}", "(B)", "normalised");
    check("10 \\text{ cm}", "10cm", "normalised");
    check("50\\%", "50 %", "normalised");
    check("$$ x \\in [1,\\,2] $$", "x\\in[1,2]", "normalised");
    check("\\[ \\(a+b\\) \\]", "a + b", "normalised");
    check("\\text{two words}", "two  words", "normalised");
}

#[test]
fn different_stays_different() {
    check("1", "2", "different");
    check("", " ", "different");
    check("", "0", "different");
    check("1 2", "12", "different");
    check("12,34", "1234", "different");
    check("(1,234)", "1234", "different");
    check("1,2,3", "123", "different");
    check("1.234", "1,234", "different");
    check("5", "-5", "different");
    check("1/0", "2/0", "different");
    check("0.333", "1/3", "different");
    check("\\frac{1}{2}", "\\frac{2}{1}", "different");
    check("\\pi r", "\\pir", "different");
    check("\\leftarrow x", "\\rightarrow x", "different");
    check("(1,2)", "(2,1)", "different");
    check("(1,2)", "[1,2]", "different");
    check("x^{2}+1", "x^{2+1}", "different");
    check("a", "A", "different");
    check("10 cm", "10 km", "different");
    check("123456789012345678901234567890.5", "123456789012345678901234567891", "different");
    check("$a$ and $b$", "a and b", "different");
}

#[test]
fn exact_is_s1_without_its_judge() {
    let rows = [("042", "42", true), ("x", "x", true), ("$42$", "42", false), ("0", "000", true)];
    for (given, expected, equal) in rows {
        assert_eq!(grading::exact(given, expected).equal, equal, "{given:?} {expected:?}");
    }
}

/// A megabyte of one nasty piece after another: no panic, and linear time.
#[test]
fn total_on_hostile_text() {
    let pieces =
        ["{", "}", "\\text{", "\\boxed{", "$", "\\", "\\left", "1,", "/", "\u{1F600}", "."];
    for piece in pieces {
        let text = piece.repeat(1_000_000 / piece.len());
        let other = format!("{text}1");
        let start = std::time::Instant::now();
        assert!(grading::equivalent(&text, &text).equal);
        assert!(!grading::equivalent(&text, &other).equal, "{piece:?} repeated");
        grading::extract(&text, grading::Mode::Strict);
        assert!(start.elapsed().as_secs() < 5, "{piece:?} repeated took {:?}", start.elapsed());
    }
}
