//! Which bdevs there are, and when there are more of them.

use std::ffi::CString;

use crate::Thread;

/// What SPDK has of a bdev.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// None of that name.
    Absent,
    /// Another bdev stands on it, or something else has it for itself.
    Claimed,
    /// Nobody has it for itself.
    Free,
}

impl Presence {
    /// Of the bdev of that name, or alias, now: without a word in the log, which opening one would have that is not there or is
    /// claimed. It may be on its way out.
    #[must_use]
    pub fn of(_on: &Thread, bdev: &str) -> Presence {
        let Ok(name) = CString::new(bdev) else { return Presence::Absent };
        // SAFETY: on an SPDK thread (the proof), the one that registers bdevs and takes them away; a string that lives through the
        // call.
        match unsafe { spdk_sys::spdk_shim_bdev_presence(name.as_ptr()) } {
            spdk_sys::SPDK_SHIM_FREE => Presence::Free,
            spdk_sys::SPDK_SHIM_CLAIMED => Presence::Claimed,
            _ => Presence::Absent,
        }
    }
}

/// Says that bdevs have come, and not which. A bdev has come when every module has looked at it: one that is claimed by
/// then is not free to be opened.
///
/// SPDK says nothing of an alias that a bdev gets later, and of a claim that ends.
#[derive(Debug, Default)]
pub struct Registrations {
    next: u64,
}

impl Registrations {
    /// Whether any has come since the last call; at first: ever.
    #[must_use]
    pub fn any(&mut self, _on: &Thread) -> bool {
        // SAFETY: SPDK runs (the proof); a number that is read and written.
        unsafe { spdk_sys::spdk_shim_bdevs_registered(&mut self.next) }
    }
}
