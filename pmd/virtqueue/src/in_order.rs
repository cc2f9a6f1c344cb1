//! Chains of which the driver was promised that they are used in the order that they were made available in
//! (VIRTIO_F_IN_ORDER, virtio 1.3 §2.7.9, §2.8.9), for a device that ends them in any order: what ends early waits here for
//! those that are older. How a ring tells of chains is the ring format's.
//!
//! A device that ends all chains in order by itself has no need of this.

use guest_memory::MemTable;

use crate::queue::Ring;
use crate::{Chain, ChainBatch};

/// A queue, and what has ended in it and waits. To the queue itself such a chain is in flight, as it is to the driver.
#[derive(Debug)]
pub struct InOrderDevice {
    pub(crate) ring: Ring,
    window: Window,
}

/// Chains in flight in the order that they were popped in. Allocated once; a chain takes up one place, however many are held.
#[derive(Debug)]
struct Window {
    /// By position, modulo their number, which is a power of two and at least the ring's size.
    places: Box<[Place]>,
    /// By head: the position of its chain in flight.
    positions: Box<[u16]>,
    /// The position of the oldest chain in flight, free-running.
    oldest: u16,
    /// That of the next chain to be popped.
    next: u16,
    /// Chains that have ended and wait.
    held: u16,
    /// So many chains from the oldest on have to be used before somebody goes on.
    awaited: u16,
    /// Chains that had to wait since this was asked last.
    late: u32,
}

/// A chain in flight.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Bytes that the device may write to it.
    writable: u64,
    /// What it has written, if the chain has ended.
    written: u32,
    head: u16,
    ended: bool,
}

impl InOrderDevice {
    /// Over a ring of which nothing is in flight.
    pub(crate) fn new(ring: Ring) -> InOrderDevice {
        assert!(ring.in_flight() == 0, "{} chains were popped before the order was kept", ring.in_flight());
        InOrderDevice { window: Window::new(ring.size()), ring }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn pop(&mut self, memory: &MemTable, limit: usize, batch: &mut ChainBatch) -> usize {
        let count = match &mut self.ring {
            Ring::Split(ring) => ring.pop(memory, limit, batch),
            Ring::Packed(ring) => ring.pop(memory, limit, batch),
        };
        self.window.popped(batch.chains());
        count
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn put_back(&mut self, heads: impl DoubleEndedIterator<Item = u16>) {
        let before = self.ring.in_flight();
        match &mut self.ring {
            Ring::Split(ring) => ring.put_back(heads),
            Ring::Packed(ring) => ring.put_back(heads),
        }
        self.window.next = self.window.next.wrapping_sub(before - self.ring.in_flight());
    }

    /// The chain has ended. It is used at once if it is the oldest in flight, and with it those that have waited for it.
    ///
    /// # Panics
    /// If the chain is not in flight: completing twice is a bug of ours.
    #[cold]
    #[inline(never)]
    pub(crate) fn complete(&mut self, head: u16, written: u32) {
        let position = self.window.position(head);
        self.window.end(position, written);
        if position != self.window.oldest {
            self.window.late += 1;
            return;
        }
        while let Some(place) = self.window.take_ended() {
            let Place { writable, written, head, .. } = place;
            match &mut self.ring {
                Ring::Split(ring) => ring.complete(head, written),
                Ring::Packed(ring) => ring.complete_next(head, written, writable == u64::from(written)),
            }
        }
    }

    /// As [`InOrderDevice::complete`] for chains of the last pop that were popped one after the other.
    #[cold]
    #[inline(never)]
    pub(crate) fn complete_popped(&mut self, chains: &[Chain], written: impl Iterator<Item = u32>) {
        if !self.window.begins_with(chains) {
            return chains.iter().zip(written).for_each(|(chain, written)| self.complete(chain.head, written));
        }
        self.window.pass(chains.len() as u16); // at most the ring's size
        match &mut self.ring {
            Ring::Split(ring) => ring.complete_popped(chains, written),
            Ring::Packed(ring) => ring.complete_next_popped(chains, written),
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn publish(&mut self) -> bool {
        match &mut self.ring {
            Ring::Split(ring) => ring.publish(),
            Ring::Packed(ring) => {
                ring.end_run();
                ring.publish()
            }
        }
    }

    /// Somebody waits until this chain, which is in flight, has been used and published.
    ///
    /// # Panics
    /// If the chain is not in flight.
    pub fn await_published(&mut self, head: u16) {
        let ahead = self.window.position(head).wrapping_sub(self.window.oldest);
        self.window.awaited = self.window.awaited.max(ahead + 1);
    }

    /// Somebody waits until all chains have been used and published that have ended by now.
    pub fn await_ended(&mut self) {
        let window = &mut self.window;
        let ended = |ahead: &u16| window.places[window.index(window.oldest.wrapping_add(*ahead))].ended;
        let last = (0..window.next.wrapping_sub(window.oldest)).rev().find(ended);
        window.awaited = window.awaited.max(last.map_or(0, |ahead| ahead + 1));
    }

    /// Whether something that somebody waits for has not been published.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.window.awaited > 0 || self.ring.unpublished() > 0
    }

    /// Chains that had to wait for older ones since this was asked last.
    #[must_use]
    #[inline]
    pub fn take_late(&mut self) -> u32 {
        std::mem::take(&mut self.window.late)
    }
}

impl Window {
    fn new(size: u16) -> Window {
        Window {
            places: vec![Place::default(); usize::from(size).next_power_of_two()].into_boxed_slice(),
            positions: vec![0; usize::from(size)].into_boxed_slice(),
            oldest: 0,
            next: 0,
            held: 0,
            awaited: 0,
            late: 0,
        }
    }

    #[inline(always)]
    fn index(&self, position: u16) -> usize {
        usize::from(position) & (self.places.len() - 1)
    }

    fn popped(&mut self, chains: &[Chain]) {
        let start = self.index(self.next);
        let (front, back) = chains.split_at(chains.len().min(self.places.len() - start));
        self.remember(start, front);
        self.remember(0, back);
    }

    /// The next chains that were popped, which get the places from `start` on.
    #[inline(always)]
    fn remember(&mut self, start: usize, chains: &[Chain]) {
        let mut next = self.next;
        for (place, chain) in self.places[start..].iter_mut().zip(chains) {
            *place = Place { writable: chain.writable_bytes, written: 0, head: chain.head, ended: false };
            self.positions[usize::from(chain.head)] = next;
            next = next.wrapping_add(1);
        }
        self.next = next;
    }

    /// The position of a chain in flight.
    ///
    /// # Panics
    /// If it is not in flight, or has ended.
    #[inline]
    fn position(&self, head: u16) -> u16 {
        let position = self.positions.get(usize::from(head)).copied().unwrap_or(self.next);
        let in_flight = position.wrapping_sub(self.oldest) < self.next.wrapping_sub(self.oldest);
        let place = &self.places[self.index(position)];
        assert!(in_flight && place.head == head && !place.ended, "chain {head} completed, but not in flight");
        position
    }

    #[inline]
    fn end(&mut self, position: u16, written: u32) {
        let index = self.index(position);
        let place = &mut self.places[index];
        (place.written, place.ended) = (written, true);
        self.held += 1;
    }

    /// The oldest chain, if it has ended: it is not in flight any more.
    #[inline]
    fn take_ended(&mut self) -> Option<Place> {
        let index = self.index(self.oldest);
        if self.held == 0 || !self.places[index].ended {
            return None;
        }
        self.held -= 1;
        self.pass(1);
        Some(self.places[index])
    }

    /// Whether these chains, which were popped one after the other, are the oldest in flight, and none waits for them.
    #[inline]
    fn begins_with(&self, chains: &[Chain]) -> bool {
        let is_at =
            |(ahead, chain): (usize, &Chain)| self.position(chain.head) == self.oldest.wrapping_add(ahead as u16);
        let begins = self.held == 0 && chains.first().is_some_and(|first| is_at((0, first)));
        debug_assert!(
            !begins || chains.iter().enumerate().all(is_at),
            "chains that were not popped one after the other"
        );
        begins
    }

    #[inline]
    fn pass(&mut self, count: u16) {
        self.oldest = self.oldest.wrapping_add(count);
        self.awaited = self.awaited.saturating_sub(count);
    }
}
