//! question_hash against published ids.

use record::question::question_hash;

#[track_caller]
fn check(question: &str, expected: &str) {
    assert_eq!(question_hash(question), expected);
}

#[test]
fn ids_of_questions() {
    // From s1's own hash function.
    check("How many r in raspberry", "bc8a3cdb5684fd1e");
    check("What is 2+2?", "52cb6b5e4a038af1");
    // First 16 digits of `printf '' | sha256sum`, and of `printf ' ' | sha256sum`.
    check("", "e3b0c44298fc1c14");
    check(" ", "36a9e7f1c95b82ff");
}
