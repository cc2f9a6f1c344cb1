//! The device that does nothing: it ends every request at once and moves no byte. What is left of a measurement when
//! the medium costs nothing.

use crate::channel::Channel;
use crate::{Bdev, BdevInfo, Geometry, GeometryError, Io, Op, Status, Submitted};

/// A device of any size without a medium.
///
/// Writes are forgotten. Reads leave the buffers as they are, which is what SPDK's null bdev does with buffers that its
/// caller brings, a guest's among them (its zeroes are only for callers that ask the bdev layer for a buffer): the
/// guest sees what it had there itself. Flush succeeds, having nothing to do (SPDK's does not support it).
#[derive(Debug)]
pub struct Null {
    info: BdevInfo,
    geometry: Geometry,
}

/// A poller's way into a [`Null`].
#[derive(Debug)]
pub(crate) struct NullChannel {
    geometry: Geometry,
}

impl Null {
    /// A device of `block_count` blocks of `block_size` (512 or 4096) bytes.
    ///
    /// # Errors
    /// If there cannot be a device of that size.
    pub fn new(name: impl Into<String>, block_count: u64, block_size: u32) -> Result<Null, GeometryError> {
        let geometry = Geometry::new(block_count, block_size)?;
        Ok(Null { info: BdevInfo::new(name, "null", geometry), geometry })
    }
}

impl Bdev for Null {
    fn info(&self) -> &BdevInfo {
        &self.info
    }

    fn open(&self) -> Channel {
        Channel::from(NullChannel { geometry: self.geometry })
    }
}

impl NullChannel {
    #[inline]
    pub(crate) fn submit(&mut self, io: &Io<'_>) -> Submitted {
        Submitted::Done(match io.op {
            Op::Flush => Status::Good,
            Op::Read | Op::Write { .. } if self.geometry.holds(io) => Status::Good,
            Op::Read | Op::Write { .. } => Status::OutOfRange,
        })
    }
}

#[cfg(test)]
mod tests {
    use guest_memory::{Pages, SharedMemory};
    use reactor::clock::Tsc;

    use super::*;
    use crate::Token;

    const NOW: Tsc = Tsc(1);

    #[test]
    fn null_read_leaves_the_buffer_as_it_was() {
        let memory = SharedMemory::create("guest", 4096, Pages::Small).unwrap();
        memory.slice().fill(0x5a);
        let mut channel = Null::new("n", 8, 512).unwrap().open();
        for op in [Op::Read, Op::Write { fua: true }] {
            let io = Io { op, lba: 0, blocks: 8, buffers: &[memory.slice()], token: Token(1) };
            assert_eq!(channel.submit(&io, NOW), Submitted::Done(Status::Good));
        }
        assert_eq!(memory.slice().read_array::<4096>(), Some([0x5a; 4096]));
    }

    #[test]
    fn null_of_nearly_8_exbibytes_has_a_last_block_and_no_more() {
        let last = (1 << 54) - 2;
        let null = Null::new("huge", last + 1, 512).unwrap();
        assert_eq!((null.info().block_count, null.info().bytes()), (last + 1, (1 << 63) - 512));
        let mut channel = null.open();
        let mut read = |lba, blocks| {
            let io = Io { op: Op::Read, lba, blocks, buffers: &[], token: Token(1) };
            channel.submit(&io, NOW)
        };
        assert_eq!(read(last, 1), Submitted::Done(Status::Good));
        assert_eq!(read(last, 2), Submitted::Done(Status::OutOfRange));
        assert_eq!(read(u64::MAX, u32::MAX), Submitted::Done(Status::OutOfRange));
    }

    #[test]
    fn null_flush_succeeds() {
        let mut channel = Null::new("n", 8, 4096).unwrap().open();
        let io = Io { op: Op::Flush, lba: 0, blocks: 0, buffers: &[], token: Token(1) };
        assert_eq!(channel.submit(&io, NOW), Submitted::Done(Status::Good));
    }
}
