//! The infer stage: prompts are continued, and a checkpoint's answers to a task's questions under
//! several thinking budgets are scored as in s1.
//!
//! It deliberately does not train; whoever continues prompts stands behind one
//! boundary ([`engine::Generate`]): the engine over weights on this machine, or a server.
//!
//! Modules in reading order:
//! - [`budget`]: budget forcing, a pure state machine over token ids; the heart of the stage
//! - [`engine`]: what is asked and answered; continuous batching over one model
//! - [`remote`]: the same over an OpenAI-compatible server
//! - [`config`]: the TOML of a run, and how its strings become token ids
//! - [`task`]: questions and expected answers from a table
//! - [`journal`]: what was finished is kept, whatever kills a run
//! - [`votes`]: several answers to one question: majority, coverage, pass@k
//! - [`rebase`]: a tree of steps, grown where a scorer sees promise
//! - [`metrics`]: the interval of a share; Control, Scaling and Performance of a budget curve
//! - [`bootstrap`]: intervals of means, metrics and differences, by drawing the questions again
//! - [`report`]: samples, results and the table for people
//! - [`shares`]: an evaluation by several processes
//! - [`lm_eval`]: the same in lm-evaluation-harness's shape
//! - [`points`]: published points and ours, as lines of a picture
//! - [`forced`]: which parts of a completion's text the model did not write
//! - [`report_page`]: `report.html`, the picture of a curve and all that belongs to it
//! - [`run`]: `infer eval` from config to published folder
//! - [`show`], [`compare`], [`draw`]: a published folder read back
//! - [`generate`]: `infer generate`, prompts in and tokens out
//! - [`serve`]: `infer serve`, an OpenAI-compatible server with forced thinking
//! - [`chat`]: `infer chat`, a conversation in the terminal
//! - [`judge`]: a language model's second opinion, for those who want one
//! - [`progress`]: how far a run is

pub mod bootstrap;
pub mod budget;
pub mod chat;
pub mod compare;
pub mod config;
pub mod draw;
pub mod engine;
pub mod forced;
pub mod generate;
pub mod journal;
pub mod judge;
pub mod lm_eval;
pub mod metrics;
pub mod points;
pub mod progress;
pub mod rebase;
pub mod remote;
pub mod report;
pub mod report_page;
pub mod run;
pub mod serve;
pub mod shares;
pub mod show;
pub mod task;
pub mod votes;
