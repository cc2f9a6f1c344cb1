//! Queues of a running target that have gone cold beside a busy neighbour: control queue and request queues are still
//! answered, and a task management function sweeps what a driver put on a cold queue (R07). Rings alone are in `idle_rings.rs`.

use tests::live::client::{Client, FIRST, LOGICAL_UNIT_RESET, Plan, good, read, test_unit_ready};
use tests::live::rig::{Rig, Setup};
use tests::live::until;

const CONTROL: u16 = 0;

/// Waits until these queues are cold, and their drivers asked to kick.
fn cold(rig: &Rig, queues: &[&str]) {
    until("the queues go cold", || {
        let metrics = rig.metrics();
        let is_cold = |queue| metrics.sum("ringside_virtqueue_cold", &[("controller", "dut"), ("queue", queue)]) == 1.0;
        queues.iter().all(|queue| is_cold(*queue))
    });
}

/// A reset that finds a command on a cold queue whose kick it came before.
fn r07_reset_sweeps_a_cold_queue(pollers: usize) {
    let Some(rig) = Rig::spread(Setup::new("dut").disk(0), pollers) else { return };
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &Plan::queues(2));
    client.ready(FIRST, 0);
    for _ in 0..10 {
        cold(&rig, &["0", "2"]);
        let command = client.queue(FIRST).put(read(0, 0, 1));
        let _kick_on_its_way = client.queue(FIRST).expose();
        let function = client.send_tmf(LOGICAL_UNIT_RESET, 0, 0);
        assert_eq!(client.queue(CONTROL).wait_for(function).writable[0], 0, "FUNCTION COMPLETE");
        let reply = client.queue(FIRST).take().expect("what came before the function has ended before it");
        assert_eq!(reply.token, command);
        client.queue(FIRST).kick();
    }
    rig.undisturbed(load);
}

#[test]
fn r07_reset_sweeps_a_cold_queue_of_its_own_poller() {
    r07_reset_sweeps_a_cold_queue(1);
}

#[test]
fn r07_reset_sweeps_a_cold_queue_of_a_device_on_two_pollers() {
    r07_reset_sweeps_a_cold_queue(2);
}

#[test]
fn cold_queues_are_answered_beside_a_busy_neighbour() {
    let rig = Rig::start(Setup::new("dut").disk(0));
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &Plan::queues(4));
    client.ready(FIRST, 0);
    for _ in 0..5 {
        cold(&rig, &["0", "2", "3", "4", "5"]);
        until("the shard goes cold", || rig.pollers()[0].stats().cold_sources.value() == 1);
        for queue in FIRST..FIRST + 4 {
            good(client.run(queue, test_unit_ready(0)));
        }
    }
    // Nothing of it is lost when queues stop while they are cold.
    cold(&rig, &["0", "2", "3", "4", "5"]);
    assert_eq!(client.stop(FIRST + 3), 5);
    client.start(FIRST + 3);
    good(client.run(FIRST + 3, test_unit_ready(0)));
    rig.undisturbed(load);
}
