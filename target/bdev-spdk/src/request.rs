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
    /// The guest's buffers, if their data goes through the pool.
    pub buffers: Vec<GuestSlice>,
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
