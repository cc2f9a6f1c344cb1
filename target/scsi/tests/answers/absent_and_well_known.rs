//! LUNs that are not there, and the one that always is.

use scsi::{Action, Addressee, UnitAttention};

use super::{data_from, refused, run};

const WELL_KNOWN: Addressee<'_> = Addressee::ReportLunsWellKnown;
const ABSENT: Addressee<'_> = Addressee::Absent;

#[test]
fn r12_absent_lun_inquiry_is_good_with_7f() {
    let inquiry = data_from(ABSENT, &[0x12, 0, 0, 0, 36, 0]);
    assert_eq!(inquiry[..8], [0x7f, 0x00, 0x06, 0x12, 91, 0x00, 0x00, 0x02]);
    assert_eq!(inquiry[8..], [b' '; 28]);
}

#[test]
fn r12_absent_lun_has_no_vpd_pages() {
    for page in [0x00, 0x80, 0x83, 0xb0] {
        let sense = refused(ABSENT, &[0x12, 0x01, page, 0, 0xff, 0]);
        assert_eq!(sense.fixed()[12..], [0x24, 0x00, 0x00, 0xc8, 0x00, 0x01], "{page:02x}");
    }
}

#[test]
fn r12_absent_lun_report_luns_answers() {
    let luns = data_from(ABSENT, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]);
    assert_eq!(luns, [0, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn r12_absent_lun_request_sense_returns_lun_not_supported_as_data() {
    let (action, out) = run(ABSENT, &[0x03, 0, 0, 0, 252, 0], Some(UnitAttention::PowerOn));
    assert_eq!(action, Action::DataIn);
    assert_eq!(out, [0x70, 0, 5, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0x25, 0x00, 0, 0, 0, 0]);
    assert_eq!(data_from(ABSENT, &[0x03, 1, 0, 0, 252, 0]), [0x72, 0x05, 0x25, 0x00, 0, 0, 0, 0]);
}

#[test]
fn r12_absent_lun_everything_else_is_lun_not_supported() {
    let others: [&[u8]; 8] =
        [&[0x00], &[0x08], &[0x25], &[0x28], &[0x2a], &[0x1a, 0, 0x3f], &[0x9e, 0x10], &[0xa3, 0x0c]];
    for bytes in others {
        assert_eq!(refused(ABSENT, bytes).code(), (0x05, 0x25, 0x00), "{bytes:02x?}");
    }
}

#[test]
fn r11_well_known_lun_inquiry_is_type_1e() {
    let inquiry = data_from(WELL_KNOWN, &[0x12, 0, 0, 0, 96, 0]);
    assert_eq!(inquiry[..8], [0x1e, 0x00, 0x06, 0x12, 91, 0x00, 0x00, 0x02]);
    assert_eq!(&inquiry[8..36], b"RINGSIDEREPORT LUNS         ");
    assert_eq!(inquiry[58..64], [0x00, 0xc0, 0x05, 0xc0, 0x04, 0x60]);
}

#[test]
fn r11_well_known_lun_vpd_pages_are_00_and_83() {
    assert_eq!(data_from(WELL_KNOWN, &[0x12, 1, 0x00, 0, 0xff, 0]), [0x1e, 0x00, 0x00, 0x02, 0x00, 0x83]);
    let mut expected = vec![0x1e, 0x83, 0x00, 28, 0x02, 0x21, 0x00, 24];
    expected.extend(b"RINGSIDEREPORT LUNS     ");
    assert_eq!(data_from(WELL_KNOWN, &[0x12, 1, 0x83, 0, 0xff, 0]), expected);
    let sense = refused(WELL_KNOWN, &[0x12, 1, 0x80, 0, 0xff, 0]);
    assert_eq!(sense.fixed()[12..], [0x24, 0x00, 0x00, 0xc0, 0x00, 0x02]);
}

#[test]
fn r11_well_known_lun_answers_report_luns_and_readiness_and_sense() {
    let luns = data_from(WELL_KNOWN, &[0xa0, 0, 1, 0, 0, 0, 0, 0, 0, 16, 0, 0]);
    assert_eq!(luns, [0, 0, 0, 8, 0, 0, 0, 0, 0xc1, 0x01, 0, 0, 0, 0, 0, 0]);
    let luns = data_from(WELL_KNOWN, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
    assert_eq!(luns, [0, 0, 0, 40, 0, 0, 0, 0]);
    assert_eq!(run(WELL_KNOWN, &[0x00], None).0, Action::Good);
    assert_eq!(data_from(WELL_KNOWN, &[0x03, 0, 0, 0, 3, 0]), [0x70, 0x00, 0x00]);
    let (_, sense) = run(WELL_KNOWN, &[0x03, 0, 0, 0, 14, 0], Some(UnitAttention::PowerOn));
    assert_eq!(sense, [0x70, 0, 6, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0x29, 0x01]);
}

#[test]
fn r11_well_known_lun_everything_else_is_invalid_opcode() {
    let others: [&[u8]; 8] =
        [&[0x08], &[0x25], &[0x28], &[0x2a], &[0x35], &[0x1a, 0, 0x3f], &[0x9e, 0x10], &[0xa3, 0x0c]];
    for bytes in others {
        assert_eq!(refused(WELL_KNOWN, bytes).code(), (0x05, 0x20, 0x00), "{bytes:02x?}");
    }
}
