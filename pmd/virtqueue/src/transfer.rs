//! What the driver side of either ring format gives and gets. The device side has `chain.rs`.

/// One buffer of a chain, as the driver gives it to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest address of the first byte.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// Whether the device may write it (and not read it).
    pub writable: bool,
}

impl Segment {
    /// A buffer that the device reads.
    #[must_use]
    pub const fn readable(addr: u64, len: u32) -> Segment {
        Segment { addr, len, writable: false }
    }

    /// A buffer that the device writes.
    #[must_use]
    pub const fn writable(addr: u64, len: u32) -> Segment {
        Segment { addr, len, writable: true }
    }
}

/// A chain that came back from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// What the chain was added with.
    pub token: usize,
    /// Its head.
    pub head: u16,
    /// Number of bytes that the device says it wrote.
    pub written: u32,
}

/// The ring has fewer free descriptors than a chain needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} descriptors are needed, {free} are free")]
pub struct Full {
    /// Descriptors that the chain needs.
    pub wanted: usize,
    /// Descriptors that are free.
    pub free: usize,
}

/// What a device did wrong with the used ring. Sticky: nothing is taken from the ring afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsedFault {
    /// More entries became used than chains were in flight.
    #[error("used index {index}: {ahead} entries ahead, {in_flight} chains are in flight")]
    IndexJump {
        /// The device's index.
        index: u16,
        /// How far it is ahead of what was taken.
        ahead: u16,
        /// Chains that were in flight.
        in_flight: u16,
    },
    /// A used entry names a head that is not in flight.
    #[error("used entry names head {head}, which is not in flight")]
    NotInFlight {
        /// The head.
        head: u32,
    },
    /// A device in order has used a chain before older ones: a used entry names a head that is none of those that the index
    /// says are used. Of a packed ring that cannot be told: there, older ones count as used in full.
    #[error(
        "used out of order (VIRTIO_F_IN_ORDER): head {head}, while chains are in flight that were made available before it"
    )]
    OutOfOrder {
        /// The head.
        head: u32,
    },
}
