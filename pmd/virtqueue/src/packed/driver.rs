//! The driver side of a packed ring: what the load generator and tests put chains on. Buffers and their addresses are the
//! caller's; kicks and calls themselves too.

use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};

use guest_memory::GuestSlice;

use super::RawPacked;
use super::position::Position;
use super::rings::{Rings, Tail};
use crate::follow::{DESCRIPTOR, INDIRECT, NEXT, WRITE};
use crate::{Features, Full, RingAddresses, Segment, SetupError, Used, UsedFault};

/// The driver side of one packed ring, which it zeroes when it takes it over.
///
/// Chains become visible to the device with [`PackedDriver::publish`]. Buffer ids return when the chain comes back, and are
/// taken again last in, first out.
#[derive(Debug)]
pub struct PackedDriver {
    rings: Rings,
    /// Where the next descriptor is written.
    avail: Position,
    /// Where the next used descriptor is looked for.
    used: Position,
    /// Descriptors that are the driver's.
    free: u16,
    in_flight: u16,
    /// What was added and not published: slots, and the first head, which is written last.
    unpublished: u16,
    first: Option<(u16, Tail)>,
    event_idx: bool,
    in_order: Option<InOrder>,
    fault: Option<UsedFault>,
    /// Free buffer ids; the last is taken first.
    ids: Vec<u16>,
    /// By buffer id.
    slots: Box<[Slot]>,
}

/// A chain that can be submitted any number of times. Made by [`PackedDriver::prepare`], given back with
/// [`PackedDriver::release`].
#[derive(Debug, PartialEq, Eq)]
pub struct PackedChain {
    id: u16,
}

impl PackedChain {
    /// The chain's buffer id.
    #[must_use]
    pub fn head(&self) -> u16 {
        self.id
    }
}

/// What the driver knows about the chain of a buffer id. Our own memory: the device cannot reach it.
#[derive(Clone, Debug, Default)]
struct Slot {
    token: usize,
    /// Number of ring descriptors in the chain.
    descriptors: u16,
    /// Bytes that the device may write.
    writable: u32,
    in_flight: bool,
    /// The buffer id stays with the chain when it comes back; these are its descriptors.
    prepared: Option<Box<[Entry]>>,
}

/// A descriptor to be written: address, length, flags that say what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    addr: u64,
    len: u32,
    flags: u16,
}

/// A device that uses chains in order may say so of several at once, by one used descriptor that names the last (virtio
/// 1.3 §2.8.9).
#[derive(Debug, Default)]
struct InOrder {
    /// Buffer ids in flight, the oldest first.
    ids: VecDeque<u16>,
    /// Chains still to be taken that the last used descriptor spoke of, the one it names included.
    left: usize,
    /// What the device wrote into the chain that it names.
    written: u32,
}

impl PackedDriver {
    /// Takes a ring of `size` descriptors over and zeroes it.
    ///
    /// # Errors
    /// [`SetupError`]: size, length of an area, alignment of an area.
    pub fn new(size: u16, rings: RingAddresses, features: Features) -> Result<PackedDriver, SetupError> {
        let fields = Rings::new(size, rings)?;
        for area in [rings.desc, rings.avail, rings.used] {
            area.fill(0);
        }
        Ok(PackedDriver {
            rings: fields,
            avail: Position::START,
            used: Position::START,
            free: size,
            in_flight: 0,
            unpublished: 0,
            first: None,
            event_idx: features.event_idx,
            in_order: None,
            fault: None,
            ids: (0..size).rev().collect(),
            slots: vec![Slot::default(); usize::from(size)].into_boxed_slice(),
        })
    }

    /// From now on the device uses chains in order (VIRTIO_F_IN_ORDER was agreed on): one used descriptor may speak of
    /// several. Chains that it does not name count as written in full (virtio 1.3 §2.8.9).
    ///
    /// # Panics
    /// If chains are in flight.
    pub fn expect_in_order(&mut self) {
        assert!(self.in_flight == 0, "{} chains were added before the order was agreed on", self.in_flight);
        self.in_order = Some(InOrder::default());
    }

    /// Number of descriptors.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.rings.size()
    }

    /// Number of free descriptors.
    #[must_use]
    pub fn num_free(&self) -> usize {
        usize::from(self.free)
    }

    /// Chains that were added and did not come back.
    #[must_use]
    #[inline]
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// What the device did wrong, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<UsedFault> {
        self.fault
    }

    /// Every field of the ring, for tests.
    #[must_use]
    pub fn raw(&self) -> RawPacked {
        RawPacked { rings: self.rings }
    }

    // --- adding ---

    /// Adds a chain of one descriptor a segment, readable ones first. `token` comes back with it. Returns its buffer id.
    ///
    /// # Errors
    /// [`Full`]: there are fewer free descriptors than segments.
    ///
    /// # Panics
    /// If there is no segment.
    pub fn add(&mut self, segments: &[Segment], token: usize) -> Result<u16, Full> {
        assert!(!segments.is_empty(), "a chain of no segments");
        let id = self.own(segments.len() as u16, segments, token)?;
        let entries = segments.iter().enumerate().map(|(at, segment)| direct(segment, at + 1 < segments.len()));
        self.make_available(id, entries);
        Ok(id)
    }

    /// Adds a chain of one ring descriptor, which names an indirect table with one entry a segment. The table is written
    /// to `table`, which the device knows as guest address `table_addr`, and belongs to the chain until that comes back.
    ///
    /// # Errors
    /// [`Full`]: there is no free descriptor.
    ///
    /// # Panics
    /// If there is no segment, or `table` has no room for 16 bytes a segment.
    pub fn add_indirect(
        &mut self,
        segments: &[Segment],
        table_addr: u64,
        table: GuestSlice,
        token: usize,
    ) -> Result<u16, Full> {
        let entry = write_table(segments, table_addr, table);
        let id = self.own(1, segments, token)?;
        self.make_available(id, [entry].into_iter());
        Ok(id)
    }

    /// Keeps a chain as [`PackedDriver::add`] makes it, to be submitted any number of times: it has a buffer id, and takes
    /// descriptors up only while it is in flight.
    ///
    /// # Errors
    /// [`Full`]: there is no free buffer id.
    ///
    /// # Panics
    /// If there is no segment.
    pub fn prepare(&mut self, segments: &[Segment], token: usize) -> Result<PackedChain, Full> {
        assert!(!segments.is_empty(), "a chain of no segments");
        let entries = segments.iter().enumerate().map(|(at, segment)| direct(segment, at + 1 < segments.len()));
        self.keep(entries.collect(), segments, token)
    }

    /// Keeps a chain as [`PackedDriver::add_indirect`] makes it, to be submitted any number of times.
    ///
    /// # Errors
    /// [`Full`]: there is no free buffer id.
    ///
    /// # Panics
    /// If there is no segment, or `table` has no room for 16 bytes a segment.
    pub fn prepare_indirect(
        &mut self,
        segments: &[Segment],
        table_addr: u64,
        table: GuestSlice,
        token: usize,
    ) -> Result<PackedChain, Full> {
        let entry = write_table(segments, table_addr, table);
        self.keep([entry].into(), segments, token)
    }

    /// Adds a prepared chain. What its segments name may have changed since the last time, the segments have not.
    ///
    /// # Panics
    /// If the chain is in flight, was prepared by another driver, or there are not enough free descriptors.
    #[inline]
    pub fn submit(&mut self, chain: &PackedChain) {
        let slot = &mut self.slots[usize::from(chain.id)];
        assert!(!slot.in_flight, "buffer {} submitted while it is in flight", chain.id);
        let entries = slot.prepared.take().expect("a chain that this driver prepared");
        slot.in_flight = true;
        assert!(slot.descriptors <= self.free, "{} descriptors are needed, {} are free", slot.descriptors, self.free);
        self.make_available(chain.id, entries.iter().copied());
        self.slots[usize::from(chain.id)].prepared = Some(entries);
    }

    /// Frees the buffer id of a prepared chain.
    ///
    /// # Panics
    /// If the chain is in flight.
    pub fn release(&mut self, chain: PackedChain) {
        let slot = &mut self.slots[usize::from(chain.id)];
        assert!(!slot.in_flight && slot.prepared.is_some(), "buffer {} released while it is in flight", chain.id);
        slot.prepared = None;
        self.ids.push(chain.id);
    }

    /// Makes added chains visible to the device. Returns whether it wants a kick for them (virtio 1.3 §2.8.10).
    #[inline]
    pub fn publish(&mut self) -> bool {
        let Some((slot, tail)) = self.first.take() else { return false };
        self.rings.set_tail(slot, tail);
        let count = std::mem::take(&mut self.unpublished);
        // The descriptor before the question, as in the device's `publish`.
        fence(Ordering::SeqCst);
        self.rings.device_events.wanted(self.avail, count, self.size(), self.event_idx)
    }

    // --- taking back ---

    /// Takes the next chain that came back; `None` if there is none, or the device broke the rules
    /// ([`PackedDriver::fault`]).
    #[inline]
    pub fn pop_used(&mut self) -> Option<Used> {
        let (id, written) = match &self.in_order {
            None => self.next_used()?,
            Some(_) => self.next_in_order()?,
        };
        let Some(slot) = self.slots.get_mut(usize::from(id)).filter(|slot| slot.in_flight) else {
            return self.broken_by(UsedFault::NotInFlight { head: id.into() });
        };
        slot.in_flight = false;
        let (token, descriptors, prepared) = (slot.token, slot.descriptors, slot.prepared.is_some());
        self.used = self.used.forward(descriptors, self.size());
        self.free += descriptors;
        self.in_flight -= 1;
        if !prepared {
            self.ids.push(id);
        }
        Some(Used { token, head: id, written })
    }

    /// The used descriptor that is looked at next, if it is one.
    #[inline(always)]
    fn next_used(&self) -> Option<(u16, u32)> {
        let tail = self.rings.tail(self.used.slot);
        let used = self.used.is_used(tail.flags()) && self.in_flight > 0 && self.fault.is_none();
        used.then(|| (tail.id(), if tail.flags() & WRITE != 0 { tail.len() } else { 0 }))
    }

    /// The oldest chain and what was written into it, if the device says that it has used it.
    fn next_in_order(&mut self) -> Option<(u16, u32)> {
        if self.in_order.as_ref().is_some_and(|order| order.left == 0) {
            let (id, written) = self.next_used()?;
            let order = self.in_order.as_mut()?;
            let Some(skipped) = order.ids.iter().position(|of| *of == id) else {
                self.broken_by(UsedFault::NotInFlight { head: id.into() });
                return None;
            };
            (order.left, order.written) = (skipped + 1, written);
        }
        let order = self.in_order.as_mut()?;
        let id = order.ids.pop_front()?;
        order.left -= 1;
        let written = if order.left == 0 { order.written } else { self.slots[usize::from(id)].writable };
        Some((id, written))
    }

    #[cold]
    fn broken_by(&mut self, fault: UsedFault) -> Option<Used> {
        self.fault = Some(fault);
        None
    }

    /// Asks the device for a call when the next chain comes back (virtio 1.3 §2.8.10), then looks once more. True if one
    /// has come back already: there may be no call for it, so do not sleep.
    #[must_use]
    pub fn enable_calls(&mut self) -> bool {
        self.rings.driver_events.enable(self.used, self.event_idx);
        fence(Ordering::SeqCst);
        self.next_used().is_some()
    }

    /// Tells the device that calls are not needed.
    pub fn disable_calls(&mut self) {
        self.rings.driver_events.disable();
    }

    // --- inside ---

    /// Takes a buffer id for a chain of so many descriptors that is about to be made available.
    fn own(&mut self, descriptors: u16, segments: &[Segment], token: usize) -> Result<u16, Full> {
        let full = Full { wanted: usize::from(descriptors), free: usize::from(self.free) };
        if descriptors > self.free {
            return Err(full);
        }
        let id = self.ids.pop().ok_or(full)?;
        self.slots[usize::from(id)] =
            Slot { token, descriptors, writable: writable(segments), in_flight: true, prepared: None };
        Ok(id)
    }

    fn keep(&mut self, entries: Box<[Entry]>, segments: &[Segment], token: usize) -> Result<PackedChain, Full> {
        let id = self.ids.pop().ok_or(Full { wanted: 1, free: 0 })?;
        let (descriptors, writable) = (entries.len() as u16, writable(segments));
        self.slots[usize::from(id)] = Slot { token, descriptors, writable, in_flight: false, prepared: Some(entries) };
        Ok(PackedChain { id })
    }

    #[inline(always)]
    fn make_available(&mut self, id: u16, entries: impl ExactSizeIterator<Item = Entry>) {
        let count = entries.len() as u16;
        let head = self.avail;
        let mut head_tail = Tail::new(0, 0, 0);
        for (index, Entry { addr, len, flags }) in (0..).zip(entries) {
            let at = head.forward(index, self.size());
            let tail = Tail::new(len, id, flags | at.available());
            self.rings.set_addr(at.slot, addr);
            if index == 0 {
                head_tail = tail;
            } else {
                self.rings.set_tail(at.slot, tail);
            }
        }
        // The head last, and the first head of a batch only when it is published: the device stops before it until then.
        if self.first.is_none() {
            self.first = Some((head.slot, head_tail));
        } else {
            self.rings.set_tail(head.slot, head_tail);
        }
        if let Some(order) = &mut self.in_order {
            order.ids.push_back(id);
        }
        self.avail = head.forward(count, self.size());
        self.free -= count;
        self.unpublished += count;
        self.in_flight += 1;
    }
}

fn direct(segment: &Segment, more: bool) -> Entry {
    let write = if segment.writable { WRITE } else { 0 };
    Entry { addr: segment.addr, len: segment.len, flags: write | if more { NEXT } else { 0 } }
}

fn writable(segments: &[Segment]) -> u32 {
    segments.iter().filter(|segment| segment.writable).fold(0, |sum, segment| sum.saturating_add(segment.len))
}

/// Writes an indirect table; the descriptor that names it.
fn write_table(segments: &[Segment], table_addr: u64, table: GuestSlice) -> Entry {
    assert!(!segments.is_empty(), "a chain of no segments");
    let len = DESCRIPTOR * segments.len();
    assert!(table.len() >= len, "an indirect table of {} bytes for {} segments", table.len(), segments.len());
    for (index, segment) in segments.iter().enumerate() {
        let Entry { addr, len, flags } = direct(segment, false);
        let (_, entry) = table.split_at(DESCRIPTOR * index);
        entry.write(&RawPacked::descriptor_bytes(addr, len, 0, flags));
    }
    Entry { addr: table_addr, len: len as u32, flags: INDIRECT }
}
