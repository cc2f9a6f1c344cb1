//! The device side of a packed ring: popping chains, completing them, notifications. Eventfds are the caller's.

use std::sync::atomic::{Ordering, fence};

use guest_memory::{GuestSlice, MemTable};

use super::chain::{CountedSlots, Slots, Table};
use super::position::Position;
use super::rings::{Rings, Tail};
use crate::chain::CELL;
use crate::follow::{Descriptor, Entries, Hints, INDIRECT, NEXT, Stop, TableFormat, View, WRITE, long, quick, walk};
use crate::{Chain, ChainBatch, Fault, FaultReason, Features, RingAddresses, SetupError};

/// The device side of one packed ring.
///
/// Chains that were popped are in flight until they are completed; completions become visible to the driver with
/// [`PackedDevice::publish`], all of them at once. A chain's head is its buffer id. Setting up a ring writes nothing to it.
#[derive(Debug)]
pub struct PackedDevice {
    rings: Rings,
    /// The next descriptor to be fetched.
    avail: Position,
    /// Where the next used descriptor is written.
    used: Position,
    /// Descriptors of chains in flight: those between `used` and `avail`.
    taken: u16,
    /// Chains popped and chains completed, free-running.
    popped: u16,
    completed: u16,
    /// What was completed and not published.
    unpublished: Unpublished,
    event_idx: bool,
    /// Nothing was published since the ring was set up, so nobody knows which event the driver was told of last.
    first_publish: bool,
    fault: Option<Fault>,
    hints: Hints,
    /// By buffer id: how many slots its chain in flight takes up; 0 if it has none.
    in_flight: Box<[u16]>,
    resumed_at: Option<u16>,
    /// Flags that are looked at in entries of indirect tables.
    table_flags: u16,
}

/// Used descriptors that the driver does not look at yet, because the first of them has not been written.
#[derive(Clone, Copy, Debug, Default)]
struct Unpublished {
    chains: u16,
    /// Slots that they pass over.
    slots: u16,
    first: Option<(u16, Tail)>,
}

/// A chain as it lies in the ring.
#[derive(Clone, Copy)]
struct Found {
    slots: Slots,
    first: Descriptor,
    tail: Tail,
}

impl PackedDevice {
    /// Takes a ring of `size` descriptors over. `base` is what the front-end says in SET_VRING_BASE: where fetching goes on
    /// in its lower half, where used descriptors go on in its upper one, each a slot in 15 bits and a wrap counter. An upper
    /// half of 0 is that of a front-end that knows only the lower one; the two are the same then.
    ///
    /// Where they differ, the requests in between were fetched by a back-end that has died, and never answered: fetching
    /// goes on there, see [`PackedDevice::resumed_at`].
    ///
    /// # Errors
    /// [`SetupError`]: size, length of an area, alignment of an area, a base outside of the ring.
    pub fn new(size: u16, rings: RingAddresses, base: u32, features: Features) -> Result<PackedDevice, SetupError> {
        let rings = Rings::new(size, rings)?;
        let avail = Position::from_bits(base as u16);
        let used = if base >> 16 == 0 { avail } else { Position::from_bits((base >> 16) as u16) };
        if avail.slot >= size || used.slot >= size {
            return Err(SetupError::Base { base, size });
        }
        Ok(PackedDevice {
            rings,
            avail: used,
            used,
            taken: 0,
            popped: 0,
            completed: 0,
            unpublished: Unpublished::default(),
            event_idx: features.event_idx,
            first_publish: true,
            fault: None,
            hints: Hints::default(),
            in_flight: vec![0; usize::from(size)].into_boxed_slice(),
            resumed_at: (avail != used).then_some(used.bits()),
            table_flags: WRITE | INDIRECT,
        })
    }

    /// Moves the ring to other addresses of ours, because the memory table changed. The driver's ring stays where it is:
    /// positions and chains in flight go on.
    ///
    /// # Errors
    /// [`SetupError`] as from [`PackedDevice::new`]; the ring stays at its old addresses then.
    pub fn rebase(&mut self, rings: RingAddresses) -> Result<(), SetupError> {
        self.rings = Rings::new(self.size(), rings)?;
        Ok(())
    }

    /// Says that the device writes to none of this ring's buffers: entries of indirect tables are readable, whatever they
    /// say. DPDK's virtio driver (22.11 to 24.11) leaves WRITE from an earlier use on some of those that it sends from.
    pub fn set_read_only(&mut self) {
        self.table_flags = INDIRECT;
    }

    /// Number of descriptors.
    #[must_use]
    #[inline]
    pub fn size(&self) -> u16 {
        self.rings.size()
    }

    /// Where fetching goes on, as one half of a base, although the front-end said that it had been fetched from there;
    /// `None` if its base stands.
    #[must_use]
    pub fn resumed_at(&self) -> Option<u16> {
        self.resumed_at
    }

    /// What a front-end is told at the end, to say it in SET_VRING_BASE when it starts the ring again: see
    /// [`PackedDevice::new`].
    #[must_use]
    pub fn base(&self) -> u32 {
        u32::from(self.avail.bits()) | u32::from(self.used.bits()) << 16
    }

    /// Whether a driver has used the ring since it was made.
    #[must_use]
    pub fn was_used(&self) -> bool {
        self.avail != Position::START
    }

    /// Why the ring is broken, if it is.
    #[must_use]
    #[inline]
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Breaks the ring for a reason that was found elsewhere. The first fault stays.
    #[cold]
    pub fn mark_broken(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    // --- fetching ---

    /// Counts the chains that are available now, from [`PackedDevice::next_avail`] on. What the driver made available
    /// before is visible to us afterwards. Takes as long as there are descriptors in them.
    #[must_use]
    pub fn avail_snapshot(&self) -> u16 {
        let (mut chains, mut at, mut left) = (0u16, self.avail, self.size() - self.taken);
        while left > 0 && at.is_available(self.rings.tail(at.slot).flags()) {
            let mut slots = 1;
            while slots < left && self.rings.tail(at.forward(slots - 1, self.size()).slot).flags() & NEXT != 0 {
                slots += 1;
            }
            at = at.forward(slots, self.size());
            left -= slots;
            chains += 1;
        }
        self.popped.wrapping_add(chains)
    }

    /// Chains popped so far, free-running: what [`PackedDevice::avail_snapshot`] counts from.
    #[must_use]
    #[inline]
    pub fn next_avail(&self) -> u16 {
        self.popped
    }

    /// Whether there is something to be fetched; never from a broken ring.
    #[must_use]
    #[inline]
    pub fn has_available(&self) -> bool {
        self.fault.is_none() && self.next_tail().is_some()
    }

    /// Chains that were popped and not completed.
    #[must_use]
    #[inline]
    pub fn in_flight(&self) -> u16 {
        self.popped.wrapping_sub(self.completed)
    }

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
        batch.chains_len = popped;
        popped
    }

    /// The second half of the next descriptor, if that is available.
    #[inline(always)]
    fn next_tail(&self) -> Option<Tail> {
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
        quick::walk(view, slots, first, cell, start, chain)?;
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

    /// The slots of a chain in flight, which is not any more.
    #[inline(always)]
    fn release(&mut self, id: u16) -> u16 {
        let slots = self.in_flight.get_mut(usize::from(id)).map_or(0, std::mem::take);
        if slots == 0 {
            not_in_flight(id);
        }
        slots
    }

    /// Takes back that these chains were popped: the next pop gives them again. They are the last ones that were popped, in
    /// that order, and none of them was completed.
    ///
    /// # Panics
    /// If one of them is not in flight.
    pub fn put_back(&mut self, heads: impl DoubleEndedIterator<Item = u16>) {
        for head in heads.rev() {
            let slots = self.release(head);
            self.avail = self.avail.back(slots, self.size());
            self.taken -= slots;
            self.popped = self.popped.wrapping_sub(1);
        }
    }

    // --- giving back ---

    /// Writes a used descriptor for the chain of `head`, into which the device wrote `written` bytes. The driver sees it
    /// after the next [`PackedDevice::publish`].
    ///
    /// # Panics
    /// If the chain is not in flight: completing twice is a bug of ours.
    #[inline]
    pub fn complete(&mut self, head: u16, written: u32) {
        let slots = self.release(head);
        let Position { slot, .. } = self.used;
        let write = if written > 0 { WRITE } else { 0 };
        let tail = Tail::new(written, head, self.used.used() | write);
        // The driver looks at one descriptor after the other: without the first, it sees none of those behind it.
        if self.unpublished.first.is_none() {
            self.unpublished.first = Some((slot, tail));
        } else {
            self.rings.set_tail(slot, tail);
        }
        self.unpublished.chains += 1;
        self.unpublished.slots += slots;
        self.used = self.used.forward(slots, self.size());
        self.taken -= slots;
        self.completed = self.completed.wrapping_add(1);
    }

    /// As [`PackedDevice::complete`] for chains of the last pop, in the order given; `written` has the bytes for each.
    ///
    /// # Panics
    /// If one of them is not in flight.
    #[inline]
    pub fn complete_popped(&mut self, chains: &[Chain], written: impl Fn(usize) -> u32) {
        for (index, chain) in chains.iter().enumerate() {
            self.complete(chain.head, written(index));
        }
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
        // descriptor before we wrote it, and wait for ever.
        fence(Ordering::SeqCst);
        let first = std::mem::replace(&mut self.first_publish, false);
        let wanted = self.rings.driver_events.wanted(self.used, slots, self.size(), self.event_idx);
        wanted || (first && self.event_idx)
    }

    // --- notifications from the driver ---

    /// Asks the driver for a kick at the next descriptor (virtio 1.3 §2.8.10), then looks once more. True if something is
    /// available already: there may be no kick for it, so do not sleep.
    ///
    /// Does nothing on a broken ring, and returns false: nothing is ever fetched from it.
    #[must_use]
    pub fn enable_notifications(&mut self) -> bool {
        if self.fault.is_some() {
            return false;
        }
        self.rings.device_events.enable(self.avail, self.event_idx);
        // The wish before the look: the driver writes its descriptor before it looks for the wish.
        fence(Ordering::SeqCst);
        self.has_available()
    }

    /// Tells the driver that the ring is polled.
    pub fn disable_notifications(&mut self) {
        self.rings.device_events.disable();
    }
}

#[cold]
#[inline(never)]
fn not_in_flight(id: u16) -> ! {
    panic!("buffer {id} completed, but not in flight")
}
