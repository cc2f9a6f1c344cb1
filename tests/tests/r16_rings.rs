//! R16, the device's side: rings that start, do not start, stop and start again.

use std::sync::Arc;

use bdev::testing::Recorder;
use bdev::{Gate, Null};
use tests::device::{
    CONTROL, Device, FIRST, Message, Noise, Request, Setup, TEST_UNIT_READY, UNWRITTEN, lun, read_10, unit,
};
use virtqueue::{FaultReason, Segment};

const SECOND: u16 = FIRST + 1;

fn device(event_idx: bool) -> Device {
    let null = Null::new("null", 64, 512).unwrap();
    let mut setup = Setup::of([unit(0, 0, Arc::new(null))]);
    setup.request_queues = 2;
    setup.event_idx = event_idx;
    Device::ready(setup)
}

fn ready() -> Request {
    Request::new(lun(0, 0), &TEST_UNIT_READY)
}

#[test]
fn r16_guest_address_zero_is_an_ordinary_address() {
    let mut device = device(false);
    // The control queue's descriptor table is at guest address 0.
    assert_eq!(device.manage(5, lun(0, 0), 0), 0);
    assert_eq!(device.answer(FIRST, ready()).sense(), Some((0x06, 0x29, 0x03)));
    // And so are buffers, when that ring is not in use.
    assert!(device.disable(CONTROL).try_recv().is_ok());
    device.guest.write(0, &ready().header());
    let response = device.writable(108);
    device.answer_chain(FIRST, &[Segment::readable(0, 51), response]).assert_good(0);
    let header = device.readable(&ready().header());
    device.guest.write(0, &[UNWRITTEN; 108]);
    device.answer_chain(FIRST, &[header, Segment::writable(0, 108)]).assert_good(0);
}

#[test]
fn r16_ring_that_does_not_map_signals_err_and_leaves_the_others_alone() {
    let mut device = device(false);
    assert!(device.stop(FIRST).try_recv().is_ok());
    let err = device.err(FIRST);
    device.rings(FIRST).refuse_start(FIRST);
    assert_eq!((err.drain(), device.broken(FIRST)), (1, true));
    let ring = &device.ring_stats[usize::from(FIRST)];
    assert_eq!(ring.faults[FaultReason::RingUnmapped as usize].value(), 1);
    let report = device.reports.try_recv().unwrap();
    assert_eq!((report.device.as_ref(), report.ring), ("test", FIRST));
    assert_eq!(report.fault.to_string(), "the ring is not in the memory table");
    device.submit(FIRST, ready());
    device.run();
    assert_eq!(device.used(FIRST), 1, "nothing but the unit attention from before");
    device.answer(SECOND, ready()).assert_good(0);
    // It can be stopped, and started as it should be.
    assert_eq!(device.stop(FIRST).try_recv().unwrap().base, None);
    device.start(FIRST, 1);
    device.run();
    device.take_one(FIRST).assert_good(0);
    assert!(!device.broken(FIRST));
}

#[test]
fn r16_disable_then_enable_resumes_at_the_same_index() {
    for event_idx in [false, true] {
        let mut device = device(event_idx);
        for round in 0..50 {
            device.submit_many(FIRST, round % 5, ready());
            device.run();
            assert_eq!(device.take(FIRST).len(), round % 5);
            assert!(device.disable(FIRST).try_recv().is_ok());
            device.submit_many(FIRST, 3, ready());
            device.run();
            assert_eq!(device.take(FIRST), []);
            device.rings(FIRST).enable(FIRST);
            device.run();
            assert_eq!(device.take(FIRST).len(), 3, "none lost, none twice");
        }
    }
}

#[test]
fn r16_stopped_ring_goes_on_where_it_stopped() {
    let gate = Gate::closed();
    let disk = Recorder::gated("disk", 64, 512, &gate).unwrap();
    let mut setup = Setup::of([unit(0, 0, Arc::new(disk.clone()))]);
    setup.gate = gate;
    let mut device = Device::ready(setup);
    let mut noise = Noise::new(16);
    let mut submitted = 0;
    let mut answered = 0;
    for _ in 0..200 {
        let count = noise.below(5);
        for _ in 0..count {
            device.submit(FIRST, Request::new(lun(0, 0), &read_10(0, 1)).data_in(512));
            if noise.once_in(3) {
                device.poll();
            }
        }
        submitted += count;
        let stopped = device.stop(FIRST);
        device.gate.open();
        device.run();
        device.gate.close();
        device.start(FIRST, stopped.try_recv().unwrap().base.unwrap());
        answered += device.take(FIRST).len() as u64;
    }
    device.gate.open();
    device.run();
    answered += device.take(FIRST).len() as u64;
    assert_eq!((answered, disk.calls().reads), (submitted, submitted));
}

/// The indices of a ring wrap after 65536 chains.
#[test]
fn r16_indices_wrap() {
    let mut device = device(true);
    let mut count = 1u32; // the unit attention
    while count < 70_000 {
        device.submit_many(FIRST, 30, ready());
        device.run();
        assert_eq!(device.take(FIRST).len(), 30);
        count += 30;
        if count % 9000 == 1 {
            let base = device.stop(FIRST).try_recv().unwrap().base.unwrap();
            assert_eq!(base, count % 65536);
            device.start(FIRST, base);
        }
    }
}

/// A front-end that made the base up (DPDK's virtio-user says 0) is not believed: the used index says what was
/// answered.
#[test]
fn r16_base_that_was_made_up_loses_and_repeats_nothing() {
    let mut device = device(false);
    device.submit_many(FIRST, 9, ready());
    device.run();
    assert_eq!(device.take(FIRST).len(), 9);
    assert_eq!(device.stop(FIRST).try_recv().unwrap().base, Some(10));
    device.submit_many(FIRST, 4, ready());
    device.start(FIRST, 0);
    device.run();
    assert_eq!(device.take(FIRST).len(), 4);
    assert!(!device.broken(FIRST));
}

#[test]
fn r16_driver_may_come_back_with_a_ring_of_another_size() {
    let mut device = device(false);
    for size in [256, 2, 1024, 16] {
        assert!(device.stop(FIRST).try_recv().is_ok());
        device.renew(FIRST, size);
        device.start(FIRST, 0);
        assert_eq!(device.ring_stats[usize::from(FIRST)].size.value(), u64::from(size));
        for _ in 0..size / 2 {
            device.submit(FIRST, ready());
        }
        device.run();
        assert_eq!(device.take(FIRST).len(), usize::from(size / 2));
    }
}

#[test]
fn r16_ring_that_is_not_enabled_is_not_fetched_from() {
    let mut device = device(false);
    assert!(device.stop(FIRST).try_recv().is_ok());
    assert!(device.disable(FIRST).try_recv().is_ok());
    device.start(FIRST, 1);
    device.submit(FIRST, ready());
    device.run();
    assert_eq!(device.take(FIRST), []);
    device.rings(FIRST).enable(FIRST);
    device.run();
    device.take_one(FIRST).assert_good(0);
}

/// Nobody reads what drivers put on the event queue before there is an event.
#[test]
fn r16_event_buffers_stay_where_they_are() {
    let mut device = device(false);
    for _ in 0..10 {
        let chain = device.cut(&Message { readable: Vec::new(), writable: 16 }, &[], &[]);
        device.submit_chain(1, &chain);
    }
    device.run();
    assert_eq!(device.take(1), []);
    assert_eq!(device.stop(1).try_recv().unwrap().base, Some(0));
}
