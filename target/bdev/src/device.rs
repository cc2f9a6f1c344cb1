//! What a block device is, and one poller's way into it. No implementation in here.

use std::os::fd::BorrowedFd;

use reactor::clock::Tsc;

use crate::{Channel, Completion, Geometry, Io, Op, Submitted, Token};

/// A block device: opened and dropped on control threads, used through channels on pollers.
///
/// Dropping the last `Arc` of a device while channels are open is fine: channels own what they need.
pub trait Bdev: Send + Sync {
    /// What the device is. Constant for as long as it lives.
    fn info(&self) -> &BdevInfo;

    /// How many blocks it has now: those of [`info`](Bdev::info), unless it is one that can grow.
    fn block_count(&self) -> u64 {
        self.info().block_count
    }

    /// Opens a channel. Called on a control thread, may block and allocate; the channel then moves to its poller.
    fn open(&self) -> Channel;

    /// Whoever uses the device has been told that what it wrote may be lost, and starts anew (a LOGICAL UNIT RESET): a
    /// device that fails every flush because of one that went wrong may stop doing so. From any thread, does not block.
    fn reset(&self) {}
}

/// What a device says about itself. What it does not know has the value that promises nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BdevInfo {
    /// Its name in the configuration.
    pub name: String,
    /// Which kind of device, as in the configuration: `malloc`, `null`, `delay` …
    pub kind: &'static str,
    /// Bytes per logical block: 512 or 4096.
    pub block_size: u32,
    /// Number of logical blocks when it was opened; see [`Bdev::block_count`].
    pub block_count: u64,
    /// A physical block is `2^n` logical ones (SBC-4, READ CAPACITY (16)).
    pub physical_block_exponent: u8,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether completed writes may sit in a volatile cache until [`Op::Flush`].
    pub write_cache: bool,
    /// Whether seeks cost time.
    pub rotational: bool,
    /// Transfer length in blocks that the device likes best; 0 for none.
    pub optimal_transfer_blocks: u32,
    /// What it can do beside reading, writing and flushing.
    pub can: Abilities,
    /// What stands behind its blocks.
    pub provisioning: Provisioning,
    /// Whether blocks that were given back read as zeroes (SBC-4, LBPRZ).
    pub unmapped_reads_zeroes: bool,
    /// Blocks that are given back together: an [`Op::Unmap`] of less may do nothing. At least 1.
    pub unmap_granularity_blocks: u32,
    /// Most extents of one [`Op::Unmap`]. The caller splits, or refuses, what is more.
    pub unmap_extents_max: u32,
    /// Most blocks of one [`Op::Unmap`] over all its extents, and of one [`Op::WriteZeroes`] or [`Op::WriteSame`], so
    /// that none of them keeps a poller for long. The caller splits, or refuses, what is more.
    pub bulk_blocks_max: u32,
    /// Most blocks of one [`Op::CompareAndWrite`]. The caller refuses what is more.
    pub compare_and_write_blocks_max: u32,
}

/// The operations that a device may have or not. None, unless it says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// [`Op::Unmap`].
    pub unmap: bool,
    /// [`Op::WriteZeroes`].
    pub write_zeroes: bool,
    /// [`Op::WriteSame`].
    pub write_same: bool,
    /// [`Op::Compare`].
    pub compare: bool,
    /// [`Op::CompareAndWrite`].
    pub compare_and_write: bool,
    /// [`Op::Verify`].
    pub verify: bool,
    /// [`Op::BlockStatus`].
    pub block_status: bool,
    /// [`Op::Reset`].
    pub reset: bool,
}

impl Abilities {
    /// Every operation on blocks: all but [`Op::Reset`].
    pub const ALL: Abilities = Abilities {
        unmap: true,
        write_zeroes: true,
        write_same: true,
        compare: true,
        compare_and_write: true,
        verify: true,
        block_status: true,
        reset: false,
    };

    /// Whether a device with these abilities knows the operation.
    #[must_use]
    pub const fn include(self, op: Op) -> bool {
        match op {
            Op::Read | Op::Write { .. } | Op::Flush => true,
            Op::Unmap => self.unmap,
            Op::WriteZeroes { .. } => self.write_zeroes,
            Op::WriteSame => self.write_same,
            Op::Compare => self.compare,
            Op::CompareAndWrite { .. } => self.compare_and_write,
            Op::Verify => self.verify,
            Op::BlockStatus { .. } => self.block_status,
            Op::Reset => self.reset,
        }
    }
}

/// What stands behind the blocks of a device (SBC-4 §4.7, and the PROVISIONING TYPE of VPD page B2h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provisioning {
    /// Every block has its place for ever. An [`Op::Unmap`] is at most a way to write zeroes.
    Full,
    /// Blocks can be given back, and there is always room for them to come again.
    Resource,
    /// Blocks get their room when they are written, which may fail with [`Status::NoSpace`](crate::Status::NoSpace).
    Thin,
}

impl BdevInfo {
    /// A writable device without cache, without seeks and without preferences.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: &'static str, geometry: Geometry) -> BdevInfo {
        BdevInfo {
            name: name.into(),
            kind,
            block_size: geometry.block_size(),
            block_count: geometry.block_count(),
            physical_block_exponent: 0,
            read_only: false,
            write_cache: false,
            rotational: false,
            optimal_transfer_blocks: 0,
            can: Abilities::default(),
            provisioning: Provisioning::Full,
            unmapped_reads_zeroes: false,
            unmap_granularity_blocks: 1,
            unmap_extents_max: UNMAP_EXTENTS_MAX,
            bulk_blocks_max: BULK_BYTES_MAX / geometry.block_size(),
            compare_and_write_blocks_max: u32::MAX,
        }
    }

    /// The same with physical blocks of so many bytes, a power of two times those of a logical one.
    #[must_use]
    pub(crate) fn with_physical_blocks(self, bytes: u32) -> BdevInfo {
        BdevInfo { physical_block_exponent: (bytes / self.block_size).max(1).ilog2() as u8, ..self }
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.block_count.saturating_mul(u64::from(self.block_size))
    }
}

/// One poller's way into a device. Every method but `drop` is called on that poller and must not block, and in steady
/// state neither lock nor allocate.
///
/// A batch is: [`submit`](IoChannel::submit) any number of times, one
/// [`flush_submissions`](IoChannel::flush_submissions), one [`poll`](IoChannel::poll).
///
/// A channel is dropped on a control thread, normally with nothing outstanding. If something is, `drop` ends it (and
/// may block for it): once it has returned, no buffer is touched any more, and those requests have no completion.
pub trait IoChannel: Send {
    /// Hands a request over. A device may do it at once, take it (it then copies the buffer list), or remember it for
    /// the end of the batch; a device that is full answers [`Status::Busy`](crate::Status::Busy).
    ///
    /// `now` is the time of the batch, and never runs backwards on one channel.
    fn submit(&mut self, io: &Io<'_>, now: Tsc) -> Submitted;

    /// The channel below, of a device that stands on another one: what is not said here is said there.
    fn base(&self) -> Option<&Channel> {
        None
    }

    /// The same, to be changed.
    fn base_mut(&mut self) -> Option<&mut Channel> {
        None
    }

    /// The end of a batch of submissions: the place of the one system call of the batch, for devices that need any.
    /// Requests of a batch that was not flushed may never start.
    fn flush_submissions(&mut self) {
        if let Some(base) = self.base_mut() {
            base.flush_submissions();
        }
    }

    /// Has the device give up one request that is pending, if it can. Its completion comes as ever, from a later poll and only
    /// when its buffers are not touched any more: with [`Status::Aborted`](crate::Status::Aborted), or with what became of it.
    fn abort(&mut self, token: Token) {
        if let Some(base) = self.base_mut() {
            base.abort(token);
        }
    }

    /// Pushes the completions since the last call and returns their number. The caller has reserved room in `done`
    /// for everything that is outstanding; devices only push.
    fn poll(&mut self, now: Tsc, done: &mut Vec<Completion>) -> usize;

    /// Whether requests often have ended when their batch has been handed over, so that it is worth a poll in the same loop. The
    /// same for the life of the channel.
    fn is_prompt(&self) -> bool {
        false
    }

    /// When [`poll`](IoChannel::poll) must be called next at the latest, for a poller that would like to sleep. A time
    /// in the past means: keep polling. `None`: nothing is outstanding, or [`wake_fd`](IoChannel::wake_fd) tells.
    fn next_deadline(&self) -> Option<Tsc>;

    /// The file descriptor that becomes readable when there is something to poll for, of a device that has one. The
    /// same for the life of the channel; watched edge-triggered, so nobody but the device need read it.
    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.base()?.wake_fd()
    }

    /// The poller is about to sleep: from now until [`disarm`](IoChannel::disarm) the [`wake_fd`](IoChannel::wake_fd)
    /// is signalled. What completed before this call may go untold; the poller polls once more before it sleeps.
    fn arm(&mut self) {
        if let Some(base) = self.base_mut() {
            base.arm();
        }
    }

    /// The poller is awake: the file descriptor need not be signalled any more.
    fn disarm(&mut self) {
        if let Some(base) = self.base_mut() {
            base.disarm();
        }
    }
}

/// Extents of one unmap, where a device does not care: a parameter list of 4 KiB.
const UNMAP_EXTENTS_MAX: u32 = 255;
/// Bytes of one bulk operation, where a device does not care: milliseconds at the speed of memory.
const BULK_BYTES_MAX: u32 = 32 << 20;
