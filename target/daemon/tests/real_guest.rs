//! Real Linux guests on the built target: they find their disks, their data stays, and nothing that happens to a guest or
//! to the target wedges the other. Each test starts a target of its own. What a guest does is in `tests/guest`; single
//! answers, byte for byte, are tested beside the crates that give them.
//!
//! Without QEMU or the guest image, or with `REAL_GUESTS=off`, these tests say SKIPPED and succeed.

mod guest;
#[cfg(feature = "spdk")]
#[allow(dead_code, reason = "the tests of the process take the rest")]
#[path = "process/spdk/release.rs"]
mod release;
#[cfg(feature = "spdk")]
#[allow(dead_code, reason = "it dies in the tests of the process")]
mod remote;
#[cfg(feature = "spdk")]
#[path = "../../../bindings/spdk-rs/tests/lab/rpc.rs"]
mod rpc;

/// What takes a theme of its own.
mod real_guest {
    mod commands;
    mod conformance;
    mod durability;
    mod file_systems;
    mod firmware;
    mod hotplug;
    mod large;
    mod limits;
    mod machines;
    mod net;
    mod net_lives;
    mod net_switch;
    mod second_controller;
    #[cfg(feature = "spdk")]
    mod spdk;
}

use std::time::Duration;

use guest::{Lab, cores, qemu_version, skip, until};

/// For what follows at once from something that has been seen.
const SOON: Duration = Duration::from_secs(30);

/// A controller `vm0` with one disk of 192 MiB, on pollers on every core there is; `more` are further keys of it.
fn one_disk(more: &str) -> String {
    let cores = cores();
    format!(
        "[reactor]
         cores = {cores:?}
         [[bdev]]
         name = 'disk0'
         kind = 'malloc'
         size = '192MiB'
         [[scsi]]
         name = 'vm0'
         socket = 'vm0.sock'
         pollers = {cores:?}
         {more}
         [[scsi.lun]]
         bdev = 'disk0'
         serial = 'REAL-GUEST-1'"
    )
}

/// The same with every request held for 2 ms, so that there are requests in flight.
fn one_slow_disk(more: &str) -> String {
    let slow = "[[bdev]]\nname = 'slow0'\nkind = 'delay'\nbase = 'disk0'\nlatency_us = 2000\n[[scsi]]";
    one_disk(more).replacen("[[scsi]]", slow, 1).replace("bdev = 'disk0'", "bdev = 'slow0'")
}

#[test]
fn real_guest_finds_its_disk_and_files_on_it_stay() {
    let Some(lab) = Lab::enter("real_guest_finds_its_disk_and_files_on_it_stay") else { return };
    let ringside = lab.serve(&one_disk(""));
    let guest = lab.guest("vm0", "disk.sh").env("SIZE_BYTES", 192 << 20).env("VENDOR", "RINGSIDE");
    guest.env("MODEL", "disk0").env("SERIAL", "REAL-GUEST-1").run();
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    assert!(metrics.sum("ringside_scsi_bytes_total", &[("op", "write")]) >= f64::from(6 << 20), "24 files of 256 KiB");
    ringside.stop();
}

#[test]
fn real_guest_verifies_random_io_on_four_queues() {
    let Some(lab) = Lab::enter("real_guest_verifies_random_io_on_four_queues") else { return };
    let ringside = lab.serve(&one_disk("queues = 4"));
    lab.guest("vm0", "fio-verify.sh").with_fio().cpus(4).env("QUEUES", 4).run();
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    for queue in ["2", "3", "4", "5"] {
        let chains = metrics.sum("ringside_virtqueue_chains_total", &[("queue", queue)]);
        assert!(chains >= 100.0, "queue {queue} carried {chains} chains");
    }
    assert_eq!(metrics.sum("ringside_scsi_errors_total", &[]), 1.0, "the unit attention of the new session");
    assert_eq!(metrics.sum("ringside_scsi_refused_total", &[]), 0.0);
    let responses = metrics.nonzero("ringside_scsi_responses_total", "response");
    assert_eq!(responses.keys().collect::<Vec<_>>(), ["bad_target", "ok"], "{responses:?}");
    ringside.stop();
}

/// A lost interrupt would be a command that the guest waits for, aborts after 30 s, and complains of.
#[test]
fn real_guest_whose_interrupts_are_coalesced_misses_none() {
    let Some(lab) = Lab::enter("real_guest_whose_interrupts_are_coalesced_misses_none") else { return };
    let ringside = lab.serve(&one_disk("queues = 4\ndelay_base_us = 20\niops_threshold = 100"));
    lab.guest("vm0", "fio-verify.sh").with_fio().cpus(4).env("JOB_MIB", 4).run();
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    assert!(metrics.sum("ringside_virtqueue_calls_delayed_total", &[]) > 0.0, "calls were held back");
    ringside.stop();
}

#[test]
fn real_guest_resets_its_disk_under_load_and_no_io_fails() {
    let Some(lab) = Lab::enter("real_guest_resets_its_disk_under_load_and_no_io_fails") else { return };
    let ringside = lab.serve(&one_slow_disk(""));
    lab.guest("vm0", "reset-under-load.sh").with_fio().env("RESETS", 5).run();
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    let done = [("function", "logical_unit_reset"), ("response", "function_complete")];
    assert_eq!(metrics.sum("ringside_scsi_tmf_total", &done), 5.0);
    assert_eq!(metrics.sum("ringside_scsi_tmf_total", &[]), 5.0, "no other function");
    assert!(metrics.sum("ringside_scsi_responses_total", &[("response", "reset")]) > 0.0, "nothing was in flight");
    // Unit attentions: one of the session, and one of each reset unless a command came only after the next.
    let errors = metrics.sum("ringside_scsi_errors_total", &[]);
    assert!((2.0..=6.0).contains(&errors), "{errors} commands with CHECK CONDITION");
    ringside.stop();
}

#[test]
fn real_guest_that_is_reset_finds_what_it_had_synced() {
    let Some(lab) = Lab::enter("real_guest_that_is_reset_finds_what_it_had_synced") else { return };
    let ringside = lab.serve(&one_slow_disk(""));
    let console = lab.guest("vm0", "reboot.sh").reboots(2).run();
    for boot in 1..=3 {
        assert!(console.contains(&format!("boot {boot}: {} files synced", 4 * boot)), "boot {boot}");
    }
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    assert_eq!(metrics.sum("ringside_sessions_total", &[]), 1.0, "QEMU stays connected");
    ringside.stop();
}

#[test]
fn real_guest_after_one_that_was_killed_finds_what_that_had_synced() {
    let Some(lab) = Lab::enter("real_guest_after_one_that_was_killed_finds_what_that_had_synced") else { return };
    let ringside = lab.serve(&one_slow_disk(""));
    let mut first = lab.guest("vm0", "killed.sh").start();
    while first.line("SYNCED").parse::<u32>().unwrap() < 20 {}
    let in_flight = || ringside.metrics().sum("ringside_scsi_in_flight", &[]) > 0.0;
    until("requests in flight", SOON, || in_flight().then_some(()));
    let console = first.kill();
    let synced = console.iter().rev().find_map(|line| line.strip_prefix("SYNCED ")).unwrap();

    lab.guest("vm0", "killed.sh").env("SYNCED", synced).run();
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    assert_eq!(metrics.sum("ringside_sessions_total", &[]), 2.0);
    assert_eq!(metrics.sum("ringside_scsi_in_flight", &[]), 0.0, "what was in flight has ended");
    ringside.stop();
}

/// A guest finds a null device at each of these addresses, with its size and its name, and nothing else.
fn finds_luns(test: &str, luns: &[(u16, u16)]) {
    let Some(lab) = Lab::enter(test) else { return };
    let mut config = String::from("[[scsi]]\nname = 'vm0'\nsocket = 'vm0.sock'\n");
    let mut expected = Vec::new();
    for (index, &(target, lun)) in luns.iter().enumerate() {
        let mib = 10 + index;
        config += &format!("[[scsi.lun]]\ntarget = {target}\nlun = {lun}\nbdev = 'n{index}'\n");
        let bdev = format!("[[bdev]]\nname = 'n{index}'\nkind = 'null'\nsize = '{mib}MiB'\n");
        config.insert_str(0, &bdev);
        // From 256 on LUNs have flat addresses, which Linux shows with the format's bit 14.
        let shown = if lun < 256 { lun } else { lun + 16384 };
        expected.push((format!("{target}:{shown}"), mib << 20, format!("n{index}")));
    }
    let ringside = lab.serve(&config);
    let addresses: Vec<&str> = expected.iter().map(|(address, ..)| address.as_str()).collect();
    let console = lab.guest("vm0", "luns.sh").env("LUNS", addresses.join(" ")).run();
    for (address, bytes, model) in &expected {
        let start = format!("LUN {address} ");
        let line = console.iter().find(|line| line.starts_with(&start)).expect(address);
        assert!(line.ends_with(&format!(" {bytes} RINGSIDE {model}")), "{line}");
    }
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    for (target, lun) in luns {
        let (target, lun) = (target.to_string(), lun.to_string());
        let commands = metrics.sum("ringside_scsi_commands_total", &[("target", &target), ("lun", &lun)]);
        assert!(commands > 0.0, "LUN {lun} of target {target} had no command");
    }
    ringside.stop();
}

#[test]
fn real_guest_finds_every_lun_with_its_size() {
    // Target 5 has no LUN 0.
    let luns = [(0, 0), (0, 1), (0, 300), (1, 0), (1, 255), (5, 7), (255, 0), (255, 16383)];
    finds_luns("real_guest_finds_every_lun_with_its_size", &luns);
}

#[test]
fn real_guest_finds_64_luns_of_16_targets() {
    let luns = (0..16).flat_map(|target| [0, 1, 255, 256].map(|lun| (17 * target, lun)));
    finds_luns("real_guest_finds_64_luns_of_16_targets", &luns.collect::<Vec<_>>());
}

#[test]
fn real_guest_boots_with_the_arguments_that_ringside_prints() {
    let Some(lab) = Lab::enter("real_guest_boots_with_the_arguments_that_ringside_prints") else { return };
    // A path that both a shell and QEMU would take apart.
    let config = one_disk("queues = 2\nqueue_size_max = 256\ncmd_per_lun = 24\nmax_sectors = 1024");
    let ringside = lab.serve(&config.replace("vm0.sock", "vm 0, first.sock"));
    let arguments = ringside.qemu_args("vm0", &["--one-line", "--memory", "512M"]);
    let console = lab.boot(&arguments, "disk.sh").finish();
    assert!(console.contains(&"serial: REAL-GUEST-1".to_owned()));
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    assert_eq!(metrics.sum("ringside_scsi_refused_total", &[]), 0.0, "the guest was told the limits");
    let most = metrics.sum("ringside_scsi_in_flight_high_water", &[]);
    assert!((1.0..=24.0).contains(&most), "{most} commands in flight at once");
    ringside.stop();
}

#[test]
fn real_guest_that_asks_for_more_than_max_sectors_is_told_so() {
    let Some(lab) = Lab::enter("real_guest_that_asks_for_more_than_max_sectors_is_told_so") else { return };
    let controller = |number: u8, policy: &str| {
        format!(
            "[[bdev]]\nname = 'disk{number}'\nkind = 'malloc'\nsize = '16MiB'
             [[scsi]]\nname = 'vm{number}'\nsocket = 'vm{number}.sock'
             max_sectors = 64\non_max_sectors = '{policy}'
             [[scsi.lun]]\ntarget = {number}\nbdev = 'disk{number}'\n"
        )
    };
    let ringside = lab.serve(&(controller(0, "transport") + &controller(1, "scsi")));
    let guest = lab.guest("vm0", "transfer-limit.sh").and_socket(&lab.socket("vm1"));
    let console = guest.env("DISKS", "0:0 1:0").env("SECTORS", 64).run();

    let refused = |disk| console.iter().find_map(|line| line.strip_prefix(&format!("REFUSED {disk} "))).unwrap();
    assert!(refused("0:0").contains("DID_ERROR"), "{}", refused("0:0"));
    assert!(refused("1:0").contains("Invalid field in cdb"), "{}", refused("1:0"));
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    for controller in ["vm0", "vm1"] {
        let of = |limit| metrics.sum("ringside_scsi_refused_total", &[("controller", controller), ("limit", limit)]);
        assert_eq!((of("max_sectors"), of("cmd_per_lun"), of("seg_max")), (1.0, 0.0, 0.0), "{controller}");
    }
    let failed = metrics.sum("ringside_scsi_responses_total", &[("controller", "vm0"), ("response", "failure")]);
    assert_eq!(failed, 1.0);
    ringside.stop();
}

#[test]
fn real_guest_told_a_larger_cmd_per_lun_loses_no_io() {
    let Some(lab) = Lab::enter("real_guest_told_a_larger_cmd_per_lun_loses_no_io") else { return };
    let ringside = lab.serve(&one_slow_disk("cmd_per_lun = 8\non_cmd_per_lun = 'scsi'"));
    lab.guest("vm0", "fio-verify.sh").with_fio().env("JOBS", 2).env("JOB_MIB", 12).run();
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    assert!(metrics.sum("ringside_scsi_refused_total", &[("target", "0"), ("limit", "cmd_per_lun")]) > 0.0);
    assert_eq!(metrics.sum("ringside_scsi_in_flight_high_water", &[]), 8.0, "the limit was reached and kept");
    ringside.stop();
}

#[test]
fn real_guest_goes_on_reading_after_the_target_was_killed_and_restarted() {
    let name = "real_guest_goes_on_reading_after_the_target_was_killed_and_restarted";
    let Some(lab) = Lab::enter(name) else { return };
    // A disk that has nothing to lose, and takes its time so that the kill finds a request in flight.
    let config = one_slow_disk("").replace("'malloc'", "'null'");
    let ringside = lab.serve(&config);
    let arguments = ringside.qemu_args("vm0", &["--one-line", "--memory", "512M", "--qemu", &qemu_version()]);
    if !arguments.contains(",reconnect") {
        return skip(name, &format!("QEMU {} does not come back after a restart of the target", qemu_version()));
    }
    let mut guest = lab.boot(&arguments, "read-on.sh");
    for _ in 0..3 {
        guest.line("READS");
    }
    let ringside = ringside.kill_and_restart();
    until("QEMU is back", SOON, || (ringside.metrics().sum("ringside_session_connected", &[]) == 1.0).then_some(()));
    let reads = || ringside.metrics().sum("ringside_scsi_bytes_total", &[("op", "read")]);
    until("a whole round of reads", SOON, || (reads() >= f64::from(2 << 20)).then_some(()));
    guest.type_line("stop");
    guest.finish();
    ringside.metrics().assert_no_trouble();
    ringside.stop();
}

#[test]
fn real_guest_that_is_idle_lets_every_poller_sleep() {
    let Some(lab) = Lab::enter("real_guest_that_is_idle_lets_every_poller_sleep") else { return };
    let ringside = lab.serve(&one_disk("queues = 2"));
    let mut guest = lab.guest("vm0", "idle.sh").start();
    guest.line("IDLE");
    for core in cores() {
        until("a poller that blocks", SOON, || ringside.blocks(&format!("ringside-p{core}")).then_some(()));
    }
    assert_eq!(ringside.metrics().sum("ringside_session_connected", &[]), 1.0);
    drop(guest);
    ringside.stop();
}
