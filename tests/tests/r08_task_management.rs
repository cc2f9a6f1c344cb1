//! R08 and R09: what each task management function answers, what the commands it acts on get, and which units have a
//! unit attention to report afterwards.

use std::sync::Arc;

use bdev::testing::Recorder;
use tests::device::{CONTROL, Device, FIRST, Request, Setup, TEST_UNIT_READY, lun, read_10, task_management, unit};
use vhost_user::Shard as _;

const ABORT_TASK: u32 = 0;
const ABORT_TASK_SET: u32 = 1;
const CLEAR_ACA: u32 = 2;
const CLEAR_TASK_SET: u32 = 3;
const I_T_NEXUS_RESET: u32 = 4;
const LOGICAL_UNIT_RESET: u32 = 5;
const QUERY_TASK: u32 = 6;
const QUERY_TASK_SET: u32 = 7;

const COMPLETE: u8 = 0;
const BAD_TARGET: u8 = 3;
const SUCCEEDED: u8 = 10;
const REJECTED: u8 = 11;
const INCORRECT_LUN: u8 = 12;
const ABORTED: u8 = 2;
const RESET: u8 = 4;

/// What is wrong with these is that they are no addresses at all, or name a target that is not there.
const BAD_ADDRESSES: [[u8; 8]; 8] = [
    [0, 0, 0, 0, 0, 0, 0, 0],
    [2, 0, 0x40, 0, 0, 0, 0, 0],
    [1, 0, 0x80, 0, 0, 0, 0, 0],
    [1, 0, 0x40, 0, 0, 0, 0, 1],
    [0xc1, 2, 0, 0, 0, 0, 0, 0],
    [0xff; 8],
    [1, 9, 0x40, 0, 0, 0, 0, 0],
    [1, 9, 0xc1, 1, 0, 0, 0, 0],
];
const WELL_KNOWN: [[u8; 8]; 2] = [[0xc1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0xc1, 1, 0, 0, 0, 0]];

/// Position of each address in the map.
const UNITS: [(u8, u16); 4] = [(0, 0), (0, 1), (0, 300), (7, 0)];

/// Units 0, 1 and 300 of target 0, unit 0 of target 7, all of them behind the gate.
fn device() -> Device {
    let gate = bdev::Gate::closed();
    let units = UNITS
        .map(|(target, number)| unit(target, number, Arc::new(Recorder::gated("disk", 1024, 512, &gate).unwrap())));
    let mut setup = Setup::of(units);
    setup.request_queues = 2;
    setup.gate = gate;
    Device::ready(setup)
}

fn read(at: usize, tag: u64) -> Request {
    Request::new(lun(UNITS[at].0, UNITS[at].1), &read_10(0, 1)).tag(tag).data_in(512)
}

/// The unit attention that each unit has to report; reporting it takes it away.
fn attentions(device: &mut Device) -> [Option<(u8, u8, u8)>; 4] {
    UNITS.map(|(target, number)| device.answer(FIRST + 1, Request::new(lun(target, number), &TEST_UNIT_READY)).sense())
}

/// Two commands of each unit at the backend, tags 10 and 11, 20 and 21, …; then, once the function is under way, two
/// more of each on the ring, tags 12 and 13, 22 and 23, … Returns every command's tag with its response, and the
/// function's.
fn carry_out(device: &mut Device, subtype: u32, lun: [u8; 8], tag: u64) -> (Vec<(u64, u8)>, u8) {
    let mut tags = std::collections::BTreeMap::new();
    let mut submit = |device: &mut Device, extra: u64| {
        for at in 0..UNITS.len() {
            for number in 0..2 {
                let tag = (at as u64 + 1) * 10 + extra + number;
                tags.insert(device.submit(FIRST + (number as u16 % 2), read(at, tag)), tag);
            }
        }
    };
    submit(device, 0);
    device.run();
    device.submit(CONTROL, task_management(subtype, lun, tag));
    device.poll();
    submit(device, 2);
    device.run();
    device.gate.open();
    device.run();
    device.gate.close();
    let answer = device.take_one(CONTROL).byte();
    let mut ended: Vec<(u64, u8)> = Vec::new();
    for index in [FIRST, FIRST + 1] {
        ended.extend(device.take(index).iter().map(|reply| (tags[&reply.token], reply.code())));
    }
    ended.sort_unstable();
    assert_eq!(ended.len(), 16);
    (ended, answer)
}

/// Which tags did not end well.
fn not_good(ended: &[(u64, u8)]) -> Vec<(u64, u8)> {
    ended.iter().copied().filter(|(_, code)| *code != 0).collect()
}

#[test]
fn r08_abort_task_ends_that_command_at_the_backend_or_on_the_ring() {
    for tag in [20, 21, 22, 23] {
        let mut device = device();
        let (ended, answer) = carry_out(&mut device, ABORT_TASK, lun(0, 1), tag);
        assert_eq!((not_good(&ended), answer), (vec![(tag, ABORTED)], COMPLETE));
        assert_eq!(attentions(&mut device), [None; 4], "an abort is no reset");
    }
}

#[test]
fn r08_abort_and_clear_task_set_end_the_commands_of_that_unit() {
    for subtype in [ABORT_TASK_SET, CLEAR_TASK_SET] {
        let mut device = device();
        let (ended, answer) = carry_out(&mut device, subtype, lun(0, 300), 0);
        assert_eq!(not_good(&ended), [30, 31, 32, 33].map(|tag| (tag, ABORTED)));
        assert_eq!(answer, COMPLETE);
        assert_eq!(attentions(&mut device), [None; 4], "one nexus: nobody else has anything to be told");
    }
}

#[test]
fn r08_logical_unit_reset_ends_the_commands_of_that_unit_and_tells_it() {
    let mut device = device();
    let (ended, answer) = carry_out(&mut device, LOGICAL_UNIT_RESET, lun(0, 1), 0);
    assert_eq!(not_good(&ended), [20, 21, 22, 23].map(|tag| (tag, RESET)));
    assert_eq!(answer, COMPLETE);
    assert_eq!(attentions(&mut device), [None, Some((0x06, 0x29, 0x03)), None, None]);
    assert_eq!(attentions(&mut device), [None; 4], "told once");
}

#[test]
fn r08_nexus_reset_ends_the_commands_of_every_unit_of_that_target_and_tells_them() {
    // The LUN does not matter: there need not even be a unit.
    for number in [0, 300, 5] {
        let mut device = device();
        let (ended, answer) = carry_out(&mut device, I_T_NEXUS_RESET, lun(0, number), 0);
        let target_0 = [10, 11, 12, 13, 20, 21, 22, 23, 30, 31, 32, 33];
        assert_eq!(not_good(&ended), target_0.map(|tag| (tag, RESET)));
        assert_eq!(answer, COMPLETE);
        let lost = Some((0x06, 0x29, 0x07));
        assert_eq!(attentions(&mut device), [lost, lost, lost, None]);
        assert_eq!(attentions(&mut device), [None; 4], "told once");
    }
}

#[test]
fn r08_queries_find_commands_at_the_backend_and_on_the_ring_and_end_none() {
    for (subtype, number, tag, answer) in [
        (QUERY_TASK, 1, 20, SUCCEEDED),
        (QUERY_TASK, 1, 23, SUCCEEDED),
        (QUERY_TASK, 1, 10, COMPLETE), // another unit's
        (QUERY_TASK, 1, 99, COMPLETE),
        (QUERY_TASK_SET, 300, 0, SUCCEEDED),
    ] {
        let mut device = device();
        let (ended, answered) = carry_out(&mut device, subtype, lun(0, number), tag);
        assert_eq!((not_good(&ended), answered), (vec![], answer), "subtype {subtype}, LUN {number}, tag {tag}");
        assert_eq!(attentions(&mut device), [None; 4]);
    }
}

#[test]
fn r08_query_of_a_command_on_the_ring_only_finds_it() {
    for (subtype, tag) in [(QUERY_TASK, 5), (QUERY_TASK_SET, 0)] {
        let mut device = device();
        device.submit(CONTROL, task_management(subtype, lun(0, 0), tag));
        device.poll();
        device.submit(FIRST, read(0, 5));
        device.run();
        assert_eq!(device.take_one(CONTROL).byte(), SUCCEEDED);
        device.gate.open();
        device.run();
        device.take_one(FIRST).assert_good(0);
    }
}

#[test]
fn r08_queries_of_an_idle_unit_find_nothing() {
    let mut device = device();
    device.submit(FIRST, read(1, 7));
    device.run();
    assert_eq!(device.manage(QUERY_TASK_SET, lun(0, 0), 0), COMPLETE);
    assert_eq!(device.manage(QUERY_TASK, lun(0, 0), 7), COMPLETE);
    assert_eq!(device.manage(QUERY_TASK_SET, lun(0, 1), 0), SUCCEEDED);
}

#[test]
fn r08_functions_that_are_not_supported_are_rejected_and_do_nothing() {
    let mut device = device();
    device.submit(FIRST, read(0, 1));
    device.run();
    for subtype in [CLEAR_ACA, 8, 77, 0x100, u32::MAX] {
        for address in [lun(0, 0), lun(0, 5)] {
            assert_eq!(device.manage(subtype, address, 1), REJECTED, "subtype {subtype}");
        }
    }
    assert_eq!(device.in_flight(0), 1);
    assert_eq!(attentions(&mut device), [None; 4]);
    device.gate.open();
    device.run();
    device.take_one(FIRST).assert_good(0);
}

#[test]
fn r08_every_function_at_every_kind_of_address() {
    let mut device = device();
    for subtype in
        [ABORT_TASK, ABORT_TASK_SET, CLEAR_TASK_SET, I_T_NEXUS_RESET, LOGICAL_UNIT_RESET, QUERY_TASK, QUERY_TASK_SET]
    {
        assert_eq!(device.manage(subtype, lun(0, 0), 0), COMPLETE, "subtype {subtype}");
        assert_eq!(device.manage(subtype, [1, 0, 0, 1, 0, 0, 0, 0], 0), COMPLETE, "peripheral addressing");
        let absent = if subtype == I_T_NEXUS_RESET { COMPLETE } else { INCORRECT_LUN };
        for number in [5, 299, 16383] {
            assert_eq!(device.manage(subtype, lun(0, number), 0), absent, "subtype {subtype}, LUN {number}");
        }
        for address in BAD_ADDRESSES {
            assert_eq!(device.manage(subtype, address, 0), BAD_TARGET, "subtype {subtype} to {address:02x?}");
        }
        for address in WELL_KNOWN {
            assert_eq!(device.manage(subtype, address, 0), COMPLETE, "subtype {subtype} to {address:02x?}");
        }
    }
}

#[test]
fn r08_functions_at_addresses_without_a_unit_raise_no_attention() {
    let mut device = device();
    for address in [BAD_ADDRESSES.as_slice(), &WELL_KNOWN, &[lun(0, 5), lun(7, 5)]].concat() {
        device.manage(LOGICAL_UNIT_RESET, address, 0);
    }
    for address in [BAD_ADDRESSES.as_slice(), &WELL_KNOWN].concat() {
        device.manage(I_T_NEXUS_RESET, address, 0);
    }
    assert_eq!(attentions(&mut device), [None; 4]);
}

#[test]
fn r08_new_session_tells_every_unit_of_power_on() {
    let mut device = device();
    let power_on = [Some((0x06, 0x29, 0x01)); 4];
    // Something lesser is pending meanwhile: it goes.
    assert_eq!(device.manage(LOGICAL_UNIT_RESET, lun(0, 0), 0), COMPLETE);
    device.shards[0].reset();
    assert_eq!(attentions(&mut device), power_on);
    assert_eq!(attentions(&mut device), [None; 4]);
}

#[test]
fn r08_connections_one_after_the_other_are_sessions_of_their_own() {
    let disk: Arc<Recorder> = Arc::new(Recorder::new("disk", 64, 512).unwrap());
    let mut device = Device::new(Setup::of([unit(0, 0, Arc::clone(&disk) as _)]));
    let ready = Request::new(lun(0, 0), &TEST_UNIT_READY);
    assert_eq!(device.answer(FIRST, &ready).sense(), Some((0x06, 0x29, 0x01)));
    assert_eq!(device.manage(LOGICAL_UNIT_RESET, lun(0, 0), 0), COMPLETE);
    device.reconnect();
    assert_eq!(device.answer(FIRST, &ready).sense(), Some((0x06, 0x29, 0x01)), "and no LUN reset");
    device.answer(FIRST, &ready).assert_good(0);
}

/// INQUIRY and REPORT LUNS leave it; REQUEST SENSE returns and clears it.
#[test]
fn r08_attention_waits_for_a_command_that_reports_it() {
    let mut device = device();
    assert_eq!(device.manage(LOGICAL_UNIT_RESET, lun(0, 0), 0), COMPLETE);
    let inquiry = Request::new(lun(0, 0), &[0x12, 0, 0, 0, 36, 0]).data_in(36);
    device.answer(FIRST, inquiry).assert_good(0);
    let report = Request::new(lun(0, 0), &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]).data_in(16);
    device.answer(FIRST, report).assert_good(0);
    let sense = |device: &mut Device| {
        let reply = device.answer(FIRST, Request::new(lun(0, 0), &[3, 0, 0, 0, 18, 0]).data_in(18));
        reply.assert_good(0);
        (reply.data()[2], reply.data()[12], reply.data()[13])
    };
    assert_eq!(sense(&mut device), (0x06, 0x29, 0x03));
    assert_eq!(sense(&mut device), (0, 0, 0));
    assert_eq!(attentions(&mut device), [None; 4]);
}

#[test]
fn r09_abort_of_a_command_that_is_not_there_is_complete_and_harmless() {
    let mut device = device();
    device.submit(FIRST, read(0, 1));
    device.run();
    for (number, tag) in [(0, 2), (0, u64::MAX), (1, 1), (300, 1)] {
        assert_eq!(device.manage(ABORT_TASK, lun(0, number), tag), COMPLETE);
    }
    device.gate.open();
    device.run();
    device.take_one(FIRST).assert_good(0);
    assert_eq!(device.manage(ABORT_TASK, lun(0, 0), 1), COMPLETE, "answered already");
    assert_eq!(device.take(FIRST), [], "and not once more");
}

/// The backend is done with it, but nobody has looked: the command ends once, either way.
#[test]
fn r09_abort_of_a_command_that_is_completing_answers_it_once() {
    let mut device = device();
    device.submit(FIRST, read(0, 1));
    device.run();
    device.submit(CONTROL, task_management(ABORT_TASK, lun(0, 0), 1));
    device.poll();
    device.gate.open();
    device.run();
    let code = device.take_one(FIRST).code();
    assert!(code == 0 || code == ABORTED, "response {code}");
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
    device.gate.close();
    // The other order: the completion is seen in the poll that pops the function.
    device.submit(FIRST, read(0, 1));
    device.run();
    device.gate.open();
    device.submit(CONTROL, task_management(ABORT_TASK, lun(0, 0), 1));
    device.run();
    device.take_one(FIRST).assert_good(0);
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
}

#[test]
fn r09_abort_ends_every_command_with_that_tag() {
    let mut device = device();
    device.submit_many(FIRST, 3, read(0, 1));
    device.submit(FIRST, read(0, 2));
    device.run();
    device.submit(CONTROL, task_management(ABORT_TASK, lun(0, 0), 1));
    device.run();
    device.gate.open();
    device.run();
    let codes: Vec<u8> = device.take(FIRST).iter().map(|reply| reply.code()).collect();
    assert_eq!(codes, [ABORTED, ABORTED, ABORTED, 0]);
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
}
