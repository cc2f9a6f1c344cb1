//! READ CAPACITY (10) and (16).

use scsi::{LogicalUnit, LogicalUnitConfig, Unmap};

use super::{able_config, able_unit, config, data, unit};

const TEN: [u8; 10] = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const SIXTEEN: [u8; 16] = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];

fn of(block_count: u64) -> LogicalUnit {
    LogicalUnit::new(LogicalUnitConfig { block_count, ..config() })
}

#[test]
fn read_capacity_10_is_last_lba_and_block_size() {
    assert_eq!(data(&unit(), &TEN), [0x00, 0x00, 0x07, 0xff, 0x00, 0x00, 0x02, 0x00]);
    assert_eq!(data(&of(1), &TEN), [0, 0, 0, 0, 0, 0, 0x02, 0x00]);
}

#[test]
fn read_capacity_10_too_large_is_all_ones() {
    assert_eq!(data(&of(0xffff_ffff), &TEN)[..4], [0xff, 0xff, 0xff, 0xfe]);
    assert_eq!(data(&of(0x1_0000_0000), &TEN)[..4], [0xff, 0xff, 0xff, 0xff]);
    assert_eq!(data(&of(0x1_0000_0001), &TEN)[..4], [0xff, 0xff, 0xff, 0xff]);
}

#[test]
fn read_capacity_16_has_physical_block_exponent() {
    let unit =
        LogicalUnit::new(LogicalUnitConfig { block_count: 0x1_0000_0001, physical_block_exponent: 3, ..config() });
    let mut expected = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x02, 0x00, 0x00, 0x03];
    expected.extend([0; 18]);
    assert_eq!(data(&unit, &SIXTEEN), expected);
    assert_eq!(expected.len(), 32);
}

#[test]
fn read_capacity_16_allocation_length_cuts() {
    let mut cdb = SIXTEEN;
    cdb[13] = 12;
    assert_eq!(data(&unit(), &cdb), [0, 0, 0, 0, 0, 0, 0x07, 0xff, 0, 0, 0x02, 0x00]);
}

#[test]
fn read_capacity_follows_a_resize() {
    let unit = unit();
    unit.set_block_count(4096);
    assert_eq!(data(&unit, &TEN)[..4], [0x00, 0x00, 0x0f, 0xff]);
}

#[test]
fn read_capacity_16_provisioning_and_alignment() {
    assert_eq!(data(&able_unit(), &SIXTEEN)[12..16], [0x00, 0x00, 0xc0, 0x00]); // LBPME, LBPRZ
    let unmap = able_config().unmap.map(|unmap| Unmap { reads_zero: false, ..unmap });
    let unit = LogicalUnit::new(LogicalUnitConfig { unmap, lowest_aligned_lba: 0x3fff, ..config() });
    assert_eq!(data(&unit, &SIXTEEN)[12..16], [0x00, 0x00, 0xbf, 0xff]);
}

#[test]
fn read_capacity_blocks_of_4096_bytes() {
    let unit = LogicalUnit::new(LogicalUnitConfig { block_size: 4096, ..config() });
    assert_eq!(data(&unit, &TEN)[4..], [0x00, 0x00, 0x10, 0x00]);
    assert_eq!(data(&unit, &SIXTEEN)[8..14], [0x00, 0x00, 0x10, 0x00, 0x00, 0x00]);
}
