//! What the shards of one connection share: what the driver has said on the control queue. Written by the shard that serves
//! it, read by all of them; each value on its own, so relaxed atomics do.

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use port::{Mac, Offloads};
use reactor::PollerHandle;

use crate::filter::Filter;

/// State of the driver's control commands.
pub(crate) struct NetSession {
    queue_pairs: u16,
    /// Pairs that receive, from the first one on.
    active_pairs: AtomicU16,
    /// Pairs that do receive.
    open_pairs: AtomicU16,
    /// What of the negotiated receive offloads the driver wants now.
    rx_offloads: AtomicU32,
    /// What the driver receives.
    pub(crate) filter: Filter,
    mac: Mac,
    /// Where its shards are: one that sleeps has to look when this changes.
    pollers: Vec<PollerHandle>,
}

impl NetSession {
    pub(crate) fn new(queue_pairs: u16, mac: Mac, pollers: &[PollerHandle]) -> NetSession {
        NetSession {
            pollers: pollers.to_vec(),
            queue_pairs,
            active_pairs: AtomicU16::new(queue_pairs),
            open_pairs: AtomicU16::new(0),
            rx_offloads: AtomicU32::new(0),
            filter: Filter::open(mac),
            mac,
        }
    }

    /// A driver begins: what another one said does not hold. `steered` says that it names its active pairs on the control
    /// queue, and has one until then (virtio 1.3 §5.1.6.5.5).
    pub(crate) fn begin(&self, rx_offloads: Offloads, steered: bool, vlan_filtered: bool) {
        self.set_active_pairs(if steered { 1 } else { self.queue_pairs });
        self.set_rx_offloads(rx_offloads);
        self.filter.begin(self.mac, vlan_filtered);
    }

    #[inline]
    pub(crate) fn active_pairs(&self) -> u16 {
        self.active_pairs.load(Ordering::Relaxed)
    }

    pub(crate) fn set_active_pairs(&self, pairs: u16) {
        self.active_pairs.store(pairs, Ordering::Relaxed);
        self.wake();
    }

    /// Whether the driver receives on any pair, of whichever shard.
    #[inline]
    pub(crate) fn receives(&self) -> bool {
        self.open_pairs.load(Ordering::Relaxed) > 0
    }

    /// A pair begins or ends to receive.
    pub(crate) fn count_open(&self, open: bool) {
        if open {
            self.open_pairs.fetch_add(1, Ordering::Relaxed);
        } else {
            self.open_pairs.fetch_sub(1, Ordering::Relaxed);
        }
        self.wake();
    }

    fn wake(&self) {
        self.pollers.iter().for_each(PollerHandle::wake);
    }

    /// All queue pairs of the device.
    pub(crate) fn queue_pairs(&self) -> u16 {
        self.queue_pairs
    }

    #[inline]
    pub(crate) fn rx_offloads(&self) -> Offloads {
        Offloads::from_bits_retain(self.rx_offloads.load(Ordering::Relaxed))
    }

    pub(crate) fn set_rx_offloads(&self, offloads: Offloads) {
        self.rx_offloads.store(offloads.bits(), Ordering::Relaxed);
    }
}
