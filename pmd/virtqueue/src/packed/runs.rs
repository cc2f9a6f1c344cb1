//! Giving chains of a packed ring back in the order that they were made available in, where the driver knows that
//! (VIRTIO_F_IN_ORDER): one used descriptor speaks of a run of them (virtio 1.3 §2.8.9). Which chain is next is the caller's
//! business.
//!
//! A chain that no used descriptor names counts as written in full. So each but the last of a run is one that was, and a chain
//! that was written in part ends its run.

use super::complete::{release, used_tail};
use super::device::PackedDevice;
use super::position::Position;
use crate::Chain;

/// Chains that were completed in order since the last used descriptor: the one that speaks of them lies where the first of
/// them lay, and names the last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    at: Position,
    last: u16,
    /// What the device wrote into the last one, and whether that is all it could.
    written: u32,
    full: bool,
}

impl PackedDevice {
    /// Completes the oldest chain in flight. `full` says that the device has written every byte that it could write.
    pub(crate) fn complete_next(&mut self, head: u16, written: u32, full: bool) {
        let slots = release(&mut self.in_flight, head);
        let at = self.run_start();
        self.run = Some(Run { at, last: head, written, full });
        self.pass(1, slots);
    }

    /// Completes the oldest chains in flight, in the order given; `written` has the bytes of each.
    pub(crate) fn complete_next_popped(&mut self, chains: &[Chain], written: impl Iterator<Item = u32>) {
        let Some(end) = chains.len().checked_sub(1) else { return };
        let (mut at, mut passed) = (self.run_start(), 0);
        for (index, (chain, written)) in chains.iter().zip(written).enumerate() {
            passed += release(&mut self.in_flight, chain.head);
            let full = u64::from(written) == chain.writable_bytes;
            if full && index < end {
                continue;
            }
            let run = Run { at, last: chain.head, written, full };
            if index < end {
                self.tell(run);
                at = self.used.forward(passed, self.size());
            } else {
                self.run = Some(run);
            }
        }
        self.pass(chains.len(), passed);
    }

    /// To be called before [`PackedDevice::publish`]: the used descriptor of the last run is written.
    #[inline]
    pub(crate) fn end_run(&mut self) {
        if let Some(run) = self.run.take() {
            self.tell(run);
        }
    }

    /// Where the used descriptor of the next chain lies: that of the run that it goes on with, or its own.
    #[inline(always)]
    fn run_start(&mut self) -> Position {
        match self.run.take() {
            Some(run) if run.full => run.at,
            ended => {
                if let Some(run) = ended {
                    self.tell(run);
                }
                self.used
            }
        }
    }

    #[inline(always)]
    fn tell(&mut self, run: Run) {
        let tail = used_tail(run.at, run.last, run.written);
        // As in `complete`: the driver sees none of those behind the first before that is written.
        match &self.unpublished.first {
            Some(_) => self.rings.set_tail(run.at.slot, tail),
            None => self.unpublished.first = Some((run.at.slot, tail)),
        }
    }
}
