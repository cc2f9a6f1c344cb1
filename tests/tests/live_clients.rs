//! Front-ends that come and go on a running target: R14 and what it rests on. What they get wrong is in
//! `live_messages.rs`.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::Ordering;

use bdev::Gate;
use tests::live::client::{Client, FIRST, Plan, good, read, test_unit_ready, write};
use tests::live::rig::{Rig, Setup};
use tests::live::{PATIENCE, until, wait_readable};
use vhost_user::frontend::{Frontend, FrontendError};
use vhost_user::message::{RequestCode, vring_state_body};

#[test]
fn front_end_connecting_fifty_times_leaves_nothing_behind() {
    let rig = Rig::start(Setup::new("dut").disk(0));
    let load = rig.load();
    for round in 0..50u8 {
        let mut client = Client::connect(&rig.socket("dut"), &Plan::default());
        client.ready(FIRST, 0);
        good(client.run(FIRST, write(0, 5, &[round; 1024])));
        assert_eq!(good(client.run(FIRST, read(0, 5, 2))), [round; 1024]);
        assert_eq!(client.regions[0].mappings(), 2, "ours and the connection's");
        let (regions, _) = client.kill();
        until("the memory is let go", || regions[0].mappings() == 1);
        assert_eq!(regions[0].descriptors(), 1, "only ours");
    }
    let stats = rig.service().stats();
    until("no connection is left", || stats.live() == 0);
    assert_eq!((stats.connected(), stats.sessions.load(Ordering::Relaxed)), (0, 50));
    assert_eq!(stats.turned_away.load(Ordering::Relaxed), 0);
    assert_eq!(rig.controller_blocks(), 1, "counters are used again");
    rig.undisturbed(load);
}

#[test]
fn second_front_end_is_turned_away_and_the_first_undisturbed() {
    let gate = Gate::closed();
    let rig = Rig::start(Setup::new("dut").disk(0).held(1, &gate));
    let mut first = Client::connect(&rig.socket("dut"), &Plan::default());
    first.ready(FIRST, 0);
    first.ready(FIRST, 1);
    let pending = first.send(FIRST, read(1, 0, 1));
    for _ in 0..10 {
        let mut second = Frontend::connect(rig.socket("dut")).unwrap();
        second.set_reply_timeout(Some(PATIENCE)).unwrap();
        let refused = second.features();
        assert!(matches!(refused, Err(FrontendError::Closed { .. })), "{refused:?}");
        good(first.run(FIRST, write(0, 0, &[1; 512])));
    }
    gate.open();
    good(first.queue(FIRST).wait_for(pending));
    first.in_step();
    let stats = rig.service().stats();
    assert_eq!(stats.turned_away.load(Ordering::Relaxed), 10);
    assert_eq!((stats.sessions.load(Ordering::Relaxed), stats.live()), (1, 1));
}

/// A front-end whose process was killed is replaced by one that finds the socket free and the disk working, while the
/// target still reads into the dead one's memory.
#[test]
fn r14_front_end_killed_with_io_pending_the_next_is_served_at_once() {
    let gate = Gate::closed();
    let rig = Rig::start(Setup::new("dut").disk(0).held(1, &gate));
    let load = rig.load();
    let mut old = Client::connect(&rig.socket("dut"), &Plan::default());
    old.ready(FIRST, 0);
    old.ready(FIRST, 1);
    good(old.run(FIRST, write(0, 0, &[7; 512])));
    (0..8).for_each(|lba| _ = old.send(FIRST, read(1, lba, 1)));
    assert!(gate.wait_for_held(8, PATIENCE));
    let (old_regions, old_queues) = old.kill();

    let stats = rig.service().stats();
    for round in 1..=3u8 {
        let mut new = Client::connect(&rig.socket("dut"), &Plan::default());
        new.ready(FIRST, 0);
        new.ready(FIRST, 1);
        assert_eq!(good(new.run(FIRST, read(0, 0, 1))), [7; 512], "the disk is the same");
        assert_eq!(stats.live(), 2, "the old connection waits for its requests");
        assert_eq!(old_regions[0].mappings(), 2, "its memory is held");
        let (regions, _) = new.kill();
        until("only the old connection is left", || stats.live() == 1);
        assert_eq!(regions[0].mappings(), 1, "a connection without requests goes at once");
        assert_eq!(stats.sessions.load(Ordering::Relaxed), 1 + u64::from(round));
    }
    assert_eq!(old_queues[&FIRST].raw().used_index(), 5, "nothing of the eight is answered yet");

    let mut new = Client::connect(&rig.socket("dut"), &Plan::default());
    new.ready(FIRST, 1);
    gate.open();
    until("the old connection has ended", || stats.live() == 1);
    assert_eq!(old_regions[0].mappings(), 1, "its memory goes when its last request has ended");
    assert_eq!(old_queues[&FIRST].raw().used_index(), 13, "each request was ended once");
    good(new.run(FIRST, read(1, 0, 1)));
    rig.undisturbed(load);
}

/// As above, but the target was just about to stop the ring: its thread waits for the requests, and does not read.
#[test]
fn r14_front_end_killed_while_a_stop_waits_the_next_is_served_at_once() {
    let gate = Gate::closed();
    let rig = Rig::start(Setup::new("dut").disk(0).held(1, &gate));
    let mut old = stopping(&rig, Client::connect(&rig.socket("dut"), &Plan::default()), &gate);
    assert!(!old.has_reply());
    let (regions, _) = old.kill();
    let mut new = Client::connect(&rig.socket("dut"), &Plan::default());
    new.ready(FIRST, 0);
    assert_eq!(regions[0].mappings(), 2);
    let stats = rig.service().stats();
    assert_eq!((stats.live(), stats.connected()), (2, 1), "one of the two is connected");
    gate.open();
    until("the old connection has ended", || stats.live() == 1);
    assert_eq!(regions[0].mappings(), 1);
    old = new;
    good(old.run(FIRST, test_unit_ready(0)));
}

#[test]
fn client_mode_target_comes_back_after_the_front_end_restarts() {
    let rig = Rig::start(Setup::new("dut").disk(0).client_mode());
    let load = rig.load();
    for round in 0..3u8 {
        let mut client = accept(&rig.socket("dut"));
        client.ready(FIRST, 0);
        if round > 0 {
            assert_eq!(good(client.run(FIRST, read(0, 3, 1))), [round - 1; 512]);
        }
        good(client.run(FIRST, write(0, 3, &[round; 512])));
    }
    let stats = rig.service().stats();
    until("no connection is left", || stats.live() == 0);
    assert_eq!(stats.sessions.load(Ordering::Relaxed), 3);
    rig.undisturbed(load);
}

#[test]
fn r14_client_mode_front_end_restarts_with_io_pending_and_is_served() {
    let gate = Gate::closed();
    let rig = Rig::start(Setup::new("dut").disk(0).held(1, &gate).client_mode());
    let mut old = accept(&rig.socket("dut"));
    old.ready(FIRST, 1);
    old.send(FIRST, read(1, 0, 1));
    assert!(gate.wait_for_held(1, PATIENCE));
    drop(old);
    let mut new = accept(&rig.socket("dut"));
    new.ready(FIRST, 0);
    assert_eq!(rig.service().stats().live(), 2);
}

#[test]
fn r14_client_mode_front_end_restarts_while_a_stop_waits_and_is_served() {
    let gate = Gate::closed();
    let rig = Rig::start(Setup::new("dut").disk(0).held(1, &gate).client_mode());
    let old = stopping(&rig, accept(&rig.socket("dut")), &gate);
    drop(old);
    let mut new = accept(&rig.socket("dut"));
    new.ready(FIRST, 0);
    let stats = rig.service().stats();
    assert_eq!((stats.live(), stats.connected()), (2, 1));
}

/// With a request at the gate and a GET_VRING_BASE that waits for it.
fn stopping(rig: &Rig, mut client: Client, gate: &Gate) -> Client {
    client.ready(FIRST, 1);
    client.send(FIRST, read(1, 0, 1));
    assert!(gate.wait_for_held(1, PATIENCE));
    client.send_message(RequestCode::GET_VRING_BASE, &vring_state_body(u32::from(FIRST), 0), &[]);
    until("the stop waits", || rig.service().stats().quiesce_wait_s() > 0.0);
    client
}

/// Listens, as a front-end that has just been started, until the target connects.
fn accept(path: &Path) -> Client {
    let listener = UnixListener::bind(path).unwrap();
    assert!(wait_readable(&listener), "the target connects");
    let (stream, _) = listener.accept().unwrap();
    fs::remove_file(path).unwrap();
    Client::attach(Frontend::from_stream(stream), &Plan::default())
}
