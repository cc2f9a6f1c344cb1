//! Logical units that come and go, and limits that change, on a running target with real pollers, sockets and calls, while
//! a neighbour works and must not notice (R02, R18, R22, R23, R28). Every interleaving that matters is in the tests
//! `r22_…`, where nothing depends on threads.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bdev::testing::Recorder;
use bdev::{Bdev, Delay, Gate};
use tests::device::{CHANGE, HOTPLUG, Reply, unit};
use tests::live::client::{Client, EVENT, FIRST, Plan, good, read, test_unit_ready, write};
use tests::live::rig::{Rig, Setup, malloc};
use tests::live::{PATIENCE, until};
use vhost_user::frontend::Frontend;
use vhost_user::message::protocol;
use virtio_scsi::{Limits, OnTransferLimit};

const LEFT: u16 = FIRST;
const RIGHT: u16 = FIRST + 1;
const BOTH: [u16; 2] = [LEFT, RIGHT];

const BUSY: u8 = 5;
const TRANSPORT_FAILURE: u8 = 6;
const BAD_TARGET: u8 = 3;
const LUNS_CHANGED: (u8, u8, u8) = (0x06, 0x3f, 0x0e);
const NOT_SUPPORTED: (u8, u8, u8) = (0x05, 0x25, 0x00);

const TRANSPORT_RESET: u32 = 1;
const PARAM_CHANGE: u32 = 3;
const MISSED: u32 = 0x8000_0000;
const RESCAN: u32 = 1;
const REMOVED: u32 = 2;

/// Control and event queue and two request queues, which two pollers own where there are two.
fn plan() -> Plan {
    Plan {
        rings: vec![0, EVENT, LEFT, RIGHT],
        ring_size: 128,
        slots: 32,
        features: HOTPLUG | CHANGE,
        ..Plan::default()
    }
}

/// Two pollers where there are two cores.
fn rig(setup: impl Fn() -> Setup) -> Rig {
    Rig::spread(setup(), 2).unwrap_or_else(|| Rig::start(setup()))
}

fn at(number: u8) -> [u8; 8] {
    [1, 0, 0, number, 0, 0, 0, 0]
}

/// A disk whose requests wait at `gate`, and somebody to ask how many channels it has.
fn held(gate: &Gate) -> (Recorder, Arc<dyn Bdev>) {
    let recorder = Recorder::over(Arc::new(Delay::held(malloc("plugged", 1 << 20), gate)));
    (recorder.clone(), Arc::new(recorder))
}

/// Waits for `count` replies, from whichever queue.
fn collect(client: &mut Client, count: usize) -> Vec<(u16, Reply)> {
    let mut replies = Vec::new();
    until("replies", || {
        for queue in BOTH {
            replies.extend(client.queue(queue).take().map(|reply| (queue, reply)));
        }
        replies.len() >= count
    });
    assert_eq!(replies.len(), count);
    replies
}

#[test]
fn r22_unplug_with_64_commands_in_flight_fails_each_once_tells_the_guest_and_lets_the_disk_go_last() {
    let gate = Gate::closed();
    let rig = rig(|| Setup::new("dut").disk(0).gate(&gate));
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &plan());
    client.post_event_buffers(4);
    client.ready(LEFT, 0);

    let (recorder, disk) = held(&gate);
    rig.service().add_lun(unit(0, 1, disk)).unwrap();
    assert_eq!(client.wait_event(), (TRANSPORT_RESET, at(1), RESCAN));
    assert_eq!(client.run(RIGHT, test_unit_ready(0)).sense(), Some(LUNS_CHANGED));
    client.ready(RIGHT, 1);

    let mut sent = BTreeSet::new();
    for lba in 0..32 {
        sent.insert((LEFT, client.send(LEFT, read(1, lba, 1))));
        sent.insert((RIGHT, client.send(RIGHT, write(1, lba, &[7; 512]))));
    }
    assert!(gate.wait_for_held(64, PATIENCE));
    let release = rig.service().remove_lun(0, 1).unwrap();
    assert_eq!(client.wait_event(), (TRANSPORT_RESET, at(1), REMOVED));
    assert!(!release.is_over());
    let unit = [("controller", "dut"), ("target", "0"), ("lun", "1")];
    assert_eq!(rig.metrics().sum("ringside_scsi_in_flight", &unit), 64.0, "seen until it is over");

    gate.open();
    for (queue, reply) in collect(&mut client, 64) {
        // The backend had the buffers, and may have filled them; the response says that nothing counts.
        assert_eq!(reply.writable[..12], [0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, TRANSPORT_FAILURE]);
        assert_eq!(reply.written, 12);
        assert!(sent.remove(&(queue, reply.token)), "once");
    }
    release.wait();
    assert_eq!((recorder.open_channels(), recorder.calls().ended), (0, 64));
    assert_eq!(client.run(LEFT, test_unit_ready(1)).sense(), Some(NOT_SUPPORTED));
    assert_eq!(client.run(LEFT, test_unit_ready(0)).sense(), Some(LUNS_CHANGED));
    good(client.run(RIGHT, test_unit_ready(0)));

    let metrics = rig.metrics();
    let dut = [("controller", "dut")];
    let of = |name: &str, more: &[(&str, &str)]| metrics.sum(name, &[&dut[..], more].concat());
    assert_eq!(of("ringside_scsi_responses_total", &[("response", "transport_failure")]), 64.0);
    assert_eq!(of("ringside_scsi_events_total", &[("event", "rescan")]), 1.0);
    assert_eq!(of("ringside_scsi_events_total", &[("event", "removed")]), 1.0);
    assert_eq!(of("ringside_scsi_events_missed_total", &[]), 0.0);
    assert_eq!(of("ringside_scsi_check_conditions_total", &[("sense_key", "unit_attention")]), 4.0);
    assert_eq!(of("ringside_scsi_check_conditions_total", &[("sense_key", "illegal_request")]), 1.0);
    let places = &metrics.families["ringside_scsi_in_flight"].samples;
    assert!(!places.iter().any(|sample| sample.labels["lun"] == "1"), "and then no more");
    rig.undisturbed(load);
}

#[test]
fn r22_last_lun_that_goes_takes_its_target_with_it_and_comes_back() {
    let rig = rig(|| Setup::new("dut").disk(0));
    let mut client = Client::connect(&rig.socket("dut"), &plan());
    client.post_event_buffers(2);
    client.ready(LEFT, 0);
    good(client.run(LEFT, write(0, 3, &[9; 512])));
    let unit = Arc::clone(rig.service().controller().map().unit(0).unwrap());
    rig.service().remove_lun(0, 0).unwrap().wait();
    assert_eq!(client.wait_event(), (TRANSPORT_RESET, at(0), REMOVED));
    for queue in BOTH {
        client.run(queue, test_unit_ready(0)).assert_transport(BAD_TARGET, 0);
    }
    rig.service().add_lun(unit).unwrap();
    assert_eq!(client.wait_event(), (TRANSPORT_RESET, at(0), RESCAN));
    client.ready(RIGHT, 0);
    assert_eq!(good(client.run(LEFT, read(0, 3, 1))), [9; 512]);
}

#[test]
fn r22_unplug_when_the_front_end_is_gone_waits_for_its_requests_all_the_same() {
    let gate = Gate::closed();
    let rig = rig(|| Setup::new("dut").disk(0).gate(&gate));
    let (recorder, disk) = held(&gate);
    rig.service().add_lun(unit(0, 1, disk)).unwrap();
    let mut client = Client::connect(&rig.socket("dut"), &plan());
    client.ready(LEFT, 1);
    client.send(LEFT, read(1, 0, 1));
    assert!(gate.wait_for_held(1, PATIENCE));
    drop(client);
    let release = rig.service().remove_lun(0, 1).unwrap();
    assert!(!release.is_over());
    // The next front-end has a channel of its own to what is there now.
    let mut next = Client::connect(&rig.socket("dut"), &plan());
    assert_eq!(next.run(LEFT, test_unit_ready(1)).sense(), Some(NOT_SUPPORTED));
    assert!(!release.is_over());
    gate.open();
    release.wait();
    assert_eq!((recorder.open_channels(), recorder.calls().ended), (0, 1));
}

/// A driver that has posted nothing, and whose target is asleep, hears of what it missed with its next buffer.
#[test]
fn r23_missed_events_are_told_when_a_sleeping_target_gets_a_buffer() {
    let rig = rig(|| Setup::new("dut").disk(0));
    let mut client = Client::connect(&rig.socket("dut"), &plan());
    client.ready(LEFT, 0);
    for number in 1..4 {
        rig.service().add_lun(unit(0, number, malloc("more", 1 << 20))).unwrap();
    }
    let missed = || rig.metrics().sum("ringside_scsi_events_missed_total", &[("controller", "dut")]);
    until("the events are missed", || missed() == 3.0);
    client.post_event_buffers(2);
    assert_eq!(client.wait_event(), (MISSED, [0; 8], 0));
    assert_eq!(client.run(LEFT, test_unit_ready(3)).sense(), Some((0x06, 0x29, 0x01)));
    rig.service().resize_lun(0, 3, 100).unwrap();
    assert_eq!(client.wait_event(), (PARAM_CHANGE, at(3), 0x092a));
    assert_eq!(client.run(LEFT, test_unit_ready(3)).sense(), Some((0x06, 0x2a, 0x09)));
    assert_eq!(client.run(RIGHT, read(3, 100, 1)).sense(), Some((0x05, 0x21, 0x00)));
}

#[test]
fn r02_limit_that_changes_is_exact_over_two_pollers_once_it_is_acknowledged() {
    let gate = Gate::closed();
    let rig = rig(|| Setup::new("dut").held(0, &gate));
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &plan());
    client.ready(LEFT, 0);
    for round in 0..40u32 {
        let limit = 1 + round * 7 % 20;
        rig.service().set_limits(Limits { cmd_per_lun: limit, ..Limits::default() }).unwrap();
        for queue in BOTH {
            (0..12).for_each(|lba| _ = client.queue(queue).put(read(0, lba, 1)));
        }
        BOTH.iter().for_each(|queue| client.queue(*queue).publish());
        let refused = collect(&mut client, 24 - limit as usize);
        assert!(refused.iter().all(|(_, reply)| reply.code() == BUSY), "round {round}");
        assert!(gate.wait_for_held(limit.into(), PATIENCE));
        assert_eq!(gate.held(), u64::from(limit), "round {round}: never a refusal at N-1");
        // Down to one while they are in flight: all of them end well, and nothing comes in before.
        rig.service().set_limits(Limits { cmd_per_lun: 1, ..Limits::default() }).unwrap();
        assert_eq!(client.run(LEFT, test_unit_ready(0)).code(), BUSY);
        gate.open();
        let ended = collect(&mut client, limit as usize);
        assert!(ended.iter().all(|(_, reply)| reply.outcome() == (0, 0)), "round {round}");
        good(client.run(RIGHT, test_unit_ready(0)));
        gate.close();
    }
    rig.undisturbed(load);
}

/// R18: a front-end that reads the configuration space is told when it has changed, by a socket that it has given.
#[test]
fn r18_front_end_with_a_channel_for_it_is_told_of_a_changed_configuration_space() {
    let rig = rig(|| Setup::new("dut").disk(0));
    let mut frontend = Frontend::connect(rig.socket("dut")).unwrap();
    frontend.set_reply_timeout(Some(PATIENCE)).unwrap();
    let wanted = protocol::REPLY_ACK | protocol::CONFIG | protocol::BACKEND_REQ;
    let negotiated = frontend.negotiate(1 << 32, wanted).unwrap();
    assert_eq!(negotiated.protocol_features, wanted, "all of them are offered");
    let (theirs, mut ours) = UnixStream::pair().unwrap();
    frontend.set_backend_request_fd(theirs.as_fd()).unwrap();
    drop(theirs);
    frontend.queue_num().unwrap(); // the message before it has been dealt with

    let limits = Limits { max_sectors: 128, ..Limits::default() };
    rig.service().set_limits(limits).unwrap();
    let mut message = [0; 12];
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    ours.read_exact(&mut message).unwrap();
    assert_eq!(message, [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], "CONFIG_CHANGE");
    assert_eq!(frontend.config(8, 4).unwrap(), [128, 0, 0, 0]);
    // What does not show in the configuration space is not told.
    rig.service().set_limits(Limits { on_max_sectors: OnTransferLimit::Scsi, ..limits }).unwrap();
    drop(frontend);
    until("the session ends", || rig.service().stats().live() == 0);
    assert_eq!(ours.read(&mut message).unwrap(), 0);
}

/// Front-ends come and go while LUNs do: each finds what is there, whatever the order of the two.
#[test]
fn r22_front_ends_that_connect_during_changes_miss_none() {
    let rig = rig(|| Setup::new("dut").disk(0));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let changes = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                rig.service().add_lun(unit(0, 1, malloc("again", 1 << 20))).unwrap();
                rig.service().remove_lun(0, 1).unwrap().wait();
                rounds += 1;
            }
            rounds
        });
        for _ in 0..20 {
            let mut client = Client::connect(&rig.socket("dut"), &plan());
            assert_eq!(client.run(LEFT, test_unit_ready(0)).sense(), Some((0x06, 0x29, 0x01)));
            for queue in BOTH {
                let reply = client.run(queue, read(1, 0, 1));
                let known = [NOT_SUPPORTED, (0x06, 0x29, 0x01)].map(Some);
                assert!(
                    reply.outcome() == (0, 0) || known.contains(&reply.sense()) || reply.code() == TRANSPORT_FAILURE
                );
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(changes.join().unwrap() > 0);
    });
    rig.service().add_lun(unit(0, 1, malloc("last", 1 << 20))).unwrap();
    let mut client = Client::connect(&rig.socket("dut"), &plan());
    client.ready(LEFT, 1);
}
