//! Commands that the backend carries out, and those that need nothing.

use scsi::{Action, Addressee, LogicalUnit, LogicalUnitConfig, Sense, Transfer};

use super::{action, config, refused, run, unit};

#[test]
fn read_and_write_in_range_go_to_the_backend() {
    let unit = unit();
    let transfer = Transfer { lba: 2047, blocks: 1, fua: true, dpo: false };
    assert_eq!(action(&unit, &[0x28, 0x08, 0, 0, 0x07, 0xff, 0, 0, 1, 0]), Action::Read(transfer));
    assert_eq!(action(&unit, &[0x2a, 0x08, 0, 0, 0x07, 0xff, 0, 0, 1, 0]), Action::Write(transfer));
    let transfer = Transfer { lba: 1, blocks: 256, fua: false, dpo: false };
    assert_eq!(action(&unit, &[0x08, 0, 0, 1, 0, 0]), Action::Read(transfer));
    assert_eq!(action(&unit, &[0x0a, 0, 0, 1, 0, 0]), Action::Write(transfer));
}

#[test]
fn read_and_write_leave_the_parameter_data_alone() {
    let (_, out) = run(Addressee::Unit(&unit()), &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], None);
    assert_eq!(out, [0xee; 3]);
}

#[test]
fn read_and_write_of_no_blocks_are_good() {
    let unit = unit();
    for opcode in [0x28, 0x2a, 0x88, 0x8a, 0xa8, 0xaa] {
        assert_eq!(action(&unit, &[opcode]), Action::Good, "{opcode:02x}");
    }
    assert_eq!(action(&unit, &[0x28, 0, 0, 0, 0x08, 0x00, 0, 0, 0, 0]), Action::Good);
    let behind = refused(Addressee::Unit(&unit), &[0x28, 0, 0, 0, 0x08, 0x01, 0, 0, 0, 0]);
    assert_eq!(behind.code(), (0x05, 0x21, 0x00));
}

#[test]
fn read_and_write_beyond_the_end_are_out_of_range() {
    let unit = unit();
    for opcode in [0x28, 0x2a] {
        let sense = refused(Addressee::Unit(&unit), &[opcode, 0, 0, 0, 0x07, 0xff, 0, 0, 2, 0]);
        assert_eq!(sense, Sense::LBA_OUT_OF_RANGE);
        assert_eq!(sense.fixed(), [0x70, 0, 5, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0x21, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn write_to_read_only_unit_is_write_protected() {
    let unit = LogicalUnit::new(LogicalUnitConfig { read_only: true, ..config() });
    let sense = refused(Addressee::Unit(&unit), &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(sense.code(), (0x07, 0x27, 0x00));
    assert!(matches!(action(&unit, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), Action::Read(_)));
}

#[test]
fn test_unit_ready_is_good() {
    assert_eq!(action(&unit(), &[0x00]), Action::Good);
}

#[test]
fn synchronize_cache_flushes_within_the_range() {
    let unit = unit();
    assert_eq!(action(&unit, &[0x35]), Action::Flush);
    assert_eq!(action(&unit, &[0x91]), Action::Flush);
    assert_eq!(action(&unit, &[0x35, 0x02, 0, 0, 0x07, 0xff, 0, 0, 1, 0]), Action::Flush);
    let sense = refused(Addressee::Unit(&unit), &[0x35, 0, 0, 0, 0x07, 0xff, 0, 0, 2, 0]);
    assert_eq!(sense.code(), (0x05, 0x21, 0x00));
    let sense = refused(Addressee::Unit(&unit), &[0x91, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(sense.code(), (0x05, 0x21, 0x00));
}

#[test]
fn start_stop_unit_stop_flushes_unless_told_not_to() {
    let unit = unit();
    assert_eq!(action(&unit, &[0x1b, 0, 0, 0, 0x00, 0]), Action::Flush);
    assert_eq!(action(&unit, &[0x1b, 0, 0, 0, 0x04, 0]), Action::Good);
    assert_eq!(action(&unit, &[0x1b, 0, 0, 0, 0x01, 0]), Action::Good);
}

#[test]
fn unsupported_opcode_is_invalid_command_operation_code() {
    let unit = unit();
    for opcode in [0x01, 0x04, 0x16, 0x17, 0x1d, 0x56, 0x57, 0x5e, 0x5f, 0x7f, 0xc0, 0xff] {
        let sense = refused(Addressee::Unit(&unit), &[opcode]);
        assert_eq!(sense.fixed()[2..14], [0x05, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0x20, 0x00], "{opcode:02x}");
    }
}
