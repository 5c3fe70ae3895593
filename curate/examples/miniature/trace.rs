//! What a teacher writes about a question: step by step, now and then too hasty.

use record::seed::Rng;

use crate::world::{FACTS, Question};

/// A teacher's habits.
#[derive(Clone, Copy)]
pub struct Teacher {
    /// How likely it looks at the second property when the first one fits, instead of answering.
    pub patience: f64,
    /// How likely it looks once more when both fit.
    pub doubt: f64,
    /// How likely it misreads one thing of a question.
    pub slips: f64,
}

/// A trace and the answer it comes to.
pub struct Answered {
    /// The steps.
    pub trace: String,
    /// A thing's name.
    pub answer: &'static str,
}

/// The name that is right.
pub fn solution(question: &Question) -> &'static str {
    FACTS[question.kind].name(question.path[question.steps - 1])
}

/// A teacher's thinking: `Find red tower. Dover blue red? no. Goole red red? yes. Wait, market
/// tower? no. ...`. It ends where the teacher is content, at a thing that fits or half fits.
pub fn think(question: &Question, teacher: Teacher, draws: &mut Rng) -> Answered {
    let world = &FACTS[question.kind];
    let [first, second] = world.words(question.target);
    let slip =
        (draws.uniform() < teacher.slips).then(|| draws.below(question.steps as u64) as usize);
    let mut trace = format!("Find {first} {second}.");
    for (nth, thing) in question.path.iter().enumerate() {
        let [mut stated, other] = world.properties(*thing);
        if slip == Some(nth) {
            let others = world.kind.firsts.iter().filter(|word| **word != stated);
            stated = others.clone().nth(draws.below(2) as usize).expect("three words");
        }
        let name = world.name(*thing);
        if stated != first {
            trace += &format!(" {name} {stated} {first}? no.");
            continue;
        }
        trace += &format!(" {name} {stated} {first}? yes.");
        if draws.uniform() >= teacher.patience {
            return Answered { trace, answer: name };
        }
        trace += &wait(other, second);
        if other != second {
            continue;
        }
        while draws.uniform() < teacher.doubt {
            trace += &wait(other, second);
        }
        return Answered { trace, answer: name };
    }
    // Only a slip walks past the answer: around to where it began.
    Answered { trace, answer: world.name(question.path[0]) }
}

/// A look at the second property.
fn wait(stated: &str, second: &str) -> String {
    format!(" Wait, {stated} {second}? {}.", if stated == second { "yes" } else { "no" })
}
