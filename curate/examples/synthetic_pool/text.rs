//! Text that behaves like reasoning: Zipf's law over words, set phrases, formulas, and traces that
//! come back to what they said before.

use std::fmt::Write;

use record::seed::{Rng, rng};

/// Common words by hand, rarer ones out of these parts.
const COMMON: &str = include_str!("words.txt");
const HEADS: [&str; 20] = [
    "re", "de", "con", "pro", "sub", "inter", "trans", "pre", "dis", "com", "ex", "per", "over",
    "under", "out", "mis", "poly", "iso", "homo", "meta",
];
const STEMS: [&str; 32] = [
    "form", "struct", "port", "duc", "ject", "scrib", "spec", "tract", "vers", "graph", "log",
    "nom", "path", "phon", "morph", "metr", "gen", "grad", "junct", "mit", "mov", "pend", "plic",
    "pos", "rupt", "sect", "sens", "sist", "solv", "tang", "ten", "voc",
];
const TAILS: [&str; 20] = [
    "s", "ed", "ing", "ion", "ions", "al", "ity", "or", "ors", "able", "ive", "ure", "ation",
    "ism", "ist", "ment", "ally", "ic", "ance", "ents",
];
const PHRASES: [&str; 40] = [
    "Okay, so I need to find",
    "Let me think about this again.",
    "Wait, let me double-check that.",
    "So we have",
    "Let me see if that makes sense.",
    "First, let me recall the definition.",
    "Hmm, that doesn't look right.",
    "Alternatively, maybe I can use",
    "Therefore, the answer should be",
    "Let's substitute that back into the equation:",
    "But wait, I should make sure that",
    "Since this holds for every case,",
    "On the other hand,",
    "That gives us",
    "Now, let's consider the case where",
    "Simplifying the left-hand side, we get",
    "which is the same as before.",
    "Let me write down what I know:",
    "So far, so good.",
    "Is there another solution? I don't think so.",
    "Let me verify this with a small example.",
    "Plugging in the numbers,",
    "If I set these two equal,",
    "By symmetry, the same is true for",
    "Now I can solve for",
    "So, putting it all together,",
    "Let me try a different approach.",
    "I think that is correct.",
    "Taking the square root of both sides,",
    "This is where it gets tricky.",
    "For example, if",
    "We know from the problem that",
    "In other words,",
    "Dividing both sides by",
    "But that would be a contradiction.",
    "Maybe I made a mistake somewhere.",
    "Hold on, is that allowed?",
    "So the total is",
    "Let me check the boundary:",
    "**Step by step:**",
];
const OPENINGS: [&str; 10] = [
    "Find the number of",
    "Let",
    "Suppose that",
    "Determine all",
    "A",
    "Prove that every",
    "Given",
    "What is the",
    "Compute the",
    "For each",
];
/// A few words each, so that an ending and what often stands before it are no eight words.
const ENDINGS: [&str; 6] = [
    "Find all values.",
    "What is $n$?",
    "Answer in degrees.",
    "Prove your claim.",
    "Which is correct?",
    "How many exist?",
];
/// Entries of the table that turns random bits into words.
const TABLE: usize = 1 << 18;

/// Words by Zipf's law.
pub struct Language {
    words: Vec<String>,
    /// The index of a word, as often as its share.
    table: Vec<u16>,
}

impl Language {
    /// About 13,000 words; the k-th most frequent has a share proportional to 1 / (k + 3), the rare
    /// ones half of it. Then the first thousand make up four fifths of a text, as in real traces.
    pub fn new() -> Self {
        let mut words: Vec<String> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for word in COMMON.lines().skip(1).flat_map(str::split_whitespace) {
            if seen.insert(word) {
                words.push(word.to_string());
            }
        }
        let mut rare = Vec::new();
        for head in HEADS {
            for stem in STEMS {
                rare.extend(TAILS.map(|tail| [head, stem, tail].concat()));
            }
        }
        rng(1, &["rare words"]).shuffle(&mut rare);
        let common = words.len();
        words.extend(rare);
        let share = |rank: usize| {
            let share = 1.0 / (rank as f64 + 3.0);
            if rank < common { share } else { share / 2.0 }
        };
        let total: f64 = (0..words.len()).map(share).sum();
        let (mut table, mut reached) = (Vec::with_capacity(TABLE), 0.0);
        for rank in 0..words.len() {
            reached += share(rank) / total;
            let end = ((reached * TABLE as f64) as usize).min(TABLE);
            table.resize(end.max(table.len()), rank as u16);
        }
        table.resize(TABLE, 0);
        Self { words, table }
    }

    fn word(&self, rng: &mut Rng) -> &str {
        &self.words[self.table[rng.next_u64() as usize % TABLE] as usize]
    }

    /// A trace of about `bytes` bytes: sentences, phrases, formulas, and passages said before.
    pub fn trace(&self, bytes: usize, rng: &mut Rng) -> String {
        let mut text = String::with_capacity(bytes + 200);
        while text.len() < bytes {
            match rng.below(100) {
                0..24 => text.push_str(PHRASES[rng.below(PHRASES.len() as u64) as usize]),
                24..46 => formula(&mut text, rng),
                46..62 => say_again(&mut text, rng),
                _ => self.sentence(&mut text, 4 + rng.below(9) as usize, rng),
            }
            text.push_str(if rng.below(6) == 0 { "\n\n" } else { " " });
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// A question of about `words` words, no two alike in practice.
    pub fn question(&self, words: usize, rng: &mut Rng) -> String {
        let mut text = OPENINGS[rng.below(OPENINGS.len() as u64) as usize].to_string();
        let mut left = words.saturating_sub(9).max(8);
        while left > 0 {
            text.push(' ');
            let run = left.min(5 + rng.below(8) as usize);
            self.sentence(&mut text, run, rng);
            left -= run;
            match rng.below(10) {
                0..5 => {
                    text.push(' ');
                    formula(&mut text, rng);
                }
                5 => text.push('\n'),
                _ => {}
            }
        }
        text.push(' ');
        text.push_str(ENDINGS[rng.below(ENDINGS.len() as u64) as usize]);
        text
    }

    /// `words` words and a mark.
    fn sentence(&self, text: &mut String, words: usize, rng: &mut Rng) {
        for n in 0..words {
            if n > 0 {
                text.push(' ');
            }
            text.push_str(self.word(rng));
        }
        text.push_str([".", ",", ",", ":", "?"][rng.below(5) as usize]);
    }
}

/// Repeats some tens of bytes of what was just said.
fn say_again(text: &mut String, rng: &mut Rng) {
    let back = text.len().min(2000) as u64;
    if back < 200 {
        return;
    }
    let from = text.len() - back as usize + rng.below(back - 100) as usize;
    let whole = |at: usize| (at..text.len()).find(|&at| text.is_char_boundary(at));
    let (Some(from), Some(to)) = (whole(from), whole(from + 30 + rng.below(60) as usize)) else {
        return;
    };
    text.extend_from_within(from..to);
}

/// LaTeX, or the plain notation that teachers fall back to.
fn formula(text: &mut String, rng: &mut Rng) {
    let (a, b, c) = (rng.below(20), rng.below(100), rng.below(1000));
    let v = ["x", "y", "n", "a", "t", "k", "\\theta", "\\alpha"][rng.below(8) as usize];
    // One in 120 has a character beyond ASCII: then so have 1 in 40 questions and every second
    // trace, as in real ones.
    let written = match rng.below(120) {
        0 => write!(text, "{v} ≤ {b}π → ({b} × {c})"),
        1..15 => write!(text, "${v}^2 + {a}{v} - {b} = 0$"),
        15..30 => write!(text, "\\[ \\frac{{{a}}}{{{b}}} = {v}_{{{a}}} + {c} \\]"),
        30..45 => write!(text, "{a} * {b} = {}", a * b),
        45..60 => write!(text, "{c} / {} = {}", a + 1, c / (a + 1)),
        60..75 => write!(text, "$\\sqrt{{{v} + {c}}} \\le {b}$"),
        75..90 => write!(text, "$\\sum_{{i=1}}^{{{a}}} i^{{{b}}}$"),
        90..105 => write!(text, "f({v}) = {a}{v} + {b},"),
        _ => write!(text, "${v} \\equiv {a} \\pmod{{{b}}}$"),
    };
    written.expect("a String takes all text");
}
