//! Where mbufs come from. Mempools are made and never freed: see the crate's documentation.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use dpdk_sys::{RTE_MEMPOOL_CACHE_MAX_SIZE, RTE_PKTMBUF_HEADROOM, rte_mempool};

use crate::log::{self, Complaints};
use crate::{Eal, Errno};

/// A pool of mbufs of one size. Copies are the same pool; it lives as long as the process.
#[derive(Clone, Copy, Debug)]
pub struct Mempool {
    raw: NonNull<rte_mempool>,
    config: MempoolConfig,
}

// SAFETY: the handler `ring_mp_mc` and the caches, one per registered thread, are made for any number of threads.
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

/// Size of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MempoolConfig {
    /// Mbufs in it. One less than a power of two wastes the least.
    pub mbufs: u32,
    /// Bytes of a frame that fit one mbuf, at most 65407 (headroom of 128 bytes comes on top).
    pub room: u16,
    /// Mbufs that each registered thread keeps at hand: at most 512, and at most 2/3 of all.
    pub cache: u32,
}

/// There are fewer mbufs left than were asked for. None was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mempool is out of mbufs")]
pub struct NoMbufs;

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
#[error("no mempool of {} mbufs of {} bytes: {errno}{complaints}", config.mbufs, config.room)]
pub struct MempoolError {
    /// What was asked for.
    pub config: MempoolConfig,
    /// DPDK's reason; ENOMEM is the usual one.
    pub errno: Errno,
    /// What DPDK said.
    pub complaints: Complaints,
}

impl MempoolConfig {
    /// Bytes of memory that the pool takes, near enough to plan with.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        // mbuf 128, object header and padding 128, headroom; and a ring entry.
        u64::from(self.mbufs) * (u64::from(self.room) + u64::from(RTE_PKTMBUF_HEADROOM) + 256 + 8)
    }
}

impl Mempool {
    /// Makes a pool, in memory of any NUMA node.
    ///
    /// # Errors
    /// See [`MempoolError`].
    pub fn new(_eal: Eal, config: MempoolConfig) -> Result<Mempool, MempoolError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = CString::new(format!("mbufs{}", NUMBER.fetch_add(1, Relaxed))).expect("no NUL in it");
        let cache = config.cache.min(RTE_MEMPOOL_CACHE_MAX_SIZE).min(config.mbufs * 2 / 3);
        let room = config.room.saturating_add(RTE_PKTMBUF_HEADROOM as u16);
        let (made, complaints) = log::listen(|| {
            // SAFETY: EAL runs (the token); the strings live through the call, which copies them. -1 is any node.
            let pool = unsafe {
                dpdk_sys::rte_pktmbuf_pool_create_by_ops(
                    name.as_ptr(),
                    config.mbufs,
                    cache,
                    0,
                    room,
                    -1,
                    c"ring_mp_mc".as_ptr(),
                )
            };
            NonNull::new(pool).ok_or_else(Errno::last)
        });
        match made {
            Ok(raw) => Ok(Mempool { raw, config }),
            Err(errno) => Err(MempoolError { config, errno, complaints }),
        }
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> MempoolConfig {
        self.config
    }

    /// Bytes of a frame that fit one mbuf.
    #[must_use]
    #[inline]
    pub fn room(&self) -> u16 {
        self.config.room
    }

    /// Mbufs that are not in use. Walks the caches of all threads, which may move some meanwhile: not for the path of frames.
    #[must_use]
    pub fn available(&self) -> u32 {
        // SAFETY: a pool that lives for ever.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.raw.as_ptr()) }
    }

    pub(crate) fn raw(&self) -> *mut rte_mempool {
        self.raw.as_ptr()
    }
}
