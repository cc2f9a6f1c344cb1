//! MODE SELECT through the device: parameter lists reach it however they are cut, modes have the effect they promise,
//! and a reset or a new session ends them.

use std::sync::Arc;

use bdev::Malloc;
use tests::device::{Device, FIRST, Reply, Request, Setup, lun, unit_with};

const LUN_RESET: u32 = 5;
/// A header and a control mode page with D_SENSE; without it the third byte of the page is 02h.
const D_SENSE: [u8; 16] = [0, 0, 0, 0, 0x0a, 10, 0x06, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
const SELECT: [u8; 6] = [0x15, 0x10, 0, 0, 16, 0];
const WRITE: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];

fn device(write_cache: bool) -> Device {
    let disk = Arc::new(Malloc::new("disk", 512 * 64, 512).unwrap());
    Device::ready(Setup::of([unit_with(0, 0, disk, |config| config.write_cache = write_cache)]))
}

fn send(device: &mut Device, cdb: &[u8], list: &[u8]) -> Reply {
    device.answer(FIRST, Request::new(lun(0, 0), cdb).data_out(list))
}

/// Bytes of sense data of an operation code that there is not: 18 in fixed, 8 in descriptor format.
fn sense_len(device: &mut Device) -> u32 {
    device.answer(FIRST, Request::new(lun(0, 0), &[0xff])).sense_len()
}

#[test]
fn mode_select_d_sense_changes_sense_data_until_a_reset() {
    let mut device = device(false);
    assert_eq!(sense_len(&mut device), 18);
    send(&mut device, &SELECT, &D_SENSE).assert_good(0);
    assert_eq!(sense_len(&mut device), 8);
    assert_eq!(device.manage(LUN_RESET, lun(0, 0), 0), 0);
    send(&mut device, &[0x00], &[]).assert_check((0x06, 0x29, 0x03), 0);
    assert_eq!(sense_len(&mut device), 18);
}

#[test]
fn mode_select_does_not_outlive_its_session() {
    let mut device = device(false);
    send(&mut device, &SELECT, &D_SENSE).assert_good(0);
    device.reconnect();
    device.run();
    assert_eq!(device.answer(FIRST, Request::new(lun(0, 0), &[0x00])).sense_len(), 18);
}

#[test]
fn r21_mode_select_longer_buffer_is_residual_and_shorter_is_overrun() {
    let mut device = device(false);
    let mut long = D_SENSE.to_vec();
    long.extend([0xff; 5]);
    send(&mut device, &SELECT, &long).assert_good(5);
    send(&mut device, &SELECT, &D_SENSE[..15]).assert_transport(1, 15);
    assert_eq!(sense_len(&mut device), 8);
}

#[test]
fn mode_select_list_in_single_bytes_is_the_same_list() {
    let mut device = device(false);
    let message = Request::new(lun(0, 0), &SELECT).data_out(D_SENSE).message();
    let cuts = [&[51][..], &[1; 16]].concat();
    let segments = device.cut(&message, &cuts, &[108]);
    device.answer_chain(FIRST, &segments).assert_good(0);
    assert_eq!(sense_len(&mut device), 8);
}

#[test]
fn mode_select_swp_refuses_writes() {
    let mut device = device(false);
    let mut list = D_SENSE;
    (list[6], list[8]) = (0x02, 0x08);
    send(&mut device, &SELECT, &list).assert_good(0);
    send(&mut device, &WRITE, &[1; 512]).assert_check((0x07, 0x27, 0x02), 512);
}

#[test]
fn mode_select_wce_off_is_good_after_the_flush() {
    let mut device = device(true);
    let mut list = vec![0, 0, 0, 0, 0x08, 18];
    list.extend([0; 18]);
    send(&mut device, &[0x15, 0x10, 0, 0, 24, 0], &list).assert_good(0);
    let sensed = device.answer(FIRST, Request::new(lun(0, 0), &[0x1a, 0x08, 0x08, 0, 24, 0]).data_in(24));
    assert_eq!(sensed.data()[4..7], [0x08, 18, 0x00]);
    send(&mut device, &WRITE, &[1; 512]).assert_good(0);
}
