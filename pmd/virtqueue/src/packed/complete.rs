//! Giving chains of a packed ring back: used descriptors, and the one that makes them visible.

use std::sync::atomic::{Ordering, fence};

use super::device::{PackedDevice, Unpublished};
use super::position::Position;
use super::rings::Tail;
use crate::Chain;
use crate::follow::WRITE;

impl PackedDevice {
    /// Writes a used descriptor for the chain of `head`, into which the device wrote `written` bytes. The driver sees it
    /// after the next [`PackedDevice::publish`].
    ///
    /// # Panics
    /// If the chain is not in flight: completing twice is a bug of ours.
    #[inline]
    pub fn complete(&mut self, head: u16, written: u32) {
        let slots = release(&mut self.in_flight, head);
        let tail = used_tail(self.used, head, written);
        // The driver looks at one descriptor after the other: without the first, it sees none of those behind it.
        match &mut self.unpublished.first {
            Some((_, first)) if self.one_for_all => {
                debug_assert_eq!(written, 0, "into a ring that is only read");
                *first = Tail::new(0, head, first.flags());
            }
            Some(_) => self.rings.set_tail(self.used.slot, tail),
            none => *none = Some((self.used.slot, tail)),
        }
        self.pass(1, slots);
    }

    /// As [`PackedDevice::complete`] for chains of the last pop, in the order given; `written` has the bytes of each.
    ///
    /// # Panics
    /// If one of them is not in flight.
    #[inline]
    pub fn complete_popped(&mut self, chains: &[Chain], mut written: impl Iterator<Item = u32>) {
        let Some((first, rest)) = chains.split_first() else { return };
        self.complete(first.head, written.next().unwrap_or_default());
        let Some((last, between)) = rest.split_last().filter(|_| self.one_for_all) else {
            return self.complete_more(rest, written);
        };
        let slots = between.iter().map(|chain| release(&mut self.in_flight, chain.head)).sum();
        self.pass(between.len(), slots);
        self.complete(last.head, 0); // into a ring that is only read
    }

    /// As [`PackedDevice::complete_popped`] behind a chain that has been completed.
    #[inline(always)]
    fn complete_more(&mut self, chains: &[Chain], written: impl Iterator<Item = u32>) {
        let (rings, size, in_flight) = (self.rings, self.size(), &mut *self.in_flight);
        let (mut at, mut passed) = (self.used, 0);
        for (chain, written) in chains.iter().zip(written) {
            let slots = release(in_flight, chain.head);
            rings.set_tail(at.slot, used_tail(at, chain.head, written));
            at = at.forward(slots, size);
            passed += slots;
        }
        self.pass(chains.len(), passed);
    }

    /// Goes on behind completed chains.
    #[inline(always)]
    pub(super) fn pass(&mut self, chains: usize, slots: u16) {
        let chains = chains as u16; // at most the ring's size
        self.unpublished.chains += chains;
        self.unpublished.slots += slots;
        self.used = self.used.forward(slots, self.size());
        self.taken -= slots;
        self.completed = self.completed.wrapping_add(chains);
    }

    /// Chains that were completed and not published.
    #[must_use]
    #[inline]
    pub fn unpublished(&self) -> u16 {
        self.unpublished.chains
    }

    /// Makes completed chains visible to the driver. Returns whether the driver wants a call for them (virtio 1.3
    /// §2.8.10): one answer for all.
    #[inline]
    pub fn publish(&mut self) -> bool {
        let Unpublished { slots, first: Some((slot, tail)), .. } = self.unpublished else { return false };
        self.rings.set_tail(slot, tail);
        self.unpublished = Unpublished::default();
        // The descriptor before the question: otherwise the driver could ask for a call after we looked, look at the
        // descriptor before we wrote it, and wait for ever. A fence: an exchange, which a split ring publishes by, is 4 % slower
        // here, where the driver is waiting for this very line.
        fence(Ordering::SeqCst);
        let first = std::mem::replace(&mut self.first_publish, false);
        let wanted = self.rings.driver_events.wanted(self.used, slots, self.size(), self.event_idx);
        wanted || (first && self.event_idx)
    }
}

/// The used descriptor of a chain, for the slot at `at`.
#[inline(always)]
pub(super) fn used_tail(at: Position, head: u16, written: u32) -> Tail {
    let write = if written > 0 { WRITE } else { 0 };
    Tail::new(written, head, at.used() | write)
}

/// The slots of a chain in flight, which is not any more.
#[inline(always)]
pub(super) fn release(in_flight: &mut [u16], id: u16) -> u16 {
    let slots = in_flight.get_mut(usize::from(id)).map_or(0, std::mem::take);
    if slots == 0 {
        not_in_flight(id);
    }
    slots
}

#[cold]
#[inline(never)]
fn not_in_flight(id: u16) -> ! {
    panic!("buffer {id} completed, but not in flight")
}
