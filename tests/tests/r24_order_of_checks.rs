//! R24, and the order of checks: of two objections to a request the first one answers, for each pair of neighbours in
//! the list, and a refused command leaves nothing behind.

use std::sync::Arc;

use bdev::testing::{Calls, Recorder};
use bdev::{Gate, Status};
use tests::device::{
    CONTROL, Device, FIRST, Message, Request, Setup, TEST_UNIT_READY, lun, read_10, task_management, unit,
};
use virtio_scsi::{Limit, OnCommandLimit, OnTransferLimit};

const OVERRUN: u8 = 1;
const BAD_TARGET: u8 = 3;
const BUSY: u8 = 5;
const FAILURE: u8 = 9;

const INVALID_OPCODE: (u8, u8, u8) = (0x05, 0x20, 0x00);
const OUT_OF_RANGE: (u8, u8, u8) = (0x05, 0x21, 0x00);
const INVALID_FIELD: (u8, u8, u8) = (0x05, 0x24, 0x00);
const NOT_SUPPORTED: (u8, u8, u8) = (0x05, 0x25, 0x00);
const INVALID_MESSAGE: (u8, u8, u8) = (0x05, 0x49, 0x00);
const POWER_ON: (u8, u8, u8) = (0x06, 0x29, 0x01);

const WELL_KNOWN: [u8; 8] = [0xc1, 1, 0, 0, 0, 0, 0, 0];
const ABSENT: [u8; 8] = [1, 0, 0x40, 9, 0, 0, 0, 0];

/// max_sectors 8 and seg_max 4; the policies tell the limits apart: max_sectors is refused with sense data, cmd_per_lun
/// with BUSY, seg_max with FAILURE. POWER ON is still to be reported.
fn device(cmd_per_lun: u32) -> (Device, Recorder) {
    let gate = Gate::closed();
    let disk = Recorder::gated("disk", 1024, 512, &gate).unwrap();
    let mut setup = Setup::of([unit(0, 0, Arc::new(disk.clone()))]);
    setup.limits.max_sectors = 8;
    setup.limits.seg_max = Some(4);
    setup.limits.cmd_per_lun = cmd_per_lun;
    setup.limits.on_max_sectors = OnTransferLimit::Scsi;
    setup.limits.on_cmd_per_lun = OnCommandLimit::Transport;
    setup.gate = gate;
    (Device::new(setup), disk)
}

/// A device whose only slot is taken.
fn full() -> (Device, Recorder) {
    let (mut device, disk) = device(1);
    assert_eq!(device.answer(FIRST, Request::new(lun(0, 0), &TEST_UNIT_READY)).sense(), Some(POWER_ON));
    device.submit(FIRST, read());
    device.run();
    (device, disk)
}

fn read() -> Request {
    Request::new(lun(0, 0), &read_10(0, 1)).data_in(512)
}

/// A request in more data segments than seg_max.
fn in_five_segments(device: &mut Device, message: &Message) -> usize {
    let chain = device.cut(message, &[51], &[108, 1, 1, 1, 1]);
    device.submit_chain(FIRST, &chain)
}

#[test]
fn r24_data_in_both_directions_is_a_failure_at_once() {
    let (mut device, disk) = device(128);
    for address in [lun(0, 0), ABSENT, WELL_KNOWN] {
        for opcode in 0..=255 {
            let request = Request::new(address, &[opcode, 0, 0, 0, 0, 0, 0, 0, 1, 0]).data_out([1; 512]).data_in(512);
            device.answer(FIRST, request).assert_transport(FAILURE, 1024);
        }
    }
    for (out, into) in [(1, 1), (1, 512), (512, 1), (4096, 100)] {
        let request = Request::new(lun(0, 0), &read_10(0, 1)).data_out(vec![1; out]).data_in(into);
        let token = device.submit(FIRST, request);
        let memory = device.guest.snapshot();
        let reply = device.answer_to(FIRST, token);
        reply.assert_transport(FAILURE, (out + into) as u32);
        let allowed = [device.used_ring(FIRST), reply.response_addr()..reply.response_addr() + 12];
        memory.assert_only(&device.guest, &allowed, "data in both directions");
    }
    assert_eq!((disk.calls(), device.in_flight(0)), (Calls::default(), 0));
}

#[test]
fn order_1_unreadable_chain_before_2_response_area() {
    let (mut device, _) = device(128);
    // Neither a whole header nor any response, and a loop.
    device.raw(FIRST).set_descriptor(50, 1 << 20, 10, 1, 50);
    device.raw(FIRST).set_avail_entry(0, 50);
    device.raw(FIRST).set_avail_index(1);
    device.run();
    assert!(device.broken(FIRST));
    assert_eq!((device.used(FIRST), device.stats(0).no_response_room.value()), (0, 0));
}

#[test]
fn order_2_response_area_before_3_header() {
    let (mut device, _) = device(128);
    let reply = device.answer(FIRST, Message { readable: vec![0; 10], writable: 11 });
    assert_eq!((reply.written, device.stats(0).no_response_room.value()), (0, 1));
    let reply = device.answer(FIRST, Message { readable: vec![0; 10], writable: 107 });
    reply.assert_transport(FAILURE, 0);
}

#[test]
fn order_3_header_before_4_address() {
    let (mut device, _) = device(128);
    for address in [lun(9, 0), [0; 8], [0xff; 8]] {
        let header = Request::new(address, &TEST_UNIT_READY).header();
        let message = Message { readable: header[..50].to_vec(), writable: 108 };
        device.answer(FIRST, message).assert_transport(FAILURE, 0);
    }
}

#[test]
fn order_4_address_before_5_both_directions() {
    let (mut device, _) = device(128);
    for address in [lun(9, 0), [0; 8], [1, 0, 0x80, 0, 0, 0, 0, 0]] {
        let request = Request::new(address, &TEST_UNIT_READY).data_out([0; 10]).data_in(10);
        device.answer(FIRST, request).assert_transport(BAD_TARGET, 20);
    }
}

#[test]
fn order_5_both_directions_before_6_limits() {
    let (mut device, _) = device(128);
    let request = read().data_out([0; 5000]).message();
    device.answer(FIRST, &request).assert_transport(FAILURE, 5512);
    let token = in_five_segments(&mut device, &request);
    device.answer_to(FIRST, token).assert_transport(FAILURE, 5512);
    assert_eq!((device.refused(0, Limit::MaxSectors), device.refused(0, Limit::SegMax)), (0, 0));
}

#[test]
fn order_6_seg_max_before_max_sectors() {
    let (mut device, _) = device(128);
    let request = read().data_in(5000).message();
    let token = in_five_segments(&mut device, &request);
    device.answer_to(FIRST, token).assert_transport(FAILURE, 5000);
    device.answer(FIRST, &request).assert_check(INVALID_FIELD, 5000);
    assert_eq!((device.refused(0, Limit::SegMax), device.refused(0, Limit::MaxSectors)), (1, 1));
}

#[test]
fn order_6_limits_before_7_cmd_per_lun() {
    let (mut device, _) = full();
    let token = in_five_segments(&mut device, &read().message());
    device.answer_to(FIRST, token).assert_transport(FAILURE, 512);
    device.answer(FIRST, read().data_in(5000)).assert_check(INVALID_FIELD, 5000);
    device.answer(FIRST, read()).assert_transport(BUSY, 512);
    let refused = [Limit::SegMax, Limit::MaxSectors, Limit::CmdPerLun].map(|limit| device.refused(0, limit));
    assert_eq!(refused, [1, 1, 1]);
}

/// What a task management function sweeps meets no limit; what is wrong with it before that is still told.
#[test]
fn order_5_both_directions_before_a_sweep_and_a_sweep_before_6_and_7_limits() {
    let (mut device, disk) = full();
    device.submit(CONTROL, task_management(5, lun(0, 0), 0));
    device.poll(); // the function is under way
    let segments = in_five_segments(&mut device, &read().message());
    let large = device.submit(FIRST, read().data_in(5000));
    let full = device.submit(FIRST, read());
    let both = device.submit(FIRST, read().data_out([0; 5]));
    let nowhere = device.submit(FIRST, Request::new(lun(9, 0), &TEST_UNIT_READY));
    device.poll();
    let swept: Vec<(usize, u8)> = device.take(FIRST).iter().map(|reply| (reply.token, reply.code())).collect();
    assert_eq!(swept, [(segments, 4), (large, 4), (full, 4), (both, FAILURE), (nowhere, BAD_TARGET)]);
    let refused = [Limit::SegMax, Limit::MaxSectors, Limit::CmdPerLun].map(|limit| device.refused(0, limit));
    assert_eq!((refused, disk.calls().reads), ([0; 3], 1));
    device.gate.open();
    device.run();
    assert_eq!((device.take_one(FIRST).code(), device.take_one(CONTROL).byte()), (4, 0));
}

#[test]
fn order_6_limits_before_8_lun_exists() {
    let (mut device, _) = device(128);
    let request = Request::new(ABSENT, &TEST_UNIT_READY).data_in(512).message();
    let token = in_five_segments(&mut device, &request);
    device.answer_to(FIRST, token).assert_transport(FAILURE, 512);
    let long = Request::new(ABSENT, &TEST_UNIT_READY).data_in(5000);
    device.answer(FIRST, long).assert_check(INVALID_FIELD, 5000);
    device.answer(FIRST, &request).assert_check(NOT_SUPPORTED, 512);
}

#[test]
fn order_8_lun_exists_before_9_task_attribute_10_attention_and_12_cdb() {
    let (mut device, _) = device(128);
    let request = Request::new(ABSENT, &[0xff]).attribute(3);
    device.answer(FIRST, request).assert_check(NOT_SUPPORTED, 0);
    assert_eq!(device.answer(FIRST, Request::new(lun(0, 0), &TEST_UNIT_READY)).sense(), Some(POWER_ON));
}

#[test]
fn order_7_cmd_per_lun_before_9_task_attribute_and_10_attention() {
    let (mut device, _) = full();
    assert_eq!(device.manage(5, lun(0, 7), 0), 12); // nothing happens to the unit
    device.answer(FIRST, read().attribute(3)).assert_transport(BUSY, 512);
    device.shards.iter_mut().for_each(vhost_user::Shard::reset); // POWER ON again
    device.answer(FIRST, Request::new(lun(0, 0), &TEST_UNIT_READY)).assert_transport(BUSY, 0);
    device.gate.open();
    device.run();
    device.take_one(FIRST).assert_good(0);
    let ready = device.answer(FIRST, Request::new(lun(0, 0), &TEST_UNIT_READY));
    assert_eq!(ready.sense(), Some(POWER_ON), "the refused command has not taken it");
}

#[test]
fn order_9_task_attribute_before_10_attention() {
    let (mut device, _) = device(128);
    device.answer(FIRST, read().attribute(4)).assert_check(INVALID_MESSAGE, 512);
    device.answer(FIRST, read()).assert_check(POWER_ON, 512);
}

#[test]
fn order_10_attention_before_12_cdb() {
    for cdb in
        [[0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0x28, 0xe0, 0, 0, 0, 0, 0, 0, 1, 0], [0x9e, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0]]
    {
        let (mut device, _) = device(128);
        let expected = if cdb[0] == 0xff { INVALID_OPCODE } else { INVALID_FIELD };
        device.answer(FIRST, Request::new(lun(0, 0), &cdb).data_in(512)).assert_check(POWER_ON, 512);
        device.answer(FIRST, Request::new(lun(0, 0), &cdb).data_in(512)).assert_check(expected, 512);
    }
}

#[test]
fn order_10_attention_before_13_length_and_14_lba() {
    let (mut device, disk) = device(128);
    device.answer(FIRST, Request::new(lun(0, 0), &read_10(5000, 2)).data_in(512)).assert_check(POWER_ON, 512);
    device.answer(FIRST, Request::new(lun(0, 0), &read_10(5000, 2)).data_in(512)).assert_transport(OVERRUN, 512);
    assert_eq!(disk.calls(), Calls::default());
}

/// INQUIRY and REPORT LUNS are carried out although an attention is pending, and so they object to their own CDB.
#[test]
fn order_10_attention_does_not_stop_inquiry_and_report_luns() {
    let (mut device, _) = device(128);
    let inquiry = Request::new(lun(0, 0), &[0x12, 0, 9, 0, 36, 0]).data_in(36);
    device.answer(FIRST, inquiry).assert_check(INVALID_FIELD, 36);
    let report = Request::new(lun(0, 0), &[0xa0, 0, 9, 0, 0, 0, 0, 0, 0, 16, 0, 0]).data_in(16);
    device.answer(FIRST, report).assert_check(INVALID_FIELD, 16);
    device.answer(FIRST, read()).assert_check(POWER_ON, 512);
}

/// REQUEST SENSE that cannot return its data has not told anybody.
#[test]
fn order_10_attention_stays_where_request_sense_overruns() {
    let (mut device, _) = device(128);
    let sense = |room| Request::new(lun(0, 0), &[3, 0, 0, 0, 18, 0]).data_in(room);
    device.answer(FIRST, sense(10)).assert_transport(OVERRUN, 10);
    let refused = Request::new(lun(0, 0), &[3, 0, 0, 0, 18, 4]).data_in(18); // NACA
    device.answer(FIRST, refused).assert_check(INVALID_FIELD, 18);
    let reply = device.answer(FIRST, sense(18));
    assert_eq!((reply.data()[2], reply.data()[12], reply.data()[13]), POWER_ON);
    assert_eq!(device.answer(FIRST, sense(18)).data()[2], 0);
}

#[test]
fn order_12_cdb_before_13_length() {
    let (mut device, disk) = ready_device();
    let protected = Request::new(lun(0, 0), &[0x28, 0x20, 0, 0, 0, 0, 0, 0, 2, 0]).data_in(512);
    device.answer(FIRST, protected).assert_check(INVALID_FIELD, 512);
    let unknown = Request::new(lun(0, 0), &[0x7e, 0, 0, 0, 0, 0, 0, 0, 2, 0]).data_out([0; 10]);
    device.answer(FIRST, unknown).assert_check(INVALID_OPCODE, 10);
    let page = Request::new(lun(0, 0), &[0x12, 1, 0x77, 0, 255, 0]).data_in(1);
    device.answer(FIRST, page).assert_check(INVALID_FIELD, 1);
    assert_eq!(disk.calls(), Calls::default());
}

fn ready_device() -> (Device, Recorder) {
    let (mut device, disk) = device(128);
    assert_eq!(device.answer(FIRST, Request::new(lun(0, 0), &TEST_UNIT_READY)).sense(), Some(POWER_ON));
    (device, disk)
}

#[test]
fn order_13_length_before_14_lba() {
    let (mut device, disk) = ready_device();
    device.answer(FIRST, Request::new(lun(0, 0), &read_10(1024, 2)).data_in(1023)).assert_transport(OVERRUN, 1023);
    device
        .answer(FIRST, Request::new(lun(0, 0), &read_10(1024, 2)).data_out([0; 1024]))
        .assert_transport(OVERRUN, 1024);
    device.answer(FIRST, Request::new(lun(0, 0), &read_10(1024, 2)).data_in(1024)).assert_check(OUT_OF_RANGE, 1024);
    assert_eq!(disk.calls(), Calls::default());
}

#[test]
fn order_14_lba_before_15_backend() {
    let (mut device, disk) = ready_device();
    disk.fail_next(1, Status::ReadError);
    for lba in [1024, 1023, u32::MAX] {
        device.answer(FIRST, Request::new(lun(0, 0), &read_10(lba, 2)).data_in(1024)).assert_check(OUT_OF_RANGE, 1024);
    }
    assert_eq!(disk.calls(), Calls::default());
    device.answer(FIRST, read()).assert_check((0x03, 0x11, 0x00), 512);
}

/// Whatever refused it: a refused command holds no slot.
#[test]
fn order_refused_commands_hold_no_slot() {
    let (mut device, disk) = device(1);
    let refused: [Request; 10] = [
        read().attribute(3),
        read(), // POWER ON
        read().data_out([0; 9]),
        read().data_in(5000),
        Request::new(lun(0, 0), &[0xff]),
        Request::new(lun(0, 0), &[0x28, 0xe0]).data_in(512),
        read().data_in(511),
        Request::new(lun(0, 0), &read_10(1024, 1)).data_in(512),
        Request::new(ABSENT, &TEST_UNIT_READY),
        Request::new(lun(9, 0), &TEST_UNIT_READY),
    ];
    for request in &refused {
        let reply = device.answer(FIRST, request);
        assert_ne!(reply.outcome(), (0, 0));
        assert_ne!(reply.code(), BUSY);
        assert_eq!(device.in_flight(0), 0);
    }
    device.submit(FIRST, read());
    device.run();
    assert_eq!((disk.calls().reads, device.in_flight(0)), (1, 1));
}

/// Every status that a backend can end a command with is a CHECK CONDITION of its own.
#[test]
fn order_15_backend_failures_have_their_sense() {
    for (status, read_sense, write_sense) in [
        (Status::ReadError, (0x03, 0x11, 0x00), (0x03, 0x11, 0x00)),
        (Status::WriteError, (0x03, 0x0c, 0x00), (0x03, 0x0c, 0x00)),
        (Status::NoSpace, (0x07, 0x27, 0x07), (0x07, 0x27, 0x07)),
        (Status::WriteProtected, (0x07, 0x27, 0x00), (0x07, 0x27, 0x00)),
        (Status::OutOfRange, OUT_OF_RANGE, OUT_OF_RANGE),
        (Status::Unsupported, INVALID_OPCODE, INVALID_OPCODE),
        (Status::Gone, NOT_SUPPORTED, NOT_SUPPORTED),
        (Status::Busy, (0x0b, 0x00, 0x00), (0x0b, 0x00, 0x00)),
        (Status::Aborted, (0x0b, 0x00, 0x00), (0x0b, 0x00, 0x00)),
        (Status::Failed, (0x03, 0x11, 0x00), (0x03, 0x0c, 0x00)),
    ] {
        let (mut device, disk) = ready_device();
        disk.fail_next(3, status);
        device.answer(FIRST, read()).assert_check(read_sense, 512);
        let write = Request::new(lun(0, 0), &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]).data_out([0; 512]);
        device.answer(FIRST, write).assert_check(write_sense, 512);
        let flush = Request::new(lun(0, 0), &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        device.answer(FIRST, flush).assert_check(write_sense, 0);
        assert_eq!(device.stats(0).units[0].errors.value(), 4, "and the unit attention");
        assert_eq!(device.manage(6, lun(0, 0), 0), 0);
        assert_eq!(device.outstanding(CONTROL), 0);
    }
}
