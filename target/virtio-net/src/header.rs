//! The header in front of every frame (virtio 1.3 §5.1.6), and how much of a driver's can be believed: everything in it is
//! checked against the frame and against what was negotiated before a port sees it.

use guest_memory::GuestSlice;
use port::{Checksum, Offload, Offloads, Segmentation};
use virtqueue::ShortChain;

use crate::stats::NetDrop;
use crate::wire::feature;

/// Length of the header with `num_buffers`: with VIRTIO_F_VERSION_1 or MRG_RXBUF.
pub(crate) const HEADER_LEN: usize = 12;
/// Length of the legacy header without it.
pub(crate) const LEGACY_HEADER_LEN: usize = 10;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM.
const NEEDS_CSUM: u8 = 1;
/// VIRTIO_NET_HDR_F_DATA_VALID.
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_UDP: u8 = 3;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Longest frame that is to be segmented: an IP packet of 64 KiB behind an Ethernet header, with room for IPv6 and tags.
const SEGMENTED_MAX: u64 = 65536 + 64;
/// Ethernet header.
const ETHERNET: u64 = 14;
/// Ethernet header and a tag: what a frame has beside its MTU.
pub(crate) const ETHERNET_TAGGED: u64 = 18;

/// What was negotiated, as far as headers go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Bytes of the header.
    pub(crate) header_len: usize,
    /// What the driver may leave to the port.
    tx: Offloads,
    /// What of GUEST_* was negotiated.
    pub(crate) rx: Offloads,
    /// Whether a received frame may be in several buffers.
    pub(crate) mergeable: bool,
    /// Longest frame that goes as it is.
    frame_max: u64,
}

/// A frame that a driver sends, behind its header.
pub(crate) struct Outgoing<'a> {
    pub(crate) offload: Offload,
    pub(crate) first: GuestSlice,
    pub(crate) rest: &'a [GuestSlice],
}

impl Rules {
    pub(crate) fn new(features: u64, mtu: u16) -> Rules {
        let has = |bit| features & bit != 0;
        let long = has(feature::VERSION_1) || has(feature::MRG_RXBUF);
        Rules {
            header_len: if long { HEADER_LEN } else { LEGACY_HEADER_LEN },
            tx: tx_offloads(features),
            rx: rx_offloads(features),
            mergeable: has(feature::MRG_RXBUF),
            frame_max: u64::from(mtu) + ETHERNET_TAGGED,
        }
    }

    /// The frame of a chain that is one buffer with nothing to be done to it, as most are; [`Rules::outgoing`] says the same
    /// of it. `None` if that takes a closer look.
    #[inline(always)]
    pub(crate) fn plain(&self, chain: &ShortChain<'_>) -> Option<GuestSlice> {
        let buffer = *chain.slice(0);
        let [flags, kind, ..] = buffer.read_array::<8>()?;
        let len = buffer.len().checked_sub(self.header_len)? as u64;
        let whole = chain.chain.readable_bytes == buffer.len() as u64; // so it is readable, and there is no other
        if !whole || flags & NEEDS_CSUM != 0 || kind != GSO_NONE || !(ETHERNET..=self.frame_max).contains(&len) {
            return None;
        }
        Some(buffer.split_at(self.header_len).1)
    }

    /// Takes the header off a chain of `bytes` readable bytes.
    #[inline]
    pub(crate) fn outgoing<'a>(&self, readable: &'a [GuestSlice], bytes: u64) -> Result<Outgoing<'a>, NetDrop> {
        let len = bytes.wrapping_sub(self.header_len as u64);
        if let Some((first, rest)) = readable.split_first()
            && first.len() >= self.header_len
            && let Some(word) = first.read_array::<8>()
        {
            let frame = first.split_at(self.header_len).1;
            // Flags and type: nothing to be done, as for most frames.
            if word[0] & NEEDS_CSUM == 0 && word[1] == GSO_NONE {
                self.check_len(len, self.frame_max)?;
                return Ok(Outgoing { offload: Offload::NONE, first: frame, rest });
            }
            let mut header = [0; LEGACY_HEADER_LEN];
            header[..8].copy_from_slice(&word);
            first.split_at(8).1.read(&mut header[8..]);
            return Ok(Outgoing { offload: self.offload(&header, len)?, first: frame, rest });
        }
        self.outgoing_in_pieces(readable, bytes)
    }

    /// A header that lies in several buffers.
    #[cold]
    fn outgoing_in_pieces<'a>(&self, readable: &'a [GuestSlice], bytes: u64) -> Result<Outgoing<'a>, NetDrop> {
        if bytes < self.header_len as u64 {
            return Err(NetDrop::BadDescriptor);
        }
        let mut header = [0; HEADER_LEN];
        let mut filled = 0;
        for (index, slice) in readable.iter().enumerate() {
            filled += slice.read(&mut header[filled..self.header_len]);
            if filled == self.header_len {
                let before: usize = readable[..index].iter().map(|slice| slice.len()).sum();
                let first = slice.split_at(self.header_len - before).1;
                let (legacy, _) = header.split_first_chunk().expect("a header is at least a legacy one");
                let offload = self.offload(legacy, bytes - self.header_len as u64)?;
                return Ok(Outgoing { offload, first, rest: &readable[index + 1..] });
            }
        }
        Err(NetDrop::BadDescriptor)
    }

    /// What the header of a frame of `len` bytes asks for, if that can be.
    #[inline(never)]
    fn offload(&self, header: &[u8; LEGACY_HEADER_LEN], len: u64) -> Result<Offload, NetDrop> {
        let [flags, kind, ..] = *header;
        let field = |at| u16::from_le_bytes([header[at], header[at + 1]]);
        let (size, start, offset) = (field(4), field(6), field(8));
        let mut offload = Offload::NONE;
        if flags & NEEDS_CSUM != 0 {
            // virtio 1.3 §5.1.6.2: the device has to be told within the frame, whatever it does with it.
            let end = u64::from(start) + u64::from(offset) + 2;
            if !self.tx.contains(Offloads::CHECKSUM) || end > len {
                return Err(NetDrop::BadOffload);
            }
            offload.checksum = Checksum::Partial { start, offset };
        }
        if kind == GSO_NONE {
            self.check_len(len, self.frame_max)?;
            return Ok(offload);
        }
        let ecn = kind & GSO_ECN != 0;
        let (segmentation, needed) = match kind & !GSO_ECN {
            GSO_TCPV4 => (Segmentation::Tcp4 { size, ecn }, Offloads::TCP4),
            GSO_TCPV6 => (Segmentation::Tcp6 { size, ecn }, Offloads::TCP6),
            GSO_UDP_L4 if !ecn => (Segmentation::Udp { size }, Offloads::UDP4),
            GSO_UDP if !ecn => (Segmentation::UdpFragments { size }, Offloads::UDP_FRAGMENTS),
            _ => return Err(NetDrop::BadOffload),
        };
        let needed = if ecn { needed | Offloads::ECN } else { needed };
        let checksum_left = flags & NEEDS_CSUM != 0 || kind == GSO_UDP;
        if size == 0 || !checksum_left || !self.tx.contains(needed) {
            return Err(NetDrop::BadOffload);
        }
        self.check_len(len, SEGMENTED_MAX)?;
        offload.segmentation = segmentation;
        Ok(offload)
    }

    #[inline(always)]
    fn check_len(&self, len: u64, max: u64) -> Result<(), NetDrop> {
        if len < ETHERNET {
            return Err(NetDrop::BadDescriptor); // no frame, or no header: `len` wrapped below 0
        }
        if len > max {
            return Err(if len > u64::from(u32::MAX) { NetDrop::BadDescriptor } else { NetDrop::Oversize });
        }
        Ok(())
    }
}

/// The header of a received frame, in `buffers` buffers. `header_bytes` is the length of its headers, if it is to be cut.
pub(crate) fn incoming(offload: Offload, offloads: Offloads, buffers: u16, header_bytes: u16) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    match offload.checksum {
        Checksum::Partial { start, offset } => {
            header[0] = NEEDS_CSUM;
            header[6..8].copy_from_slice(&start.to_le_bytes());
            header[8..10].copy_from_slice(&offset.to_le_bytes());
        }
        Checksum::Valid if offloads.contains(Offloads::CHECKSUM) => header[0] = DATA_VALID,
        Checksum::Valid | Checksum::Unchecked => {}
    }
    let mark = |ecn| if ecn { GSO_ECN } else { 0 };
    let kind = match offload.segmentation {
        Segmentation::None => GSO_NONE,
        Segmentation::Tcp4 { ecn, .. } => GSO_TCPV4 | mark(ecn),
        Segmentation::Tcp6 { ecn, .. } => GSO_TCPV6 | mark(ecn),
        Segmentation::Udp { .. } => GSO_UDP_L4,
        Segmentation::UdpFragments { .. } => GSO_UDP,
    };
    if let Some(size) = offload.segmentation.size() {
        header[1] = kind;
        header[2..4].copy_from_slice(&header_bytes.to_le_bytes());
        header[4..6].copy_from_slice(&size.to_le_bytes());
    }
    header[10..12].copy_from_slice(&buffers.to_le_bytes());
    header
}

/// What frames of a driver may leave to be done.
fn tx_offloads(features: u64) -> Offloads {
    const BITS: [(u64, Offloads); 6] = [
        (feature::CSUM, Offloads::CHECKSUM),
        (feature::HOST_TSO4, Offloads::TCP4),
        (feature::HOST_TSO6, Offloads::TCP6),
        (feature::HOST_ECN, Offloads::ECN),
        (feature::HOST_USO, Offloads::UDP4.union(Offloads::UDP6)),
        (feature::HOST_UFO, Offloads::UDP_FRAGMENTS),
    ];
    collect(&BITS, features)
}

/// What frames to a driver may leave to be done. Also reads CTRL_GUEST_OFFLOADS_SET, which has the same bits.
pub(crate) fn rx_offloads(features: u64) -> Offloads {
    const BITS: [(u64, Offloads); 7] = [
        (feature::GUEST_CSUM, Offloads::CHECKSUM),
        (feature::GUEST_TSO4, Offloads::TCP4),
        (feature::GUEST_TSO6, Offloads::TCP6),
        (feature::GUEST_ECN, Offloads::ECN),
        (feature::GUEST_USO4, Offloads::UDP4),
        (feature::GUEST_USO6, Offloads::UDP6),
        (feature::GUEST_UFO, Offloads::UDP_FRAGMENTS),
    ];
    collect(&BITS, features)
}

fn collect(bits: &[(u64, Offloads)], features: u64) -> Offloads {
    bits.iter().filter(|(bit, _)| features & bit != 0).fold(Offloads::empty(), |all, (_, offload)| all | *offload)
}
