//! From a pool of reasoning questions to a small training set, with every row accounted for.
//!
//! The stages are s1's: exact duplicates, contamination with benchmarks, quality, difficulty, and
//! a diverse selection. They deliberately call no model: traces, grades, domains and lengths come
//! with the pool's rows; and no network, but for benchmarks that the config names on the hub. They
//! never change a row; they only decide which rows stay, and say why the others left. Before them,
//! collecting reads the pool from its sources on the hub or here; featurising finds what the rows
//! lack, and is the one part that asks models, if a config names any.
//!
//! Modules in reading order: [`collect`] (sources become a pool), [`featurise`] (what the funnel
//! must know of a question) with [`tokens`] and [`domain`]; [`config`] (a run's numbers), [`run`]
//! (the whole way), [`survey`] (its first half, all stages before the selection) with the stages
//! [`deduplicate`], [`decontaminate`] (and the stricter [`near_duplicates`]), [`quality`] and
//! [`difficulty`]; [`sets`] (its second half, from a lineage to folders) with [`selection`], which
//! [`select`] repeats by other criteria; then [`funnel`] (who left where, and that the counts
//! close), [`report`] (what people read) and [`progress`]. A published folder is read back by
//! [`outcome`]; from it come [`report_page`] and [`card`], and the answers in the terminal:
//! [`why`], [`diff`] and [`show`].

pub mod collect;

pub mod featurise;

pub mod domain;
pub mod tokens;

pub mod config;

pub mod run;

pub mod survey;

pub mod deduplicate;

pub mod decontaminate;
pub mod near_duplicates;
pub mod quality;

pub mod difficulty;

pub mod sets;

pub mod selection;

pub mod select;

pub mod funnel;

pub mod progress;
pub mod report;

pub mod outcome;

pub mod card;
pub mod report_page;

pub mod diff;
pub mod show;
pub mod why;
