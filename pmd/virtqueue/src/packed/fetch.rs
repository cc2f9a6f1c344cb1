//! Popping chains off a packed ring. Those of one descriptor, as frames have them, go through a loop of their own; what that
//! does not like goes through the one of all chains, which reads it anew.

use guest_memory::{GuestSlice, MemTable};

use super::chain::{CountedSlots, Near, Slots, Table};
use super::complete::release;
use super::device::PackedDevice;
use super::position::{AVAIL, USED};
use super::rings::Tail;
use crate::chain::CELL;
use crate::follow::{Descriptor, Entries, INDIRECT, NEXT, Stop, TableFormat, View, long, quick, walk};
use crate::{Chain, ChainBatch, Fault, FaultReason};

/// A chain as it lies in the ring.
#[derive(Clone, Copy)]
struct Found {
    slots: Slots,
    first: Descriptor,
    tail: Tail,
}

impl PackedDevice {
    /// Fetches up to `limit` chains into `batch`, which is cleared first, and returns how many there are: 0 if none is
    /// available or the ring is broken, fewer than `limit` also if the batch is full.
    ///
    /// A fault breaks the ring: the chains before it are handed over, it is not, and later calls return 0.
    #[inline]
    pub fn pop(&mut self, memory: &MemTable, limit: usize, batch: &mut ChainBatch) -> usize {
        batch.clear();
        if !self.has_available() {
            return 0;
        }
        self.fetch(memory, limit, batch)
    }

    /// [`PackedDevice::pop`] when something is there. Not inlined: the loop wants the registers for itself.
    #[inline(never)]
    fn fetch(&mut self, memory: &MemTable, limit: usize, batch: &mut ChainBatch) -> usize {
        let view = View::new(memory, self.hints);
        let limit = limit.min(batch.chains.len());
        let spill_start = CELL * batch.chains.len();
        let (mut popped, mut spilled) = (0, 0);
        while popped < limit {
            let Some(tail) = self.next_tail() else { break };
            if tail.flags() & (NEXT | INDIRECT) == 0 {
                let singles = self.singles(&view, popped, limit, batch);
                popped += singles;
                if singles > 0 {
                    continue;
                }
            }
            let slots = Slots { rings: self.rings, head: self.avail.slot };
            let found = Found { slots, first: slots.first(tail), tail };
            let count = match self.usual(&view, found, popped, batch) {
                Some(count) => count,
                None => match self.unusual(&view, memory, found, popped, spill_start + spilled, batch) {
                    Ok(count) => {
                        spilled += batch.chains[popped].slices();
                        count
                    }
                    Err(Stop::NoRoom) if popped > 0 => break,
                    Err(Stop::NoRoom) => {
                        batch.grow();
                        return self.fetch(memory, limit, batch);
                    }
                    Err(Stop::Fault(reason)) => {
                        self.mark_broken(Fault { reason, head: Some(tail.id()) });
                        break;
                    }
                },
            };
            if count > self.size() - self.taken {
                // Into descriptors that are in flight.
                self.mark_broken(Fault { reason: FaultReason::ChainTooLong, head: Some(tail.id()) });
                break;
            }
            let id = self.id(found, count);
            if let Err(reason) = self.claim(id, count) {
                self.mark_broken(Fault { reason, head: Some(id) });
                break;
            }
            batch.chains[popped].head = id;
            popped += 1;
        }
        self.hints = view.hints(popped);
        if popped == limit {
            self.prefetch_next(popped);
        }
        batch.chains_len = popped;
        popped
    }

    /// After a pop of as many chains as were asked for, the next ones are there already in all likelihood: asks for their lines,
    /// so that they are near when it is their turn. After fewer, the driver is still writing them, and they would be taken away
    /// from it.
    #[inline(always)]
    fn prefetch_next(&self, count: usize) {
        let from = usize::from(self.avail.slot);
        for ahead in (0..count).step_by(PER_LINE) {
            let word = 2 * (from + ahead);
            // Lines in which used descriptors are written are asked for to that end.
            if self.one_for_all && ahead > 0 {
                self.rings.desc.prefetch(word);
            } else {
                self.rings.desc.prefetch_write(word);
            }
        }
    }

    /// Follows chains of one descriptor, as many in a row as there are up to the ring's end. Returns how many: 0 if the first
    /// one takes a closer look, for which it is as if it had not been looked at.
    #[inline(never)]
    fn singles(&mut self, view: &View<'_>, from: usize, limit: usize, batch: &mut ChainBatch) -> usize {
        let (rings, at, size) = (self.rings, self.avail, self.size());
        let most = (limit - from).min(usize::from((size - at.slot).min(size - self.taken)));
        let (cells, _) = batch.slices.as_chunks_mut::<CELL>();
        let places = batch.chains[from..from + most].iter_mut().zip(&mut cells[from..from + most]);
        let (wanted, in_flight) = (at.available(), &mut *self.in_flight);
        let mut slot = at.slot;
        let mut start = CELL * from;
        for (chain, cell) in places {
            let tail = rings.tail(slot);
            if tail.flags() & (AVAIL | USED | NEXT | INDIRECT) != wanted {
                break;
            }
            let Some(slots) = in_flight.get_mut(usize::from(tail.id())).filter(|slots| **slots == 0) else { break };
            let buffer = Slots { rings, head: slot }.first(tail);
            if quick::single(view, buffer, &mut cell[0], start, chain).is_none() {
                break;
            }
            *slots = 1;
            chain.head = tail.id();
            slot += 1;
            start += CELL;
        }
        let count = slot - at.slot;
        self.avail = at.forward(count, size);
        self.taken += count;
        self.popped = self.popped.wrapping_add(count);
        usize::from(count)
    }

    /// The second half of the next descriptor, if that is available.
    #[inline(always)]
    pub(super) fn next_tail(&self) -> Option<Tail> {
        let tail = self.rings.tail(self.avail.slot);
        // A ring that is all in flight holds nothing new, whatever its flags say.
        (self.avail.is_available(tail.flags()) && self.taken < self.size()).then_some(tail)
    }

    /// Follows a chain of the kind that drivers build most. Returns the slots that it takes up; `None` to give up.
    #[inline(always)]
    fn usual(&self, view: &View<'_>, found: Found, popped: usize, batch: &mut ChainBatch) -> Option<u16> {
        if usize::from(self.size()) < CELL {
            return None;
        }
        let start = CELL * popped;
        let cell = batch.slices.get_mut(start..start + CELL)?.first_chunk_mut()?;
        let chain = &mut batch.chains[popped];
        let Found { slots, first, .. } = found;
        if first.has(INDIRECT) {
            let table = Table::of(view, first, self.table_flags)?;
            quick::walk(view, table, table.entry(0)?, cell, start, chain)?;
            return Some(1);
        }
        match Near::new(slots) {
            Some(near) => quick::walk(view, near, first, cell, start, chain)?,
            None => across_the_end(view, slots, first, cell, start, chain)?,
        }
        Some(chain.readable_descriptors + chain.writable_descriptors)
    }

    /// Follows a chain that [`PackedDevice::usual`] gave up on, into the arena from `start` on.
    #[cold]
    #[inline(never)]
    fn unusual(
        &self,
        view: &View<'_>,
        memory: &MemTable,
        found: Found,
        popped: usize,
        start: usize,
        batch: &mut ChainBatch,
    ) -> Result<u16, Stop> {
        let (size, Found { slots, first, .. }) = (self.size(), found);
        let room: &mut [GuestSlice] = batch.slices.get_mut(start..).unwrap_or_default();
        let long = if first.has(INDIRECT) {
            let table = Table::of(view, first, self.table_flags).and_then(|table| Some((table, table.entry(0)?)));
            table.and_then(|at| long::walk(view, at, size, 0, room)).map(|chain| (chain, 1))
        } else {
            let chain = long::walk(view, (slots, first), size, 0, room);
            chain.map(|chain| (chain, chain.readable_descriptors + chain.writable_descriptors))
        };
        let before = batch.continued.len();
        let (chain, count) = match long {
            Some(found) => found,
            None => {
                let counted = CountedSlots::new(slots, first);
                let format = TableFormat::InSequence(self.table_flags);
                let chain = walk::walk(memory, (&counted, 0), size, format, room, &mut batch.continued)?;
                (chain, counted.count())
            }
        };
        batch.continued[before..].iter_mut().for_each(|position| *position += start as u32);
        batch.chains[popped] = chain.shifted(start as u32);
        Ok(count)
    }

    /// The buffer id of a chain, which stands in its last descriptor (virtio 1.3 §2.8.6).
    #[inline(always)]
    fn id(&self, found: Found, count: u16) -> u16 {
        match count {
            1 => found.tail.id(),
            count => self.rings.tail(found.slots.slot(count - 1)).id(),
        }
    }

    /// Takes a chain of `count` slots out of the ring, which has as many.
    #[inline(always)]
    fn claim(&mut self, id: u16, count: u16) -> Result<(), FaultReason> {
        match self.in_flight.get_mut(usize::from(id)) {
            Some(slots) if *slots == 0 => *slots = count,
            Some(_) => return Err(FaultReason::HeadInFlight),
            None => return Err(FaultReason::HeadOutOfRange),
        }
        self.avail = self.avail.forward(count, self.size());
        self.taken += count;
        self.popped = self.popped.wrapping_add(1);
        Ok(())
    }

    /// Takes back that these chains were popped: the next pop gives them again. They are the last ones that were popped, in
    /// that order, and none of them was completed.
    ///
    /// # Panics
    /// If one of them is not in flight.
    pub fn put_back(&mut self, heads: impl DoubleEndedIterator<Item = u16>) {
        for head in heads.rev() {
            let slots = release(&mut self.in_flight, head);
            self.avail = self.avail.back(slots, self.size());
            self.taken -= slots;
            self.popped = self.popped.wrapping_sub(1);
        }
    }
}

/// A chain of which some may lie at the ring's beginning.
#[cold]
#[inline(never)]
fn across_the_end(
    view: &View<'_>,
    slots: Slots,
    first: Descriptor,
    cell: &mut [GuestSlice; CELL],
    start: usize,
    chain: &mut Chain,
) -> Option<()> {
    quick::walk(view, slots, first, cell, start, chain)
}

/// Descriptors of a cache line.
const PER_LINE: usize = 4;
