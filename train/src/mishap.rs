//! What libtorch throws inside a step, told as an error that names rank, place and cure.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use anyhow::{Error, Result, anyhow, bail};
use model::Layout;

use crate::plan::report;
use crate::step::Trainer;

/// How libtorch's allocators on GPU and CPU say that there is no memory left.
const OUT_OF_MEMORY: [&str; 3] = ["out of memory", "can't allocate memory", "not enough memory"];

thread_local! {
    /// This thread's panics are told as errors.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; its panic is returned, without the lines that panics print. Other threads' panics,
/// of a save for instance, print theirs all the while.
fn quietly<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_CAUGHT.get() {
                hook(info);
            }
        }));
    });
    let before = IS_CAUGHT.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_CAUGHT.set(before);
    result
}

/// Runs `work`; a failure says where this rank was. tch panics where libtorch throws: such a panic
/// becomes an error too, and out of memory names what to change.
pub fn caught<T>(trainer: &mut Trainer, work: impl FnOnce(&mut Trainer) -> Result<T>) -> Result<T> {
    let error = match quietly(|| work(trainer)) {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(error)) => error,
        Err(panic) => told(&*panic),
    };
    let text = format!("{error:#}");
    let rank = trainer.shards.mesh.world.rank();
    let layout = Layout::new(&trainer.shards.config);
    let place = trainer.trace.place().describe(&layout);
    if OUT_OF_MEMORY.iter().any(|sign| text.contains(sign)) {
        let tokens = trainer.trace.place().tokens.max(1);
        let cure = report::out_of_memory(&trainer.job, rank, &place, tokens);
        bail!("{cure}\n{text}");
    }
    Err(error.context(format!("rank {rank}, in {place}")))
}

/// Runs `work`; its panic, told where it happens, becomes an error.
pub fn unbroken<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(told(&*panic).context("a bug in train; the lines above say where"))
    })
}

fn told(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
    anyhow!(text.unwrap_or_else(|| "an unknown panic".into()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::*;

    #[test]
    fn a_panic_elsewhere_keeps_its_message() {
        static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            TOLD.lock().unwrap().push(info.to_string());
            hook(info);
        }));
        for round in 0..3 {
            let result = quietly(|| {
                let elsewhere = thread::spawn(move || panic!("saving failed, {round}"));
                assert!(elsewhere.join().is_err());
                panic!("libtorch threw, {round}");
            });
            let text = *result.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(text, format!("libtorch threw, {round}"));
        }
        let told = TOLD.lock().unwrap().concat();
        for round in 0..3 {
            assert_eq!(told.matches(&format!("saving failed, {round}")).count(), 1, "{told}");
        }
        assert!(!told.contains("libtorch threw"), "{told}");
    }
}
