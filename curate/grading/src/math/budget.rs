//! What a whole judgement may cost, counted in steps, so that a verdict never depends on a clock.

use std::cell::Cell;

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It would be too large.
    Budget,
    /// It is no scalar, or has no value, as 1/0.
    Meaningless,
}

/// Steps for one judgement. A step is what one floating-point operation of a probe costs, with its
/// error bound some 20 nanoseconds: all of them are 4 milliseconds.
const STEPS: u64 = 160_000;

/// The steps that are left; shared by all that works for one judgement.
pub struct Budget(Cell<u64>);

impl Budget {
    pub fn new() -> Self {
        Budget(Cell::new(STEPS))
    }

    /// Pays for some steps out of one half: the other one is for the probes, which are cheap and
    /// often know where exact forms grow too large.
    pub fn pay_from_half(&self, steps: u64) -> Result<(), Stop> {
        let left = self.0.get().checked_sub(steps).filter(|left| *left >= STEPS / 2);
        self.0.set(left.ok_or(Stop::Budget)?);
        Ok(())
    }

    /// Pays for some steps. Who once could not pay has nothing left.
    pub fn pay(&self, steps: u64) -> Result<(), Stop> {
        let left = self.0.get().checked_sub(steps);
        self.0.set(left.unwrap_or(0));
        left.map(drop).ok_or(Stop::Budget)
    }

    pub fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
}
