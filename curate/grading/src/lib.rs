//! Is this answer right? Extraction of a completion's final answer, and equivalence of two answers.
//!
//! Pure functions of strings: no input or output, no clock, no threads. Every function is total:
//! any text gives a result within a budget of steps, with bounded recursion and memory. Equal is what
//! is the same by algebra or, under the rule `probe`, at every one of many points to the precision of
//! a double; what neither shows is not called equal.
//!
//! It deliberately asks no language model, does not know the question (so it cannot tell when 24
//! hours are as good an answer as one day), and never guesses a choice.
//!
//! Modules in reading order:
//! - [`extract()`], [`choice()`]: the final answer of a completion, as s1 finds it or strictly
//! - [`equivalent()`], [`explain()`]: are two answers the same, and which rule decided
//! - `text`: answers as text, one way of writing for each of LaTeX's synonyms
//! - `letters`: the letter of a multiple choice, names whose letters have an order
//! - `math`: a parser to small trees, and their comparison by kind
//!
//! The program `grade` (`src/bin/grade.rs`) does the same for rows of JSON; README.md has the rules
//! and the figures.
//!
//! ```
//! let completion = "<|im_start|>think\n6*7<|im_start|>answer\nFinal Answer: \\boxed{042}";
//! let answer = grading::extract(completion, grading::Mode::Strict).unwrap();
//! let verdict = grading::equivalent(&answer.text, "$42$");
//! assert!(verdict.equal && verdict.rule == "integer");
//! ```

mod equivalent;
mod extract;
mod letters;
mod math;
mod text;

pub use equivalent::{Explanation, Verdict, equivalent, exact, explain};
pub use extract::{Extracted, Mode, choice, extract};
