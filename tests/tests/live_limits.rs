//! Limits and task management on a running target whose request queues are spread over two pollers (R02, R05, R07, R08),
//! and counters that equal what the driver saw (R28). What each limit answers is in the tests `r01_…` to `r04_…`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bdev::{Delay, DelayConfig, Gate};
use tests::device::{Reply, Request, TEST_UNIT_READY, lun};
use tests::live::client::{ABORT_TASK, Client, FIRST, LOGICAL_UNIT_RESET, Plan, good, read, test_unit_ready, write};
use tests::live::rig::{Rig, Setup, malloc};
use tests::live::{PATIENCE, until};
use vhost_user::message::{RequestCode, vring_state_body};
use virtio_scsi::Limits;

/// Two queues that different pollers own.
const LEFT: u16 = FIRST;
const RIGHT: u16 = FIRST + 1;
const BOTH: [u16; 2] = [LEFT, RIGHT];

const ABORT_TASK_SET: u32 = 1;
const CLEAR_TASK_SET: u32 = 3;
const I_T_NEXUS_RESET: u32 = 4;
const QUERY_TASK: u32 = 6;

const ABORTED: u8 = 2;
const RESET: u8 = 4;
const BUSY: u8 = 5;

fn limited(cmd_per_lun: u32) -> Limits {
    Limits { cmd_per_lun, ..Limits::default() }
}

/// Waits for `count` replies, from whichever queue.
fn collect(client: &mut Client, count: usize) -> Vec<Reply> {
    let mut replies = Vec::new();
    until("replies", || {
        BOTH.iter().for_each(|queue| replies.extend(client.queue(*queue).take()));
        replies.len() >= count
    });
    assert_eq!(replies.len(), count);
    replies
}

fn codes(replies: &[Reply], code: u8) -> usize {
    replies.iter().filter(|reply| reply.code() == code).count()
}

#[test]
fn r02_cmd_per_lun_is_exact_over_two_pollers() {
    let gate = Gate::closed();
    let setup = Setup::new("dut").disk(0).held(1, &gate).limits(limited(5));
    let Some(rig) = Rig::spread(setup, 2) else { return };
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &Plan::queues(2));
    client.ready(LEFT, 1);
    client.ready(RIGHT, 0);
    let (mut busy, mut ended) = (0, 0);
    for round in 0..25 {
        // Eight at once, four a poller: five find room, whoever comes first.
        for queue in BOTH {
            (0..4).for_each(|lba| _ = client.queue(queue).put(read(1, lba, 1)));
        }
        BOTH.iter().for_each(|queue| client.queue(*queue).publish());
        assert!(gate.wait_for_held(5, PATIENCE));
        let refused = collect(&mut client, 3);
        assert_eq!(codes(&refused, BUSY), 3, "round {round}");
        // The other LUN has a limit of its own.
        good(client.run(LEFT, test_unit_ready(0)));
        // Two end: exactly two more find room, at once.
        gate.release(2);
        assert_eq!(codes(&collect(&mut client, 2), 0), 2);
        client.send(LEFT, read(1, 0, 1));
        client.send(RIGHT, read(1, 0, 1));
        assert!(gate.wait_for_held(5, PATIENCE));
        assert_eq!(client.run(BOTH[round % 2], read(1, 0, 1)).code(), BUSY, "round {round}");
        assert_eq!(gate.held(), 5);
        gate.open();
        assert_eq!(codes(&collect(&mut client, 5), 0), 5);
        gate.close();
        busy += 4;
        ended += 7;
    }
    let metrics = rig.metrics();
    let unit = [("controller", "dut"), ("target", "0"), ("lun", "1")];
    let refused = [&unit[..], &[("limit", "cmd_per_lun")]].concat();
    assert_eq!(metrics.sum("ringside_scsi_refused_total", &refused), f64::from(busy));
    let code = [("controller", "dut"), ("response", "busy")];
    assert_eq!(metrics.sum("ringside_scsi_responses_total", &code), f64::from(busy));
    let reads = [&unit[..], &[("op", "read")]].concat();
    assert_eq!(metrics.sum("ringside_scsi_commands_total", &reads), f64::from(ended));
    assert_eq!(metrics.sum("ringside_scsi_in_flight_high_water", &unit), 5.0);
    until("in flight falls to 0", || rig.metrics().sum("ringside_scsi_in_flight", &unit) == 0.0);
    rig.undisturbed(load);
}

/// A slot is given back before the used entry is visible: as many as the limit at all times, none is ever refused.
#[test]
fn r02_driver_that_refills_at_once_is_never_refused_over_two_pollers() {
    let Some(rig) = Rig::spread(Setup::new("dut").disk(0).limits(limited(5)), 2) else { return };
    let mut client = Client::connect(&rig.socket("dut"), &Plan::queues(2));
    client.ready(LEFT, 0);
    (0..3).for_each(|lba| _ = client.send(LEFT, read(0, lba, 1)));
    (0..2).for_each(|lba| _ = client.send(RIGHT, read(0, lba, 1)));
    let mut ended = 0u32;
    until("commands have ended", || {
        // What one poller gives back, the other one takes.
        for (queue, other) in [(LEFT, RIGHT), (RIGHT, LEFT)] {
            if let Some(reply) = client.queue(queue).take() {
                good(reply);
                client.send(other, read(0, ended % 8, 1));
                ended += 1;
            }
        }
        ended >= 4_000
    });
    let unit = [("controller", "dut"), ("target", "0"), ("lun", "0")];
    let metrics = rig.metrics();
    assert_eq!(metrics.sum("ringside_scsi_refused_total", &unit), 0.0);
    assert!(metrics.sum("ringside_scsi_in_flight_high_water", &unit) <= 5.0);
}

#[test]
fn r07_abort_task_waits_for_its_command_on_the_other_poller_and_for_no_other() {
    let gate = Gate::closed();
    let other = Gate::closed();
    let slow = Arc::new(Delay::held(malloc("other", 1 << 20), &other));
    let setup = Setup::new("dut").disk(0).held(1, &gate).on(2, slow).gate(&other);
    let Some(rig) = Rig::spread(setup, 2) else { return };
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &Plan::queues(2));
    (0..3).for_each(|lun| client.ready(LEFT, lun));
    let spared = client.send(LEFT, read(2, 0, 1).tag(7));
    let hit = client.send(RIGHT, read(1, 0, 1).tag(7));
    assert!(gate.wait_for_held(1, PATIENCE) && other.wait_for_held(1, PATIENCE));

    // R09: a command that is not there.
    let nobody = client.send_tmf(ABORT_TASK, 1, 8);
    assert_eq!(client.queue(0).wait_for(nobody).byte(), 0);

    let abort = client.send_tmf(ABORT_TASK, 1, 7);
    await_functions(&rig, 2);
    for lba in 0..50 {
        good(client.run(LEFT, read(0, lba, 1)));
        good(client.run(RIGHT, read(0, lba, 1)));
    }
    load.progress(100);
    assert!(client.queue(0).take().is_none(), "its command is at the backend");
    gate.open();
    assert_eq!(client.queue(0).wait_for(abort).byte(), 0);
    let reply = client.queue(RIGHT).take().expect("answered before the function");
    assert_eq!((reply.token, reply.code()), (hit, ABORTED));
    assert_eq!(other.held(), 1, "the same tag on another LUN is another command");
    other.open();
    good(client.queue(LEFT).wait_for(spared));
    assert_eq!(tmfs(&rig, "abort_task"), 2.0);
    rig.undisturbed(load);
}

#[test]
fn r07_lun_reset_drains_both_pollers_and_comes_last() {
    let gate = Gate::closed();
    let Some(rig) = Rig::spread(Setup::new("dut").disk(0).held(1, &gate), 2) else { return };
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &Plan::queues(2));
    client.ready(LEFT, 0);
    client.ready(LEFT, 1);
    for round in 0..15 {
        for queue in BOTH {
            (0..6).for_each(|lba| _ = client.send(queue, read(1, lba, 1)));
        }
        assert!(gate.wait_for_held(12, PATIENCE));
        let reset = client.send_tmf(LOGICAL_UNIT_RESET, 1, 0);
        await_functions(&rig, round + 1);
        // When the last of these is answered, both pollers know it.
        for queue in [LEFT, LEFT, RIGHT, RIGHT] {
            good(client.run(queue, read(0, 3, 1)));
        }
        assert!(client.queue(0).take().is_none(), "twelve commands are at the backend");
        gate.open();
        // Without a word from the device until the used entry of the function is there: then all others are.
        let control = client.queue(0);
        let mut answer = None;
        until("the reset is answered", || {
            answer = control.take();
            answer.is_some()
        });
        assert_eq!(answer.map(|answer| (answer.token, answer.byte())), Some((reset, 0)));
        for queue in BOTH {
            let replies: Vec<Reply> = std::iter::from_fn(|| client.queue(queue).take()).collect();
            assert_eq!((replies.len(), codes(&replies, RESET)), (6, 6), "queue {queue}");
        }
        gate.close();
        assert_eq!(client.run(RIGHT, test_unit_ready(1)).sense(), Some((6, 0x29, 3)), "told once");
        good(client.run(LEFT, test_unit_ready(1)));
        good(client.run(LEFT, test_unit_ready(0)));
    }
    assert_eq!(tmfs(&rig, "logical_unit_reset"), 15.0);
    rig.undisturbed(load);
}

/// I/O that cannot be cancelled is waited for, however long it takes: a function on a unit that answers after five seconds
/// is answered after its commands, and so after five seconds, while everybody else goes on.
fn waits_five_seconds(subtype: u32, code: u8) {
    const DELAY: Duration = Duration::from_secs(5);
    let us = DELAY.as_micros() as u64;
    let slow = Delay::new("slow", malloc("slow", 1 << 20), DelayConfig::timed(us, us)).unwrap();
    let Some(rig) = Rig::spread(Setup::new("dut").disk(0).on(1, Arc::new(slow)), 2) else { return };
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &Plan::queues(2));
    client.ready(LEFT, 0);
    client.ready(LEFT, 1);
    let since = Instant::now();
    BOTH.iter().for_each(|queue| _ = client.send(*queue, read(1, 0, 1).tag(7)));
    let query = client.send_tmf(QUERY_TASK, 1, 7);
    assert_eq!(client.queue(0).wait_for(query).byte(), 10, "at the backend");
    let function = client.send_tmf(subtype, 1, 7);
    await_functions(&rig, 2);
    // Known to both pollers, and they go on; an I_T nexus reset would end these commands.
    for lba in (0..50).filter(|_| subtype != I_T_NEXUS_RESET) {
        good(client.run(LEFT, read(0, lba, 1)));
        good(client.run(RIGHT, read(0, lba, 1)));
    }
    load.progress(50);
    assert_eq!(client.queue(0).wait_for(function).byte(), 0);
    assert!(since.elapsed() >= DELAY, "answered after {:?}", since.elapsed());
    for queue in BOTH {
        let replies: Vec<Reply> = std::iter::from_fn(|| client.queue(queue).take()).collect();
        assert_eq!((replies.len(), codes(&replies, code)), (1, 1), "answered before the function");
    }
    rig.undisturbed(load);
}

#[test]
fn r07_abort_task_on_a_device_of_five_seconds_answers_after_it() {
    waits_five_seconds(ABORT_TASK, ABORTED);
}

#[test]
fn r07_abort_task_set_on_a_device_of_five_seconds_answers_after_it() {
    waits_five_seconds(ABORT_TASK_SET, ABORTED);
}

#[test]
fn r07_clear_task_set_on_a_device_of_five_seconds_answers_after_it() {
    waits_five_seconds(CLEAR_TASK_SET, ABORTED);
}

#[test]
fn r07_i_t_nexus_reset_on_a_device_of_five_seconds_answers_after_it() {
    waits_five_seconds(I_T_NEXUS_RESET, RESET);
}

#[test]
fn r07_logical_unit_reset_on_a_device_of_five_seconds_answers_after_it() {
    waits_five_seconds(LOGICAL_UNIT_RESET, RESET);
}

/// Commands and resets race on both pollers: every command is answered once, and every reset.
#[test]
fn r07_resets_against_running_commands_over_two_pollers_answer_everything() {
    const ROUNDS: u32 = 150;
    let Some(rig) = Rig::spread(Setup::new("dut").disk(0).disk(1), 2) else { return };
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &Plan::queues(2));
    client.ready(LEFT, 0);
    client.ready(LEFT, 1);
    let (mut reset, mut attentions, mut fine) = (0, 0, 0);
    for round in 0..ROUNDS {
        for queue in BOTH {
            (0..8).for_each(|lba| _ = client.queue(queue).put(write(lba as u16 % 2, lba, &[round as u8; 512])));
        }
        client.queue(BOTH[round as usize % 2]).publish();
        let function = client.send_tmf(LOGICAL_UNIT_RESET, 0, 0);
        client.queue(BOTH[1 - round as usize % 2]).publish();
        assert_eq!(client.queue(0).wait_for(function).byte(), 0, "round {round}");
        for reply in collect(&mut client, 16) {
            match (reply.code(), reply.sense()) {
                (RESET, _) => reset += 1,
                (0, Some((6, 0x29, 3))) => attentions += 1,
                _ => {
                    good(reply);
                    fine += 1;
                }
            }
        }
        assert_eq!(BOTH.map(|queue| client.queue(queue).in_flight()), [0, 0]);
    }
    assert_eq!(reset + attentions + fine, ROUNDS * 16);
    assert!(fine >= ROUNDS * 8, "the other LUN was never reset: {fine} of its and other commands ended well");
    assert_eq!(tmfs(&rig, "logical_unit_reset"), f64::from(ROUNDS));
    let labels = [("controller", "dut"), ("response", "reset")];
    assert_eq!(rig.metrics().sum("ringside_scsi_responses_total", &labels), f64::from(reset));
    rig.undisturbed(load);
}

/// R14 and R07 together: a device reset that comes while a function waits for its commands is answered after both.
#[test]
fn r14_device_reset_while_a_function_waits_replies_after_the_function() {
    let gate = Gate::closed();
    let Some(rig) = Rig::spread(Setup::new("dut").disk(0).held(1, &gate), 2) else { return };
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &Plan::queues(2));
    client.ready(LEFT, 1);
    for round in 0..10 {
        BOTH.iter().for_each(|queue| _ = client.send(*queue, read(1, 0, 1)));
        assert!(gate.wait_for_held(2, PATIENCE));
        let function = client.send_tmf(LOGICAL_UNIT_RESET, 1, 0);
        await_functions(&rig, round + 1);
        for queue in [LEFT, LEFT, RIGHT, RIGHT] {
            client.run(queue, test_unit_ready(0));
        }
        client.send_message(RequestCode::RESET_DEVICE, &[], &[]);
        until("the reset waits", || rig.service().stats().quiesce_wait_s() > 0.0);
        load.progress(50);
        assert!(!client.has_reply());
        gate.open();
        assert_eq!(client.acknowledgement(RequestCode::RESET_DEVICE), 0);
        let answer = client.queue(0).take().expect("answered before the reply");
        assert_eq!((answer.token, answer.byte()), (function, 0), "round {round}");
        for queue in BOTH {
            assert_eq!(client.queue(queue).take().map(|reply| reply.code()), Some(RESET));
        }
        gate.close();
        [0, LEFT, RIGHT].into_iter().for_each(|queue| client.start(queue));
        client.ready(LEFT, 1);
    }
    rig.undisturbed(load);
}

#[test]
fn r14_front_end_killed_while_a_function_waits_the_next_can_reset() {
    let gate = Gate::closed();
    let Some(rig) = Rig::spread(Setup::new("dut").disk(0).held(1, &gate), 2) else { return };
    let mut old = Client::connect(&rig.socket("dut"), &Plan::queues(2));
    old.ready(LEFT, 1);
    BOTH.iter().for_each(|queue| _ = old.send(*queue, read(1, 0, 1)));
    assert!(gate.wait_for_held(2, PATIENCE));
    old.send_tmf(LOGICAL_UNIT_RESET, 1, 0);
    let (regions, _) = old.kill();
    let mut new = Client::connect(&rig.socket("dut"), &Plan::queues(2));
    new.ready(RIGHT, 1);
    // Commands of the dead session are no commands of this one.
    let function = new.send_tmf(LOGICAL_UNIT_RESET, 1, 0);
    assert_eq!(new.queue(0).wait_for(function).byte(), 0);
    assert_eq!((gate.held(), regions[0].mappings()), (2, 2));
    gate.open();
    until("the old connection has ended", || rig.service().stats().live() == 1);
    assert_eq!(regions[0].mappings(), 1);
}

/// A command that waits for its turn behind others is in flight like those.
#[test]
fn r10_ordered_command_that_waits_its_turn_is_answered_before_the_stop_is() {
    const ORDERED: u8 = 1;
    let gate = Gate::closed();
    let rig = Rig::start(Setup::new("dut").held(1, &gate));
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &Plan::default());
    client.ready(LEFT, 1);
    for reset in [false, true] {
        let tokens = [read(1, 0, 1), read(1, 1, 1).attribute(ORDERED), read(1, 2, 1)].map(|r| client.send(LEFT, r));
        assert!(gate.wait_for_held(1, PATIENCE));
        let function = reset.then(|| client.send_tmf(LOGICAL_UNIT_RESET, 1, 0));
        if function.is_none() {
            let stop = vring_state_body(u32::from(LEFT), 0);
            client.send_message(RequestCode::GET_VRING_BASE, &stop, &[]);
            until("the stop waits", || rig.service().stats().quiesce_wait_s() > 0.0);
        } else {
            await_functions(&rig, 1);
        }
        load.progress(100);
        assert!(!client.has_reply() && client.queue(0).take().is_none(), "one command is at the backend");
        gate.open();
        if let Some(function) = function {
            assert_eq!(client.queue(0).wait_for(function).byte(), 0);
        } else {
            client.frontend.recv_reply().unwrap();
        }
        let mut replies: Vec<Reply> = std::iter::from_fn(|| client.queue(LEFT).take()).collect();
        if reset {
            replies.sort_by_key(|reply| reply.token); // those that never began ended at once
        }
        assert_eq!(replies.iter().map(|reply| reply.token).collect::<Vec<_>>(), tokens, "all of them, in order");
        let code = if reset { RESET } else { 0 };
        assert_eq!(codes(&replies, code), 3);
        gate.close();
        if !reset {
            client.start(LEFT);
        }
    }
    rig.undisturbed(load);
}

/// Waits until the device has fetched so many functions since it was connected to: the control queue is cold, so that takes
/// its time.
fn await_functions(rig: &Rig, count: u32) {
    let control = [("controller", "dut"), ("queue", "0")];
    until("the function is fetched", || {
        rig.metrics().sum("ringside_virtqueue_chains_total", &control) >= f64::from(count)
    });
}

fn tmfs(rig: &Rig, function: &str) -> f64 {
    let labels = [("controller", "dut"), ("function", function), ("response", "function_complete")];
    rig.metrics().sum("ringside_scsi_tmf_total", &labels)
}

/// R28: every counter of a mixed load is what the driver counted itself.
#[test]
fn r28_counters_equal_what_the_driver_saw() {
    let limits = Limits { max_sectors: 8, ..limited(4) };
    let gate = Gate::closed();
    let rig = Rig::start(Setup::new("dut").disk(0).held(1, &gate).limits(limits));
    let mut client = Client::connect(&rig.socket("dut"), &Plan { data_len: 8192, ..Plan::default() });
    client.ready(LEFT, 0); // one attention, one good
    client.ready(LEFT, 1);
    let mut seen = [0u32; 13];
    seen[0] = 4;
    let requests: [(u32, Request); 8] = [
        (10, read(0, 1, 2)),
        (20, write(0, 1, &[1; 512])),
        (7, test_unit_ready(0)),
        (3, Request::new(lun(0, 0), &[0xff])), // CHECK CONDITION
        (4, Request::new(lun(0, 0), &[0x28, 0, 0, 0, 0, 0, 0, 0, 1])), // no room: OVERRUN
        (5, Request::new(lun(9, 0), &TEST_UNIT_READY)), // BAD_TARGET
        (6, read(0, 0, 8).data_in(4608)),      // over max_sectors: FAILURE
        (2, Request::new(lun(0, 5), &TEST_UNIT_READY)), // no such LUN: CHECK CONDITION
    ];
    for (count, request) in requests {
        for _ in 0..count {
            seen[usize::from(client.run(LEFT, &request).code())] += 1;
        }
    }
    // Over cmd_per_lun.
    let held: Vec<usize> = (0..4).map(|lba| client.send(LEFT, read(1, lba, 1))).collect();
    assert!(gate.wait_for_held(4, PATIENCE));
    let unit = |lun: &'static str| [("controller", "dut"), ("target", "0"), ("lun", lun)];
    until("in flight is seen", || rig.metrics().sum("ringside_scsi_in_flight", &unit("1")) == 4.0);
    for _ in 0..9 {
        seen[usize::from(client.run(LEFT, read(1, 0, 1)).code())] += 1;
    }
    gate.open();
    for token in held {
        good(client.queue(LEFT).wait_for(token));
        seen[0] += 1;
    }
    let function = client.send_tmf(ABORT_TASK, 0, 1);
    client.queue(0).wait_for(function);
    client.stop(LEFT); // everything is counted now, kicks too

    let metrics = rig.metrics();
    let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    let with = |lun: &'static str, label: &'static str, value: &'static str| {
        [unit(lun).to_vec(), vec![(label, value)]].concat()
    };
    for (code, name) in [(0, "ok"), (1, "overrun"), (3, "bad_target"), (5, "busy"), (9, "failure")] {
        let labels = [("controller", "dut"), ("response", name)];
        assert_eq!(sum("ringside_scsi_responses_total", &labels), f64::from(seen[code]), "{name}");
    }
    assert_eq!(seen, [50, 4, 0, 5, 0, 9, 0, 0, 0, 6, 0, 0, 0]);
    assert_eq!(sum("ringside_scsi_responses_total", &[("controller", "dut")]), f64::from(seen.iter().sum::<u32>()));
    for (lun, op, commands, bytes) in
        [("0", "read", 14.0, 10_240.0), ("0", "write", 20.0, 10_240.0), ("1", "read", 4.0, 2048.0)]
    {
        assert_eq!(sum("ringside_scsi_commands_total", &with(lun, "op", op)), commands, "{op} of {lun}");
        assert_eq!(sum("ringside_scsi_bytes_total", &with(lun, "op", op)), bytes, "{op} of {lun}");
    }
    assert_eq!(sum("ringside_scsi_commands_total", &with("0", "op", "other")), 12.0);
    assert_eq!(sum("ringside_scsi_errors_total", &unit("0")), 4.0, "one attention, three unknown operations");
    assert_eq!(sum("ringside_scsi_errors_total", &unit("1")), 1.0);
    assert_eq!(sum("ringside_scsi_refused_total", &with("1", "limit", "cmd_per_lun")), 9.0);
    assert_eq!(sum("ringside_scsi_refused_total", &with("0", "limit", "max_sectors")), 6.0);
    assert_eq!(sum("ringside_scsi_in_flight", &unit("1")), 0.0);
    assert_eq!(sum("ringside_scsi_in_flight_high_water", &unit("1")), 4.0);
    assert_eq!(sum("ringside_scsi_command_duration_seconds_count", &with("1", "op", "read")), 4.0);
    assert_eq!(tmfs(&rig, "abort_task"), 1.0);
    let ring = [("controller", "dut"), ("queue", "2")];
    let queue = client.queue(LEFT);
    assert_eq!(sum("ringside_virtqueue_chains_total", &ring), f64::from(queue.raw().used_index()));
    assert_eq!(sum("ringside_virtqueue_kicks_total", &ring), queue.kicks() as f64);
    assert_eq!(sum("ringside_virtqueue_calls_total", &ring), queue.calls() as f64);
    assert_eq!(sum("ringside_virtqueue_size", &ring), 0.0, "stopped");
    assert_eq!(sum("ringside_virtqueue_size", &[("controller", "dut"), ("queue", "0")]), 64.0);
    let controller = [("controller", "dut")];
    assert_eq!(sum("ringside_session_connected", &controller), 1.0);
    assert_eq!(sum("ringside_sessions_total", &controller), 1.0);
    assert_eq!(sum("ringside_memory_tables_total", &controller), 1.0);
}
