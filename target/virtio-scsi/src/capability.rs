//! What a logical unit can do and promises: as much as the block device behind it can do. The one place where the two are
//! brought together.

use bdev::{BdevInfo, Provisioning};
use scsi::{Identity, LogicalUnitConfig, Unmap};

/// A logical unit of these names over a block device, without regard to a transport: what that does not let through is taken
/// off by [`Controller`](crate::Controller), whose limits may change.
#[must_use]
pub fn logical_unit_config(identity: Identity, info: &BdevInfo) -> LogicalUnitConfig {
    let can = info.can;
    let write_same_max = info.bulk_blocks_max.min(WRITE_SAME_BLOCKS_MAX);
    let compare_and_write_max = u8::try_from(info.compare_and_write_blocks_max).unwrap_or(u8::MAX);
    LogicalUnitConfig {
        physical_block_exponent: info.physical_block_exponent,
        read_only: info.read_only,
        write_cache: info.write_cache,
        rotational: info.rotational,
        optimal_transfer_blocks: info.optimal_transfer_blocks,
        verify: can.verify && can.compare,
        write_same_max_blocks: if can.write_same && can.write_zeroes { write_same_max } else { 0 },
        compare_and_write_max_blocks: if can.compare_and_write { compare_and_write_max } else { 0 },
        unmap: unmap(info),
        lba_status: can.block_status,
        ..LogicalUnitConfig::new(identity, info.block_size, info.block_count)
    }
}

/// What may be given back, and how much at once; `None` where nothing may.
fn unmap(info: &BdevInfo) -> Option<Unmap> {
    let provisioning = match info.provisioning {
        _ if !info.can.unmap => return None,
        Provisioning::Full => return None,
        Provisioning::Resource => scsi::Provisioning::Resource,
        Provisioning::Thin => scsi::Provisioning::Thin,
    };
    let extents_max = u16::try_from(info.unmap_extents_max).unwrap_or(u16::MAX);
    Some(Unmap {
        provisioning,
        max_blocks: info.bulk_blocks_max.min(UNMAP_BLOCKS_MAX),
        max_extents: extents_max.min(Unmap::EXTENTS_MAX),
        granularity_blocks: info.unmap_granularity_blocks,
        alignment_blocks: 0,
        reads_zero: info.unmapped_reads_zeroes,
    })
}

/// As much as WRITE SAME (10) can say, which initiators and their test suites expect of a limit.
const WRITE_SAME_BLOCKS_MAX: u32 = 0xffff;
/// The most that libiscsi's conformance tests take for a sane MAXIMUM UNMAP LBA COUNT.
const UNMAP_BLOCKS_MAX: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use bdev::{Abilities, Geometry};
    use scsi::{LogicalUnit, Naa};

    use super::*;

    fn config(block_size: u32, change: impl FnOnce(&mut BdevInfo)) -> LogicalUnitConfig {
        let mut info = BdevInfo::new("disk", "test", Geometry::new(1 << 20, block_size).unwrap());
        change(&mut info);
        logical_unit_config(Identity::new("v", "p", "r", "s", Naa::local(1)).unwrap(), &info)
    }

    #[test]
    fn r03_unit_promises_no_more_than_the_transport_lets_through() {
        let limits = |block_size, max_sectors| {
            let unit = LogicalUnit::new(config(block_size, |info| info.can = Abilities::ALL));
            unit.bound_transfer(max_sectors / (block_size / 512));
            (unit.max_transfer_blocks(), unit.compare_and_write_max_blocks())
        };
        assert_eq!(limits(512, 65535), (65535, 255));
        assert_eq!(limits(4096, 65535), (8191, 255));
        assert_eq!(limits(4096, 100), (12, 6));
        assert_eq!(limits(512, 1), (1, 0));
    }

    #[test]
    fn unit_over_a_device_without_bounds_has_those_that_initiators_know() {
        let bounds = |blocks_max| {
            let config = config(512, |info| {
                (info.can, info.provisioning, info.bulk_blocks_max) = (Abilities::ALL, Provisioning::Thin, blocks_max);
            });
            (config.write_same_max_blocks, config.unmap.unwrap().max_blocks)
        };
        assert_eq!(bounds(u32::MAX), (65535, 1 << 20));
        assert_eq!(bounds(2048), (2048, 2048));
    }

    #[test]
    fn unit_over_a_device_that_can_nothing_promises_nothing() {
        let plain = config(512, |_| {});
        assert!(!plain.verify && !plain.lba_status && plain.unmap.is_none());
        assert_eq!((plain.write_same_max_blocks, plain.compare_and_write_max_blocks), (0, 0));
    }

    #[test]
    fn unit_gives_back_only_what_is_not_fully_provisioned() {
        let with = |provisioning| {
            config(4096, |info| {
                (info.can.unmap, info.provisioning, info.unmapped_reads_zeroes) = (true, provisioning, true);
                (info.unmap_granularity_blocks, info.unmap_extents_max, info.bulk_blocks_max) = (16, u32::MAX, 8192);
            })
        };
        assert!(with(Provisioning::Full).unmap.is_none());
        let expected = Unmap {
            provisioning: scsi::Provisioning::Thin,
            max_blocks: 8192,
            max_extents: 4095,
            granularity_blocks: 16,
            alignment_blocks: 0,
            reads_zero: true,
        };
        assert_eq!(with(Provisioning::Thin).unmap, Some(expected));
        let resource = Unmap { provisioning: scsi::Provisioning::Resource, ..expected };
        assert_eq!(with(Provisioning::Resource).unmap, Some(resource));
    }
}
