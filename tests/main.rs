//! The integration tests: one binary over the public entry points, and the shape of the repository.

mod compare;
mod model_golden;
mod real_model;
mod strict_loading;
mod train_golden;
