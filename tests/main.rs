//! The integration tests: one binary over the public entry points, and the shape of the repository.

mod chain;
mod chat_golden;
mod compare;
mod damaged;
mod export_golden;
mod mask_audit;
mod model_golden;
mod oracle;
mod real_model;
mod recipe;
mod setup;
mod shape;
mod strict_loading;
mod train_golden;
