//! GET LBA STATUS.

use scsi::{Action, LbaRun, LbaState, LbaStatusQuery, LogicalUnit};

use super::{able_unit, action, pointer, unit};

fn cdb(lba: u64, allocation_length: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[..2].copy_from_slice(&[0x9e, 0x12]);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&allocation_length.to_be_bytes());
    cdb
}

fn query(unit: &LogicalUnit, lba: u64, allocation_length: u32) -> LbaStatusQuery {
    match action(unit, &cdb(lba, allocation_length)) {
        Action::LbaStatus(query) => query,
        other => panic!("{other:?}"),
    }
}

const RUNS: [LbaRun; 2] = [
    LbaRun { lba: 8, blocks: 0x0102_0304, state: LbaState::Mapped },
    LbaRun { lba: 0x0102_030c, blocks: 1, state: LbaState::Deallocated },
];

#[test]
fn get_lba_status_descriptors_tell_each_run() {
    let mut out = vec![0xee];
    query(&able_unit(), 8, 4096).answer(&RUNS, &mut out);
    let mut expected = vec![0, 0, 0, 36, 0, 0, 0, 0];
    expected.extend([0, 0, 0, 0, 0, 0, 0, 8, 0x01, 0x02, 0x03, 0x04, 0x00, 0, 0, 0]);
    expected.extend([0, 0, 0, 0, 0x01, 0x02, 0x03, 0x0c, 0, 0, 0, 1, 0x01, 0, 0, 0]);
    assert_eq!(out, expected);
}

#[test]
fn get_lba_status_allocation_length_bounds_runs_and_cuts() {
    let unit = able_unit();
    let mut out = Vec::new();
    for (allocation_length, runs_max, len) in [(0, 1, 0), (4, 1, 4), (24, 1, 24), (25, 2, 25), (40, 2, 40)] {
        let query = query(&unit, 8, allocation_length);
        assert_eq!((query.lba, query.runs_max), (8, runs_max), "{allocation_length}");
        query.answer(&RUNS, &mut out);
        assert_eq!(out.len(), len, "{allocation_length}");
    }
    query(&unit, 8, 4).answer(&RUNS, &mut out);
    assert_eq!(out, [0, 0, 0, 20]);
    assert_eq!(query(&unit, 0, u32::MAX).runs_max, 256);
}

#[test]
fn get_lba_status_beyond_the_end_is_out_of_range() {
    let unit = able_unit();
    assert_eq!(query(&unit, 2047, 24).lba, 2047);
    for lba in [2048, 2049, 1 << 63, u64::MAX] {
        assert_eq!(pointer(&unit, &cdb(lba, 24))[..3], [0x05, 0x21, 0x00], "{lba}");
    }
}

#[test]
fn get_lba_status_unable_unit_has_no_such_service_action() {
    assert_eq!(pointer(&unit(), &cdb(0, 24)), [0x05, 0x24, 0x00, 0x00, 0xcc, 0x00, 0x01]);
}
