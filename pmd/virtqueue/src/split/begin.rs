//! The first step of the two quick walks in a split ring: from a head to where its descriptors lie.

use guest_memory::GuestArray;

use crate::follow::{DESCRIPTOR, Descriptor, Entries, INDIRECT, NEXT, View};

/// Where the descriptors of a chain lie, and the first of them: in the ring, or in the indirect table that the head
/// names. `None` if that takes a closer look.
#[inline(always)]
pub(super) fn begin(view: &View<'_>, ring: GuestArray<u64>, head: u16) -> Option<(GuestArray<u64>, Descriptor)> {
    let first = ring.entry(head)?;
    if !first.has(INDIRECT) {
        return Some((ring, first));
    }
    // A table of no entries has no entry 0, so it needs no question of its own.
    if first.has(NEXT) || !(first.len as usize).is_multiple_of(DESCRIPTOR) {
        return None;
    }
    let entries = GuestArray::new(view.slice(first)?)?;
    Some((entries, entries.entry(0)?))
}
