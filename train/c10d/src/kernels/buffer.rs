//! Memory for weights, aligned to cache lines and on huge pages where the system has them, and
//! for what a call needs between its steps.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const HUGE_PAGE: usize = 2 << 20;

/// A fixed number of fp32 elements (or anything of 32 bits), zero at first.
pub struct Buffer {
    at: NonNull<f32>,
    layout: Layout,
}

// SAFETY: it owns its memory and gives it out by the usual rules of borrowing.
unsafe impl Send for Buffer {}
// SAFETY: as above; nothing changes behind a shared reference.
unsafe impl Sync for Buffer {}

impl Buffer {
    pub fn new(elements: usize) -> Buffer {
        let bytes = (elements * size_of::<f32>()).max(64);
        let huge = bytes >= 2 * HUGE_PAGE;
        let align = if huge { HUGE_PAGE } else { 64 };
        let bytes = bytes.next_multiple_of(align);
        let layout = Layout::from_size_align(bytes, align).expect("weights fit the address space");
        // SAFETY: the layout is not empty.
        let at = unsafe { alloc_zeroed(layout) };
        let at = NonNull::new(at.cast()).unwrap_or_else(|| handle_alloc_error(layout));
        if huge {
            advise_huge(at, bytes);
        }
        Buffer { at, layout }
    }
}

/// Asks for huge pages; a refusal changes only the speed.
#[cfg(target_os = "linux")]
fn advise_huge(at: NonNull<f32>, bytes: usize) {
    unsafe extern "C" {
        fn madvise(at: *mut std::ffi::c_void, bytes: usize, advice: std::ffi::c_int) -> i32;
    }
    const MADV_HUGEPAGE: std::ffi::c_int = 14;
    // SAFETY: whole pages of our own memory, and advice that keeps their contents.
    unsafe { madvise(at.as_ptr().cast(), bytes, MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge(_: NonNull<f32>, _: usize) {}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: so many elements were allocated, zero, and any bits are an f32.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.layout.size() / 4) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.layout.size() / 4) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.at.as_ptr().cast(), self.layout) }
    }
}

/// A pointer that threads share; who may touch what is said where it is used.
#[derive(Clone, Copy)]
pub struct Shared(pub *mut f32);

// SAFETY: a plain address.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// The element exists.
    pub unsafe fn at(&self, element: usize) -> *mut f32 {
        // SAFETY: the caller's.
        unsafe { self.0.add(element) }
    }
}

/// Memory of this thread's for so many elements, kept from call to call; what it holds is stale.
/// It is valid until the thread's next call.
pub fn scratch(elements: usize) -> *mut f32 {
    thread_local! {
        static SCRATCH: RefCell<Buffer> = RefCell::new(Buffer::new(0));
    }
    SCRATCH.with_borrow_mut(|buffer| {
        if buffer.len() < elements {
            *buffer = Buffer::new(elements);
        }
        buffer.as_mut_ptr()
    })
}

/// `to[i, row] = rows[row][i]` for i < k.
///
/// # Safety
/// Each of `rows` holds k elements, `to` all of them, apart from each other.
pub unsafe fn side_by_side(rows: &[*const f32], k: usize, to: *mut f32) {
    const TOGETHER: usize = 16;
    for start in (0..k).step_by(TOGETHER) {
        for (row, from) in rows.iter().enumerate() {
            for i in start..(start + TOGETHER).min(k) {
                // SAFETY: the caller's.
                unsafe { *to.add(i * rows.len() + row) = *from.add(i) };
            }
        }
    }
}
