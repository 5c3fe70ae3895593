//! From a pool of reasoning questions to a small training set, with every row accounted for.
//!
//! The stages are s1's: exact duplicates, contamination with benchmarks, quality, difficulty, and a
//! diverse selection. It deliberately calls no model and no network: traces, grades, domains and
//! lengths come with the pool's rows. It never changes a row; it only decides which rows stay, and
//! says why the others left.
//!
//! Modules in reading order: [`config`] (a run's numbers), [`run`] (the whole way, top to bottom),
//! the stages [`deduplicate`], [`decontaminate`], [`quality`], [`difficulty`] and [`selection`],
//! the features' own work ([`tokens`]: how long a trace is,
//! [`domain`]: what a question is about), then [`funnel`] (who left where, and that the counts close) and [`report`] (what people read).

pub mod config;

pub mod run;

pub mod deduplicate;

pub mod decontaminate;
pub mod quality;

pub mod difficulty;

pub mod selection;

pub mod featurise;

pub mod domain;
pub mod tokens;

pub mod funnel;

pub mod report;
