//! The device whose medium is memory. One copy per request, none of it through a buffer. No persistence.

mod written;

use std::collections::VecDeque;
use std::sync::Arc;

use guest_memory::{Backing, GuestSlice, HugeRegion};
use reactor::clock::Tsc;

use self::written::Written;
use crate::channel::{AtOnce, Channel};
use crate::parked::{Parked, Slot};
use crate::scatter::{first_difference, part};
use crate::{
    Abilities, Bdev, BdevInfo, Completion, Exclusion, Extent, Geometry, GeometryError, Io, Op, Provisioning, Status,
    Submitted, Token, Turn,
};

/// A device in memory, zeroed when it is made and gone with its last channel.
///
/// Any number of channels work on the same memory at once, without a lock. Requests that overlap and are in flight
/// together leave blocks whose content is a mixture of theirs, as on any disk; only a compare-and-write is atomic.
///
/// Blocks that are given back read as zeroes. Ordinary memory goes back to the system, whole pages of it, and comes
/// again when it is written. Which pages were written since is known. Huge pages stay (they were taken out of the pool for this device: a page that went back
/// could be gone when the guest wants it again) and are cleared.
#[derive(Debug)]
pub struct Malloc {
    info: BdevInfo,
    geometry: Geometry,
    region: Arc<HugeRegion>,
    written: Arc<Written>,
    exclusion: Exclusion,
}

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
pub enum MallocError {
    /// Not a size for any device.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// Neither huge pages nor ordinary memory for it.
    #[error("no memory for size {size_bytes} bytes: {source}")]
    Memory {
        /// As asked for.
        size_bytes: u64,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// A poller's way into a [`Malloc`].
#[derive(Debug)]
pub(crate) struct MallocChannel {
    geometry: Geometry,
    medium: GuestSlice,
    /// Keeps `medium` mapped.
    region: Arc<HugeRegion>,
    /// Of all channels together.
    written: Arc<Written>,
    turn: Turn,
    /// Requests that found the device taken by a compare-and-write of another channel: nearly always none.
    waiting: VecDeque<Slot>,
    parked: Parked,
}

/// Reads and writes in a row, whose writes announce themselves once to those that want the device alone.
pub(crate) struct Run<'a> {
    channel: &'a mut MallocChannel,
    entered: bool,
}

impl Malloc {
    /// A device of `size_bytes`, a multiple of `block_size` (512 or 4096). Takes as long as the kernel needs to clear
    /// that much memory.
    ///
    /// # Errors
    /// If there cannot be a device of that size, or no memory for it.
    pub fn new(name: impl Into<String>, size_bytes: u64, block_size: u32) -> Result<Malloc, MallocError> {
        let geometry = Geometry::of_bytes(size_bytes, block_size)?;
        let region = usize::try_from(size_bytes)
            .map_err(|_| std::io::ErrorKind::OutOfMemory.into())
            .and_then(HugeRegion::allocate)
            .map_err(|source| MallocError::Memory { size_bytes, source })?;
        let provisioning = match region.backing() {
            Backing::Plain => Provisioning::Thin,
            Backing::Huge => Provisioning::Resource,
        };
        let info = BdevInfo {
            can: Abilities::ALL,
            provisioning,
            unmapped_reads_zeroes: true,
            unmap_granularity_blocks: Written::PAGE_BYTES / block_size,
            ..BdevInfo::new(name, "malloc", geometry)
        };
        let written = Arc::new(Written::new(size_bytes));
        Ok(Malloc { info, geometry, region: Arc::new(region), written, exclusion: Exclusion::default() })
    }

    /// The same with physical blocks of so many bytes, a power of two times those of a logical one: what initiators
    /// are told, to align what they write.
    #[must_use]
    pub fn with_physical_blocks(self, bytes: u32) -> Malloc {
        Malloc { info: self.info.with_physical_blocks(bytes), ..self }
    }

    /// What the memory is made of. [`Backing::Plain`] is slower, and worth a warning to the operator.
    #[must_use]
    pub fn backing(&self) -> Backing {
        self.region.backing()
    }
}

impl Bdev for Malloc {
    fn info(&self) -> &BdevInfo {
        &self.info
    }

    fn open(&self) -> Channel {
        Channel::from(MallocChannel {
            geometry: self.geometry,
            medium: self.region.slice(),
            region: Arc::clone(&self.region),
            written: Arc::clone(&self.written),
            turn: self.exclusion.join(),
            waiting: VecDeque::new(),
            parked: Parked::empty(),
        })
    }
}

impl AtOnce for Run<'_> {
    /// Ends a read, or a write that finds the device free.
    #[inline]
    fn read_or_write<'a>(
        &mut self,
        write: bool,
        lba: u64,
        blocks: u32,
        data: impl FnOnce() -> &'a [GuestSlice],
    ) -> Option<Status> {
        let op = if write { Op::Write { fua: false } } else { Op::Read };
        let io = Io::new(op, lba, blocks, data(), Token(0)); // what is ended at once needs no name
        if !write {
            return Some(self.channel.each_buffer(&io, |blocks, buffer| blocks.copy_to(buffer)));
        }
        self.entered = self.entered || self.channel.turn.enter();
        self.entered.then(|| self.channel.write(&io))
    }

    #[inline]
    fn prefetch(&self, write: bool, lba: u64) {
        self.channel.prefetch(write, lba);
    }
}

impl Drop for Run<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.entered {
            self.channel.turn.leave();
        }
    }
}

impl MallocChannel {
    /// Reads and writes in a row.
    #[inline]
    pub(crate) fn begin_run(&mut self) -> Run<'_> {
        Run { channel: self, entered: false }
    }

    /// Brings the first cache line of the block near. One is enough: from there on the processor sees the pattern. It is a
    /// fifth (writes) to a third (reads) of a random 4 KiB transfer.
    #[inline]
    pub(crate) fn prefetch(&self, write: bool, lba: u64) {
        let offset = lba.saturating_mul(u64::from(self.geometry.block_size())) as usize;
        let Some(block) = self.medium.subslice(offset, 1) else {
            return; // beyond the end, which it will be told
        };
        if write { block.prefetch_write() } else { block.prefetch_read() }
    }

    pub(crate) fn submit(&mut self, io: &Io<'_>) -> Submitted {
        match self.attempt(io) {
            Some(status) => Submitted::Done(status),
            None => self.park(io),
        }
    }

    /// Tries again what found the device taken.
    #[inline]
    pub(crate) fn poll(&mut self, done: &mut Vec<Completion>) -> usize {
        if self.waiting.is_empty() { 0 } else { self.poll_waiting(done) }
    }

    /// A past moment while something waits: nobody tells when the device is free.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<Tsc> {
        (!self.waiting.is_empty()).then_some(Tsc(0))
    }

    #[cold]
    fn park(&mut self, io: &Io<'_>) -> Submitted {
        self.waiting.push_back(self.parked.park(io));
        Submitted::Pending
    }

    #[cold]
    fn poll_waiting(&mut self, done: &mut Vec<Completion>) -> usize {
        let before = done.len();
        // Taken out while it is read, so that `self` is free: an empty one costs nothing.
        let parked = std::mem::replace(&mut self.parked, Parked::empty());
        while let Some(&slot) = self.waiting.front() {
            let io = parked.io(slot);
            let Some(status) = self.attempt(&io) else { break };
            done.push(Completion { token: io.token, status });
            self.waiting.pop_front();
        }
        self.parked = parked;
        if self.waiting.is_empty() {
            self.parked.release_all();
        }
        done.len() - before
    }

    /// Does the request, unless the device is taken: then `None`.
    fn attempt(&mut self, io: &Io<'_>) -> Option<Status> {
        if let Op::CompareAndWrite { .. } = io.op {
            return self.compare_and_write(io);
        }
        if !io.op.writes() {
            return Some(self.read_only(io));
        }
        if !self.turn.enter() {
            return None;
        }
        let status = self.change(io);
        self.turn.leave();
        Some(status)
    }

    fn read_only(&self, io: &Io<'_>) -> Status {
        match io.op {
            Op::Compare => self.blocks(io).map_or_else(|status| status, |blocks| compare(blocks, io)),
            Op::Verify => self.blocks(io).map_or_else(|status| status, |_| Status::Good),
            Op::Read => self.each_buffer(io, |blocks, buffer| blocks.copy_to(buffer)),
            Op::Flush => Status::Good, // what is written is as stable as it gets
            Op::BlockStatus { runs_max } => self.block_status(io, runs_max),
            _ => Status::Unsupported,
        }
    }

    fn change(&self, io: &Io<'_>) -> Status {
        match io.op {
            Op::Write { .. } => self.write(io),
            Op::Unmap => self.unmap(io.extents),
            Op::WriteZeroes { unmap } => match self.blocks(io) {
                Ok(_) if unmap => self.unmap(&[Extent { lba: io.lba, blocks: io.blocks }]),
                Ok(blocks) => {
                    blocks.fill(0);
                    self.mark(io);
                    Status::Good
                }
                Err(status) => status,
            },
            Op::WriteSame => self.blocks(io).map_or_else(|status| status, |blocks| self.write_same(blocks, io)),
            _ => Status::Unsupported,
        }
    }

    #[inline]
    fn write(&self, io: &Io<'_>) -> Status {
        let length = u64::from(io.blocks) * u64::from(self.geometry.block_size());
        let status = if length < STREAM_BYTES {
            self.each_buffer(io, |blocks, buffer| buffer.copy_to(blocks))
        } else {
            self.each_buffer(io, |blocks, buffer| buffer.stream_to(blocks))
        };
        if status == Status::Good {
            self.mark(io);
        }
        status
    }

    /// The blocks of the request, which are there, hold data: said after the data has come.
    #[inline]
    fn mark(&self, io: &Io<'_>) {
        let (offset, length) = self.geometry.bytes_of(Extent { lba: io.lba, blocks: io.blocks });
        self.written.set(offset, length);
    }

    fn block_status(&self, io: &Io<'_>, runs_max: u16) -> Status {
        if io.lba >= self.geometry.block_count() {
            return Status::OutOfRange;
        }
        let Some(runs) = io.runs else { return Status::Failed };
        runs.leave(self.written.runs(self.geometry, io.lba, runs_max.max(1)));
        Status::Good
    }

    fn unmap(&self, extents: &[Extent]) -> Status {
        if !self.geometry.holds_extents(extents) {
            return Status::OutOfRange;
        }
        for extent in extents {
            let (offset, length) = self.geometry.bytes_of(*extent);
            self.written.clear(offset, length);
            self.region.clear(offset as usize, length as usize);
        }
        Status::Good
    }

    /// Writes the block once, then copies what is there behind itself, twice as much each time.
    fn write_same(&self, blocks: GuestSlice, io: &Io<'_>) -> Status {
        if blocks.is_empty() {
            return Status::Good;
        }
        let mut filled = self.geometry.block_size() as usize;
        let mut to = blocks;
        for buffer in io.buffers {
            buffer.copy_to(to);
            to = to.split_at(buffer.len()).1;
        }
        while filled < blocks.len() {
            let (from, to) = blocks.split_at(filled);
            filled += from.copy_to(to);
        }
        self.mark(io);
        Status::Good
    }

    /// A compare-and-write is done within a call, if no change of another channel is under way at this very moment.
    fn compare_and_write(&mut self, io: &Io<'_>) -> Option<Status> {
        let blocks = match self.blocks(io) {
            Ok(blocks) => blocks,
            Err(status) => return Some(status),
        };
        let alone = self.turn.claim() && self.turn.alone();
        let status = alone.then(|| {
            let equal = compare(blocks, io);
            if equal == Status::Good {
                let mut rest = blocks;
                for piece in part(io.buffers, blocks.len() as u64, blocks.len() as u64) {
                    let (to, tail) = rest.split_at(piece.len());
                    piece.copy_to(to);
                    rest = tail;
                }
                self.mark(io);
            }
            equal
        });
        self.turn.release();
        status
    }

    /// The part of the medium that a request names, its buffers being as long as they have to be.
    #[inline]
    fn blocks(&self, io: &Io<'_>) -> Result<GuestSlice, Status> {
        let (offset, length) = self.geometry.span(io)?;
        // 64-bit only (guest-memory says so): both fit, and lie inside the medium.
        self.medium.subslice(offset as usize, length as usize).ok_or(Status::OutOfRange)
    }

    /// Copies between each buffer and the part of the medium that belongs to it.
    #[inline]
    fn each_buffer(&self, io: &Io<'_>, copy: impl Fn(GuestSlice, GuestSlice) -> usize) -> Status {
        let mut rest = match self.blocks(io) {
            Ok(blocks) => blocks,
            Err(status) => return status,
        };
        for &buffer in io.buffers {
            let (blocks, tail) = rest.split_at(buffer.len()); // cannot panic: the lengths add up to `length`
            copy(blocks, buffer);
            rest = tail;
        }
        Status::Good
    }
}

/// Writes of so many bytes go past the caches. Smaller ones would gain less, and are read again sooner, as
/// a file system's own blocks are.
const STREAM_BYTES: u64 = 32 << 10;

/// Whether the blocks hold what the front of the buffers does.
fn compare(blocks: GuestSlice, io: &Io<'_>) -> Status {
    match first_difference(blocks, part(io.buffers, 0, blocks.len() as u64)) {
        None => Status::Good,
        Some(offset) => Status::Miscompare { offset },
    }
}

#[cfg(test)]
mod tests;
