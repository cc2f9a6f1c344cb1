//! A logical unit: what a disk is, and which transfers it takes. Unit attentions and task sets belong to nexuses and
//! are not in it; neither is the data.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::{command::Transfer, identity::Identity, sense::Sense};

/// What a logical unit is made from.
#[derive(Clone, Debug)]
pub struct LogicalUnitConfig {
    /// Its names.
    pub identity: Identity,
    /// Bytes of a logical block, 1 to FFFFFFh (the mode parameter block descriptor has 24 bits for it).
    pub block_size: u32,
    /// Logical blocks, at least 1.
    pub block_count: u64,
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT, 0 to 15.
    pub physical_block_exponent: u8,
    /// Writes are refused.
    pub read_only: bool,
    /// There is a volatile cache that SYNCHRONIZE CACHE writes back (WCE).
    pub write_cache: bool,
    /// A rotating medium; otherwise MEDIUM ROTATION RATE says that there is none.
    pub rotational: bool,
    /// MAXIMUM TRANSFER LENGTH, in blocks, for one command; 0 is no limit.
    pub max_transfer_blocks: u32,
    /// OPTIMAL TRANSFER LENGTH, in blocks; 0 is no advice. Reported rounded down to physical blocks and to the maximum.
    pub optimal_transfer_blocks: u32,
}

impl LogicalUnitConfig {
    /// A writable, non-rotating disk without a volatile cache, whose physical blocks are its logical ones, and without
    /// limits.
    pub fn new(identity: Identity, block_size: u32, block_count: u64) -> LogicalUnitConfig {
        LogicalUnitConfig {
            identity,
            block_size,
            block_count,
            physical_block_exponent: 0,
            read_only: false,
            write_cache: false,
            rotational: false,
            max_transfer_blocks: 0,
            optimal_transfer_blocks: 0,
        }
    }
}

/// A direct access block device. Shared between pollers: only its capacity changes, atomically.
#[derive(Debug)]
pub struct LogicalUnit {
    block_count: AtomicU64,
    block_size: u32,
    max_transfer_blocks: u32,
    optimal_transfer_blocks: u32,
    physical_block_exponent: u8,
    read_only: bool,
    write_cache: bool,
    rotational: bool,
    identity: Identity,
}

impl LogicalUnit {
    /// A logical unit.
    ///
    /// # Panics
    /// If a size is outside what [`LogicalUnitConfig`] states, or the capacity in bytes does not fit 64 bits.
    pub fn new(config: LogicalUnitConfig) -> LogicalUnit {
        let LogicalUnitConfig { identity, block_size, block_count, physical_block_exponent, .. } = config;
        assert!((1..=BLOCK_SIZE_MAX).contains(&block_size), "block_size {block_size}: 1 to {BLOCK_SIZE_MAX}");
        assert!(physical_block_exponent <= 15, "physical_block_exponent {physical_block_exponent}: 0 to 15");
        check_capacity(block_count, block_size);
        LogicalUnit {
            block_count: AtomicU64::new(block_count),
            block_size,
            max_transfer_blocks: config.max_transfer_blocks,
            optimal_transfer_blocks: config.optimal_transfer_blocks,
            physical_block_exponent,
            read_only: config.read_only,
            write_cache: config.write_cache,
            rotational: config.rotational,
            identity,
        }
    }

    /// Whether a READ (`write` false) or WRITE may go to the backend.
    ///
    /// In this order: blocks beyond the last one are 05h/21h/00h, more than the maximum transfer length are
    /// 05h/24h/00h, a write to a read-only unit is 07h/27h/00h. No blocks at all are good wherever an LBA is, the
    /// one after the last included (SBC-4: not an error), on a read-only unit too.
    ///
    /// # Errors
    /// The sense data of the refusal.
    #[inline]
    pub fn check_transfer(&self, transfer: &Transfer, write: bool) -> Result<(), Sense> {
        self.check_range(transfer.lba, transfer.blocks)?;
        if transfer.blocks > self.max_transfer_blocks && self.max_transfer_blocks != 0 {
            return Err(Sense::INVALID_FIELD_IN_CDB); // SBC-4, Block Limits VPD page, MAXIMUM TRANSFER LENGTH
        }
        if write && self.read_only && transfer.blocks > 0 {
            return Err(Sense::WRITE_PROTECTED);
        }
        Ok(())
    }

    /// Whether `blocks` from `lba` on exist.
    #[inline]
    pub(crate) fn check_range(&self, lba: u64, blocks: u32) -> Result<(), Sense> {
        match self.block_count().checked_sub(lba) {
            Some(left) if u64::from(blocks) <= left => Ok(()),
            _ => Err(Sense::LBA_OUT_OF_RANGE),
        }
    }

    /// Logical blocks.
    #[inline]
    pub fn block_count(&self) -> u64 {
        self.block_count.load(Ordering::Acquire)
    }

    /// Changes the capacity. The caller then raises [`CapacityChanged`](crate::UnitAttention::CapacityChanged) on every
    /// nexus.
    ///
    /// # Panics
    /// If it is 0, or the capacity in bytes does not fit 64 bits.
    pub fn set_block_count(&self, block_count: u64) {
        check_capacity(block_count, self.block_size);
        self.block_count.store(block_count, Ordering::Release);
    }

    /// Bytes of a logical block.
    #[inline]
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Logical blocks per physical block, as a power of two.
    pub fn physical_block_exponent(&self) -> u8 {
        self.physical_block_exponent
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Whether there is a volatile write cache (WCE).
    pub fn write_cache(&self) -> bool {
        self.write_cache
    }

    /// Whether the medium rotates.
    pub fn rotational(&self) -> bool {
        self.rotational
    }

    /// Most blocks of one command; 0 is no limit.
    pub fn max_transfer_blocks(&self) -> u32 {
        self.max_transfer_blocks
    }

    /// Best number of blocks of one command: whole physical blocks, within the maximum; 0 is no advice. (Linux warns
    /// about an advice that is neither.)
    pub fn optimal_transfer_blocks(&self) -> u32 {
        let bounded = match self.max_transfer_blocks {
            0 => self.optimal_transfer_blocks,
            max => self.optimal_transfer_blocks.min(max),
        };
        bounded >> self.physical_block_exponent << self.physical_block_exponent
    }

    /// Its names.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

const BLOCK_SIZE_MAX: u32 = 0x00ff_ffff;

/// Callers multiply blocks by bytes, so the product must exist; the last LBA must exist as well.
fn check_capacity(block_count: u64, block_size: u32) {
    assert!(block_count > 0, "block_count 0: at least 1");
    assert!(
        block_count.checked_mul(block_size.into()).is_some(),
        "block_count {block_count} of {block_size} bytes: at most {} bytes",
        u64::MAX
    );
}

#[cfg(test)]
#[path = "unit_tests.rs"]
mod tests;
