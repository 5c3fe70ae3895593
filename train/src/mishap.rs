//! What libtorch throws inside a step, told as an error that names rank, place and cure.

use std::panic::{self, AssertUnwindSafe};

use anyhow::{Result, anyhow, bail};
use model::Layout;

use crate::plan::report;
use crate::step::Trainer;

/// How libtorch's allocators on GPU and CPU say that there is no memory left.
const OUT_OF_MEMORY: [&str; 3] = ["out of memory", "can't allocate memory", "not enough memory"];

/// Runs `work`; a failure says where this rank was. tch panics where libtorch throws: such a panic
/// becomes an error too, and out of memory names what to change.
pub fn caught<T>(trainer: &mut Trainer, work: impl FnOnce(&mut Trainer) -> Result<T>) -> Result<T> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let result = panic::catch_unwind(AssertUnwindSafe(|| work(trainer)));
    panic::set_hook(hook);
    let error = match result {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(error)) => error,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            anyhow!(text.unwrap_or_else(|| "an unknown panic".into()))
        }
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
