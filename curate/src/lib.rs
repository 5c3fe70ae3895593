//! From a pool of reasoning questions to a small training set, with every row accounted for.
//!
//! The stages are s1's: exact duplicates, contamination with benchmarks, quality, difficulty, and a
//! diverse selection. It deliberately calls no model and no network: traces, grades, domains and
//! lengths come with the pool's rows. It knows no tokens and never changes a row; it only decides
//! which rows stay, and says why the others left.
//!
//! Modules in reading order: [`config`] (a run's numbers), [`run`] (the whole way, top to bottom),
//! the stages [`deduplicate`], [`decontaminate`], [`quality`], [`difficulty`] and [`selection`],
//! then [`funnel`] (who left where, and that the counts close) and [`report`] (what people read).
//! A published folder is read back by [`outcome`]; from it come [`report_page`] and [`card`], and
//! the answers in the terminal: [`why`], [`diff`] and [`show`], laid out by [`terminal`].

pub mod config;

pub mod run;

pub mod deduplicate;

pub mod decontaminate;
pub mod quality;

pub mod difficulty;

pub mod selection;

pub mod funnel;

pub mod report;

pub mod outcome;

pub mod card;
pub mod report_page;

pub mod diff;
pub mod show;
pub mod why;

pub mod terminal;
