//! The long run of mutated answers: no panic, and no call beyond 20 milliseconds.
//!
//! `cargo run --release -p grading --example fuzz -- 1000000 [ROWS.jsonl…]` changes the built-in
//! answers and those of the files (their `pred`, `gold` and `output`) that many times, runs every
//! public function on the results, and prints the slowest. The same count gives the same inputs.

#[path = "../tests/mutate/mod.rs"]
mod mutate;

use std::time::{Duration, Instant};

use grading::Mode;
use mutate::Random;

const LIMIT: Duration = Duration::from_millis(20);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().and_then(|count| count.parse::<u64>().ok());
    let rounds = rounds.expect("usage: fuzz COUNT [ROWS.jsonl…], such as fuzz 1000000");
    let mut answers = mutate::answers();
    for file in arguments {
        let rows = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
        for row in rows.lines() {
            let row: serde_json::Value = serde_json::from_str(row).expect("a JSON object a line");
            let texts = ["pred", "gold", "output"].map(|key| row[key].as_str());
            answers.extend(texts.into_iter().flatten().map(String::from));
        }
    }
    let (mut slowest, mut slow, mut asymmetric) = (Duration::ZERO, 0, 0);
    let mut rules = std::collections::BTreeMap::<_, u64>::new();
    for round in 0..rounds {
        let mut random = Random(round);
        let given = mutate::mutated(&mut random, &answers);
        let unchanged = random.below(2) == 0;
        let expected = match unchanged {
            true => answers[random.below(answers.len())].clone(),
            false => mutate::mutated(&mut random, &answers),
        };
        let mut took = all(&given, &expected);
        // A machine that is busy with something else is slow once; a slow input is slow always.
        let mut tries = 0;
        while took > LIMIT / 20 && tries < 20 {
            took = took.min(all(&given, &expected));
            tries += 1;
        }
        if took > LIMIT {
            slow += 1;
            println!("slow, {took:?}: {given:?} against {expected:?}");
        }
        if took > slowest {
            slowest = took;
            println!("round {round}: the slowest so far, {took:?}, {} bytes", given.len());
        }
        let verdict = grading::equivalent(&given, &expected);
        *rules.entry(verdict.rule).or_default() += 1;
        if grading::equivalent(&expected, &given) != verdict {
            asymmetric += 1;
            println!("not symmetric: {given:?} against {expected:?}");
        }
        if !grading::equivalent(&given, &given).equal {
            asymmetric += 1;
            println!("not reflexive: {given:?}");
        }
    }
    println!("{rounds} rounds, slowest {slowest:?}, beyond {LIMIT:?}: {slow}; rules {rules:?}");
    assert!(slow == 0 && asymmetric == 0, "see the inputs above");
}

/// The longest of one call of each function.
fn all(given: &str, expected: &str) -> Duration {
    let calls: [&dyn Fn() -> bool; 5] = [
        &|| grading::equivalent(given, expected).equal,
        &|| grading::extract(given, Mode::S1).is_some(),
        &|| grading::extract(given, Mode::Strict).is_some(),
        &|| grading::choice(given, Mode::Strict).is_some(),
        &|| grading::exact(given, expected).equal,
    ];
    let took = calls.map(|call| {
        let start = Instant::now();
        std::hint::black_box(call());
        start.elapsed()
    });
    took.into_iter().max().unwrap_or_default()
}
