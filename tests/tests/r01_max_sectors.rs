//! R01: `max_sectors` is a hard limit on the data bytes of a request, whatever its CDB says.

use std::sync::Arc;

use bdev::testing::{Calls, Recorder};
use tests::device::{Device, FIRST, Request, Setup, TEST_UNIT_READY, lun, read_10, unit, write_10};
use virtio_scsi::{Limit, Limits, OnTransferLimit};

/// max_sectors of every device here, and what it is in bytes.
const SECTORS: u32 = 8;
const BYTES: usize = 4096;
const FAILURE: u8 = 9;

const INVALID_FIELD_IN_CDB: (u8, u8, u8) = (0x05, 0x24, 0x00);

fn device(policy: OnTransferLimit) -> (Device, Recorder) {
    let disk = Recorder::new("disk", 1 << 20, 512).unwrap();
    let mut setup = Setup::of([unit(0, 0, Arc::new(disk.clone()))]);
    setup.limits = Limits { max_sectors: SECTORS, on_max_sectors: policy, ..Limits::default() };
    (Device::ready(setup), disk)
}

fn read(blocks: u16, room: usize) -> Request {
    Request::new(lun(0, 0), &read_10(0, blocks)).data_in(room)
}

fn write(blocks: u16, bytes: usize) -> Request {
    Request::new(lun(0, 0), &write_10(0, blocks)).data_out(vec![7; bytes])
}

#[test]
fn r01_transfer_of_exactly_max_sectors_is_done() {
    for policy in [OnTransferLimit::Transport, OnTransferLimit::Scsi] {
        let (mut device, disk) = device(policy);
        device.answer(FIRST, read(8, BYTES)).assert_good(0);
        device.answer(FIRST, write(8, BYTES)).assert_good(0);
        assert_eq!(disk.calls(), Calls { reads: 1, writes: 1, flushes: 0, ended: 2 });
        assert_eq!(device.refused(0, Limit::MaxSectors), 0);
    }
}

#[test]
fn r01_one_byte_more_is_answered_failure_and_never_reaches_the_backend() {
    for request in [read(8, BYTES + 1), write(8, BYTES + 1), read(9, 9 * 512), write(9, 9 * 512), read(8, 300_000)] {
        let data = request.message().readable.len() - 51 + request.message().writable - 108;
        let (mut device, disk) = device(OnTransferLimit::Transport);
        let token = device.submit(FIRST, &request);
        let before = device.guest.snapshot();
        let reply = device.answer_to(FIRST, token);
        reply.assert_transport(FAILURE, data as u32);
        let response = reply.response_addr();
        let allowed = [device.used_ring(FIRST), response..response + 12];
        before.assert_only(&device.guest, &allowed, "a transfer that is too long");
        assert_eq!(disk.calls(), Calls::default());
        assert_eq!(device.refused(0, Limit::MaxSectors), 1);
    }
}

#[test]
fn r01_policy_scsi_answers_invalid_field_in_cdb() {
    for request in [read(8, BYTES + 1), write(8, BYTES + 1), read(9, 9 * 512), write(9, 9 * 512)] {
        let data = request.message().readable.len() - 51 + request.message().writable - 108;
        let (mut device, disk) = device(OnTransferLimit::Scsi);
        let token = device.submit(FIRST, &request);
        let before = device.guest.snapshot();
        let reply = device.answer_to(FIRST, token);
        reply.assert_check(INVALID_FIELD_IN_CDB, data as u32);
        let response = reply.response_addr();
        let allowed = [device.used_ring(FIRST), response..response + 108];
        before.assert_only(&device.guest, &allowed, "a transfer that is too long");
        assert_eq!(disk.calls(), Calls::default());
        assert_eq!(device.refused(0, Limit::MaxSectors), 1);
    }
}

/// The limit is on what the driver brings, before anybody looks at the CDB.
#[test]
fn r01_buffers_count_and_not_the_cdb() {
    let (mut device, disk) = device(OnTransferLimit::Transport);
    device.answer(FIRST, read(1, BYTES + 1)).assert_transport(FAILURE, BYTES as u32 + 1);
    let ready = Request::new(lun(0, 0), &TEST_UNIT_READY).data_in(BYTES + 512);
    device.answer(FIRST, ready).assert_transport(FAILURE, BYTES as u32 + 512);
    let unknown = Request::new(lun(0, 0), &[0xff]).data_out(vec![0; BYTES + 1]);
    device.answer(FIRST, unknown).assert_transport(FAILURE, BYTES as u32 + 1);
    // Within the limit the CDB is looked at: it asks for more than there is room for.
    device.answer(FIRST, read(9, BYTES)).assert_transport(1, BYTES as u32);
    assert_eq!(disk.calls(), Calls::default());
    assert_eq!(device.refused(0, Limit::MaxSectors), 3);
}

#[test]
fn r01_bytes_count_however_they_are_cut() {
    let (mut device, disk) = device(OnTransferLimit::Transport);
    let over = read(8, BYTES + 1).message();
    let exact = read(8, BYTES).message();
    for cuts in [vec![108, 1], vec![108, 4096], vec![108, 1000, 1000, 1000, 1000], vec![200], vec![]] {
        let segments = device.cut(&over, &[51], &cuts);
        device.answer_chain(FIRST, &segments).assert_transport(FAILURE, BYTES as u32 + 1);
        let segments = device.cut(&exact, &[51], &cuts);
        device.answer_chain(FIRST, &segments).assert_good(0);
        let segments = device.cut(&over, &[51], &cuts);
        let token = device.submit_indirect(FIRST, &segments);
        device.answer_to(FIRST, token).assert_transport(FAILURE, BYTES as u32 + 1);
    }
    assert_eq!(disk.calls().reads, 5);
    assert_eq!(device.refused(0, Limit::MaxSectors), 10);
}

#[test]
fn r01_refusal_at_a_lun_that_does_not_exist_is_counted_without_a_unit() {
    let (mut device, _) = device(OnTransferLimit::Transport);
    let request = Request::new(lun(0, 5), &read_10(0, 9)).data_in(9 * 512);
    device.answer(FIRST, request).assert_transport(FAILURE, 9 * 512);
    assert_eq!(device.count(|stats| stats.absent_refused[Limit::MaxSectors as usize].value()), 1);
    assert_eq!(device.refused(0, Limit::MaxSectors), 0);
}

/// Order of checks, last sentence: no transport limit for well-known logical units.
#[test]
fn r01_well_known_unit_has_no_limit() {
    let (mut device, _) = device(OnTransferLimit::Transport);
    let inquiry = Request::new([0xc1, 1, 0, 0, 0, 0, 0, 0], &[0x12, 0, 0, 0, 96, 0]).data_in(BYTES + 1);
    let reply = device.answer(FIRST, inquiry);
    reply.assert_good(BYTES as u32 + 1 - 96);
    assert_eq!(reply.data()[0], 0x1e);
}

#[test]
fn r01_limit_of_one_sector_lets_one_sector_through() {
    let disk = Recorder::new("disk", 64, 512).unwrap();
    let mut setup = Setup::of([unit(0, 0, Arc::new(disk.clone()))]);
    setup.limits.max_sectors = 1;
    let mut device = Device::ready(setup);
    device.answer(FIRST, read(1, 512)).assert_good(0);
    device.answer(FIRST, read(1, 513)).assert_transport(FAILURE, 513);
    assert_eq!(disk.calls().reads, 1);
}
