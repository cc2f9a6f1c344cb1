//! R02: `cmd_per_lun` is a hard limit on the commands in flight of a logical unit, over all request queues. That it is
//! neither N+1 nor N-1 under any sequence stands in `r02_model.rs`.

use std::sync::Arc;

use bdev::testing::{Calls, Recorder};
use bdev::{Gate, Null};
use tests::device::{Device, FIRST, Request, Setup, TEST_UNIT_READY, lun, read_10, task_management, unit, write_10};
use virtio_scsi::{Limit, Limits, OnCommandLimit};

const FAILURE: u8 = 9;
const BUSY: u8 = 5;
const TASK_SET_FULL: u8 = 0x28;

/// Two units behind one gate; on as many request queues as there are shards, and at least on two.
fn held(limit: u32, policy: OnCommandLimit, shards: usize) -> (Device, [Recorder; 2]) {
    let gate = Gate::closed();
    let disks = ["a", "b"].map(|name| Recorder::gated(name, 1024, 512, &gate).unwrap());
    let [a, b] = disks.clone().map(Arc::new);
    let mut setup = Setup::of([unit(0, 0, a), unit(0, 1, b)]);
    setup.limits = Limits { cmd_per_lun: limit, on_cmd_per_lun: policy, ..Limits::default() };
    setup.request_queues = 2;
    setup.shards = shards;
    setup.gate = gate;
    (Device::ready(setup), disks)
}

fn read(number: u16) -> Request {
    Request::new(lun(0, number), &read_10(0, 1)).data_in(512)
}

fn write(number: u16) -> Request {
    Request::new(lun(0, number), &write_10(0, 1)).data_out([3; 512])
}

#[test]
fn r02_commands_up_to_the_limit_are_all_in_flight() {
    for limit in [1, 2, 40] {
        let (mut device, [disk, _]) = held(limit, OnCommandLimit::Transport, 1);
        for _ in 0..limit {
            device.submit(FIRST, read(0));
        }
        device.run();
        assert_eq!(device.take(FIRST), []);
        assert_eq!(disk.calls().reads, u64::from(limit));
        assert_eq!(device.in_flight(0), u64::from(limit));
        device.gate.open();
        device.run();
        let replies = device.take(FIRST);
        assert_eq!(replies.len(), limit as usize);
        replies.iter().for_each(|reply| reply.assert_good(0));
        assert_eq!((device.in_flight(0), device.refused(0, Limit::CmdPerLun)), (0, 0));
    }
}

#[test]
fn r02_command_beyond_the_limit_is_answered_by_policy_and_never_reaches_the_backend() {
    for (policy, code, status) in [
        (OnCommandLimit::Transport, BUSY, 0),
        (OnCommandLimit::Failure, FAILURE, 0),
        (OnCommandLimit::Scsi, 0, TASK_SET_FULL),
    ] {
        let (mut device, [disk, _]) = held(3, policy, 1);
        device.submit_many(FIRST, 3, write(0));
        device.run();
        let before = disk.calls();
        for (request, residual) in [(read(0), 512u16), (write(0), 512), (ready(), 0)] {
            let token = device.submit(FIRST, request);
            let memory = device.guest.snapshot();
            let reply = device.answer_to(FIRST, token);
            let [low, high] = residual.to_le_bytes();
            assert_eq!(reply.writable[..12], [0, 0, 0, 0, low, high, 0, 0, 0, 0, status, code]);
            assert_eq!(reply.written, 12);
            let allowed = [device.used_ring(FIRST), reply.response_addr()..reply.response_addr() + 12];
            memory.assert_only(&device.guest, &allowed, "a command too many");
        }
        assert_eq!(disk.calls(), before);
        assert_eq!((device.refused(0, Limit::CmdPerLun), device.in_flight(0)), (3, 3));
    }
}

fn ready() -> Request {
    Request::new(lun(0, 0), &TEST_UNIT_READY)
}

#[test]
fn r02_limit_holds_over_all_request_queues() {
    for shards in [1, 2] {
        let (mut device, [disk, _]) = held(3, OnCommandLimit::Transport, shards);
        device.submit(FIRST, read(0));
        device.submit(FIRST + 1, read(0));
        device.submit(FIRST, read(0));
        device.run();
        for index in [FIRST, FIRST + 1] {
            device.answer(index, read(0)).assert_transport(BUSY, 512);
        }
        assert_eq!((disk.calls().reads, device.in_flight(0)), (3, 3));
        // What one queue gives back, the other one may take.
        device.gate.release(1);
        device.poll_shard(0);
        device.take_one(FIRST).assert_good(0);
        let taken = device.submit(FIRST + 1, read(0));
        device.run();
        assert_eq!((device.take(FIRST + 1), device.in_flight(0)), (vec![], 3), "{taken}: shards {shards}");
    }
}

#[test]
fn r02_units_have_limits_of_their_own() {
    let (mut device, [a, b]) = held(2, OnCommandLimit::Transport, 1);
    for number in [0, 0, 1, 1] {
        device.submit(FIRST, read(number));
    }
    device.run();
    assert_eq!((a.calls().reads, b.calls().reads), (2, 2));
    device.answer(FIRST, read(0)).assert_transport(BUSY, 512);
    assert_eq!((device.refused(0, Limit::CmdPerLun), device.refused(1, Limit::CmdPerLun)), (1, 0));
}

/// A driver that keeps exactly the limit in flight, and puts a new command in when it sees a used entry, meets no
/// refusal, whichever shard it turns to.
#[test]
fn r02_driver_that_refills_at_once_is_never_refused() {
    for (limit, shards) in [(1, 1), (1, 2), (4, 1), (4, 2)] {
        let (mut device, [disk, _]) = held(limit, OnCommandLimit::Transport, shards);
        for _ in 0..limit {
            device.submit(FIRST, read(0));
        }
        let mut ended = 0;
        for round in 0..200u16 {
            device.gate.release(1 + u64::from(round % 3));
            for shard in 0..shards {
                device.poll_shard(shard);
                for index in [FIRST, FIRST + 1] {
                    for reply in device.take(index) {
                        assert_eq!(reply.outcome(), (0, 0), "limit {limit}, {shards} shards, round {round}");
                        ended += 1;
                        device.submit(FIRST + (round + ended) % 2, read(0));
                    }
                }
            }
        }
        assert!(ended >= 100, "{ended} commands ended");
        assert_eq!(device.refused(0, Limit::CmdPerLun), 0);
        assert!(disk.calls().reads >= u64::from(ended));
    }
}

/// In flight means up to the used entry: also on a backend that needs no time, the driver had one too many out.
#[test]
fn r02_batch_beyond_the_limit_is_cut_at_the_limit_on_an_instant_backend() {
    let mut setup = Setup::of([unit(0, 0, Arc::new(Null::new("null", 64, 512).unwrap()))]);
    setup.limits.cmd_per_lun = 4;
    let mut device = Device::ready(setup);
    for _ in 0..6 {
        device.submit(FIRST, read(0));
    }
    device.run();
    let codes: Vec<u8> = device.take(FIRST).iter().map(|reply| reply.code()).collect();
    assert_eq!(codes, [0, 0, 0, 0, BUSY, BUSY]);
    device.submit_many(FIRST, 4, read(0));
    device.run();
    assert!(device.take(FIRST).iter().all(|reply| reply.outcome() == (0, 0)), "the slots are back");
}

#[test]
fn r02_refused_commands_hold_no_slot() {
    let (mut device, [disk, _]) = held(2, OnCommandLimit::Transport, 1);
    device.submit_many(FIRST, 2, read(0));
    device.run();
    for _ in 0..10 {
        device.answer(FIRST, read(0)).assert_transport(BUSY, 512);
    }
    device.gate.release(2);
    device.run();
    assert_eq!(device.take(FIRST).len(), 2);
    device.submit_many(FIRST, 2, read(0));
    device.run();
    assert_eq!((device.outstanding(FIRST), disk.calls().reads), (2, 4));
}

#[test]
fn r02_well_known_unit_and_task_management_have_no_limit() {
    let (mut device, _) = held(1, OnCommandLimit::Transport, 1);
    device.submit(FIRST, read(0));
    device.run();
    let inquiry = Request::new([0xc1, 1, 0, 0, 0, 0, 0, 0], &[0x12, 0, 0, 0, 36, 0]).data_in(36);
    assert_eq!(device.answer(FIRST, inquiry).data()[0], 0x1e);
    assert_eq!(device.answer(0, task_management(6, lun(0, 0), 0)).byte(), 10);
    device.answer(FIRST, read(0)).assert_transport(BUSY, 512);
}

/// Order of checks, last sentence: a command that a TMF sweeps away is not counted.
#[test]
fn r02_swept_commands_are_not_counted() {
    let (mut device, [disk, _]) = held(1, OnCommandLimit::Transport, 1);
    device.submit(FIRST, read(0));
    device.run();
    device.submit(0, task_management(5, lun(0, 0), 0));
    device.poll(); // the function is under way
    device.submit_many(FIRST, 5, read(0));
    device.poll();
    let swept = device.take(FIRST);
    assert_eq!(swept.len(), 5, "on the ring when the sweep began");
    swept.iter().for_each(|reply| reply.assert_transport(4, 512));
    device.gate.open();
    device.run();
    device.take_one(FIRST).assert_transport(4, 512);
    assert_eq!(device.take_one(0).byte(), 0);
    assert_eq!(device.refused(0, Limit::CmdPerLun), 0);
    assert_eq!(disk.calls(), Calls { reads: 1, writes: 0, flushes: 0, ended: 1 });
}
