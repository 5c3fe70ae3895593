//! Parallel loops on libtorch's own OpenMP threads, so that there is no second pool beside it.

use std::ffi::{c_uint, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(target_os = "linux")]
// GNU OpenMP's entry for `#pragma omp parallel`; torch-sys links the library, which libtorch uses.
unsafe extern "C" {
    fn GOMP_parallel(
        region: unsafe extern "C" fn(*mut c_void),
        data: *mut c_void,
        threads: c_uint,
        flags: c_uint,
    );
}

struct Loop<'a> {
    next: AtomicUsize,
    tasks: usize,
    work: &'a (dyn Fn(usize) + Sync),
}

/// Runs `work(0..tasks)` on up to as many threads as libtorch uses; which thread runs which task
/// is left to chance, so tasks must not depend on it.
pub fn parallel(tasks: usize, work: &(dyn Fn(usize) + Sync)) {
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).min(tasks);
    if threads <= 1 {
        (0..tasks).for_each(work);
        return;
    }
    let region = Loop { next: AtomicUsize::new(0), tasks, work };
    let data = (&raw const region).cast_mut().cast();
    // SAFETY: the region outlives the call, which ends when all threads have left `take_tasks`.
    #[cfg(target_os = "linux")]
    unsafe {
        GOMP_parallel(take_tasks, data, threads as c_uint, 0);
    }
    // SAFETY: as above.
    #[cfg(not(target_os = "linux"))]
    unsafe {
        take_tasks(data);
    }
}

/// What each thread of the team runs. A panic ends the process, as it must not cross C.
unsafe extern "C" fn take_tasks(region: *mut c_void) {
    // SAFETY: `parallel` passes a live `Loop`, which is shared and never moved.
    let region = unsafe { &*region.cast::<Loop>() };
    loop {
        let task = region.next.fetch_add(1, Ordering::Relaxed);
        if task >= region.tasks {
            return;
        }
        (region.work)(task);
    }
}
