//! Closures as messages of SPDK's: a function and a context.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

type Work = Box<dyn FnOnce()>;

/// A context for [`run`]. It has to be run once, or [dropped](discard) once.
pub(crate) fn context(work: Work) -> *mut c_void {
    Box::into_raw(Box::new(work)).cast()
}

/// # Safety
/// `context` is from [`context`] and was neither run nor dropped.
pub(crate) unsafe fn discard(context: *mut c_void) {
    // SAFETY: made by `Box::into_raw` of the same type, once.
    drop(unsafe { Box::from_raw(context.cast::<Work>()) });
}

/// # Safety
/// As [`discard`].
pub(crate) unsafe extern "C" fn run(context: *mut c_void) {
    // SAFETY: made by `Box::into_raw` of the same type, once.
    let work = unsafe { Box::from_raw(context.cast::<Work>()) };
    guarded("a message", *work);
}

/// Keeps a panic out of C's frames: it is logged, and what panicked is left as it is.
pub(crate) fn guarded(what: &str, work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        tracing::error!("{what} on an SPDK thread has panicked");
    }
}
