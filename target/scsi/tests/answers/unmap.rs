//! UNMAP.

use scsi::{Action, Extent, LogicalUnit, LogicalUnitConfig};

use super::{able_config, able_unit, pointer, pointer_of, send, unit};

/// A parameter list of these extents.
fn list(extents: &[(u64, u32)]) -> Vec<u8> {
    let len = u16::try_from(extents.len() * 16).unwrap();
    let mut list = [(len + 6).to_be_bytes(), len.to_be_bytes(), [0; 2], [0; 2]].concat();
    for (lba, blocks) in extents {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

fn unmap(unit: &LogicalUnit, list: &[u8]) -> (Action, Vec<Extent>) {
    let [high, low] = u16::try_from(list.len()).unwrap().to_be_bytes();
    let (action, scratch) = send(unit, &[0x42, 0, 0, 0, 0, 0, 0, high, low, 0], list);
    (action, scratch.extents)
}

fn refused(unit: &LogicalUnit, extents: &[(u64, u32)]) -> [u8; 7] {
    let (action, left) = unmap(unit, &list(extents));
    assert_eq!(left, [], "nothing may be given up");
    pointer_of(action)
}

#[test]
fn unmap_extents_in_the_order_of_the_list() {
    let bytes = [
        [0x00, 0x26, 0x00, 0x20, 0, 0, 0, 0].as_slice(),
        &[0, 0, 0, 0, 0, 0, 0x07, 0xff, 0, 0, 0, 1, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0x01, 0x02, 0xff, 0xff, 0xff, 0xff],
    ]
    .concat();
    let (action, extents) = unmap(&able_unit(), &bytes);
    assert_eq!(action, Action::Unmap);
    assert_eq!(extents, [Extent { lba: 2047, blocks: 1 }, Extent { lba: 16, blocks: 258 }]);
}

#[test]
fn unmap_nothing_is_good() {
    let unit = able_unit();
    assert_eq!(unmap(&unit, &[]), (Action::Good, vec![]));
    assert_eq!(unmap(&unit, &list(&[])), (Action::Good, vec![]));
    assert_eq!(unmap(&unit, &list(&[(0, 0), (2048, 0)])), (Action::Good, vec![]));
    let mut none_stated = list(&[(0, 1)]);
    none_stated[3] = 15; // UNMAP BLOCK DESCRIPTOR DATA LENGTH
    assert_eq!(unmap(&unit, &none_stated), (Action::Good, vec![]));
}

#[test]
fn unmap_short_header_is_a_length_error() {
    for len in 1..8 {
        let (action, _) = unmap(&able_unit(), &[0; 8][..len]);
        assert_eq!(pointer_of(action)[..3], [0x05, 0x1a, 0x00], "{len}");
    }
}

#[test]
fn unmap_descriptor_that_is_cut_off_is_ignored() {
    let whole = list(&[(1, 2), (3, 4)]);
    let (action, extents) = unmap(&able_unit(), &whole[..whole.len() - 1]);
    assert_eq!((action, extents), (Action::Unmap, vec![Extent { lba: 1, blocks: 2 }]));
}

#[test]
fn unmap_beyond_the_end_is_out_of_range() {
    let unit = able_unit();
    for extent in [(2048, 1), (2047, 2), (2049, 0), (1 << 63, 1), (u64::MAX, 1), (u64::MAX, u32::MAX)] {
        assert_eq!(refused(&unit, &[(0, 1), extent])[..3], [0x05, 0x21, 0x00], "{extent:?}");
    }
}

#[test]
fn r03_unmap_over_the_limits_of_vpd_b0_is_refused_and_pointed_at() {
    let unit = able_unit(); // 1024 blocks, 4 extents
    assert_eq!(unmap(&unit, &list(&[(0, 1000), (1000, 24), (0, 0), (0, 0)])).0, Action::Unmap);
    assert_eq!(refused(&unit, &[(0, 1025)]), [0x05, 0x26, 0, 0, 0x80, 0, 16]);
    assert_eq!(refused(&unit, &[(0, 1000), (1000, 25)]), [0x05, 0x26, 0, 0, 0x80, 0, 32]);
    assert_eq!(refused(&unit, &[(0, 1); 5]), [0x05, 0x26, 0, 0, 0x80, 0, 2]);
}

#[test]
fn unmap_write_protected_unit_is_refused() {
    let unit = LogicalUnit::new(LogicalUnitConfig { read_only: true, ..able_config() });
    assert_eq!(refused(&unit, &[(0, 1)])[..3], [0x07, 0x27, 0x00]);
    assert_eq!(unmap(&unit, &list(&[(0, 0)])).0, Action::Good);
}

#[test]
fn unmap_anchor_is_refused() {
    assert_eq!(pointer(&able_unit(), &[0x42, 0x01]), [0x05, 0x24, 0, 0, 0xc8, 0, 1]);
}

#[test]
fn unmap_unable_unit_has_no_such_command() {
    assert_eq!(pointer(&unit(), &[0x42, 0x01]), [0x05, 0x20, 0, 0, 0, 0, 0]);
}
