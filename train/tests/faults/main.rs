//! Training under faults, with real processes: whatever ends a run, it goes on to the same bytes.
//!
//! `S1_FULL=1` runs the full figures (`just faults-train`); else a few of each. Moments are drawn
//! from seeds that the tests print.

mod deaths;
mod decisions;
mod disks;
mod elastic;
mod kills;
mod leaving;
mod locks;
mod miniature;
mod resumes;
mod scripts;
mod soak;
