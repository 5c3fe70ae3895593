//! The mathematics of [`crate::equivalent()`]: one parser to a small tree, then comparison by kind.
//!
//! In reading order: `expression` (the tree), `lexer`, `parser` with `operand` and `units`,
//! `compare` (collections and scalars), `relation`, `sets`, `exact` with `form` (canonical forms),
//! `probe` with `complex` (numbers at many points).

mod compare;
mod complex;
mod exact;
mod expression;
mod form;
mod lexer;
mod operand;
mod parser;
mod probe;
mod relation;
mod sets;
mod units;

pub use compare::{Outcome, compare};
pub use expression::Expr;
pub use lexer::Comma;
pub use parser::{Reading, parse};
