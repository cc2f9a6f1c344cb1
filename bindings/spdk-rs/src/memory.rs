//! Memory that devices can reach.

use std::ffi::c_void;

use crate::{Env, Errno};

/// Memory of the program's that is known to SPDK: devices reach it without a copy. Taken back when it is dropped.
///
/// Registering tells every IOMMU domain of the process, which may take milliseconds per GiB: not for a thread that polls.
#[derive(Debug)]
pub struct Registered {
    address: usize,
    len: usize,
}

impl Registered {
    /// Addresses and lengths that are multiples of this suit every SPDK.
    pub const HUGE_PAGE: usize = 2 << 20;
    /// Those that are multiples of this suit SPDK 25.09 and newer.
    pub const PAGE: usize = 4096;

    /// Registers `len` bytes from `address` on.
    ///
    /// # Safety
    /// The memory stays mapped until this is dropped, and until every request that uses it has ended.
    ///
    /// # Errors
    /// Address or length are not aligned as this SPDK wants them, a part is registered already, or an IOMMU refused it.
    pub unsafe fn new(_env: Env, address: *mut u8, len: usize) -> Result<Registered, Errno> {
        if !address.addr().is_multiple_of(Self::PAGE) || !len.is_multiple_of(Self::PAGE) {
            return Err(Errno::of(libc::EINVAL));
        }
        // SAFETY: the environment runs (the token); memory that stays (a promise of the caller's).
        Errno::check(unsafe { spdk_sys::spdk_mem_register(address.cast::<c_void>(), len) })?;
        Ok(Registered { address: address.addr(), len })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let address = std::ptr::without_provenance_mut::<c_void>(self.address);
        // SAFETY: registered as it is, once.
        if let Err(errno) = Errno::check(unsafe { spdk_sys::spdk_mem_unregister(address, self.len) }) {
            tracing::error!(address = format!("{:#x}", self.address), len = self.len, %errno, "memory is still registered");
        }
    }
}
