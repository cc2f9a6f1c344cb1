//! The device that does nothing: it ends every request at once and moves no byte. What is left of a measurement when
//! the medium costs nothing.

use guest_memory::GuestSlice;

use crate::channel::{AtOnce, Channel};
use crate::{Abilities, Bdev, BdevInfo, BlockRun, Geometry, GeometryError, Io, Op, Provisioning, Status, Submitted};

/// A device of any size without a medium.
///
/// Writes are forgotten. Reads leave the buffers as they are, which is what SPDK's null bdev does with buffers that its
/// caller brings, a guest's among them (its zeroes are only for callers that ask the bdev layer for a buffer): the
/// guest sees what it had there itself. Flush succeeds, having nothing to do (SPDK's does not support it), and so does
/// everything else within the range: compared data is always equal, there being nothing else to compare it with.
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
        let info = BdevInfo {
            can: Abilities::ALL,
            provisioning: Provisioning::Resource,
            bulk_blocks_max: u32::MAX, // however many, they cost nothing
            ..BdevInfo::new(name, "null", geometry)
        };
        Ok(Null { info, geometry })
    }

    /// The same with physical blocks of so many bytes, a power of two times those of a logical one: what initiators
    /// are told, to align what they write.
    #[must_use]
    pub fn with_physical_blocks(self, bytes: u32) -> Null {
        Null { info: self.info.with_physical_blocks(bytes), ..self }
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

impl AtOnce for NullChannel {
    #[inline(always)]
    fn read_or_write<'a>(
        &mut self,
        _write: bool,
        lba: u64,
        blocks: u32,
        _data: impl FnOnce() -> &'a [GuestSlice],
    ) -> Option<Status> {
        Some(if self.geometry.holds_blocks(lba, blocks) { Status::Good } else { Status::OutOfRange })
    }

    #[inline(always)]
    fn prefetch(&self, _write: bool, _lba: u64) {}
}

impl NullChannel {
    pub(crate) fn submit(&mut self, io: &Io<'_>) -> Submitted {
        Submitted::Done(match io.op {
            Op::Flush => Status::Good,
            Op::BlockStatus { .. } => self.block_status(io),
            _ if self.geometry.holds(io) && self.geometry.holds_extents(io.extents) => Status::Good,
            _ => Status::OutOfRange,
        })
    }

    /// There is nothing to lack room for.
    #[cold]
    fn block_status(&self, io: &Io<'_>) -> Status {
        let (Some(blocks @ 1..), Some(runs)) = (self.geometry.block_count().checked_sub(io.lba), io.runs) else {
            return Status::OutOfRange;
        };
        runs.leave(vec![BlockRun { lba: io.lba, blocks, allocated: true }]);
        Status::Good
    }
}

#[cfg(test)]
mod tests {
    use guest_memory::{Pages, SharedMemory};
    use reactor::clock::Tsc;

    use super::*;
    use crate::{Extent, Token};

    const NOW: Tsc = Tsc(1);

    #[test]
    fn null_read_leaves_the_buffer_as_it_was() {
        let memory = SharedMemory::create("guest", 4096, Pages::Small).unwrap();
        memory.slice().fill(0x5a);
        let mut channel = Null::new("n", 8, 512).unwrap().open();
        for op in [Op::Read, Op::Write { fua: true }] {
            let buffers = [memory.slice()];
            let io = Io::new(op, 0, 8, &buffers, Token(1));
            assert_eq!(channel.submit(&io, NOW), Submitted::Done(Status::Good));
        }
        assert_eq!(memory.slice().read_array::<4096>(), Some([0x5a; 4096]));
    }

    #[test]
    fn null_with_larger_physical_blocks_says_so() {
        let exponent = |block_size, physical| {
            Null::new("n", 8, block_size).unwrap().with_physical_blocks(physical).info().physical_block_exponent
        };
        assert_eq!((exponent(512, 4096), exponent(512, 512), exponent(4096, 4096)), (3, 0, 0));
    }

    #[test]
    fn null_of_nearly_8_exbibytes_has_a_last_block_and_no_more() {
        let last = (1 << 54) - 2;
        let null = Null::new("huge", last + 1, 512).unwrap();
        assert_eq!((null.info().block_count, null.info().bytes()), (last + 1, (1 << 63) - 512));
        let mut channel = null.open();
        let mut read = |lba, blocks| {
            let io = Io::new(Op::Read, lba, blocks, &[], Token(1));
            channel.submit(&io, NOW)
        };
        assert_eq!(read(last, 1), Submitted::Done(Status::Good));
        assert_eq!(read(last, 2), Submitted::Done(Status::OutOfRange));
        assert_eq!(read(u64::MAX, u32::MAX), Submitted::Done(Status::OutOfRange));
    }

    #[test]
    fn null_flush_succeeds() {
        let mut channel = Null::new("n", 8, 4096).unwrap().open();
        let io = Io::new(Op::Flush, 0, 0, &[], Token(1));
        assert_eq!(channel.submit(&io, NOW), Submitted::Done(Status::Good));
    }

    #[test]
    fn null_does_everything_within_its_range_and_nothing_beyond() {
        let null = Null::new("n", 8, 512).unwrap();
        let mut channel = null.open();
        let ops = [
            Op::WriteZeroes { unmap: true },
            Op::WriteSame,
            Op::Compare,
            Op::CompareAndWrite { fua: true },
            Op::Verify,
        ];
        for op in ops {
            assert!(null.info().can.include(op));
            assert_eq!(channel.submit(&Io::new(op, 7, 1, &[], Token(1)), NOW), Submitted::Done(Status::Good));
            assert_eq!(channel.submit(&Io::new(op, 7, 2, &[], Token(1)), NOW), Submitted::Done(Status::OutOfRange));
        }
        let extents = [(0, 8), (8, 1)].map(|(lba, blocks)| Extent { lba, blocks });
        let mut unmap = |extents| channel.submit(&Io::unmap(extents, Token(1)), NOW);
        assert_eq!(unmap(&extents[..1]), Submitted::Done(Status::Good));
        assert_eq!(unmap(&extents), Submitted::Done(Status::OutOfRange));
    }
}
