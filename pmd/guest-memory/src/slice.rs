//! A contiguous range of shared memory, and the only bulk copies there are. No addresses of the guest in here.

use std::ptr;

/// A contiguous range of shared memory in our address space.
///
/// Copyable like a raw pointer, and valid for as long as the mapping that it was made from (see the crate's
/// documentation for who keeps that alive). The guest may write the bytes at any time: what was read once must be
/// validated after it was read, never read again.
#[derive(Clone, Copy, Debug)]
pub struct GuestSlice {
    start: *mut u8,
    len: usize,
}

// SAFETY: the slice is an address and a length; access goes through raw copies and atomics that allow races.
unsafe impl Send for GuestSlice {}
// SAFETY: as above; no method hands out a reference to the memory.
unsafe impl Sync for GuestSlice {}

impl GuestSlice {
    /// A slice of no bytes.
    pub const EMPTY: GuestSlice = GuestSlice { start: ptr::null_mut(), len: 0 };

    /// Makes a slice of `len` bytes at `start`.
    ///
    /// # Safety
    /// `start .. start + len` is mapped readable and writable, and stays so for as long as the slice or a copy of it
    /// is used. No Rust reference to those bytes exists meanwhile.
    #[must_use]
    #[inline]
    pub const unsafe fn from_raw(start: *mut u8, len: usize) -> GuestSlice {
        GuestSlice { start, len }
    }

    /// Length in bytes.
    #[must_use]
    #[inline]
    pub const fn len(self) -> usize {
        self.len
    }

    /// Whether there is no byte in it.
    #[must_use]
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Address of the first byte, for system calls and for tests. Dereferencing it is the caller's own unsafe.
    #[must_use]
    #[inline]
    pub const fn as_ptr(self) -> *mut u8 {
        self.start
    }

    /// The `len` bytes from `offset` on; `None` if they are not all inside.
    #[must_use]
    #[inline]
    pub fn subslice(self, offset: usize, len: usize) -> Option<GuestSlice> {
        let end = offset.checked_add(len)?;
        (end <= self.len).then(|| GuestSlice { start: self.start.wrapping_add(offset), len })
    }

    /// The first `mid` bytes and the rest.
    ///
    /// # Panics
    /// If `mid` is greater than the length: the caller has checked it.
    #[must_use]
    #[inline]
    pub fn split_at(self, mid: usize) -> (GuestSlice, GuestSlice) {
        assert!(mid <= self.len, "split at {mid} of a guest slice of {} bytes", self.len);
        (
            GuestSlice { start: self.start, len: mid },
            GuestSlice { start: self.start.wrapping_add(mid), len: self.len - mid },
        )
    }

    /// Copies from shared memory into `to`: as many bytes as both hold. Returns that number.
    #[inline]
    pub fn read(self, to: &mut [u8]) -> usize {
        let count = self.len.min(to.len());
        // SAFETY: `count` bytes lie inside both sides; `to` is ours alone, so the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(self.start, to.as_mut_ptr(), count) };
        count
    }

    /// Reads the first `N` bytes; `None` if there are fewer.
    #[must_use]
    #[inline]
    pub fn read_array<const N: usize>(self) -> Option<[u8; N]> {
        if self.len < N {
            return None;
        }
        // SAFETY: N bytes lie inside; a byte array has no alignment and no invalid values.
        Some(unsafe { ptr::read_unaligned(self.start.cast::<[u8; N]>()) })
    }

    /// Copies `from` into shared memory: as many bytes as both hold. Returns that number.
    #[inline]
    pub fn write(self, from: &[u8]) -> usize {
        let count = self.len.min(from.len());
        // SAFETY: `count` bytes lie inside both sides; shared memory is never behind a Rust reference.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), self.start, count) };
        count
    }

    /// Writes the first `N` bytes. False, and nothing is written, if there are fewer.
    #[must_use]
    #[inline]
    pub fn write_array<const N: usize>(self, from: [u8; N]) -> bool {
        if self.len < N {
            return false;
        }
        // SAFETY: N bytes lie inside; a byte array has no alignment.
        unsafe { ptr::write_unaligned(self.start.cast::<[u8; N]>(), from) };
        true
    }

    /// Copies into another range of shared memory: as many bytes as both hold. Returns that number.
    #[inline]
    pub fn copy_to(self, to: GuestSlice) -> usize {
        let count = self.len.min(to.len);
        // SAFETY: `count` bytes lie inside both sides; `ptr::copy` allows them to overlap.
        unsafe { ptr::copy(self.start, to.start, count) };
        count
    }

    /// As [`GuestSlice::copy_to`], with stores that go past the caches (MOVNTDQ): the lines that are written are not read first, and
    /// push no others out. For much data that is not read again soon: writing 16 KiB or more to memory that is not in a cache
    /// takes half the time. Ordered like any other store when it returns.
    #[inline]
    pub fn stream_to(self, to: GuestSlice) -> usize {
        let count = self.len.min(to.len);
        let head = to.start.align_offset(LINE).min(count);
        let body = (count - head) & !(LINE - 1);
        let (first, rest) = self.split_at(head);
        first.copy_to(to);
        let (_, to) = to.split_at(head);
        // SAFETY: `body` bytes lie inside both sides; the second begins with a cache line.
        unsafe { stream_lines(rest.start, to.start, body / LINE) };
        let (_, rest) = rest.split_at(body);
        rest.copy_to(to.split_at(body).1);
        count
    }

    /// Sets every byte.
    #[inline]
    pub fn fill(self, byte: u8) {
        // SAFETY: exactly the bytes of this slice.
        unsafe { ptr::write_bytes(self.start, byte, self.len) };
    }

    /// Asks the processor to bring the first cache line near, to be read.
    #[inline]
    pub fn prefetch_read(self) {
        // SAFETY: a prefetch does not fault and changes nothing.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(self.start.cast::<i8>());
        }
    }

    /// Asks the processor to bring the first cache line near, to be written: other caches give it up.
    #[inline]
    pub fn prefetch_write(self) {
        // The intrinsic becomes a prefetch for reading on the baseline that we are compiled for, so that the line is fetched
        // twice. PREFETCHW is there on every 64-bit AMD processor and does at least no harm on every Intel one.
        // SAFETY: a prefetch does not fault and changes nothing.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            core::arch::asm!("prefetchw [{0}]", in(reg) self.start, options(nostack, preserves_flags, readonly));
        }
    }

    /// As [`GuestSlice::prefetch_write`] for the cache line after the first, whether it belongs to the slice or not.
    #[inline]
    pub fn prefetch_next_write(self) {
        GuestSlice { start: self.start.wrapping_add(LINE), len: 0 }.prefetch_write();
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Copies `lines` cache lines past the caches, forwards.
///
/// # Safety
/// So many lines are mapped readable at `from` and writable at `to`, which is the begin of one.
unsafe fn stream_lines(from: *const u8, to: *mut u8, lines: usize) {
    use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    let (from, to) = (from.cast::<__m128i>(), to.cast::<__m128i>());
    const STEPS: usize = LINE / size_of::<__m128i>();
    for line in 0..lines {
        let (from, to) = (from.wrapping_add(line * STEPS), to.wrapping_add(line * STEPS));
        // SAFETY: inside both, as the caller says. All loads of a line go before its stores, which fill a line each and are
        // combined.
        unsafe {
            let parts: [__m128i; STEPS] = std::array::from_fn(|step| _mm_loadu_si128(from.wrapping_add(step)));
            for (step, part) in parts.into_iter().enumerate() {
                _mm_stream_si128(to.wrapping_add(step), part);
            }
        }
    }
    // Streaming stores are the only ones that an index published later could overtake.
    // SAFETY: every x86-64 processor has the instruction; it touches no memory.
    unsafe { _mm_sfence() };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice_of(bytes: &mut [u8]) -> GuestSlice {
        // SAFETY: the buffer outlives the slice in every test and is read through it only while it lives.
        unsafe { GuestSlice::from_raw(bytes.as_mut_ptr(), bytes.len()) }
    }

    #[test]
    fn subslice_outside_is_none_also_on_overflow() {
        let mut bytes = [0u8; 8];
        let slice = slice_of(&mut bytes);
        assert_eq!(slice.subslice(2, 6).map(GuestSlice::len), Some(6));
        assert!(slice.subslice(2, 7).is_none());
        assert!(slice.subslice(usize::MAX, 2).is_none());
        assert_eq!(slice.subslice(8, 0).map(GuestSlice::len), Some(0));
    }

    #[test]
    fn copies_move_what_both_sides_hold() {
        let mut bytes = *b"abcdefgh";
        let slice = slice_of(&mut bytes);
        let mut out = [0u8; 3];
        assert_eq!(slice.read(&mut out), 3);
        assert_eq!(&out, b"abc");
        assert_eq!(slice.subslice(6, 2).unwrap().write(b"xyz"), 2);
        assert_eq!(slice.read_array::<8>().unwrap(), *b"abcdefxy");
        assert!(slice.read_array::<9>().is_none());
        assert!(!slice.write_array([0; 9]) && slice.subslice(0, 6).unwrap().write_array(*b"abcdef"));
        let (head, tail) = slice.split_at(4);
        assert_eq!(head.copy_to(tail), 4);
        assert_eq!(slice.read_array::<8>().unwrap(), *b"abcdabcd");
        tail.fill(b'.');
        assert_eq!(slice.read_array::<8>().unwrap(), *b"abcd....");
    }

    #[test]
    fn streams_move_what_copies_do_at_every_alignment_and_length() {
        let mut source: Vec<u8> = (0..512).map(|at| (at % 251) as u8).collect();
        for (from, to, len) in (0..40).flat_map(|from| (0..70).map(move |to| (from, to, (from * 37 + to * 11) % 400))) {
            let (mut streamed, mut copied) = (vec![0xee; 512], vec![0xee; 512]);
            let source = slice_of(&mut source).subslice(from, len).unwrap();
            // One side or the other is the shorter one.
            let room = if to % 2 == 0 { len } else { 300 };
            let count = source.stream_to(slice_of(&mut streamed).subslice(to, room).unwrap());
            assert_eq!(count, source.copy_to(slice_of(&mut copied).subslice(to, room).unwrap()));
            assert!(streamed == copied, "{len} bytes from {from} to {to}");
        }
    }
}
