//! One frame in DPDK's memory: an mbuf with its further segments. Many of them are a `Burst`.

use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use bitflags::bitflags;
use dpdk_sys::{
    RTE_PKTMBUF_HEADROOM, SHIM_MBUF_BUF_ADDR, SHIM_MBUF_BUF_LEN, SHIM_MBUF_DATA_LEN, SHIM_MBUF_DATA_OFF,
    SHIM_MBUF_NB_SEGS, SHIM_MBUF_NEXT, SHIM_MBUF_OL_FLAGS, SHIM_MBUF_PACKET_TYPE, SHIM_MBUF_PKT_LEN,
    SHIM_MBUF_PORT_INVALID, SHIM_MBUF_REARM, SHIM_MBUF_SEGS_MAX, SHIM_MBUF_TX_OFFLOAD, rte_mbuf,
};

/// A frame that is ours: the first segment's mbuf, which owns the others. Dropped, all go back to their pools.
///
/// The bytes of its data are always initialised, and may be written by a device at any time; so they are copied in and out,
/// or reached by address, never by reference.
#[derive(Debug)]
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: owned by one place, and mbufs may be sent and freed by any thread.
unsafe impl Send for Mbuf {}

bitflags! {
    /// What the port is to do to a frame when it sends it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TxFlags: u64 {
        /// It is IPv4. One of these two with any other flag.
        const IPV4 = dpdk_sys::SHIM_TX_IPV4;
        /// It is IPv6.
        const IPV6 = dpdk_sys::SHIM_TX_IPV6;
        /// Complete the IPv4 header's checksum.
        const IP_CHECKSUM = dpdk_sys::SHIM_TX_IP_CKSUM;
        /// Complete the TCP checksum.
        const TCP_CHECKSUM = dpdk_sys::SHIM_TX_TCP_CKSUM;
        /// Complete the UDP checksum (two bits: not to be mixed with TCP's).
        const UDP_CHECKSUM = dpdk_sys::SHIM_TX_UDP_CKSUM;
        /// Cut it into TCP segments; implies their checksums.
        const TCP_SEGMENTS = dpdk_sys::SHIM_TX_TCP_SEG;
    }
}

/// Lengths of a frame's headers in bytes, for [`TxFlags`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxHeaders {
    /// Ethernet with VLAN tags: at most 127.
    pub l2: u8,
    /// IP with options or extensions: at most 511.
    pub l3: u16,
    /// TCP or UDP.
    pub l4: u8,
    /// Payload of each segment, if it is to be cut; else 0.
    pub segment: u16,
}

/// What the port found about a received frame's TCP or UDP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxChecksum {
    /// It did not look.
    Unknown,
    /// It is right.
    Good,
    /// It is wrong.
    Bad,
    /// The frame is whole, and the checksum need not be right: it never left a host.
    None,
}

/// The frame does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mbuf chain would have too many segments")]
pub struct TooManySegments;

impl Mbuf {
    fn into_raw(self) -> NonNull<rte_mbuf> {
        ManuallyDrop::new(self).0
    }

    #[inline(always)]
    fn field<T: Copy>(&self, offset: u32) -> T {
        // SAFETY: callers name an offset of the shim with the type of that field; the mbuf is alive and ours.
        unsafe { self.0.as_ptr().cast::<u8>().add(offset as usize).cast::<T>().read() }
    }

    #[inline(always)]
    fn set_field<T: Copy>(&mut self, offset: u32, value: T) {
        // SAFETY: as above, and ours alone.
        unsafe { self.0.as_ptr().cast::<u8>().add(offset as usize).cast::<T>().write(value) }
    }

    /// Bytes of the frame, in all segments.
    #[must_use]
    #[inline]
    pub fn len(&self) -> u32 {
        self.field::<u32>(SHIM_MBUF_PKT_LEN)
    }

    /// Whether it has no bytes.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Address of the first segment's data: [`room`](Self::room) bytes, of which those of [`Segments`] are the frame's.
    #[must_use]
    #[inline]
    pub fn data(&self) -> *mut u8 {
        let start = self.field::<*mut u8>(SHIM_MBUF_BUF_ADDR);
        start.wrapping_add(usize::from(self.field::<u16>(SHIM_MBUF_DATA_OFF)))
    }

    /// Bytes that the first segment can hold.
    #[must_use]
    #[inline]
    pub fn room(&self) -> u16 {
        self.field::<u16>(SHIM_MBUF_BUF_LEN).saturating_sub(self.field::<u16>(SHIM_MBUF_DATA_OFF))
    }

    /// Where data will begin after [`refresh`](Self::refresh). Of an mbuf straight from its pool.
    #[inline(always)]
    pub(crate) fn fresh_room(&self) -> *mut u8 {
        self.field::<*mut u8>(SHIM_MBUF_BUF_ADDR).wrapping_add(RTE_PKTMBUF_HEADROOM as usize)
    }

    /// Makes an mbuf straight from its pool a frame of one segment with `len` bytes, which fit.
    #[inline(always)]
    pub(crate) fn refresh(&mut self, len: u16) {
        self.set_field::<u64>(SHIM_MBUF_REARM, FRESH);
        self.set_field::<u64>(SHIM_MBUF_OL_FLAGS, 0);
        // With them, no packet type and no VLAN tag.
        self.set_field::<u64>(SHIM_MBUF_PACKET_TYPE, u64::from(len) << 32);
        self.set_field::<u32>(SHIM_MBUF_DATA_LEN, u32::from(len));
        self.set_field::<u64>(SHIM_MBUF_TX_OFFLOAD, 0);
    }

    /// Says that the frame is the first `len` bytes of this one segment.
    ///
    /// # Panics
    /// If that is more than fits, or there are more segments.
    #[inline]
    pub fn set_len(&mut self, len: u16) {
        assert!(len <= self.room(), "a frame of {len} bytes in an mbuf for {}", self.room());
        debug_assert_eq!(self.field::<u16>(SHIM_MBUF_NB_SEGS), 1);
        self.set_field::<u16>(SHIM_MBUF_DATA_LEN, len);
        self.set_field::<u32>(SHIM_MBUF_PKT_LEN, u32::from(len));
        self.set_field::<u64>(SHIM_MBUF_OL_FLAGS, 0);
    }

    /// Its segments, first to last.
    #[must_use]
    #[inline]
    pub fn segments(&self) -> Segments<'_> {
        Segments { next: Some(self.0), frame: std::marker::PhantomData }
    }

    /// Its only segment, as [`segments`](Self::segments) gives it; `None` if there are more.
    #[must_use]
    #[inline(always)]
    pub fn sole_segment(&self) -> Option<(*mut u8, usize)> {
        (self.field::<u16>(SHIM_MBUF_NB_SEGS) == 1)
            .then(|| (self.data(), usize::from(self.field::<u16>(SHIM_MBUF_DATA_LEN))))
    }

    /// Adds the segments of `tail` behind its own. As quick as there are segments.
    ///
    /// # Errors
    /// Both together have more segments than an mbuf can count; `tail` is freed.
    pub fn append(&mut self, tail: Mbuf) -> Result<(), TooManySegments> {
        let segments =
            u32::from(self.field::<u16>(SHIM_MBUF_NB_SEGS)) + u32::from(tail.field::<u16>(SHIM_MBUF_NB_SEGS));
        if segments > SHIM_MBUF_SEGS_MAX {
            return Err(TooManySegments);
        }
        self.set_field::<u16>(SHIM_MBUF_NB_SEGS, segments as u16);
        self.set_field::<u32>(SHIM_MBUF_PKT_LEN, self.len() + tail.len());
        let mut last = self.0;
        // SAFETY: the chain of a frame that is ours ends with a null pointer; each mbuf in it is ours, too.
        unsafe {
            while let Some(next) = next_of(last) {
                last = next;
            }
            let link = last.as_ptr().cast::<u8>().add(SHIM_MBUF_NEXT as usize).cast::<*mut rte_mbuf>();
            link.write(tail.into_raw().as_ptr());
        }
        Ok(())
    }

    /// Asks for something to be done to the frame when it is sent, and prepares its headers for that: the sum of the pseudo
    /// header goes into the checksum of TCP or UDP. `false`, and nothing is changed, if the headers are not whole within the
    /// first segment, or a length is out of bounds: drivers believe what stands there. [`set_len`](Self::set_len) takes it back.
    pub fn prepare(&mut self, flags: TxFlags, headers: TxHeaders) -> bool {
        let end = usize::from(headers.l2) + usize::from(headers.l3) + usize::from(headers.l4);
        // The fixed parts of the headers, which are read and written.
        let l3 = if flags.contains(TxFlags::IPV6) { 40 } else { 20 };
        let l4 = if flags.contains(TxFlags::TCP_SEGMENTS) || !flags.contains(TxFlags::UDP_CHECKSUM) { 20 } else { 8 };
        let cut = flags.contains(TxFlags::TCP_SEGMENTS);
        if end > usize::from(self.field::<u16>(SHIM_MBUF_DATA_LEN))
            || !(14..=127).contains(&headers.l2)
            || !(l3..=511).contains(&headers.l3)
            || headers.l4 < l4
            || cut != (headers.segment > 0)
            || flags.contains(TxFlags::IPV4) == flags.contains(TxFlags::IPV6)
        {
            return false;
        }
        // SAFETY: computes from its arguments.
        let lengths = unsafe { dpdk_sys::shim_tx_offload(headers.l2, headers.l3, headers.l4, headers.segment) };
        self.set_field::<u64>(SHIM_MBUF_OL_FLAGS, flags.bits());
        self.set_field::<u64>(SHIM_MBUF_TX_OFFLOAD, lengths);
        // SAFETY: the mbuf is ours, and its headers, with the bytes that are read and written, lie in the first segment.
        let status = unsafe { dpdk_sys::shim_pseudo_header(self.0.as_ptr()) };
        debug_assert_eq!(status, 0, "headers within the first segment");
        true
    }

    /// What [`prepare`](Self::prepare) asked for.
    #[must_use]
    pub fn tx_request(&self) -> (TxFlags, TxHeaders) {
        let flags = TxFlags::from_bits_truncate(self.field::<u64>(SHIM_MBUF_OL_FLAGS));
        let lengths = self.field::<u64>(SHIM_MBUF_TX_OFFLOAD);
        let part = |shift: u32, bits: u32| (lengths >> shift) as u16 & ((1 << bits) - 1);
        let (l2, l3, l4) = (part(0, 7) as u8, part(7, 9), part(16, 8) as u8);
        (flags, TxHeaders { l2, l3, l4, segment: (lengths >> 24) as u16 })
    }

    /// What the port found about its TCP or UDP checksum.
    #[must_use]
    #[inline]
    pub fn rx_checksum(&self) -> RxChecksum {
        match self.field::<u64>(SHIM_MBUF_OL_FLAGS) & dpdk_sys::SHIM_RX_L4_CKSUM_MASK {
            dpdk_sys::SHIM_RX_L4_CKSUM_GOOD => RxChecksum::Good,
            dpdk_sys::SHIM_RX_L4_CKSUM_BAD => RxChecksum::Bad,
            dpdk_sys::SHIM_RX_L4_CKSUM_NONE => RxChecksum::None,
            _ => RxChecksum::Unknown,
        }
    }

    /// The ones' complement sum over `len` bytes from `offset` on, in the order of the bytes in memory; `None` if they are not
    /// all in the frame.
    #[must_use]
    pub fn sum(&self, offset: u32, len: u32) -> Option<u16> {
        if offset.checked_add(len)? > self.len() {
            return None;
        }
        // SAFETY: reads within the frame, whose segments add up to its length.
        u16::try_from(unsafe { dpdk_sys::shim_raw_sum(self.0.as_ptr(), offset, len) }).ok()
    }

    /// Copies bytes from `offset` on out of it: as many as both hold. Returns that number.
    pub fn read(&self, offset: u32, to: &mut [u8]) -> usize {
        let mut done = 0;
        self.walk(offset, to.len(), |address, len| {
            // SAFETY: `len` bytes of a segment; `to` is nobody else's and no mbuf.
            unsafe { ptr::copy_nonoverlapping(address, to.as_mut_ptr().add(done), len) };
            done += len;
        });
        done
    }

    /// Copies bytes into it from `offset` on: as many as both hold. Returns that number.
    pub fn write(&mut self, offset: u32, from: &[u8]) -> usize {
        let mut done = 0;
        self.walk(offset, from.len(), |address, len| {
            // SAFETY: `len` bytes of a segment of ours; `from` is no mbuf.
            unsafe { ptr::copy_nonoverlapping(from.as_ptr().add(done), address, len) };
            done += len;
        });
        done
    }

    /// The stretches of at most `len` bytes from `offset` on.
    fn walk(&self, offset: u32, mut len: usize, mut each: impl FnMut(*mut u8, usize)) {
        let mut skip = offset as usize;
        for (address, size) in self.segments() {
            if len == 0 {
                break;
            }
            if skip >= size {
                skip -= size;
                continue;
            }
            let count = (size - skip).min(len);
            each(address.wrapping_add(skip), count);
            skip = 0;
            len -= count;
        }
    }

    /// Whether DPDK finds it sound; else its reason. For tests and for diagnosis.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let mut reason = ptr::null();
        // SAFETY: reads an mbuf of ours; a reason is a string that lives for ever.
        unsafe {
            if dpdk_sys::shim_mbuf_check(self.0.as_ptr(), &mut reason) == 0 {
                return Ok(());
            }
            Err(std::ffi::CStr::from_ptr(reason).to_string_lossy().into_owned())
        }
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: ours, and gone after this.
        unsafe { dpdk_sys::shim_free(self.0.as_ptr()) };
    }
}

/// Headroom, one owner, one segment, no port: data_off, refcnt, nb_segs and port.
const FRESH: u64 = RTE_PKTMBUF_HEADROOM as u64 | 1 << 16 | 1 << 32 | (SHIM_MBUF_PORT_INVALID as u64) << 48;

/// Address and length of each segment of an [`Mbuf`], in order. They are readable and writable for as long as that lives, and
/// is neither sent nor dropped.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    next: Option<NonNull<rte_mbuf>>,
    frame: std::marker::PhantomData<&'a Mbuf>,
}

impl Iterator for Segments<'_> {
    type Item = (*mut u8, usize);

    #[inline]
    fn next(&mut self) -> Option<(*mut u8, usize)> {
        let segment = ManuallyDrop::new(Mbuf(self.next?));
        // SAFETY: an mbuf of the chain of a frame that is borrowed.
        self.next = unsafe { next_of(segment.0) };
        Some((segment.data(), usize::from(segment.field::<u16>(SHIM_MBUF_DATA_LEN))))
    }
}

/// # Safety
/// `mbuf` is alive and owned by the caller.
#[inline]
unsafe fn next_of(mbuf: NonNull<rte_mbuf>) -> Option<NonNull<rte_mbuf>> {
    // SAFETY: the caller's promise; the field is a pointer.
    NonNull::new(unsafe { mbuf.as_ptr().cast::<u8>().add(SHIM_MBUF_NEXT as usize).cast::<*mut rte_mbuf>().read() })
}
