//! Near-duplicates: what a word is, the Jaccard index, MinHash against it, and real pairs.

use std::collections::BTreeSet;

use curate::near_duplicates::{BINS, Near, Settings, near_duplicates, similarity, sketch, words};
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

fn settings(threshold: f64, within_pool: bool) -> Settings {
    Settings { shingle: 2, threshold, within_pool, numbers_may_differ: true }
}

#[track_caller]
fn check(texts: &[&str], first: usize, settings: &Settings, expected: &[Option<(usize, bool)>]) {
    let near = near_duplicates(texts, first, settings);
    let short = |near: Option<Near>| near.map(|near| (near.other, near.numbers_differ));
    assert_eq!(near.into_iter().map(short).collect::<Vec<_>>(), expected, "{texts:?}");
}

#[test]
fn the_most_similar_with_the_same_numbers_is_named() {
    let texts = [
        "one two three four 5",
        "one two three four 6",
        "one, two; THREE four 6!",
        "one two three four five",
        "",
        "!",
        "one two three four 7",
    ];
    check(
        &texts,
        1,
        &settings(0.5, true),
        &[Some((0, true)), Some((1, false)), Some((0, true)), None, None, Some((0, true))],
    );
    check(
        &texts,
        2,
        &settings(0.5, false),
        &[Some((1, false)), Some((0, true)), None, None, Some((0, true))],
    );
    check(&texts, 2, &settings(1.0, false), &[Some((1, false)), None, None, None, None]);
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

        let near = near_duplicates(&[&one, &other], 1, &settings(0.3, false))[0];
        prop_assert!(near.is_none_or(|near| near.similarity == exact && exact >= 0.3));
        prop_assert!(near.is_some() || exact < 0.45, "overlooked {exact}");
    }
}
