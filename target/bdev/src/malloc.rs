//! The device whose medium is memory. One copy per request, none of it through a buffer. No persistence.

use std::sync::Arc;

use guest_memory::{Backing, GuestSlice, HugeRegion};

use crate::channel::Channel;
use crate::{Bdev, BdevInfo, Geometry, GeometryError, Io, Op, Status, Submitted};

/// A device in memory, zeroed when it is made and gone with its last channel.
///
/// Any number of channels work on the same memory at once, without a lock. Requests that overlap and are in flight
/// together leave blocks whose content is a mixture of theirs, as on any disk.
#[derive(Debug)]
pub struct Malloc {
    info: BdevInfo,
    geometry: Geometry,
    region: Arc<HugeRegion>,
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
    _region: Arc<HugeRegion>,
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
        Ok(Malloc { info: BdevInfo::new(name, "malloc", geometry), geometry, region: Arc::new(region) })
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
            _region: Arc::clone(&self.region),
        })
    }
}

impl MallocChannel {
    /// Brings the first cache line of a block near. One is enough: from there on the processor sees the pattern.
    #[inline]
    pub(crate) fn prefetch(&self, op: Op, lba: u64) {
        let offset = lba.saturating_mul(u64::from(self.geometry.block_size())) as usize;
        let Some(block) = self.medium.subslice(offset, 1) else {
            return; // beyond the end: submit will say so
        };
        match op {
            Op::Read => block.prefetch_read(),
            Op::Write { .. } => block.prefetch_write(),
            Op::Flush => {}
        }
    }

    #[inline]
    pub(crate) fn submit(&mut self, io: &Io<'_>) -> Submitted {
        Submitted::Done(match io.op {
            Op::Read => self.each_buffer(io, |blocks, buffer| blocks.copy_to(buffer)),
            Op::Write { .. } => self.each_buffer(io, |blocks, buffer| buffer.copy_to(blocks)),
            Op::Flush => Status::Good, // what is written is as stable as it gets
        })
    }

    /// Copies between each buffer and the part of the medium that belongs to it.
    #[inline]
    fn each_buffer(&self, io: &Io<'_>, copy: impl Fn(GuestSlice, GuestSlice) -> usize) -> Status {
        let (offset, length) = match self.geometry.span(io) {
            Ok(span) => span,
            Err(status) => return status,
        };
        // 64-bit only (guest-memory says so): both fit, and lie inside the medium.
        let Some(mut rest) = self.medium.subslice(offset as usize, length as usize) else {
            return Status::OutOfRange;
        };
        for &buffer in io.buffers {
            let (blocks, tail) = rest.split_at(buffer.len()); // cannot panic: the lengths add up to `length`
            copy(blocks, buffer);
            rest = tail;
        }
        Status::Good
    }
}

#[cfg(test)]
mod tests;
