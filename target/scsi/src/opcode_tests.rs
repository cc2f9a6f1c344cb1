//! Tests of the opcode table: every row parses, is reported, and agrees with what the parsed command says of itself.

use alloc::{vec, vec::Vec};

use super::{OtherForm::*, *};
use crate::{
    Action, Addressee, Command, Context, DataPhase, Identity, LogicalUnit, LogicalUnitConfig, Provisioning, Scratch,
    Unmap, execute,
};

/// A good CDB of that command, whose every evaluated bit matters.
fn cdb_of(row: &Opcode) -> Cdb {
    let mut cdb = [0; CDB_LEN];
    cdb[0] = row.code();
    cdb[1] = row.service_action().unwrap_or(0);
    cdb[2] = match row.form {
        Form::Other(ModeSense6 | ModeSense10) => 0x3f,      // all pages
        Form::Other(ReportSupportedOperationCodes) => 0x03, // an operation code and a service action
        _ => 0,
    };
    match row.form {
        // With a parameter list, PF matters.
        Form::Other(ModeSelect6) => (cdb[1], cdb[4]) = (0x10, 0x04),
        Form::Other(ModeSelect10) => (cdb[1], cdb[8]) = (0x10, 0x08),
        // No blocks at all are refused, and one length bit must not leave none.
        Form::Other(WriteSame) if row.usage().len() == 10 => (cdb[7], cdb[8]) = (0x04, 0x02),
        Form::Other(WriteSame) => (cdb[12], cdb[13]) = (0x04, 0x02),
        _ => {}
    }
    cdb
}

fn identity() -> Identity {
    Identity::new("RINGSIDE", "disk", "1", "s", crate::Naa::local(1)).unwrap()
}

/// A disk that is able to do nothing special.
fn unit() -> LogicalUnit {
    LogicalUnit::new(LogicalUnitConfig::new(identity(), 512, 4096))
}

/// A disk that is able to do everything.
fn able_unit() -> LogicalUnit {
    let unmap = Unmap {
        provisioning: Provisioning::Thin,
        max_blocks: u32::MAX,
        max_extents: 1,
        granularity_blocks: 0,
        alignment_blocks: 0,
        reads_zero: true,
    };
    LogicalUnit::new(LogicalUnitConfig {
        verify: true,
        write_same_max_blocks: u32::MAX,
        compare_and_write_max_blocks: u8::MAX,
        unmap: Some(unmap),
        lba_status: true,
        ..LogicalUnitConfig::new(identity(), 512, 4096)
    })
}

#[test]
fn table_is_the_list_of_supported_commands() {
    let listed: Vec<(u8, Option<u8>, usize, Feature)> =
        opcodes().iter().map(|row| (row.code(), row.service_action(), row.usage().len(), row.feature())).collect();
    assert_eq!(
        listed,
        [
            (0x00, None, 6, Feature::Always),
            (0x03, None, 6, Feature::Always),
            (0x08, None, 6, Feature::Always),
            (0x0a, None, 6, Feature::Always),
            (0x12, None, 6, Feature::Always),
            (0x15, None, 6, Feature::Always),
            (0x1a, None, 6, Feature::Always),
            (0x1b, None, 6, Feature::Always),
            (0x1e, None, 6, Feature::Always),
            (0x25, None, 10, Feature::Always),
            (0x28, None, 10, Feature::Always),
            (0x2a, None, 10, Feature::Always),
            (0x2e, None, 10, Feature::Verify),
            (0x2f, None, 10, Feature::Verify),
            (0x34, None, 10, Feature::Always),
            (0x35, None, 10, Feature::Always),
            (0x41, None, 10, Feature::WriteSame),
            (0x42, None, 10, Feature::Unmap),
            (0x4d, None, 10, Feature::Always),
            (0x55, None, 10, Feature::Always),
            (0x5a, None, 10, Feature::Always),
            (0x88, None, 16, Feature::Always),
            (0x89, None, 16, Feature::CompareAndWrite),
            (0x8a, None, 16, Feature::Always),
            (0x8e, None, 16, Feature::Verify),
            (0x8f, None, 16, Feature::Verify),
            (0x90, None, 16, Feature::Always),
            (0x91, None, 16, Feature::Always),
            (0x93, None, 16, Feature::WriteSame),
            (0x9e, Some(0x10), 16, Feature::Always),
            (0x9e, Some(0x12), 16, Feature::LbaStatus),
            (0xa0, None, 12, Feature::Always),
            (0xa3, Some(0x0c), 12, Feature::Always),
            (0xa3, Some(0x0d), 12, Feature::Always),
            (0xa8, None, 12, Feature::Always),
            (0xaa, None, 12, Feature::Always),
            (0xae, None, 12, Feature::Verify),
            (0xaf, None, 12, Feature::Verify),
        ]
    );
}

#[test]
fn rows_have_the_cdb_length_of_their_group() {
    for row in opcodes() {
        let len = match row.code() >> 5 {
            0 => 6,
            1 | 2 => 10,
            4 => 16,
            5 => 12,
            group => panic!("{}: group {group}", row.name()),
        };
        assert_eq!(row.usage().len(), len, "{}", row.name());
    }
}

#[test]
fn parse_every_opcode_follows_the_table() {
    for code in 0..=u8::MAX {
        let mut cdb = [0; CDB_LEN];
        cdb[0] = code;
        let rows: Vec<&Opcode> = opcodes().iter().filter(|row| row.code() == code).collect();
        if rows.is_empty() {
            assert_eq!(Command::parse(&cdb).unwrap_err().code(), (0x05, 0x20, 0x00), "{code:02x}");
        }
        for row in rows {
            assert!(Command::parse(&cdb_of(row)).is_ok(), "{}", row.name());
        }
    }
}

#[test]
fn parse_every_service_action_follows_the_table() {
    for code in [0x9e, 0xa3] {
        for action in 0..32 {
            let mut cdb = [0; CDB_LEN];
            (cdb[0], cdb[1]) = (code, action);
            let known = opcodes().iter().any(|row| (row.code(), row.service_action()) == (code, Some(action)));
            match Command::parse(&cdb) {
                Ok(_) => assert!(known, "{code:02x}/{action:02x}"),
                Err(sense) => {
                    assert!(!known, "{code:02x}/{action:02x}");
                    assert_eq!(sense.fixed()[12..], [0x24, 0x00, 0x00, 0xcc, 0x00, 0x01]);
                }
            }
        }
    }
}

#[test]
fn rows_agree_with_the_parsed_command() {
    for row in opcodes() {
        // One in every byte of length that the command evaluates, so that something would move.
        let mut cdb = cdb_of(row);
        let last = row.usage().len() - 1;
        match row.form {
            Form::Other(StartStopUnit | PreventAllow | PreFetch | SynchronizeCache) => {}
            Form::Other(Verify) => (cdb[1], cdb[8], cdb[9], cdb[13]) = (0x02, 1, 1, 1), // BYTCHK 01b
            _ if row.usage().len() == 6 => cdb[4] = 1,
            _ if row.usage().len() == 10 => cdb[8] = 1,
            _ if row.usage().len() == 12 => cdb[9] = 1,
            _ => cdb[13] = 1,
        }
        assert_eq!(row.usage()[last], 0x04, "{}: CONTROL", row.name());
        let command = Command::parse(&cdb).unwrap();
        let direction = match command.data(512) {
            DataPhase::None => Direction::None,
            DataPhase::In(_) | DataPhase::InUpTo(_) => Direction::In,
            DataPhase::Out(_) => Direction::Out,
        };
        assert_eq!(direction, row.direction(), "{}", row.name());
        assert_eq!(command.reports_unit_attention(), reports_unit_attention(row.code()), "{}", row.name());
    }
}

#[test]
fn unit_attention_is_reported_by_all_but_three_commands() {
    for code in 0..=u8::MAX {
        assert_eq!(reports_unit_attention(code), !matches!(code, 0x12 | 0xa0 | 0x03), "{code:02x}");
    }
}

#[test]
fn usage_every_bit_that_changes_the_answer_is_marked() {
    for row in opcodes() {
        for byte in 1..row.usage().len() {
            for bit in 0..8 {
                let mut cdb = cdb_of(row);
                if byte == 1 && row.service_action().is_some() && bit < 5 {
                    continue; // the service action itself
                }
                let plain = Command::parse(&cdb);
                cdb[byte] ^= 1 << bit;
                let evaluated = row.usage()[byte] >> bit & 1 == 1;
                assert_eq!(Command::parse(&cdb) != plain, evaluated, "{} byte {byte} bit {bit}", row.name());
            }
        }
    }
}

#[test]
fn parse_bytes_behind_the_cdb_are_ignored() {
    for row in opcodes() {
        let plain = Command::parse(&cdb_of(row));
        let mut cdb = cdb_of(row);
        cdb[row.usage().len()..].fill(0xff);
        assert_eq!(Command::parse(&cdb), plain, "{}", row.name());
    }
}

#[test]
fn parse_naca_is_refused_in_every_control_byte() {
    for row in opcodes() {
        let control = row.usage().len() - 1;
        let mut cdb = cdb_of(row);
        cdb[control] = 0x04;
        let sense = Command::parse(&cdb).unwrap_err().fixed();
        assert_eq!(sense[12..], [0x24, 0x00, 0x00, 0xca, 0x00, control as u8], "{}", row.name());
        cdb[control] = 0xfb; // vendor specific, reserved, obsolete
        assert!(Command::parse(&cdb).is_ok(), "{}", row.name());
    }
}

#[test]
fn admits_agrees_with_execute_for_every_command() {
    let (able, plain) = (able_unit(), unit());
    let luns = &[0];
    for row in opcodes() {
        let cdb = cdb_of(row);
        let command = Command::parse(&cdb).unwrap();
        // An UNMAP list without extents, and MODE SELECT lists without pages.
        let data_out = vec![0; command.parameter_list_len().unwrap_or(0).into()];
        let context = Context { luns, data_out: &data_out, ..Context::default() };
        for (to, answered, refusal) in [
            (Addressee::Unit(&able), true, (0, 0, 0)),
            (Addressee::Unit(&plain), row.feature() == Feature::Always, row.unsupported().code()),
            (Addressee::ReportLunsWellKnown, row.answered_by() >= Answer::WellKnown, (0x05, 0x20, 0x00)),
            (Addressee::Absent, row.answered_by() >= Answer::Absent, (0x05, 0x25, 0x00)),
        ] {
            let admitted = to.admits(&cdb);
            assert_eq!(admitted.map_err(|sense| sense.code()), if answered { Ok(()) } else { Err(refusal) });
            let action = execute(to, &command, &context, &mut Scratch::default());
            assert_eq!(matches!(action, Action::Check(_)), !answered, "{} {to:?} {action:?}", row.name());
        }
    }
}

#[test]
fn admits_unable_unit_answers_as_if_there_were_no_such_row() {
    let unit = unit();
    for row in opcodes().iter().filter(|row| row.feature() != Feature::Always) {
        let mut cdb = [0xff; CDB_LEN]; // nothing but the operation code counts
        cdb[0] = row.code();
        cdb[1] = row.service_action().unwrap_or(0xff);
        let sense = Addressee::Unit(&unit).admits(&cdb).unwrap_err().fixed();
        let expected = if row.service_action().is_some() { [0x24, 0, 0, 0xcc, 0, 1] } else { [0x20, 0, 0, 0, 0, 0] };
        assert_eq!((sense[2], &sense[12..]), (0x05, &expected[..]), "{}", row.name());
    }
}

#[test]
fn r12_admits_unknown_opcode_on_absent_lun_is_lun_not_supported() {
    let unknown = [0xff; CDB_LEN];
    assert_eq!(Addressee::Absent.admits(&unknown).unwrap_err().code(), (0x05, 0x25, 0x00));
    assert_eq!(Addressee::ReportLunsWellKnown.admits(&unknown).unwrap_err().code(), (0x05, 0x20, 0x00));
    assert_eq!(Addressee::Unit(&unit()).admits(&unknown), Ok(())); // for the parser to refuse
}
