//! Following ordinary descriptor chains of any length, in a loop: buffers of at least a byte, each within one region,
//! directly in the ring or in one aligned indirect table. Gives up on everything else, as `quick.rs` does.

use guest_memory::GuestSlice;

use super::descriptor::{Descriptor, Entries, INDIRECT, NEXT, WRITE};
use super::view::View;
use crate::Chain;

/// Walks the chain that begins with `first` and goes on in `entries`, in a ring of `size` descriptors, and fills `slices`
/// from the first on; the chain's positions are positions in `slices`. `None` to give up, and then what it filled means
/// nothing.
pub(crate) fn walk<E: Entries>(
    view: &View<'_>,
    (entries, first): (E, Descriptor),
    size: u16,
    head: u16,
    slices: &mut [GuestSlice],
) -> Option<Chain> {
    // Each descriptor fills a slice, so this bounds the chain to the ring's size (virtio 1.3 §2.7.5.3.1), and the loops.
    let longest = slices.len().min(usize::from(size));
    let mut path = Path { view, entries, at: Some(first), slices: &mut slices[..longest], filled: 0 };
    let (readable, readable_bytes) = path.take_while(0)?;
    let (writable, writable_bytes) = path.take_while(WRITE)?;
    if path.at.is_some() {
        return None;
    }
    Some(Chain {
        readable_bytes,
        writable_bytes,
        start: 0,
        writable_start: readable as u32,
        end: path.filled as u32,
        head,
        readable_descriptors: readable as u16,
        writable_descriptors: writable as u16,
    })
}

/// A walk under way.
struct Path<'a, E> {
    view: &'a View<'a>,
    /// Where the descriptors lie.
    entries: E,
    /// The descriptor to be taken next; `None` at the end of the chain.
    at: Option<Descriptor>,
    slices: &'a mut [GuestSlice],
    filled: usize,
}

impl<E: Entries> Path<'_, E> {
    /// Takes buffers for as long as they go in this direction (0 or WRITE). Returns how many, and their bytes.
    #[inline(always)]
    fn take_while(&mut self, direction: u16) -> Option<(usize, u64)> {
        let (mut count, mut bytes) = (0, 0);
        while let Some(buffer) = self.at {
            if !buffer.has_of(WRITE | INDIRECT, direction) {
                break;
            }
            if buffer.len == 0 {
                return None;
            }
            *self.slices.get_mut(self.filled)? = self.view.slice(buffer)?;
            self.filled += 1;
            count += 1;
            bytes += u64::from(buffer.len);
            self.at = if buffer.has(NEXT) { Some(self.entries.entry(buffer.next())?) } else { None };
        }
        Some((count, bytes))
    }
}
