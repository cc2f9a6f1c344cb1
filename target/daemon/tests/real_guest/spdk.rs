//! SPDK's bdevs in a guest: file systems and verified I/O on every kind, one that grows, one that goes under load, commands that a
//! bdev keeps, and a target that is killed in the middle of it.

use std::fs::{self, File};

use serde_json::{Value, json};

use crate::guest::{Lab, qemu_version, skip, until};
use crate::release::uring_or_aio;
use crate::remote::Remote;
use crate::rpc;
use crate::{SOON, cores};

/// Bdevs that are served as LUN 0, 1, ... each: what keeps data. The null bdev, which keeps none, is the one that grows.
const KINDS: [&str; 9] = ["Malloc", "Aio", "Uring", "Pass", "Raid", "lvs/lv", "Sp0", "Delay", "EE_BelowError"];

/// The namespace of another machine's target, if there is the program for it; the last of the kinds.
const NVMF: &str = "Remoten1";

fn method(method: &str, params: Value) -> Value {
    json!({"method": method, "params": params})
}

fn malloc(name: &str, mib: u64) -> Value {
    method("bdev_malloc_create", json!({"name": name, "num_blocks": mib << 11, "block_size": 512}))
}

/// A bdev of that kind over a file of its own.
fn over_file(lab: &Lab, kind: &str, name: &str, mib: u64) -> Value {
    let path = lab.path(&format!("{name}.img"));
    File::options().create(true).append(true).open(&path).unwrap().set_len(mib << 20).unwrap();
    method(&format!("bdev_{kind}_create"), json!({"name": name, "filename": path, "block_size": 512}))
}

/// A bdev that takes its time, in microseconds, for everything.
fn delay(name: &str, base: &str, us: u32) -> Value {
    let params = json!({
        "name": name, "base_bdev_name": base, "avg_read_latency": us, "p99_read_latency": us, "avg_write_latency": us,
        "p99_write_latency": us,
    });
    method("bdev_delay_create", params)
}

/// A controller `vm0` with these bdevs as LUNs from 0 on.
fn config(lab: &Lab, bdevs: &Value, served: &[&str]) -> String {
    let json = json!({"subsystems": [
        {"subsystem": "iobuf", "config": [
            method("iobuf_set_options", json!({"small_pool_count": 1024, "large_pool_count": 128})),
        ]},
        {"subsystem": "bdev", "config": bdevs},
    ]});
    fs::write(lab.path("spdk.json"), json.to_string()).unwrap();
    // One poller: it does not sleep, and if there was one on each of two cores the guest would get a turn of either now and then only.
    let cores = &cores()[..1];
    let mut text = format!(
        "[reactor]\ncores = {cores:?}\n\
         [spdk]\nconfig = 'spdk.json'\nrpc_socket = 'rpc.sock'\nmemory = '640MiB'\nordinary_memory = true\n\
         [[scsi]]\nname = 'vm0'\nsocket = 'vm0.sock'\npollers = {cores:?}\nqueues = 2\n"
    );
    for number in 0..served.len() {
        text += &format!("[[scsi.lun]]\nlun = {number}\nbdev = 'd{number}'\n");
    }
    for (number, bdev) in served.iter().enumerate() {
        text += &format!("[[bdev]]\nname = 'd{number}'\nkind = 'spdk'\nbdev = '{bdev}'\n");
    }
    text
}

#[test]
fn real_guest_keeps_files_on_every_kind_of_spdk_bdev_and_loses_one_under_load() {
    let test = "real_guest_keeps_files_on_every_kind_of_spdk_bdev_and_loses_one_under_load";
    let Some(lab) = Lab::enter(test) else { return };
    let lvol = json!({"lvs_name": "lvs", "lvol_name": "lv", "size_in_mib": 16, "thin_provision": true});
    let remote = Remote::start(test, &lab.path(""), 16 << 20, 0);
    let kinds: Vec<&str> = KINDS.into_iter().chain(remote.as_ref().map(|_| NVMF)).collect();
    let mut bdevs = json!([
        malloc("Malloc", 16),
        over_file(&lab, "aio", "Aio", 16),
        over_file(&lab, uring_or_aio(), "Uring", 16),
        malloc("BelowDelay", 16),
        delay("Delay", "BelowDelay", 500),
        malloc("BelowError", 16),
        method("bdev_error_create", json!({"base_name": "BelowError"})),
        malloc("BelowPass", 16),
        method("bdev_passthru_create", json!({"name": "Pass", "base_bdev_name": "BelowPass"})),
        malloc("R0", 8),
        malloc("R1", 8),
        method(
            "bdev_raid_create",
            json!({"name": "Raid", "raid_level": "raid0", "strip_size_kb": 64, "base_bdevs": ["R0", "R1"]})
        ),
        over_file(&lab, "aio", "BelowLvol", 32),
        method("bdev_lvol_create_lvstore", json!({"bdev_name": "BelowLvol", "lvs_name": "lvs", "cluster_sz": 1 << 20})),
        method("bdev_lvol_create", lvol),
        malloc("S", 32),
        method("bdev_split_create", json!({"base_bdev": "S", "split_count": 2})),
        method("bdev_null_create", json!({"name": "Grows", "num_blocks": 16 << 11, "block_size": 512})),
        malloc("Goes", 8),
    ]);
    let attach = remote.as_ref().map(|remote| remote.attach(&json!({})));
    bdevs.as_array_mut().unwrap().extend(attach);
    let served = [&kinds[..], &["Grows", "Goes"]].concat();
    let ringside = lab.serve(&config(&lab, &bdevs, &served));
    let disks: Vec<String> = (0..kinds.len()).map(|number| format!("0:{number}")).collect();
    let (grows, goes) = (kinds.len(), kinds.len() + 1);
    let guest = lab.guest("vm0", "kinds.sh").with_fio().cpus(2).env("DISKS", disks.join(" "));
    let guest = guest.env("GROWS", format!("0:{grows}")).env("GROWS_TO", 24 << 20);
    let mut guest = guest.env("GOES", format!("0:{goes}")).start();
    let call = |method: &str, params: Value| rpc::call(&lab.path("rpc.sock"), method, &params)["result"].clone();
    assert_eq!(guest.line("SIZE"), (16 << 20).to_string());
    assert_eq!(call("bdev_null_resize", json!({"name": "Grows", "new_size": 24})), true);
    guest.line("BUSY");
    let lun = [("lun", &*goes.to_string())];
    let done = || ringside.metrics().sum("ringside_scsi_bytes_total", &lun) > f64::from(1 << 20);
    until("the load on the LUN that goes", SOON, || done().then_some(()));
    assert_eq!(call("bdev_malloc_delete", json!({"name": "Goes"})), true);
    guest.line("GONE");
    let console = guest.finish();
    for disk in &disks {
        assert!(console.contains(&format!("VERIFIED {disk}")), "disk {disk}");
    }
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    for number in 0..kinds.len() {
        assert_eq!(metrics.sum("ringside_bdev_errors_total", &[("bdev", &format!("d{number}"))]), 0.0, "d{number}");
    }
    ringside.stop();
}

#[test]
fn real_guest_that_resets_its_disk_gets_commands_back_that_spdk_keeps() {
    let Some(lab) = Lab::enter("real_guest_that_resets_its_disk_gets_commands_back_that_spdk_keeps") else { return };
    let bdevs = json!([malloc("Below", 8), method("bdev_error_create", json!({"base_name": "Below"}))]);
    let ringside = lab.serve(&config(&lab, &bdevs, &["EE_Below"]));
    let mut guest = lab.guest("vm0", "reset-kept.sh").start();
    guest.line("ready");
    let keep = json!({"name": "EE_Below", "io_type": "write", "error_type": "pending", "num": 1});
    assert_eq!(rpc::call(&lab.path("rpc.sock"), "bdev_error_inject_error", &keep)["result"], true);
    guest.type_line("write");
    guest.line("KEPT");
    let in_flight = || ringside.metrics().sum("ringside_scsi_in_flight", &[]) == 1.0;
    until("SPDK keeps the write", SOON, || in_flight().then_some(()));
    guest.type_line("reset");
    guest.line("RESET");
    guest.finish();
    assert_eq!(ringside.metrics().sum("ringside_bdev_requests_total", &[("op", "reset")]), 1.0);
    ringside.stop();
}

#[test]
fn real_guest_resets_an_spdk_bdev_under_load_and_loses_nothing() {
    let Some(lab) = Lab::enter("real_guest_resets_an_spdk_bdev_under_load_and_loses_nothing") else { return };
    let bdevs = json!([malloc("Below", 64), delay("Delay", "Below", 20_000)]);
    let ringside = lab.serve(&config(&lab, &bdevs, &["Delay"]));
    lab.guest("vm0", "reset-under-load.sh").with_fio().cpus(2).env("RESETS", 5).run();
    let metrics = ringside.metrics();
    // Of the five, those that found commands in flight: as good as all of them.
    assert!(metrics.sum("ringside_bdev_requests_total", &[("op", "reset")]) > 0.0);
    assert!(metrics.sum("ringside_scsi_responses_total", &[("response", "reset")]) > 0.0);
    ringside.stop();
}

#[test]
fn real_guest_writes_on_spdk_bdevs_after_the_target_was_killed_and_restarted() {
    let name = "real_guest_writes_on_spdk_bdevs_after_the_target_was_killed_and_restarted";
    let Some(lab) = Lab::enter(name) else { return };
    let bdevs = json!([over_file(&lab, "aio", "Aio", 16), over_file(&lab, uring_or_aio(), "Uring", 16)]);
    let mut ringside = lab.serve(&config(&lab, &bdevs, &["Aio", "Uring"]));
    let arguments = ringside.qemu_args("vm0", &["--one-line", "--memory", "512M", "--qemu", &qemu_version()]);
    if !arguments.contains(",reconnect") {
        return skip(name, &format!("QEMU {} does not come back after a restart of the target", qemu_version()));
    }
    let mut guest = lab.direct(&arguments, "write-on.sh").env("DISKS", "0:0 0:1").start();
    guest.line("ROUND");
    for _ in 0..2 {
        let in_flight = || ringside.metrics().sum("ringside_scsi_in_flight", &[]) > 0.0;
        until("a command in flight", SOON, || in_flight().then_some(()));
        ringside = ringside.kill_and_restart();
        let connected = || ringside.metrics().sum("ringside_session_connected", &[]) == 1.0;
        until("QEMU is back", SOON, || connected().then_some(()));
        let written = || ringside.metrics().sum("ringside_scsi_bytes_total", &[("op", "write")]);
        until("a whole round", SOON, || (written() >= f64::from(4 << 20)).then_some(()));
    }
    guest.type_line("stop");
    guest.finish();
    ringside.metrics().assert_no_trouble();
    ringside.stop();
}
