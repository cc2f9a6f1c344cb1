//! Chains of one descriptor, as those of frames are, in a loop of their own.

use guest_memory::{GuestArray, GuestSlice};

use crate::Chain;
use crate::chain::CELL;
use crate::follow::{Descriptor, Entries, INDIRECT, NEXT, View, WRITE, quick};

/// Follows chains, of which the heads are known, as long as they have one descriptor that is of the first one's direction and
/// translates at once. Returns how many.
#[inline(always)]
pub(super) fn singles(
    view: &View<'_>,
    ring: GuestArray<u64>,
    chains: &mut [Chain],
    cells: &mut [[GuestSlice; CELL]],
) -> usize {
    match chains.first().and_then(|chain| ring.entry(chain.head)) {
        Some(first) if first.has(NEXT | INDIRECT) => 0,
        Some(first) if first.has(WRITE) => row(ring, WRITE, chains, cells, |buffer, cell, start, chain| {
            quick::single_of::<true>(view, buffer, &mut cell[0], start, chain)
        }),
        Some(_) => row(ring, 0, chains, cells, |buffer, cell, start, chain| {
            quick::single_of::<false>(view, buffer, &mut cell[0], start, chain)
        }),
        None => 0,
    }
}

#[inline(always)]
fn row(
    ring: GuestArray<u64>,
    flags: u16,
    chains: &mut [Chain],
    cells: &mut [[GuestSlice; CELL]],
    follow: impl Fn(Descriptor, &mut [GuestSlice; CELL], usize, &mut Chain) -> Option<()>,
) -> usize {
    let mut found = 0;
    for (chain, cell) in chains.iter_mut().zip(cells) {
        let buffer = ring.entry(chain.head).filter(|buffer| buffer.has_of(NEXT | INDIRECT | WRITE, flags));
        if buffer.and_then(|buffer| follow(buffer, cell, CELL * found, chain)).is_none() {
            break;
        }
        found += 1;
    }
    found
}
