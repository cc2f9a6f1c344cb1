//! Namespaces of another machine (`remote`), whose target dies. Without that program these tests say SKIPPED and succeed.

use rustix::process::Signal;
use serde_json::json;
use tests::device::HOTPLUG;
use tests::live::client::{Client, EVENT, FIRST, Plan, good, read, test_unit_ready, write};
use tests::live::load::Load;
use tests::live::until;

use super::load::{TRANSPORT_FAILURE, bench, configuration, in_flight, malloc, passes};
use super::{LUNS_CHANGED, NOT_SUPPORTED};
use crate::place::Place;
use crate::remote::Remote;

fn cores() -> Vec<usize> {
    tests::live::rig::cores(1).unwrap()
}

#[test]
fn spdk_nvme_over_tcp_keeps_every_byte_and_holds_commands_until_its_target_is_back() {
    let place = Place::new();
    let test = "spdk_nvme_over_tcp_keeps_every_byte_and_holds_commands_until_its_target_is_back";
    let Some(mut remote) = Remote::start(test, &place.path(""), 8 << 20, 0) else { return };
    let attach = remote.attach(&json!({"ctrlr_loss_timeout_sec": -1, "reconnect_delay_sec": 1}));
    let process = place.serve(&configuration(&place, &cores(), &json!([attach]), &[("vm0", &["Remoten1"])]));
    passes(bench(&place, "vm0", &["--number-ios", "200", "--interrupt", "--stall-timeout", "60", "--time", "60"]));
    let load = Load::start(place.path("vm0.sock"));
    for _ in 0..2 {
        load.progress(16);
        remote.kill();
        until("commands are held", || in_flight(&process, "vm0") > 0.0);
        let before = load.operations();
        remote.start_again();
        until("commands go on", || {
            process.lines().iter().for_each(|line| eprintln!("{line}"));
            load.operations() > before
        });
    }
    load.finish(); // none has failed, and none has got other data
    let errors = process.scrape().sum("ringside_bdev_errors_total", &[("bdev", "vm0-0")]);
    assert_eq!(errors, 0.0);
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn r22_spdk_nvme_whose_target_is_gone_for_good_ends_its_commands_and_its_lun() {
    let place = Place::new();
    let test = "r22_spdk_nvme_whose_target_is_gone_for_good_ends_its_commands_and_its_lun";
    // Writes are at the target when it dies.
    let Some(mut remote) = Remote::start(test, &place.path(""), 8 << 20, 60_000_000) else { return };
    let attach = remote.attach(&json!({
        "ctrlr_loss_timeout_sec": 2, "reconnect_delay_sec": 1, "fast_io_fail_timeout_sec": 1,
    }));
    let bdevs = json!([attach, malloc("Here", 1)]);
    let mut process = place.serve(&configuration(&place, &cores(), &bdevs, &[("vm0", &["Here", "Remoten1"])]));
    let plan = Plan { rings: vec![0, EVENT, FIRST], features: HOTPLUG, ..Plan::default() };
    let mut client = Client::connect(&place.path("vm0.sock"), &plan);
    client.post_event_buffers(8);
    client.ready(FIRST, 0);
    client.ready(FIRST, 1);
    good(client.run(FIRST, read(1, 0, 1)));
    let mut held: Vec<usize> = (0..6).map(|lba| client.send(FIRST, write(1, lba, &[9; 512]))).collect();
    until("writes are on their way", || in_flight(&process, "vm0") == 6.0);
    remote.kill();
    held.extend((0..6).map(|lba| client.send(FIRST, read(1, lba, 1))));
    for token in held {
        let reply = client.queue(FIRST).wait_for(token);
        // SPDK fails them without details; those that come when the LUN goes are told that.
        assert!(
            reply.code() == TRANSPORT_FAILURE
                || matches!(reply.sense(), Some((0x03, 0x0c | 0x11, 0x00) | (0x0b, 0x00, 0x00) | NOT_SUPPORTED)),
            "{} {:x?}",
            reply.code(),
            reply.sense()
        );
    }
    process.wait_line("SPDK takes the bdev away");
    assert_eq!(client.wait_event(), (1, [1, 0, 0, 1, 0, 0, 0, 0], 2));
    assert_eq!(client.run(FIRST, test_unit_ready(1)).sense(), Some(NOT_SUPPORTED));
    assert_eq!(client.run(FIRST, test_unit_ready(0)).sense(), Some(LUNS_CHANGED));
    good(client.run(FIRST, read(0, 0, 1)));
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}
