//! The demo's questions: six small worlds where an answer takes a walk of simple steps.
//!
//! Every world is a walk over keyed values that stand in the question: take the next, let it change
//! the state, go on; the last state is the answer. One step is easy to learn, all of them at once
//! are not, so whoever thinks longer is right more often.

use record::seed::Rng;

/// One kind of question.
pub struct World {
    /// Title of its MSC class.
    pub domain: &'static str,
    pub source_type: &'static str,
    pub cot_type: &'static str,
    /// First words of a question; `{}` is where the state begins.
    opening: &'static str,
    starts: &'static str,
    /// Every state a walk can end in.
    pub ends: &'static str,
    values: &'static [&'static str],
    /// The state after reading a value.
    step: fn(char, &str) -> char,
    ask: fn(&'static World, &mut Rng, usize) -> Question,
}

/// A question with the walk that answers it.
pub struct Question {
    pub world: &'static World,
    pub text: String,
    start: char,
    /// Keys and values in the order of the walk.
    reads: Vec<(char, String)>,
}

/// What a teacher writes about a question.
pub struct Answered {
    pub trace: String,
    pub answer: char,
}

pub static WORLDS: [World; 6] = [
    World {
        domain: "Number theory",
        source_type: "demo/ledger",
        cot_type: "math",
        opening: "Add modulo 10",
        starts: "0",
        ends: "0123456789",
        values: &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
        step: |state, value| digit((number(state) + parse(value)) % 10),
        ask: fold,
    },
    World {
        domain: "Difference and functional equations",
        source_type: "demo/ledger",
        cot_type: "math",
        opening: "Iterate 3x+k modulo 10 from {}",
        starts: "0123456789",
        ends: "0123456789",
        values: &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
        step: |state, value| digit((3 * number(state) + parse(value)) % 10),
        ask: fold,
    },
    World {
        domain: "Group theory and generalizations",
        source_type: "demo/algebra",
        cot_type: "math",
        opening: "Multiply in S3",
        starts: "E",
        ends: S3,
        values: &["E", "R", "Q", "A", "B", "C"],
        step: |state, value| times(state, value.chars().next().expect("not empty")),
        ask: fold,
    },
    World {
        domain: "Game theory, economics, social and behavioral sciences",
        source_type: "demo/games",
        cot_type: "math",
        opening: "Nim-sum of heaps",
        starts: "0",
        ends: "01234567",
        values: &["0", "1", "2", "3", "4", "5", "6", "7"],
        step: |state, value| digit(number(state) ^ parse(value)),
        ask: fold,
    },
    World {
        domain: "Computer science",
        source_type: "demo/machines",
        cot_type: "coding",
        opening: "Swap cups with ball at {}",
        starts: "12345",
        ends: "12345",
        values: &["12", "13", "14", "15", "23", "24", "25", "34", "35", "45"],
        step: swap,
        ask: fold,
    },
    World {
        domain: "Combinatorics",
        source_type: "demo/maps",
        cot_type: "math",
        opening: "Follow from {}",
        starts: "ABCDEFGHIJKLMNOPQRST",
        ends: "UVWXYZ",
        values: &[],
        step: |_, value| value.chars().next().expect("not empty"),
        ask: follow,
    },
];

impl World {
    /// A random question whose answer takes `steps` steps.
    pub fn ask(&'static self, rng: &mut Rng, steps: usize) -> Question {
        (self.ask)(self, rng, steps)
    }
}

impl Question {
    pub fn steps(&self) -> usize {
        self.reads.len()
    }

    /// The walk, written as ` key value -> state` step by step behind the first state. With `slip`
    /// its last state is that one, whatever the rule says.
    pub fn walk(&self, slip: Option<char>) -> Answered {
        let mut state = self.start;
        let mut trace = state.to_string();
        for (nth, (key, value)) in self.reads.iter().enumerate() {
            let last = nth + 1 == self.reads.len();
            state = (self.world.step)(state, value);
            state = slip.filter(|_| last).unwrap_or(state);
            trace.push_str(&format!(" {key}{value}->{state}"));
        }
        Answered { trace, answer: state }
    }
}

/// Takes the keyed values one after the other, as they stand.
fn fold(world: &'static World, rng: &mut Rng, steps: usize) -> Question {
    let start = *pick(rng, &chars(world.starts));
    // No `p`: a question that ends in `p8.` would look like a broken numbering to s1's rules.
    let mut keys: Vec<char> = ('a'..='t').filter(|key| *key != 'p').collect();
    rng.shuffle(&mut keys);
    let value = |key: &char| (*key, pick(rng, world.values).to_string());
    let reads: Vec<_> = keys[..steps].iter().map(value).collect();
    Question { world, text: statement(world, start, &reads), start, reads }
}

/// Follows arrows between towns until an exit: a letter without an arrow of its own. Two more
/// roads to other exits stand somewhere between the walk's own.
fn follow(world: &'static World, rng: &mut Rng, steps: usize) -> Question {
    let mut towns = chars(world.starts);
    rng.shuffle(&mut towns);
    let mut exits = chars(world.ends);
    rng.shuffle(&mut exits);
    let road = |nth: usize, to: char| (towns[nth].to_ascii_lowercase(), to.to_string());
    let to = |nth: usize| if nth + 1 < steps { towns[nth + 1] } else { exits[0] };
    let reads: Vec<_> = (0..steps).map(|nth| road(nth, to(nth))).collect();
    let mut roads = reads.clone();
    for (nth, exit) in exits[1..=2].iter().enumerate() {
        let place = rng.below(roads.len() as u64 + 1) as usize;
        roads.insert(place, road(steps + 1 + nth, *exit));
    }
    Question { world, text: statement(world, towns[0], &roads), start: towns[0], reads }
}

/// The opening and the keyed values.
fn statement(world: &World, start: char, values: &[(char, String)]) -> String {
    let items: Vec<_> = values.iter().map(|(key, value)| format!("{key}{value}")).collect();
    format!("{}: {}.", world.opening.replace("{}", &start.to_string()), items.join(", "))
}

/// The symmetries of a triangle: turns by 0, 1, 2 thirds, then each behind a reflection.
const S3: &str = "ERQABC";

/// The product in S3: r^i s^a r^j s^b = r^(i + j or i - j) s^(a+b), since s r = r^-1 s.
fn times(left: char, right: char) -> char {
    let of = |element| S3.find(element).expect("an element of S3");
    let (turn, other) = (of(left) % 3, of(right) % 3);
    let (flipped, flips) = (of(left) >= 3, of(right) >= 3);
    let turn = if flipped { turn + 3 - other } else { turn + other } % 3;
    chars(S3)[turn + if flipped == flips { 0 } else { 3 }]
}

/// Where the ball is after two cups changed places.
fn swap(ball: char, cups: &str) -> char {
    match cups.split_at(1) {
        (left, right) if left.contains(ball) => chars(right)[0],
        (left, right) if right.contains(ball) => chars(left)[0],
        _ => ball,
    }
}

pub fn chars(text: &str) -> Vec<char> {
    text.chars().collect()
}

pub fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.below(from.len() as u64) as usize]
}

fn number(state: char) -> u32 {
    state.to_digit(10).expect("a digit")
}

fn parse(value: &str) -> u32 {
    value.parse().expect("a digit")
}

fn digit(number: u32) -> char {
    char::from_digit(number, 10).expect("below 10")
}
