//! What an answer says, as a small tree.

use std::fmt::{Display, Formatter, Result, Write};

use num_rational::BigRational;
use num_traits::{One, Signed};

/// How two neighbours in a [`Expr::Relation`] stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    About,
    In,
    /// `≡`
    Congruent,
}

impl Relation {
    pub fn flipped(self) -> Self {
        match self {
            Relation::Less => Relation::Greater,
            Relation::LessEqual => Relation::GreaterEqual,
            Relation::Greater => Relation::Less,
            Relation::GreaterEqual => Relation::LessEqual,
            other => other,
        }
    }

    pub fn is_order(self) -> bool {
        self.flipped() != self
    }

    fn symbol(self) -> &'static str {
        match self {
            Relation::Equal => "=",
            Relation::Unequal => "≠",
            Relation::Less => "<",
            Relation::LessEqual => "≤",
            Relation::Greater => ">",
            Relation::GreaterEqual => "≥",
            Relation::About => "≈",
            Relation::In => "∈",
            Relation::Congruent => "≡",
        }
    }
}

/// What joins the items of a bare list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joint {
    /// A comma, a semicolon or `and`.
    And,
    /// `or`, at least once.
    Or,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    Number(BigRational),
    /// A number written with a decimal point: its value and its digits behind the point.
    Decimal(BigRational, i64),
    Symbol(String),
    Pi,
    /// The base of the natural logarithm.
    E,
    /// The imaginary unit.
    I,
    Infinity,
    Sum(Vec<Expr>),
    Product(Vec<Expr>),
    Quotient(Box<Expr>, Box<Expr>),
    Power(Box<Expr>, Box<Expr>),
    /// `±x`, or `∓x` when false.
    PlusMinus(bool, Box<Expr>),
    /// A known function or operator by its name, or what else is written like a call.
    Call(String, Vec<Expr>),
    /// A tuple, a vector or an interval: its opening and closing bracket and at least two items.
    Group(char, Vec<Expr>, char),
    /// Items without brackets.
    List(Vec<Expr>, Joint),
    Set(Vec<Expr>),
    Matrix(Vec<Vec<Expr>>),
    /// `first R second R third …`: one relation less than terms.
    Relation(Vec<Expr>, Vec<Relation>),
    /// A value with its unit; `°`, `%` and `$` are units too.
    Quantity(Box<Expr>, String),
    /// Minutes after midnight or noon, and which of them if it was said.
    Time(u32, Option<bool>),
    Text(String),
}

impl Expr {
    pub fn integer(value: i64) -> Expr {
        Expr::Number(BigRational::from_integer(value.into()))
    }

    pub fn negated(self) -> Expr {
        match self {
            Expr::Number(value) => Expr::Number(-value),
            Expr::Decimal(value, places) => Expr::Decimal(-value, places),
            Expr::Quantity(value, unit) => Expr::Quantity(Box::new(value.negated()), unit),
            other => Expr::Product(vec![Expr::integer(-1), other]),
        }
    }

    pub fn over(self, divisor: Expr) -> Expr {
        Expr::Quotient(Box::new(self), Box::new(divisor))
    }

    pub fn raised_to(self, exponent: Expr) -> Expr {
        Expr::Power(Box::new(self), Box::new(exponent))
    }

    pub fn call(name: &str, arguments: Vec<Expr>) -> Expr {
        Expr::Call(name.to_owned(), arguments)
    }

    /// Its parts, in reading order.
    pub fn children(&self) -> Vec<&Expr> {
        match self {
            Expr::Sum(items) | Expr::Product(items) | Expr::Call(_, items) => {
                items.iter().collect()
            }
            Expr::Group(_, items, _) | Expr::List(items, _) | Expr::Set(items) => {
                items.iter().collect()
            }
            Expr::Relation(items, _) => items.iter().collect(),
            Expr::Quotient(a, b) | Expr::Power(a, b) => vec![a, b],
            Expr::PlusMinus(_, inner) | Expr::Quantity(inner, _) => vec![inner],
            Expr::Matrix(rows) => rows.iter().flatten().collect(),
            _ => Vec::new(),
        }
    }

    /// The same tree with every part replaced by what `change` makes of it.
    pub fn map(&self, change: &mut dyn FnMut(&Expr) -> Expr) -> Expr {
        let mut all = |items: &[Expr]| items.iter().map(&mut *change).collect::<Vec<_>>();
        match self {
            Expr::Sum(items) => Expr::Sum(all(items)),
            Expr::Product(items) => Expr::Product(all(items)),
            Expr::Call(name, items) => Expr::Call(name.clone(), all(items)),
            Expr::Group(open, items, close) => Expr::Group(*open, all(items), *close),
            Expr::List(items, joint) => Expr::List(all(items), *joint),
            Expr::Set(items) => Expr::Set(all(items)),
            Expr::Relation(items, relations) => Expr::Relation(all(items), relations.clone()),
            Expr::Matrix(rows) => Expr::Matrix(rows.iter().map(|row| all(row)).collect()),
            Expr::Quotient(a, b) => change(a).over(change(b)),
            Expr::Power(a, b) => change(a).raised_to(change(b)),
            Expr::PlusMinus(plus, inner) => Expr::PlusMinus(*plus, Box::new(change(inner))),
            Expr::Quantity(inner, unit) => Expr::Quantity(Box::new(change(inner)), unit.clone()),
            leaf => leaf.clone(),
        }
    }

    /// How many parts it has.
    pub fn size(&self) -> usize {
        1 + self.children().into_iter().map(Expr::size).sum::<usize>()
    }

    /// Does `test` hold for it or for a part of it?
    pub fn any(&self, test: &dyn Fn(&Expr) -> bool) -> bool {
        test(self) || self.children().into_iter().any(|child| child.any(test))
    }
}

fn joined(f: &mut Formatter, items: &[Expr], by: &str) -> Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            f.write_str(by)?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

/// In brackets where a sum or a product would be misread.
fn factor(f: &mut Formatter, item: &Expr) -> Result {
    let bare = match item {
        Expr::Number(value) => !value.is_negative() && value.denom().is_one(),
        Expr::Sum(_) | Expr::Product(_) | Expr::Quotient(..) | Expr::Power(..) => false,
        Expr::PlusMinus(..) | Expr::Relation(..) | Expr::List(..) | Expr::Quantity(..) => false,
        _ => true,
    };
    if bare { write!(f, "{item}") } else { write!(f, "({item})") }
}

fn matrix(f: &mut Formatter, rows: &[Vec<Expr>]) -> Result {
    for (at, row) in rows.iter().enumerate() {
        f.write_str(if at > 0 { "; " } else { "matrix [" })?;
        joined(f, row, ", ")?;
    }
    f.write_char(']')
}

/// For people: fully bracketed, in the notation of plain text.
impl Display for Expr {
    fn fmt(&self, f: &mut Formatter) -> Result {
        match self {
            Expr::Number(value) => write!(f, "{value}"),
            Expr::Decimal(value, places) => write!(f, "{value} (to {places} places)"),
            Expr::Symbol(name) => f.write_str(name),
            Expr::Text(text) => write!(f, "{text:?}"),
            Expr::Pi => f.write_char('π'),
            Expr::E => f.write_char('e'),
            Expr::I => f.write_char('i'),
            Expr::Infinity => f.write_char('∞'),
            Expr::Sum(items) => joined(f, items, " + "),
            Expr::Product(items) => {
                for (at, item) in items.iter().enumerate() {
                    f.write_str(if at > 0 { "·" } else { "" })?;
                    factor(f, item)?;
                }
                Ok(())
            }
            Expr::Quotient(a, b) => {
                factor(f, a)?;
                f.write_char('/')?;
                factor(f, b)
            }
            Expr::Power(a, b) => {
                factor(f, a)?;
                f.write_char('^')?;
                factor(f, b)
            }
            Expr::PlusMinus(plus, inner) => {
                f.write_char(if *plus { '±' } else { '∓' })?;
                factor(f, inner)
            }
            Expr::Call(name, arguments) => {
                write!(f, "{name}(")?;
                joined(f, arguments, ", ")?;
                f.write_char(')')
            }
            Expr::Group(open, items, close) => {
                f.write_char(*open)?;
                joined(f, items, ", ")?;
                f.write_char(*close)
            }
            Expr::List(items, Joint::And) => joined(f, items, ", "),
            Expr::List(items, Joint::Or) => joined(f, items, " or "),
            Expr::Set(items) => {
                f.write_char('{')?;
                joined(f, items, ", ")?;
                f.write_char('}')
            }
            Expr::Matrix(rows) => matrix(f, rows),
            Expr::Relation(items, relations) => {
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        write!(f, " {} ", relations[at - 1].symbol())?;
                    }
                    write!(f, "{item}")?;
                }
                Ok(())
            }
            Expr::Quantity(value, unit) => write!(f, "{value} [{unit}]"),
            Expr::Time(minutes, half) => {
                let half = half.map_or("", |pm| if pm { " pm" } else { " am" });
                write!(f, "{}:{:02}{half}", minutes / 60, minutes % 60)
            }
        }
    }
}
