//! What file devices count beside their requests: the ways that cost more than the straight one. One block of counters
//! per channel, summed by whoever reads.

use bdev::CounterBlocks;
use stats::Counter;

/// The counters of one channel. Written by its poller only.
#[derive(Debug, Default)]
pub(crate) struct ChannelCounters {
    pub bounced: Counter,
    pub continued: Counter,
    pub retried: Counter,
    pub sync_failures: Counter,
    pub enters: Counter,
    pub enter_failures: Counter,
}

/// What the channels of a device have counted so far, those included that are closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileCounts {
    /// Transfers that took the way over a bounce buffer, because the guest's buffers were not aligned.
    pub bounced: u64,
    /// Reads and writes that the kernel did in part, and that were continued.
    pub continued: u64,
    /// System calls that were tried again (`EAGAIN` and its like).
    pub retried: u64,
    /// Flushes and FUA writes that failed.
    pub sync_failures: u64,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Those that failed.
    pub enter_failures: u64,
}

impl FileCounts {
    pub(crate) fn sum(blocks: &CounterBlocks<ChannelCounters>) -> FileCounts {
        let sum = |counter: fn(&ChannelCounters) -> &Counter| blocks.sum(|block| counter(block).value());
        FileCounts {
            bounced: sum(|block| &block.bounced),
            continued: sum(|block| &block.continued),
            retried: sum(|block| &block.retried),
            sync_failures: sum(|block| &block.sync_failures),
            enters: sum(|block| &block.enters),
            enter_failures: sum(|block| &block.enter_failures),
        }
    }
}
