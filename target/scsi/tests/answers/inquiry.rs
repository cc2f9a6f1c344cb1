//! Standard INQUIRY data and the VPD pages of a disk.

use scsi::{Addressee, Identity, LogicalUnit, LogicalUnitConfig, Provisioning, Unmap};

use super::{able_config, able_unit, config, data, refused, unit};

fn vpd(unit: &LogicalUnit, page: u8) -> Vec<u8> {
    data(unit, &[0x12, 0x01, page, 0x01, 0xfc, 0])
}

#[test]
fn inquiry_standard_data_is_a_disk_of_spc_4_and_later() {
    let inquiry = data(&unit(), &[0x12, 0, 0, 0, 0xff, 0]);
    let mut expected = vec![0x00, 0x00, 0x06, 0x12, 91, 0x00, 0x00, 0x02];
    expected.extend(b"RINGSIDEtest disk       0.1 ");
    expected.extend([0; 22]);
    expected.extend([0x00, 0xc0, 0x05, 0xc0, 0x06, 0x00, 0x04, 0x60, 0x04, 0xc0]); // SAM-6, SPC-5, SBC-4, SPC-4, SBC-3
    expected.extend([0; 28]);
    assert_eq!(inquiry, expected);
    assert_eq!(inquiry.len(), 96);
}

#[test]
fn inquiry_allocation_length_cuts_but_additional_length_stays() {
    let inquiry = data(&unit(), &[0x12, 0, 0, 0, 36, 0]);
    assert_eq!(inquiry.len(), 36);
    assert_eq!(inquiry[4], 91);
    assert_eq!(data(&unit(), &[0x12, 0, 0, 0, 5, 0]), [0x00, 0x00, 0x06, 0x12, 91]);
    assert_eq!(data(&unit(), &[0x12, 0, 0, 0, 0, 0]), []);
}

#[test]
fn vpd_00_lists_pages_in_ascending_order() {
    assert_eq!(vpd(&unit(), 0x00), [0x00, 0x00, 0x00, 0x08, 0x00, 0x80, 0x83, 0x86, 0x87, 0xb0, 0xb1, 0xb2]);
}

#[test]
fn vpd_every_listed_page_answers_and_no_other() {
    let unit = unit();
    let listed = vpd(&unit, 0x00)[4..].to_vec();
    for page in 0..=0xff {
        if listed.contains(&page) {
            let bytes = vpd(&unit, page);
            assert_eq!(bytes[..2], [0x00, page]);
            assert_eq!(usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), bytes.len() - 4, "{page:02x}");
        } else {
            let sense = refused(Addressee::Unit(&unit), &[0x12, 0x01, page, 0, 0xff, 0]);
            assert_eq!(sense.fixed()[12..], [0x24, 0x00, 0x00, 0xc0, 0x00, 0x02], "{page:02x}");
        }
    }
}

#[test]
fn vpd_80_is_the_serial_number() {
    let mut expected = vec![0x00, 0x80, 0x00, 9];
    expected.extend(b"serial-42");
    assert_eq!(vpd(&unit(), 0x80), expected);
}

#[test]
fn vpd_83_has_naa_and_t10_vendor_designators() {
    let mut expected = vec![0x00, 0x83, 0x00, 49];
    expected.extend([0x01, 0x03, 0x00, 8, 0x31, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    expected.extend([0x02, 0x01, 0x00, 33]);
    expected.extend(b"RINGSIDEtest disk       serial-42");
    assert_eq!(vpd(&unit(), 0x83), expected);
}

#[test]
fn vpd_83_unchecked_identity_is_still_well_formed() {
    let identity = Identity {
        vendor: [0x00; 8],
        product: [0xff; 16],
        revision: [b'\n'; 4],
        serial: "é".repeat(500),
        naa: scsi::Naa::local(0xf123_4567_89ab_cdef),
    };
    let unit = LogicalUnit::new(LogicalUnitConfig { identity, ..config() });
    let page = vpd(&unit, 0x83);
    assert_eq!(page[8], 0x31);
    assert_eq!(page[16..20], [0x02, 0x01, 0x00, 8 + 16 + 128]);
    assert_eq!(page.len(), 20 + 8 + 16 + 128);
    assert!(page[20..].iter().all(|&byte| byte == b'?'));
    assert!(data(&unit, &[0x12, 0, 0, 0, 96, 0])[8..36].iter().all(|&byte| byte == b'?'));
    assert_eq!(vpd(&unit, 0x80).len(), 4 + 128);
}

#[test]
fn r03_vpd_b0_reports_transfer_lengths() {
    let unit = LogicalUnit::new(LogicalUnitConfig {
        max_transfer_blocks: 0x0102_0300,
        optimal_transfer_blocks: 0x0001_0000,
        physical_block_exponent: 3,
        ..config()
    });
    let page = vpd(&unit, 0xb0);
    assert_eq!(page[..8], [0x00, 0xb0, 0x00, 0x3c, 0x00, 0x00, 0x00, 0x08]);
    assert_eq!(page[8..16], [0x01, 0x02, 0x03, 0x00, 0x00, 0x01, 0x00, 0x00]);
    assert_eq!(page[16..], [0; 48]);
}

#[test]
fn vpd_b1_medium_rotation_rate() {
    let page = vpd(&unit(), 0xb1);
    assert_eq!(page[..6], [0x00, 0xb1, 0x00, 0x3c, 0x00, 0x01]);
    assert_eq!(page[6..], [0; 58]);
    let rotating = LogicalUnit::new(LogicalUnitConfig { rotational: true, ..config() });
    assert_eq!(vpd(&rotating, 0xb1)[4..6], [0x1c, 0x20]);
}

#[test]
fn vpd_b2_is_fully_provisioned() {
    assert_eq!(vpd(&unit(), 0xb2), [0x00, 0xb2, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00]);
}

#[test]
fn vpd_86_task_attributes_and_volatile_cache() {
    let page = vpd(&unit(), 0x86);
    assert_eq!(page[..8], [0x00, 0x86, 0x00, 0x3c, 0x00, 0x07, 0x00, 0x00]);
    assert_eq!(page[8..], [0; 56]);
    let cached = LogicalUnit::new(LogicalUnitConfig { write_cache: true, ..config() });
    assert_eq!(vpd(&cached, 0x86)[4..8], [0x00, 0x07, 0x01, 0x00]);
}

#[test]
fn vpd_87_all_mode_pages_are_shared() {
    assert_eq!(vpd(&unit(), 0x87), [0x00, 0x87, 0x00, 0x04, 0x3f, 0xff, 0x00, 0x00]);
}

#[test]
fn vpd_b0_reports_what_the_unit_is_able_to_do() {
    let unmap = Unmap {
        provisioning: Provisioning::Thin,
        max_blocks: 0x0102_0304,
        max_extents: 0x0506,
        granularity_blocks: 0x0708_090a,
        alignment_blocks: 0x0102_0305,
        reads_zero: true,
    };
    let unit = LogicalUnit::new(LogicalUnitConfig {
        write_same_max_blocks: 0x0b0c_0d0e,
        compare_and_write_max_blocks: 0x0f,
        unmap: Some(unmap),
        ..config()
    });
    let page = vpd(&unit, 0xb0);
    assert_eq!(page[..8], [0x00, 0xb0, 0x00, 0x3c, 0x01, 0x0f, 0x00, 0x01]); // WSNZ
    assert_eq!(page[8..20], [0; 12]); // no transfer lengths, no prefetch length
    assert_eq!(page[20..28], [0x01, 0x02, 0x03, 0x04, 0x00, 0x00, 0x05, 0x06]);
    assert_eq!(page[28..36], [0x07, 0x08, 0x09, 0x0a, 0x81, 0x02, 0x03, 0x05]); // UGAVALID
    assert_eq!(page[36..44], [0x00, 0x00, 0x00, 0x00, 0x0b, 0x0c, 0x0d, 0x0e]);
    assert_eq!(page[44..], [0; 20]);
}

#[test]
fn vpd_b1_compares_blocks_that_were_given_up() {
    assert_eq!(vpd(&able_unit(), 0xb1)[4..10], [0x00, 0x01, 0, 0, 0x01, 0]); // VBULS
}

#[test]
fn vpd_b2_follows_provisioning() {
    let b2 = |config| vpd(&LogicalUnit::new(config), 0xb2)[4..].to_vec();
    let unmap = able_config().unmap.unwrap();
    assert_eq!(b2(able_config()), [0x00, 0xe4, 0x02, 0x00]); // LBPU, LBPWS, LBPWS10, LBPRZ; thin
    let resource = Unmap { provisioning: Provisioning::Resource, ..unmap };
    assert_eq!(b2(LogicalUnitConfig { unmap: Some(resource), ..able_config() }), [0x00, 0xe4, 0x01, 0x00]);
    let unspecified = Unmap { reads_zero: false, ..unmap };
    assert_eq!(b2(LogicalUnitConfig { unmap: Some(unspecified), ..able_config() }), [0x00, 0xe0, 0x02, 0x00]);
    assert_eq!(b2(LogicalUnitConfig { write_same_max_blocks: 0, ..able_config() }), [0x00, 0x84, 0x02, 0x00]);
    assert_eq!(b2(LogicalUnitConfig { unmap: None, ..able_config() }), [0x00, 0x00, 0x00, 0x00]);
}
