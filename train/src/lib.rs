//! Full-parameter supervised fine-tuning of Qwen2.5: s1's recipe over block-wise FSDP.
//!
//! Deliberately not here: collectives (`c10d`), the model's mathematics (`model`), HTTP. World
//! size 1 takes the same path as many ranks.
//!
//! Reading order: [`config`] (the run file), [`examples`] (rows as tokens), [`data`] (their
//! order, one rank's share of a global batch), [`balance`] (even work for every rank), [`mesh`]
//! (which ranks do what together), [`shards`] (who holds which part of the parameters), [`step`]
//! (the training step), [`ulysses`] (sequence parallelism), [`plan`] (memory, time and cost
//! before a run, and which layers a pass keeps), [`loss`] (head and loss in chunks), [`optimizer`]
//! (AdamW, the schedule), [`guard`], [`digest`] and [`blame`] (numbers that cannot be right),
//! [`init`] (random weights), [`trace`] (what every rank is doing), [`mishap`] (how it fails),
//! [`culprits`] (which rank the others waited for), [`fault`] (faults on demand, for tests).
//!
//! What outlives a process: [`slices`] (a rank's tensors on the disk), [`state`] (everything a step
//! reads), [`together`] (ranks that wait for one another), [`save`] (saving while training goes
//! on), [`checkpoints`] (which there are), [`recipe`] (what must not change on the way),
//! [`signals`] (requests to leave), [`export`] (the Hugging Face folder).
//!
//! The whole: [`progress`] (bar, metrics), [`events`] (TensorBoard's files), [`folder`] and
//! [`setup`] (what a run writes and needs), [`fits`] (memory and disk, asked before the first
//! step), [`run`], [`launch`] (local ranks as processes), [`show`] (an example and its mask),
//! [`commands`] (the other subcommands), [`words`] (numbers as people read them).

pub mod config;

pub mod examples;

pub mod data;

pub mod balance;

pub mod mesh;

pub mod shards;

pub mod step;

pub mod ulysses;

pub mod trace;

pub mod mishap;

pub mod culprits;

pub mod loss;

pub mod optimizer;

pub mod guard;

pub mod digest;

pub mod blame;

pub mod init;

pub mod export;

pub mod events;

pub mod progress;

pub mod folder;

pub mod setup;

pub mod slices;

pub mod state;

pub mod together;

pub mod save;

pub mod checkpoints;

pub mod signals;

pub mod fault;

pub mod fits;

pub mod recipe;

pub mod run;

pub mod show;

pub mod launch;

pub mod plan;

pub mod commands;

pub mod words;
