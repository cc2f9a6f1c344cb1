//! A request on its way: what of it SPDK has, and how far it has come. SPDK is called by `lane`.

use bdev::{Extent, Io, Op, Status, Token};
use guest_memory::GuestSlice;
use spdk_rs::Buffer;

/// One request, in a place that is used again.
#[derive(Debug)]
pub(crate) struct Request {
    pub op: Op,
    pub token: Token,
    pub lba: u64,
    pub blocks: u64,
    /// Requests of SPDK's under way for it.
    pub parts: u32,
    /// The worst of those that have ended.
    pub status: Status,
    /// What was written has to be flushed before it ends.
    pub durable: bool,
    /// Extents of an unmap of which SPDK has not been told.
    pub extents: Vec<Extent>,
    /// The guest's buffers, if their data goes through the pool, and those of a compare-and-write.
    pub buffers: Vec<GuestSlice>,
    /// What it is in truth, while it looks where the data differs that SPDK says is not the same.
    pub looking: Option<Op>,
    /// How often it looked, and there was no difference.
    pub in_vain: u8,
    /// Buffers of the pool with the piece that is under way.
    pub pool: Vec<Buffer>,
    /// Bytes that have gone through the pool, and those of the piece.
    pub done: u64,
    pub piece: u64,
}

impl Request {
    pub(crate) fn vacant() -> Request {
        Request {
            op: Op::Flush,
            token: Token(0),
            lba: 0,
            blocks: 0,
            parts: 0,
            status: Status::Good,
            durable: false,
            extents: Vec::new(),
            buffers: Vec::new(),
            looking: None,
            in_vain: 0,
            pool: Vec::new(),
            done: 0,
            piece: 0,
        }
    }

    /// Becomes this request. `durable`: a cache is to be flushed if it asks for that.
    #[inline]
    pub(crate) fn begin(&mut self, io: &Io<'_>, cached: bool) {
        self.op = io.op;
        self.token = io.token;
        self.lba = io.lba;
        self.blocks = u64::from(io.blocks);
        self.parts = 0;
        self.status = Status::Good;
        self.durable = cached && matches!(io.op, Op::Write { fua: true } | Op::CompareAndWrite { fua: true });
        (self.done, self.piece) = (0, 0);
        (self.looking, self.in_vain) = (None, 0);
    }

    /// Its buffers, from here on.
    pub(crate) fn keep(&mut self, buffers: &[GuestSlice]) {
        self.buffers.clear();
        self.buffers.extend_from_slice(buffers);
    }

    /// A compare-and-write that found a difference becomes a comparison, which finds where it is.
    pub(crate) fn look(&mut self) {
        self.looking = Some(std::mem::replace(&mut self.op, Op::Compare));
        self.status = Status::Good;
        (self.done, self.piece) = (0, 0);
    }

    /// A comparison that found nothing becomes the compare-and-write again that it was. False for one that was none.
    pub(crate) fn found_nothing(&mut self) -> bool {
        let Some(op) = self.looking.take() else { return false };
        self.op = op;
        self.in_vain += 1;
        (self.done, self.piece) = (0, 0);
        true
    }

    /// It is given up: it ends with the part that is under way.
    pub(crate) fn give_up(&mut self) {
        if self.status.is_good() {
            self.status = Status::Aborted;
        }
    }

    /// A part has ended: the first that went wrong counts.
    #[inline]
    pub(crate) fn part_ended(&mut self, status: Status) {
        self.parts -= 1;
        if self.status.is_good() {
            self.status = status;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compare_and_write_that_looks_in_vain_is_itself_again_and_counts() {
        let caw = Op::CompareAndWrite { fua: true };
        let mut request = Request { op: caw, status: Status::Miscompare { offset: 0 }, done: 9, ..Request::vacant() };
        request.look();
        assert_eq!((request.op, request.status, request.done), (Op::Compare, Status::Good, 0));
        assert!(request.found_nothing());
        assert_eq!((request.op, request.in_vain), (caw, 1));
        assert!(!request.found_nothing(), "it does not look any more");
        assert!(!Request { op: Op::Compare, ..Request::vacant() }.found_nothing());
    }
}
