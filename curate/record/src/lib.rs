//! The tables of s1 and the few things every stage does with them: identity of a question, Parquet
//! and JSONL in and out, the text of a training example, run configs, output folders, random seeds.
//!
//! It deliberately knows no models, no network, no clock, and no stage: it never decides which
//! question is kept, which answer is right or how text becomes tokens.
//!
//! Modules in reading order: [`question`] (what a question's id is), [`row`] (the rows of every
//! table), [`table`] (their files), [`raw`] (others' tables), [`jsonl`] (one JSON value a line),
//! [`example`] (the text a model is trained on), [`config`] (a run is a TOML file), [`publish`]
//! (output folders appear whole or not at all), [`lock`] (one process at a time), [`process`] (which
//! one, and whether it is there), [`disk`] (every change on the disk that these make), [`seed`]
//! (randomness by name).

pub mod question;
pub mod row;
pub mod table;

pub mod raw;

pub mod jsonl;

pub mod example;

pub mod config;
pub mod disk;
pub mod lock;
pub mod process;
pub mod publish;
pub mod seed;
