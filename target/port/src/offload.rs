//! What a frame leaves to be done by whoever sends it on: checksums and segmentation. The wire form of this in front of a
//! frame is virtio-net's.

use bitflags::bitflags;

/// What is left to be done to a frame, or is known of it. The numbers are within the frame (checked by whoever made this);
/// what the frame's headers say is not known, and in memory of a guest may change at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Of its transport checksum.
    pub checksum: Checksum,
    /// How it is to be cut.
    pub segmentation: Segmentation,
}

/// State of a frame's transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing is known: the receiver checks it.
    #[default]
    Unchecked,
    /// It was checked and is right.
    Valid,
    /// It is to be completed: the ones' complement sum over all bytes from `start` on, its complement stored in the two
    /// bytes at `start + offset`, which hold the sum of the pseudo header (virtio 1.3 §5.1.6.2). `start + offset + 2` is at
    /// most the frame's length.
    Partial {
        /// Where summing starts, in bytes from the frame's first.
        start: u16,
        /// Where the result goes, in bytes from `start`.
        offset: u16,
    },
}

/// How a frame that is longer than the link takes is to be cut into several. `size` is the payload of each, never 0. Comes
/// with [`Checksum::Partial`] except for `UdpFragments`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Segmentation {
    /// Not at all.
    #[default]
    None,
    /// TCP over IPv4.
    Tcp4 {
        /// Payload bytes of each segment.
        size: u16,
        /// The sender uses explicit congestion notification: CWR stays on the first segment only.
        ecn: bool,
    },
    /// TCP over IPv6.
    Tcp6 {
        /// Payload bytes of each segment.
        size: u16,
        /// As with `Tcp4`.
        ecn: bool,
    },
    /// UDP datagrams of one flow, over IPv4 or IPv6 (USO).
    Udp {
        /// Payload bytes of each datagram.
        size: u16,
    },
    /// One UDP datagram, to be sent as IP fragments (UFO).
    UdpFragments {
        /// IP payload bytes of each fragment.
        size: u16,
    },
}

bitflags! {
    /// What a sender can leave to be done.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Offloads: u32 {
        /// [`Checksum::Partial`].
        const CHECKSUM = 1;
        /// [`Segmentation::Tcp4`] without `ecn`.
        const TCP4 = 1 << 1;
        /// [`Segmentation::Tcp6`] without `ecn`.
        const TCP6 = 1 << 2;
        /// `ecn` of both.
        const ECN = 1 << 3;
        /// [`Segmentation::Udp`] over IPv4.
        const UDP4 = 1 << 4;
        /// [`Segmentation::Udp`] over IPv6.
        const UDP6 = 1 << 5;
        /// [`Segmentation::UdpFragments`].
        const UDP_FRAGMENTS = 1 << 6;
    }
}

impl Segmentation {
    /// Payload bytes of each segment; `None` if the frame goes as it is.
    #[must_use]
    pub fn size(self) -> Option<u16> {
        match self {
            Segmentation::None => None,
            Segmentation::Tcp4 { size, .. }
            | Segmentation::Tcp6 { size, .. }
            | Segmentation::Udp { size }
            | Segmentation::UdpFragments { size } => Some(size),
        }
    }
}

impl Offload {
    /// Nothing is left to be done, nothing is known.
    pub const NONE: Offload = Offload { checksum: Checksum::Unchecked, segmentation: Segmentation::None };

    /// Whether this is [`Offload::NONE`], in fewer instructions than comparing.
    #[must_use]
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        matches!((self.checksum, self.segmentation), (Checksum::Unchecked, Segmentation::None))
    }
}
