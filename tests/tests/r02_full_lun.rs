//! R02's other half: whatever a full LUN is full of, on whichever queues, nothing that the limit does not count waits for
//! it or is refused by it: task management, the REPORT LUNS well-known LUN, absent LUNs, other LUNs, events.

use std::sync::Arc;

use bdev::Gate;
use bdev::testing::Recorder;
use tests::device::{
    CONTROL, Device, FIRST, HOTPLUG, Request, Setup, TEST_UNIT_READY, lun, read_10, report_luns, task_management, unit,
};
use virtio_scsi::{Limit, OnCommandLimit};

const QUEUES: u16 = 4;
const LIMIT: u32 = 8;
const WELL_KNOWN: [u8; 8] = [0xc1, 1, 0, 0, 0, 0, 0, 0];

fn read(number: u16, tag: u64) -> Request {
    Request::new(lun(0, number), &read_10(0, 1)).data_in(512).tag(tag)
}

/// LUN 0 has the limit in flight, from all queues, and each queue holds as many more as a batch has: all refused.
fn full(shards: usize, policy: OnCommandLimit) -> (Device, Gate) {
    let gate = Gate::closed();
    let held = Recorder::gated("held", 64, 512, &gate).unwrap();
    let free = Recorder::new("free", 64, 512).unwrap();
    let mut setup = Setup::of([unit(0, 0, Arc::new(held)), unit(0, 1, Arc::new(free))]);
    setup.request_queues = QUEUES;
    setup.shards = shards;
    setup.limits.cmd_per_lun = LIMIT;
    setup.limits.on_cmd_per_lun = policy;
    setup.gate = gate.clone();
    let mut device = Device::ready(setup);
    device.accept(HOTPLUG);
    device.post_event_buffer(16);
    for queue in 0..QUEUES {
        for tag in 0..u64::from(LIMIT) / u64::from(QUEUES) {
            device.submit(FIRST + queue, read(0, 10 * u64::from(queue) + tag));
        }
    }
    device.run();
    assert_eq!(device.in_flight(0), u64::from(LIMIT));
    for queue in 0..QUEUES {
        device.submit_many(FIRST + queue, 32, read(0, 999));
    }
    (device, gate)
}

/// What the driver keeps sending to the full LUN comes back refused.
fn refused(device: &mut Device, policy: OnCommandLimit) {
    let expected = match policy {
        OnCommandLimit::Transport => (5, 0),
        OnCommandLimit::Failure => (9, 0),
        OnCommandLimit::Scsi => (0, 0x28),
    };
    for queue in 0..QUEUES {
        let replies = device.take(FIRST + queue);
        assert_eq!(replies.len(), 32);
        assert!(replies.iter().all(|reply| reply.outcome() == expected));
    }
    assert_eq!(device.refused(0, Limit::CmdPerLun), u64::from(QUEUES) * 32);
}

const POLICIES: [OnCommandLimit; 3] = [OnCommandLimit::Transport, OnCommandLimit::Failure, OnCommandLimit::Scsi];

#[test]
fn r02_full_lun_refuses_its_own_commands_only() {
    for (policy, shards) in POLICIES.into_iter().flat_map(|policy| [1, 2, 3].map(|shards| (policy, shards))) {
        let (mut device, _) = full(shards, policy);
        device.run();
        refused(&mut device, policy);
        for queue in 0..QUEUES {
            let index = FIRST + queue;
            let reply = device.answer(index, Request::new(WELL_KNOWN, &report_luns(64)).data_in(64));
            assert_eq!((reply.outcome(), reply.data()[..4].to_vec()), ((0, 0), vec![0, 0, 0, 16]), "two LUNs");
            device.answer(index, Request::new(WELL_KNOWN, &TEST_UNIT_READY)).assert_good(0);
            device.answer(index, read(1, 0)).assert_good(0);
            let absent = device.answer(index, Request::new(lun(0, 7), &TEST_UNIT_READY));
            assert_eq!(absent.sense(), Some((0x05, 0x25, 0x00)));
        }
        // Exactly as many as were in flight end.
        device.gate.open();
        device.run();
        let ended: usize = (0..QUEUES).map(|queue| device.take(FIRST + queue).len()).sum();
        assert_eq!(ended, LIMIT as usize);
    }
}

/// Queries and what concerns another LUN at once; what ends commands when those have ended, and is itself never refused.
#[test]
fn r02_task_management_is_not_starved_by_a_full_lun() {
    for shards in [1, 2, 3] {
        let (mut device, _) = full(shards, OnCommandLimit::Transport);
        device.run();
        refused(&mut device, OnCommandLimit::Transport);
        assert_eq!(device.manage(7, lun(0, 0), 0), 10, "QUERY TASK SET finds the eight");
        assert_eq!(device.manage(6, lun(0, 0), 31), 10, "QUERY TASK finds one on the last queue");
        assert_eq!(device.manage(6, lun(0, 0), 77), 0, "and does not find what is not there");
        assert_eq!(device.manage(0, lun(0, 0), 77), 0, "ABORT TASK of nothing");
        assert_eq!(device.manage(5, lun(0, 1), 0), 0, "LOGICAL UNIT RESET of the neighbour");
        assert_eq!(device.manage(2, lun(0, 0), 0), 11, "CLEAR ACA");
        assert_eq!(device.manage(5, WELL_KNOWN, 0), 0);
        // Functions on the full LUN wait for its commands and for nothing else.
        for (subtype, code) in [(0, 2), (1, 2), (3, 2), (5, 4), (4, 4)] {
            let token = device.submit(CONTROL, task_management(subtype, lun(0, 0), 0));
            // The driver goes on: what comes after the function is refused, or accepted when there is room again.
            device.run();
            let in_flight = device.in_flight(0);
            assert_eq!((device.take(CONTROL).len(), in_flight), (0, u64::from(LIMIT)));
            device.gate.open();
            device.run();
            let reply = device.take_one(CONTROL);
            assert_eq!((reply.token, reply.byte()), (token, 0), "function {subtype}");
            device.gate.close();
            let replies: Vec<_> = (0..QUEUES).flat_map(|queue| device.take(FIRST + queue)).collect();
            let ended = replies.iter().filter(|reply| reply.code() == code).count();
            let expected = if subtype == 0 { 1 } else { LIMIT as usize };
            assert_eq!((replies.len(), ended), (LIMIT as usize, expected), "function {subtype}");
            // Full again, from all queues; resets have left unit attentions.
            for _ in 0..2 {
                device.answer(FIRST, Request::new(lun(0, 0), &TEST_UNIT_READY));
            }
            for queue in 0..QUEUES {
                for tag in 0..2 {
                    device.submit(FIRST + queue, read(0, 10 * u64::from(queue) + tag));
                }
            }
            device.run();
            assert_eq!(device.in_flight(0), u64::from(LIMIT));
        }
    }
}

/// A function that comes behind a flood of commands that will all be refused: the flood is a bounded piece of work.
#[test]
fn r07_function_behind_a_flood_to_a_full_lun_is_answered() {
    for shards in [1, 2, 3] {
        let (mut device, _) = full(shards, OnCommandLimit::Transport);
        let token = device.submit(CONTROL, task_management(7, lun(0, 0), 0));
        // Before anything of the flood was looked at; the guest goes on with it.
        for _ in 0..20 {
            for queue in 0..QUEUES {
                let back = device.take(FIRST + queue).len();
                device.submit_many(FIRST + queue, back, read(0, 999));
            }
            device.poll();
        }
        let reply = device.take_one(CONTROL);
        assert_eq!((reply.token, reply.byte()), (token, 10), "{shards} shards");
        device.gate.open();
        device.run();
    }
}

#[test]
fn r23_event_arrives_while_a_lun_is_full() {
    for shards in [1, 2, 3] {
        let (mut device, _) = full(shards, OnCommandLimit::Scsi);
        let more = Recorder::new("more", 64, 512).unwrap();
        device.plug(unit(0, 2, Arc::new(more))).unwrap();
        device.poll();
        assert_eq!(device.events(), [(1, [1, 0, 0, 2, 0, 0, 0, 0], 1)], "transport reset, rescan");
        device.run();
        refused(&mut device, OnCommandLimit::Scsi);
        assert_eq!(device.in_flight(0), u64::from(LIMIT));
    }
}
