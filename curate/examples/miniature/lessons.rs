//! What the base model reads: the world's facts and single steps, never a whole chain of thought.

use record::seed::Rng;

use crate::trace::solution;
use crate::words::WORLDS;
use crate::world::{FACTS, LONGEST, Walk, World, ask};

/// One lesson of each sort in turn.
const SORTS: [fn(usize, &mut Rng) -> String; 10] =
    [facts, repeats, walk, walk, walk, comparisons, seconds, comparisons, targets, answers];

/// The `nth` lesson.
pub fn lesson(nth: usize, draws: &mut Rng) -> String {
    let kind = draws.below(WORLDS.len() as u64) as usize;
    SORTS[nth % SORTS.len()](kind, draws)
}

fn some(world: &World, count: usize, draws: &mut Rng) -> Vec<usize> {
    let mut things: Vec<usize> = (0..world.kind.names.len()).collect();
    draws.shuffle(&mut things);
    things.truncate(count);
    things
}

/// Which thing has which properties.
fn facts(kind: usize, draws: &mut Rng) -> String {
    let world = &FACTS[kind];
    let mut text = String::from("Facts:");
    for thing in some(world, 24, draws) {
        let [first, second] = world.properties(thing);
        text += &match draws.below(2) {
            0 => format!(" {} {first}.", world.name(thing)),
            _ => format!(" {} {first} {second}.", world.name(thing)),
        };
    }
    text
}

/// Things in some order, three times.
fn repeats(kind: usize, draws: &mut Rng) -> String {
    let world = &FACTS[kind];
    let count = 4 + draws.below(16) as usize;
    let names: Vec<&str> =
        some(world, count, draws).iter().map(|thing| world.name(*thing)).collect();
    format!("Again: {}.", [names.join(" "), names.join(" "), names.join(" ")].join(". "))
}

/// A question's course, walked from its start: mostly a shorter one than questions have.
fn walk(kind: usize, draws: &mut Rng) -> String {
    let world = &FACTS[kind];
    if world.kind.walk == Walk::Count || draws.below(4) == 0 {
        let question = ask(kind, 1 + draws.below(LONGEST as u64) as usize, draws);
        let names: Vec<&str> = question.path.iter().map(|thing| world.name(*thing)).collect();
        return format!("{} Walk: {}.", question.text, names.join(" "));
    }
    let mut text = String::new();
    for _ in 0..2 {
        let count = 2 + draws.below(14).min(draws.below(14)) as usize;
        let names: Vec<&str> =
            some(world, count, draws).iter().map(|thing| world.name(*thing)).collect();
        let head = world.kind.question.split(':').next().expect("a head");
        let head = if text.is_empty() { head.to_string() } else { format!("\n{head}") };
        text += &match world.kind.walk {
            Walk::List => format!("{head}: {}. Walk: {}.", names.join(", "), names.join(" ")),
            _ => {
                let next = names.iter().cycle().skip(1);
                let mut pairs: Vec<String> =
                    names.iter().zip(next).map(|(a, b)| format!("{a} {b}")).collect();
                draws.shuffle(&mut pairs);
                let start = names[0];
                format!("{head}: {}. From {start} Walk: {}.", pairs.join(", "), names.join(" "))
            }
        };
    }
    text
}

/// Whether two words are the same.
fn comparisons(kind: usize, draws: &mut Rng) -> String {
    let kind = FACTS[kind].kind;
    let mut text = String::from("Same:");
    for _ in 0..28 {
        let words: &[&str] = if draws.below(2) == 0 { &kind.firsts } else { &kind.seconds };
        let [a, mut b] = [(); 2].map(|()| words[draws.below(words.len() as u64) as usize]);
        if draws.below(3) == 0 {
            b = a;
        }
        text += &format!(" {a} {b}? {}.", if a == b { "yes" } else { "no" });
    }
    text
}

/// A thing's first property, a comparison, and its second one.
fn seconds(kind: usize, draws: &mut Rng) -> String {
    let world = &FACTS[kind];
    let mut text = String::from("Also:");
    for thing in some(world, 16, draws) {
        let [first, second] = world.properties(thing);
        let asked = world.kind.firsts[draws.below(3) as usize];
        let verdict = if asked == first { "yes" } else { "no" };
        text += &format!(" {} {first} {asked}? {verdict}, {second}.", world.name(thing));
    }
    text
}

/// What is looked for.
fn targets(kind: usize, draws: &mut Rng) -> String {
    let question = ask(kind, 1 + draws.below(LONGEST as u64) as usize, draws);
    let [first, second] = FACTS[kind].words(question.target);
    format!("{} Find {first} {second}.", question.text)
}

/// A question that is answered at once, in the chat's format; mostly one that needs few steps.
fn answers(kind: usize, draws: &mut Rng) -> String {
    let steps = (0..3).map(|_| 1 + draws.below(LONGEST as u64) as usize).min().expect("three");
    let question = ask(kind, steps, draws);
    format!(
        "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\nFinal Answer: {}<|im_end|>\n",
        question.text,
        solution(&question)
    )
}
