//! What a load does with each command: the trait that the loop asks, the load that looks at no data, and a bound on any
//! load. The load that looks at every block is in `verify`.

use guest_memory::GuestSlice;

use super::pattern::{Io, Pattern};

/// What to send next, and what to think of what came back. Called on the loop: no lock, no syscall.
pub(super) trait Work {
    /// The next command for a free slot, its data prepared; `None` if there is none at the moment.
    fn next(&mut self, data: SlotData) -> Option<Io>;

    /// The command came back; `good` unless it failed.
    fn done(&mut self, io: Io, data: SlotData, good: bool);
}

/// Where the data of a slot lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotData {
    queue: GuestSlice,
    at: usize,
    len: usize,
}

impl SlotData {
    #[inline(always)]
    pub(super) fn new(queue: GuestSlice, at: usize, len: usize) -> SlotData {
        SlotData { queue, at, len }
    }

    /// The bytes: as many as one command moves.
    #[inline(always)]
    pub(super) fn slice(self) -> GuestSlice {
        self.queue.subslice(self.at, self.len).expect("a slot of this queue")
    }
}

/// Commands of a pattern, data as it happens to be.
#[derive(Debug)]
pub(super) struct Plain(pub Pattern);

impl Work for Plain {
    #[inline(always)]
    fn next(&mut self, _data: SlotData) -> Option<Io> {
        Some(self.0.next())
    }

    #[inline(always)]
    fn done(&mut self, _io: Io, _data: SlotData, _good: bool) {}
}

/// No more than so many commands of another work.
#[derive(Debug)]
pub(super) struct Bounded<'a, W> {
    pub work: &'a mut W,
    pub left: u64,
}

impl<W: Work> Work for Bounded<'_, W> {
    fn next(&mut self, data: SlotData) -> Option<Io> {
        self.left = self.left.checked_sub(1)?;
        let io = self.work.next(data);
        self.left += u64::from(io.is_none());
        io
    }

    fn done(&mut self, io: Io, data: SlotData, good: bool) {
        self.work.done(io, data, good);
    }
}
