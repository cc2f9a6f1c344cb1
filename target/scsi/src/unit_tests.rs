//! Tests of the bounds of a logical unit.

use alloc::string::String;

use super::*;

fn config(block_count: u64) -> LogicalUnitConfig {
    let identity = Identity {
        vendor: *b"RINGSIDE",
        product: [b' '; 16],
        revision: [b' '; 4],
        serial: String::from("s"),
        naa: crate::Naa::local(1),
    };
    LogicalUnitConfig::new(identity, 512, block_count)
}

fn transfer(lba: u64, blocks: u32) -> Transfer {
    Transfer { lba, blocks, fua: false, dpo: false }
}

fn code(result: Result<(), Sense>) -> (u8, u8, u8) {
    result.map_or_else(|sense| sense.code(), |()| (0, 0, 0))
}

#[test]
fn check_transfer_range_ends_at_the_last_block() {
    let unit = LogicalUnit::new(config(100));
    let check = |lba, blocks| code(unit.check_transfer(&transfer(lba, blocks), false));
    assert_eq!(check(0, 100), (0, 0, 0));
    assert_eq!(check(99, 1), (0, 0, 0));
    assert_eq!(check(0, 101), (0x05, 0x21, 0x00));
    assert_eq!(check(99, 2), (0x05, 0x21, 0x00));
    assert_eq!(check(100, 1), (0x05, 0x21, 0x00));
    assert_eq!(check(u64::MAX, 1), (0x05, 0x21, 0x00));
    assert_eq!(check(u64::MAX, u32::MAX), (0x05, 0x21, 0x00));
    assert_eq!(check(1 << 63, 1), (0x05, 0x21, 0x00));
}

#[test]
fn check_transfer_zero_blocks_need_only_an_lba_in_range() {
    let unit = LogicalUnit::new(LogicalUnitConfig { read_only: true, ..config(100) });
    let check = |lba| code(unit.check_transfer(&transfer(lba, 0), true));
    assert_eq!(check(0), (0, 0, 0));
    assert_eq!(check(100), (0, 0, 0));
    assert_eq!(check(101), (0x05, 0x21, 0x00));
    assert_eq!(check(u64::MAX), (0x05, 0x21, 0x00));
}

#[test]
fn r03_check_transfer_over_maximum_transfer_length_is_invalid_field() {
    let unit = LogicalUnit::new(LogicalUnitConfig { max_transfer_blocks: 8, ..config(100) });
    assert_eq!(code(unit.check_transfer(&transfer(0, 8), false)), (0, 0, 0));
    assert_eq!(code(unit.check_transfer(&transfer(0, 9), false)), (0x05, 0x24, 0x00));
    assert_eq!(code(unit.check_transfer(&transfer(0, 9), true)), (0x05, 0x24, 0x00));
}

#[test]
fn check_transfer_write_to_read_only_unit_is_write_protected() {
    let unit = LogicalUnit::new(LogicalUnitConfig { read_only: true, ..config(100) });
    assert_eq!(code(unit.check_transfer(&transfer(0, 1), false)), (0, 0, 0));
    assert_eq!(code(unit.check_transfer(&transfer(0, 1), true)), (0x07, 0x27, 0x00));
}

#[test]
fn set_block_count_moves_the_end() {
    let unit = LogicalUnit::new(config(100));
    unit.set_block_count(200);
    assert_eq!(unit.block_count(), 200);
    assert_eq!(unit.check_transfer(&transfer(199, 1), true), Ok(()));
    unit.set_block_count(50);
    assert_eq!(unit.check_transfer(&transfer(50, 1), true), Err(Sense::LBA_OUT_OF_RANGE));
}

#[test]
fn optimal_transfer_is_whole_physical_blocks_within_the_maximum() {
    let optimal = |max_transfer_blocks, optimal_transfer_blocks| {
        let config = LogicalUnitConfig {
            max_transfer_blocks,
            optimal_transfer_blocks,
            physical_block_exponent: 3,
            ..config(100)
        };
        LogicalUnit::new(config).optimal_transfer_blocks()
    };
    assert_eq!(optimal(0, 0), 0);
    assert_eq!(optimal(0, 1024), 1024);
    assert_eq!(optimal(0, 1029), 1024);
    assert_eq!(optimal(65535, 131072), 65528);
    assert_eq!(optimal(7, 128), 0);
}

#[test]
#[should_panic(expected = "block_count 0: at least 1")]
fn new_without_blocks_panics() {
    let _ = LogicalUnit::new(config(0));
}

#[test]
#[should_panic(expected = "block_size 16777216: 1 to 16777215")]
fn new_block_size_beyond_24_bits_panics() {
    let _ = LogicalUnit::new(LogicalUnitConfig { block_size: 1 << 24, ..config(1) });
}

#[test]
#[should_panic(expected = "physical_block_exponent 16: 0 to 15")]
fn new_exponent_beyond_four_bits_panics() {
    let _ = LogicalUnit::new(LogicalUnitConfig { physical_block_exponent: 16, ..config(1) });
}

#[test]
#[should_panic(expected = "block_count 36028797018963968 of 512 bytes")]
fn set_block_count_beyond_64_bit_bytes_panics() {
    LogicalUnit::new(config(1)).set_block_count(1 << 55);
}

fn unmap() -> Unmap {
    Unmap {
        provisioning: Provisioning::Resource,
        max_blocks: 1,
        max_extents: Unmap::EXTENTS_MAX,
        granularity_blocks: 8,
        alignment_blocks: 7,
        reads_zero: false,
    }
}

#[test]
fn new_unmap_limits_at_their_bounds_are_good() {
    assert_eq!(Unmap::EXTENTS_MAX, 4095);
    assert!(LogicalUnit::new(LogicalUnitConfig { unmap: Some(unmap()), ..config(1) }).has(Feature::Unmap));
}

#[test]
#[should_panic(expected = "unmap.max_extents 4096: 1 to 4095")]
fn new_more_extents_than_a_list_has_room_for_panics() {
    let unmap = Some(Unmap { max_extents: 4096, ..unmap() });
    let _ = LogicalUnit::new(LogicalUnitConfig { unmap, ..config(1) });
}

#[test]
#[should_panic(expected = "unmap.max_blocks 0: at least 1")]
fn new_unmap_of_no_blocks_panics() {
    let _ = LogicalUnit::new(LogicalUnitConfig { unmap: Some(Unmap { max_blocks: 0, ..unmap() }), ..config(1) });
}

#[test]
#[should_panic(expected = "unmap.alignment_blocks 8: below 8")]
fn new_alignment_beyond_the_granularity_panics() {
    let _ = LogicalUnit::new(LogicalUnitConfig { unmap: Some(Unmap { alignment_blocks: 8, ..unmap() }), ..config(1) });
}

#[test]
#[should_panic(expected = "lowest_aligned_lba 16384: 0 to 16383")]
fn new_lowest_aligned_lba_beyond_14_bits_panics() {
    let _ = LogicalUnit::new(LogicalUnitConfig { lowest_aligned_lba: 0x4000, ..config(1) });
}

#[test]
fn admission_admits_what_check_transfer_lets_through() {
    let units = [
        config(100),
        LogicalUnitConfig { max_transfer_blocks: 8, ..config(100) },
        LogicalUnitConfig { read_only: true, ..config(100) },
        config(1 << 40),
    ];
    for unit in units.map(LogicalUnit::new) {
        let admission = unit.admission();
        for lba in [0, 92, 99, 100, 101, (1 << 40) - 9, 1 << 63, u64::MAX] {
            for blocks in [1, 7, 8, 9, 100, 101, u32::MAX] {
                let transfer = transfer(lba, blocks);
                let admitted = admission.admits(&transfer);
                assert_eq!(admitted, unit.check_transfer(&transfer, false).is_ok(), "{transfer:?}");
                let admitted = admitted && admission.plain_writes();
                assert_eq!(admitted, unit.check_transfer(&transfer, true).is_ok(), "{transfer:?}");
            }
        }
        assert!(!admission.admits(&transfer(0, 0)), "no blocks are left to `check_transfer`");
        let bounded = admission.of_at_most(7);
        assert!(bounded.admits(&transfer(93, 7)) && !bounded.admits(&transfer(0, 8)));
    }
}

#[test]
fn admission_is_of_its_moment() {
    let unit = LogicalUnit::new(LogicalUnitConfig { write_cache: true, ..config(100) });
    assert!(unit.admission().plain_writes());
    unit.set_block_count(50);
    unit.bound_transfer(4);
    let admission = unit.admission();
    assert!(admission.admits(&transfer(46, 4)) && admission.plain_writes());
    assert!(!admission.admits(&transfer(47, 4)) && !admission.admits(&transfer(0, 5)));
    unit.change_modes(Modes::WRITE_CACHE, Modes::NONE);
    assert!(!unit.admission().plain_writes(), "each write goes past the cache");
    unit.change_modes(Modes::NONE, Modes::WRITE_CACHE.with(Modes::SOFTWARE_WRITE_PROTECT));
    assert!(!unit.admission().plain_writes(), "no write is let through");
}
