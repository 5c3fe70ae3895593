//! Is this answer right? Extraction of a completion's final answer, and equivalence of two answers.
//!
//! Pure functions of strings: no input or output, no clock, no threads, no dependencies. Every
//! function is total: any text gives a result in time linear in its length, without recursion.
//! What a function cannot prove equal it calls different; it never guesses.
//!
//! It deliberately does not parse mathematics beyond plain numbers and simple fractions, and it
//! asks no language model.
//!
//! Modules in reading order:
//! - [`extract()`]: the final answer of a completion, as s1's evaluation finds it
//! - [`equivalent()`]: are two answers the same, and which rule decided
//!
//! ```
//! let completion = "<|im_start|>think\n6*7<|im_start|>answer\nFinal Answer: \\boxed{042}";
//! let answer = grading::extract(completion, grading::Mode::Strict).unwrap();
//! let verdict = grading::equivalent(&answer.text, "$42$");
//! assert!(verdict.equal && verdict.rule == "integer");
//! ```

mod equivalent;
mod extract;
mod math;
mod text;

pub use equivalent::{Explanation, Verdict, equivalent, exact, explain};
pub use extract::{Extracted, Mode, choice, extract};
