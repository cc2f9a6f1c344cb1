//! REPORT LUNS and the eight-byte LUN.

use scsi::{Action, Addressee, Context, LUN_MAX, encode_lun};

use super::{data, run_in, unit};

fn select(report: u8) -> [u8; 12] {
    [0xa0, 0, report, 0, 0, 0, 0, 0, 0x10, 0, 0, 0]
}

const LISTED: [[u8; 8]; 5] = [
    [0x00, 0x00, 0, 0, 0, 0, 0, 0],
    [0x00, 0x01, 0, 0, 0, 0, 0, 0],
    [0x00, 0xff, 0, 0, 0, 0, 0, 0],
    [0x41, 0x00, 0, 0, 0, 0, 0, 0],
    [0x7f, 0xff, 0, 0, 0, 0, 0, 0],
];
const WELL_KNOWN: [u8; 8] = [0xc1, 0x01, 0, 0, 0, 0, 0, 0];

#[test]
fn report_luns_select_00_lists_logical_units() {
    let luns = data(&unit(), &select(0));
    assert_eq!(luns[..8], [0, 0, 0, 40, 0, 0, 0, 0]);
    assert_eq!(luns[8..], LISTED.concat());
}

#[test]
fn r11_report_luns_select_01_lists_the_well_known_unit() {
    let luns = data(&unit(), &select(1));
    assert_eq!(luns[..8], [0, 0, 0, 8, 0, 0, 0, 0]);
    assert_eq!(luns[8..], WELL_KNOWN);
}

#[test]
fn report_luns_select_02_lists_both() {
    let luns = data(&unit(), &select(2));
    assert_eq!(luns[..8], [0, 0, 0, 48, 0, 0, 0, 0]);
    assert_eq!(luns[8..48], LISTED.concat());
    assert_eq!(luns[48..], WELL_KNOWN);
}

#[test]
fn report_luns_short_allocation_length_cuts_but_list_length_stays() {
    for len in [0, 4, 8, 15, 16, 47] {
        let luns = data(&unit(), &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, len, 0, 0]);
        assert_eq!(luns.len(), usize::from(len));
        assert_eq!(luns, data(&unit(), &select(0))[..usize::from(len)]);
    }
}

#[test]
fn report_luns_without_luns_is_an_empty_list() {
    let (action, scratch) = run_in(Addressee::ReportLunsWellKnown, &select(0), &Context::default());
    assert_eq!((action, scratch.data_in), (Action::DataIn, vec![0; 8]));
}

#[test]
fn report_luns_full_target_lists_all_16384() {
    let luns: Vec<u16> = (0..=LUN_MAX).collect();
    let whole = [0xa0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
    let (action, scratch) = run_in(Addressee::Absent, &whole, &Context { luns: &luns, ..Context::default() });
    assert_eq!(action, Action::DataIn);
    assert_eq!(scratch.data_in.len(), 8 + 16384 * 8);
    assert_eq!(scratch.data_in[..4], [0x00, 0x02, 0x00, 0x00]);
}

#[test]
fn r20_encode_lun_uses_peripheral_then_flat_addressing() {
    assert_eq!(encode_lun(0)[..2], [0x00, 0x00]);
    assert_eq!(encode_lun(255)[..2], [0x00, 0xff]);
    assert_eq!(encode_lun(256)[..2], [0x41, 0x00]);
    assert_eq!(encode_lun(16383)[..2], [0x7f, 0xff]);
}

#[test]
#[should_panic(expected = "LUN number above 16383")]
fn encode_lun_above_14_bits_panics() {
    encode_lun(0x4000);
}

#[test]
fn report_luns_conglomerates_and_unknown_selections_are_refused() {
    for select_report in [0x03, 0x10, 0x11, 0x12, 0xff] {
        assert_eq!(super::pointer(&unit(), &select(select_report)), [0x05, 0x24, 0, 0, 0xc0, 0, 2]);
    }
}
