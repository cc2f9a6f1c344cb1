//! LUNs that come and go, and limits that change, while a machine uses them: by SIGHUP on our side, by the kernel's own
//! means on the guest's. Controllers that come and go are in `second_controller`.

use crate::guest::{Lab, Ringside, until};
use crate::{SOON, one_disk, one_slow_disk};

/// LUN 0 in memory; with `plugged`, LUN 1 on a file whose requests take 200 ms: long beside what the guest needs to send
/// the next, so that there are always many in flight.
fn config(plugged: bool) -> String {
    let second = "\n[[scsi.lun]]\nlun = 1\nbdev = 'slow1'\n\
        [[bdev]]\nname = 'disk1'\nkind = 'file'\npath = 'disk1.img'\nsize = '32MiB'\n\
        [[bdev]]\nname = 'slow1'\nkind = 'delay'\nbase = 'disk1'\nlatency_us = 200000\n";
    one_disk("queues = 2") + if plugged { second } else { "" }
}

/// What the controller has of LUN 1, if it has it.
fn in_flight(ringside: &Ringside) -> Option<f64> {
    ringside.metrics().find("ringside_scsi_in_flight", &[("lun", "1")])
}

#[test]
fn real_guest_gets_and_loses_a_lun_under_load_by_sighup() {
    let Some(lab) = Lab::enter("real_guest_gets_and_loses_a_lun_under_load_by_sighup") else { return };
    let mut ringside = lab.serve(&config(false));
    let mut guest = lab.guest("vm0", "hotplug.sh").with_fio().env("ROUNDS", 2).start();
    guest.line("READY");
    for round in 1..=2 {
        ringside.reload(&config(true), "1 LUNs added, 0 removed");
        assert!(guest.line("FOUND").ends_with(&format!(" {}", 32 << 20)), "round {round}");
        guest.line("BUSY");
        until("commands in flight", SOON, || (in_flight(&ringside)? >= 8.0).then_some(()));
        ringside.reload(&config(false), "0 LUNs added, 1 removed");
        guest.line("GONE");
        until("the LUN is released", SOON, || in_flight(&ringside).is_none().then_some(()));
    }
    guest.finish();
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    let of = |name: &str, label| metrics.sum(name, &[label]);
    assert!(of("ringside_scsi_responses_total", ("response", "transport_failure")) >= 2.0 * 8.0 - 4.0);
    let events = ["rescan", "removed"].map(|event| of("ringside_scsi_events_total", ("event", event)));
    assert_eq!((events, metrics.sum("ringside_scsi_events_missed_total", &[])), ([2.0, 2.0], 0.0));
    assert_eq!(metrics.sum("ringside_sessions_total", &[]), 1.0);
    ringside.stop();
}

#[test]
fn real_guest_deletes_a_lun_under_load_and_finds_it_again() {
    let Some(lab) = Lab::enter("real_guest_deletes_a_lun_under_load_and_finds_it_again") else { return };
    let ringside = lab.serve(&config(true));
    lab.guest("vm0", "delete-rescan.sh").with_fio().env("ROUNDS", 3).run();
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    assert_eq!(metrics.sum("ringside_scsi_responses_total", &[("response", "transport_failure")]), 0.0);
    assert_eq!(metrics.sum("ringside_scsi_in_flight", &[]), 0.0);
    ringside.stop();
}

#[test]
fn real_guest_under_load_loses_no_io_when_cmd_per_lun_changes() {
    let Some(lab) = Lab::enter("real_guest_under_load_loses_no_io_when_cmd_per_lun_changes") else { return };
    let config = |limit: u32| one_slow_disk(&format!("cmd_per_lun = {limit}\non_cmd_per_lun = 'scsi'"));
    let mut ringside = lab.serve(&config(128));
    let guest = lab.guest("vm0", "fio-verify.sh").with_fio().env("JOBS", 2).env("JOB_MIB", 12).start();
    let of = |ringside: &Ringside, name: &str| ringside.metrics().sum(name, &[("target", "0")]);
    until("commands in flight", SOON, || (of(&ringside, "ringside_scsi_in_flight") >= 4.0).then_some(()));
    assert_eq!(of(&ringside, "ringside_scsi_refused_total"), 0.0);
    ringside.reload(&config(3), "limits of 1 controllers changed");
    until("a refusal", SOON, || (of(&ringside, "ringside_scsi_refused_total") > 0.0).then_some(()));
    for limit in [7, 2, 128] {
        ringside.reload(&config(limit), "limits of 1 controllers changed");
    }
    guest.finish();
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    assert_eq!(metrics.sum("ringside_scsi_limit", &[("limit", "cmd_per_lun")]), 128.0);
    ringside.stop();
}
