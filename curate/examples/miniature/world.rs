//! The miniature's world: twelve kinds of things, each with a colour-like and a second property, and
//! three ways to walk from one to the next.
//!
//! A question names a walk and two properties; its answer is the first thing on the walk that has
//! both. Which thing has which property stands nowhere in the question: it is the world's knowledge,
//! learned in pre-training. One step (go on, recall, compare) is easy; the number of steps is not
//! known before they are taken, so nobody answers well without taking them.

use std::sync::LazyLock;

use record::seed::{Rng, rng};

use crate::words::{Kind, WORLDS};

/// The world's own seed: who has which property is the same in every run.
const SEED: u64 = 1000;

/// Things on a map or in a list.
const SHOWN: usize = 16;
/// Of those, the things that have both properties: the answer and its decoys.
const MATCHES: usize = 5;
/// The longest walk, the answer included: all that do not match come before it.
pub const LONGEST: usize = SHOWN - MATCHES + 1;

/// How one gets from a thing to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// As the pairs in the question say.
    Follow,
    /// In the order of the question.
    List,
    /// So many places on in the kind's own order, which is knowledge.
    Count,
}

/// One kind's facts.
pub struct World {
    /// Its words.
    pub kind: &'static Kind,
    /// The first and second property of each thing, as places in the kind's words.
    facts: Vec<[usize; 2]>,
}

/// A question and the walk that answers it.
#[derive(Clone)]
pub struct Question {
    /// The kind's place in [`WORLDS`].
    pub kind: usize,
    /// As it is asked.
    pub text: String,
    /// The properties that are looked for.
    pub target: [usize; 2],
    /// The things in the order of the walk, until none is new.
    pub path: Vec<usize>,
    /// How many of them are looked at until the answer, which is the last.
    pub steps: usize,
}

/// All kinds with their facts.
pub static FACTS: LazyLock<Vec<World>> = LazyLock::new(|| {
    let world = |kind: &'static Kind| {
        let pairs = kind.firsts.len() * kind.seconds.len();
        let mut facts: Vec<[usize; 2]> = (0..kind.names.len())
            .map(|nth| [nth % pairs / kind.seconds.len(), nth % kind.seconds.len()])
            .collect();
        rng(SEED, &["facts", kind.domain]).shuffle(&mut facts);
        World { kind, facts }
    };
    WORLDS.iter().map(world).collect()
});

impl World {
    /// Whether a thing has the first property of `target`, and the second.
    pub fn has(&self, thing: usize, target: [usize; 2]) -> [bool; 2] {
        let facts = self.facts[thing];
        [facts[0] == target[0], facts[1] == target[1]]
    }

    /// A thing's name.
    pub fn name(&self, thing: usize) -> &'static str {
        self.kind.names[thing]
    }

    /// The words of two properties.
    pub fn words(&self, [first, second]: [usize; 2]) -> [&'static str; 2] {
        [self.kind.firsts[first], self.kind.seconds[second]]
    }

    /// The words of a thing's properties.
    pub fn properties(&self, thing: usize) -> [&'static str; 2] {
        self.words(self.facts[thing])
    }
}

/// A random question of a kind whose answer is the `steps`th thing of the walk.
pub fn ask(kind: usize, steps: usize, draws: &mut Rng) -> Question {
    let world = &FACTS[kind];
    loop {
        let target = [world.kind.firsts.len(), world.kind.seconds.len()]
            .map(|words| draws.below(words as u64) as usize);
        let found = match world.kind.walk {
            Walk::Count => count_on(world, target, steps, draws),
            _ => lay_out(world, target, steps, draws),
        };
        let Some((path, course)) = found else { continue };
        let [first, second] = world.words(target);
        let text = world.kind.question.replace("{course}", &course);
        let text = text.replace("{start}", world.name(path[0]));
        let text = text.replace("{first}", first).replace("{second}", second);
        return Question { kind, text, target, path, steps };
    }
}

/// Draws the things that are shown, and their order: those that match come from the `steps`th place
/// on, anywhere. On a map the last leads to the first again.
fn lay_out(
    world: &World,
    target: [usize; 2],
    steps: usize,
    draws: &mut Rng,
) -> Option<(Vec<usize>, String)> {
    let mut things: Vec<usize> = (0..world.kind.names.len()).collect();
    draws.shuffle(&mut things);
    let (matching, others): (Vec<usize>, Vec<usize>) =
        things.into_iter().partition(|thing| world.has(*thing, target) == [true, true]);
    let (mut matching, mut others) = (matching.into_iter(), others.into_iter());
    let mut path: Vec<usize> = others.by_ref().take(steps - 1).collect();
    path.extend(matching.next());
    let mut rest: Vec<usize> = matching.take(MATCHES - 1).collect();
    rest.extend(others.take(SHOWN - MATCHES + 1 - steps));
    draws.shuffle(&mut rest);
    path.extend(rest);
    if path.len() < SHOWN {
        return None;
    }
    let course = match world.kind.walk {
        Walk::List => path.iter().map(|thing| world.name(*thing).to_string()).collect::<Vec<_>>(),
        _ => {
            let next = path.iter().cycle().skip(1);
            let pairs = path.iter().zip(next);
            let mut pairs: Vec<String> =
                pairs.map(|(a, b)| format!("{} {}", world.name(*a), world.name(*b))).collect();
            draws.shuffle(&mut pairs);
            pairs
        }
    };
    Some((path, course.join(", ")))
}

/// Draws a start and a step, if the first match is then at the right place.
fn count_on(
    world: &World,
    target: [usize; 2],
    steps: usize,
    draws: &mut Rng,
) -> Option<(Vec<usize>, String)> {
    let n = world.kind.names.len();
    let stride = world.kind.strides[draws.below(world.kind.strides.len() as u64) as usize];
    let start = draws.below(n as u64) as usize;
    let path: Vec<usize> = (0..n).map(|nth| (start + nth * stride) % n).collect();
    let first = path.iter().position(|thing| world.has(*thing, target) == [true, true])?;
    (first + 1 == steps).then(|| (path, stride.to_string()))
}
