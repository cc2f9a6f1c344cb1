//! Block size and count of a device, and the check of a request against them. The only arithmetic on block addresses.

use crate::{Extent, Io, Status};

/// The logical blocks of a device. Its bytes can be counted in an `i64`, as file offsets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    block_count: u64,
    block_size: u32,
}

/// Why there is no such device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// Guests know sectors of two sizes.
    #[error("block_size is {0}, must be 512 or 4096")]
    BlockSize(u32),
    /// A device without a block cannot say what its last one is.
    #[error("block_count is 0, must be at least 1")]
    NoBlocks,
    /// Byte offsets would not fit into 63 bits.
    #[error("block_count is {block_count}, must be at most {max} with a block_size of {block_size}")]
    TooManyBlocks {
        /// As asked for.
        block_count: u64,
        /// As asked for.
        block_size: u32,
        /// The largest count at that block size.
        max: u64,
    },
    /// The last block would not be whole.
    #[error("size is {size_bytes} bytes, must be a multiple of the block_size {block_size}")]
    PartialBlock {
        /// As asked for.
        size_bytes: u64,
        /// As asked for.
        block_size: u32,
    },
}

impl Geometry {
    /// `block_count` blocks of `block_size` bytes.
    ///
    /// # Errors
    /// A block size other than 512 and 4096, no block, or more than `i64::MAX` bytes.
    pub fn new(block_count: u64, block_size: u32) -> Result<Geometry, GeometryError> {
        let block_size = known_block_size(block_size)?;
        let max = i64::MAX as u64 / u64::from(block_size);
        match block_count {
            0 => Err(GeometryError::NoBlocks),
            _ if block_count > max => Err(GeometryError::TooManyBlocks { block_count, block_size, max }),
            _ => Ok(Geometry { block_count, block_size }),
        }
    }

    /// As many blocks of `block_size` bytes as `size_bytes` holds.
    ///
    /// # Errors
    /// Those of [`Geometry::new`], and a size that is not a whole number of blocks.
    pub fn of_bytes(size_bytes: u64, block_size: u32) -> Result<Geometry, GeometryError> {
        let block_size = known_block_size(block_size)?;
        if !size_bytes.is_multiple_of(u64::from(block_size)) {
            return Err(GeometryError::PartialBlock { size_bytes, block_size });
        }
        Geometry::new(size_bytes / u64::from(block_size), block_size)
    }

    /// Bytes per block.
    #[must_use]
    #[inline]
    pub const fn block_size(self) -> u32 {
        self.block_size
    }

    /// Number of blocks.
    #[must_use]
    #[inline]
    pub const fn block_count(self) -> u64 {
        self.block_count
    }

    /// Size in bytes.
    #[must_use]
    #[inline]
    pub fn bytes(self) -> u64 {
        self.block_count * u64::from(self.block_size)
    }

    /// Whether all blocks of the request are there.
    #[must_use]
    #[inline]
    pub fn holds(self, io: &Io<'_>) -> bool {
        self.holds_blocks(io.lba, io.blocks)
    }

    /// Whether all blocks of all extents are there.
    #[must_use]
    pub fn holds_extents(self, extents: &[Extent]) -> bool {
        extents.iter().all(|extent| self.holds_blocks(extent.lba, extent.blocks))
    }

    #[inline]
    pub(crate) fn holds_blocks(self, lba: u64, blocks: u32) -> bool {
        lba.checked_add(u64::from(blocks)).is_some_and(|end| end <= self.block_count)
    }

    /// Offset and length in bytes of an extent that is held.
    #[must_use]
    #[inline]
    pub fn bytes_of(self, extent: Extent) -> (u64, u64) {
        let block_size = u64::from(self.block_size);
        (extent.lba * block_size, u64::from(extent.blocks) * block_size)
    }

    /// Offset and length in bytes of the blocks that a request names by `lba` and `blocks`: of every one but
    /// [`Op::Unmap`](crate::Op::Unmap) and [`Op::Flush`](crate::Op::Flush).
    ///
    /// # Errors
    /// [`Status::OutOfRange`] if not all blocks are there, [`Status::Failed`] if the buffers have another length.
    #[inline]
    pub fn span(self, io: &Io<'_>) -> Result<(u64, u64), Status> {
        if !self.holds(io) {
            return Err(Status::OutOfRange);
        }
        let length = u64::from(io.blocks) * u64::from(self.block_size);
        let buffers = io.buffers.iter().fold(0u64, |sum, buffer| sum.saturating_add(buffer.len() as u64));
        if buffers != io.op.data_bytes(io.blocks, self.block_size) {
            return Err(Status::Failed);
        }
        Ok((io.lba * u64::from(self.block_size), length))
    }
}

fn known_block_size(block_size: u32) -> Result<u32, GeometryError> {
    if matches!(block_size, 512 | 4096) { Ok(block_size) } else { Err(GeometryError::BlockSize(block_size)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Op, Token};

    fn read(lba: u64, blocks: u32) -> Io<'static> {
        Io::new(Op::Read, lba, blocks, &[], Token(0))
    }

    #[test]
    fn request_up_to_the_last_block_is_held_one_further_is_not() {
        let geometry = Geometry::new(10, 512).unwrap();
        assert!(geometry.holds(&read(9, 1)));
        assert!(geometry.holds(&read(0, 10)));
        assert!(geometry.holds(&read(10, 0)));
        assert!(!geometry.holds(&read(9, 2)));
        assert!(!geometry.holds(&read(11, 0)));
        assert!(!geometry.holds(&read(u64::MAX, 1)));
        assert!(!geometry.holds(&read(u64::MAX, u32::MAX)));
    }

    #[test]
    fn geometry_holds_extents_only_if_all_are_inside() {
        let geometry = Geometry::new(10, 512).unwrap();
        let extents = [(9, 1), (10, 0), (0, 10)].map(|(lba, blocks)| Extent { lba, blocks });
        assert!(geometry.holds_extents(&extents) && geometry.holds_extents(&[]));
        for (lba, blocks) in [(10, 1), (11, 0), (u64::MAX, 1), (0, 11)] {
            assert!(!geometry.holds_extents(&[extents[0], Extent { lba, blocks }]), "{lba} + {blocks}");
        }
    }

    #[test]
    fn geometry_span_wants_the_bytes_of_the_operation() {
        let geometry = Geometry::new(10, 512).unwrap();
        for op in [Op::Flush, Op::Verify, Op::WriteZeroes { unmap: true }] {
            assert_eq!(geometry.span(&Io::new(op, 3, 2, &[], Token(0))), Ok((1536, 1024)), "{op:?}");
        }
        for op in [Op::Read, Op::WriteSame, Op::Compare, Op::CompareAndWrite { fua: false }] {
            assert_eq!(geometry.span(&Io::new(op, 3, 2, &[], Token(0))), Err(Status::Failed), "{op:?}");
        }
        assert_eq!(Op::CompareAndWrite { fua: true }.data_bytes(2, 512), 2048);
        assert_eq!(Op::WriteSame.data_bytes(7, 4096), 4096);
        assert_eq!(Op::Write { fua: true }.data_bytes(u32::MAX, 4096), 0xffff_ffff * 4096);
    }

    #[test]
    fn geometry_of_odd_block_size_is_refused() {
        for block_size in [0, 1, 511, 520, 1024, 2048, 8192] {
            assert_eq!(Geometry::new(8, block_size), Err(GeometryError::BlockSize(block_size)));
        }
        assert!(Geometry::of_bytes(4096, 0).is_err());
    }

    #[test]
    fn geometry_without_blocks_is_refused() {
        assert_eq!(Geometry::new(0, 512), Err(GeometryError::NoBlocks));
        assert_eq!(Geometry::of_bytes(0, 512), Err(GeometryError::NoBlocks));
    }

    #[test]
    fn geometry_beyond_63_bits_is_refused() {
        assert_eq!(Geometry::new((1 << 54) - 1, 512).map(Geometry::bytes), Ok((1 << 63) - 512));
        let error = Geometry::new(1 << 54, 512).unwrap_err();
        assert_eq!(
            error.to_string(),
            "block_count is 18014398509481984, must be at most 18014398509481983 with a block_size of 512"
        );
        assert!(Geometry::new(u64::MAX, 4096).is_err());
    }

    #[test]
    fn geometry_of_a_size_with_half_a_block_is_refused() {
        assert_eq!(Geometry::of_bytes(8192, 4096).map(Geometry::block_count), Ok(2));
        assert_eq!(
            Geometry::of_bytes(8192 + 512, 4096).unwrap_err().to_string(),
            "size is 8704 bytes, must be a multiple of the block_size 4096"
        );
    }
}
