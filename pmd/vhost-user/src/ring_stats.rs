//! What is counted per virtqueue. Written by the poller that owns the ring, read by anyone.

use stats::{Counter, Gauge};
use virtqueue::FaultReason;

/// Counters of one virtqueue. They outlive connections: a ring that comes back goes on counting.
#[derive(Debug, Default)]
pub struct RingStats {
    /// Chains popped.
    pub chains: Counter,
    /// Pops that found at least one chain: chains ÷ batches is the mean batch size.
    pub batches: Counter,
    /// Kicks of the driver that were received, counted when the ring is looked at again or stopped. While the ring is
    /// polled the driver is told not to kick.
    pub kicks: Counter,
    /// Calls sent to the driver.
    pub calls: Counter,
    /// Publishes after which the driver wanted no call.
    pub calls_suppressed: Counter,
    /// Calls that were held back, where calls are coalesced.
    pub calls_delayed: Counter,
    /// Publishes that needed no call of their own, since one was held back already.
    pub calls_coalesced: Counter,
    /// Times that the queue was halted, by [`FaultReason`].
    pub faults: [Counter; FaultReason::ALL.len()],
    /// Size of the ring in descriptors while it is started, 0 otherwise.
    pub size: Gauge,
    /// 1 while the ring is cold: not polled, its driver is told to kick.
    pub cold: Gauge,
    /// 1 while the queue is halted (R19).
    pub broken: Gauge,
}

impl RingStats {
    #[cold]
    pub(crate) fn broke(&self, reason: FaultReason) {
        self.faults[reason as usize].add(1);
        self.broken.set(1);
    }
}
