//! R11: the REPORT LUNS well-known logical unit is there in both of its addresses, and safe to ask.

use std::sync::Arc;

use bdev::testing::{Calls, Recorder};
use tests::device::{Device, FIRST, Request, Setup, TEST_UNIT_READY, unit};

const GLOBAL: [u8; 8] = [0xc1, 1, 0, 0, 0, 0, 0, 0];

/// LUNs 0, 5 and 300 of target 0, LUN 2 of target 3.
fn device() -> (Device, Recorder) {
    let disk = Recorder::new("disk", 1024, 512).unwrap();
    let units = [(0, 0), (0, 5), (0, 300), (3, 2)].map(|(target, lun)| unit(target, lun, Arc::new(disk.clone())));
    (Device::ready(Setup::of(units)), disk)
}

fn in_target(target: u8) -> [u8; 8] {
    [1, target, 0xc1, 1, 0, 0, 0, 0]
}

fn report_luns(select: u8, room: usize) -> impl Fn([u8; 8]) -> Request {
    let [a, b, c, d] = (room as u32).to_be_bytes();
    move |lun| Request::new(lun, &[0xa0, 0, select, 0, 0, 0, a, b, c, d, 0, 0]).data_in(room)
}

#[test]
fn r11_report_luns_is_the_inventory_of_the_target() {
    let (mut device, _) = device();
    #[rustfmt::skip]
    let target_0 = [
        0, 0, 0, 24, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
        0, 5, 0, 0, 0, 0, 0, 0,
        0x41, 0x2c, 0, 0, 0, 0, 0, 0,
    ];
    for address in [GLOBAL, in_target(0)] {
        device.answer(FIRST, report_luns(0, 64)(address)).assert_data(&target_0);
        device.answer(FIRST, report_luns(0, 20)(address)).assert_data(&target_0[..20]);
        device.answer(FIRST, report_luns(0, 0)(address)).assert_data(&[]);
    }
    let target_3 = [0, 0, 0, 8, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0];
    device.answer(FIRST, report_luns(0, 64)(in_target(3))).assert_data(&target_3);
}

#[test]
fn r11_select_report_1_is_the_well_known_unit_and_2_is_everything() {
    let (mut device, _) = device();
    let only = [0, 0, 0, 8, 0, 0, 0, 0, 0xc1, 1, 0, 0, 0, 0, 0, 0];
    for address in [GLOBAL, in_target(0), in_target(3)] {
        device.answer(FIRST, report_luns(1, 16)(address)).assert_data(&only);
    }
    let both = [0, 0, 0, 16, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0xc1, 1, 0, 0, 0, 0, 0, 0];
    device.answer(FIRST, report_luns(2, 64)(in_target(3))).assert_data(&both);
    for reserved in [3, 0x13, 0xff] {
        device.answer(FIRST, report_luns(reserved, 16)(GLOBAL)).assert_check((0x05, 0x24, 0x00), 16);
    }
}

#[test]
fn r11_inventory_is_empty_where_target_0_is_absent() {
    let mut device = Device::ready(Setup::of([]));
    device.answer(FIRST, report_luns(0, 16)(GLOBAL)).assert_data(&[0; 8]);
    let only = [0, 0, 0, 8, 0, 0, 0, 0, 0xc1, 1, 0, 0, 0, 0, 0, 0];
    device.answer(FIRST, report_luns(1, 16)(GLOBAL)).assert_data(&only);
    device.answer(FIRST, Request::new(GLOBAL, &TEST_UNIT_READY)).assert_good(0);
    assert_eq!(device.manage(5, GLOBAL, 0), 0);
    device.answer(FIRST, report_luns(0, 16)(in_target(0))).assert_transport(3, 16);
}

#[test]
fn r11_inquiry_says_what_it_is() {
    let (mut device, _) = device();
    for address in [GLOBAL, in_target(0), in_target(3)] {
        let reply = device.answer(FIRST, Request::new(address, &[0x12, 0, 0, 0, 96, 0]).data_in(96));
        reply.assert_good(0);
        assert_eq!(reply.data()[0], 0x1e, "qualifier 0, type 1Eh");
        let pages = Request::new(address, &[0x12, 1, 0, 0, 64, 0]).data_in(64);
        device.answer(FIRST, pages).assert_data(&[0x1e, 0, 0, 2, 0, 0x83]);
        let unknown = Request::new(address, &[0x12, 1, 0xb0, 0, 64, 0]).data_in(64);
        device.answer(FIRST, unknown).assert_check((0x05, 0x24, 0x00), 64);
    }
}

#[test]
fn r11_test_unit_ready_and_request_sense_have_nothing_to_say() {
    let (mut device, _) = device();
    for address in [GLOBAL, in_target(0), in_target(3)] {
        device.answer(FIRST, Request::new(address, &TEST_UNIT_READY)).assert_good(0);
        let sense = Request::new(address, &[3, 0, 0, 0, 252, 0]).data_in(252);
        let nothing = [0x70, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        device.answer(FIRST, sense).assert_data(&nothing);
    }
}

#[test]
fn r11_every_other_operation_code_is_invalid() {
    let (mut device, disk) = device();
    for address in [GLOBAL, in_target(0)] {
        for opcode in (0..=255).filter(|opcode| ![0x00, 0x03, 0x12, 0xa0].contains(opcode)) {
            let reply = device.answer(FIRST, Request::new(address, &[opcode]));
            reply.assert_check((0x05, 0x20, 0x00), 0);
        }
    }
    assert_eq!(disk.calls(), Calls::default());
}

#[test]
fn r11_task_management_is_complete() {
    let (mut device, _) = device();
    for address in [GLOBAL, in_target(0), in_target(3)] {
        for subtype in [0, 1, 3, 4, 5, 6, 7] {
            assert_eq!(device.manage(subtype, address, 0), 0);
        }
    }
    assert_eq!(device.manage(5, in_target(9), 0), 3, "no such target");
}

/// No-op of devices before REPORT LUNS had a unit of its own.
#[test]
fn r11_lun_of_zeroes_is_a_bad_target_and_wedges_nothing() {
    let (mut device, _) = device();
    for _ in 0..200 {
        device.answer(FIRST, Request::new([0; 8], &TEST_UNIT_READY)).assert_transport(3, 0);
    }
    let write = Request::new([0; 8], &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]).data_out([0; 512]);
    device.answer(FIRST, write).assert_transport(3, 512);
    assert_eq!(device.manage(0, [0; 8], 0), 3);
    device.answer(FIRST, Request::new(GLOBAL, &TEST_UNIT_READY)).assert_good(0);
}
