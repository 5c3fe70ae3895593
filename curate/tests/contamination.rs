//! Decontamination: Python's normalisation, n-grams, benchmarks and earlier sources.

use curate::decontaminate::{Benchmark, HeldOut, Question, decontaminate, ngrams, normalise};
use curate::funnel::Reason;
use proptest::prelude::*;

#[track_caller]
fn check_normalise(text: &str, expected: &str) {
    assert_eq!(normalise(text), expected, "{text:?}");
}

/// The expected texts are those of Python's `" ".join(text.lower().strip().split())`.
#[test]
fn normalises_as_python_does() {
    check_normalise("", "");
    check_normalise(" \t\n", "");
    check_normalise("  What IS\n\n2 + 2?  ", "what is 2 + 2?");
    // Every character that str.split() takes for white space.
    for c in "\t\n\u{b}\u{c}\r\u{1c}\u{1d}\u{1e}\u{1f} \u{85}\u{a0}\u{1680}\u{2000}\u{2001}\u{2002}\
              \u{2003}\u{2004}\u{2005}\u{2006}\u{2007}\u{2008}\u{2009}\u{200a}\u{2028}\u{2029}\
              \u{202f}\u{205f}\u{3000}"
        .chars()
    {
        check_normalise(&format!("{c}a{c}{c}b{c}"), "a b");
    }
    // And characters that it does not, though they look empty.
    for c in "\u{200b}\u{180e}\u{feff}\u{2060}\u{0}\u{7f}".chars() {
        check_normalise(&format!("a{c}b"), &format!("a{c}b"));
    }
    // Lower case that is more than one character, or depends on the neighbours.
    check_normalise("İstanbul I ı", "i\u{307}stanbul i ı");
    check_normalise("ΟΔΥΣΣΕΥΣ Σ ΑΣ. ΑΣΑ Α.Σ", "οδυσσευς σ ας. ασα α.ς");
    check_normalise("ẞ ﬁ Ǆ \u{212a} \u{212b}", "ß ﬁ ǆ k å");
    check_normalise("ΑΣ\u{301} ΑΣ\u{301}Α 5Σ aΣ:b", "ας\u{301} ασ\u{301}α 5σ aσ:b");
}

#[track_caller]
fn check_ngrams(normalised: &str, n: usize, expected: &[&str]) {
    assert_eq!(ngrams(normalised, n).collect::<Vec<_>>(), expected, "{normalised:?}, n = {n}");
}

#[test]
fn ngrams_are_slices_of_n_words() {
    check_ngrams("", 1, &[]);
    check_ngrams("a", 2, &[]);
    check_ngrams("a b", 2, &["a b"]);
    check_ngrams("a bc ß d", 2, &["a bc", "bc ß", "ß d"]);
    check_ngrams("a bc ß d", 1, &["a", "bc", "ß", "d"]);
    check_ngrams("1 2 3 4 5 6 7 8 9", 8, &["1 2 3 4 5 6 7 8", "2 3 4 5 6 7 8 9"]);
}

/// Each question is `(source_type, text)`; expected are the drop reasons, `""` for none.
#[track_caller]
fn check(questions: &[(&str, &str)], n: usize, earlier_sources: bool, expected: &[&str]) {
    let benchmark = |name: &str, questions: &[&str]| Benchmark {
        name: name.to_string(),
        questions: questions.iter().map(|question| question.to_string()).collect(),
    };
    let benchmarks = [
        benchmark("one", &["Short.", "The cat SAT down"]),
        benchmark("two", &["cat  sat\ndown now"]),
    ];
    let questions: Vec<Question> = questions
        .iter()
        .enumerate()
        .map(|(row, &(source_type, text))| Question { row, text, source_type })
        .collect();
    let texts = |reasons: Vec<Option<Reason>>| -> Vec<String> {
        let text = |reason: Option<Reason>| reason.map_or(String::new(), |reason| reason.text());
        reasons.into_iter().map(text).collect()
    };
    assert_eq!(texts(decontaminate(&questions, &benchmarks, n, earlier_sources)), expected);
    // The same in two parts, wherever no source stands in both.
    for cut in 0..=questions.len() {
        let (left, right) = questions.split_at(cut);
        let letter = |of: &Question| of.source_type.chars().next();
        let in_left: Vec<_> = left.iter().map(letter).collect();
        if earlier_sources && right.iter().any(|of| in_left.contains(&letter(of))) {
            continue;
        }
        let mut held_out = HeldOut::index(&benchmarks, n, earlier_sources);
        let in_parts = [held_out.judge(left), held_out.judge(right)].concat();
        assert_eq!(texts(in_parts), expected, "cut before question {cut}");
    }
}

#[test]
fn names_benchmark_row_and_ngram() {
    let rows = [
        ("s", "A cat sat down."),
        ("s", "Why a cat sat  DOWN there"),
        ("s", "sat down now"),
        ("s", "short."),
        ("s", ""),
    ];
    let (first, second) = (
        "one: shares \"cat sat down\" with its row 2",
        "two: shares \"sat down now\" with its row 1",
    );
    check(&rows, 3, false, &["", first, second, "", ""]);
    check(&rows[3..], 1, false, &["one: shares \"short.\" with its row 1", ""]);
    check(&rows[..3], 8, false, &["", "", ""]);
}

#[test]
fn earlier_sources_hold_out_what_they_kept() {
    let rows = [
        ("a/x/one", "red green blue"),
        ("b/y", "dark red green blue"),
        ("a/x/two", "red green blue too"),
        ("a/x/two", "the cat sat down"),
        ("b/y", "a cat sat up"),
        ("c/z", "dark red green"),
        ("c/z", "cat sat up"),
    ];
    let benchmark = "one: shares \"the cat sat\" with its row 2";
    let from_a = "earlier source a/x: shares \"red green blue\" with pool row 1";
    let from_b = "earlier source b/y: shares \"cat sat up\" with pool row 5";
    check(&rows, 3, false, &["", "", "", benchmark, "", "", ""]);
    // The second row was dropped itself, so it holds out nothing against the sixth.
    check(&rows, 3, true, &["", from_a, "", benchmark, "", "", from_b]);
}

/// Texts of few and odd pieces, so that they share n-grams and hold what normalising changes.
fn odd_texts() -> impl Strategy<Value = Vec<String>> {
    let pieces = prop::sample::select(vec![
        "a",
        "A",
        "b",
        "a-long-word-of-many-letters",
        "A-LONG-word-of-many-letters",
        "b-long-word-of-many-letters",
        "é",
        "É",
        "Σ",
        "σ",
        "ς",
        "İ",
        "ß",
        "[",
        "{",
        " ",
        " ",
        " ",
        " ",
        "  ",
        "\n",
        "\t",
        "\u{1}",
        "\u{b}",
        "\u{1c}",
        "\u{7f}",
        "\u{85}",
        "\u{a0}",
        "\u{3000}",
        "\u{200b}",
    ]);
    let text = prop::collection::vec(pieces, 0..90).prop_map(|pieces| pieces.concat());
    prop::collection::vec(text, 1..6)
}

proptest! {
    /// Looking at hashes first changes nothing: the verdicts are those of comparing all n-grams.
    #[test]
    fn finds_what_a_plain_comparison_finds(
        pool in odd_texts(),
        held_out in odd_texts(),
        n in 1usize..6,
    ) {
        let normalised: Vec<String> = held_out.iter().map(|text| normalise(text)).collect();
        let plain = |text: &str| {
            let text = normalise(text);
            ngrams(&text, n).find_map(|gram| {
                let has = |other: &String| ngrams(other, n).any(|other| other == gram);
                let row = normalised.iter().position(has)? + 1;
                Some(format!("A: shares \"{gram}\" with its row {row}"))
            })
        };
        let expected: Vec<Option<String>> = pool.iter().map(|text| plain(text)).collect();
        let benchmark = Benchmark { name: "A".to_string(), questions: held_out };
        let question = |(row, text)| Question { row, text, source_type: "a/b" };
        let questions: Vec<Question> =
            pool.iter().map(String::as_str).enumerate().map(question).collect();
        let found = decontaminate(&questions, &[benchmark], n, false);
        let found: Vec<Option<String>> =
            found.iter().map(|reason| reason.as_ref().map(Reason::text)).collect();
        prop_assert_eq!(found, expected);
    }
}
