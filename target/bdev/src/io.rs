//! One request to a block device and its outcome. No device in here, and nothing about what a guest is told.

use guest_memory::GuestSlice;

/// One request. It is lent for the length of a call: a device that keeps it copies what it needs.
#[derive(Clone, Copy, Debug)]
pub struct Io<'a> {
    /// What to do.
    pub op: Op,
    /// First block.
    pub lba: u64,
    /// Number of blocks. 0 moves nothing and succeeds.
    pub blocks: u32,
    /// Where the data goes to or comes from, in order. For [`Op::Read`] and [`Op::Write`] exactly
    /// `blocks * block_size` bytes in total, cut anywhere; otherwise empty.
    pub buffers: &'a [GuestSlice],
    /// Comes back in the [`Completion`].
    pub token: Token,
}

/// What a request does. More will come: a device answers [`Status::Unsupported`] to what it does not know.
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
