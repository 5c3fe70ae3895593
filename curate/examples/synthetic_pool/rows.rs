//! One row of the pool from its number alone, so that rows can be made in any order.

use record::row::Row;
use record::seed::{Rng, rng};

use crate::sources::{DOMAINS, SOURCES, Source, sizes};
use crate::text::Language;

/// 0.95 GB of traces for the published pool's 212 million tokens.
const BYTES_PER_100_TOKENS: u64 = 448;
/// The teacher's output ended at about so many tokens.
const TOKENS_MAX: u64 = 8_150;
const TOKENS_MIN: u64 = 100;

/// The questions held out, as many as AIME 2022-2024, GPQA Diamond, MATH500 and LiveCodeBench v4.
pub const BENCHMARK: u64 = 90 + 198 + 500 + 713;

/// A pool of so many rows.
pub struct Pool {
    language: Language,
    seed: u64,
    /// The row behind each source's last.
    ends: [u64; 16],
}

impl Pool {
    pub fn new(rows: u64, seed: u64) -> Self {
        let mut ends = sizes(rows);
        for source in 1..ends.len() {
            ends[source] += ends[source - 1];
        }
        Self { language: Language::new(), seed, ends }
    }

    /// Row `row`, from 0.
    pub fn row(&self, row: u64) -> Row {
        let source = self.source(row);
        let mut rng = self.stream("row", row);
        let mut question = self.question(row, source, &mut rng);
        damage(&mut question, &mut rng);
        let source_type = source.source_types[rng.below(source.source_types.len() as u64) as usize];
        let tokens = trace_tokens(source.tokens, &mut rng);
        let mut made = Row {
            solution: source.solutions.then(|| self.language.trace(600, &mut rng)),
            question,
            cot_type: source.cot_type.to_string(),
            source_type: source_type.to_string(),
            metadata: format!("{{'id': {row}, 'level': 'Level {}'}}", 1 + rng.below(5)),
            domain: Some(domain(source, &mut rng).to_string()),
            isgeminicorrect: Some(rng.below(100) < source.correct),
            isqwen7bcorrect: Some(rng.below(100) < source.easy * 7 / 10),
            isqwen32bcorrect: None,
            gemini_length: Some(tokens as i64),
            ..Row::default()
        };
        // Together the two models solve `easy` in 100.
        let left = source.easy - source.easy * 7 / 10;
        let also = rng.below(100) * (100 - source.easy * 7 / 10) < 100 * left;
        made.isqwen32bcorrect = Some(also || made.isqwen7bcorrect == Some(true));
        let bytes = tokens * BYTES_PER_100_TOKENS / 100;
        made.thinking_trajectories = vec![self.language.trace(bytes as usize, &mut rng)];
        made.attempt = Some(self.language.trace(1_200, &mut rng));
        forget(&mut made, source, &mut rng);
        made
    }

    /// Question `number` of the benchmark.
    pub fn held_out(&self, number: u64) -> String {
        self.language.question(60, &mut self.stream("held out", number))
    }

    /// The question of `row`: 1 in 200 an earlier one again, 1 in 100 an earlier one with some
    /// words changed, 1 in 100 with a passage that is held out; the others their own.
    fn question(&self, row: u64, source: &Source, rng: &mut Rng) -> String {
        let own = |row: u64, source: &Source| {
            let mut rng = self.stream("question", row);
            let words = source.words / 2 + rng.below(source.words);
            self.language.question(words as usize, &mut rng)
        };
        match rng.below(200) {
            0 if row > 0 => {
                let earlier = rng.below(row);
                own(earlier, self.source(earlier))
            }
            1..3 if row > 0 => {
                let earlier = rng.below(row);
                reword(&own(earlier, self.source(earlier)), rng)
            }
            3..5 => {
                let held_out = self.held_out(rng.below(BENCHMARK));
                with_passage(&own(row, source), &held_out, rng)
            }
            _ => own(row, source),
        }
    }

    fn source(&self, row: u64) -> &'static Source {
        &SOURCES[self.ends.partition_point(|&end| end <= row)]
    }

    fn stream(&self, of: &str, number: u64) -> Rng {
        rng(self.seed, &["synthetic pool", of, &number.to_string()])
    }
}

/// A length with this mean: the distribution is the j-th smallest of five uniform numbers, as wide
/// as the published histogram, stretched to end at four times the mean or the teacher's limit.
fn trace_tokens(mean: u64, rng: &mut Rng) -> u64 {
    let most = TOKENS_MAX.min(4 * mean);
    let width = (most - TOKENS_MIN) as f64;
    // Its mean is j / 6; j falls on one side or the other of what is wanted, with fitting odds.
    let wanted = 6.0 * (mean - TOKENS_MIN) as f64 / width;
    let j = wanted.floor() as usize + usize::from(rng.uniform() < wanted.fract());
    let mut uniform = [0.0; 5].map(|_: f64| rng.uniform());
    uniform.sort_by(f64::total_cmp);
    TOKENS_MIN + (uniform[j.clamp(1, 5) - 1] * width) as u64
}

fn domain(source: &Source, rng: &mut Rng) -> &'static str {
    let total = DOMAINS.iter().map(|domain| domain.share(source.field)).sum();
    let mut left = rng.below(total);
    for domain in &DOMAINS {
        let share = domain.share(source.field);
        if left < share {
            return domain.title;
        }
        left -= share;
    }
    unreachable!("the draw is below the sum of the shares")
}

/// The same question with one word in twenty replaced by a number.
fn reword(question: &str, rng: &mut Rng) -> String {
    let mut word = |word: &str| match rng.below(20) {
        0 => rng.below(100).to_string(),
        _ => word.to_string(),
    };
    question.split(' ').map(&mut word).collect::<Vec<_>>().join(" ")
}

/// 8 to 20 words of `held_out` inside `question`, in other case and spacing now and then.
fn with_passage(question: &str, held_out: &str, rng: &mut Rng) -> String {
    let words: Vec<&str> = held_out.split_whitespace().collect();
    let from = rng.below(words.len() as u64 - 20) as usize;
    let mut passage = words[from..from + 8 + rng.below(13) as usize].join(" ");
    match rng.below(3) {
        0 => passage = passage.to_uppercase(),
        1 => passage = passage.replacen(' ', "\u{a0}\n", 2),
        _ => {}
    }
    let at = question.match_indices(' ').nth(3).map_or(question.len(), |(at, _)| at);
    format!("{} {passage}{}", &question[..at], &question[at..])
}

/// One question in 21 gets one of the signs of a broken text.
fn damage(question: &mut String, rng: &mut Rng) {
    let number = 1 + rng.below(999);
    match rng.below(84) {
        0 => question.push_str("\n[asy] draw((0,0)--(1,1)); [/asy]"),
        1 => question.push_str("\n![Image](https://example.org/figure.png)"),
        2 => question.insert_str(0, &format!("p{number}. ")),
        3 => question.insert_str(0, &format!("**Problem{number}** ")),
        _ => {}
    }
}

/// What the model calls and the grader did not bring back.
fn forget(row: &mut Row, source: &Source, rng: &mut Rng) {
    if rng.below(59_029) < 43 {
        row.thinking_trajectories.clear();
        row.attempt = None;
        row.gemini_length = None;
    }
    if !source.solutions || rng.below(100) < 6 {
        (row.isgeminicorrect, row.isqwen7bcorrect, row.isqwen32bcorrect) = (None, None, None);
    }
    if rng.below(100) == 0 {
        row.domain = None;
    }
}
