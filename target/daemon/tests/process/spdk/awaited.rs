//! LUNs over bdevs that SPDK does not have yet, or not any more: they come by themselves.

use std::thread;

use rustix::process::Signal;
use serde_json::json;
use tests::device::{Request, lun, report_luns};
use tests::live::client::{Client, FIRST, good, read, test_unit_ready, write};
use tests::live::until;

use super::{LUNS_CHANGED, NOT_SUPPORTED, call, configuration, ends_silently, keeps_every_byte};
use crate::place::{Place, Process};
use crate::reload::connect;

const ADDED: (u32, [u8; 8], u32) = (1, [1, 0, 0, 1, 0, 0, 0, 0], 1);
const REMOVED: (u32, [u8; 8], u32) = (1, [1, 0, 0, 1, 0, 0, 0, 0], 2);

fn create(place: &Place, blocks: u64) {
    let params = json!({"name": "Later0", "num_blocks": blocks, "block_size": 512});
    assert_eq!(call(place, "bdev_malloc_create", &params), "Later0");
}

fn awaited(process: &Process, bdev: &str) -> f64 {
    process.scrape().sum("ringside_bdev_spdk_awaited", &[("bdev", bdev)])
}

/// LUN numbers that REPORT LUNS has.
fn reported(client: &mut Client) -> Vec<u8> {
    let list = good(client.run(FIRST, Request::new(lun(0, 0), &report_luns(64)).data_in(64)));
    let bytes = u32::from_be_bytes(list[..4].try_into().unwrap()) as usize;
    list[8..8 + bytes].chunks(8).map(|lun| lun[1]).collect()
}

#[test]
fn lun_over_a_bdev_that_spdk_does_not_have_yet_comes_when_it_does_and_again() {
    let place = Place::new();
    // A device of ours over it comes with it.
    let text = configuration(&place, &["Malloc512", "Later0"])
        .replace("lun = 1\nbdev = 'd1'", "lun = 1\nbdev = 'slow'")
        + "[[bdev]]\nname = 'slow'\nkind = 'delay'\nbase = 'd1'\nlatency_us = 1\n";
    let mut process = place.serve(&text);
    let waits = "SPDK has no bdev \"Later0\": the LUN over it is not there until SPDK has one";
    assert!(process.passed().iter().any(|line| line.contains(waits)), "{:#?}", process.passed());
    assert_eq!((awaited(&process, "d0"), awaited(&process, "d1")), (0.0, 1.0));

    let mut client = connect(&place);
    assert_eq!(client.run(FIRST, test_unit_ready(1)).sense(), Some(NOT_SUPPORTED));
    assert_eq!(reported(&mut client), [0]);
    create(&place, 16384);
    assert_eq!(client.wait_event(), ADDED);
    assert_eq!(client.run(FIRST, test_unit_ready(0)).sense(), Some(LUNS_CHANGED));
    assert_eq!(reported(&mut client), [0, 1]);
    client.ready(FIRST, 1);
    good(client.run(FIRST, write(1, 16383, &[5; 512])));
    assert_eq!(awaited(&process, "d1"), 0.0);

    // SPDK answers when the last of those who have it has let go.
    thread::scope(|scope| {
        let removal = scope.spawn(|| call(&place, "bdev_malloc_delete", &json!({"name": "Later0"})));
        assert_eq!(client.wait_event(), REMOVED);
        assert_eq!(removal.join().unwrap(), true);
    });
    assert_eq!(client.run(FIRST, test_unit_ready(1)).sense(), Some(NOT_SUPPORTED));
    assert_eq!(awaited(&process, "d1"), 1.0);
    create(&place, 32768);
    assert_eq!(client.wait_event(), ADDED);
    client.ready(FIRST, 1);
    assert_eq!(good(client.run(FIRST, read(1, 16383, 1))), [0; 512], "it is another one");
    good(client.run(FIRST, read(1, 32767, 1)));
    for _ in 0..2 {
        process.wait_line("SPDK has the bdev that was waited for");
    }
    drop(client);
    keeps_every_byte(&place, 1);
    ends_silently(process);
}

#[test]
fn bdev_that_is_there_and_cannot_be_used_is_waited_for_until_it_can() {
    let place = Place::new();
    let mut process = place.serve(&configuration(&place, &["Malloc512", "Later0"]));
    let mut client = connect(&place);
    // It is claimed as soon as it is there.
    assert_eq!(call(&place, "bdev_passthru_create", &json!({"name": "Over0", "base_bdev_name": "Later0"})), "Over0");
    create(&place, 2048);
    process.wait_line("still waiting: bdev \"d1\": SPDK's bdev \"Later0\" is claimed: another bdev stands on it");
    assert_eq!(awaited(&process, "d1"), 1.0);
    // SPDK does not tell when nobody stands on it any more.
    assert_eq!(call(&place, "bdev_passthru_delete", &json!({"name": "Over0"})), true);
    assert_eq!(client.wait_event(), ADDED);
    client.ready(FIRST, 1);
    until("it is not waited for any more", || awaited(&process, "d1") == 0.0);
    ends_silently(process);
}

#[test]
fn bdev_that_a_reload_brings_is_waited_for_and_one_that_it_takes_is_not() {
    let place = Place::new();
    let one = configuration(&place, &["Malloc512"]);
    let both =
        one.clone() + "[[scsi.lun]]\nlun = 1\nbdev = 'd1'\n[[bdev]]\nname = 'd1'\nkind = 'spdk'\nbdev = 'Later0'\n";
    let mut process = place.serve(&one);
    let mut client = connect(&place);
    let reload = |process: &mut Process, text: &str| {
        place.write(text);
        process.signal(Signal::HUP);
        process.wait_line("SIGHUP: ")
    };
    let said = reload(&mut process, &both);
    assert!(said.contains("nothing to change"), "{said}");
    assert_eq!(awaited(&process, "d1"), 1.0);
    reload(&mut process, &one);
    assert!(!process.scrape().families["ringside_bdev_spdk_awaited"].samples.iter().any(|sample| sample.value == 1.0));
    create(&place, 2048);
    let said = reload(&mut process, &both);
    assert!(said.contains("1 LUNs added"), "{said}");
    assert_eq!(client.wait_event(), ADDED);
    client.ready(FIRST, 1);
    ends_silently(process);
}
