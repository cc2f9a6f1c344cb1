//! A logical unit: what a disk is, and which transfers it takes. Unit attentions and task sets belong to nexuses and
//! are not in it; neither is the data. How mode pages show and change its modes stands in `mode`.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::{command::Transfer, identity::Identity, opcode::Feature, sense::Sense};

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
    /// There is a volatile cache that SYNCHRONIZE CACHE writes back. It is in use (WCE) until MODE SELECT ends that.
    pub write_cache: bool,
    /// A rotating medium; otherwise MEDIUM ROTATION RATE says that there is none.
    pub rotational: bool,
    /// MAXIMUM TRANSFER LENGTH, in blocks, for one command; 0 is no limit.
    pub max_transfer_blocks: u32,
    /// OPTIMAL TRANSFER LENGTH, in blocks; 0 is no advice. Reported rounded down to physical blocks and to the maximum.
    pub optimal_transfer_blocks: u32,
    /// LOWEST ALIGNED LOGICAL BLOCK ADDRESS: the first block at the start of a physical one, 0 to 3FFFh.
    pub lowest_aligned_lba: u16,
    /// The backend can read back and compare: VERIFY and WRITE AND VERIFY are supported.
    pub verify: bool,
    /// MAXIMUM WRITE SAME LENGTH, in blocks; 0: WRITE SAME is not supported.
    pub write_same_max_blocks: u32,
    /// MAXIMUM COMPARE AND WRITE LENGTH, in blocks; 0: COMPARE AND WRITE is not supported.
    pub compare_and_write_max_blocks: u8,
    /// Blocks can be given up; `None`: the unit is fully provisioned.
    pub unmap: Option<Unmap>,
    /// The backend knows which blocks are there: GET LBA STATUS is supported.
    pub lba_status: bool,
}

/// How blocks are given up (SBC-4, logical block provisioning management).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unmap {
    /// Whether there may be less room than blocks.
    pub provisioning: Provisioning,
    /// MAXIMUM UNMAP LBA COUNT, at least 1: blocks of one UNMAP, all extents together; FFFFFFFFh is no limit.
    pub max_blocks: u32,
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT, 1 to [`Unmap::EXTENTS_MAX`]: extents of one UNMAP.
    pub max_extents: u16,
    /// OPTIMAL UNMAP GRANULARITY, in blocks; 0 is not reported.
    pub granularity_blocks: u32,
    /// UNMAP GRANULARITY ALIGNMENT: the first block at the start of such a granule.
    pub alignment_blocks: u32,
    /// LBPRZ: blocks that were given up read as zeroes.
    pub reads_zero: bool,
}

impl Unmap {
    /// More extents than this do not fit a parameter list.
    pub const EXTENTS_MAX: u16 = (u16::MAX - 8) / 16;
}

/// PROVISIONING TYPE of a logical unit that can give up blocks (SBC-4, Logical Block Provisioning VPD page).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Provisioning {
    /// Room for every block is set aside.
    Resource,
    /// There may be less room than blocks.
    Thin,
}

/// Modes of a logical unit that an initiator sees in mode pages, as a set of bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Modes(u8);

impl Modes {
    pub(crate) const NONE: Modes = Modes(0);
    /// Every write is refused, whatever an initiator says.
    const READ_ONLY: Modes = Modes(1 << 0);
    /// SWP: every write is refused, because an initiator said so.
    pub(crate) const SOFTWARE_WRITE_PROTECT: Modes = Modes(1 << 1);
    /// WCE: the volatile cache is in use.
    pub(crate) const WRITE_CACHE: Modes = Modes(1 << 2);
    /// D_SENSE.
    pub(crate) const DESCRIPTOR_SENSE: Modes = Modes(1 << 3);
    /// There is a volatile cache and it is not in use: follows from the others, and spares every write a test.
    const WRITE_THROUGH: Modes = Modes(1 << 4);

    pub(crate) const fn with(self, others: Modes) -> Modes {
        Modes(self.0 | others.0)
    }

    pub(crate) const fn without(self, others: Modes) -> Modes {
        Modes(self.0 & !others.0)
    }

    const fn when(self, condition: bool) -> Modes {
        if condition { self } else { Modes::NONE }
    }

    #[inline]
    pub(crate) const fn any_of(self, others: Modes) -> bool {
        self.0 & others.0 != 0
    }
}

impl LogicalUnitConfig {
    /// A writable, non-rotating disk without a volatile cache, whose physical blocks are its logical ones, without
    /// limits, and able to do no more than what every disk is able to do.
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
            lowest_aligned_lba: 0,
            verify: false,
            write_same_max_blocks: 0,
            compare_and_write_max_blocks: 0,
            unmap: None,
            lba_status: false,
        }
    }

    /// # Panics
    /// If a size is outside its bounds.
    fn check(&self) {
        let LogicalUnitConfig { block_size, physical_block_exponent, lowest_aligned_lba, .. } = *self;
        assert!((1..=BLOCK_SIZE_MAX).contains(&block_size), "block_size {block_size}: 1 to {BLOCK_SIZE_MAX}");
        assert!(physical_block_exponent <= 15, "physical_block_exponent {physical_block_exponent}: 0 to 15");
        assert!(lowest_aligned_lba <= 0x3fff, "lowest_aligned_lba {lowest_aligned_lba}: 0 to 16383");
        check_capacity(self.block_count, block_size);
        if let Some(unmap) = self.unmap {
            let Unmap { max_blocks, max_extents, granularity_blocks, alignment_blocks, .. } = unmap;
            assert!(max_blocks > 0, "unmap.max_blocks 0: at least 1");
            let bound = Unmap::EXTENTS_MAX;
            assert!((1..=bound).contains(&max_extents), "unmap.max_extents {max_extents}: 1 to {bound}");
            let bound = granularity_blocks.clamp(1, 1 << 31);
            assert!(alignment_blocks < bound, "unmap.alignment_blocks {alignment_blocks}: below {bound}");
        }
    }
}

/// A direct access block device. Shared between pollers: only its capacity, its modes and what its transport lets through
/// change, atomically.
#[derive(Debug)]
pub struct LogicalUnit {
    block_count: AtomicU64,
    block_size: u32,
    max_transfer_blocks: AtomicU32,
    modes: AtomicU8,
    config: LogicalUnitConfig,
}

impl LogicalUnit {
    /// A logical unit.
    ///
    /// # Panics
    /// If a size is outside what [`LogicalUnitConfig`] states, or the capacity in bytes does not fit 64 bits.
    pub fn new(config: LogicalUnitConfig) -> LogicalUnit {
        config.check();
        LogicalUnit {
            block_count: AtomicU64::new(config.block_count),
            block_size: config.block_size,
            max_transfer_blocks: AtomicU32::new(config.max_transfer_blocks),
            modes: AtomicU8::new(default_modes(&config).0),
            config,
        }
    }

    /// Whether a READ (`write` false) or WRITE may go to the backend.
    ///
    /// In this order: blocks beyond the last one are 05h/21h/00h, more than the maximum transfer length are
    /// 05h/24h/00h, a write to a write-protected unit is 07h/27h/00h, or 07h/27h/02h where an initiator protected it.
    /// No blocks at all are good wherever an LBA is, the one after the last included (SBC-4: not an error), on a
    /// write-protected unit too.
    ///
    /// # Errors
    /// The sense data of the refusal.
    #[inline]
    pub fn check_transfer(&self, transfer: &Transfer, write: bool) -> Result<(), Sense> {
        self.check_range(transfer.lba, transfer.blocks)?;
        let max = self.max_transfer_blocks();
        if transfer.blocks > max && max != 0 {
            return Err(Sense::INVALID_FIELD_IN_CDB); // SBC-4, Block Limits VPD page, MAXIMUM TRANSFER LENGTH
        }
        if write && transfer.blocks > 0 {
            return self.check_writable();
        }
        Ok(())
    }

    /// What [`LogicalUnit::check_transfer`] lets through as things are now.
    #[inline]
    pub fn admission(&self) -> Admission {
        let (block_count, modes) = (self.block_count(), self.modes());
        let all = u32::try_from(block_count).unwrap_or(u32::MAX);
        let blocks_max = match self.max_transfer_blocks() {
            0 => all,
            max => max.min(all),
        };
        Admission { block_count, blocks_max, plain_writes: !modes.any_of(WRITE_PROTECTING.with(Modes::WRITE_THROUGH)) }
    }

    /// Whether writes are let through.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<(), Sense> {
        if !self.modes().any_of(WRITE_PROTECTING) {
            return Ok(());
        }
        Err(if self.config.read_only { Sense::WRITE_PROTECTED } else { Sense::SOFTWARE_WRITE_PROTECTED })
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

    /// What it was made from. Capacity and modes may have changed since.
    pub fn config(&self) -> &LogicalUnitConfig {
        &self.config
    }

    /// Whether it is able to do that.
    pub fn has(&self, feature: Feature) -> bool {
        match feature {
            Feature::Always => true,
            Feature::Verify => self.config.verify,
            Feature::WriteSame => self.config.write_same_max_blocks > 0,
            Feature::Unmap => self.config.unmap.is_some(),
            Feature::CompareAndWrite => self.compare_and_write_max_blocks() > 0,
            Feature::LbaStatus => self.config.lba_status,
        }
    }

    /// Logical blocks per physical block, as a power of two.
    pub fn physical_block_exponent(&self) -> u8 {
        self.config.physical_block_exponent
    }

    /// Whether writes are refused, by configuration or by an initiator (SWP).
    pub fn write_protected(&self) -> bool {
        self.modes().any_of(WRITE_PROTECTING)
    }

    /// Whether a volatile write cache is in use (WCE).
    pub fn write_cache(&self) -> bool {
        self.modes().any_of(Modes::WRITE_CACHE)
    }

    /// Whether every write must go past the volatile cache, as if it had FUA: there is one, and an initiator does not
    /// want it used (WCE 0).
    #[inline]
    pub fn write_through(&self) -> bool {
        self.modes().any_of(Modes::WRITE_THROUGH)
    }

    /// Whether sense data that comes with CHECK CONDITION is in descriptor format (D_SENSE).
    #[inline]
    pub fn descriptor_sense(&self) -> bool {
        self.modes().any_of(Modes::DESCRIPTOR_SENSE)
    }

    /// Every mode as it was at first: what a reset or a power on does (SPC-5, mode parameters).
    pub fn reset_modes(&self) {
        self.modes.store(self.default_modes().0, Ordering::Release);
    }

    #[inline]
    pub(crate) fn modes(&self) -> Modes {
        Modes(self.modes.load(Ordering::Relaxed))
    }

    pub(crate) fn default_modes(&self) -> Modes {
        default_modes(&self.config)
    }

    /// The modes that MODE SELECT may change.
    pub(crate) fn changeable_modes(&self) -> Modes {
        let write_cache = Modes::WRITE_CACHE.when(self.config.write_cache);
        Modes::SOFTWARE_WRITE_PROTECT.with(Modes::DESCRIPTOR_SENSE).with(write_cache)
    }

    /// Ends some modes and begins others; returns what there was before.
    pub(crate) fn change_modes(&self, end: Modes, begin: Modes) -> Modes {
        let through =
            |modes: Modes| Modes::WRITE_THROUGH.when(self.config.write_cache && !modes.any_of(Modes::WRITE_CACHE));
        let change = |modes| {
            let changed = Modes(modes).without(end.with(Modes::WRITE_THROUGH)).with(begin);
            Some(changed.with(through(changed)).0)
        };
        let before = self.modes.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        Modes(before.unwrap_or_else(|modes| modes)) // `change` never declines
    }

    /// Most blocks of one command; 0 is no limit.
    #[inline]
    pub fn max_transfer_blocks(&self) -> u32 {
        self.max_transfer_blocks.load(Ordering::Relaxed)
    }

    /// What the transport lets through, in blocks: the unit promises no more than that, nor more than it was made with. 0
    /// is no limit.
    pub fn bound_transfer(&self, blocks: u32) {
        let effective = match (self.config.max_transfer_blocks, blocks) {
            (0, bound) | (bound, 0) => bound,
            (own, bound) => own.min(bound),
        };
        self.max_transfer_blocks.store(effective, Ordering::Relaxed);
    }

    /// Most blocks of one COMPARE AND WRITE, whose data-out has two for each; 0: not supported.
    pub fn compare_and_write_max_blocks(&self) -> u8 {
        let own = self.config.compare_and_write_max_blocks;
        match self.max_transfer_blocks() {
            0 => own,
            max => own.min(u8::try_from(max / 2).unwrap_or(u8::MAX)),
        }
    }

    /// Best number of blocks of one command: whole physical blocks, within the maximum; 0 is no advice. (Linux warns
    /// about an advice that is neither.)
    pub fn optimal_transfer_blocks(&self) -> u32 {
        let (wanted, exponent) = (self.config.optimal_transfer_blocks, self.config.physical_block_exponent);
        let bounded = match self.max_transfer_blocks() {
            0 => wanted,
            max => wanted.min(max),
        };
        bounded >> exponent << exponent
    }

    /// Its names.
    pub fn identity(&self) -> &Identity {
        &self.config.identity
    }
}

/// What a logical unit lets through at one moment, for many commands in a row.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    block_count: u64,
    /// Not more than there are.
    blocks_max: u32,
    plain_writes: bool,
}

impl Admission {
    /// The same with this bound to the blocks of a command.
    #[must_use]
    #[inline]
    pub fn of_at_most(self, blocks: u32) -> Admission {
        Admission { blocks_max: self.blocks_max.min(blocks), ..self }
    }

    /// Whether writes are let through, and as they come: no write is to go past a volatile cache that does not ask for it.
    #[must_use]
    #[inline]
    pub fn plain_writes(&self) -> bool {
        self.plain_writes
    }

    /// Whether [`LogicalUnit::check_transfer`] has nothing against a transfer of one or more blocks; never of none. Of writes
    /// it is asked where there are [plain](Admission::plain_writes) ones.
    #[inline(always)]
    pub fn admits(&self, transfer: &Transfer) -> bool {
        transfer.blocks.wrapping_sub(1) < self.blocks_max
            && transfer.lba <= self.block_count - u64::from(transfer.blocks)
    }
}

/// Modes in which writes are refused.
const WRITE_PROTECTING: Modes = Modes::READ_ONLY.with(Modes::SOFTWARE_WRITE_PROTECT);

fn default_modes(config: &LogicalUnitConfig) -> Modes {
    Modes::READ_ONLY.when(config.read_only).with(Modes::WRITE_CACHE.when(config.write_cache))
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
