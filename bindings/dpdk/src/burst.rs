//! Frames that are allocated, received, sent and freed together.

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

use dpdk_sys::rte_mbuf;

use crate::{Mbuf, Mempool, NoMbufs};

/// Up to [`Burst::MAX`] frames, oldest first. Those in it when it is dropped go back to their pools.
#[derive(Debug)]
pub struct Burst {
    /// Those from `start` to `end` are there.
    mbufs: [MaybeUninit<Mbuf>; Burst::MAX],
    start: usize,
    end: usize,
}

impl Burst {
    /// Frames that it holds at most.
    pub const MAX: usize = 64;

    /// An empty one.
    #[must_use]
    pub const fn new() -> Burst {
        Burst { mbufs: [const { MaybeUninit::uninit() }; Burst::MAX], start: 0, end: 0 }
    }

    /// Frees what is in it, and fills it with `count` new frames of one empty segment each.
    ///
    /// # Errors
    /// The pool has fewer; then it is empty.
    ///
    /// # Panics
    /// If `count` is more than it can hold.
    #[inline]
    pub fn allocate(&mut self, pool: &Mempool, count: usize) -> Result<(), NoMbufs> {
        assert!(count <= Burst::MAX, "{count} frames in a burst of at most {}", Burst::MAX);
        self.allocate_for(pool, &[(); Burst::MAX][..count], |(), _| 0)
    }

    /// As [`allocate`](Self::allocate), a frame for each of `items`. `fill` is called for each with the address of
    /// [`Mempool::room`] bytes, to copy something there; it returns how long the frame is.
    ///
    /// # Errors
    /// The pool has fewer; then it is empty, and `fill` was not called.
    ///
    /// # Panics
    /// If there are more than it can hold, or a frame is longer than the room. Mbufs are lost then.
    #[inline]
    pub fn allocate_for<T>(
        &mut self,
        pool: &Mempool,
        items: &[T],
        mut fill: impl FnMut(&T, *mut u8) -> u16,
    ) -> Result<(), NoMbufs> {
        let count = items.len();
        assert!(count <= Burst::MAX, "{count} frames in a burst of at most {}", Burst::MAX);
        self.clear();
        if count == 0 {
            return Ok(()); // which a pool without a cache for this thread would call a failure
        }
        // SAFETY: room for `count` pointers, which is what the call writes unless it fails; a pool lives for ever.
        if unsafe { dpdk_sys::shim_alloc_raw(pool.raw(), self.mbufs.as_mut_ptr().cast(), count as u32) } != 0 {
            return Err(NoMbufs);
        }
        let room = pool.room();
        for (slot, item) in self.mbufs.iter_mut().zip(items) {
            // SAFETY: an mbuf of the pool's, written by the call above and nobody else's; it is made fresh before it is a frame.
            let mbuf = unsafe { slot.assume_init_mut() };
            let len = fill(item, mbuf.fresh_room());
            assert!(len <= room, "a frame of {len} bytes in an mbuf for {room}");
            mbuf.refresh(len);
        }
        self.end = count;
        Ok(())
    }

    /// Takes the newest frame out.
    pub fn pop(&mut self) -> Option<Mbuf> {
        if self.is_empty() {
            return None;
        }
        self.end -= 1;
        // SAFETY: it was there, and is no more after `end` has gone down.
        Some(unsafe { self.mbufs[self.end].assume_init_read() })
    }

    /// Adds a frame behind the others; gives it back if there is no room.
    ///
    /// # Errors
    /// The frame.
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        if self.end == Burst::MAX {
            if self.start == 0 {
                return Err(mbuf);
            }
            self.move_to_start();
        }
        self.mbufs[self.end].write(mbuf);
        self.end += 1;
        Ok(())
    }

    /// Frees the first `count`, or all if there are fewer.
    #[inline]
    pub fn free_first(&mut self, count: usize) {
        let count = count.min(self.len());
        let from = self.start;
        self.start += count;
        // SAFETY: these were there, and are no more after `start` has gone up.
        unsafe { dpdk_sys::shim_free_bulk(self.mbufs[from..].as_mut_ptr().cast::<*mut rte_mbuf>(), count as u32) };
    }

    /// Frees all but the first `count`.
    #[inline]
    pub fn truncate(&mut self, count: usize) {
        if count < self.len() {
            let (from, more) = (self.start + count, self.len() - count);
            self.end = from;
            // SAFETY: these were there, and are no more after `end` has gone down.
            unsafe { dpdk_sys::shim_free_bulk(self.mbufs[from..].as_mut_ptr().cast::<*mut rte_mbuf>(), more as u32) };
        }
    }

    /// Frees all.
    #[inline]
    pub fn clear(&mut self) {
        self.truncate(0);
        (self.start, self.end) = (0, 0);
    }

    fn move_to_start(&mut self) {
        let count = self.len();
        // SAFETY: pointers move within the array; those left behind are not looked at any more.
        unsafe { std::ptr::copy(self.mbufs.as_ptr().add(self.start), self.mbufs.as_mut_ptr(), count) };
        (self.start, self.end) = (0, count);
    }

    /// Where pointers to more frames may be written. Room for half a burst, or all that there is.
    pub(crate) fn free_space(&mut self) -> *mut *mut rte_mbuf {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        } else if self.end > Burst::MAX / 2 && self.start > 0 {
            self.move_to_start();
        }
        self.mbufs[self.end..].as_mut_ptr().cast::<*mut rte_mbuf>()
    }

    /// # Safety
    /// `count` pointers to frames that are now ours were written to [`free_space`](Self::free_space), which had room for them.
    pub(crate) unsafe fn filled(&mut self, count: usize) {
        self.end += count;
    }

    pub(crate) fn end(&self) -> usize {
        self.end
    }

    pub(crate) fn pointers(&mut self) -> *mut *mut rte_mbuf {
        self.mbufs[self.start..].as_mut_ptr().cast::<*mut rte_mbuf>()
    }

    /// # Safety
    /// The first `count` are somebody else's now.
    pub(crate) unsafe fn forget(&mut self, count: usize) {
        self.start += count;
    }
}

impl Deref for Burst {
    type Target = [Mbuf];

    #[inline]
    fn deref(&self) -> &[Mbuf] {
        // SAFETY: those between are there, and MaybeUninit<Mbuf> has the layout of Mbuf.
        unsafe { std::slice::from_raw_parts(self.mbufs.as_ptr().add(self.start).cast::<Mbuf>(), self.end - self.start) }
    }
}

impl DerefMut for Burst {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Mbuf] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.mbufs.as_mut_ptr().add(self.start).cast::<Mbuf>(),
                self.end - self.start,
            )
        }
    }
}

impl Default for Burst {
    fn default() -> Burst {
        Burst::new()
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.clear();
    }
}

// Pointers to mbufs are what DPDK's functions read and write in the array.
const _: () = assert!(size_of::<MaybeUninit<Mbuf>>() == size_of::<*mut rte_mbuf>());
