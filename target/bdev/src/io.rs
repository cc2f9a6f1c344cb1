//! One request to a block device and its outcome. No device in here, and nothing about what a guest is told.

use std::sync::{Arc, OnceLock};

use guest_memory::GuestSlice;

/// One request. It is lent for the length of a call: a device that keeps it copies what it needs.
#[derive(Clone, Copy, Debug)]
pub struct Io<'a> {
    /// What to do.
    pub op: Op,
    /// First block; 0 for [`Op::Unmap`].
    pub lba: u64,
    /// Number of blocks. 0 moves nothing and succeeds; [`Op::Unmap`], [`Op::BlockStatus`] and
    /// [`Op::Reset`] have 0.
    pub blocks: u32,
    /// Where the data goes to or comes from, in order, cut anywhere: exactly [`Op::data_bytes`] in total.
    pub buffers: &'a [GuestSlice],
    /// What [`Op::Unmap`] gives back; empty for everything else.
    pub extents: &'a [Extent],
    /// Where [`Op::BlockStatus`] leaves what it finds; `None` for everything else.
    pub runs: Option<&'a BlockRuns>,
    /// Comes back in the [`Completion`].
    pub token: Token,
}

/// A run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First block.
    pub lba: u64,
    /// Number of blocks; 0 is no block, and fine.
    pub blocks: u32,
}

/// Neighbouring blocks of the same state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRun {
    /// First block.
    pub lba: u64,
    /// Number of blocks, at least 1.
    pub blocks: u64,
    /// Whether there is room set aside for them. `true` where the device does not know.
    pub allocated: bool,
}

/// Where an [`Op::BlockStatus`] leaves what it finds. Clones are the same place; each is for one request.
#[derive(Clone, Debug, Default)]
pub struct BlockRuns(Arc<OnceLock<Vec<BlockRun>>>);

impl BlockRuns {
    /// Leaves the runs: the first one begins with the block that was asked for, each further one where the one before
    /// it ends. Only the first call counts.
    pub fn leave(&self, runs: Vec<BlockRun>) {
        let _ = self.0.set(runs);
    }

    /// What was left; nothing before the request has ended well.
    #[must_use]
    pub fn found(&self) -> &[BlockRun] {
        self.0.get().map_or(&[], Vec::as_slice)
    }
}

impl<'a> Io<'a> {
    /// A request on one run of blocks: every operation but [`Op::Unmap`] and [`Op::BlockStatus`].
    #[must_use]
    #[inline]
    pub const fn new(op: Op, lba: u64, blocks: u32, buffers: &'a [GuestSlice], token: Token) -> Io<'a> {
        Io { op, lba, blocks, buffers, extents: &[], runs: None, token }
    }

    /// An [`Op::Unmap`] of these extents.
    #[must_use]
    #[inline]
    pub const fn unmap(extents: &'a [Extent], token: Token) -> Io<'a> {
        Io { op: Op::Unmap, lba: 0, blocks: 0, buffers: &[], extents, runs: None, token }
    }

    /// An [`Op::Reset`].
    #[must_use]
    pub const fn reset(token: Token) -> Io<'a> {
        Io::new(Op::Reset, 0, 0, &[], token)
    }

    /// An [`Op::BlockStatus`] from `lba` on.
    #[must_use]
    #[inline]
    pub const fn block_status(lba: u64, runs_max: u16, runs: &'a BlockRuns, token: Token) -> Io<'a> {
        Io { op: Op::BlockStatus { runs_max }, lba, blocks: 0, buffers: &[], extents: &[], runs: Some(runs), token }
    }
}

/// What a request does. More will come: a device answers [`Status::Unsupported`] to what it does not know, and says in
/// [`BdevInfo::can`](crate::BdevInfo::can) beforehand what it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// From the medium into the buffers.
    Read,
    /// From the buffers to the medium.
    Write {
        /// Force unit access: completed only when the data is on stable storage.
        fua: bool,
    },
    /// Brings what earlier, *completed* writes have left in a volatile cache to stable storage. `lba` and `blocks` are
    /// a hint that a device may ignore (0 blocks: up to the end).
    Flush,
    /// Gives the blocks of [`Io::extents`] back, those that are not there in none of them (all extents are checked
    /// first). Extents may overlap. What the blocks read afterwards says
    /// [`BdevInfo::unmapped_reads_zeroes`](crate::BdevInfo::unmapped_reads_zeroes).
    Unmap,
    /// The blocks read as zeroes from now on.
    WriteZeroes {
        /// They may be given back for it, where given back blocks read as zeroes.
        unmap: bool,
    },
    /// Writes the one block in the buffers to each of the blocks.
    WriteSame,
    /// Compares the buffers with the medium: [`Status::Good`] or [`Status::Miscompare`].
    Compare,
    /// Compares the first half of the buffers with the medium and, if all of it is equal, writes the second half.
    /// Nothing that changes the device, on whichever channel, happens in between.
    CompareAndWrite {
        /// As for [`Op::Write`].
        fua: bool,
    },
    /// Reads the blocks and moves none of them: can they be read?
    Verify,
    /// Finds out which blocks there is room set aside for, from `lba`, which exists, on. Leaves at least one run in
    /// [`Io::runs`], and need not look farther than is quick.
    BlockStatus {
        /// At most so many runs, at least 1.
        runs_max: u16,
    },
    /// Gives up what is under way on the device, on all of its channels: those requests end, most of them with
    /// [`Status::Aborted`], on the channels that they are on, before or after this one does. `lba` and `blocks` are 0. For a device
    /// that may keep requests for as long as it likes.
    Reset,
}

impl Op {
    /// Whether it changes the medium.
    #[must_use]
    #[inline]
    pub const fn writes(self) -> bool {
        match self {
            Op::Write { .. } | Op::Unmap | Op::WriteZeroes { .. } | Op::WriteSame | Op::CompareAndWrite { .. } => true,
            Op::Read | Op::Flush | Op::Compare | Op::Verify | Op::BlockStatus { .. } | Op::Reset => false,
        }
    }

    /// How many bytes the buffers of a request of so many blocks hold in total.
    #[must_use]
    #[inline]
    pub const fn data_bytes(self, blocks: u32, block_size: u32) -> u64 {
        let bytes = blocks as u64 * block_size as u64;
        match self {
            Op::Read | Op::Write { .. } | Op::Compare => bytes,
            Op::CompareAndWrite { .. } => 2 * bytes,
            Op::WriteSame => block_size as u64,
            Op::Flush | Op::Unmap | Op::WriteZeroes { .. } | Op::Verify | Op::BlockStatus { .. } | Op::Reset => 0,
        }
    }
}

/// The submitter's name for a request: whatever finds it again. Devices do not interpret it; the submitter keeps it
/// unique among the requests outstanding on one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What became of a request at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a request that is done has no completion later"]
pub enum Submitted {
    /// It is over, and no [`Completion`] follows.
    Done(Status),
    /// The device has it, with a copy of its buffer list. A [`Completion`] follows from a later poll.
    Pending,
}

/// The end of a request that was pending. Its buffers are not touched any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// As submitted.
    pub token: Token,
    /// How it ended.
    pub status: Status,
}

/// How a request ended. Whoever maps it to sense data matches without a wildcard, so that the compiler asks there what
/// to do with a new way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Status {
    /// All of it was done.
    Good,
    /// The medium could not be read. The buffers may hold a part of the data.
    ReadError,
    /// The medium could not be written, or not be flushed. The blocks may hold a part of the data.
    WriteError,
    /// No space left to allocate blocks from (thin provisioning, a full file system). Nothing was written.
    NoSpace,
    /// The medium is read-only. Nothing was written.
    WriteProtected,
    /// Blocks beyond the end. Nothing was moved.
    OutOfRange,
    /// The data is not what the medium holds. Nothing was written.
    Miscompare {
        /// Offset in the compared data of the first byte that differs.
        offset: u32,
    },
    /// No resources at the moment: the same request may succeed if it is tried again. Nothing was moved.
    Busy,
    /// The device knows no such operation. Nothing was moved.
    Unsupported,
    /// The device has gone: it was removed or its connection was lost, and will not be back for this channel.
    Gone,
    /// The backend gave the request up before it was done (reset or cancelled below us); trying again is up to the
    /// initiator.
    Aborted,
    /// Anything else: a fault of the backend, or a request that contradicts itself (buffers of another length).
    Failed,
}

impl Status {
    /// Whether all of it was done.
    #[must_use]
    #[inline]
    pub const fn is_good(self) -> bool {
        matches!(self, Status::Good)
    }
}
