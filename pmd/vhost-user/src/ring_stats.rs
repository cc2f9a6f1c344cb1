//! What is counted per virtqueue. Written by the poller that owns the ring, read by anyone.

use stats::{Counter, Gauge};
use virtqueue::FaultReason;

/// Counters of one virtqueue. They outlive connections: a ring that comes back goes on counting.
#[derive(Debug, Default)]
pub struct RingStats {
    /// Chains popped.
    pub chains: Counter,
    /// Pops that found at least one chain, by how many they found, in the classes of [`RingStats::BATCH_EDGES`].
    pub batch_sizes: [Counter; RingStats::BATCH_EDGES.len() + 1],
    /// Times that the ring was left alone after a pop, so that its driver could add to it.
    pub lingers: Counter,
    /// Chains that were done before older ones and waited for them, where chains are used in order (VIRTIO_F_IN_ORDER).
    pub held: Counter,
    /// Chains popped and not given back, as of the last pop or publish.
    pub in_flight: Gauge,
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
    /// Upper bounds of the classes of batch sizes, inclusive; what is larger is in one class more.
    pub const BATCH_EDGES: [u32; 6] = [1, 2, 4, 8, 16, 32];

    /// Pops that found at least one chain: chains ÷ batches is the mean batch size.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batch_sizes.iter().map(Counter::value).sum()
    }

    /// Counts a pop of `count` chains, at least one. A dozen instructions, whatever their number.
    #[inline]
    pub(crate) fn popped(&self, count: usize, in_flight: u16) {
        // Classes end at powers of two: the exponent of the next one up.
        let class = (usize::BITS - (count - 1).leading_zeros()) as usize;
        self.batch_sizes[class.min(Self::BATCH_EDGES.len())].add(1);
        self.chains.add(count as u64);
        self.in_flight.set(in_flight.into());
    }

    #[cold]
    pub(crate) fn broke(&self, reason: FaultReason) {
        self.faults[reason as usize].add(1);
        self.broken.set(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_counted_in_the_class_whose_edge_is_the_first_that_holds_them() {
        for count in 1..=64 {
            let stats = RingStats::default();
            stats.popped(count, 7);
            let class = stats.batch_sizes.iter().position(|class| class.value() == 1);
            let expected = RingStats::BATCH_EDGES.iter().position(|edge| count <= *edge as usize);
            assert_eq!(class, Some(expected.unwrap_or(6)), "{count}");
            assert_eq!((stats.batches(), stats.chains.value(), stats.in_flight.value()), (1, count as u64, 7));
        }
    }
}
