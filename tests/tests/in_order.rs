//! VIRTIO_F_IN_ORDER (virtio 1.3 §2.7.9, §2.8.9): requests are carried out and end in any order, and come back in the order that
//! they were sent in. What waits for an older request is not at the device any more, neither to limits nor to task management;
//! but it has not come back, and so neither a stop nor a task management function is over.

use std::sync::Arc;

use bdev::Gate;
use bdev::testing::Recorder;
use tests::device::{
    CONTROL, Device, FIRST, Message, Noise, Request, Setup, lun, read_10, task_management, unit, write_10,
};
use virtio_scsi::Limit;
use virtqueue::RingFormat;

const GOOD: u8 = 0;
const ABORTED: u8 = 2;
const RESET: u8 = 4;
const COMPLETE: u8 = 0;
const SUCCEEDED: u8 = 10;
const ABORT_TASK: u32 = 0;
const ABORT_TASK_SET: u32 = 1;
const LOGICAL_UNIT_RESET: u32 = 5;
const QUERY_TASK: u32 = 6;
/// On shard 1 where there are two.
const SECOND: u16 = FIRST + 1;

/// Units 0 and 1 hold what they get until their gates let it go; unit 2 ends it at once.
struct Fixture {
    device: Device,
    /// That of unit 1; the other one is the device's.
    gate: Gate,
}

fn fixture(format: RingFormat, change: impl FnOnce(&mut Setup)) -> Fixture {
    let gates = [Gate::closed(), Gate::closed(), Gate::closed()];
    gates[2].open();
    let disk = |at: usize| Arc::new(Recorder::gated("disk", 1024, 512, &gates[at]).unwrap());
    let mut setup = Setup::of([unit(0, 0, disk(0)), unit(0, 1, disk(1)), unit(0, 2, disk(2))]);
    setup.request_queues = 2;
    setup.shards = 2;
    (setup.format, setup.in_order) = (format, true);
    change(&mut setup);
    let [gate, other_gate, _] = gates;
    setup.gate = gate;
    Fixture { device: Device::ready(setup), gate: other_gate }
}

fn each(test: impl Fn(Fixture)) {
    RingFormat::ALL.into_iter().for_each(|format| test(fixture(format, |_| {})));
}

fn read(unit: u16) -> Request {
    Request::new(lun(0, unit), &read_10(0, 1)).data_in(512)
}

fn tagged(unit: u16, tag: u64) -> Request {
    read(unit).tag(tag)
}

/// Token and response of what came back.
fn replies(device: &mut Device, index: u16) -> Vec<(usize, u8)> {
    device.take(index).iter().map(|reply| (reply.token, reply.code())).collect()
}

fn held(device: &Device, index: u16) -> u64 {
    device.ring_stats[usize::from(index)].held.value()
}

#[test]
fn in_order_quick_requests_come_back_behind_a_slow_one_that_is_older() {
    each(|Fixture { mut device, .. }| {
        let tokens = [0, 2, 2, 0, 2].map(|unit| device.submit(FIRST, read(unit)));
        let other = device.submit(SECOND, read(2));
        device.run();
        assert_eq!(replies(&mut device, FIRST), [], "three are done, and wait");
        assert_eq!(replies(&mut device, SECOND), [(other, GOOD)], "another queue has an order of its own");
        assert_eq!((held(&device, FIRST), held(&device, SECOND)), (0, 0), "told when something is published");
        device.gate.release(1);
        device.run();
        assert_eq!(replies(&mut device, FIRST), [0, 1, 2].map(|at| (tokens[at], GOOD)));
        assert_eq!(held(&device, FIRST), 3);
        device.gate.release(1);
        device.run();
        assert_eq!(replies(&mut device, FIRST), [3, 4].map(|at| (tokens[at], GOOD)));
        assert_eq!(held(&device, FIRST), 3, "each is counted once");
    });
}

#[test]
fn in_order_any_requests_come_back_as_in_any_order_only_in_order() {
    for seed in 0..40 {
        let mut noise = Noise::new(seed);
        let requests: Vec<Message> = (0..60).map(|_| random_request(&mut noise)).collect();
        let ways = [(RingFormat::Split, false), (RingFormat::Split, true), (RingFormat::Packed, true)];
        let [plain, split, packed] = ways.map(|way| outcomes(seed, way, &requests));
        assert_eq!((&split, &packed), (&plain, &plain), "seed {seed}");
    }
}

/// A read or a write of some blocks of some unit, in or out of bounds, or something that is no command. Nothing is read that is
/// written, so that what is read does not depend on who was first.
fn random_request(noise: &mut Noise) -> Message {
    let address = lun(0, noise.below(4) as u16);
    let (lba, blocks) = (noise.below(500) as u32, noise.below(4) as u16);
    let bytes = 512 * usize::from(blocks);
    match noise.below(8) {
        0..4 => Request::new(address, &read_10(lba + 530, blocks)).data_in(bytes).into(),
        4..7 => Request::new(address, &write_10(lba, blocks)).data_out(vec![noise.below(256) as u8; bytes]).into(),
        _ => Message { readable: vec![1; noise.below(60) as usize + 1], writable: 108 },
    }
}

/// What came of each request: bytes told as written, and the bytes. Backends let go at random moments.
fn outcomes(seed: u64, (format, in_order): (RingFormat, bool), requests: &[Message]) -> Vec<(u32, Vec<u8>)> {
    let Fixture { mut device, gate } = fixture(format, |setup| {
        (setup.in_order, setup.request_queues, setup.shards) = (in_order, 1, 1);
    });
    let mut noise = Noise::new(!seed);
    let (mut came, mut sent) = (Vec::new(), requests.iter());
    let mut tokens = Vec::new();
    while came.len() < requests.len() {
        // As many as the ring has room for, whatever the order that descriptors come back in.
        for _ in 0..noise.below(6) {
            if device.outstanding(FIRST) < 30
                && let Some(request) = sent.next()
            {
                tokens.push(device.submit(FIRST, request.clone()));
            }
        }
        [&device.gate, &gate][noise.below(2) as usize].release(noise.below(3));
        device.poll();
        came.extend(device.take(FIRST));
    }
    if in_order {
        assert!(came.iter().map(|reply| reply.token).eq(tokens), "seed {seed}: out of order");
    }
    came.sort_by_key(|reply| reply.token);
    came.into_iter().map(|reply| (reply.written, reply.writable)).collect()
}

#[test]
fn in_order_request_that_waits_holds_no_share_of_its_limit() {
    for format in RingFormat::ALL {
        let Fixture { mut device, gate } = fixture(format, |setup| setup.limits.cmd_per_lun = 2);
        device.submit(FIRST, read(0));
        for _ in 0..4 {
            device.submit_many(FIRST, 2, read(2));
            device.run();
            assert_eq!(device.in_flight(2), 0, "they have ended");
        }
        device.submit_many(FIRST, 3, read(1));
        device.run();
        assert_eq!((device.in_flight(1), device.refused(1, Limit::CmdPerLun)), (2, 1), "and these have not");
        gate.open();
        device.gate.open();
        device.run();
        let codes: Vec<u8> = replies(&mut device, FIRST).into_iter().map(|(_, code)| code).collect();
        assert_eq!(codes, [vec![GOOD; 11], vec![5]].concat(), "BUSY, in its turn");
        assert_eq!(device.refused(2, Limit::CmdPerLun), 0);
    }
}

#[test]
fn in_order_ring_stops_when_what_waits_has_come_back() {
    each(|Fixture { mut device, .. }| {
        device.submit(FIRST, read(0));
        device.submit_many(FIRST, 2, read(2));
        device.run();
        let stopped = device.stop(FIRST);
        let disabled = device.disable(SECOND);
        device.run();
        assert!(stopped.try_recv().is_err(), "one has not ended, and two have not come back");
        assert!(disabled.try_recv().is_ok(), "nothing was out");
        device.gate.open();
        device.run();
        assert_eq!(replies(&mut device, FIRST).len(), 3);
        assert!(stopped.try_recv().is_ok());
    });
}

#[test]
fn in_order_ring_that_is_halted_gives_back_what_it_has_in_order() {
    let Fixture { mut device, .. } = fixture(RingFormat::Split, |_| {});
    let tokens = [0, 2, 2].map(|unit| device.submit(FIRST, read(unit)));
    device.run();
    device.raw(FIRST).set_avail_index(4000);
    device.run();
    assert!(device.broken(FIRST));
    assert_eq!(replies(&mut device, FIRST), []);
    device.gate.open();
    device.run();
    assert_eq!(replies(&mut device, FIRST), tokens.map(|token| (token, GOOD)));
    device.restart(FIRST);
}

// --- task management: an answer comes after all that it is about has come back ---

/// The younger command is ended by the function, and cannot come back before the older one, which is not.
#[test]
fn r07_in_order_abort_of_a_young_command_is_answered_when_the_old_one_has_come_back() {
    for (function, tag) in [(ABORT_TASK, 7), (ABORT_TASK_SET, 0)] {
        each(|Fixture { mut device, gate }| {
            let old = device.submit(FIRST, read(0));
            let young = device.submit(FIRST, tagged(1, 7));
            device.run();
            device.submit(CONTROL, task_management(function, lun(0, 1), tag));
            device.run();
            gate.open();
            device.run();
            assert_eq!(device.in_flight(1), 0, "it has ended");
            assert_eq!((replies(&mut device, FIRST), device.take(CONTROL).len()), (vec![], 0));
            device.gate.open();
            // In no poll is the answer there before what it is about.
            let mut came = Vec::new();
            while device.outstanding(CONTROL) > 0 {
                device.poll();
                let answers = device.take(CONTROL);
                came.extend(replies(&mut device, FIRST));
                assert!(answers.is_empty() || came == [(old, GOOD), (young, ABORTED)], "{came:?}");
                answers.iter().for_each(|answer| assert_eq!(answer.byte(), COMPLETE));
            }
        });
    }
}

/// R09: there is nothing to be ended, and the answer says that nothing comes any more.
#[test]
fn r07_in_order_function_is_answered_when_what_had_ended_before_it_has_come_back() {
    for (function, tag) in [(ABORT_TASK, 7), (LOGICAL_UNIT_RESET, 0), (QUERY_TASK, 7)] {
        each(|Fixture { mut device, .. }| {
            device.submit(FIRST, read(0));
            device.submit(FIRST, tagged(2, 7));
            device.run();
            device.submit(CONTROL, task_management(function, lun(0, 2), tag));
            device.run();
            assert_eq!((device.take(CONTROL).len(), replies(&mut device, FIRST)), (0, vec![]));
            device.gate.open();
            device.run();
            assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
            assert!(replies(&mut device, FIRST).iter().map(|(_, code)| *code).eq([GOOD; 2]));
        });
    }
}

/// Younger commands, sent before the function or after it, do not hold it up.
#[test]
fn r07_in_order_function_does_not_wait_for_younger_commands() {
    each(|Fixture { mut device, gate }| {
        device.submit(FIRST, read(1));
        device.submit(FIRST, read(0));
        device.run();
        device.submit(CONTROL, task_management(LOGICAL_UNIT_RESET, lun(0, 1), 0));
        device.poll();
        device.submit_many(FIRST, 2, read(0));
        device.run();
        gate.open();
        device.run();
        assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
        assert!(replies(&mut device, FIRST).iter().map(|(_, code)| *code).eq([RESET]));
        assert_eq!(device.in_flight(0), 3);
    });
}

#[test]
fn r07_in_order_query_that_finds_its_command_is_answered_at_once() {
    each(|Fixture { mut device, .. }| {
        device.submit(FIRST, tagged(0, 5));
        device.submit_many(FIRST, 2, read(2));
        device.run();
        assert_eq!(device.manage(QUERY_TASK, lun(0, 0), 5), SUCCEEDED);
        assert_eq!(replies(&mut device, FIRST), []);
    });
}

/// Commands that nobody has fetched when the function comes, on either shard, each behind an old one of another unit.
#[test]
fn r07_in_order_swept_commands_come_back_before_the_answer_on_every_queue() {
    each(|Fixture { mut device, .. }| {
        for index in [FIRST, SECOND] {
            device.submit(index, read(0));
        }
        device.run();
        device.submit(CONTROL, task_management(LOGICAL_UNIT_RESET, lun(0, 2), 0));
        device.poll_shard(0);
        let tokens = [FIRST, SECOND].map(|index| [2, 0, 2].map(|unit| device.submit(index, read(unit))));
        for _ in 0..8 {
            device.poll();
        }
        assert_eq!(device.take(CONTROL).len(), 0);
        // What shard 0 fetched was sent before it saw the function, and what shard 1 fetched as well.
        for count in [1, 1] {
            assert_eq!(device.take(CONTROL).len(), 0, "one queue has given back what the function is about");
            device.gate.release(count);
            device.run();
        }
        device.gate.open();
        device.run();
        assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
        for (index, tokens) in [FIRST, SECOND].into_iter().zip(tokens) {
            let replies = replies(&mut device, index);
            assert!(replies[1..].iter().map(|(token, _)| *token).eq(tokens), "queue {index}: {replies:?}");
            assert_eq!((replies[0].1, replies[2].1), (GOOD, GOOD), "of the other unit");
        }
    });
}

/// R22: what is left of the unit goes at once; its commands come back in their turn.
#[test]
fn r22_in_order_unit_goes_while_its_commands_wait_for_another_one() {
    each(|Fixture { mut device, gate }| {
        let old = device.submit(FIRST, read(0));
        let [ended, failed] = [2, 1].map(|unit| device.submit(FIRST, read(unit)));
        device.run();
        let gone = [1, 2].map(|lun| device.unplug(0, lun).unwrap());
        device.run();
        gate.open();
        device.run();
        assert!(gone.iter().all(|release| release.is_over()));
        assert_eq!(replies(&mut device, FIRST), []);
        device.gate.open();
        device.run();
        assert_eq!(replies(&mut device, FIRST), [(old, GOOD), (ended, GOOD), (failed, 6)]);
    });
}
