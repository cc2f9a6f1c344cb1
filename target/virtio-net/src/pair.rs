//! A queue pair and the port queue behind it: what both directions have in common. How frames move is `transmit.rs` and
//! `receive.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use guest_memory::GuestSlice;
use port::FrameBatch;
use vhost_user::{RingSet, Ticket};
use virtqueue::ChainBatch;

use crate::device::Lease;
use crate::stats::{DirectionStats, NetDrop, PairStats};

/// Frames moved at once.
pub(crate) const BURST: usize = port::BURST;

/// One queue pair of a shard.
pub(crate) struct Pair {
    /// Its index in the device.
    pub(crate) index: u16,
    /// Slot of the ring that the driver receives on.
    pub(crate) rx_slot: usize,
    /// Slot of the ring that the driver sends on.
    pub(crate) tx_slot: usize,
    pub(crate) port: Lease,
    /// Whether the port was told that the driver receives.
    pub(crate) open: bool,
    /// Chains whose frames the port has, in the order of the ring, and what waits behind them.
    pub(crate) held: VecDeque<Held>,
    /// Frames of `held` that the port is done with.
    pub(crate) done: usize,
    /// Whether most headers of the last burst that was received had to be written, because there was something else where they
    /// are.
    pub(crate) rewrites: bool,
    pub(crate) stats: Arc<PairStats>,
}

/// What waits for its turn to be completed: buffers are used in the order that they came in (VIRTIO_F_IN_ORDER).
pub(crate) enum Held {
    /// A frame that the port has.
    Frame(Ticket),
    /// One that was dropped, behind a frame that the port has.
    Dropped(Ticket),
    /// A frame of our own.
    Own,
}

/// Arenas of a burst; nothing in them lasts longer.
pub(crate) struct Scratch {
    pub(crate) chains: ChainBatch,
    pub(crate) frames: FrameBatch,
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch { chains: ChainBatch::new(BURST, 32 * BURST), frames: FrameBatch::new(BURST, 32 * BURST) }
    }
}

impl Pair {
    /// The driver begins to receive, or ends. What has come before it began is not for it.
    #[cold]
    pub(crate) fn set_open(&mut self, open: bool, scratch: &mut Scratch) {
        self.open = open;
        self.port.set_open(open);
        if open {
            self.discard(scratch, STALE_BURSTS_MAX);
        }
    }

    /// Takes what the port has, up to so many bursts, and loses it.
    #[cold]
    pub(crate) fn discard(&mut self, scratch: &mut Scratch, bursts: usize) {
        for _ in 0..bursts {
            let count = self.port.rx_burst(&mut scratch.frames, BURST);
            self.port.rx_done(count);
            self.stats.rx.dropped(NetDrop::QueueDisabled, count);
            if count == 0 {
                break;
            }
        }
    }

    /// Completes what the port is done with, in order.
    pub(crate) fn reap(&mut self, rings: &mut RingSet) -> usize {
        self.done += self.port.tx_done();
        let before = self.held.len();
        while let Some(front) = self.held.front() {
            let is_frame = !matches!(front, Held::Dropped(_));
            if is_frame && self.done == 0 {
                break;
            }
            self.done -= usize::from(is_frame);
            match self.held.pop_front() {
                Some(Held::Frame(ticket) | Held::Dropped(ticket)) => rings.complete(ticket, 0),
                Some(Held::Own) | None => {}
            }
        }
        before - self.held.len()
    }
}

impl Drop for Pair {
    /// On a control thread. Rings are quiet by then, but a frame of our own may still be on its way; to ourselves, too, who
    /// fetch no more. A shard that panicked leaves frames in both directions.
    fn drop(&mut self) {
        self.port.rx_done(usize::MAX);
        self.port.set_open(false);
        let sent = self.held.iter().filter(|held| !matches!(held, Held::Dropped(_))).count();
        while sent > self.done {
            self.done += self.port.tx_done();
            std::thread::yield_now();
        }
    }
}

/// Bursts that may have come while nobody received: more than a port keeps.
const STALE_BURSTS_MAX: usize = 256;

/// Counts frames of a burst: sizes come in runs, so that the counters are touched once for each.
pub(crate) struct Tally<'a> {
    stats: &'a DirectionStats,
    frames: u64,
    bytes: u64,
    /// Length of the last frame, and how many have had it in a row.
    len: u32,
    run: u64,
}

impl Tally<'_> {
    #[inline(always)]
    pub(crate) fn new(stats: &DirectionStats) -> Tally<'_> {
        Tally { stats, frames: 0, bytes: 0, len: 0, run: 0 }
    }

    #[inline(always)]
    pub(crate) fn add(&mut self, len: u32) {
        if len != self.len {
            self.end_run();
            self.len = len;
        }
        self.run += 1;
    }

    /// Counts bare frames.
    #[inline(always)]
    pub(crate) fn add_all(&mut self, frames: &[GuestSlice]) {
        frames.iter().for_each(|frame| self.add(frame.len() as u32)); // a frame's length is counted in 32 bits
    }

    #[inline(always)]
    fn end_run(&mut self) {
        self.frames += self.run;
        self.bytes += self.run * u64::from(self.len);
        self.stats.sizes[size_class(self.len)].add(self.run);
        self.run = 0;
    }

    /// Writes the sums to the counters.
    #[inline(always)]
    pub(crate) fn settle(mut self) {
        self.end_run();
        self.stats.frames.add(self.frames);
        self.stats.bytes.add(self.bytes);
    }
}

/// Class of [`crate::SIZE_EDGES`] that a frame belongs to.
#[inline(always)]
fn size_class(len: u32) -> usize {
    match len {
        0..=64 => 0,
        65..=127 => 1,
        128..=255 => 2,
        256..=511 => 3,
        512..=1023 => 4,
        1024..=1518 => 5,
        _ => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SIZE_EDGES;

    #[test]
    fn size_classes_are_those_of_the_edges() {
        for len in 0..=2000 {
            let class = SIZE_EDGES.iter().position(|edge| len <= *edge).unwrap_or(SIZE_EDGES.len());
            assert_eq!(size_class(len), class, "{len}");
        }
    }

    #[test]
    fn tally_counts_runs_of_sizes() {
        let stats = DirectionStats::default();
        let mut tally = Tally::new(&stats);
        [64, 64, 1500, 64, 9000].into_iter().for_each(|len| tally.add(len));
        tally.settle();
        let sizes: Vec<u64> = stats.sizes.iter().map(|class| class.value()).collect();
        assert_eq!(sizes, [3, 0, 0, 0, 0, 1, 1]);
        assert_eq!((stats.frames.value(), stats.bytes.value()), (5, 10692));
    }
}
