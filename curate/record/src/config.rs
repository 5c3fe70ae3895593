//! A run is a TOML file: load it, apply `--set section.key=value`, refuse what it does not know.

use std::path::Path;

use anyhow::{Result, bail};
use serde::de::DeserializeOwned;

/// Reads the run config at `path` into `T` with the overrides `sets` applied.
pub fn load<T: DeserializeOwned>(_path: &Path, _sets: &[String]) -> Result<(T, toml::Table)> {
    bail!("not built yet")
}
