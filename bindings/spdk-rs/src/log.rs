//! SPDK's messages go to `tracing`, target `spdk`, and the complaints of a call that fails into its error.
//!
//! Alike in the bindings of DPDK, and not shared: either crate is there without the other, levels and sinks differ, and what is the
//! same is a bounded list of lines.

use std::collections::VecDeque;
use std::ffi::{c_char, c_int};
use std::sync::Once;

use parking_lot::Mutex;

/// Complaints kept for the next error text.
const KEPT: usize = 8;
/// SPDK_LOG_ERROR and the levels after it; everything above is for SPDK's developers.
const ERROR: c_int = 0;
const WARNING: c_int = 1;
const NOTICE: c_int = 2;
const INFO: c_int = 3;

static COMPLAINTS: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Takes over the log. The first call counts.
pub(crate) fn take_over() {
    static ONCE: Once = Once::new();
    // SAFETY: `sink` takes what shim.h says, from any thread.
    ONCE.call_once(|| unsafe { spdk_sys::spdk_shim_log_to(Some(sink), NOTICE) });
}

/// Forgets the complaints so far, does `work`, and returns its result with the complaints meanwhile.
pub(crate) fn listen<T>(work: impl FnOnce() -> T) -> (T, Complaints) {
    COMPLAINTS.lock().clear();
    let result = work();
    (result, Complaints(COMPLAINTS.lock().drain(..).collect()))
}

/// What SPDK said while something failed: errors and warnings, oldest first. Prints as "": or ": one; another".
#[derive(Clone, Debug, Default)]
pub struct Complaints(Vec<String>);

impl std::fmt::Display for Complaints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0.join("; ")) }
    }
}

extern "C" fn sink(level: c_int, text: *const c_char, len: usize) {
    // SAFETY: the shim passes `len` bytes that live until this returns.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    let text = String::from_utf8_lossy(bytes);
    match level {
        ..=ERROR => tracing::error!(target: "spdk", "{text}"),
        WARNING => tracing::warn!(target: "spdk", "{text}"),
        NOTICE => tracing::info!(target: "spdk", "{text}"),
        INFO => tracing::debug!(target: "spdk", "{text}"),
        _ => tracing::trace!(target: "spdk", "{text}"),
    }
    if level <= WARNING {
        let mut complaints = COMPLAINTS.lock();
        if complaints.len() == KEPT {
            complaints.pop_front();
        }
        complaints.push_back(text.into_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_of_a_call_are_kept_in_order_and_bounded() {
        let say = |level, text: &str| sink(level, text.as_ptr().cast(), text.len());
        say(ERROR, "before");
        let ((), complaints) = listen(|| {
            for number in 0..10 {
                say(ERROR, &format!("e{number}"));
            }
            say(NOTICE, "chatter");
        });
        assert_eq!(complaints.to_string(), ": e2; e3; e4; e5; e6; e7; e8; e9");
        assert_eq!(listen(|| ()).1.to_string(), "");
    }
}
