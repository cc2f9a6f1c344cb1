//! The driver side of a split ring: what the load generator and tests put chains on. Buffers and their addresses are the
//! caller's; kicks and calls themselves too.

use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};

use guest_memory::GuestSlice;

use super::RawSplit;
use super::rings::{NO_INTERRUPT, NO_NOTIFY, Rings};
use crate::follow::{DESCRIPTOR, Descriptor, INDIRECT, NEXT, WRITE};
use crate::{Features, Full, RingAddresses, Segment, SetupError, Used, UsedFault, event};

/// The driver side of one split ring, which it zeroes when it takes it over.
///
/// Chains become visible to the device with [`SplitDriver::publish`]. Descriptors return to the driver when the chain
/// comes back, and are taken again last in, first out, so that a shallow queue stays in few cache lines.
#[derive(Debug)]
pub struct SplitDriver {
    rings: Rings,
    /// Index of the next available entry to be written.
    next_avail: u16,
    /// The available index that the device sees.
    published: u16,
    /// Index of the next used entry to be taken.
    next_used: u16,
    /// The used index as it was seen last.
    seen_used: u16,
    event_idx: bool,
    /// What it takes to understand a device that uses chains in order; `None` unless that was agreed on.
    in_order: Option<InOrder>,
    fault: Option<UsedFault>,
    /// Free descriptors; the last is taken first. A chain that comes back goes to the end, or, where they come back in order, to
    /// the front: descriptors are then taken in the order of the ring, as is a driver's part of that (virtio 1.3 §2.7.9).
    free: VecDeque<u16>,
    /// By descriptor.
    slots: Box<[Slot]>,
}

/// A chain whose descriptors stay written: submitting it costs one available entry. Made by [`SplitDriver::prepare`],
/// given back with [`SplitDriver::release`].
#[derive(Debug, PartialEq, Eq)]
pub struct PreparedChain {
    head: u16,
}

impl PreparedChain {
    /// The chain's head.
    #[must_use]
    pub fn head(&self) -> u16 {
        self.head
    }
}

/// What the driver knows about the chain that a descriptor is head of. Our own memory: the device cannot reach it.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    token: usize,
    /// The descriptor that follows in the chain.
    next: u16,
    /// Number of ring descriptors in the chain.
    descriptors: u16,
    /// Bytes that the device may write.
    writable: u32,
    in_flight: bool,
    /// The descriptors stay with the chain when it comes back.
    prepared: bool,
}

/// A device that uses chains in the order they were made available in may say so of several at once, by one used entry
/// that names the last (virtio 1.3 §2.7.9).
#[derive(Debug)]
struct InOrder {
    /// Heads by available entry: our own copy, which the device cannot reach.
    heads: Box<[u16]>,
    /// Chains still to be taken that the last used entry spoke of, the one it names included.
    left: u16,
    /// What the device wrote into the chain that it names.
    written: u32,
}

impl SplitDriver {
    /// Takes a ring of `size` descriptors over and zeroes it.
    ///
    /// # Errors
    /// [`SetupError`]: size, length of an area, alignment of an area.
    pub fn new(size: u16, rings: RingAddresses, features: Features) -> Result<SplitDriver, SetupError> {
        let fields = Rings::new(size, rings)?;
        for area in [rings.desc, rings.avail, rings.used] {
            area.fill(0);
        }
        Ok(SplitDriver {
            rings: fields,
            next_avail: 0,
            published: 0,
            next_used: 0,
            seen_used: 0,
            event_idx: features.event_idx,
            in_order: None,
            fault: None,
            free: (0..size).rev().collect(),
            slots: vec![Slot::default(); usize::from(size)].into_boxed_slice(),
        })
    }

    /// From now on the device uses chains in order (VIRTIO_F_IN_ORDER was agreed on): one used entry may speak of several.
    /// Chains that it does not name count as written in full (virtio 1.3 §2.7.9). Chains that are added use descriptors in the
    /// order of the ring, as the driver has to; of prepared ones it is the caller's to submit them so.
    ///
    /// # Panics
    /// If chains were added already.
    pub fn expect_in_order(&mut self) {
        assert!(self.next_avail == 0, "{} chains were added before the order was agreed on", self.next_avail);
        let heads = vec![0; usize::from(self.size())].into_boxed_slice();
        self.in_order = Some(InOrder { heads, left: 0, written: 0 });
    }

    /// Number of descriptors.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.rings.size()
    }

    /// Number of free descriptors.
    #[must_use]
    pub fn num_free(&self) -> usize {
        self.free.len()
    }

    /// Chains that were added and did not come back.
    #[must_use]
    #[inline]
    pub fn in_flight(&self) -> u16 {
        self.next_avail.wrapping_sub(self.next_used)
    }

    /// What the device did wrong, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<UsedFault> {
        self.fault
    }

    /// Every field of the ring, for tests.
    #[must_use]
    pub fn raw(&self) -> RawSplit {
        RawSplit { rings: self.rings }
    }

    // --- adding ---

    /// Adds a chain of one descriptor a segment, readable ones first. `token` comes back with it. Returns its head.
    ///
    /// # Errors
    /// [`Full`]: there are fewer free descriptors than segments.
    ///
    /// # Panics
    /// If there is no segment.
    pub fn add(&mut self, segments: &[Segment], token: usize) -> Result<u16, Full> {
        let head = self.write_chain(segments)?;
        self.own(head, segments.len(), segments, token, false);
        self.make_available(head);
        Ok(head)
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
        let head = self.write_indirect(segments, table_addr, table)?;
        self.own(head, 1, segments, token, false);
        self.make_available(head);
        Ok(head)
    }

    /// Writes a chain as [`SplitDriver::add`] does, to be submitted any number of times.
    ///
    /// # Errors
    /// [`Full`]: there are fewer free descriptors than segments.
    ///
    /// # Panics
    /// If there is no segment.
    pub fn prepare(&mut self, segments: &[Segment], token: usize) -> Result<PreparedChain, Full> {
        let head = self.write_chain(segments)?;
        self.own(head, segments.len(), segments, token, true);
        Ok(PreparedChain { head })
    }

    /// Writes a chain as [`SplitDriver::add_indirect`] does, to be submitted any number of times.
    ///
    /// # Errors
    /// [`Full`]: there is no free descriptor.
    ///
    /// # Panics
    /// If there is no segment, or `table` has no room for 16 bytes a segment.
    pub fn prepare_indirect(
        &mut self,
        segments: &[Segment],
        table_addr: u64,
        table: GuestSlice,
        token: usize,
    ) -> Result<PreparedChain, Full> {
        let head = self.write_indirect(segments, table_addr, table)?;
        self.own(head, 1, segments, token, true);
        Ok(PreparedChain { head })
    }

    /// Adds a prepared chain. What its segments name may have changed since the last time, the segments have not.
    ///
    /// # Panics
    /// If the chain is in flight, or was prepared by another driver.
    #[inline]
    pub fn submit(&mut self, chain: &PreparedChain) {
        let slot = &mut self.slots[usize::from(chain.head)];
        assert!(slot.prepared && !slot.in_flight, "head {} submitted while it is in flight", chain.head);
        slot.in_flight = true;
        self.make_available(chain.head);
    }

    /// Frees the descriptors of a prepared chain.
    ///
    /// # Panics
    /// If the chain is in flight.
    pub fn release(&mut self, chain: PreparedChain) {
        let slot = &mut self.slots[usize::from(chain.head)];
        assert!(slot.prepared && !slot.in_flight, "head {} released while it is in flight", chain.head);
        slot.prepared = false;
        self.free_chain(chain.head);
    }

    /// Makes added chains visible to the device. Returns whether it wants a kick for them (virtio 1.3 §2.7.10).
    #[inline]
    pub fn publish(&mut self) -> bool {
        let old = self.published;
        let new = self.next_avail;
        if new == old {
            return false;
        }
        self.rings.set_avail_index(new);
        self.published = new;
        // The index before the question, as in the device's `publish`.
        fence(Ordering::SeqCst);
        if self.event_idx {
            event::passed(self.rings.avail_event(), new, old)
        } else {
            self.rings.used_flags() & NO_NOTIFY == 0
        }
    }

    // --- taking back ---

    /// Takes the next chain that came back; `None` if there is none, or the device broke the rules
    /// ([`SplitDriver::fault`]). The used index is read again only when everything seen before was taken.
    #[inline]
    pub fn pop_used(&mut self) -> Option<Used> {
        if self.seen_used == self.next_used && !self.look_for_used() {
            return None;
        }
        let (id, written) = match &self.in_order {
            None => self.rings.used_element(self.next_used),
            Some(_) => self.next_in_order()?,
        };
        let in_flight = self.slots.get_mut(id as usize).filter(|slot| slot.in_flight);
        let Some(slot) = in_flight else {
            return self.broken_by(UsedFault::NotInFlight { head: id });
        };
        slot.in_flight = false;
        let head = id as u16; // below the size
        let Slot { token, prepared, .. } = *slot;
        self.next_used = self.next_used.wrapping_add(1);
        if !prepared {
            self.free_chain(head);
        }
        Some(Used { token, head, written })
    }

    /// Head of the oldest chain and what was written into it. The caller knows that it was used.
    #[inline(never)]
    fn next_in_order(&mut self) -> Option<(u32, u32)> {
        let mask = self.size() - 1;
        let (next, seen) = (self.next_used, self.seen_used);
        let order = self.in_order.as_mut()?;
        let head_at = |index: u16| order.heads[usize::from(index & mask)];
        if order.left == 0 {
            let (id, written) = self.rings.used_element(next);
            let ahead = seen.wrapping_sub(next);
            let Some(skipped) = (0..ahead).find(|skipped| u32::from(head_at(next.wrapping_add(*skipped))) == id) else {
                let in_flight = self.slots.get(id as usize).is_some_and(|slot| slot.in_flight);
                let fault =
                    if in_flight { UsedFault::OutOfOrder { head: id } } else { UsedFault::NotInFlight { head: id } };
                self.broken_by(fault);
                return None;
            };
            (order.left, order.written) = (skipped + 1, written);
        }
        let head = order.heads[usize::from(next & mask)];
        order.left -= 1;
        let written = if order.left == 0 { order.written } else { self.slots[usize::from(head)].writable };
        Some((head.into(), written))
    }

    #[inline(always)]
    fn look_for_used(&mut self) -> bool {
        let index = self.rings.used_index();
        let ahead = index.wrapping_sub(self.next_used);
        if ahead == 0 || self.fault.is_some() {
            return false;
        }
        let in_flight = self.in_flight();
        if ahead > in_flight {
            self.broken_by(UsedFault::IndexJump { index, ahead, in_flight });
            return false;
        }
        self.seen_used = index;
        true
    }

    #[cold]
    fn broken_by(&mut self, fault: UsedFault) -> Option<Used> {
        self.fault = Some(fault);
        self.seen_used = self.next_used;
        None
    }

    /// Asks the device for a call when the next chain comes back (virtio 1.3 §2.7.7), then looks once more. True if one
    /// has come back already: there may be no call for it, so do not sleep.
    #[must_use]
    pub fn enable_calls(&mut self) -> bool {
        if self.event_idx {
            self.rings.set_used_event(self.next_used);
        } else {
            self.rings.set_avail_flags(0);
        }
        fence(Ordering::SeqCst);
        self.fault.is_none() && self.rings.used_index() != self.next_used
    }

    /// Tells the device that calls are not needed. With event indices the event is left behind, as in
    /// [`SplitDevice::disable_notifications`](super::SplitDevice::disable_notifications).
    pub fn disable_calls(&mut self) {
        if self.event_idx {
            self.rings.set_used_event(self.next_used.wrapping_sub(1));
        } else {
            self.rings.set_avail_flags(NO_INTERRUPT);
        }
    }

    // --- inside ---

    fn write_chain(&mut self, segments: &[Segment]) -> Result<u16, Full> {
        assert!(!segments.is_empty(), "a chain of no segments");
        let free = self.free.len();
        let rest = free.checked_sub(segments.len()).ok_or(Full { wanted: segments.len(), free })?;
        let head = self.free[free - 1];
        for (at, segment) in segments.iter().enumerate() {
            let index = self.free[free - 1 - at];
            let next = (at + 1 < segments.len()).then(|| self.free[free - 2 - at]);
            self.slots[usize::from(index)].next = next.unwrap_or(0);
            self.rings.set_descriptor(usize::from(index), descriptor(segment, next));
        }
        self.free.truncate(rest);
        Ok(head)
    }

    fn write_indirect(&mut self, segments: &[Segment], table_addr: u64, table: GuestSlice) -> Result<u16, Full> {
        assert!(!segments.is_empty(), "a chain of no segments");
        let len = DESCRIPTOR * segments.len();
        assert!(table.len() >= len, "an indirect table of {} bytes for {} segments", table.len(), segments.len());
        let head = self.free.pop_back().ok_or(Full { wanted: 1, free: 0 })?;
        let mut at = table;
        for (index, segment) in segments.iter().enumerate() {
            let next = (index + 1 < segments.len()).then_some(index as u16 + 1);
            let [addr, rest] = descriptor(segment, next).words();
            let (entry, following) = at.split_at(DESCRIPTOR);
            entry.write(&(u128::from(rest) << 64 | u128::from(addr)).to_le_bytes());
            at = following;
        }
        self.rings.set_descriptor(usize::from(head), Descriptor::new(table_addr, len as u32, INDIRECT, 0));
        Ok(head)
    }

    fn own(&mut self, head: u16, descriptors: usize, segments: &[Segment], token: usize, prepared: bool) {
        let writable = segments.iter().filter(|segment| segment.writable);
        let slot = &mut self.slots[usize::from(head)];
        slot.token = token;
        slot.descriptors = descriptors as u16; // as many as were free
        slot.writable = writable.fold(0, |sum: u32, segment| sum.saturating_add(segment.len));
        slot.in_flight = !prepared;
        slot.prepared = prepared;
    }

    #[inline(always)]
    fn make_available(&mut self, head: u16) {
        // Where chains come back in order, the entry has the head already: a line that is not written stays in the device's
        // cache. What a device that writes here does to itself is undone.
        if self.rings.avail_entry(self.next_avail) != head {
            self.rings.set_avail_entry(self.next_avail, head);
        }
        if let Some(order) = &mut self.in_order {
            order.heads[usize::from(self.next_avail & (self.rings.size() - 1))] = head;
        }
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    /// The head is taken before the rest of its chain.
    fn free_chain(&mut self, head: u16) {
        let rest = self.free.len();
        let mut index = head;
        for _ in 0..self.slots[usize::from(head)].descriptors {
            if self.in_order.is_some() {
                self.free.push_front(index);
            } else {
                self.free.push_back(index);
            }
            index = self.slots[usize::from(index)].next;
        }
        if self.in_order.is_none() {
            self.free.make_contiguous()[rest..].reverse(); // it is: nothing is ever at the front
        }
    }
}

fn descriptor(segment: &Segment, next: Option<u16>) -> Descriptor {
    let write = if segment.writable { WRITE } else { 0 };
    let more = if next.is_some() { NEXT } else { 0 };
    Descriptor::new(segment.addr, segment.len, write | more, next.unwrap_or(0))
}
