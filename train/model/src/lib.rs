//! Qwen2 over libtorch: the architecture, its weights on disk, its tokenizer and chat template.
//!
//! One forward, layer by layer over packed tokens, serves training, prefill and cached decoding.
//! Deliberately not here: tables of questions, process groups, optimizers, sampling. The caller
//! owns the loop over layers, so that training can gather and free one layer at a time.
//!
//! Reading order: [`config`] (Hugging Face's `config.json`), [`layout`] (which tensors, in which
//! flat buffer), [`qwen2`] (the forward), [`rope`], [`cache`], [`checkpoint`] (reading weights),
//! [`tokenizer`], [`chat`] (turns into tokens), [`hub`] (where a model's folder
//! or a data set's files are).

pub mod config;

pub mod layout;

pub mod qwen2;

pub mod rope;

pub mod cache;

pub mod decode;

pub mod checkpoint;

pub mod tokenizer;

pub mod chat;

pub mod hub;

pub use cache::Cache;
pub use checkpoint::Checkpoint;
pub use config::Config;
pub use decode::{Decoder, Segment};
pub use layout::{Layout, Unit};
pub use qwen2::{DecoderLayer, Qwen2};
pub use rope::Rope;
pub use tokenizer::Tokenizer;
