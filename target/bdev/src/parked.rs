//! Requests that a channel keeps, with copies of their buffer lists. Says nothing about when they go on.

use guest_memory::GuestSlice;

use crate::{BlockRuns, Extent, Io, Op, Token};

/// Copies of requests, in places that are used again with all the room they have grown: a channel that has once held as
/// much as it holds now does not allocate.
#[derive(Debug)]
pub(crate) struct Parked {
    places: Vec<Place>,
    free: Vec<Slot>,
}

/// Where a request is parked. Of one [`Parked`] only, until it is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(usize);

#[derive(Debug)]
struct Place {
    op: Op,
    lba: u64,
    blocks: u32,
    token: Token,
    buffers: Vec<GuestSlice>,
    extents: Vec<Extent>,
    runs: Option<BlockRuns>,
}

impl Parked {
    /// No room yet: it grows as far as it must.
    pub(crate) const fn empty() -> Parked {
        Parked { places: Vec::new(), free: Vec::new() }
    }

    /// Room for [`RESERVED`] requests of [`RESERVED_BUFFERS`] buffers each. It grows as far as it must.
    pub(crate) fn new() -> Parked {
        let place = |_| Place {
            op: Op::Flush,
            lba: 0,
            blocks: 0,
            token: Token(0),
            buffers: Vec::with_capacity(RESERVED_BUFFERS),
            extents: Vec::new(),
            runs: None,
        };
        Parked { places: (0..RESERVED).map(place).collect(), free: (0..RESERVED).rev().map(Slot).collect() }
    }

    pub(crate) fn park(&mut self, io: &Io<'_>) -> Slot {
        let Io { op, lba, blocks, buffers, extents, runs, token } = *io;
        let runs = runs.cloned();
        let Some(slot) = self.free.pop() else {
            let (buffers, extents) = (buffers.to_vec(), extents.to_vec());
            self.places.push(Place { op, lba, blocks, token, buffers, extents, runs });
            self.free.reserve(self.places.len()); // a release must not allocate
            return Slot(self.places.len() - 1);
        };
        let place = &mut self.places[slot.0];
        (place.op, place.lba, place.blocks, place.token) = (op, lba, blocks, token);
        place.buffers.clear();
        place.buffers.extend_from_slice(buffers);
        place.extents.clear();
        place.extents.extend_from_slice(extents);
        place.runs = runs;
        slot
    }

    /// The request in `slot`.
    pub(crate) fn io(&self, slot: Slot) -> Io<'_> {
        let Place { op, lba, blocks, token, ref buffers, ref extents, ref runs } = self.places[slot.0];
        Io { op, lba, blocks, buffers, extents, runs: runs.as_ref(), token }
    }

    /// All places may be used again: nothing is parked any more.
    pub(crate) fn release_all(&mut self) {
        self.free.clear();
        self.free.extend((0..self.places.len()).rev().map(Slot));
    }

    /// `slot` may be used again.
    pub(crate) fn release(&mut self, slot: Slot) {
        self.free.push(slot);
    }
}

/// Requests that a channel has room for from the start: twice QEMU's default cmd_per_lun.
pub(crate) const RESERVED: usize = 256;
/// Buffers per request that there is room for from the start: 64 KiB of scattered 4 KiB pages.
const RESERVED_BUFFERS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_beyond_the_reserve_grows_and_keeps_every_request() {
        let mut parked = Parked::new();
        let slots: Vec<Slot> = (0..RESERVED as u64 * 3)
            .map(|n| {
                let buffers = vec![GuestSlice::EMPTY; n as usize % 40];
                let op = Op::Write { fua: n % 2 == 0 };
                let extents = vec![Extent { lba: n, blocks: 1 }; n as usize % 5];
                parked.park(&Io { extents: &extents, ..Io::new(op, n, n as u32 + 1, &buffers, Token(n + 2)) })
            })
            .collect();
        for (n, slot) in (0u64..).zip(&slots) {
            let io = parked.io(*slot);
            assert_eq!((io.lba, io.blocks, io.token), (n, n as u32 + 1, Token(n + 2)));
            assert_eq!((io.op, io.buffers.len()), (Op::Write { fua: n % 2 == 0 }, n as usize % 40));
            assert_eq!(io.extents, vec![Extent { lba: n, blocks: 1 }; n as usize % 5]);
        }
        let places = parked.places.len();
        slots.into_iter().for_each(|slot| parked.release(slot));
        assert_eq!((parked.places.len(), parked.free.len()), (places, places));
    }
}
