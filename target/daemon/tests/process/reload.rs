//! SIGHUP: the configuration file is read anew, and the running process becomes what it says, or stays as it is and says
//! why not. What becomes of the commands of a LUN that goes is tested by the `r22_…` of the crate `tests`.

use std::fs;

use rustix::process::Signal;
use tests::device::{HOTPLUG, Request, lun};
use tests::live::client::{Client, EVENT, FIRST, Plan, good, read, test_unit_ready, write};
use tests::live::exposition::Exposition;
use tests::live::until;

use crate::place::{Place, Process, one_controller};

const LUNS_CHANGED: (u8, u8, u8) = (0x06, 0x3f, 0x0e);
const NOT_SUPPORTED: (u8, u8, u8) = (0x05, 0x25, 0x00);
const TRANSPORT_FAILURE: u8 = 6;

/// A front-end that hears of hot-plug; LUN 0 has said all that it had to.
pub fn connect(place: &Place) -> Client {
    let plan = Plan { rings: vec![0, EVENT, FIRST], features: HOTPLUG, ..Plan::default() };
    let mut client = Client::connect(&place.path("vm0.sock"), &plan);
    client.post_event_buffers(8);
    client.ready(FIRST, 0);
    client
}

/// Writes the file, signals, and waits for what is said of it.
fn reload(place: &Place, process: &mut Process, text: &str) -> String {
    place.write(text);
    process.signal(Signal::HUP);
    process.wait_line("SIGHUP: ")
}

fn end(process: Process) {
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

fn event(number: u8, reason: u32) -> (u32, [u8; 8], u32) {
    (1, [1, 0, 0, number, 0, 0, 0, 0], reason)
}

/// A disk more, as LUN 5, whose bdev is a file.
fn with_file(text: &str) -> String {
    text.to_owned()
        + "[[scsi.lun]]\nlun = 5\nbdev = 'extra'\n[[bdev]]\nname = 'extra'\nkind = 'file'\npath = '{dir}/extra'\nsize = '1MiB'\n\
           direct = false\n"
}

#[test]
fn hup_adds_and_removes_a_lun_and_its_bdev_and_keeps_the_rest() {
    let place = Place::new();
    let text = one_controller(0);
    let mut process = place.serve(&text);
    let mut client = connect(&place);
    good(client.run(FIRST, write(0, 9, &[5; 512])));

    let said = reload(&place, &mut process, &with_file(&text));
    assert!(said.contains("1 LUNs added, 0 removed, limits of 0 controllers changed"), "{said}");
    assert_eq!(client.wait_event(), event(5, 1));
    assert_eq!(client.run(FIRST, test_unit_ready(0)).sense(), Some(LUNS_CHANGED));
    client.ready(FIRST, 5);
    good(client.run(FIRST, write(5, 0, &[6; 512])));
    assert_eq!(fs::read(place.path("extra")).unwrap()[..512], [6; 512]);
    assert_eq!(process.scrape().sum("ringside_bdev_size_bytes", &[("bdev", "extra")]), f64::from(1 << 20));

    assert!(reload(&place, &mut process, &text).contains("0 LUNs added, 1 removed"));
    assert_eq!(client.wait_event(), event(5, 2));
    assert_eq!(client.run(FIRST, test_unit_ready(5)).sense(), Some(NOT_SUPPORTED));
    let has_extra = |metrics: &Exposition| {
        metrics.families["ringside_bdev_size_bytes"].samples.iter().any(|sample| sample.labels["bdev"] == "extra")
    };
    until("the file is let go", || !has_extra(&process.scrape()));
    // Nobody else could have it while it was in use: now it comes back with what was written.
    assert!(reload(&place, &mut process, &with_file(&text)).contains("1 LUNs added"));
    client.ready(FIRST, 5);
    assert_eq!(good(client.run(FIRST, read(5, 0, 1))), [6; 512]);

    assert!(reload(&place, &mut process, &with_file(&text)).contains("nothing to change"));
    assert_eq!(client.run(FIRST, test_unit_ready(0)).sense(), Some(LUNS_CHANGED));
    assert_eq!(good(client.run(FIRST, read(0, 9, 1))), [5; 512], "the disk in memory is the same one");
    end(process);
}

#[test]
fn hup_with_something_that_takes_a_restart_applies_nothing_and_names_the_key() {
    let place = Place::new();
    let text = one_controller(0);
    let mut process = place.serve(&text);
    let mut client = connect(&place);
    let wrong = with_file(&text).replace("queue_size_max = 256", "queues = 2\nqueue_size_max = 256\nmax_sectors = 8");
    let said = reload(&place, &mut process, &wrong);
    assert!(said.contains("nothing is changed: scsi[0].queues = 2: is 4 in the running target"), "{said}");
    good(client.run(FIRST, test_unit_ready(0)));
    assert_eq!(client.run(FIRST, test_unit_ready(5)).sense(), Some(NOT_SUPPORTED));
    assert!(!place.path("extra").exists(), "the file was not made");
    assert_eq!(process.scrape().sum("ringside_scsi_limit", &[("limit", "max_sectors")]), 65535.0);
    end(process);
}

#[test]
fn hup_with_a_wrong_file_or_a_bdev_that_cannot_be_leaves_everything_as_it_is() {
    let place = Place::new();
    let text = one_controller(0);
    let mut process = place.serve(&text);
    let mut client = connect(&place);
    let unknown = text.clone() + "colour = 'red'\n";
    let line = unknown.lines().count();
    let missing = with_file(&text).replace("{dir}/extra", "{dir}/missing/extra");
    for (wrong, expected) in [
        (unknown.as_str(), format!("ringside.toml:{line}: ")),
        ("[[scsi", "ringside.toml:1: ".into()),
        (&missing, "nothing is changed: bdev \"extra\": ".into()),
    ] {
        let said = reload(&place, &mut process, wrong);
        assert!(said.contains("nothing is changed") && said.contains(&expected), "{said}");
        good(client.run(FIRST, test_unit_ready(0)));
    }
    fs::remove_file(place.path("ringside.toml")).unwrap();
    process.signal(Signal::HUP);
    process.wait_line("SIGHUP: nothing is changed");
    good(client.run(FIRST, test_unit_ready(0)));
    assert!(reload(&place, &mut process, &text).contains("nothing to change"));
    end(process);
}

#[test]
fn hup_changes_limits_for_the_connected_front_end() {
    let place = Place::new();
    let text = one_controller(0);
    let mut process = place.serve(&text);
    let mut client = connect(&place);
    good(client.run(FIRST, read(0, 0, 8)));
    let limited =
        text.replace("queue_size_max = 256", "queue_size_max = 256\nmax_sectors = 4\non_max_sectors = 'scsi'");
    assert!(reload(&place, &mut process, &limited).contains("limits of 1 controllers changed"));
    assert_eq!(client.run(FIRST, read(0, 0, 5)).sense(), Some((0x05, 0x24, 0x00)));
    good(client.run(FIRST, read(0, 0, 4)));
    assert_eq!(client.frontend.config(8, 4).unwrap(), [4, 0, 0, 0]);
    assert!(reload(&place, &mut process, &text).contains("limits of 1 controllers changed"));
    good(client.run(FIRST, read(0, 0, 8)));
    end(process);
}

#[test]
fn hup_changes_coalescing_for_the_connected_front_end() {
    let place = Place::new();
    let text = one_controller(0);
    let mut process = place.serve(&text);
    let mut client = connect(&place);
    let base = |process: &Process| process.scrape().sum("ringside_coalescing_delay_base_seconds", &[]);
    assert_eq!(base(&process), 0.0);
    let coalesced =
        text.replace("queue_size_max = 256", "queue_size_max = 256\ndelay_base_us = 20\niops_threshold = 100");
    assert!(reload(&place, &mut process, &coalesced).contains("coalescing of 1 devices changed"));
    assert_eq!(base(&process), 20e-6);
    let delayed = |process: &Process| process.scrape().sum("ringside_virtqueue_calls_delayed_total", &[]);
    while delayed(&process) == 0.0 {
        (0..50).for_each(|_| drop(good(client.run(FIRST, read(0, 0, 8)))));
    }
    assert!(reload(&place, &mut process, &text).contains("coalescing of 1 devices changed"));
    let before = delayed(&process);
    (0..50).for_each(|_| drop(good(client.run(FIRST, read(0, 0, 8)))));
    assert_eq!((delayed(&process), base(&process)), (before, 0.0), "off");
    end(process);
}

/// LUN 1 is slow: what takes its place, or its disk, waits until its requests have ended. Nobody else waits.
#[test]
fn hup_replaces_a_lun_when_its_last_request_has_ended() {
    let place = Place::new();
    let text = one_controller(1_500_000);
    let mut process = place.serve(&text);
    let mut client = connect(&place);
    client.ready(FIRST, 1);
    client.send(FIRST, write(1, 0, &[8; 512]));
    let slow = [("lun", "1")];
    until("it is in flight", || process.scrape().sum("ringside_scsi_in_flight", &slow) == 1.0);
    // The disk below the slow one is now a LUN of its own; the slow one is gone.
    let (kept, _) = text.split_once("[[scsi.lun]]\nlun = 1").unwrap();
    let kept = kept.replace("[[bdev]]\nname = 'slow'", "[[bdev]]\nname = 'slower'");
    let next = kept
        + "[[scsi.lun]]\nlun = 1\nbdev = 'below'\n[[scsi.lun]]\nlun = 2\nbdev = 'quick'\n\
        [[bdev]]\nname = 'quick'\nkind = 'null'\nsize = '1MiB'\n";
    let next = next.replace("[[bdev]]\nname = 'slower'\nkind = 'delay'\nbase = 'below'\nlatency_us = 1500000\n", "");
    place.write(&next);
    process.signal(Signal::HUP);
    assert_eq!(client.wait_event(), event(1, 2));
    assert_eq!(client.wait_event(), event(2, 1), "it need not wait");
    assert!(client.queue(FIRST).take().is_none(), "the slow one is still at it");
    client.queue(FIRST).wait().assert_transport(TRANSPORT_FAILURE, 512);
    assert_eq!(client.wait_event(), event(1, 1));
    process.wait_line("SIGHUP: 2 LUNs added, 1 removed");
    client.ready(FIRST, 1);
    assert_eq!(good(client.run(FIRST, read(1, 0, 1))), [8; 512], "the write was not stopped half-way");
    end(process);
}

/// A reload that waits for a slow disk does not keep the process from ending.
#[test]
fn term_during_a_reload_that_waits_drains_and_exits_0() {
    let place = Place::new();
    let text = one_controller(2_000_000);
    let mut process = place.serve(&text);
    let mut client = connect(&place);
    client.ready(FIRST, 1);
    client.send(FIRST, Request::new(lun(0, 1), &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    client.send(FIRST, read(1, 0, 1));
    until("they are in flight", || process.scrape().sum("ringside_scsi_in_flight", &[("lun", "1")]) >= 1.0);
    place.write(&text.replace("lun = 1\nbdev = 'slow'\n", "lun = 1\nbdev = 'slow'\nread_only = true\n"));
    process.signal(Signal::HUP);
    assert_eq!(client.wait_event(), event(1, 2));
    process.signal(Signal::TERM);
    process.wait_line("drained");
    assert_eq!(process.wait().code(), Some(0));
}
