//! Where frames lie in mbufs, as slices. The only unsafe module here.

use dpdk::Mbuf;
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

/// The segments of a frame, first to last.
#[inline]
pub(crate) fn segments(mbuf: &Mbuf) -> impl Iterator<Item = GuestSlice> {
    // SAFETY: as above: segments lie in mempools, or in memory that a driver attached and keeps mapped until they are freed.
    mbuf.segments().map(|(start, len)| unsafe { GuestSlice::from_raw(start, len) })
}
