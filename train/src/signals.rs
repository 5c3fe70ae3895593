//! Requests to leave: SIGTERM and SIGUSR1, as Slurm and others send before they take a machine
//! back, or the launcher's word.
//!
//! Before the first step there is nothing to save: a rank that is asked leaves at once, and once
//! ranks have met, all do (see [`crate::together`]). From then on a request is a flag that the
//! ranks sum in every step: all save and leave together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGTERM, SIGUSR1};
use signal_hook::flag;

/// The exit code that says "all is saved, run me again": EX_TEMPFAIL of sysexits.h.
pub const AGAIN: u8 = 75;

/// The signals that ask to leave.
pub const SIGNALS: [i32; 2] = [SIGTERM, SIGUSR1];

static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
static AT_ONCE: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From here on the signals are requests; to be called before anything that takes time.
pub fn listen() -> Result<()> {
    for signal in SIGNALS {
        flag::register_conditional_shutdown(signal, AGAIN.into(), AT_ONCE.clone())
            .and_then(|_| flag::register(signal, ASKED.clone()))
            .with_context(|| format!("listening to signal {signal}"))?;
    }
    Ok(())
}

/// While `at_once`, a request ends this process with [`AGAIN`]; else it is only noted.
pub fn leave_at_once(at_once: bool) {
    AT_ONCE.store(at_once, Ordering::SeqCst);
}

/// Asks this process to leave, as a signal does.
pub fn ask() {
    ASKED.store(true, Ordering::SeqCst);
    if AT_ONCE.load(Ordering::SeqCst) {
        c10d::aten::exit_at_once(AGAIN.into());
    }
}

/// Whether this process was asked to leave.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
