//! Popping chains off a packed ring. Those of one descriptor, as frames have them, those of a few, and those in indirect tables
//! go through a loop of their own each, for as long as they come in a row; what a loop does not like is read anew and followed
//! one by one.

use guest_memory::{GuestSlice, MemTable};

use super::chain::{CountedSlots, Near, Slots, Table};
use super::complete::release;
use super::device::PackedDevice;
use super::position::{AVAIL, USED};
use super::rings::Tail;
use crate::chain::CELL;
use crate::follow::{Descriptor, Entries, INDIRECT, NEXT, Stop, TableFormat, View, WRITE, long, quick, walk};
use crate::{Chain, ChainBatch, Fault, FaultReason};

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

    /// [`PackedDevice::pop`] when something is there.
    #[inline(never)]
    fn fetch(&mut self, memory: &MemTable, limit: usize, batch: &mut ChainBatch) -> usize {
        let view = View::new(memory, self.hints);
        let limit = limit.min(batch.chains.len());
        let spill_start = CELL * batch.chains.len();
        let (mut popped, mut spilled) = (0, 0);
        while popped < limit {
            let Some(tail) = self.next_tail() else { break };
            let row = match tail.flags() & KIND {
                0 if tail.flags() & WRITE == 0 => self.singles::<false>(&view, popped, limit, batch),
                0 => self.singles::<true>(&view, popped, limit, batch),
                NEXT => self.linked(&view, popped, limit, batch),
                INDIRECT => self.tables(&view, popped, limit, batch),
                _ => 0,
            };
            popped += row;
            if row > 0 {
                continue;
            }
            match self.closer(&view, memory, tail, popped, spill_start + spilled, batch) {
                Ok(slices) => {
                    spilled += slices;
                    popped += 1;
                }
                Err(Stop::NoRoom) if popped > 0 => break,
                Err(Stop::NoRoom) => {
                    batch.grow();
                    return self.fetch(memory, limit, batch);
                }
                Err(Stop::Fault(_)) => break,
            }
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

    /// Follows chains of one descriptor: buffers to receive in, or frames that a driver sends.
    #[inline(never)]
    fn singles<const WRITABLE: bool>(
        &mut self,
        view: &View<'_>,
        from: usize,
        limit: usize,
        batch: &mut ChainBatch,
    ) -> usize {
        let flags = if WRITABLE { WRITE } else { 0 };
        self.row(KIND | WRITE, flags, from, limit, batch, |slots, tail, cell, start, chain| {
            quick::single_of::<WRITABLE>(view, slots.first(tail), &mut cell[0], start, chain)?;
            Some((tail.id(), 1))
        })
    }

    /// Follows chains of several descriptors.
    #[inline(never)]
    fn linked(&mut self, view: &View<'_>, from: usize, limit: usize, batch: &mut ChainBatch) -> usize {
        self.row(KIND, NEXT, from, limit, batch, |slots, tail, cell, start, chain| {
            let near = Near::new(slots)?;
            quick::walk(view, &near, slots.first(tail), cell, start, chain)?;
            Some((near.last_id(), chain.readable_descriptors + chain.writable_descriptors))
        })
    }

    /// Follows chains in indirect tables.
    #[inline(never)]
    fn tables(&mut self, view: &View<'_>, from: usize, limit: usize, batch: &mut ChainBatch) -> usize {
        if usize::from(self.size()) < CELL {
            return 0; // a chain is no longer than the ring
        }
        let flags = self.table_flags;
        self.row(KIND, INDIRECT, from, limit, batch, |slots, tail, cell, start, chain| {
            let table = Table::of(view, slots.first(tail), flags)?;
            quick::walk(view, table, table.entry(0)?, cell, start, chain)?;
            Some((tail.id(), 1))
        })
    }

    /// Follows chains of the kind that drivers build most, whose heads have of the flags that are `looked_at` exactly `flags`, as many in
    /// a row as there are up to the ring's end. `follow` fills all fields of a chain but its head, and returns its buffer id and the slots
    /// that it takes up. Returns how many there were: 0 if the first one takes a closer look, for which it is as if it had not
    /// been looked at.
    #[inline(always)]
    fn row(
        &mut self,
        looked_at: u16,
        flags: u16,
        from: usize,
        limit: usize,
        batch: &mut ChainBatch,
        follow: impl Fn(Slots, Tail, &mut [GuestSlice; CELL], usize, &mut Chain) -> Option<(u16, u16)>,
    ) -> usize {
        let (rings, at, size) = (self.rings, self.avail, self.size());
        let end = at.slot + (size - at.slot).min(size - self.taken);
        let (wanted, in_flight) = (at.available() | flags, &mut *self.in_flight);
        let (cells, _) = batch.slices.as_chunks_mut::<CELL>();
        let mut slot = at.slot;
        let mut found = 0;
        for (chain, cell) in batch.chains[from..limit].iter_mut().zip(&mut cells[from..limit]) {
            if slot >= end {
                break;
            }
            let tail = rings.tail(slot);
            if tail.flags() & (AVAIL | USED | looked_at) != wanted {
                break;
            }
            let start = CELL * (from + found);
            let Some((id, count)) = follow(Slots { rings, head: slot }, tail, cell, start, chain) else { break };
            let Some(slots) = in_flight.get_mut(usize::from(id)).filter(|slots| **slots == 0) else { break };
            if count > end - slot {
                break; // into descriptors that are in flight
            }
            *slots = count;
            chain.head = id;
            slot += count;
            found += 1;
        }
        let count = slot - at.slot;
        self.avail = at.forward(count, size);
        self.taken += count;
        self.popped = self.popped.wrapping_add(found as u16); // at most the ring's size
        found
    }

    /// The second half of the next descriptor, if that is available.
    #[inline(always)]
    pub(super) fn next_tail(&self) -> Option<Tail> {
        let tail = self.rings.tail(self.avail.slot);
        // A ring that is all in flight holds nothing new, whatever its flags say.
        (self.avail.is_available(tail.flags()) && self.taken < self.size()).then_some(tail)
    }

    /// Takes the next chain, the second half of whose head is `tail`, whatever it is like. Returns how many slices it takes up in
    /// the arena from `start` on. A fault breaks the ring.
    #[cold]
    #[inline(never)]
    fn closer(
        &mut self,
        view: &View<'_>,
        memory: &MemTable,
        tail: Tail,
        popped: usize,
        start: usize,
        batch: &mut ChainBatch,
    ) -> Result<usize, Stop> {
        let slots = Slots { rings: self.rings, head: self.avail.slot };
        let first = slots.first(tail);
        let mut id = tail.id();
        let mut take = || {
            let (count, slices) = match self.across_the_end(view, slots, first, popped, batch) {
                Some(count) => (count, 0),
                None => {
                    (self.unusual(view, memory, (slots, first), popped, start, batch)?, batch.chains[popped].slices())
                }
            };
            if count > self.size() - self.taken {
                return Err(FaultReason::ChainTooLong.into()); // into descriptors that are in flight
            }
            // The buffer id stands in the last descriptor (virtio 1.3 §2.8.6).
            if count > 1 {
                id = self.rings.tail(slots.slot(count - 1)).id();
            }
            self.claim(id, count)?;
            batch.chains[popped].head = id;
            Ok(slices)
        };
        let taken = take();
        if let Err(Stop::Fault(reason)) = taken {
            self.mark_broken(Fault { reason, head: Some(id) });
        }
        taken
    }

    /// Follows a chain of several descriptors that begins so close to the ring's end that some may lie at its beginning, and is
    /// like most in everything else. Returns the slots that it takes up; `None` to give up.
    fn across_the_end(
        &self,
        view: &View<'_>,
        slots: Slots,
        first: Descriptor,
        popped: usize,
        batch: &mut ChainBatch,
    ) -> Option<u16> {
        if usize::from(self.size()) < CELL || first.has(INDIRECT) || Near::new(slots).is_some() {
            return None;
        }
        let start = CELL * popped;
        let cell = batch.slices.get_mut(start..start + CELL)?.first_chunk_mut()?;
        let chain = &mut batch.chains[popped];
        quick::walk(view, slots, first, cell, start, chain)?;
        Some(chain.readable_descriptors + chain.writable_descriptors)
    }

    /// Follows a chain that is not like most, into the arena from `start` on. Returns the slots that it takes up.
    fn unusual(
        &self,
        view: &View<'_>,
        memory: &MemTable,
        (slots, first): (Slots, Descriptor),
        popped: usize,
        start: usize,
        batch: &mut ChainBatch,
    ) -> Result<u16, Stop> {
        let size = self.size();
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

/// Flags that tell one kind of chain from another.
const KIND: u16 = NEXT | INDIRECT;

/// Descriptors of a cache line.
const PER_LINE: usize = 4;
