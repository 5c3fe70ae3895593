//! What this rank is doing, for messages about what went wrong there.

use std::cell::Cell;

use model::Layout;

/// A stage of the training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Between steps.
    Idle,
    /// Running a unit forward.
    Forward,
    /// Running a unit's backward, its forward again included.
    Backward,
    /// Summing loss and norm over the ranks.
    Sum,
    /// Updating the weights.
    Update,
}

/// Where a rank is in its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The stage.
    pub stage: Stage,
    /// The unit, in the layout's order.
    pub unit: usize,
    /// Tokens of the micro-batch on this rank.
    pub tokens: i64,
}

/// Notes where a rank is; the last note stands when something fails.
#[derive(Debug)]
pub struct Trace {
    place: Cell<Place>,
}

impl Default for Trace {
    fn default() -> Self {
        Self { place: Cell::new(Place { stage: Stage::Idle, unit: 0, tokens: 0 }) }
    }
}

impl Trace {
    /// This rank now does this.
    pub fn note(&self, stage: Stage, unit: usize, tokens: i64) {
        self.place.set(Place { stage, unit, tokens });
    }

    /// The last note.
    pub fn place(&self) -> Place {
        self.place.get()
    }
}

impl Place {
    /// `layers.31 (backward) at 32768 tokens`, with the units' names of a model's layout.
    pub fn describe(&self, layout: &Layout) -> String {
        let unit = layout.units.get(self.unit).map_or("?", |unit| unit.name.as_str());
        match self.stage {
            Stage::Idle => "between steps".into(),
            Stage::Forward => format!("{unit} (forward) at {} tokens", self.tokens),
            Stage::Backward => format!("{unit} (backward) at {} tokens", self.tokens),
            Stage::Sum => "the sum of loss and norm".into(),
            Stage::Update => format!("the update of {unit}"),
        }
    }
}
