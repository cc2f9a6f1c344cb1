//! MODE SELECT (6) and (10).

use scsi::{Action, LogicalUnit, LogicalUnitConfig, Transfer};

use super::{action, config, data, pointer, pointer_of, send, unit};

const CONTROL: [u8; 12] = [0x0a, 10, 0x02, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
const CACHING: [u8; 20] = [0x08, 18, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const SHORT_DESCRIPTOR: [u8; 8] = [0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x02, 0x00];

fn cached() -> LogicalUnit {
    LogicalUnit::new(LogicalUnitConfig { write_cache: true, ..config() })
}

fn six(unit: &LogicalUnit, list: &[u8]) -> Action {
    send(unit, &[0x15, 0x10, 0, 0, u8::try_from(list.len()).unwrap(), 0], list).0
}

fn ten(unit: &LogicalUnit, list: &[u8]) -> Action {
    let [high, low] = u16::try_from(list.len()).unwrap().to_be_bytes();
    send(unit, &[0x55, 0x10, 0, 0, 0, 0, 0, high, low, 0], list).0
}

/// A header without block descriptor, and these pages.
fn list(pages: &[&[u8]]) -> Vec<u8> {
    [&[0, 0, 0, 0], pages.concat().as_slice()].concat()
}

/// A page with one byte replaced.
fn with(page: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut page = page.to_vec();
    page[at] = value;
    page
}

#[test]
fn mode_select_wce_off_flushes_and_writes_go_through() {
    let unit = cached();
    assert!(unit.write_cache() && !unit.write_through());
    let off = list(&[&with(&CACHING, 2, 0x00)]);
    assert_eq!(six(&unit, &off), Action::Flush);
    assert!(!unit.write_cache() && unit.write_through());
    assert_eq!(data(&unit, &[0x1a, 0x08, 0x08, 0, 0xff, 0])[4..8], [0x08, 18, 0x00, 0x00]);
    assert_eq!(data(&unit, &[0x1a, 0x08, 0x88, 0, 0xff, 0])[4..8], [0x08, 18, 0x04, 0x00], "the default stays");
    assert_eq!(six(&unit, &off), Action::Good, "nothing left to write back");
    assert_eq!(six(&unit, &list(&[&CACHING])), Action::Good);
    assert!(unit.write_cache() && !unit.write_through());
}

#[test]
fn mode_select_wce_without_a_cache_is_refused() {
    let unit = unit();
    assert_eq!(pointer_of(six(&unit, &list(&[&CACHING]))), [0x05, 0x26, 0x00, 0x00, 0x80, 0x00, 6]);
    assert!(!unit.write_cache() && !unit.write_through());
}

#[test]
fn mode_select_d_sense_changes_the_format_of_sense_data() {
    let unit = unit();
    assert!(!unit.descriptor_sense());
    assert_eq!(six(&unit, &list(&[&with(&CONTROL, 2, 0x06)])), Action::Good);
    assert!(unit.descriptor_sense());
    assert_eq!(data(&unit, &[0x1a, 0x08, 0x0a, 0, 0xff, 0])[4..8], [0x0a, 10, 0x06, 0x10]);
    assert_eq!(six(&unit, &list(&[&CONTROL])), Action::Good);
    assert!(!unit.descriptor_sense());
}

#[test]
fn mode_select_swp_protects_the_medium() {
    let unit = unit();
    assert_eq!(six(&unit, &list(&[&with(&CONTROL, 4, 0x08)])), Action::Good);
    assert!(unit.write_protected());
    let write = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(pointer(&unit, &write)[..3], [0x07, 0x27, 0x02]);
    assert_eq!(data(&unit, &[0x1a, 0, 0x0a, 0, 0xff, 0])[2], 0x90, "WP");
    let transfer = Transfer { lba: 0, blocks: 1, fua: false, dpo: false };
    assert_eq!(action(&unit, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), Action::Read(transfer));
    assert_eq!(six(&unit, &list(&[&CONTROL])), Action::Good);
    assert_eq!(action(&unit, &write), Action::Write(transfer));
}

#[test]
fn mode_select_read_only_unit_stays_read_only() {
    let unit = LogicalUnit::new(LogicalUnitConfig { read_only: true, ..config() });
    assert_eq!(six(&unit, &list(&[&CONTROL])), Action::Good);
    assert_eq!(pointer(&unit, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0])[..3], [0x07, 0x27, 0x00]);
}

#[test]
fn reset_modes_brings_back_the_defaults() {
    let unit = cached();
    let off = list(&[&with(&CACHING, 2, 0x00), &with(&with(&CONTROL, 2, 0x06), 4, 0x08)]);
    assert_eq!(six(&unit, &off), Action::Flush);
    assert!(unit.write_through() && unit.descriptor_sense() && unit.write_protected());
    unit.reset_modes();
    assert!(unit.write_cache() && !unit.descriptor_sense() && !unit.write_protected());
}

#[test]
fn mode_select_what_mode_sense_returned_is_accepted() {
    for unit in [unit(), cached(), LogicalUnit::new(LogicalUnitConfig { read_only: true, ..config() })] {
        let sensed = data(&unit, &[0x1a, 0, 0x3f, 0, 0xff, 0]);
        assert_eq!(six(&unit, &sensed), Action::Good);
        for llbaa in [0x00, 0x10] {
            let sensed = data(&unit, &[0x5a, llbaa, 0x3f, 0, 0, 0, 0, 1, 0, 0]);
            assert_eq!(ten(&unit, &sensed), Action::Good);
        }
        let sensed = data(&unit, &[0x1a, 0, 0x3f, 0, 0xff, 0]);
        assert_eq!(six(&unit, &with(&sensed, 12, 0x88)), Action::Good, "PS is ignored");
    }
}

#[test]
fn mode_select_empty_list_or_no_pages_is_good() {
    let unit = unit();
    assert_eq!(send(&unit, &[0x15], &[]).0, Action::Good);
    assert_eq!(six(&unit, &[]), Action::Good);
    assert_eq!(six(&unit, &[0; 4]), Action::Good);
    assert_eq!(ten(&unit, &[0; 8]), Action::Good);
}

#[test]
fn mode_select_block_descriptor_must_change_nothing() {
    let unit = unit();
    let select = |descriptor: &[u8]| six(&unit, &[&[0, 0, 0, 8], descriptor].concat());
    assert_eq!(select(&SHORT_DESCRIPTOR), Action::Good);
    assert_eq!(select(&[0, 0, 0, 0, 0, 0, 0x02, 0x00]), Action::Good, "0: the capacity as it is");
    assert_eq!(select(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0x02, 0x00]), Action::Good);
    assert_eq!(pointer_of(select(&[0, 0, 0x08, 0x01, 0, 0, 0x02, 0x00])), [0x05, 0x26, 0, 0, 0x80, 0, 4]);
    assert_eq!(pointer_of(select(&[0, 0, 0x08, 0x00, 0, 0, 0x10, 0x00])), [0x05, 0x26, 0, 0, 0x80, 0, 9]);
    let long = |longlba, len| {
        let mut list = vec![0, 0, 0, 0, longlba, 0, 0, len];
        list.extend([0, 0, 0, 0, 0, 0, 0x08, 0, 0, 0, 0, 0, 0, 0, 0x02, 0]);
        ten(&unit, &list)
    };
    assert_eq!(long(0x01, 16), Action::Good);
    assert_eq!(pointer_of(long(0x00, 16)), [0x05, 0x26, 0, 0, 0x80, 0, 6]);
    assert_eq!(pointer_of(long(0x01, 8)), [0x05, 0x26, 0, 0, 0x80, 0, 6]);
}

#[test]
fn mode_select_changing_what_is_not_changeable_is_refused_and_pointed_at() {
    let unit = cached();
    for (page, changeable) in [(&CACHING[..], &[(2, 0x04)][..]), (&CONTROL, &[(2, 0x04), (4, 0x08)])] {
        for at in 2..page.len() {
            for bit in 0..8 {
                let sent = with(page, at, page[at] ^ 1 << bit);
                let answer = six(&unit, &list(&[&sent]));
                if changeable.contains(&(at, 1 << bit)) {
                    assert!(!matches!(answer, Action::Check(_)), "byte {at} bit {bit}");
                } else {
                    assert_eq!(pointer_of(answer), [0x05, 0x26, 0, 0, 0x80, 0, 4 + at as u8], "byte {at} bit {bit}");
                }
                unit.reset_modes();
            }
        }
    }
}

#[test]
fn mode_select_unknown_page_subpage_length_or_medium_type_is_refused() {
    let unit = unit();
    let refused = |list: &[u8]| pointer_of(six(&unit, list));
    assert_eq!(refused(&list(&[&[0x1c, 10, 0, 0]])), [0x05, 0x26, 0, 0, 0x80, 0, 4]);
    assert_eq!(refused(&list(&[&[0x4a, 0x01, 0, 0]])), [0x05, 0x26, 0, 0, 0x80, 0, 4]);
    assert_eq!(refused(&list(&[&with(&CONTROL, 1, 9)])), [0x05, 0x26, 0, 0, 0x80, 0, 5]);
    assert_eq!(refused(&[0, 0x01, 0, 0]), [0x05, 0x26, 0, 0, 0x80, 0, 1]);
    assert_eq!(refused(&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]), [0x05, 0x26, 0, 0, 0x80, 0, 3]);
    assert_eq!(pointer_of(ten(&unit, &[0, 0, 0x01, 0, 0, 0, 0, 0])), [0x05, 0x26, 0, 0, 0x80, 0, 2]);
}

#[test]
fn mode_select_truncated_list_is_a_length_error() {
    let whole = [&[0, 0, 0, 8][..], &SHORT_DESCRIPTOR, &CONTROL].concat();
    for len in 1..whole.len() {
        let answer = six(&unit(), &whole[..len]);
        if len == 12 {
            assert_eq!(answer, Action::Good, "header and block descriptor");
        } else {
            assert_eq!(pointer_of(answer), [0x05, 0x1a, 0x00, 0x00, 0, 0, 0], "{len}");
        }
    }
    assert_eq!(pointer_of(ten(&unit(), &[0; 7]))[..3], [0x05, 0x1a, 0x00]);
}

#[test]
fn mode_select_refused_list_changes_nothing() {
    let unit = unit();
    let bad = list(&[&with(&CONTROL, 2, 0x06), &with(&CONTROL, 5, 0x01)]);
    assert_eq!(pointer_of(six(&unit, &bad)), [0x05, 0x26, 0, 0, 0x80, 0, 21]);
    assert!(!unit.descriptor_sense());
}

#[test]
fn mode_select_saving_reverting_and_vendor_pages_are_refused() {
    let unit = unit();
    assert_eq!(pointer(&unit, &[0x15, 0x11, 0, 0, 0, 0]), [0x05, 0x24, 0, 0, 0xc8, 0, 1]); // SP
    assert_eq!(pointer(&unit, &[0x55, 0x12, 0, 0, 0, 0]), [0x05, 0x24, 0, 0, 0xc9, 0, 1]); // RTD
    assert_eq!(pointer(&unit, &[0x15, 0x00, 0, 0, 4, 0]), [0x05, 0x24, 0, 0, 0xcc, 0, 1]); // PF 0
}
