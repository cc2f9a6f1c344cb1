//! REPORT SUPPORTED OPERATION CODES against the table it is made from.

use scsi::{Addressee, opcodes};

use super::{data, refused, unit};

fn query(options: u8, opcode: u8, action: u16) -> [u8; 12] {
    let [high, low] = action.to_be_bytes();
    [0xa3, 0x0c, options, opcode, high, low, 0, 0, 0x10, 0, 0, 0]
}

#[test]
fn report_supported_operation_codes_all_lists_every_row() {
    let all = data(&unit(), &query(0, 0, 0));
    assert_eq!(all[..4], [0, 0, 0, 160]); // 20 descriptors of 8 bytes
    let listed: Vec<&[u8]> = all[4..].chunks_exact(8).collect();
    assert_eq!(listed.len(), opcodes().len());
    assert_eq!(listed[0], [0x00, 0, 0, 0, 0, 0, 0, 6]);
    assert!(listed.contains(&&[0x28, 0, 0, 0, 0, 0, 0, 10][..]));
    assert!(listed.contains(&&[0x9e, 0, 0, 0x10, 0, 0x01, 0, 16][..]));
    assert!(listed.contains(&&[0xa3, 0, 0, 0x0c, 0, 0x01, 0, 12][..]));
}

#[test]
fn report_supported_operation_codes_rctd_adds_timeouts() {
    let all = data(&unit(), &query(0x80, 0, 0));
    assert_eq!(all.len(), 4 + 20 * 20);
    assert_eq!(all[..4], [0, 0, 0x01, 0x90]);
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
    let unit = unit();
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
    assert_eq!(data(&unit(), &cdb), [0, 0, 0, 160]);
}
