//! DPDK's messages go to `tracing`, target `dpdk`, and the complaints of a call that fails into its error.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::sync::Once;

use parking_lot::Mutex;

/// Complaints kept for the next error text.
const KEPT: usize = 8;
/// RTE_LOG_ERR and RTE_LOG_WARNING; below are emergency, alert and critical, and 0 where it is not known.
const ERR: u32 = 4;
const WARNING: u32 = 5;
const NOTICE: u32 = 6;
const INFO: u32 = 7;

static COMPLAINTS: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Takes over the log stream. The first call counts. Messages from before go to standard error.
pub(crate) fn take_over() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `sink` takes what shim.h says, from any thread.
        let status = unsafe { dpdk_sys::shim_log_to(Some(sink)) };
        if status != 0 {
            tracing::warn!(status, "DPDK's messages cannot be redirected");
        }
    });
}

/// Forgets the complaints so far, does `work`, and returns its result with the complaints meanwhile.
pub(crate) fn listen<T>(work: impl FnOnce() -> T) -> (T, Complaints) {
    COMPLAINTS.lock().clear();
    let result = work();
    (result, Complaints(COMPLAINTS.lock().drain(..).collect()))
}

/// What DPDK said while something failed: errors and warnings, oldest first. Prints as "": or ": one; another".
#[derive(Clone, Debug, Default)]
pub struct Complaints(Vec<String>);

impl std::fmt::Display for Complaints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0.join("; ")) }
    }
}

extern "C" fn sink(level: u32, text: *const c_char, len: usize) {
    // SAFETY: the shim passes `len` bytes that live until this returns; DPDK's formatted text has no holes in it.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    let text = String::from_utf8_lossy(bytes);
    match level {
        0..=ERR => tracing::error!(target: "dpdk", "{text}"),
        WARNING => tracing::warn!(target: "dpdk", "{text}"),
        NOTICE => tracing::info!(target: "dpdk", "{text}"),
        INFO => tracing::debug!(target: "dpdk", "{text}"),
        _ => tracing::trace!(target: "dpdk", "{text}"),
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
        say(ERR, "before");
        let ((), complaints) = listen(|| {
            for number in 0..10 {
                say(ERR, &format!("e{number}"));
            }
            say(INFO, "chatter");
        });
        assert_eq!(complaints.to_string(), ": e2; e3; e4; e5; e6; e7; e8; e9");
        assert_eq!(listen(|| ()).1.to_string(), "");
    }
}
