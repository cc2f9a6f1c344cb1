//! REPORT SUPPORTED OPERATION CODES against the table it is made from.

use scsi::{Addressee, Feature, LogicalUnit, LogicalUnitConfig, opcodes};

use super::{able_unit, config, data, refused, unit};

fn query(options: u8, opcode: u8, action: u16) -> [u8; 12] {
    let [high, low] = action.to_be_bytes();
    [0xa3, 0x0c, options, opcode, high, low, 0, 0, 0x10, 0, 0, 0]
}

#[test]
fn report_supported_operation_codes_all_lists_every_row() {
    let all = data(&able_unit(), &query(0, 0, 0));
    assert_eq!(all[..4], [0, 0, 0x01, 0x30]); // 38 descriptors of 8 bytes
    let listed: Vec<&[u8]> = all[4..].chunks_exact(8).collect();
    assert_eq!(listed.len(), opcodes().len());
    assert_eq!(listed[0], [0x00, 0, 0, 0, 0, 0, 0, 6]);
    assert!(listed.contains(&&[0x28, 0, 0, 0, 0, 0, 0, 10][..]));
    assert!(listed.contains(&&[0x9e, 0, 0, 0x10, 0, 0x01, 0, 16][..]));
    assert!(listed.contains(&&[0xa3, 0, 0, 0x0c, 0, 0x01, 0, 12][..]));
}

#[test]
fn report_supported_operation_codes_rctd_adds_timeouts() {
    let all = data(&able_unit(), &query(0x80, 0, 0));
    assert_eq!(all.len(), 4 + 38 * 20);
    assert_eq!(all[..4], [0, 0, 0x02, 0xf8]);
    assert_eq!(all[4..24], [0, 0, 0, 0, 0, 0x02, 0, 6, 0x00, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 30]);
    let one = data(&unit(), &query(0x81, 0x35, 0));
    assert_eq!(one[..4], [0x00, 0x83, 0x00, 10]);
    assert_eq!(one[14..], [0x00, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60]);
}

#[test]
fn report_supported_operation_codes_one_gives_usage_data() {
    let one = data(&unit(), &query(1, 0x28, 0));
    assert_eq!(one, [0x00, 0x03, 0x00, 10, 0x28, 0xf8, 0xff, 0xff, 0xff, 0xff, 0x00, 0xff, 0xff, 0x04]);
    let one = data(&unit(), &query(1, 0x12, 0));
    assert_eq!(one, [0x00, 0x03, 0x00, 6, 0x12, 0x03, 0xff, 0xff, 0xff, 0x04]);
    let one = data(&unit(), &query(2, 0x9e, 0x10));
    let expected = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x00, 0x04];
    assert_eq!(one[..4], [0x00, 0x03, 0x00, 16]);
    assert_eq!(one[4..], expected);
}

#[test]
fn report_supported_operation_codes_not_supported_is_001b() {
    for cdb in [query(1, 0xff, 0), query(2, 0x7f, 0x0009), query(2, 0x9e, 0x11), query(3, 0x28, 1), query(3, 0x42, 0)] {
        assert_eq!(data(&unit(), &cdb), [0x00, 0x01, 0x00, 0x00], "{cdb:02x?}");
    }
    assert_eq!(data(&unit(), &query(0x81, 0xff, 0)), [0x00, 0x01, 0x00, 0x00]);
}

#[test]
fn report_supported_operation_codes_option_against_service_actions_is_refused() {
    for cdb in [query(1, 0x9e, 0), query(1, 0xa3, 0x0c), query(2, 0x28, 0)] {
        let sense = refused(Addressee::Unit(&unit()), &cdb);
        assert_eq!(sense.fixed()[12..], [0x24, 0x00, 0x00, 0xca, 0x00, 0x02], "{cdb:02x?}");
    }
}

#[test]
fn report_supported_operation_codes_option_3_takes_both_kinds() {
    let unit = unit();
    assert_eq!(data(&unit, &query(3, 0x28, 0)), data(&unit, &query(1, 0x28, 0)));
    assert_eq!(data(&unit, &query(3, 0x9e, 0x10)), data(&unit, &query(2, 0x9e, 0x10)));
}

#[test]
fn report_supported_operation_codes_every_opcode_agrees_with_the_table() {
    let unit = able_unit();
    for code in 0..=u8::MAX {
        for action in 0..32 {
            let row = opcodes()
                .iter()
                .find(|row| row.code() == code && u16::from(row.service_action().unwrap_or(0)) == action);
            let one = data(&unit, &query(3, code, action));
            match row {
                Some(row) => assert_eq!(one[4..], *row.usage(), "{}", row.name()),
                None => assert_eq!(one, [0x00, 0x01, 0x00, 0x00], "{code:02x}/{action:02x}"),
            }
        }
    }
}

#[test]
fn report_supported_operation_codes_allocation_length_cuts() {
    let mut cdb = query(0, 0, 0);
    (cdb[8], cdb[9]) = (0, 4);
    assert_eq!(data(&unit(), &cdb), [0, 0, 0, 216]); // 27 descriptors
}

/// Operation codes and service actions that a unit lists.
fn listed(unit: &LogicalUnit) -> Vec<(u8, u8)> {
    data(unit, &query(0, 0, 0))[4..].chunks_exact(8).map(|descriptor| (descriptor[0], descriptor[3])).collect()
}

#[test]
fn report_supported_operation_codes_lists_only_what_the_unit_is_able_to_do() {
    let plain = listed(&unit());
    assert_eq!(plain.len(), 27);
    let unmap = super::able_config().unmap;
    type Case = (LogicalUnitConfig, &'static [(u8, u8)]);
    let cases: [Case; 5] = [
        (
            LogicalUnitConfig { verify: true, ..config() },
            &[(0x2e, 0), (0x2f, 0), (0x8e, 0), (0x8f, 0), (0xae, 0), (0xaf, 0)],
        ),
        (LogicalUnitConfig { write_same_max_blocks: 1, ..config() }, &[(0x41, 0), (0x93, 0)]),
        (LogicalUnitConfig { unmap, ..config() }, &[(0x42, 0)]),
        (LogicalUnitConfig { compare_and_write_max_blocks: 1, ..config() }, &[(0x89, 0)]),
        (LogicalUnitConfig { lba_status: true, ..config() }, &[(0x9e, 0x12)]),
    ];
    for (config, more) in cases {
        let unit = LogicalUnit::new(config);
        let added: Vec<(u8, u8)> = listed(&unit).into_iter().filter(|row| !plain.contains(row)).collect();
        assert_eq!(added, more);
        for &(code, action) in more {
            assert_eq!(data(&unit, &query(3, code, action.into()))[..2], [0x00, 0x03]);
        }
    }
}

#[test]
fn report_supported_operation_codes_unable_unit_is_001b() {
    let unit = unit();
    for row in opcodes().iter().filter(|row| row.feature() != Feature::Always) {
        let action = row.service_action();
        let one = data(&unit, &query(if action.is_some() { 2 } else { 1 }, row.code(), action.unwrap_or(0).into()));
        assert_eq!(one, [0x00, 0x01, 0x00, 0x00], "{}", row.name());
    }
}

#[test]
fn report_supported_task_management_functions_short_and_extended() {
    let unit = unit();
    assert_eq!(data(&unit, &[0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]), [0xdc, 0x03, 0x00, 0x00]);
    let extended = data(&unit, &[0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 16, 0, 0]);
    assert_eq!(extended, [0xdc, 0x03, 0x00, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(data(&unit, &[0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]), [0xdc]);
}
