//! R20: max_target and max_lun are addresses that exist, in both addressing formats.

use std::sync::Arc;

use bdev::testing::Recorder;
use tests::device::{Device, FIRST, Request, Setup, TEST_UNIT_READY, lun, read_10, unit};

/// Peripheral device addressing.
fn peripheral(target: u8, lun: u8) -> [u8; 8] {
    [1, target, 0, lun, 0, 0, 0, 0]
}

const ADDRESSES: [(u8, u16); 7] = [(0, 0), (0, 255), (0, 256), (0, 16383), (255, 0), (255, 255), (255, 16383)];

/// The number of blocks tells the units apart.
fn device() -> (Device, Vec<Recorder>) {
    let disks: Vec<Recorder> = (0..7).map(|at| Recorder::new("disk", 100 + at, 512).unwrap()).collect();
    let units: Vec<_> = ADDRESSES
        .iter()
        .zip(&disks)
        .map(|((target, number), disk)| unit(*target, *number, Arc::new(disk.clone())))
        .collect();
    (Device::ready(Setup::of(units)), disks)
}

fn last_block(device: &mut Device, address: [u8; 8]) -> u32 {
    let reply = device.answer(FIRST, Request::new(address, &[0x25]).data_in(8));
    reply.assert_good(0);
    u32::from_be_bytes(reply.data()[..4].try_into().unwrap())
}

#[test]
fn r20_largest_target_and_lun_exist() {
    let (mut device, _) = device();
    for (at, (target, number)) in (99..).zip(ADDRESSES) {
        assert_eq!(last_block(&mut device, lun(target, number)), at, "flat, target {target}, LUN {number}");
        if let Ok(low) = u8::try_from(number) {
            assert_eq!(last_block(&mut device, peripheral(target, low)), at, "peripheral, target {target}, LUN {low}");
        }
    }
}

#[test]
fn r20_neighbours_of_units_do_not_exist() {
    let (mut device, disks) = device();
    for (target, number) in [(0, 1), (0, 254), (0, 257), (0, 16382), (255, 1), (255, 256)] {
        let reply = device.answer(FIRST, Request::new(lun(target, number), &TEST_UNIT_READY));
        reply.assert_check((0x05, 0x25, 0x00), 0);
    }
    for target in [1, 127, 254] {
        device.answer(FIRST, Request::new(lun(target, 0), &TEST_UNIT_READY)).assert_transport(3, 0);
    }
    assert!(disks.iter().all(|disk| disk.calls().ended == 0));
}

#[test]
fn r20_both_formats_are_the_same_unit() {
    let (mut device, disks) = device();
    for address in [lun(0, 255), peripheral(0, 255)] {
        device.answer(FIRST, Request::new(address, &read_10(0, 1)).data_in(512)).assert_good(0);
    }
    assert_eq!(disks[1].calls().reads, 2);
    assert_eq!(device.manage(5, peripheral(0, 255), 0), 0);
    let reply = device.answer(FIRST, Request::new(lun(0, 255), &TEST_UNIT_READY));
    assert_eq!(reply.sense(), Some((0x06, 0x29, 0x03)), "the reset came by the other address");
}

#[test]
fn r20_report_luns_lists_small_numbers_peripheral_and_large_ones_flat() {
    let (mut device, _) = device();
    let report = Request::new(lun(0, 0), &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]).data_in(64);
    #[rustfmt::skip]
    device.answer(FIRST, report).assert_data(&[
        0, 0, 0, 32, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
        0, 255, 0, 0, 0, 0, 0, 0,
        0x41, 0, 0, 0, 0, 0, 0, 0,
        0x7f, 0xff, 0, 0, 0, 0, 0, 0,
    ]);
}
