//! VERIFY, WRITE AND VERIFY, WRITE SAME, COMPARE AND WRITE, PRE-FETCH: commands about blocks that are more than a read
//! or a write, and PREVENT ALLOW MEDIUM REMOVAL, which is less.

use scsi::{Action, LogicalUnit, LogicalUnitConfig, Transfer};

use super::{able_config, able_unit, action, pointer, unit};

/// The lengths of a command, by operation code.
const VERIFY: [u8; 3] = [0x2f, 0xaf, 0x8f];
const WRITE_AND_VERIFY: [u8; 3] = [0x2e, 0xae, 0x8e];
const WRITE_SAME: [u8; 2] = [0x41, 0x93];
const PRE_FETCH: [u8; 2] = [0x34, 0x90];

/// LBA and number of blocks where the length of the CDB has them.
fn cdb(opcode: u8, flags: u8, lba: u64, blocks: u16) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (opcode, flags);
    let short = u32::try_from(lba).unwrap_or(u32::MAX).to_be_bytes();
    match opcode >> 5 {
        4 => {
            cdb[2..10].copy_from_slice(&lba.to_be_bytes());
            cdb[12..14].copy_from_slice(&blocks.to_be_bytes());
        }
        5 => {
            cdb[2..6].copy_from_slice(&short);
            cdb[8..10].copy_from_slice(&blocks.to_be_bytes());
        }
        _ => {
            cdb[2..6].copy_from_slice(&short);
            cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
        }
    }
    cdb
}

fn transfer(lba: u64, blocks: u32) -> Transfer {
    Transfer { lba, blocks, fua: false, dpo: false }
}

fn read_only() -> LogicalUnit {
    LogicalUnit::new(LogicalUnitConfig { read_only: true, ..able_config() })
}

#[test]
fn verify_bytchk_decides_what_is_compared() {
    let unit = able_unit();
    for opcode in VERIFY {
        let verify = |bytchk: u8| action(&unit, &cdb(opcode, bytchk << 1, 2046, 2));
        assert_eq!(verify(0b00), Action::Verify(transfer(2046, 2)), "{opcode:02x}");
        assert_eq!(verify(0b01), Action::Compare(transfer(2046, 2)), "{opcode:02x}");
        for refused in [0x04, 0x06] {
            assert_eq!(pointer(&unit, &cdb(opcode, refused, 0, 1)), [0x05, 0x24, 0, 0, 0xca, 0, 1], "{opcode:02x}");
        }
        let dpo = Transfer { dpo: true, ..transfer(0, 1) };
        assert_eq!(action(&unit, &cdb(opcode, 0x18, 0, 1)), Action::Verify(dpo), "bit 3 is reserved");
    }
}

#[test]
fn write_and_verify_is_a_write_past_the_cache() {
    let unit = able_unit();
    for opcode in WRITE_AND_VERIFY {
        let fua = Transfer { fua: true, ..transfer(7, 3) };
        let plain = action(&unit, &cdb(opcode, 0x00, 7, 3));
        assert_eq!(plain, Action::WriteAndVerify { transfer: fua, compare: false }, "{opcode:02x}");
        let compared = action(&unit, &cdb(opcode, 0x02, 7, 3));
        assert_eq!(compared, Action::WriteAndVerify { transfer: fua, compare: true }, "{opcode:02x}");
        for reserved in [0x04, 0x06] {
            assert_eq!(pointer(&unit, &cdb(opcode, reserved, 0, 1)), [0x05, 0x24, 0, 0, 0xca, 0, 1], "{opcode:02x}");
        }
        assert_eq!(pointer(&read_only(), &cdb(opcode, 0, 0, 1))[..3], [0x07, 0x27, 0x00], "{opcode:02x}");
    }
}

#[test]
fn verify_and_write_and_verify_of_no_blocks_are_good() {
    let unit = read_only();
    for opcode in VERIFY.into_iter().chain(WRITE_AND_VERIFY) {
        for flags in [0x00, 0x02] {
            assert_eq!(action(&unit, &cdb(opcode, flags, 0, 0)), Action::Good, "{opcode:02x}");
            assert_eq!(action(&unit, &cdb(opcode, flags, 2048, 0)), Action::Good, "{opcode:02x}");
            assert_eq!(pointer(&unit, &cdb(opcode, flags, 2049, 0))[..3], [0x05, 0x21, 0x00], "{opcode:02x}");
        }
    }
}

#[test]
fn commands_about_blocks_end_at_the_last_block() {
    let unit = able_unit();
    let all = VERIFY.into_iter().chain(WRITE_AND_VERIFY).chain(WRITE_SAME).chain(PRE_FETCH).chain([0x89]);
    for opcode in all {
        assert!(!matches!(action(&unit, &cdb(opcode, 0, 2047, 1)), Action::Check(_)), "{opcode:02x}");
        for (lba, blocks) in [(2047, 2), (2048, 1), (1 << 31, 1), (u64::MAX, 1), (1 << 63, 1)] {
            let refused = pointer(&unit, &cdb(opcode, 0, lba, blocks));
            assert_eq!(refused[..3], [0x05, 0x21, 0x00], "{opcode:02x} {lba} {blocks}");
        }
    }
}

#[test]
fn commands_about_blocks_refuse_protection_information() {
    let unit = able_unit();
    for opcode in VERIFY.into_iter().chain(WRITE_AND_VERIFY).chain(WRITE_SAME).chain([0x89]) {
        for protect in 1..8 {
            let refused = pointer(&unit, &cdb(opcode, protect << 5, 0, 1));
            assert_eq!(refused, [0x05, 0x24, 0, 0, 0xcf, 0, 1], "{opcode:02x}");
        }
    }
}

#[test]
fn r03_verify_over_maximum_transfer_length_is_invalid_field() {
    let unit = LogicalUnit::new(LogicalUnitConfig { max_transfer_blocks: 8, ..able_config() });
    for opcode in VERIFY.into_iter().chain(WRITE_AND_VERIFY) {
        assert!(!matches!(action(&unit, &cdb(opcode, 0, 0, 8)), Action::Check(_)), "{opcode:02x}");
        assert_eq!(pointer(&unit, &cdb(opcode, 0, 0, 9))[..3], [0x05, 0x24, 0x00], "{opcode:02x}");
    }
    assert!(matches!(action(&unit, &cdb(0x93, 0, 0, 1024)), Action::WriteSame { .. }), "one block moves");
}

#[test]
fn write_same_unmap_and_ndob() {
    let unit = able_unit();
    let same = |opcode, flags| match action(&unit, &cdb(opcode, flags, 5, 6)) {
        Action::WriteSame { transfer: sent, unmap, no_data_out } if sent == transfer(5, 6) => (unmap, no_data_out),
        other => panic!("{opcode:02x}: {other:?}"),
    };
    assert_eq!(same(0x41, 0x00), (false, false));
    assert_eq!(same(0x41, 0x08), (true, false));
    assert_eq!(same(0x41, 0x01), (false, false), "WRITE SAME(10) has no NDOB");
    assert_eq!(same(0x93, 0x00), (false, false));
    assert_eq!(same(0x93, 0x08), (true, false));
    assert_eq!(same(0x93, 0x01), (false, true));
    assert_eq!(same(0x93, 0x09), (true, true));
}

#[test]
fn write_same_anchor_and_obsolete_bits_are_refused() {
    let unit = able_unit();
    for opcode in WRITE_SAME {
        let refused = |flags| pointer(&unit, &cdb(opcode, flags, 0, 1));
        assert_eq!(refused(0x10), [0x05, 0x24, 0, 0, 0xcc, 0, 1], "ANCHOR {opcode:02x}");
        assert_eq!(refused(0x18), [0x05, 0x24, 0, 0, 0xcc, 0, 1], "ANCHOR {opcode:02x}");
        assert_eq!(refused(0x04), [0x05, 0x24, 0, 0, 0xca, 0, 1], "PBDATA {opcode:02x}");
        assert_eq!(refused(0x02), [0x05, 0x24, 0, 0, 0xca, 0, 1], "LBDATA {opcode:02x}");
    }
}

#[test]
fn write_same_of_no_blocks_is_refused() {
    let unit = able_unit();
    assert_eq!(pointer(&unit, &cdb(0x41, 0, 0, 0)), [0x05, 0x24, 0, 0, 0xc0, 0, 7]);
    assert_eq!(pointer(&unit, &cdb(0x93, 0, 0, 0)), [0x05, 0x24, 0, 0, 0xc0, 0, 10]);
}

#[test]
fn r03_write_same_over_its_maximum_length_is_invalid_field() {
    for opcode in WRITE_SAME {
        assert!(matches!(action(&able_unit(), &cdb(opcode, 0, 0, 1024)), Action::WriteSame { .. }));
        assert_eq!(pointer(&able_unit(), &cdb(opcode, 0, 0, 1025))[..3], [0x05, 0x24, 0x00]);
    }
}

#[test]
fn write_same_unmap_on_fully_provisioned_unit_is_refused() {
    let unit = LogicalUnit::new(LogicalUnitConfig { unmap: None, ..able_config() });
    for opcode in WRITE_SAME {
        assert_eq!(pointer(&unit, &cdb(opcode, 0x08, 0, 1)), [0x05, 0x24, 0, 0, 0xcb, 0, 1]);
        assert!(matches!(action(&unit, &cdb(opcode, 0x00, 0, 1)), Action::WriteSame { unmap: false, .. }));
        assert_eq!(pointer(&read_only(), &cdb(opcode, 0, 0, 1))[..3], [0x07, 0x27, 0x00]);
    }
}

#[test]
fn compare_and_write_within_its_maximum_length() {
    let unit = able_unit(); // 16 blocks
    assert_eq!(action(&unit, &cdb(0x89, 0, 9, 16)), Action::CompareAndWrite(transfer(9, 16)));
    let flagged = Transfer { fua: true, dpo: true, ..transfer(9, 1) };
    assert_eq!(action(&unit, &cdb(0x89, 0x18, 9, 1)), Action::CompareAndWrite(flagged));
    assert_eq!(pointer(&unit, &cdb(0x89, 0, 0, 17)), [0x05, 0x24, 0, 0, 0xc0, 0, 13]);
    assert_eq!(action(&unit, &cdb(0x89, 0, 0, 0)), Action::Good);
    assert_eq!(pointer(&unit, &cdb(0x89, 0, 2049, 0))[..3], [0x05, 0x21, 0x00]);
    assert_eq!(pointer(&read_only(), &cdb(0x89, 0, 0, 1))[..3], [0x07, 0x27, 0x00]);
}

#[test]
fn pre_fetch_is_good_within_the_range() {
    let unit = unit();
    for opcode in PRE_FETCH {
        assert_eq!(action(&unit, &cdb(opcode, 0x00, 0, 0)), Action::Good, "to the end");
        assert_eq!(action(&unit, &cdb(opcode, 0x02, 0, 2048)), Action::Good);
        assert_eq!(action(&unit, &cdb(opcode, 0x00, 2048, 0)), Action::Good);
        assert_eq!(pointer(&unit, &cdb(opcode, 0x00, 2049, 0))[..3], [0x05, 0x21, 0x00]);
    }
}

#[test]
fn unable_unit_has_none_of_these_commands() {
    for opcode in VERIFY.into_iter().chain(WRITE_AND_VERIFY).chain(WRITE_SAME).chain([0x89]) {
        assert_eq!(pointer(&unit(), &cdb(opcode, 0xff, 0, 1)), [0x05, 0x20, 0, 0, 0, 0, 0], "{opcode:02x}");
    }
}

#[test]
fn prevent_allow_medium_removal_is_good_unless_it_means_a_changer() {
    let unit = unit();
    for prevent in [0x00, 0x01] {
        assert_eq!(action(&unit, &[0x1e, 0, 0, 0, prevent, 0]), Action::Good);
    }
    for prevent in [0x02, 0x03] {
        assert_eq!(pointer(&unit, &[0x1e, 0, 0, 0, prevent, 0]), [0x05, 0x24, 0, 0, 0xc9, 0, 4]);
    }
}
