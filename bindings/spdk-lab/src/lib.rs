//! A bdev module of SPDK's for tests: what real devices do too seldom for a test to wait for it. Whoever links this has a bdev
//! `Lab0` of 1 MiB in memory, which fails as it is told. Without the feature `libspdk` the crate is empty.
#![cfg(feature = "libspdk")]
#![allow(unsafe_code, reason = "the module is in C")]

use spdk_sys as _; // the SPDK that the module is linked to

/// Name of the bdev: 2048 blocks of 512 bytes.
pub const BDEV: &str = "Lab0";

unsafe extern "C" {
    fn spdk_lab_refuse_channels(refuse: bool);
    fn spdk_lab_miscompare(times: u32);
    fn spdk_lab_compared() -> u32;
}

/// From now on the bdev has no io channel for anybody, or has again.
pub fn refuse_channels(refuse: bool) {
    // SAFETY: sets a flag that is looked at atomically; from any thread.
    unsafe { spdk_lab_refuse_channels(refuse) }
}

/// The next so many compare-and-writes fail with Compare Failure, whatever the data is.
pub fn miscompare(times: u32) {
    // SAFETY: as above.
    unsafe { spdk_lab_miscompare(times) }
}

/// How many compare-and-writes have come so far.
#[must_use]
pub fn compared() -> u32 {
    // SAFETY: as above.
    unsafe { spdk_lab_compared() }
}
