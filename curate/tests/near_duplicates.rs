//! Near-duplicates: what a word is, the Jaccard index, MinHash against it, and real pairs.

use std::collections::BTreeSet;

use curate::decontaminate::{Benchmark, Question};
use curate::funnel::Reason;
use curate::near_duplicates::{BINS, Settings, Stricter, similarity, sketch, words};
use proptest::prelude::*;

#[track_caller]
fn check_words(text: &str, expected: &str) {
    assert_eq!(words(text), expected, "{text:?}");
}

#[test]
fn words_are_letters_and_digits() {
    check_words("", "");
    check_words(" -- $\\,$ ", "");
    check_words("Find $\\frac{1}{2}$ of X^2.", "find frac 1 2 of x 2");
    check_words("ﬁnd  Ｘ², ½ of É!", "find x2 1 2 of é");
    check_words("第一题：求x的值", "第一题 求x的值");
}

#[track_caller]
fn check_similarity(one: &str, other: &str, shingle: usize, expected: f64) {
    assert_eq!(similarity(one, other, shingle), expected, "{one:?} {other:?}");
    assert_eq!(similarity(other, one, shingle), expected, "{other:?} {one:?}");
}

#[test]
fn similarity_is_the_jaccard_index_of_shingles() {
    check_similarity("", "", 3, 0.0);
    check_similarity("a", "", 3, 0.0);
    check_similarity("a b", "A, b!", 3, 1.0);
    check_similarity("a b c d", "a b c e", 3, 1.0 / 3.0);
    check_similarity("a b c d", "a b c e", 1, 3.0 / 5.0);
    check_similarity("a a a a a", "a a a", 2, 1.0);
    check_similarity("multiplication a", "nultiplication a", 1, 1.0 / 3.0);
}

fn settings(threshold: f64, within_pool: bool, numbers_may_differ: bool) -> Settings {
    Settings { ngram: 6, shingle: 2, threshold, within_pool, numbers_may_differ }
}

/// The verdicts on questions against two benchmarks, and the notes.
#[track_caller]
fn check(questions: &[&str], settings: &Settings, expected: &[&str], note: &str) {
    let benchmark = |name: &str, questions: &[&str]| Benchmark {
        name: name.to_string(),
        questions: questions.iter().map(|question| question.to_string()).collect(),
    };
    let benchmarks = [
        benchmark("A", &["One two, three four 5", "!"]),
        benchmark("B", &["one (two) three four five; six seven eight", "one two three four 6"]),
    ];
    let question = |(row, &text)| Question { row, text, source_type: "a/b" };
    let questions: Vec<Question> = questions.iter().enumerate().map(question).collect();
    for cut in 0..=questions.len() {
        let mut stricter = Stricter::index(&benchmarks, settings);
        let (left, right) = questions.split_at(cut);
        let verdicts = [stricter.judge(left), stricter.judge(right)].concat();
        let text = |reason: &Option<Reason>| reason.as_ref().map_or(String::new(), Reason::text);
        let texts: Vec<String> = verdicts.iter().map(text).collect();
        assert_eq!(texts, expected, "cut before {cut}");
        assert_eq!(stricter.notes().concat(), note);
    }
}

#[test]
fn names_the_pair_and_its_likeness() {
    let questions = [
        "one; two: three four 6?",
        "one two three four 7",
        "X One. Two. Three. Four. Five. Six. Y",
        "one two three four",
        "",
        "?",
        "red green blue black 1",
        "red green blue, black 1",
        "red green blue black 2",
    ];
    let shared = |likeness: &str, place: &str| {
        format!("{likeness} of the 2-word shingles of both are shared with {place}")
    };
    let same = format!("near-duplicate of B: {}", shared("1.000", "its row 2"));
    let seven = format!("near-duplicate of A, numbers differ: {}", shared("0.600", "its row 1"));
    let passage = "B, punctuation aside: shares \"one two three four five six\" with its row 1";
    let four = format!("near-duplicate of A, numbers differ: {}", shared("0.750", "its row 1"));
    let pool = |cause: &str, likeness: &str| {
        format!("near-duplicate of an earlier question{cause}: {}", shared(likeness, "pool row 7"))
    };
    let (again, other) = (pool("", "1.000"), pool(", numbers differ", "0.600"));
    let none = "";
    check(
        &questions,
        &settings(0.5, true, true),
        &[&same, &seven, passage, &four, none, none, none, &again, &other],
        "2 questions leave as near-duplicates of another in the pool; different questions about \
         one long passage count as such (decontaminate.stricter.within_pool).",
    );
    check(
        &questions,
        &settings(0.5, false, false),
        &[&same, none, passage, none, none, none, none, none, none],
        "2 questions stay though they are a near-duplicate, because the numbers differ \
         (decontaminate.stricter.numbers_may_differ).",
    );
    check(
        &questions,
        &settings(0.75, false, true),
        &[&same, none, passage, &four, none, none, none, none, none],
        "",
    );
}

/// Two texts over few words, so that they share some.
fn pair() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let words = || prop::collection::vec(0u8..40, 1..60);
    (words(), words(), 0usize..60).prop_map(|(one, other, shared)| {
        let shared = shared.min(one.len());
        let other = one[..shared].iter().chain(&other).copied().collect();
        (one, other)
    })
}

fn text(words: &[u8]) -> String {
    words.iter().map(|word| format!("w{word} ")).collect()
}

proptest! {
    /// The index is that of the sets; sketches estimate it within five standard deviations; and a
    /// pair is reported exactly if it reaches the threshold (0.9 leaves room for bands of eight).
    #[test]
    fn minhash_follows_the_exact_index((one, other) in pair()) {
        let shingles = |words: &[u8]| -> BTreeSet<Vec<u8>> {
            words.windows(2.min(words.len())).map(<[u8]>::to_vec).collect()
        };
        let (a, b) = (shingles(&one), shingles(&other));
        let exact = a.intersection(&b).count() as f64 / a.union(&b).count() as f64;
        let (one, other) = (text(&one), text(&other));
        prop_assert_eq!(similarity(&one, &other, 2), exact);

        let (x, y) = (sketch(&one, 2).unwrap(), sketch(&other, 2).unwrap());
        let agree = x.iter().zip(&y).filter(|(x, y)| x == y).count() as f64 / BINS as f64;
        // Empty bins repeat others, so that few shingles count like few values.
        let values = a.union(&b).count().min(BINS) as f64;
        let deviation = (exact * (1.0 - exact) / values).sqrt();
        prop_assert!((agree - exact).abs() <= 5.0 * deviation + 0.1, "{agree} for {exact}");

        let held_out = Benchmark { name: "A".to_string(), questions: vec![one] };
        let settings = Settings { ngram: 1000, ..settings(0.3, false, true) };
        let question = Question { row: 0, text: &other, source_type: "a/b" };
        let found = Stricter::index(&[held_out], &settings).judge(&[question])[0].is_some();
        prop_assert!(exact >= 0.3 || !found, "{exact}");
        prop_assert!(found || exact < 0.45, "overlooked {exact}");
    }
}
