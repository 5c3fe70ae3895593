//! The mathematics of [`crate::equivalent()`]: one parser to a small tree, then comparison by kind.
//!
//! In reading order: `expression` (the tree), `lexer` with `names` and `glyphs`, `parser` with
//! `operand`, `numeral`, `command` and `units`; `compare` (collections and scalars), `relation`,
//! `sets`; `exact` with `monomial` and `form` (canonical forms), `probe` with `complex` (numbers at
//! many points); `budget` (what all of it may cost).

mod budget;
mod command;
mod compare;
mod complex;
mod exact;
mod expression;
mod form;
mod glyphs;
mod lexer;
mod monomial;
mod names;
mod numeral;
mod operand;
mod parser;
mod probe;
mod relation;
mod sets;
mod units;

pub use compare::{Comparison, Outcome};
pub use expression::Expr;
pub use lexer::Comma;
pub use names::modifies;
pub use numeral::in_words;
pub use parser::{Reading, parse};
