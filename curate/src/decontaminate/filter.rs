//! A first look at a text: which of its n-grams may be held out, and that none of the others is.
//!
//! It costs a few nanoseconds a word and copies nothing but the text's lower case. Words are told
//! apart by their length and last eight bytes, n-grams by a rolling hash over the words, held-out
//! n-grams by four bits of a table. So a hit has to be looked up; a miss is certain.

use record::example::is_python_space;

/// Bytes before a text in [`Words::folded`], so that eight bytes can be read before any word's end.
const PAD: usize = 8;
/// Bits of the table for each n-gram: with four of them set, one n-gram in some thousands hits by
/// chance. A larger table would no longer stay in the processor's second cache.
const BITS: usize = 32;

/// Does [`Words::read`] see the words that Python sees? Not with control characters that are no
/// white space, and not with letters and white space beyond ASCII that normalising would change.
pub fn is_plain(text: &str) -> bool {
    // No early return: like this the compiler looks at many bytes at once.
    let mut odd = false;
    let mut beyond = false;
    for &byte in text.as_bytes() {
        odd |= (byte < 0x1c) & (byte.wrapping_sub(9) > 4);
        beyond |= byte >= 0x80;
    }
    let stays = |at| {
        let c = text[at..].chars().next().expect("a character begins here");
        !is_python_space(c) && c.to_lowercase().eq([c])
    };
    // Bytes from 0xc0 on begin the characters beyond ASCII.
    !odd && (!beyond || (0..text.len()).filter(|&at| text.as_bytes()[at] >= 0xc0).all(stays))
}

/// The words of one text; made once and filled again for each text.
#[derive(Debug, Clone, Default)]
pub struct Words {
    folded: Vec<u8>,
    /// Where each word starts and where it ends, in turn; only the first `found` are of the text.
    edges: Vec<u32>,
    found: usize,
    /// One a word, after a zero.
    hashes: Vec<u64>,
}

impl Words {
    /// Finds the words of a text: runs of bytes above the blank, ASCII letters in lower case.
    pub fn read(&mut self, text: &str) {
        self.fold(text);
        self.find_edges();
        let folded = &self.folded;
        let hash = |edges: &[u32]| {
            let (length, end) = (u64::from(edges[1] - edges[0]), edges[1] as usize);
            let bytes: [u8; 8] = folded[end..end + PAD].try_into().expect("eight bytes");
            // What stands before the word goes out at the low end.
            let word = u64::from_le_bytes(bytes) >> (8 * (8 - length.min(8)));
            let mixed = (word ^ length << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        self.hashes.clear();
        self.hashes.push(0);
        self.hashes.extend(self.edges[..self.found].chunks_exact(2).map(hash));
    }

    /// Where the passage of `n` words from word `first` on stands in the text.
    pub fn place(&self, first: usize, n: usize) -> std::ops::Range<usize> {
        self.edges[2 * first] as usize..self.edges[2 * (first + n) - 1] as usize
    }

    /// The hashes of all n-grams, in order.
    pub fn ngrams(&self, n: usize) -> impl Iterator<Item = u64> {
        let enough = self.hashes.len() > n;
        let first = if enough { &self.hashes[1..n] } else { &[] };
        let last = if enough { &self.hashes[n..] } else { &[] };
        let mut hash = first.iter().fold(0u64, |hash, word| hash.rotate_left(1) ^ word);
        std::iter::zip(last, &self.hashes).map(move |(new, old)| {
            hash = hash.rotate_left(1) ^ new ^ old.rotate_left(n as u32 % 64);
            hash
        })
    }

    /// The hash of the whole text, as if it were one n-gram.
    pub fn whole(&self) -> u64 {
        self.hashes.iter().fold(0u64, |hash, word| hash.rotate_left(1) ^ word)
    }

    /// Pad, lower case, and blanks up to a multiple of 64 bytes with at least one.
    fn fold(&mut self, text: &str) {
        self.folded.clear();
        self.folded.extend_from_slice(&[0; PAD]);
        self.folded.extend_from_slice(text.as_bytes());
        self.folded.make_ascii_lowercase();
        let blocks = text.len() / 64 + 1;
        self.folded.resize(PAD + 64 * blocks, b' ');
    }

    fn find_edges(&mut self) {
        let bytes = &self.folded[PAD..];
        self.edges.resize(self.edges.len().max(bytes.len()), 0);
        let edges = &mut self.edges[..];
        let (mut found, mut blank_before) = (0, 1);
        for (block, bytes) in bytes.chunks_exact(64).enumerate() {
            let blanks = blanks(bytes);
            let mut changes = blanks ^ (blanks << 1 | blank_before);
            blank_before = blanks >> 63;
            while changes != 0 {
                edges[found] = 64 * block as u32 + changes.trailing_zeros();
                found += 1;
                changes &= changes - 1;
            }
        }
        self.found = found;
    }
}

/// Bit i says whether byte i of 64 is a blank or below.
fn blanks(bytes: &[u8]) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let mut crosswise = 0;
    for (at, eight) in bytes.chunks_exact(8).enumerate() {
        let eight = u64::from_le_bytes(eight.try_into().expect("eight bytes"));
        // The top bit of each byte: set where the byte is above the blank.
        let above = ((eight & LOW) + 0x5f5f_5f5f_5f5f_5f5f) | eight;
        crosswise |= (!above & !LOW) >> 7 << at;
    }
    transpose(crosswise)
}

/// Bit 8 i + j of the eight by eight bits becomes bit 8 j + i.
fn transpose(mut bits: u64) -> u64 {
    for (step, mask) in [(7, 0x00aa_00aa_00aa_00aa), (14, 0xcccc_0000_cccc), (28, 0xf0f0_f0f0)] {
        let other = (bits ^ bits >> step) & mask;
        bits ^= other ^ other << step;
    }
    bits
}

/// A set of n-grams by their hashes, four bits each.
#[derive(Debug, Clone)]
pub struct Filter {
    table: Vec<u64>,
    shift: u32,
}

impl Filter {
    /// With room for so many n-grams.
    pub fn new(grams: usize) -> Self {
        let size = (grams * BITS / 64).next_power_of_two().max(1 << 10);
        Self { table: vec![0; size], shift: 64 - size.trailing_zeros() }
    }

    /// Is there room for so many n-grams? More make it slower, never wrong.
    pub fn has_room(&self, grams: usize) -> bool {
        grams * BITS / 64 <= self.table.len()
    }

    /// Adds an n-gram.
    pub fn add(&mut self, hash: u64) {
        self.table[(hash >> self.shift) as usize] |= bits(hash);
    }

    /// The n-grams of a text that may have been added, each by its first word and its hash.
    pub fn hits(&self, words: &Words, n: usize) -> impl Iterator<Item = (usize, u64)> {
        let (table, shift) = (&self.table[..], self.shift);
        let may_be_there = move |&(_, hash): &(usize, u64)| {
            let bits = bits(hash);
            table[(hash >> shift) as usize] & bits == bits
        };
        words.ngrams(n).enumerate().filter(may_be_there)
    }
}

fn bits(hash: u64) -> u64 {
    1 << (hash & 63) | 1 << (hash >> 6 & 63) | 1 << (hash >> 12 & 63) | 1 << (hash >> 18 & 63)
}
