//! What can be done with a run besides running it, one subcommand a module.

pub mod export;
pub mod runs;
pub mod verify;
