//! The demo's tables: held-out questions, and a pool of questions with everything that a real
//! pool has, flaws included.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use record::question::question_hash;
use record::row::Row;
use record::seed::{Rng, rng};
use serde_json::{Value, json};

use crate::tokenizer;
use crate::world::{Question, WORLDS, chars, pick};

const SEED: u64 = 1;
const STEPS: RangeInclusive<usize> = 1..=8;
const POOL_PER_WORLD: usize = 1600;
const EVAL_PER_WORLD: usize = 20;

/// How often the teacher slips in the last step of its trace.
const TEACHER_SLIPS: f64 = 0.04;
/// How likely the two students solve a question of no steps, and how much less each step makes it.
/// A rule says so; no model was asked.
const SMALL_STUDENT: (f64, f64) = (0.35, 0.02);
const LARGE_STUDENT: (f64, f64) = (0.45, 0.02);

/// What spoils a row.
type Flaw = fn(&mut Row);

/// Flaws of single rows, and in how many rows each is planted.
const FLAWS: [(usize, Flaw); 8] = [
    (40, |row| row.question.push_str(" [asy] draw((0,0)--(1,0)); [/asy]")),
    (40, |row| row.question.push_str(" ![Image](figure.png)")),
    (40, |row| row.question.insert_str(0, "p12. ")),
    (40, |row| row.question.insert_str(0, "**3.** ")),
    (60, without_solution),
    (40, without_trace),
    (30, |row| row.domain = None),
    (20, |row| row.gemini_length = None),
];
/// Rows that stand in the pool a second time.
const DUPLICATES: usize = 130;

/// Both tables.
pub struct Tables {
    pub pool: Vec<Row>,
    /// One JSON object a held-out question.
    pub eval: Vec<Value>,
}

/// Draws both tables.
pub fn tables() -> Tables {
    let mut seen = BTreeSet::new();
    let eval = questions("eval", EVAL_PER_WORLD, 1, &mut seen);
    let pool = questions("pool", POOL_PER_WORLD, 2, &mut seen);
    let mut draws = rng(SEED, &["rows"]);
    let mut rows: Vec<Row> = pool.iter().map(|q| row(q, &mut draws)).collect();
    plant_flaws(&mut rows);
    rows.extend(duplicates(&rows));
    rows.extend(overlaps(&eval));
    rng(SEED, &["order"]).shuffle(&mut rows);
    Tables { pool: rows, eval: eval.iter().map(held_out).collect() }
}

/// `per_world` new questions of every world in turn, each as long as the shortest of so many draws;
/// none is in `seen` already.
fn questions(
    purpose: &str,
    per_world: usize,
    shortest_of: usize,
    seen: &mut BTreeSet<String>,
) -> Vec<Question> {
    let mut draws = rng(SEED, &["questions", purpose]);
    let lengths: Vec<usize> = STEPS.collect();
    let mut questions = Vec::new();
    for world in WORLDS.iter().cycle().take(per_world * WORLDS.len()) {
        let question = loop {
            let steps =
                (0..shortest_of).map(|_| *pick(&mut draws, &lengths)).min().expect("a length");
            let question = world.ask(&mut draws, steps);
            if seen.insert(question.text.clone()) {
                break question;
            }
        };
        questions.push(question);
    }
    questions
}

fn held_out(question: &Question) -> Value {
    json!({
        "id": question_hash(&question.text),
        "question": question.text,
        "answer": question.walk(None).answer.to_string(),
        "domain": question.world.domain,
    })
}

/// A sound row: the teacher's trace, the students' grades, the length.
fn row(question: &Question, draws: &mut Rng) -> Row {
    let right = question.walk(None).answer;
    let slip = (draws.uniform() < TEACHER_SLIPS).then(|| another(right, question, draws));
    let teacher = question.walk(slip);
    let steps = question.steps() as f64;
    let mut solves = |(start, less): (f64, f64)| Some(draws.uniform() < start - less * steps);
    Row {
        solution: Some(right.to_string()),
        question: question.text.clone(),
        cot_type: question.world.cot_type.to_string(),
        isqwen7bcorrect: solves(SMALL_STUDENT),
        isqwen32bcorrect: solves(LARGE_STUDENT),
        source_type: source_type(question, draws).to_string(),
        metadata: format!("{{'steps': {}}}", question.steps()),
        gemini_length: Some(tokenizer::tokens(&teacher.trace)),
        thinking_trajectories: vec![teacher.trace],
        attempt: Some(format!("Final Answer: {}", teacher.answer)),
        domain: Some(question.world.domain.to_string()),
        isgeminicorrect: Some(teacher.answer == right),
        ..Row::default()
    }
}

/// An end of the same world that is not `right`.
fn another(right: char, question: &Question, draws: &mut Rng) -> char {
    let ends: Vec<char> = chars(question.world.ends).into_iter().filter(|c| *c != right).collect();
    *pick(draws, &ends)
}

/// Most questions come from their world's own source; a few of the longest play the parts of s1's
/// AIME (`demo/olympiad`) and GPQA (`demo/expert`).
fn source_type(question: &Question, draws: &mut Rng) -> &'static str {
    match draws.below(10) {
        0 if question.steps() > 6 => "demo/olympiad",
        1 if question.steps() > 6 => "demo/expert",
        _ => question.world.source_type,
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

/// Without a solution nobody's answer can be graded.
fn without_solution(row: &mut Row) {
    row.solution = None;
    row.isgeminicorrect = None;
    row.isqwen7bcorrect = None;
    row.isqwen32bcorrect = None;
}

fn without_trace(row: &mut Row) {
    row.thinking_trajectories.clear();
    row.attempt = None;
    row.isgeminicorrect = None;
    row.gemini_length = None;
}

/// Copies of rows, as a second source would bring them.
fn duplicates(rows: &[Row]) -> Vec<Row> {
    let mut draws = rng(SEED, &["duplicates"]);
    let copy = |_| Row { source_type: "demo/mirror".to_string(), ..pick(&mut draws, rows).clone() };
    (0..DUPLICATES).map(copy).collect()
}

/// The longer held-out questions again, as they are, behind a new beginning, or with a new end.
fn overlaps(eval: &[Question]) -> Vec<Row> {
    let mut draws = rng(SEED, &["overlaps"]);
    let long = eval.iter().filter(|question| question.steps() > 5).enumerate();
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
