//! R18: a logical unit gets another capacity. The driver learns it by an event, if it asked for those, and by a unit
//! attention in any case; the device's features are HOTPLUG and CHANGE, and not INOUT.

use std::sync::Arc;

use bdev::Null;
use tests::device::{CHANGE, Device, FIRST, HOTPLUG, Request, Setup, TEST_UNIT_READY, lun, read_10, unit};
use virtio_scsi::ChangeError;

const CAPACITY_CHANGED: (u8, u8, u8) = (0x06, 0x2a, 0x09);
const OUT_OF_RANGE: (u8, u8, u8) = (0x05, 0x21, 0x00);
const PARAM_CHANGE: u32 = 3;

fn device(features: u64, shards: usize) -> Device {
    let disk = || Arc::new(Null::new("disk", 1024, 512).unwrap());
    let mut setup = Setup::of([unit(0, 0, disk()), unit(0, 1, disk())]);
    setup.request_queues = 2;
    setup.shards = shards;
    let mut device = Device::ready(setup);
    device.accept(features);
    device.post_event_buffer(16);
    device
}

fn ready(number: u16) -> Request {
    Request::new(lun(0, number), &TEST_UNIT_READY)
}

fn read(lba: u32) -> Request {
    Request::new(lun(0, 1), &read_10(lba, 1)).data_in(512)
}

/// READ CAPACITY (10): the last block, and the block size.
fn capacity(device: &mut Device) -> [u8; 8] {
    let request = Request::new(lun(0, 1), &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]).data_in(8);
    let reply = device.answer(FIRST, request);
    reply.assert_good(0);
    reply.data().try_into().unwrap()
}

#[test]
fn r18_resize_is_told_by_event_and_unit_attention_and_is_in_force_on_every_queue() {
    for shards in [1, 2] {
        let mut device = device(CHANGE, shards);
        device.resize(0, 1, 512).unwrap();
        // ASC 2Ah in bits 0 to 7 of the reason, ASCQ 09h in bits 8 to 15.
        assert_eq!(device.events(), [(PARAM_CHANGE, [1, 0, 0, 1, 0, 0, 0, 0], 0x092a)]);
        device.answer(FIRST + 1, ready(1)).assert_check(CAPACITY_CHANGED, 0);
        assert_eq!(capacity(&mut device), [0, 0, 1, 0xff, 0, 0, 2, 0]);
        for queue in [FIRST, FIRST + 1] {
            device.answer(queue, read(511)).assert_good(0);
            device.answer(queue, read(512)).assert_check(OUT_OF_RANGE, 512);
        }
        device.answer(FIRST, ready(0)).assert_good(0);
        device.post_event_buffer(16);
        device.resize(0, 1, 1024).unwrap();
        assert_eq!(device.events().len(), 1);
        device.answer(FIRST, ready(1)).assert_check(CAPACITY_CHANGED, 0);
        assert_eq!(capacity(&mut device), [0, 0, 3, 0xff, 0, 0, 2, 0]);
        device.answer(FIRST, read(1023)).assert_good(0);
    }
}

#[test]
fn r18_driver_that_did_not_ask_for_change_events_gets_the_unit_attention_only() {
    let mut device = device(HOTPLUG, 1);
    device.resize(0, 1, 7).unwrap();
    device.run();
    assert_eq!(device.events(), []);
    device.answer(FIRST, ready(1)).assert_check(CAPACITY_CHANGED, 0);
}

#[test]
fn r18_capacity_outside_the_bdev_is_refused_and_nothing_changes() {
    let mut device = device(CHANGE, 1);
    for value in [0, 1025, u64::MAX] {
        let expected = ChangeError::OutOfRange { field: "block_count", value, min: 1, max: 1024 };
        assert_eq!(device.resize(0, 1, value), Err(expected));
    }
    assert_eq!(device.resize(0, 2, 1), Err(ChangeError::Absent { target: 0, lun: 2 }));
    device.run();
    assert_eq!(device.events(), []);
    device.answer(FIRST, ready(1)).assert_good(0);
}

#[test]
fn r18_hotplug_and_change_are_offered_and_inout_is_not() {
    let device = device(0, 1);
    assert_eq!(device.controller.features() & 0b111, 0b110);
}
