//! Faults and waits as an operator sees them (R14, R19): a driver that halts its queues a thousand times is counted a
//! thousand times and fills no log.

use std::time::Instant;

use tests::live::client::{Client, FIRST, Plan, good, read, test_unit_ready};
use tests::live::until;

use crate::place::{Place, one_controller};

const ROUNDS: u32 = 1000;
const CONTROLLER: [(&str, &str); 2] = [("controller", "vm0"), ("queue", "2")];

#[test]
fn r19_thousand_faults_are_counted_and_log_few_lines() {
    let place = Place::new();
    let process = place.serve(&one_controller(0));
    let mut client = Client::connect(&place.path("vm0.sock"), &Plan::default());
    client.ready(FIRST, 0);
    let since = Instant::now();
    for _ in 0..ROUNDS {
        let ring = client.queue(FIRST).raw();
        ring.set_avail_index(ring.avail_index() + 1000);
        client.queue(FIRST).kick();
        client.queue(FIRST).wait_err();
        client.stop(FIRST);
        client.start(FIRST);
    }
    good(client.run(FIRST, test_unit_ready(0)));
    let faults = [&CONTROLLER[..], &[("reason", "avail_index_jump")]].concat();
    assert_eq!(process.scrape().sum("ringside_virtqueue_faults_total", &faults), f64::from(ROUNDS));
    assert_eq!(process.scrape().sum("ringside_virtqueue_broken", &CONTROLLER), 0.0);
    let most = since.elapsed().as_secs() as usize + 2;
    // The first line is there, whenever the thread that writes it comes to that.
    let mut lines = Vec::new();
    until("the first line", || {
        lines.extend(process.lines());
        lines.iter().any(|line| line.contains("virtqueue halted"))
    });
    let halted = lines.iter().filter(|line| line.contains("virtqueue halted")).count();
    assert!(halted <= most, "{halted} lines about halted queues, at most {most}");
    assert!(lines.len() <= most + 10, "{lines:#?}");
}

/// R14: a wait for requests to end is visible when it is a second old, and its end, too.
#[test]
fn r14_stop_that_waits_for_more_than_a_second_is_said_once() {
    let place = Place::new();
    let mut process = place.serve(&one_controller(2_500_000));
    let mut client = Client::connect(&place.path("vm0.sock"), &Plan::default());
    client.ready(FIRST, 0);
    client.ready(FIRST, 1);
    let held = client.send(FIRST, read(1, 0, 1));
    good(client.run(FIRST, test_unit_ready(0))); // fetched after the other
    client.stop(FIRST);
    let line = process.wait_line("have not ended after 1 s");
    assert!(line.contains("vm0") && line.contains("stopping ring 2") && line.contains("WARN"), "{line}");
    process.wait_line("quiet after");
    assert!(!process.lines().iter().any(|line| line.contains("have not ended")), "once");
    good(client.queue(FIRST).wait_for(held));
}

/// Rings that never start, because there is no such memory, are the front-end's business as well.
#[test]
fn r16_thousand_rings_that_do_not_map_are_counted_and_log_few_lines() {
    let place = Place::new();
    let process = place.serve(&one_controller(0));
    let mut client = Client::connect(&place.path("vm0.sock"), &Plan::default());
    client.ready(FIRST, 0);
    client.stop(FIRST);
    let mut nowhere = client.queue(FIRST).addresses();
    nowhere.used_user = 0x1000;
    let since = Instant::now();
    for _ in 0..ROUNDS {
        client.frontend.set_vring_addr(u32::from(FIRST), &nowhere).unwrap();
        let kick = client.queue(FIRST).kick_fd().try_clone_to_owned().unwrap();
        client.frontend.set_vring_kick(FIRST as u8, Some(std::os::fd::AsFd::as_fd(&kick))).unwrap();
        client.queue(FIRST).wait_err();
        client.stop(FIRST);
    }
    client.start(FIRST);
    good(client.run(FIRST, test_unit_ready(0)));
    let faults = [&CONTROLLER[..], &[("reason", "ring_unmapped")]].concat();
    assert_eq!(process.scrape().sum("ringside_virtqueue_faults_total", &faults), f64::from(ROUNDS));
    // Ten in ten seconds from the connection's thread, one a second from the one that hears of faults.
    let seconds = since.elapsed().as_secs() as usize;
    let most = 10 * (1 + seconds / 10) + seconds + 2 + 10;
    let mut lines = Vec::new();
    until("the first line", || {
        lines.extend(process.lines());
        lines.iter().any(|line| line.contains("ring does not start"))
    });
    assert!(lines.len() <= most, "{} lines in {seconds} s", lines.len());
}
