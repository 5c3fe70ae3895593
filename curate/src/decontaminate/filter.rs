//! A first look at a text: which of its n-grams may be held out, and that none of the others is.
//!
//! It costs a few nanoseconds a word. Words are told apart by their length and last eight bytes,
//! n-grams by a rolling hash over the words, held-out n-grams by four bits of a table. So a hit has
//! to be looked up; a miss is certain.

use record::example::is_python_space;

/// Bytes before a text in [`Words::padded`], so that eight bytes can be read before any word's end.
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
    padded: Vec<u8>,
    count: usize,
    /// Where each word starts and ends; what is behind the first `count` is of other texts.
    places: Vec<(u32, u32)>,
    /// One a word, after a zero.
    hashes: Vec<u64>,
}

impl Words {
    /// Finds the words of a text: runs of bytes above the blank, capitals and small letters alike.
    pub fn read(&mut self, text: &str) {
        let last = text.len() / 64;
        self.padded.clear();
        self.padded.extend_from_slice(&[0; PAD]);
        self.padded.extend_from_slice(text.as_bytes());
        self.padded.resize(PAD + 64 * (last + 1), b' ');
        let most = text.len() / 2 + 2;
        if self.places.len() < most {
            self.places.resize(most, (0, 0));
            self.hashes.resize(most + 1, 0);
        }
        let (padded, places) = (&self.padded[..], &mut self.places[..]);
        let hashes = &mut self.hashes[1..];
        let (mut count, mut start) = (0, 0);
        for block in 0..=last {
            let mut blanks = blanks(&padded[PAD + 64 * block..][..64]);
            if block == last {
                // Of the padding one blank ends the last word.
                blanks &= u64::MAX >> (63 - text.len() % 64);
            }
            while blanks != 0 {
                let end = 64 * block + blanks.trailing_zeros() as usize;
                blanks &= blanks - 1;
                let bytes: [u8; 8] = padded[end..end + PAD].try_into().expect("eight bytes");
                hashes[count] = hash(u64::from_le_bytes(bytes), (end - start) as u64);
                places[count] = (start as u32, end as u32);
                // Nothing between two blanks is no word: the next one takes its place.
                count += usize::from(end > start);
                start = end + 1;
            }
        }
        self.count = count;
    }

    /// Where the passage of `n` words from word `first` on stands in the text.
    pub fn place(&self, first: usize, n: usize) -> std::ops::Range<usize> {
        self.places[first].0 as usize..self.places[first + n - 1].1 as usize
    }

    /// The hashes of all n-grams, in order.
    pub fn ngrams(&self, n: usize) -> impl Iterator<Item = u64> {
        let hashes = &self.hashes[..=self.count];
        let enough = self.count >= n;
        let first = if enough { &hashes[1..n] } else { &[] };
        let last = if enough { &hashes[n..] } else { &[] };
        let mut hash = first.iter().fold(0u64, |hash, word| hash.rotate_left(1) ^ word);
        std::iter::zip(last, hashes).map(move |(new, old)| {
            hash = hash.rotate_left(1) ^ new ^ old.rotate_left(n as u32 % 64);
            hash
        })
    }

    /// The hash of the whole text, as if it were one n-gram.
    pub fn whole(&self) -> u64 {
        self.hashes[..=self.count].iter().fold(0u64, |hash, word| hash.rotate_left(1) ^ word)
    }
}

/// Of a word: its length, and of the eight bytes up to its end those that belong to it.
fn hash(bytes: u64, length: u64) -> u64 {
    // One bit is all the difference between a capital and a small letter. What stands before the
    // word goes out at the low end.
    let letters = bytes | 0x2020_2020_2020_2020;
    let word = letters.wrapping_shr(64 - 8 * length.min(8) as u32);
    let mixed = (word ^ length << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
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
