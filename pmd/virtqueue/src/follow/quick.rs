//! Following the descriptor chains that drivers build most, in as few instructions as can be: up to four buffers of at
//! least a byte, each within one region, directly in the ring or in one aligned indirect table. The same for both ring
//! formats, which differ in where the entries of a chain are.
//!
//! Gives up on everything else, faults included, without a reason: what it has done by then is forgotten, and `long.rs`
//! or `walk.rs` follow the chain from its head anew. So nothing is ever decided from two reads of the same field. What
//! is written here in a longer way than it could be was measured (`examples/ring_cost.rs`).

use guest_memory::GuestSlice;

use super::descriptor::{Descriptor, Entries, INDIRECT, NEXT, WRITE};
use super::view::View;
use crate::Chain;
use crate::chain::CELL;

/// Walks the chain that begins with `first` and goes on in `entries`, in a ring that has at least four descriptors. Fills
/// `cell`, which is the arena from `start` on, and all fields of `chain` but its head. `None` to give up, and then what it
/// filled means nothing.
#[inline(always)]
pub(crate) fn walk<E: Entries>(
    view: &View<'_>,
    entries: E,
    first: Descriptor,
    cell: &mut [GuestSlice; CELL],
    start: usize,
    chain: &mut Chain,
) -> Option<()> {
    if !first.has(NEXT | INDIRECT) {
        return single(view, first, &mut cell[0], start, chain);
    }
    chain.start = start as u32;
    let mut path = Path { view, entries, at: first, seen: first, bytes: 0, start, chain };
    // One copy of the code for each number of readable buffers: all that is counted is constant in each.
    let [a, b, c, d] = cell;
    if path.at.has(WRITE) {
        return path.writable(0, [a, b, c, d]);
    }
    let next = path.readable(1, a)?;
    a.prefetch_read(); // the request's header, which is read as soon as the batch has been popped
    if next == Next::End {
        return path.end(1);
    }
    if path.at.has(WRITE) {
        let whole = path.writable(1, [&mut *b, c, d]);
        b.prefetch_write(); // the response, whose line the driver wrote last
        return whole;
    }
    if path.readable(2, b)? == Next::End {
        return path.end(2);
    }
    if path.at.has(WRITE) {
        let whole = path.writable(2, [&mut *c, d]);
        c.prefetch_write();
        return whole;
    }
    if path.readable(3, c)? == Next::End {
        return path.end(3);
    }
    if path.at.has(WRITE) {
        return path.writable(3, [d]);
    }
    match path.readable(4, d)? {
        Next::End => path.end(4),
        Next::More => None,
    }
}

/// The same for a chain that is one buffer, neither INDIRECT nor going on: what carries a frame is nearly always one.
#[inline(always)]
fn single(view: &View<'_>, buffer: Descriptor, slot: &mut GuestSlice, start: usize, chain: &mut Chain) -> Option<()> {
    if buffer.has(WRITE) {
        single_of::<true>(view, buffer, slot, start, chain)
    } else {
        single_of::<false>(view, buffer, slot, start, chain)
    }
}

/// As [`single`] for a buffer that the device writes, or reads.
#[inline(always)]
pub(crate) fn single_of<const WRITABLE: bool>(
    view: &View<'_>,
    buffer: Descriptor,
    slot: &mut GuestSlice,
    start: usize,
    chain: &mut Chain,
) -> Option<()> {
    if buffer.len == 0 {
        return None;
    }
    *slot = view.slice(buffer)?;
    let (this, none) = ((1, u64::from(buffer.len)), (0, 0));
    let (readable, writable) = if WRITABLE { (none, this) } else { (this, none) };
    (chain.readable_descriptors, chain.readable_bytes) = readable;
    (chain.writable_descriptors, chain.writable_bytes) = writable;
    (chain.start, chain.end) = (start as u32, start as u32 + 1);
    chain.writable_start = start as u32 + u32::from(readable.0);
    if !WRITABLE {
        slot.prefetch_read();
    }
    Some(())
}

/// A walk under way.
struct Path<'a, E> {
    view: &'a View<'a>,
    /// Where the descriptors lie.
    entries: E,
    /// The descriptor that is looked at.
    at: Descriptor,
    /// All flags seen.
    seen: Descriptor,
    /// Bytes in this direction.
    bytes: u64,
    start: usize,
    chain: &'a mut Chain,
}

#[derive(PartialEq, Eq)]
enum Next {
    More,
    End,
}

impl<E: Entries> Path<'_, E> {
    /// Takes a readable buffer, the `count`th.
    #[inline(always)]
    fn readable(&mut self, count: u16, slot: &mut GuestSlice) -> Option<Next> {
        self.take(slot)?;
        if self.at.has(NEXT) {
            self.step()?;
            return Some(Next::More);
        }
        self.turn(count);
        self.chain.writable_descriptors = 0;
        self.chain.writable_bytes = 0;
        Some(Next::End)
    }

    /// Takes all writable buffers, after `readable` readable ones. The first has been looked at.
    #[inline(always)]
    fn writable<const N: usize>(&mut self, readable: u16, slots: [&mut GuestSlice; N]) -> Option<()> {
        self.turn(readable);
        let mut count = 0;
        for slot in slots {
            if !self.at.has(WRITE) {
                return None;
            }
            self.take(slot)?;
            count += 1;
            if !self.at.has(NEXT) {
                self.chain.writable_descriptors = count;
                self.chain.writable_bytes = self.bytes;
                return self.end(readable + count);
            }
            self.step()?;
        }
        None
    }

    #[inline(always)]
    fn turn(&mut self, readable: u16) {
        self.chain.readable_descriptors = readable;
        self.chain.readable_bytes = self.bytes;
        self.chain.writable_start = (self.start + usize::from(readable)) as u32;
        self.bytes = 0;
    }

    /// The end of the chain. An INDIRECT descriptor may have been taken for a buffer until here.
    #[inline(always)]
    fn end(&mut self, count: u16) -> Option<()> {
        if self.seen.has(INDIRECT) {
            return None;
        }
        self.chain.end = (self.start + usize::from(count)) as u32;
        Some(())
    }

    #[inline(always)]
    fn step(&mut self) -> Option<()> {
        self.at = self.entries.entry(self.at.next())?;
        self.seen.add_flags(self.at);
        Some(())
    }

    #[inline(always)]
    fn take(&mut self, slot: &mut GuestSlice) -> Option<()> {
        if self.at.len == 0 {
            return None;
        }
        *slot = self.view.slice(self.at)?;
        self.bytes += u64::from(self.at.len);
        Some(())
    }
}
