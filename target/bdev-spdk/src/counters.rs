//! What SPDK devices count beside their requests. One block of counters per channel, summed by whoever reads.

use bdev::CounterBlocks;
use stats::Counter;

/// The counters of one channel. Written by its poller only.
#[derive(Debug, Default)]
pub(crate) struct ChannelCounters {
    pub direct: Counter,
    pub lent: Counter,
    pub bounced: Counter,
    pub starved: Counter,
    pub waited: Counter,
}

/// What the channels of a device have counted so far, those included that are closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpdkCounts {
    /// Transfers whose buffers SPDK was given as they are.
    pub direct: u64,
    /// Transfers between the guest's buffers and memory that the bdev is made of, and lends: moved by the poller.
    pub lent: u64,
    /// Transfers that went through buffers of SPDK's pool, because the guest's are in memory that SPDK could not take.
    pub bounced: u64,
    /// How often such a transfer found the pool empty, and waited.
    pub starved: u64,
    /// How often SPDK had no room for a request, which then waited.
    pub waited: u64,
}

impl SpdkCounts {
    pub(crate) fn sum(blocks: &CounterBlocks<ChannelCounters>) -> SpdkCounts {
        let sum = |counter: fn(&ChannelCounters) -> &Counter| blocks.sum(|block| counter(block).value());
        SpdkCounts {
            direct: sum(|block| &block.direct),
            lent: sum(|block| &block.lent),
            bounced: sum(|block| &block.bounced),
            starved: sum(|block| &block.starved),
            waited: sum(|block| &block.waited),
        }
    }
}
