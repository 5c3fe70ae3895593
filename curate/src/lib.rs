//! From a pool of reasoning questions to a small training set, with every row accounted for.
//!
//! The stages are s1's: exact duplicates, contamination with benchmarks, quality, difficulty, and a
//! diverse selection. They deliberately call no model and no network: traces, grades, domains and
//! lengths come with the pool's rows. They know no tokens and never change a row; they only decide
//! which rows stay, and say why the others left. Before them, collecting the pool from its sources
//! is the one part that goes to the hub.
//!
//! Modules in reading order: [`collect`] (sources become a pool), [`config`] (a run's numbers), [`run`] (the whole way, top to bottom),
//! the stages [`deduplicate`], [`decontaminate`] (with
//! [`near_duplicates`]), [`quality`], [`difficulty`] and [`selection`],
//! then [`funnel`] (who left where, and that the counts close) and [`report`] (what people read).

pub mod collect;

pub mod config;

pub mod run;

pub mod deduplicate;

pub mod decontaminate;
pub mod near_duplicates;
pub mod quality;

pub mod difficulty;

pub mod selection;

pub mod funnel;

pub mod report;
