//! MODE SENSE (6) and (10).

use scsi::{Addressee, LogicalUnit, LogicalUnitConfig};

use super::{config, data, refused, unit};

const CONTROL: [u8; 12] = [0x0a, 10, 0x02, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
const CACHING: [u8; 20] = [0x08, 18, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const SHORT_DESCRIPTOR: [u8; 8] = [0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x02, 0x00];

fn six(page: u8, subpage: u8) -> [u8; 6] {
    [0x1a, 0x00, page, subpage, 0xff, 0]
}

fn ten(flags: u8, page: u8) -> [u8; 10] {
    [0x5a, flags, page, 0, 0, 0, 0, 0x01, 0x00, 0]
}

#[test]
fn mode_sense_6_control_page_with_block_descriptor() {
    let mut expected = vec![23, 0x00, 0x10, 8];
    expected.extend(SHORT_DESCRIPTOR);
    expected.extend(CONTROL);
    assert_eq!(data(&unit(), &six(0x0a, 0)), expected);
}

#[test]
fn mode_sense_6_dbd_leaves_out_the_block_descriptor() {
    let mut expected = vec![23, 0x00, 0x10, 0];
    expected.extend(CACHING);
    assert_eq!(data(&unit(), &[0x1a, 0x08, 0x08, 0, 0xff, 0]), expected);
}

#[test]
fn mode_sense_caching_page_wce_follows_the_write_cache() {
    let unit = LogicalUnit::new(LogicalUnitConfig { write_cache: true, ..config() });
    let page = data(&unit, &[0x1a, 0x08, 0x08, 0, 0xff, 0])[4..].to_vec();
    assert_eq!(page[..3], [0x08, 18, 0x04]);
    assert_eq!(page[3..], [0; 17]);
}

#[test]
fn mode_sense_read_only_unit_sets_wp() {
    let unit = LogicalUnit::new(LogicalUnitConfig { read_only: true, ..config() });
    assert_eq!(data(&unit, &six(0x3f, 0))[2], 0x90);
    assert_eq!(data(&unit, &ten(0, 0x3f))[3], 0x90);
}

#[test]
fn mode_sense_all_pages_with_and_without_subpages_are_both_pages() {
    for subpage in [0x00, 0xff] {
        let mut expected = vec![43, 0x00, 0x10, 8];
        expected.extend(SHORT_DESCRIPTOR);
        expected.extend(CACHING);
        expected.extend(CONTROL);
        assert_eq!(data(&unit(), &six(0x3f, subpage)), expected);
    }
    assert_eq!(data(&unit(), &six(0x0a, 0xff))[12..], CONTROL);
}

#[test]
fn mode_sense_10_header_is_eight_bytes() {
    let mut expected = vec![0, 26, 0x00, 0x10, 0x00, 0x00, 0, 8];
    expected.extend(SHORT_DESCRIPTOR);
    expected.extend(CONTROL);
    assert_eq!(data(&unit(), &ten(0, 0x0a)), expected);
}

#[test]
fn mode_sense_10_llbaa_gives_the_long_block_descriptor() {
    let unit = LogicalUnit::new(LogicalUnitConfig { block_count: 0x1_0000_0000, ..config() });
    let mut expected = vec![0, 34, 0x00, 0x10, 0x01, 0x00, 0, 16];
    expected.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x00]);
    expected.extend(CONTROL);
    assert_eq!(data(&unit, &ten(0x10, 0x0a)), expected);
    assert_eq!(data(&unit, &ten(0x00, 0x0a))[8..16], [0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x02, 0x00]);
    assert_eq!(data(&unit, &ten(0x18, 0x0a))[..8], [0, 18, 0x00, 0x10, 0x00, 0x00, 0, 0]);
}

#[test]
fn mode_sense_changeable_values_are_masks() {
    let changeable = data(&unit(), &six(0x40 | 0x3f, 0));
    assert_eq!(changeable[..4], [43, 0x00, 0x10, 8]);
    assert_eq!(changeable[4..12], SHORT_DESCRIPTOR);
    assert_eq!(changeable[12..14], [0x08, 18]);
    assert_eq!(changeable[14..32], [0; 18]);
    assert_eq!(changeable[32..34], [0x0a, 10]);
    assert_eq!(changeable[34..], [0x04, 0x00, 0x08, 0, 0, 0, 0, 0, 0, 0]); // D_SENSE, SWP
    let cached = LogicalUnit::new(LogicalUnitConfig { write_cache: true, ..config() });
    let caching = data(&cached, &[0x1a, 0x08, 0x48, 0, 0xff, 0]);
    assert_eq!(caching[4..8], [0x08, 18, 0x04, 0x00]); // WCE, where there is a cache
}

#[test]
fn mode_sense_default_values_are_the_current_ones() {
    assert_eq!(data(&unit(), &six(0x80 | 0x3f, 0)), data(&unit(), &six(0x3f, 0)));
}

#[test]
fn mode_sense_saved_values_are_not_supported() {
    for page in [0x3f, 0x08, 0x0a, 0x1c] {
        let sense = refused(Addressee::Unit(&unit()), &six(0xc0 | page, 0));
        assert_eq!(sense.code(), (0x05, 0x39, 0x00), "{page:02x}");
    }
}

#[test]
fn mode_sense_unknown_page_or_subpage_is_refused_and_pointed_at() {
    let unit = unit();
    for page in (0..0x3f).filter(|page| ![0x08, 0x0a].contains(page)) {
        let sense = refused(Addressee::Unit(&unit), &six(page, 0));
        assert_eq!(sense.fixed()[12..], [0x24, 0x00, 0x00, 0xcd, 0x00, 0x02], "{page:02x}");
    }
    for page in [0x08, 0x0a, 0x3f] {
        for subpage in 1..0xff {
            let sense = refused(Addressee::Unit(&unit), &six(page, subpage));
            assert_eq!(sense.fixed()[12..], [0x24, 0x00, 0x00, 0xc0, 0x00, 0x03], "{page:02x}/{subpage:02x}");
        }
    }
}

#[test]
fn mode_sense_allocation_length_cuts_but_mode_data_length_stays() {
    assert_eq!(data(&unit(), &[0x1a, 0, 0x3f, 0, 4, 0]), [43, 0x00, 0x10, 8]);
    assert_eq!(data(&unit(), &[0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 2, 0]), [0, 46]);
    assert_eq!(data(&unit(), &[0x1a, 0, 0x3f, 0, 0, 0]), []);
}
