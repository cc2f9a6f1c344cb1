//! R01 to R03 and R06 with limits that change while the device is in use: exact from the moment that the change is
//! acknowledged, and nothing in flight is dropped.

use std::sync::Arc;

use bdev::testing::Recorder;
use bdev::{Gate, Null};
use tests::device::{Device, FIRST, Request, Setup, lun, read_10, unit};
use virtio_scsi::{ChangeError, Limit, Limits, OnCommandLimit, OnTransferLimit};

const BUSY: u8 = 5;
const FAILURE: u8 = 9;
const TASK_SET_FULL: u8 = 0x28;
/// No response.
const NONE: [u8; 0] = [];

fn limits(cmd_per_lun: u32) -> Limits {
    Limits { cmd_per_lun, ..Limits::default() }
}

/// One unit behind a gate, two request queues.
fn device(cmd_per_lun: u32, shards: usize) -> (Device, Recorder) {
    let gate = Gate::closed();
    let disk = Recorder::gated("disk", 1 << 20, 512, &gate).unwrap();
    let mut setup = Setup::of([unit(0, 0, Arc::new(disk.clone()))]);
    setup.limits = limits(cmd_per_lun);
    setup.request_queues = 2;
    setup.shards = shards;
    setup.gate = gate;
    (Device::ready(setup), disk)
}

fn read(blocks: u16) -> Request {
    Request::new(lun(0, 0), &read_10(0, blocks)).data_in(512 * usize::from(blocks))
}

/// Submits to both queues in turn; the response codes that come back at once.
fn submit(device: &mut Device, count: u16) -> Vec<u8> {
    let mut codes = Vec::new();
    for k in 0..count {
        device.submit(FIRST + k % 2, read(1));
        device.run();
        codes.extend([device.take(FIRST), device.take(FIRST + 1)].concat().iter().map(|reply| reply.code()));
    }
    codes
}

#[test]
fn r02_lower_limit_lets_what_is_in_flight_end_and_is_exact_from_then_on() {
    for shards in [1, 2] {
        let (mut device, disk) = device(8, shards);
        assert_eq!(submit(&mut device, 8), NONE);
        device.set_limits(limits(3)).unwrap();
        for left in (3..8).rev() {
            assert_eq!(submit(&mut device, 2), [BUSY; 2], "more than 3 are in flight");
            device.gate.release(1);
            device.run();
            assert_eq!([device.take(FIRST), device.take(FIRST + 1)].concat().len(), 1);
            assert_eq!(device.in_flight(0), left);
        }
        assert_eq!(submit(&mut device, 1), [BUSY], "3 are in flight");
        device.gate.release(1);
        device.run();
        [device.take(FIRST), device.take(FIRST + 1)].concat()[0].assert_good(0);
        assert_eq!(submit(&mut device, 1), NONE, "2 were in flight: never a refusal at N-1");
        assert_eq!(submit(&mut device, 1), [BUSY]);
        assert_eq!(device.refused(0, Limit::CmdPerLun), 12);
        device.gate.open();
        device.run();
        let replies = [device.take(FIRST), device.take(FIRST + 1)].concat();
        assert_eq!(replies.len(), 3);
        replies.iter().for_each(|reply| reply.assert_good(0));
        assert_eq!(disk.calls().reads, 9, "nothing was dropped, and nothing refused reached the backend");
    }
}

#[test]
fn r02_higher_limit_is_there_at_once_and_exact() {
    for shards in [1, 2] {
        let (mut device, _) = device(2, shards);
        assert_eq!(submit(&mut device, 3), [BUSY]);
        device.set_limits(limits(5)).unwrap();
        assert_eq!(submit(&mut device, 4), [BUSY]);
        assert_eq!(device.in_flight(0), 5);
    }
}

#[test]
fn r02_policy_changes_with_the_limits() {
    let (mut device, _) = device(1, 1);
    submit(&mut device, 1);
    for (policy, code, status) in [
        (OnCommandLimit::Failure, FAILURE, 0),
        (OnCommandLimit::Scsi, 0, TASK_SET_FULL),
        (OnCommandLimit::Transport, BUSY, 0),
    ] {
        device.set_limits(Limits { on_cmd_per_lun: policy, ..limits(1) }).unwrap();
        assert_eq!(device.answer(FIRST, read(1)).outcome(), (code, status));
    }
}

/// R01 and R03: B0h, the transport and the config space change together.
#[test]
fn r03_max_sectors_change_is_in_force_and_in_block_limits() {
    let (mut device, disk) = device(4, 2);
    device.gate.open();
    for max_sectors in [8u32, 1, 100, 65535] {
        for policy in [OnTransferLimit::Transport, OnTransferLimit::Scsi] {
            let changed = Limits { max_sectors, on_max_sectors: policy, ..limits(4) };
            device.set_limits(changed).unwrap();
            let request = Request::new(lun(0, 0), &[0x12, 1, 0xb0, 0, 64, 0]).data_in(64);
            let reply = device.answer(FIRST, request);
            assert_eq!(reply.data()[8..12], max_sectors.to_be_bytes(), "MAXIMUM TRANSFER LENGTH");
            assert_eq!(device.controller.config_space()[8..12], max_sectors.to_le_bytes());
            if max_sectors > 100 {
                continue;
            }
            for queue in [FIRST, FIRST + 1] {
                device.answer(queue, read(max_sectors as u16)).assert_good(0);
                let before = disk.calls();
                let reply = device.answer(queue, read(max_sectors as u16 + 1));
                match policy {
                    OnTransferLimit::Transport => assert_eq!(reply.outcome(), (FAILURE, 0)),
                    OnTransferLimit::Scsi => assert_eq!(reply.sense(), Some((0x05, 0x24, 0x00))),
                }
                assert_eq!(disk.calls(), before);
            }
        }
    }
}

#[test]
fn r06_limits_outside_their_bounds_are_refused_and_nothing_changes() {
    let disk = Arc::new(Null::new("disk", 1024, 4096).unwrap());
    let mut setup = Setup::of([unit(0, 0, disk)]);
    setup.limits = limits(7);
    let mut device = Device::ready(setup);
    let with = |change: fn(&mut Limits)| {
        let mut changed = limits(6);
        change(&mut changed);
        changed
    };
    let out = |field, value, min, max| ChangeError::OutOfRange { field, value, min, max };
    for (wrong, error) in [
        (with(|limits| limits.cmd_per_lun = 0), out("cmd_per_lun", 0, 1, 1024)),
        (with(|limits| limits.cmd_per_lun = 1025), out("cmd_per_lun", 1025, 1, 1024)),
        (with(|limits| limits.max_sectors = 0), out("max_sectors", 0, 1, 4_194_304)),
        (with(|limits| limits.max_sectors = 4_194_305), out("max_sectors", 4_194_305, 1, 4_194_304)),
        (with(|limits| limits.max_sectors = 7), out("max_sectors", 7, 8, 4_194_304)),
        (with(|limits| limits.seg_max = Some(0)), out("seg_max", 0, 1, 1022)),
        (with(|limits| limits.seg_max = Some(1023)), out("seg_max", 1023, 1, 1022)),
    ] {
        assert_eq!(device.set_limits(wrong), Err(error));
        assert_eq!(device.controller.limits(), limits(7));
    }
    assert_eq!(out("max_sectors", 7, 8, 10).to_string(), "max_sectors 7: must be 8 to 10");
    device.set_limits(with(|limits| limits.max_sectors = 8)).unwrap();
    // Nor does a unit come whose blocks do not fit.
    device.set_limits(Limits { max_sectors: 8, ..limits(7) }).unwrap();
    let small = Arc::new(Null::new("small", 1024, 512).unwrap());
    device.plug(unit(0, 1, small)).unwrap();
    device.unplug(0, 0).unwrap();
    device.set_limits(Limits { max_sectors: 1, ..limits(7) }).unwrap();
    let large = Arc::new(Null::new("large", 1024, 4096).unwrap());
    assert_eq!(device.plug(unit(0, 0, large)), Err(out("max_sectors", 1, 8, 4_194_304)));
}

#[test]
fn r02_unit_that_comes_later_and_session_that_begins_later_have_the_limits_of_now() {
    let (mut device, _) = device(8, 1);
    device.set_limits(limits(2)).unwrap();
    let gate = device.gate.clone();
    device.plug(unit(0, 5, Arc::new(Recorder::gated("new", 1024, 512, &gate).unwrap()))).unwrap();
    for round in 0..2 {
        let read = Request::new(lun(0, 5), &read_10(0, 1)).data_in(512);
        assert_eq!(device.answer(FIRST, read.clone()).sense(), Some((0x06, 0x29, 0x01)));
        device.submit_many(FIRST, 3, read);
        device.run();
        assert_eq!(device.take_one(FIRST).code(), BUSY);
        device.gate.release(2);
        device.run();
        assert_eq!(device.take(FIRST).len(), 2);
        if round == 0 {
            device.reconnect();
        }
    }
}
