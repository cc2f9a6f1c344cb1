//! What a guest has flushed is in the host's file, byte for byte, whoever is killed then. The guest writes records one
//! after the other, each followed by fsync, while fio keeps the rings full; when it says that record n is flushed, the
//! host's file must have it from then on. On a disk with a write cache (`writeback`) that takes a flush, on one without
//! (`writethrough`) Linux sends none.

use std::fs::File;
use std::os::unix::fs::FileExt;

use serde_json::json;

use crate::guest::{Guest, Lab, Metrics, ScriptGuest, until};
use crate::{SOON, cores};

/// Bytes of a record.
const RECORD: usize = 16384;
/// How many records are flushed before something happens.
const RECORDS: usize = 8;
/// The disks: address in the guest, file.
const DISKS: [(&str, &str); 2] = [("0:0", "back.img"), ("1:0", "through.img")];

/// Two files as disks, one of each cache mode that has a promise of its own.
fn config() -> String {
    let cores = cores();
    format!(
        "[reactor]\ncores = {cores:?}
         [[bdev]]\nname = 'back'\nkind = 'file'\npath = 'back.img'\nsize = '64MiB'\ncache = 'writeback'
         [[bdev]]\nname = 'through'\nkind = 'file'\npath = 'through.img'\nsize = '64MiB'\ncache = 'writethrough'
         [[scsi]]\nname = 'vm0'\nsocket = 'vm0.sock'\npollers = {cores:?}
         [[scsi.lun]]\ntarget = 0\nbdev = 'back'
         [[scsi.lun]]\ntarget = 1\nbdev = 'through'"
    )
}

/// A guest that checks the first `verify` records of each disk, and then writes more.
fn writer(lab: &Lab, verify: usize) -> ScriptGuest {
    lab.guest("vm0", "flushed.sh").with_fio().env("DISKS", "0:0 1:0").env("VERIFY", verify)
}

/// Waits until the guest has flushed so many records.
fn flushed(guest: &mut Guest, records: usize) {
    while guest.line("FLUSHED").parse::<usize>().unwrap() < records {}
}

/// How many records a guest has reported flushed, in all it has said.
fn reported(console: &[String]) -> usize {
    console.iter().rev().find_map(|line| line.strip_prefix("FLUSHED ")).unwrap().parse().unwrap()
}

/// The host's files have the first `records` records of each disk.
fn assert_on_host(lab: &Lab, records: usize) {
    for (disk, file) in DISKS {
        let file = File::open(lab.path(file)).unwrap();
        for number in 0..records {
            let mut found = vec![0; RECORD];
            file.read_exact_at(&mut found, (number * RECORD) as u64).unwrap();
            let line = format!("record {number} of disk {disk}\n").into_bytes();
            let expected: Vec<u8> = line.iter().copied().cycle().take(RECORD).collect();
            assert!(found == expected, "record {number} of {records} of disk {disk} is not in the file");
        }
    }
}

/// A last guest finds all of it and writes nothing.
fn assert_in_guest(lab: &Lab, records: usize) {
    let console = writer(lab, records).env("WRITE", "no").run();
    for (disk, _) in DISKS {
        assert!(console.contains(&format!("VERIFIED {disk} {records}")), "disk {disk}");
    }
}

fn flushes(metrics: &Metrics, bdev: &str) -> f64 {
    metrics.sum("ringside_bdev_requests_total", &[("bdev", bdev), ("op", "flush")])
}

#[test]
fn real_guest_finds_what_it_flushed_after_the_target_and_after_qemu_were_killed() {
    let test = "real_guest_finds_what_it_flushed_after_the_target_and_after_qemu_were_killed";
    let Some(lab) = Lab::enter(test) else { return };
    let ringside = lab.serve(&config());
    let mut guest = writer(&lab, 0).start();
    flushed(&mut guest, RECORDS);
    let mut records = 0;
    let ringside = ringside.kill_and_restart_after(|| {
        records = reported(&guest.kill());
        assert_on_host(&lab, records);
    });

    let mut guest = writer(&lab, records).start();
    flushed(&mut guest, records + RECORDS);
    let in_flight = || ringside.metrics().sum("ringside_scsi_in_flight", &[]) > 0.0;
    until("requests in flight", SOON, || in_flight().then_some(()));
    let records = reported(&guest.kill());
    assert_on_host(&lab, records);

    assert_in_guest(&lab, records);
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    assert!(flushes(&metrics, "back") >= RECORDS as f64, "every record was flushed");
    assert_eq!(flushes(&metrics, "through"), 0.0, "the guest was told that there is no write cache");
    assert_eq!(metrics.sum("ringside_bdev_errors_total", &[]), 0.0);
    ringside.stop();
}

#[test]
fn real_guest_finds_what_it_flushed_after_power_off_under_load() {
    let test = "real_guest_finds_what_it_flushed_after_power_off_under_load";
    let Some(lab) = Lab::enter(test) else { return };
    let ringside = lab.serve(&config());
    // It powers itself off.
    let console = writer(&lab, 0).env("POWER_OFF", RECORDS).start().gone();
    let records = reported(&console);
    assert_eq!(records, RECORDS, "the power went with that record");
    assert_on_host(&lab, records);

    // Its power is cut.
    let mut guest = writer(&lab, records).start();
    flushed(&mut guest, records + RECORDS);
    let mut qmp = guest.qmp();
    qmp.send("quit", json!({})); // which is not done if the connection is closed before
    let records = reported(&guest.gone());
    assert_on_host(&lab, records);

    assert_in_guest(&lab, records);
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    assert_eq!(metrics.sum("ringside_sessions_total", &[]), 3.0);
    assert_eq!(metrics.sum("ringside_scsi_in_flight", &[]), 0.0, "what was in flight has ended");
    assert_eq!(metrics.sum("ringside_bdev_errors_total", &[]), 0.0);
    ringside.stop();
}
