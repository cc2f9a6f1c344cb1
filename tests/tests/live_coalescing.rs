//! Calls that are held back, and drivers that have nothing but calls to go by: each completion is called for, whatever the
//! poller and the control threads do meanwhile. How late a call may be is tested on a clock by hand, in `vhost-user`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bdev::{Delay, DelayConfig};
use tests::live::client::{Client, FIRST, LOGICAL_UNIT_RESET, Plan, good, read, test_unit_ready};
use tests::live::rig::{Rig, Setup, malloc};
use tests::live::until;
use tests::net::driver::{NetDriver, NetPlan};
use tests::net::rig::NetSetup;
use tests::wire::{Wire, rx, tx};
use vhost_user::Coalescing;

/// Delays from the second chain in 10 ms on: some 20 of them are 0.4 ms apart, longer than a poller stays awake.
const SPACED: Coalescing = Coalescing { delay_base_us: 20, iops_threshold: Coalescing::IOPS_THRESHOLD_MIN };
const QUEUE: [(&str, &str); 2] = [("controller", "dut"), ("queue", "2")];

/// One request at a time, each asleep until the device calls.
fn round_trips(event_idx: bool) {
    let rig = Rig::start(Setup::new("dut").disk(0));
    let mut client = Client::connect(&rig.socket("dut"), &Plan { event_idx, ..Plan::default() });
    client.ready(FIRST, 0);
    rig.service().set_coalescing(SPACED);
    let stats = rig.pollers()[0].stats();
    // Sleeps that only a call that was due can have ended.
    let by_deadline = || stats.sleeps.value() - stats.wakeups.value();
    let begun = by_deadline();
    let delayed = || rig.metrics().sum("ringside_virtqueue_calls_delayed_total", &QUEUE);
    until("calls are delayed, and poller and driver sleep meanwhile", || {
        (0..10).for_each(|lba| drop(good(client.run(FIRST, read(0, lba, 1)))));
        delayed() >= 100.0 && by_deadline() >= begun + 10
    });
    client.stop(FIRST);
    let calls = client.queue(FIRST).calls();
    let sent = rig.metrics().sum("ringside_virtqueue_calls_total", &QUEUE);
    assert_eq!(sent, calls as f64, "each call was made, once");
}

#[test]
fn each_completion_is_called_for_with_event_indices() {
    round_trips(true);
}

#[test]
fn each_completion_is_called_for_with_flags() {
    round_trips(false);
}

#[test]
fn one_call_is_for_several_completions() {
    let slow = |name: &str, us| Arc::new(Delay::new(name, malloc(name, 1 << 20), DelayConfig::timed(us, us)).unwrap());
    let rig = Rig::start(Setup::new("dut").on(0, slow("a", 300)).on(1, slow("b", 600)));
    // Flags, so that a driver that waits wants a call for each batch.
    let mut client = Client::connect(&rig.socket("dut"), &Plan { event_idx: false, ..Plan::default() });
    client.ready(FIRST, 0);
    client.ready(FIRST, 1);
    rig.service().set_coalescing(Coalescing { delay_base_us: 1_000_000, ..SPACED });
    let coalesced = || rig.metrics().sum("ringside_virtqueue_calls_coalesced_total", &QUEUE);
    until("a call is for several batches", || {
        let tokens = [0, 1].map(|unit| client.send(FIRST, read(unit, 0, 1)));
        tokens.into_iter().for_each(|token| drop(good(client.queue(FIRST).wait_for(token))));
        coalesced() > 0.0
    });
}

#[test]
fn calls_are_not_lost_when_coalescing_changes_under_them_and_control_queues_are_not_delayed() {
    let rig = Rig::start(Setup::new("dut").disk(0));
    let mut client = Client::connect(&rig.socket("dut"), &Plan::default());
    client.ready(FIRST, 0);
    let done = Arc::new(AtomicBool::new(false));
    let changing = {
        let (service, done) = (Arc::clone(rig.service()), Arc::clone(&done));
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                for coalescing in [SPACED, Coalescing::OFF, Coalescing { delay_base_us: 1000, ..SPACED }] {
                    service.set_coalescing(coalescing);
                    thread::yield_now();
                }
            }
        })
    };
    for trip in 0..1000 {
        good(client.run(FIRST, test_unit_ready(0)));
        if trip % 100 == 0 {
            let function = client.send_tmf(LOGICAL_UNIT_RESET, 0, 0);
            assert_eq!(client.queue(0).wait_for(function).writable[0], 0, "FUNCTION COMPLETE");
            assert_eq!(client.run(FIRST, test_unit_ready(0)).sense(), Some((6, 0x29, 3)), "it was reset");
        }
    }
    done.store(true, Ordering::Relaxed);
    changing.join().unwrap();
    let control = [("controller", "dut"), ("queue", "0")];
    assert_eq!(rig.metrics().sum("ringside_virtqueue_calls_delayed_total", &control), 0.0);
}

#[test]
fn frames_are_called_for_both_ways() {
    let wire = Wire::default();
    let rig = NetSetup::new(Arc::new(wire.clone()), 1).start().expect("there is a core");
    rig.service().set_coalescing(SPACED);
    let mut driver = NetDriver::connect(&rig.socket(), &NetPlan::default());
    let delayed = |ring: u16| -> u64 {
        let blocks = rig.service().device().stats();
        let of_ring = blocks.iter().flat_map(|block| &block.rings).filter(|(index, _)| *index == ring);
        of_ring.map(|(_, stats)| stats.calls_delayed.value()).sum()
    };
    until("calls for sent frames are delayed", || {
        driver.sent(0, &[0xff; 64]);
        assert_eq!(wire.take(0).len(), 1);
        delayed(tx(0)) >= 20
    });
    until("calls for received frames are delayed", || {
        driver.post(0, 1, 2048);
        wire.deliver(0, &[0xff; 100]);
        assert_eq!(driver.receive(0).bytes.len(), 100);
        delayed(rx(0)) >= 20
    });
}
