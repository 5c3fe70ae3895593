//! The identity of a question: s1's own `question_hash`.

use sha2::{Digest, Sha256};

/// The id of a question everywhere: the first 16 hex digits of SHA-256 of its UTF-8 text, untrimmed
/// (s1: data/utils/io_utils.py). One more space is another question.
pub fn question_hash(text: &str) -> String {
    format!("{:016x}", question_id(text))
}

/// The number that [`question_hash`] spells: the same identity in eight bytes, in the same order.
pub fn question_id(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    u64::from_be_bytes(digest[..8].try_into().expect("eight bytes"))
}

/// The 64 hex digits of a text's SHA-256.
pub fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Lower-case hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
