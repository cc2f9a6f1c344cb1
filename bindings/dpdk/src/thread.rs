//! Threads that DPDK did not start, made known to it. Without that its mempools have no cache for them.

use std::cell::Cell;

use crate::{Eal, Errno};

/// Ends the registration with its thread.
struct Registered;

thread_local! {
    static REGISTERED: Cell<Option<Registered>> = const { Cell::new(None) };
}

/// Registers the calling thread, until it ends. Once is enough; more does nothing. Pinning is the caller's, before or after.
///
/// # Errors
/// All thread ids of DPDK are in use (`RTE_MAX_LCORE` of them, 128 as Debian builds it), or secondary processes are attached.
pub fn register_thread(_eal: Eal) -> Result<(), Errno> {
    if thread_is_registered() {
        return Ok(());
    }
    // SAFETY: EAL runs (the token), and this thread is not registered. What is registered here is undone below.
    let status = unsafe { dpdk_sys::rte_thread_register() };
    if status != 0 {
        return Err(Errno::last());
    }
    REGISTERED.set(Some(Registered));
    Ok(())
}

/// Whether the calling thread is registered, or EAL was started on it.
#[must_use]
pub fn thread_is_registered() -> bool {
    // SAFETY: reads a variable of this thread.
    unsafe { dpdk_sys::shim_thread_is_registered() }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: this thread registered itself and ends. Mbufs that it drops even later go past the caches, as those of
        // any unregistered thread.
        unsafe { dpdk_sys::rte_thread_unregister() };
    }
}
