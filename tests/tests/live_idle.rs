//! Pollers that sleep, and drivers that kick and wait for calls: no wake-up is ever lost, in either direction. That the
//! order of falling asleep is right in every interleaving is `reactor`'s loom model; this is the whole path.

use std::sync::Arc;

use bdev::{Delay, DelayConfig};
use tests::live::client::{Client, FIRST, Plan, good, read, test_unit_ready};
use tests::live::rig::{Rig, Setup, malloc};
use tests::live::until;

/// Spins for some time that differs from round to round: less and more than a poller stays awake.
fn dawdle(state: &mut u64) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (0..*state % 4096).for_each(|_| std::hint::spin_loop());
}

/// One request at a time, each asleep until the device calls, most of them against a poller that is awake, asleep, or on
/// its way from one to the other.
fn round_trips(event_idx: bool) {
    const TRIPS: u64 = 10_000;
    let rig = Rig::start(Setup::new("dut").disk(0));
    let plan = Plan { event_idx, ..Plan::queues(2) };
    let mut client = Client::connect(&rig.socket("dut"), &plan);
    client.ready(FIRST, 0);
    let stats = rig.pollers()[0].stats();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let mut sleeps = 0;
    for trip in 0..TRIPS {
        match trip % 4 {
            0 => until("the poller falls asleep", || stats.sleeps.value() > sleeps),
            1 => {}
            _ => dawdle(&mut state),
        }
        sleeps = stats.sleeps.value();
        let queue = FIRST + (trip % 3 / 2) as u16;
        good(client.run(queue, test_unit_ready(0)));
    }
    assert!(stats.sleeps.value() >= TRIPS / 4);
    assert!(stats.wakeups.value() >= TRIPS / 4, "{} wake-ups", stats.wakeups.value());
    for queue in [FIRST, FIRST + 1] {
        client.stop(queue);
        let ring = [("controller", "dut"), ("queue", if queue == FIRST { "2" } else { "3" })];
        let (kicks, calls) = (client.queue(queue).kicks(), client.queue(queue).calls());
        let metrics = rig.metrics();
        assert_eq!(metrics.sum("ringside_virtqueue_kicks_total", &ring), kicks as f64, "each kick is seen");
        assert_eq!(metrics.sum("ringside_virtqueue_calls_total", &ring), calls as f64, "each call was made");
        assert!(kicks > 0 && calls > 0);
    }
}

#[test]
fn adaptive_idle_loses_no_wake_up_in_10_000_round_trips_with_event_indices() {
    round_trips(true);
}

#[test]
fn adaptive_idle_loses_no_wake_up_in_10_000_round_trips_with_flags() {
    round_trips(false);
}

#[test]
fn adaptive_idle_wakes_for_what_a_slow_backend_ends() {
    let slow = Delay::new("slow", malloc("slow", 1 << 20), DelayConfig::timed(300, 300)).unwrap();
    let rig = Rig::start(Setup::new("dut").on(0, Arc::new(slow)));
    let mut client = Client::connect(&rig.socket("dut"), &Plan::default());
    client.ready(FIRST, 0);
    let stats = rig.pollers()[0].stats();
    let (sleeps, wakeups) = (stats.sleeps.value(), stats.wakeups.value());
    for lba in 0..500 {
        good(client.run(FIRST, read(0, lba, 1)));
    }
    let (sleeps, wakeups) = (stats.sleeps.value() - sleeps, stats.wakeups.value() - wakeups);
    assert!(sleeps > wakeups, "deadlines ended some of {sleeps} sleeps, kicks {wakeups} of them");
}
