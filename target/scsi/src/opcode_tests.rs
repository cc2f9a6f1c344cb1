//! Tests of the opcode table: every row parses, is reported, and agrees with what the parsed command says of itself.

use alloc::vec::Vec;

use super::*;
use crate::{Action, Addressee, Command, DataPhase, Identity, LogicalUnit, LogicalUnitConfig, execute};

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
    cdb
}

fn unit() -> LogicalUnit {
    let identity = Identity::new("RINGSIDE", "disk", "1", "s", crate::Naa::local(1)).unwrap();
    LogicalUnit::new(LogicalUnitConfig::new(identity, 512, 4096))
}

#[test]
fn table_is_the_list_of_supported_commands() {
    let listed: Vec<(u8, Option<u8>, usize)> =
        opcodes().iter().map(|row| (row.code(), row.service_action(), row.usage().len())).collect();
    assert_eq!(
        listed,
        [
            (0x00, None, 6),
            (0x03, None, 6),
            (0x08, None, 6),
            (0x0a, None, 6),
            (0x12, None, 6),
            (0x1a, None, 6),
            (0x1b, None, 6),
            (0x25, None, 10),
            (0x28, None, 10),
            (0x2a, None, 10),
            (0x35, None, 10),
            (0x5a, None, 10),
            (0x88, None, 16),
            (0x8a, None, 16),
            (0x91, None, 16),
            (0x9e, Some(0x10), 16),
            (0xa0, None, 12),
            (0xa3, Some(0x0c), 12),
            (0xa8, None, 12),
            (0xaa, None, 12),
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
        match row.usage().len() {
            6 => cdb[4] = 1,
            10 => cdb[8] = 1,
            12 => cdb[9] = 1,
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
    let unit = unit();
    for row in opcodes() {
        let command = Command::parse(&cdb_of(row)).unwrap();
        for (to, asked, refusal) in [
            (Addressee::Unit(&unit), Answer::Unit, (0, 0, 0)),
            (Addressee::ReportLunsWellKnown, Answer::WellKnown, (0x05, 0x20, 0x00)),
            (Addressee::Absent, Answer::Absent, (0x05, 0x25, 0x00)),
        ] {
            let answered = row.answered_by() >= asked;
            assert_eq!(to.admits(row.code()).is_ok(), answered, "{} {to:?}", row.name());
            match execute(to, &command, &[0], None, &mut Vec::new()) {
                Action::Check(sense) => {
                    assert!(!answered, "{} {to:?}", row.name());
                    assert_eq!(sense.code(), refusal, "{} {to:?}", row.name());
                    assert_eq!(to.admits(row.code()), Err(sense), "{} {to:?}", row.name());
                }
                _ => assert!(answered, "{} {to:?}", row.name()),
            }
        }
    }
}

#[test]
fn r12_admits_unknown_opcode_on_absent_lun_is_lun_not_supported() {
    assert_eq!(Addressee::Absent.admits(0xff).unwrap_err().code(), (0x05, 0x25, 0x00));
    assert_eq!(Addressee::ReportLunsWellKnown.admits(0xff).unwrap_err().code(), (0x05, 0x20, 0x00));
    assert_eq!(Addressee::Unit(&unit()).admits(0xff), Ok(()));
}
