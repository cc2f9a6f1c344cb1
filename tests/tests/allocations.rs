//! A poll allocates nothing in a steady load, whatever becomes of its requests. Counted by a global allocator, around
//! the polls alone: what the driver of these tests does is its own business.

use std::sync::Arc;

use bdev::{Bdev, BdevInfo, Channel, Completion, Delay, Gate, Io, IoChannel, Malloc, Null, Status, Submitted};
use reactor::Tsc;
use tests::device::{
    CONTROL, Device, FIRST, Message, Request, Setup, TEST_UNIT_READY, lun, read_10, task_management, unit, write_10,
};
use virtio_scsi::OnTransferLimit;

/// Rounds before anything is counted: tables grow to the size that the load needs.
const WARM_UP: usize = 3;
const ROUNDS: usize = 20;
const BATCH: usize = 20;

/// Allocations of the polls in which a batch of each of these is served, over all rounds.
fn allocations(device: &mut Device, messages: &[Message], outcome: (u8, u8)) -> u64 {
    let mut count = 0;
    for round in 0..WARM_UP + ROUNDS {
        for message in messages {
            for queue in 0..device.controller.queues() - FIRST {
                device.submit_many(FIRST + queue, BATCH, message);
            }
            let counted = allocation_counter::measure(|| {
                for _ in 0..3 {
                    device.poll();
                }
            });
            if round >= WARM_UP {
                count += counted.count_total;
            }
            for queue in 0..device.controller.queues() - FIRST {
                let replies = device.take(FIRST + queue);
                assert_eq!(replies.len(), BATCH);
                assert!(replies.iter().all(|reply| reply.outcome() == outcome), "{:?}", replies[0].outcome());
            }
        }
    }
    count
}

fn command(cdb: &[u8]) -> Request {
    Request::new(lun(0, 0), cdb)
}

fn reads_and_writes() -> [Message; 4] {
    [
        command(&read_10(3, 8)).data_in(4096).message(),
        command(&write_10(9, 8)).data_out([1; 4096]).message(),
        command(&read_10(3, 1)).data_in(600).message(), // a residual
        command(&write_10(9, 1)).data_out([1; 600]).message(),
    ]
}

fn disks() -> [Arc<dyn Bdev>; 3] {
    let malloc: Arc<dyn Bdev> = Arc::new(Malloc::new("malloc", 64 << 10, 512).unwrap());
    let gate = Gate::closed();
    gate.open();
    let delayed = Delay::held(Arc::clone(&malloc), &gate);
    [Arc::new(Null::new("null", 128, 512).unwrap()), malloc, Arc::new(delayed)]
}

#[test]
fn counter_sees_an_allocation() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(7))));
    assert_eq!(counted.count_total, 1);
}

#[test]
fn reads_and_writes_allocate_nothing() {
    for disk in disks() {
        for (shards, event_idx, in_order) in [(1, false, false), (1, true, false), (2, true, false), (2, true, true)] {
            let mut setup = Setup::of([unit(0, 0, Arc::clone(&disk))]);
            setup.request_queues = 2;
            setup.shards = shards;
            setup.event_idx = event_idx;
            setup.in_order = in_order;
            let mut device = Device::ready(setup);
            let count = allocations(&mut device, &reads_and_writes(), (0, 0));
            assert_eq!(count, 0, "{}, {shards} shards", disk.info().kind);
        }
    }
}

#[test]
fn commands_without_io_allocate_nothing() {
    let [null, ..] = disks();
    let mut device = Device::ready(Setup::of([unit(0, 0, null)]));
    let messages = [
        command(&TEST_UNIT_READY),
        command(&[0x12, 0, 0, 0, 96, 0]).data_in(96),
        command(&[0x12, 1, 0x83, 0, 255, 0]).data_in(255),
        command(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]).data_in(64),
        command(&[0x1a, 0, 0x3f, 0, 255, 0]).data_in(255),
        command(&[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]).data_in(1024),
        command(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        Request::new([0xc1, 1, 0, 0, 0, 0, 0, 0], &TEST_UNIT_READY),
        Request::new(lun(0, 5), &[0x12, 0, 0, 0, 96, 0]).data_in(96),
    ];
    assert_eq!(allocations(&mut device, &messages.map(|request| request.message()), (0, 0)), 0);
}

#[test]
fn check_conditions_and_transport_responses_allocate_nothing() {
    let [null, ..] = disks();
    let mut setup = Setup::of([unit(0, 0, null)]);
    setup.limits.max_sectors = 8;
    setup.limits.on_max_sectors = OnTransferLimit::Scsi;
    setup.limits.seg_max = Some(4);
    let mut device = Device::ready(setup);
    let checks = [
        command(&read_10(1000, 1)).data_in(512),
        command(&[0xff]),
        command(&read_10(0, 1)).data_in(512).attribute(3),
        command(&read_10(0, 9)).data_in(9 * 512),
        Request::new(lun(0, 5), &TEST_UNIT_READY),
    ];
    assert_eq!(allocations(&mut device, &checks.map(|request| request.message()), (0, 2)), 0);
    let overrun = command(&read_10(0, 2)).data_in(512).message();
    assert_eq!(allocations(&mut device, &[overrun], (1, 0)), 0);
    let bad_target = Request::new(lun(9, 0), &TEST_UNIT_READY).message();
    assert_eq!(allocations(&mut device, &[bad_target], (3, 0)), 0);
    let failures = [
        command(&read_10(0, 1)).data_in(512).data_out([0; 512]).message(),
        Message { readable: vec![1; 20], writable: 108 },
    ];
    assert_eq!(allocations(&mut device, &failures, (9, 0)), 0);
}

/// A device that fails everything, and keeps no record of it.
struct Failing(BdevInfo);

impl Bdev for Failing {
    fn info(&self) -> &BdevInfo {
        &self.0
    }

    fn open(&self) -> Channel {
        let channel: Box<dyn IoChannel> = Box::new(FailingChannel);
        Channel::from(channel)
    }
}

struct FailingChannel;

impl IoChannel for FailingChannel {
    fn submit(&mut self, _: &Io<'_>, _: Tsc) -> Submitted {
        Submitted::Done(Status::ReadError)
    }

    fn poll(&mut self, _: Tsc, _: &mut Vec<Completion>) -> usize {
        0
    }

    fn next_deadline(&self) -> Option<Tsc> {
        None
    }
}

#[test]
fn backend_failures_allocate_nothing() {
    let info = Null::new("failing", 128, 512).unwrap().info().clone();
    let mut device = Device::ready(Setup::of([unit(0, 0, Arc::new(Failing(info)))]));
    assert_eq!(allocations(&mut device, &reads_and_writes(), (0, 2)), 0);
}

#[test]
fn limit_refusals_allocate_nothing() {
    let gate = Gate::closed();
    let null: Arc<dyn Bdev> = Arc::new(Null::new("null", 128, 512).unwrap());
    let mut setup = Setup::of([unit(0, 0, Arc::new(Delay::held(null, &gate)))]);
    setup.limits.cmd_per_lun = 2;
    setup.request_queues = 2;
    setup.shards = 2;
    setup.gate = gate;
    let mut device = Device::ready(setup);
    device.submit_many(FIRST, 2, command(&read_10(0, 1)).data_in(512));
    device.run();
    let busy = command(&read_10(0, 1)).data_in(512).message();
    assert_eq!(allocations(&mut device, &[busy], (5, 0)), 0);
}

/// Functions of every kind over commands at the backend and on the ring, on two shards.
#[test]
fn task_management_allocates_nothing() {
    [false, true].into_iter().for_each(task_management_in_order_or_not_allocates_nothing);
}

fn task_management_in_order_or_not_allocates_nothing(in_order: bool) {
    let gate = Gate::closed();
    let null: Arc<dyn Bdev> = Arc::new(Null::new("null", 128, 512).unwrap());
    let mut setup = Setup::of([unit(0, 0, Arc::new(Delay::held(null, &gate)))]);
    setup.request_queues = 2;
    setup.shards = 2;
    setup.in_order = in_order;
    setup.gate = gate;
    let mut device = Device::ready(setup);
    let mut count = 0;
    for round in 0..WARM_UP + ROUNDS {
        for subtype in [0, 1, 3, 4, 5, 6, 7, 2, 99] {
            for index in [FIRST, FIRST + 1] {
                device.submit_many(index, BATCH, command(&read_10(0, 1)).data_in(512));
            }
            let mut counted = allocation_counter::measure(|| {
                device.poll();
            });
            device.submit(CONTROL, task_management(subtype, lun(0, 0), 0));
            for index in [FIRST, FIRST + 1] {
                device.submit_many(index, BATCH, command(&read_10(0, 1)).data_in(512));
            }
            counted += allocation_counter::measure(|| {
                for _ in 0..3 {
                    device.poll();
                }
            });
            device.gate.open();
            counted += allocation_counter::measure(|| {
                for _ in 0..4 {
                    device.poll();
                }
            });
            device.gate.close();
            if round >= WARM_UP {
                count += counted.count_total;
            }
            assert_eq!((device.take(FIRST).len(), device.take(FIRST + 1).len()), (2 * BATCH, 2 * BATCH));
            assert_eq!(device.take(CONTROL).len(), 1);
        }
    }
    assert_eq!(count, 0);
}

#[test]
fn idle_polls_allocate_nothing() {
    let [null, ..] = disks();
    let mut device = Device::ready(Setup::of([unit(0, 0, null)]));
    let counted = allocation_counter::measure(|| {
        for _ in 0..1000 {
            device.poll();
        }
    });
    assert_eq!(counted.count_total, 0);
}
