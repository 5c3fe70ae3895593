//! `[[metrics]]`: budgets that are measured together, with what others have published of them.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::Budget;

/// `[[metrics]]`: budgets that have Control, Scaling and Performance together.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// For people.
    pub name: String,
    /// Names of two or more budgets that force thinking.
    pub budgets: Vec<String>,
    /// What others have published of them, by the task's name.
    #[serde(default)]
    pub published: BTreeMap<String, PublishedMetrics>,
}

/// The three metrics, as far as others tell them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedMetrics {
    /// In percent.
    pub control: Option<f64>,
    /// In points of accuracy for each doubling of the thinking.
    pub scaling: Option<f64>,
    /// In percent.
    pub performance: Option<f64>,
}

impl Measured {
    pub(super) fn check(&self, budgets: &[Budget]) -> Result<()> {
        let name = &self.name;
        ensure!(self.budgets.len() > 1, "metrics {name:?} are of two budgets or more");
        for own in &self.budgets {
            let forces = |budget: &Budget| budget.name == *own && budget.forces_thinking();
            ensure!(
                budgets.iter().any(forces),
                "metrics {name:?} name {own:?}, which is no budget of this config that forces \
                 thinking"
            );
        }
        Ok(())
    }
}
