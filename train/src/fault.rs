//! Faults on demand, so that tests can lose a rank at a chosen place.
//!
//! `S1_FAULT="1 3 backward kill"`: rank 1, when it notes the stage `backward` of step 3. Instead of
//! `kill` also `stop` (SIGSTOP), `term` (SIGTERM), `fail` (a panic), or a number of milliseconds to
//! sleep.
//! `S1_HOST=other`: this rank counts as one of a machine of that name.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use record::process::Process;
use signal_hook::consts::{SIGKILL, SIGSTOP, SIGTERM};
use signal_hook::low_level::raise;

static FAULT: LazyLock<Option<(String, String)>> = LazyLock::new(|| {
    let text = std::env::var("S1_FAULT").ok()?;
    let (place, what) = text.rsplit_once(' ').expect("S1_FAULT: see train::fault");
    Some((place.to_owned(), what.to_owned()))
});

/// Whether it was struck already: a place may be passed more than once.
static STRUCK: AtomicBool = AtomicBool::new(false);

/// This process, on the machine that it counts as one of.
pub fn process() -> Process {
    let this = Process::this();
    Process { host: std::env::var("S1_HOST").unwrap_or_else(|_| this.host.clone()), ..this }
}

/// Strikes if `rank` is to be struck here.
pub fn strike(rank: usize, step: usize, stage: &str) {
    let Some((place, what)) = &*FAULT else { return };
    if *place != format!("{rank} {step} {stage}") || STRUCK.swap(true, Ordering::Relaxed) {
        return;
    }
    let raised = match what.as_str() {
        "kill" => raise(SIGKILL),
        "stop" => raise(SIGSTOP),
        "term" => raise(SIGTERM),
        "fail" => panic!("struck, as S1_FAULT says"),
        millis => {
            let millis = millis.parse().expect("S1_FAULT: see train::fault");
            thread::sleep(Duration::from_millis(millis));
            Ok(())
        }
    };
    raised.expect("a signal to oneself is allowed");
}
