//! Chains of one descriptor, as those of frames are, in a loop of their own.

use guest_memory::{GuestArray, GuestSlice};

use crate::Chain;
use crate::chain::CELL;
use crate::follow::{Entries, INDIRECT, NEXT, View, WRITE, quick};

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
        Some(first) if first.has(WRITE) => row::<true>(view, ring, chains, cells),
        Some(_) => row::<false>(view, ring, chains, cells),
        None => 0,
    }
}

#[inline(always)]
fn row<const WRITABLE: bool>(
    view: &View<'_>,
    ring: GuestArray<u64>,
    chains: &mut [Chain],
    cells: &mut [[GuestSlice; CELL]],
) -> usize {
    let flags = if WRITABLE { WRITE } else { 0 };
    let mut found = 0;
    for (chain, cell) in chains.iter_mut().zip(cells) {
        let buffer = ring.entry(chain.head).filter(|buffer| buffer.has_of(NEXT | INDIRECT | WRITE, flags));
        let follow = |buffer| quick::single_of::<WRITABLE>(view, buffer, &mut cell[0], CELL * found, chain);
        if buffer.and_then(follow).is_none() {
            break;
        }
        found += 1;
    }
    found
}
