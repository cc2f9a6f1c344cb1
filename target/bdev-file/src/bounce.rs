//! Memory that is aligned for `O_DIRECT`, in a few pieces per channel. Who needs one, and for what, is the channel's
//! business; whoever finds none free waits in the channel.

use std::io;

use guest_memory::{GuestSlice, Pages, SharedMemory};

/// The pieces of a channel. Their pages come when they are touched first: a channel whose guests align their buffers
/// has the addresses only.
#[derive(Debug)]
pub(crate) struct Bounces {
    memory: SharedMemory,
    free: Vec<Bounce>,
}

/// One piece, taken out of the pool.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bounce(usize);

impl Bounces {
    /// Bytes of a piece.
    pub(crate) const PIECE: usize = 256 << 10;
    const COUNT: usize = 8;

    pub(crate) fn new() -> io::Result<Bounces> {
        let memory = SharedMemory::create("ringside-bounce", Self::COUNT * Self::PIECE, Pages::Small)?;
        Ok(Bounces { memory, free: (0..Self::COUNT).map(Bounce).collect() })
    }

    pub(crate) fn take(&mut self) -> Option<Bounce> {
        self.free.pop()
    }

    pub(crate) fn give_back(&mut self, bounce: Bounce) {
        self.free.push(bounce);
    }

    /// The first `len` bytes of a piece, at most all of it.
    pub(crate) fn slice(&self, bounce: &Bounce, len: usize) -> GuestSlice {
        let whole = self.memory.slice().subslice(bounce.0 * Self::PIECE, Self::PIECE.min(len));
        whole.unwrap_or(GuestSlice::EMPTY) // a piece of this pool lies inside
    }
}
