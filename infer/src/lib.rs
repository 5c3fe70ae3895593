//! The infer stage: a checkpoint answers a task's questions under several thinking budgets, and is
//! scored as in s1.
//!
//! It deliberately does not train, batch sequences or serve requests; it knows one kind of model
//! ([`model::Qwen2`]) behind one boundary ([`engine::Decoder`]).
//!
//! Modules in reading order:
//! - [`budget`]: budget forcing, a pure state machine over token ids; the heart of the stage
//! - [`engine`]: decoding one sequence, the sampler
//! - [`config`]: the TOML of a run, and how its strings become token ids
//! - [`task`]: questions and expected answers from JSONL
//! - [`metrics`]: confidence intervals; Control, Scaling and Performance of a budget curve
//! - [`report`]: samples, results and the table for people
//! - [`run`]: `infer eval` from config to published folder
//! - [`judge`]: a language model's second opinion, for those who want one

pub mod budget;
pub mod config;
pub mod engine;
pub mod judge;
pub mod metrics;
pub mod report;
pub mod run;
pub mod task;
