//! A first look at a text: which of its n-grams may be held out, and that none of the others is.
//!
//! It costs a few nanoseconds a word and copies nothing but the text's lower case. Words are told
//! apart by their length and last eight bytes, n-grams by a rolling hash over the words, held-out
//! n-grams by three bits of a large table. So a hit has to be looked up; a miss is certain.

/// Bytes before a text in [`Words::folded`], so that eight bytes can be read before any word's end.
const PAD: usize = 8;
/// Bits of the table for each n-gram: at three set bits, one n-gram in ten thousand hits by chance.
const BITS: usize = 64;

/// Is the text one whose words [`Words::read`] sees as Python does? ASCII without those control
/// characters that are no white space.
pub fn is_plain(text: &str) -> bool {
    // No early return: like this the compiler looks at sixteen bytes at once.
    let odd = |byte: u8| byte >= 0x80 || (byte < 0x1c && byte.wrapping_sub(9) > 4);
    !text.bytes().fold(false, |found, byte| found | odd(byte))
}

/// Has a normalised text none of those control characters? Then [`Words::read`] is right about it.
pub fn is_plain_normalised(text: &str) -> bool {
    !text.bytes().fold(false, |found, byte| found | (byte < b' '))
}

/// The words of one text; made once and filled again for each text.
#[derive(Debug, Clone, Default)]
pub struct Words {
    folded: Vec<u8>,
    starts: Vec<u32>,
    ends: Vec<u32>,
    /// One a word, after a zero.
    hashes: Vec<u64>,
}

impl Words {
    /// Finds the words of a text: runs of bytes above the blank, ASCII letters in lower case.
    pub fn read(&mut self, text: &str) {
        self.fold(text);
        self.bounds();
        self.hashes.clear();
        self.hashes.push(0);
        let folded = &self.folded;
        self.hashes.extend(std::iter::zip(&self.starts, &self.ends).map(|(&start, &end)| {
            let length = u64::from(end - start);
            let end = end as usize;
            let bytes: [u8; 8] = folded[end..end + PAD].try_into().expect("eight bytes");
            // What stands before the word goes out at the low end.
            let word = u64::from_le_bytes(bytes) >> (8 * (8 - length.min(8)));
            let mixed = (word ^ length << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        }));
    }

    /// Where the passage of `n` words from word `first` on stands in the text.
    pub fn place(&self, first: usize, n: usize) -> std::ops::Range<usize> {
        self.starts[first] as usize..self.ends[first + n - 1] as usize
    }

    /// Pad, lower case, and blanks up to a multiple of 64 bytes with at least one.
    fn fold(&mut self, text: &str) {
        self.folded.clear();
        self.folded.resize(PAD, 0);
        self.folded.extend_from_slice(text.as_bytes());
        self.folded.make_ascii_lowercase();
        let blocks = text.len() / 64 + 1;
        self.folded.resize(PAD + 64 * blocks, b' ');
    }

    /// The places where words start and end, 64 bytes at a time.
    fn bounds(&mut self) {
        self.starts.clear();
        self.ends.clear();
        let mut blank_before = 1;
        for (block, bytes) in self.folded[PAD..].chunks_exact(64).enumerate() {
            let blanks = blanks(bytes);
            let before = blanks << 1 | blank_before;
            blank_before = blanks >> 63;
            let at = 64 * block as u32;
            positions(!blanks & before, at, &mut self.starts);
            positions(blanks & !before, at, &mut self.ends);
        }
    }
}

/// Bit i says whether byte i of 64 is a blank or below.
fn blanks(bytes: &[u8]) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let mut blanks = 0;
    for (at, eight) in bytes.chunks_exact(8).enumerate() {
        let eight = u64::from_le_bytes(eight.try_into().expect("eight bytes"));
        // The top bit of each byte: set where the byte is above the blank.
        let above = ((eight & LOW) + 0x5f5f_5f5f_5f5f_5f5f) | eight;
        let bits = (!above & !LOW) >> 7;
        blanks |= (bits.wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * at);
    }
    blanks
}

/// Appends the numbers of the set bits, counted from `at`.
fn positions(mut bits: u64, at: u32, to: &mut Vec<u32>) {
    while bits != 0 {
        to.push(at + bits.trailing_zeros());
        bits &= bits - 1;
    }
}

/// The held-out n-grams, three bits each.
#[derive(Debug, Clone)]
pub struct Filter {
    ngram: usize,
    table: Vec<u64>,
    shift: u32,
    /// Used over and over by [`Filter::add`].
    words: Words,
}

impl Filter {
    /// With room for so many n-grams.
    pub fn new(ngram: usize, grams: usize) -> Self {
        let size = (grams * BITS / 64).next_power_of_two().max(1 << 10);
        let shift = 64 - size.trailing_zeros();
        Self { ngram, table: vec![0; size], shift, words: Words::default() }
    }

    /// Is there room for so many n-grams? More make it slower, never wrong.
    pub fn has_room(&self, grams: usize) -> bool {
        grams * BITS / 64 <= self.table.len()
    }

    /// Adds the n-grams of a normalised text. Those with a control character stay out: a text
    /// that may have one is never looked at through the filter.
    pub fn add(&mut self, normalised: &str) {
        if is_plain_normalised(normalised) {
            self.words.read(normalised);
            for hash in hashes(&self.words.hashes, self.ngram) {
                self.table[(hash >> self.shift) as usize] |= bits(hash);
            }
        } else {
            let grams = super::ngrams(normalised, self.ngram);
            grams.filter(|gram| is_plain_normalised(gram)).for_each(|gram| self.add(gram));
        }
    }

    /// The first words of the n-grams that may have been added, in order.
    pub fn hits(&self, words: &Words) -> impl Iterator<Item = usize> {
        let found = |(first, hash): (usize, u64)| {
            let bits = bits(hash);
            let is_there = self.table[(hash >> self.shift) as usize] & bits == bits;
            is_there.then_some(first)
        };
        hashes(&words.hashes, self.ngram).enumerate().filter_map(found)
    }
}

fn bits(hash: u64) -> u64 {
    1 << (hash & 63) | 1 << (hash >> 6 & 63) | 1 << (hash >> 12 & 63)
}

/// The rolling hashes of all n-grams; `words` begins with a zero.
fn hashes(words: &[u64], n: usize) -> impl Iterator<Item = u64> {
    let enough = words.len() > n;
    let first = if enough { &words[1..n] } else { &[] };
    let mut hash = first.iter().fold(0u64, |hash, word| hash.rotate_left(1) ^ word);
    let last = if enough { &words[n..] } else { &[] };
    std::iter::zip(last, words).map(move |(new, old)| {
        hash = hash.rotate_left(1) ^ new ^ old.rotate_left(n as u32 % 64);
        hash
    })
}
