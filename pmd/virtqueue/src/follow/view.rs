//! Translation for the two quick walks: one region is at hand, another is remembered, the rest is looked for. A buffer
//! that lies in no single region is left to `walk.rs`.

use std::cell::Cell;

use guest_memory::{GuestSlice, MemTable};

use super::descriptor::Descriptor;

/// Two regions by index, kept from batch to batch. The memory table may be another one by then.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hints {
    /// Where most buffers are.
    at_hand: usize,
    /// Where one was that was not there.
    other: usize,
}

/// The memory table as one batch looks at it.
pub(crate) struct View<'a> {
    memory: &'a MemTable,
    at_hand: Window,
    hints: Cell<Hints>,
    /// Look-ups that did not find what they looked for in the region at hand.
    missed: Cell<usize>,
}

impl<'a> View<'a> {
    #[inline(always)]
    pub(crate) fn new(memory: &'a MemTable, hints: Hints) -> View<'a> {
        let at_hand = Window::of(memory, hints.at_hand);
        View { memory, at_hand, hints: Cell::new(hints), missed: Cell::new(0) }
    }

    /// What the next batch should begin with, after one of `chains`.
    #[inline(always)]
    pub(crate) fn hints(&self, chains: usize) -> Hints {
        let hints = self.hints.get();
        if self.missed.get() > chains {
            return Hints { at_hand: hints.other, other: hints.at_hand };
        }
        hints
    }

    /// The bytes that a descriptor names, if one region holds them all.
    #[inline(always)]
    pub(crate) fn slice(&self, named: Descriptor) -> Option<GuestSlice> {
        match self.at_hand.slice(named) {
            Some(slice) => Some(slice),
            None => self.slice_elsewhere(named),
        }
    }

    /// Guests whose memory is in two regions, below and above 4 GiB, come here often.
    #[cold]
    #[inline(never)]
    fn slice_elsewhere(&self, named: Descriptor) -> Option<GuestSlice> {
        self.missed.set(self.missed.get() + 1);
        let hints = self.hints.get();
        if let Some(slice) = Window::of(self.memory, hints.other).slice(named) {
            return Some(slice);
        }
        let regions = self.memory.regions();
        let other = regions.partition_point(|region| region.config().guest_addr <= named.addr).checked_sub(1)?;
        self.hints.set(Hints { other, ..hints });
        Window::of(self.memory, other).slice(named)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use guest_memory::{Mapping, Pages, RegionConfig, SharedMemory};

    use super::*;

    fn table() -> MemTable {
        let region = |guest_addr| {
            let memory = SharedMemory::create("view", 4096, Pages::Small).unwrap();
            let config = RegionConfig { guest_addr, size: 4096, user_addr: 0, mmap_offset: 0 };
            Arc::new(Mapping::map(memory.fd(), &config).unwrap())
        };
        MemTable::new([0x1000, 0x10000, 0x20000].map(region).to_vec()).unwrap()
    }

    #[test]
    fn region_of_most_buffers_comes_to_hand() {
        let memory = table();
        let view = View::new(&memory, Hints::default());
        let find = |view: &View<'_>, addr| view.slice(Descriptor::new(addr, 16, 0, 0)).is_some();
        assert!(find(&view, 0x1000) && find(&view, 0x10000));
        // One miss in one chain: the first region stays at hand, the other is remembered.
        assert_eq!((view.hints(1).at_hand, view.hints(1).other), (0, 1));
        assert!(find(&view, 0x20000));
        // Two misses in one chain: the last one missed comes to hand.
        assert_eq!((view.hints(1).at_hand, view.hints(1).other), (2, 0));
        let view = View::new(&memory, view.hints(1));
        assert!(find(&view, 0x20ff0) && find(&view, 0x1ff0) && find(&view, 0x10000));
        assert!(!find(&view, 0x20ff1) && !find(&view, 0) && !find(&view, u64::MAX));
    }

    #[test]
    fn hints_of_a_larger_table_are_harmless() {
        let memory = table();
        let view = View::new(&memory, Hints { at_hand: 7, other: 99 });
        assert!(view.slice(Descriptor::new(0x10000, 16, 0, 0)).is_some());
        let none = MemTable::default();
        assert!(View::new(&none, Hints::default()).slice(Descriptor::new(0x10000, 16, 0, 0)).is_none());
    }
}
