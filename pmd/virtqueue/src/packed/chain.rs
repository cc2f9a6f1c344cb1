//! Where the descriptors of a chain are in a packed ring: in the slots that follow its head, or in the indirect table that
//! the head names. What they may say is `follow`'s business.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use guest_memory::{GuestArray, GuestChunk};

use super::rings::{Rings, Tail};
use crate::chain::CELL;
use crate::follow::{DESCRIPTOR, Descriptor, Entries, INDIRECT, NEXT, TableFormat, View, WRITE};

/// The slots from a chain's head on.
#[derive(Clone, Copy)]
pub(super) struct Slots {
    pub(super) rings: Rings,
    pub(super) head: u16,
}

impl Slots {
    /// The slot of descriptor `index` of the chain.
    #[inline(always)]
    pub(super) fn slot(self, index: u16) -> u16 {
        let slot = u32::from(self.head) + u32::from(index);
        let size = u32::from(self.rings.size());
        (if slot >= size { slot - size } else { slot }) as u16
    }

    /// The head, of which the second half has been read.
    #[inline(always)]
    pub(super) fn first(self, tail: Tail) -> Descriptor {
        Descriptor::in_sequence([self.rings.addr(self.head), tail.0], WRITE | INDIRECT, tail.flags() & NEXT, 0)
    }
}

impl Entries for Slots {
    /// Once around at most.
    #[inline(always)]
    fn entry(&self, index: u16) -> Option<Descriptor> {
        if index >= self.rings.size() {
            return None;
        }
        let slot = self.slot(index);
        let tail = self.rings.tail(slot);
        Some(Descriptor::in_sequence([self.rings.addr(slot), tail.0], WRITE | INDIRECT, tail.flags() & NEXT, index))
    }
}

/// The four slots from a chain's head on, where the ring does not end before: nothing has to be checked to find them.
pub(super) struct Near {
    words: GuestChunk<u64, { 2 * CELL }>,
    last: Cell<Tail>,
}

impl Near {
    #[inline(always)]
    pub(super) fn new(slots: Slots) -> Option<Near> {
        let words = slots.rings.desc.chunk(2 * usize::from(slots.head))?;
        Some(Near { words, last: Cell::new(Tail(0)) })
    }

    /// The buffer id of the last entry that was read, which is that of a chain that ends there (virtio 1.3 §2.8.6).
    #[inline(always)]
    pub(super) fn last_id(&self) -> u16 {
        self.last.get().id()
    }
}

impl Entries for &Near {
    #[inline(always)]
    fn entry(&self, index: u16) -> Option<Descriptor> {
        let at = 2 * usize::from(index);
        if at >= 2 * CELL {
            return None;
        }
        let tail = Tail(self.words.load(at + 1, Ordering::Acquire));
        let addr = self.words.load(at, Ordering::Relaxed);
        self.last.set(tail);
        Some(Descriptor::in_sequence([addr, tail.0], WRITE | INDIRECT, tail.flags() & NEXT, index))
    }
}

/// The same for the walk that knows every fault: counts how far it came, and knows the head already.
pub(super) struct CountedSlots {
    slots: Slots,
    first: Descriptor,
    count: Cell<u16>,
}

impl CountedSlots {
    pub(super) fn new(slots: Slots, first: Descriptor) -> CountedSlots {
        CountedSlots { slots, first, count: Cell::new(0) }
    }

    /// How many slots the chain takes up.
    pub(super) fn count(&self) -> u16 {
        self.count.get()
    }
}

impl Entries for CountedSlots {
    fn entry(&self, index: u16) -> Option<Descriptor> {
        self.count.set(self.count.get().max(index.saturating_add(1)));
        if index == 0 {
            return Some(self.first);
        }
        let entry = self.slots.entry(index)?;
        // An indirect descriptor linked with others, which no driver may write (virtio 1.3 §2.8.19): the link is before it.
        Some(if entry.has(INDIRECT) { entry.with_flags(NEXT) } else { entry })
    }
}

/// The entries of an indirect table that lies in one region, aligned.
#[derive(Clone, Copy)]
pub(super) struct Table {
    words: GuestArray<u64>,
    len: u32,
    /// The flags that are looked at.
    kept: u16,
}

impl Table {
    /// The table that `named` names; `None` if that takes a closer look.
    #[inline(always)]
    pub(super) fn of(view: &View<'_>, named: Descriptor, kept: u16) -> Option<Table> {
        if named.has(NEXT) || !(named.len as usize).is_multiple_of(DESCRIPTOR) {
            return None;
        }
        Some(Table { words: GuestArray::new(view.slice(named)?)?, len: named.len, kept })
    }
}

impl Entries for Table {
    #[inline(always)]
    fn entry(&self, index: u16) -> Option<Descriptor> {
        let at = 2 * usize::from(index);
        if at + 1 >= self.words.len() {
            return None;
        }
        let words = [self.words.load(at, Ordering::Relaxed), self.words.load(at + 1, Ordering::Relaxed)];
        Some(TableFormat::InSequence(self.kept).descriptor(words, index, self.len))
    }
}
