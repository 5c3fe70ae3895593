//! Words, names, choices and units: where the case of a letter, its place or a mark behind it
//! says something, and where it does not.

use grading::{Mode, choice, equivalent, explain, extract};

#[track_caller]
fn check(equal: bool, rows: &[(&str, &str)]) {
    for (a, b) in rows {
        let verdict = equivalent(a, b);
        assert_eq!(verdict, equivalent(b, a), "{a:?} and {b:?} swapped");
        let should = if equal { "should be the same" } else { "should differ" };
        assert_eq!(verdict.equal, equal, "{should}: {a:?} {b:?}\n{}", explain(a, b));
    }
}

#[track_caller]
fn same(rows: &[(&str, &str)]) {
    check(true, rows);
}

#[track_caller]
fn differ(rows: &[(&str, &str)]) {
    check(false, rows);
}

#[test]
fn the_case_of_short_words_counts() {
    differ(&[
        ("AA", "Aa"),
        ("Aa", "aa"),
        ("AB", "ab"),
        ("CO", "Co"),
        ("NO", "false"),
        (r"\text{mM}", r"\text{Mm}"),
        ("pV", "Pv"),
        (r"\text{IS}", r"\text{is}"),
    ]);
    same(&[
        (r"\text{Odd}", "odd"),
        ("EVEN", "even"),
        ("No", "false"),
        ("no", r"\text{No.}"),
        ("YES", "true"),
        ("Tuesday", r"\text{tuesday}"),
        ("New York", "new york"),
    ]);
}

#[test]
fn marks_behind_short_names_count() {
    differ(&[("kn!", "kn"), ("xy'", "xy"), ("A'B'", "A'B"), ("abc'", "abc"), ("n!", "n")]);
    same(&[("odd!", "odd!"), ("hello!", "hello"), ("Yes!", "yes"), ("no.", "No")]);
}

#[test]
fn the_letters_of_a_name_have_an_order() {
    differ(&[
        ("HTH", "THH"),
        ("TOP", "POT"),
        ("ATG", "GTA"),
        ("ASA", "SAA"),
        ("IV", "VI"),
        ("XI", "IX"),
        (r"\mathrm{CO}", r"\mathrm{OC}"),
        (r"\text{TOP}", "POT"),
        ("1A", "A1"),
        ("12AB", "12BA"),
        ("AABB", "ABAB"),
        ("CAB", "BAC"),
    ]);
    same(&[
        ("ABD", "BAD"), // the choices A, B and D
        ("HTH", r"\text{HTH}"),
        ("1E3", "10E2"),
        ("mgh", "hgm"),
        (r"A\cdot B", "BA"),
        (r"\triangle PQR", r"\triangle QRP"),
    ]);
}

#[test]
fn two_choices_are_not_one() {
    differ(&[
        ("(A) and (C)", "A"),
        ("(A) or (B)", "A"),
        ("(A), (C)", "A"),
        ("(A)(B)", "A"),
        ("(A) (B)", "A"),
        (r"\text{(A) and (C)}", "A"),
        ("A. and C.", "A"),
        ("Answer: (A) and (C)", "A"),
        ("(B) Plane", "C"),
    ]);
    same(&[
        ("(A) and", "(A) and"),
        ("(C) Plane", "C"),
        ("(A) Both of them", "A"),
        (r"\textbf{(C)}\ 12", "C"),
        ("A) an apple", "(A)"),
        ("option B", "B"),
        ("D. (1, 2)", "D"),
    ]);
    for text in ["(A), (C)", "(A)(B)", "Answer: (A) and (C)", "The answer is (A) or (B)."] {
        assert_eq!(choice(text, Mode::Strict), None, "{text:?}: {:?}", extract(text, Mode::Strict));
    }
    for text in ["Answer: (A) Adam", "I choose A and not B.", "The answer is (A)."] {
        assert_eq!(choice(text, Mode::Strict), Some('A'), "{text:?}");
    }
}

#[test]
fn the_case_of_units_and_the_currency_count() {
    differ(&[
        (r"5\text{ mW}", r"5\text{ MW}"),
        (r"5\text{ meV}", r"5\text{ MeV}"),
        (r"5\text{ mg}", r"5\text{ Mg}"),
        (r"5\text{ Gb}", r"5\text{ GB}"),
        (r"5\text{ s}", r"5\text{ S}"),
        (r"\$5", "€5"),
        ("£5", "€5"),
        ("5 euros", r"\$5"),
    ]);
    same(&[
        (r"5\text{ Meters}", "5 meters"),
        ("5 Dollars", r"\$5"),
        ("€5", "5 euros"),
        ("€5", "5"),
        ("¥5", r"5\text{ yen}"),
        ("5 KILOMETERS", "5 km"),
        (r"5 \text{ USD}", r"\$5"),
    ]);
}
