//! The miniature's tables: held-out questions, and a pool of 59,029 with everything that s1's pool
//! has, flaws included.

use std::collections::BTreeSet;

use record::question::question_hash;
use record::row::Row;
use record::seed::{Rng, rng};
use serde_json::{Value, json};

use crate::trace::{Teacher, solution, think};
use crate::words::WORLDS;
use crate::world::{FACTS, LONGEST, Question, Walk, ask};

/// Of all draws but the facts themselves.
pub const SEED: u64 = 1;
/// As many as s1 collected.
const POOL: usize = 59_029;
/// Held-out questions of each kind: some for each length.
const EVAL_PER_KIND: usize = 2 * LONGEST;
/// Of a hundred questions, how many are of each kind: as uneven as s1's sources, of which one made
/// half. Kinds that are counted have no more questions to ask.
const SHARES: [usize; 12] = [27, 1, 18, 14, 11, 8, 7, 1, 5, 4, 3, 1];
/// A question of the pool is as short as the shortest of so many draws: most are easy.
const SHORTEST_OF: usize = 3;

/// Teachers differ in patience, from the first to the second.
const PATIENCE: [f64; 2] = [0.2, 0.6];
const DOUBT: f64 = 0.25;
const SLIPS: f64 = 0.04;

/// What spoils a row.
type Flaw = fn(&mut Row);

/// Flaws of single rows, and in how many rows each is planted.
const FLAWS: [(usize, Flaw); 8] = [
    (240, |row| row.question.push_str(" [asy] draw((0,0)--(1,0)); [/asy]")),
    (240, |row| row.question.push_str(" ![Image](figure.png)")),
    (240, |row| row.question.insert_str(0, "p12. ")),
    (240, |row| row.question.insert_str(0, "**3.** ")),
    (360, |row| row.solution = None),
    (240, without_trace),
    (180, |row| row.domain = None),
    (120, |row| row.question.truncate(row.question.len() / 2)),
];
/// Rows that stand in the pool a second time.
const DUPLICATES: usize = 780;
/// Rows that stand in it again with their pairs in another order.
const REORDERED: usize = 400;

/// Both tables.
pub struct Tables {
    /// Without what models have to say: `curate featurise` adds that.
    pub pool: Vec<Row>,
    /// One JSON object a held-out question.
    pub eval: Vec<Value>,
}

/// Draws both tables.
pub fn tables() -> Tables {
    let mut seen = BTreeSet::new();
    let kinds: Vec<usize> = (0..WORLDS.len()).collect();
    let mut draws = rng(SEED, &["held out"]);
    let held_out = kinds.iter().cycle().take(EVAL_PER_KIND * kinds.len()).enumerate();
    let eval: Vec<Question> = held_out
        .map(|(nth, kind)| {
            let steps = 1 + nth / kinds.len() % LONGEST;
            new(&mut seen, || ask(*kind, steps, &mut draws))
        })
        .collect();
    let leaks = overlaps(&eval);
    let mut draws = rng(SEED, &["pool"]);
    let deck: Vec<usize> =
        kinds.iter().flat_map(|kind| std::iter::repeat_n(*kind, SHARES[*kind])).collect();
    let sound = POOL - DUPLICATES - REORDERED - leaks.len();
    let questions = (0..sound).map(|_| {
        let kind = deck[draws.below(deck.len() as u64) as usize];
        new(&mut seen, || {
            let steps = (0..SHORTEST_OF).map(|_| 1 + draws.below(LONGEST as u64) as usize).min();
            ask(kind, steps.expect("some draws"), &mut draws)
        })
    });
    let questions: Vec<Question> = questions.collect();
    let mut draws = rng(SEED, &["rows"]);
    let mut rows: Vec<Row> = questions.iter().map(|q| row(q, &mut draws)).collect();
    rows.extend(reordered(&questions));
    plant_flaws(&mut rows);
    rows.extend(duplicates(&rows));
    rows.extend(leaks);
    rng(SEED, &["order"]).shuffle(&mut rows);
    assert_eq!(rows.len(), POOL);
    Tables { pool: rows, eval: eval.iter().map(held_out_row).collect() }
}

/// A question whose text is not in `seen` yet.
fn new(seen: &mut BTreeSet<String>, mut draw: impl FnMut() -> Question) -> Question {
    loop {
        let question = draw();
        if seen.insert(question.text.clone()) {
            return question;
        }
    }
}

fn held_out_row(question: &Question) -> Value {
    json!({
        "id": question_hash(&question.text),
        "question": question.text,
        "answer": solution(question),
        "domain": WORLDS[question.kind].domain,
        "steps": question.steps,
    })
}

/// A sound row with a teacher's trace.
fn row(question: &Question, draws: &mut Rng) -> Row {
    let kind = &WORLDS[question.kind];
    let patience = PATIENCE[0] + (PATIENCE[1] - PATIENCE[0]) * draws.uniform();
    let answered = think(question, Teacher { patience, doubt: DOUBT, slips: SLIPS }, draws);
    Row {
        solution: Some(solution(question).to_string()),
        question: question.text.clone(),
        cot_type: kind.cot_type.to_string(),
        source_type: source_type(question, draws).to_string(),
        metadata: format!("{{'steps': {}}}", question.steps),
        thinking_trajectories: vec![answered.trace],
        attempt: Some(format!("Final Answer: {}", answered.answer)),
        domain: Some(kind.domain.to_string()),
        ..Row::default()
    }
}

/// Most questions come from their kind's own source; a few of the longest play the parts of s1's
/// AIME (`miniature/olympiad`) and GPQA (`miniature/expert`).
fn source_type(question: &Question, draws: &mut Rng) -> &'static str {
    match draws.below(10) {
        0 if question.steps > 8 => "miniature/olympiad",
        1 if question.steps > 8 => "miniature/expert",
        _ => WORLDS[question.kind].source_type,
    }
}

fn plant_flaws(rows: &mut [Row]) {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    rng(SEED, &["flaws"]).shuffle(&mut order);
    let flaws = FLAWS.iter().flat_map(|(count, flaw)| std::iter::repeat_n(flaw, *count));
    for (flaw, nth) in flaws.zip(order) {
        flaw(&mut rows[nth]);
    }
}

fn without_trace(row: &mut Row) {
    row.thinking_trajectories.clear();
    row.attempt = None;
}

/// Copies of rows, as a second source would bring them.
fn duplicates(rows: &[Row]) -> Vec<Row> {
    let mut draws = rng(SEED, &["duplicates"]);
    let mirror = || "miniature/mirror".to_string();
    let mut copy = || {
        let row = &rows[draws.below(rows.len() as u64) as usize];
        Row { source_type: mirror(), ..row.clone() }
    };
    (0..DUPLICATES).map(|_| copy()).collect()
}

/// Questions with a map again, its pairs in another order.
fn reordered(questions: &[Question]) -> Vec<Row> {
    let mut draws = rng(SEED, &["reordered"]);
    let maps = questions.iter().filter(|q| FACTS[q.kind].kind.walk == Walk::Follow);
    let again = maps.take(REORDERED).map(|question| {
        let (head, rest) = question.text.split_once(": ").expect("a map");
        let (map, tail) = rest.split_once(". ").expect("a question behind it");
        let mut pairs: Vec<&str> = map.split(", ").collect();
        draws.shuffle(&mut pairs);
        let text = format!("{head}: {}. {tail}", pairs.join(", "));
        row(&Question { text, ..question.clone() }, &mut draws)
    });
    again.collect()
}

/// The longer held-out questions again, as they are, behind a new beginning, or with a new end.
fn overlaps(eval: &[Question]) -> Vec<Row> {
    let mut draws = rng(SEED, &["overlaps"]);
    let long = eval.iter().filter(|question| question.steps > 8).enumerate();
    let leak = |(nth, question): (usize, &Question)| {
        let mut leaked = row(question, &mut draws);
        match nth % 3 {
            0 => {}
            1 => leaked.question.insert_str(0, "Problem: "),
            _ => leaked.question.push_str(" Show every step."),
        }
        leaked
    };
    long.map(leak).collect()
}
