//! Translation for the two quick walks: the regions that drivers' buffers lie in just now. Anything it does not find is
//! looked for by `walk.rs`.

use std::hint::cold_path;

use guest_memory::{GuestArray, GuestSlice, MemTable};

use super::rings::{DESCRIPTOR, Descriptor, Entries, INDIRECT, NEXT};

/// The two regions that were met last, by index. Kept from batch to batch; the table may be another one by then.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hints {
    recent: [usize; 2],
}

impl Hints {
    /// Notes that the guest address was met.
    pub(super) fn note(&mut self, memory: &MemTable, addr: u64) {
        let after = memory.regions().partition_point(|region| region.config().guest_addr <= addr);
        let index = after.saturating_sub(1);
        if self.recent[0] != index {
            self.recent = [index, self.recent[0]];
        }
    }
}

/// The regions that are at hand while a batch lasts.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    memory: &'a MemTable,
    recent: Window,
    other: usize,
}

impl<'a> View<'a> {
    #[inline(always)]
    pub(super) fn new(memory: &'a MemTable, hints: Hints) -> View<'a> {
        let [recent, other] = hints.recent;
        View { memory, recent: Window::of(memory, recent), other }
    }

    /// Where the descriptors of a chain lie, and the first of them: in the ring, or in the indirect table that the head
    /// names. `None` if that takes a closer look.
    #[inline(always)]
    pub(super) fn begin(&self, ring: GuestArray<u64>, head: u16) -> Option<(GuestArray<u64>, Descriptor)> {
        let first = ring.entry(head)?;
        if !first.has(INDIRECT) {
            return Some((ring, first));
        }
        // A table of no entries has no entry 0, so it needs no question of its own.
        if first.has(NEXT) || !(first.len as usize).is_multiple_of(DESCRIPTOR) {
            return None;
        }
        let entries = GuestArray::new(self.slice(first)?)?;
        Some((entries, entries.entry(0)?))
    }

    /// The bytes that a descriptor names, if one region at hand holds them all.
    #[inline(always)]
    pub(super) fn slice(&self, named: Descriptor) -> Option<GuestSlice> {
        if let Some(slice) = self.recent.slice(named) {
            return Some(slice);
        }
        cold_path();
        Window::of(self.memory, self.other).slice(named)
    }
}

/// One region, as far as translation needs it.
#[derive(Clone, Copy)]
struct Window {
    guest_addr: u64,
    memory: GuestSlice,
}

impl Window {
    const EMPTY: Window = Window { guest_addr: 0, memory: GuestSlice::EMPTY };

    /// The region at `index`; one that holds nothing if there is none.
    #[inline(always)]
    fn of(memory: &MemTable, index: usize) -> Window {
        memory
            .regions()
            .get(index)
            .map_or(Window::EMPTY, |region| Window { guest_addr: region.config().guest_addr, memory: region.memory() })
    }

    #[inline(always)]
    fn slice(self, named: Descriptor) -> Option<GuestSlice> {
        // An address below the region wraps to an offset that is greater than any length.
        let offset = named.addr.wrapping_sub(self.guest_addr) as usize;
        self.memory.subslice(offset, named.len as usize)
    }
}
