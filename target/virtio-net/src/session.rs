//! What the shards of one connection share: what the driver has said on the control queue. Written by the shard that serves
//! it, read by all of them; each value on its own, so relaxed atomics do.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use port::Mac;

/// State of the driver's control commands.
pub(crate) struct NetSession {
    queue_pairs: u16,
    /// Pairs that receive, from the first one on.
    active_pairs: AtomicU16,
    /// What of the negotiated receive offloads the driver wants now, as feature bits.
    guest_offloads: AtomicU64,
    mac: Mac,
}

impl NetSession {
    pub(crate) fn new(queue_pairs: u16, mac: Mac) -> NetSession {
        NetSession { queue_pairs, active_pairs: AtomicU16::new(queue_pairs), guest_offloads: AtomicU64::new(0), mac }
    }
}
