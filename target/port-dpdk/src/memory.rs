//! Where frames lie in mbufs, as slices. The only unsafe module here.

use std::ptr;

use dpdk::{Burst, Mbuf, Mempool, NoMbufs};
use guest_memory::GuestSlice;

/// The first `len` bytes that `mbuf`'s first segment has room for.
///
/// # Panics
/// If it has not.
#[inline]
pub(crate) fn room(mbuf: &mut Mbuf, len: u16) -> GuestSlice {
    assert!(len <= mbuf.room(), "{len} bytes in an mbuf for {}", mbuf.room());
    // SAFETY: the bytes lie in a mempool, which is mapped for as long as the process lives, and nobody makes references to
    // them. They are this mbuf's until it is sent or freed; a slice that is used later than that, which nobody does, reads or
    // overwrites another frame.
    unsafe { GuestSlice::from_raw(mbuf.data(), usize::from(len)) }
}

/// Copies frames of one segment each, which are not longer than the pool's mbufs, into new mbufs.
#[inline]
pub(crate) fn copy_all(burst: &mut Burst, pool: &Mempool, frames: &[GuestSlice]) -> Result<(), NoMbufs> {
    let room = usize::from(pool.room());
    burst.allocate_for(pool, frames, |frame, to| {
        let len = frame.len().min(room);
        // SAFETY: the frame is readable, says whoever made the slice, and `to` is room for as many bytes in an mbuf that is
        // ours. What guests share with us and mempools are different mappings.
        unsafe { ptr::copy_nonoverlapping(frame.as_ptr(), to, len) };
        len as u16
    })
}

/// The only segment of a frame that has one and bytes in it.
#[inline(always)]
pub(crate) fn sole_segment(mbuf: &Mbuf) -> Option<GuestSlice> {
    let (start, len) = mbuf.sole_segment()?;
    // SAFETY: as of all segments, below.
    (len > 0).then(|| unsafe { GuestSlice::from_raw(start, len) })
}

/// The segments of a frame, first to last.
#[inline]
pub(crate) fn segments(mbuf: &Mbuf) -> impl Iterator<Item = GuestSlice> {
    // SAFETY: as of room: segments lie in mempools, or in memory that a driver attached and keeps mapped until they are freed.
    mbuf.segments().map(|(start, len)| unsafe { GuestSlice::from_raw(start, len) })
}
