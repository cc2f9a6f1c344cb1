//! R07: a task management function takes effect on every request queue before it is answered: on commands at the
//! backend and on those that nobody has looked at yet. Polls are made one by one, and the used rings looked at after
//! each.

use std::sync::Arc;

use bdev::testing::Recorder;
use bdev::{Bdev, Delay, Gate, Malloc};
use tests::device::{
    CONTROL, Device, FIRST, Request, Setup, UNWRITTEN, fill, lun, read_10, task_management, unit, write_10,
};

const OK: u8 = 0;
const ABORTED: u8 = 2;
const RESET: u8 = 4;
const COMPLETE: u8 = 0;
const SUCCEEDED: u8 = 10;
const ABORT_TASK_SET: u32 = 1;
const LOGICAL_UNIT_RESET: u32 = 5;
const QUERY_TASK_SET: u32 = 7;

/// Two shards with a request queue each: [`FIRST`] is on shard 0, with the control queue, and [`SECOND`] on shard 1.
/// LUN 0 is behind the device's gate, LUN 1 behind its own.
const SECOND: u16 = FIRST + 1;

struct Fixture {
    device: Device,
    disks: [Recorder; 2],
    other_gate: Gate,
}

fn fixture() -> Fixture {
    let gates = [Gate::closed(), Gate::closed()];
    let disks = [0, 1].map(|at| Recorder::gated("disk", 1024, 512, &gates[at]).unwrap());
    let [a, b] = disks.clone().map(Arc::new);
    let mut setup = Setup::of([unit(0, 0, a), unit(0, 1, b)]);
    setup.request_queues = 2;
    setup.shards = 2;
    let [gate, other_gate] = gates;
    setup.gate = gate;
    Fixture { device: Device::ready(setup), disks, other_gate }
}

fn read(number: u16) -> Request {
    Request::new(lun(0, number), &read_10(0, 1)).data_in(512)
}

fn codes(device: &mut Device, index: u16) -> Vec<u8> {
    device.take(index).iter().map(|reply| reply.code()).collect()
}

#[test]
fn r07_lun_reset_drains_every_queue() {
    let Fixture { mut device, disks, other_gate } = fixture();
    for index in [FIRST, SECOND] {
        device.submit_many(index, 2, read(0));
        device.submit_many(index, 1, read(1));
    }
    device.run();
    assert_eq!((disks[0].calls().reads, disks[1].calls().reads), (4, 2));

    // Shard 0 sees the function. Nobody has looked at what is on the rings since.
    device.submit(CONTROL, task_management(LOGICAL_UNIT_RESET, lun(0, 0), 0));
    device.poll_shard(0);
    for index in [FIRST, SECOND] {
        device.submit_many(index, 3, read(0));
        device.submit_many(index, 2, read(1));
    }
    assert_eq!([CONTROL, FIRST, SECOND].map(|index| device.used(index)), [0, 2, 0], "two unit attentions before");

    // Shard 1 sweeps its ring: what is affected comes back undispatched, what is not is dispatched.
    device.poll_shard(1);
    assert_eq!([CONTROL, FIRST, SECOND].map(|index| device.used(index)), [0, 2, 3]);
    assert_eq!(codes(&mut device, SECOND), [RESET; 3]);
    assert_eq!((disks[0].calls().reads, disks[1].calls().reads), (4, 4));

    device.poll_shard(0);
    assert_eq!([CONTROL, FIRST, SECOND].map(|index| device.used(index)), [0, 5, 3]);
    assert_eq!(codes(&mut device, FIRST), [RESET; 3]);
    assert_eq!((disks[0].calls().reads, disks[1].calls().reads), (4, 6));

    // Four reads are still at the backend. The function is not answered before the last of them is.
    for shard in [1, 1, 0, 1, 0] {
        device.poll_shard(shard);
    }
    assert_eq!(device.used(CONTROL), 0);
    device.gate.release(2);
    device.poll_shard(1);
    assert_eq!(codes(&mut device, SECOND), [RESET; 2]);
    device.poll_shard(0);
    assert_eq!((device.used(CONTROL), device.used(FIRST)), (0, 5), "shard 0 still waits for its own");
    device.gate.release(1);
    device.poll_shard(0);
    device.poll_shard(1);
    assert_eq!((device.used(CONTROL), device.used(FIRST)), (0, 6));
    device.gate.release(1);
    device.poll_shard(1);
    assert_eq!(device.used(CONTROL), 0);
    device.poll_shard(0);
    assert_eq!((device.used(CONTROL), device.used(FIRST)), (1, 7));
    assert_eq!(codes(&mut device, FIRST), [RESET; 2]);
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);

    // The other unit's commands have not noticed.
    assert_eq!((device.in_flight(0), device.in_flight(1)), (0, 6));
    other_gate.open();
    device.run();
    assert_eq!((codes(&mut device, FIRST), codes(&mut device, SECOND)), (vec![OK; 3], vec![OK; 3]));
}

/// The control queue's shard may be the last one to be done, or the first one.
#[test]
fn r07_control_queue_answers_when_the_last_shard_has_acknowledged() {
    for last in [0, 1] {
        let Fixture { mut device, other_gate, .. } = fixture();
        device.submit(FIRST + last, read(0));
        device.run();
        device.submit(CONTROL, task_management(ABORT_TASK_SET, lun(0, 0), 0));
        for _ in 0..10 {
            device.poll_shard(0);
            device.poll_shard(1);
        }
        assert_eq!((device.used(CONTROL), device.in_flight(0)), (0, 1));
        device.gate.open();
        device.poll_shard(usize::from(last));
        assert_eq!(codes(&mut device, FIRST + last), [ABORTED]);
        if last == 1 {
            assert_eq!(device.used(CONTROL), 0, "only shard 0 writes the control queue");
            device.poll_shard(0);
        }
        assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
        other_gate.open();
    }
}

/// A shard that is not polled holds the function up: nobody else can know what is on its rings.
#[test]
fn r07_shard_that_has_not_looked_holds_the_answer_back() {
    let Fixture { mut device, other_gate, .. } = fixture();
    device.submit(CONTROL, task_management(LOGICAL_UNIT_RESET, lun(0, 0), 0));
    for _ in 0..20 {
        device.poll_shard(0);
    }
    assert_eq!(device.used(CONTROL), 0);
    device.submit(SECOND, read(0)); // still before the function, as far as shard 1 can tell
    device.poll_shard(1);
    assert_eq!(codes(&mut device, SECOND), [RESET]);
    device.poll_shard(0);
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
    other_gate.open();
}

/// What was on the ring when the sweep began is swept, what comes later is not; and a guest that never stops submitting
/// cannot hold the function up.
#[test]
fn r07_sweep_ends_at_the_snapshot_while_the_guest_goes_on_submitting() {
    let Fixture { mut device, disks, other_gate } = fixture();
    let message = read(0).message();
    let submit = |device: &mut Device, count: usize| {
        for _ in 0..count {
            let chain = device.segments(&message);
            device.submit_indirect(SECOND, &chain);
        }
    };
    device.submit(CONTROL, task_management(LOGICAL_UNIT_RESET, lun(0, 0), 0));
    device.poll_shard(0);
    submit(&mut device, 40);
    device.poll_shard(1); // 32 are a poll's share
    assert_eq!(codes(&mut device, SECOND), [RESET; 32]);
    submit(&mut device, 60);
    device.poll_shard(1);
    assert_eq!(codes(&mut device, SECOND), [RESET; 8], "up to the snapshot and no further");
    assert_eq!(disks[0].calls().reads, 0);
    submit(&mut device, 20);
    device.poll_shard(0);
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE, "although the ring is anything but empty");
    device.poll_shard(1);
    // The first of them is told of the reset; the others reach the backend.
    assert_eq!((codes(&mut device, SECOND), disks[0].calls().reads), (vec![OK], 31));
    other_gate.open();
}

#[test]
fn r07_functions_are_carried_out_one_after_the_other() {
    let Fixture { mut device, other_gate, .. } = fixture();
    device.submit(SECOND, read(0));
    device.submit(SECOND, read(1));
    device.run();
    let functions = [
        task_management(LOGICAL_UNIT_RESET, lun(0, 0), 0),
        task_management(QUERY_TASK_SET, lun(0, 1), 0),
        task_management(QUERY_TASK_SET, lun(0, 0), 0),
        task_management(9, lun(0, 0), 0),
    ];
    let tokens = functions.map(|function| device.submit(CONTROL, function));
    device.run();
    assert_eq!(device.take(CONTROL), [], "those behind the first wait as well");
    device.gate.open();
    device.run();
    let replies = device.take(CONTROL);
    assert_eq!(replies.iter().map(|reply| reply.token).collect::<Vec<_>>(), tokens);
    let answers: Vec<u8> = replies.iter().map(|reply| reply.byte()).collect();
    assert_eq!(answers, [COMPLETE, SUCCEEDED, COMPLETE, 11]);
    other_gate.open();
}

#[test]
fn r07_stopped_disabled_and_broken_rings_acknowledge_at_once() {
    // Each with commands on the ring that nobody will look at.
    let quiet: [fn(&mut Device); 3] = [
        |device| assert!(device.stop(SECOND).try_recv().is_ok()),
        |device| assert!(device.disable(SECOND).try_recv().is_ok()),
        |device| {
            let raw = device.raw(SECOND);
            raw.set_avail_index(raw.avail_index().wrapping_add(1000));
            device.poll_shard(1);
            assert!(device.broken(SECOND));
        },
    ];
    for make_quiet in quiet {
        let Fixture { mut device, disks, other_gate } = fixture();
        make_quiet(&mut device);
        device.submit_many(SECOND, 3, read(0));
        device.submit(FIRST, read(0));
        device.submit(CONTROL, task_management(LOGICAL_UNIT_RESET, lun(0, 0), 0));
        device.poll_shard(0); // dispatches the read, and sees the function
        device.gate.open();
        device.poll_shard(1);
        device.poll_shard(0);
        assert_eq!(codes(&mut device, FIRST), [RESET]);
        assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
        assert_eq!((device.used(SECOND), disks[0].calls().reads), (0, 1));
        other_gate.open();
    }
}

/// A ring that is about to stop has commands at the backend all the same.
#[test]
fn r07_commands_of_a_ring_that_is_being_disabled_are_waited_for() {
    let Fixture { mut device, other_gate, .. } = fixture();
    device.submit(SECOND, read(0));
    device.run();
    let disabled = device.disable(SECOND);
    device.submit(CONTROL, task_management(LOGICAL_UNIT_RESET, lun(0, 0), 0));
    device.run();
    assert_eq!((device.used(CONTROL), disabled.try_recv().is_ok()), (0, false));
    device.gate.open();
    device.run();
    assert_eq!(codes(&mut device, SECOND), [RESET]);
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
    assert!(disabled.try_recv().is_ok());
    other_gate.open();
}

/// Commands at the backend are waited for, never answered early: the buffers are the backend's until then.
#[test]
fn r07_aborted_commands_are_answered_when_the_backend_has_let_go_of_their_buffers() {
    let malloc = Arc::new(Malloc::new("disk", 64 << 10, 512).unwrap());
    let content = fill(&*malloc);
    let gate = Gate::closed();
    let held = Delay::held(Arc::clone(&malloc) as Arc<dyn Bdev>, &gate);
    let mut setup = Setup::of([unit(0, 0, Arc::new(held))]);
    setup.gate = gate;
    let mut device = Device::ready(setup);
    device.submit(FIRST, Request::new(lun(0, 0), &read_10(3, 2)).data_in(1024));
    device.submit(FIRST, Request::new(lun(0, 0), &write_10(9, 1)).data_out([0x77; 512]));
    device.run();
    device.submit(CONTROL, task_management(ABORT_TASK_SET, lun(0, 0), 0));
    let before = device.guest.snapshot();
    for _ in 0..50 {
        device.poll();
    }
    before.assert_untouched(&device.guest, "while the backend has the commands");
    device.gate.open();
    device.run();
    let replies = device.take(FIRST);
    assert_eq!(replies.iter().map(|reply| reply.outcome()).collect::<Vec<_>>(), [(ABORTED, 0); 2]);
    assert_eq!((replies[0].residual(), replies[0].written), (1024, 12));
    assert!(replies[0].data() == &content[3 * 512..5 * 512], "the backend was not stopped, and is done");
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
    let after = device.guest.snapshot();
    device.run();
    after.assert_untouched(&device.guest, "after the answer");
    assert!(replies[0].writable[12..108].iter().all(|byte| *byte == UNWRITTEN));
}

/// A ring that is stopped while it is swept, and started anew before its shard polls again: what was swept up to meant
/// the old ring. The function ends, and what is on the new ring is served.
#[test]
fn r07_ring_that_starts_anew_during_a_sweep_is_not_swept() {
    let Fixture { mut device, .. } = fixture();
    // More than a shard takes in one poll: the sweep is under way after it.
    for _ in 0..100 {
        let segments = device.segments(&Request::new(lun(0, 0), &[0; 6]).message());
        device.submit_indirect(SECOND, &segments);
    }
    device.submit(CONTROL, task_management(LOGICAL_UNIT_RESET, lun(0, 0), 0));
    device.poll_shard(0);
    device.poll_shard(1);
    assert_eq!(codes(&mut device, SECOND), [RESET; 32]);

    assert_eq!(device.stop(SECOND).try_recv().unwrap().base, Some(32));
    device.renew(SECOND, 128);
    device.start(SECOND, 0);
    let fresh = device.submit(SECOND, Request::new(lun(0, 0), &[0; 6]));
    device.run();
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
    let reply = device.take_one(SECOND);
    assert_eq!((reply.token, reply.code()), (fresh, OK));
}
