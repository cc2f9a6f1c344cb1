//! R14 and R15, the device's side: whatever a front-end asks the device to let go of is answered when the device has
//! let go of it: what is in flight has ended and its used entries are published. After the answer nothing is written
//! and nobody is called.

use std::sync::Arc;

use bdev::testing::Recorder;
use bdev::{Bdev, Delay, Gate, Malloc};
use reactor::{Source as _, Tsc};
use tests::device::{
    BUFFERS, CONTROL, Device, FIRST, Noise, Request, Setup, TEST_UNIT_READY, fill, lun, medium, read_10,
    task_management, unit, write_10,
};
use vhost_user::Shard as _;

const SECOND: u16 = FIRST + 1;

struct Fixture {
    device: Device,
    disk: Recorder,
    malloc: Arc<Malloc>,
    content: Vec<u8>,
}

/// A disk with content behind the gate; request queues on one shard each.
fn fixture(shards: usize) -> Fixture {
    let malloc = Arc::new(Malloc::new("disk", 64 << 10, 512).unwrap());
    let content = fill(&*malloc);
    let gate = Gate::closed();
    let held = Delay::held(Arc::clone(&malloc) as Arc<dyn Bdev>, &gate);
    let disk = Recorder::over(Arc::new(held));
    let mut setup = Setup::of([unit(0, 0, Arc::new(disk.clone()))]);
    setup.request_queues = 2;
    setup.shards = shards;
    setup.gate = gate;
    Fixture { device: Device::ready(setup), disk, malloc, content }
}

fn read(lba: u32) -> Request {
    Request::new(lun(0, 0), &read_10(lba, 1)).data_in(512)
}

fn write(lba: u32) -> Request {
    Request::new(lun(0, 0), &write_10(lba, 1)).data_out([0x42; 512])
}

fn poll_often(device: &mut Device) {
    for _ in 0..300 {
        device.poll();
    }
}

#[test]
fn r14_stop_is_answered_when_what_is_in_flight_has_been_published() {
    let Fixture { mut device, disk, content, .. } = fixture(1);
    let call = device.call(FIRST);
    device.submit(FIRST, read(3));
    device.submit(FIRST, write(4));
    device.run();
    call.drain();
    let stopped = device.stop(FIRST);
    device.submit(FIRST, read(5)); // nobody will look at it
    let before = device.guest.snapshot();
    poll_often(&mut device);
    assert!(stopped.try_recv().is_err());
    before.assert_untouched(&device.guest, "while the stop waits");
    assert_eq!(call.drain(), 0);

    device.gate.release(1);
    poll_often(&mut device);
    assert!(stopped.try_recv().is_err(), "one of two is still out");
    device.gate.open();
    let used = device.used(FIRST);
    while stopped.is_empty() {
        device.poll();
    }
    assert_eq!(device.used(FIRST), used + 1, "published before the answer");
    let stopped = stopped.try_recv().unwrap();
    assert_eq!((stopped.base, stopped.fault), (Some(3), None), "unit attention, read, write");
    let replies = device.take(FIRST);
    replies[0].assert_data(&content[3 * 512..4 * 512]);
    replies[1].assert_good(0);

    call.drain();
    let after = device.guest.snapshot();
    device.submit_many(FIRST, 2, read(6));
    let after_submitting = device.guest.snapshot();
    assert!(!after.changed(&device.guest).is_empty(), "the driver's own writes");
    poll_often(&mut device);
    after_submitting.assert_untouched(&device.guest, "after the stop");
    assert_eq!((call.drain(), disk.calls().reads + disk.calls().writes), (0, 2));
}

#[test]
fn r14_disable_is_answered_when_what_is_in_flight_has_been_published() {
    let Fixture { mut device, disk, .. } = fixture(1);
    let call = device.call(FIRST);
    device.submit(FIRST, read(3));
    device.run();
    let disabled = device.disable(FIRST);
    device.submit(FIRST, read(4));
    let before = device.guest.snapshot();
    poll_often(&mut device);
    assert!(disabled.try_recv().is_err());
    before.assert_untouched(&device.guest, "while the disabling waits");
    device.gate.open();
    device.run();
    assert!(disabled.try_recv().is_ok());
    device.take_one(FIRST).assert_good(0);

    call.drain();
    let after = device.guest.snapshot();
    poll_often(&mut device);
    after.assert_untouched(&device.guest, "after the disabling");
    assert_eq!((call.drain(), disk.calls().reads), (0, 1));
}

#[test]
fn r14_idle_rings_answer_at_once() {
    let Fixture { mut device, .. } = fixture(1);
    device.submit(FIRST, read(0)); // on the ring, but never looked at
    let disabled = device.disable(FIRST);
    assert!(disabled.try_recv().is_ok());
    let stopped = device.stop(FIRST).try_recv().unwrap();
    assert_eq!(stopped.base, Some(1));
    assert_eq!(device.stop(FIRST).try_recv().unwrap().base, None, "it is stopped already");
    assert_eq!(device.stop(SECOND).try_recv().unwrap().base, Some(0));
}

#[test]
fn r14_siblings_go_on_while_a_ring_waits() {
    for shards in [1, 2] {
        let Fixture { mut device, disk, .. } = fixture(shards);
        device.submit(FIRST, read(3));
        device.run();
        let stopped = device.stop(FIRST);
        device.answer(SECOND, Request::new(lun(0, 0), &TEST_UNIT_READY)).assert_good(0);
        device.submit(SECOND, read(4));
        device.run();
        assert_eq!(disk.calls().reads, 2);
        assert_eq!(device.manage(6, lun(0, 0), 0), 10, "the control queue, too");
        assert!(stopped.try_recv().is_err());
        device.gate.release(1);
        device.run();
        assert!(stopped.try_recv().is_ok());
        device.gate.open();
        device.run();
        assert_eq!((device.take(FIRST).len(), device.take(SECOND).len()), (1, 1));
        device.answer(SECOND, read(5)).assert_good(0);
    }
}

#[test]
fn r14_reset_waits_for_every_ring_and_begins_a_session() {
    let Fixture { mut device, .. } = fixture(2);
    device.submit(FIRST, read(3));
    device.submit(SECOND, write(4));
    device.run();
    device.submit(CONTROL, task_management(5, lun(0, 0), 0));
    device.run();
    // What the control half does for a reset: stop all rings, wait for all, then tell the shards.
    let queues = device.controller.queues();
    let stops: Vec<_> = (0..queues).map(|index| device.stop(index)).collect();
    poll_often(&mut device);
    let waiting: Vec<bool> = stops.iter().map(|stop| stop.is_empty()).collect();
    assert_eq!(waiting, [true, false, true, true], "the event queue has nothing in flight");
    device.gate.open();
    device.run();
    assert!(stops.iter().all(|stop| stop.try_recv().is_ok()));
    assert_eq!(device.take_one(CONTROL).byte(), 0);
    assert_eq!((device.take_one(FIRST).code(), device.take_one(SECOND).code()), (4, 4));
    device.shards.iter_mut().for_each(vhost_user::Shard::reset);
    let after = device.guest.snapshot();
    poll_often(&mut device);
    after.assert_untouched(&device.guest, "after the reset");
    for index in 0..queues {
        device.renew(index, 128);
        device.start(index, 0);
    }
    let ready = Request::new(lun(0, 0), &TEST_UNIT_READY);
    assert_eq!(device.answer(FIRST, &ready).sense(), Some((0x06, 0x29, 0x01)));
    device.answer(SECOND, &ready).assert_good(0);
}

/// Random stops and disablings with random requests in flight: after every answer not a byte changes until the ring
/// is started again.
#[test]
fn r15_nothing_is_written_and_nobody_called_after_any_answer() {
    const SEED: u64 = 15;
    let Fixture { mut device, .. } = fixture(2);
    let mut noise = Noise::new(SEED);
    let calls = [device.call(FIRST), device.call(SECOND)];
    for round in 0..300 {
        device.gate.close();
        for index in [FIRST, SECOND] {
            for _ in 0..noise.below(6) {
                let lba = noise.below(100) as u32;
                let request = if noise.once_in(2) { read(lba) } else { write(lba) };
                device.submit(index, request);
                if noise.once_in(2) {
                    device.poll();
                }
            }
        }
        let stop = noise.once_in(2);
        let bases = [FIRST, SECOND].map(|index| {
            let (stopped, disabled) = match stop {
                true => (Some(device.stop(index)), None),
                false => (None, Some(device.disable(index))),
            };
            device.gate.release(noise.below(3));
            device.poll();
            (stopped, disabled)
        });
        device.gate.open();
        device.run();
        let bases = bases.map(|(stopped, disabled)| {
            if let Some(disabled) = disabled {
                disabled.try_recv().unwrap();
            }
            stopped.map(|stopped| stopped.try_recv().unwrap().base.unwrap())
        });
        for call in &calls {
            call.drain();
        }
        let after = device.guest.snapshot();
        for _ in 0..20 {
            device.poll();
        }
        after.assert_untouched(&device.guest, &format!("seed {SEED}, round {round}"));
        assert_eq!(calls.each_ref().map(|call| call.drain()), [0, 0], "seed {SEED}, round {round}");
        for (index, base) in [FIRST, SECOND].into_iter().zip(bases) {
            match base {
                Some(base) => device.start(index, base),
                None => device.rings(index).enable(index),
            }
        }
        device.run();
        for index in [FIRST, SECOND] {
            assert!(device.take(index).iter().all(|reply| reply.outcome() == (0, 0)));
            assert_eq!(device.outstanding(index), 0, "seed {SEED}, round {round}");
        }
    }
}

#[test]
fn r14_memory_that_goes_is_let_go_when_its_requests_have_ended() {
    let Fixture { mut device, content, .. } = fixture(2);
    device.submit(FIRST, read(3));
    device.submit(SECOND, read(4));
    device.run();
    // The upper region goes, with the buffers of both requests.
    let table = device.guest.table_of(0..1);
    let old = device.swap_table(table);
    let before = device.guest.snapshot();
    poll_often(&mut device);
    assert!(old.iter().all(|old| old.try_recv().is_err()));
    before.assert_untouched(&device.guest, "while requests use the old table");
    device.gate.release(1);
    device.poll_shard(0);
    assert!(old[0].try_recv().is_ok(), "shard 0 is done with it");
    assert!(old[1].try_recv().is_err());
    device.gate.release(1);
    device.poll_shard(1);
    let last = old[1].try_recv().expect("shard 1 is done with it");
    assert_eq!(last.regions().len(), 2);
    drop(last);
    device.take_one(FIRST).assert_data(&content[3 * 512..4 * 512]);
    device.take_one(SECOND).assert_data(&content[4 * 512..5 * 512]);

    // Rings are in the lower region: they go on, and buffers there are as good as any.
    let mut chain = device.segments(&read(5).message());
    device.guest.write(BUFFERS / 2, &read(5).header());
    chain[0].addr = BUFFERS / 2;
    chain[1].addr = BUFFERS / 2 + 100;
    chain[2].addr = BUFFERS / 2 + 300;
    device.gate.open();
    device.answer_chain(FIRST, &chain).assert_data(&content[5 * 512..6 * 512]);
    // Those of the upper region are no memory any more.
    device.submit(FIRST, read(6));
    device.run();
    assert!(device.broken(FIRST) && !device.broken(SECOND));
}

#[test]
fn r14_table_without_a_ring_halts_it_and_lets_its_requests_end() {
    let Fixture { mut device, content, .. } = fixture(1);
    let err = device.err(FIRST);
    device.submit(FIRST, read(3));
    device.run();
    let table = device.guest.table_of(1..2); // buffers, but no rings
    let old = device.swap_table(table);
    assert!(device.broken(FIRST));
    assert_eq!(err.drain(), 1);
    device.submit(FIRST, read(4));
    device.gate.open();
    device.run();
    assert!(old[0].try_recv().is_ok());
    device.take_one(FIRST).assert_data(&content[3 * 512..4 * 512]);
    assert_eq!(device.outstanding(FIRST), 1, "nothing is fetched from a ring that is not there");
    let report = device.reports.try_iter().find(|report| report.ring == FIRST).unwrap();
    assert_eq!(report.fault.reason.as_str(), "ring_unmapped");

    // The table comes back; so do the rings, when they are set up again.
    let table = device.guest.table();
    assert!(device.swap_table(table)[0].try_recv().is_ok());
    let index = FIRST;
    assert_eq!(device.stop(index).try_recv().unwrap().base, Some(2));
    device.start(index, 2);
    device.run();
    device.take_one(FIRST).assert_data(&content[4 * 512..5 * 512]);
    assert!(!device.broken(FIRST));
}

/// A closed socket has nobody to answer: its requests live on with their memory, and a new connection does not wait.
#[test]
fn r14_new_connection_is_served_while_requests_of_the_old_one_live_on() {
    let Fixture { mut device, disk, malloc, .. } = fixture(1);
    device.submit_many(FIRST, 3, read(3));
    device.submit(FIRST, write(8));
    device.run();
    let mut old = std::mem::take(&mut device.shards);
    device.reconnect();
    let ready = Request::new(lun(0, 0), &TEST_UNIT_READY);
    assert_eq!(device.answer(FIRST, &ready).sense(), Some((0x06, 0x29, 0x01)), "a session of its own");
    device.submit(FIRST, read(5));
    device.run();
    assert_eq!((disk.open_channels(), disk.calls().reads), (2, 4));
    assert_eq!(device.in_flight(0), 5, "of both connections");
    device.gate.open();
    device.run();
    device.take_one(FIRST).assert_good(0);
    for _ in 0..10 {
        old[0].poll(Tsc::now());
    }
    assert_eq!(old[0].rings().in_flight(), 0);
    assert_eq!(medium(&*malloc)[8 * 512], 0x42, "acknowledged or not, the write ended");
    drop(old);
    assert_eq!((disk.open_channels(), device.in_flight(0)), (1, 0));
}
