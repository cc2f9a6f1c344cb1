//! SPDK's bdevs behind the built program: every byte of each kind, what happens to them by themselves, and the end. Without huge
//! pages, devices or privileges; SPDK's own behaviour is not tested here.

mod awaited;
#[cfg(feature = "dpdk")]
mod both;
mod client;
mod held;
mod inline;
mod load;
mod nvmf;
mod release;
#[path = "../../../../bindings/spdk-rs/tests/lab/rpc.rs"]
mod rpc;

use std::fs;
use std::process::Command;
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::live::client::{FIRST, good, read, test_unit_ready, write};
use tests::live::until;

use crate::place::{Place, Process};
use crate::reload::connect;

const CAPACITY_CHANGED: (u8, u8, u8) = (0x06, 0x2a, 0x09);
const LUNS_CHANGED: (u8, u8, u8) = (0x06, 0x3f, 0x0e);
const NOT_SUPPORTED: (u8, u8, u8) = (0x05, 0x25, 0x00);

/// Each kind of bdev that needs nothing but this machine and keeps data (the null bdev keeps none, see below; NVMe-oF is in `nvmf`),
/// and how it is made. Those below others are not served.
const SERVED: [&str; 11] = [
    "Malloc512",
    "Malloc4096",
    "Aio0",
    "Uring0",
    "Pass0",
    "Raid0",
    "lvs0/lv0",
    "Delay0",
    "EE_MallocE",
    "MallocSp0",
    "MallocSp1",
];

fn bdevs(place: &Place) -> Value {
    let method = |method: &str, params: Value| json!({"method": method, "params": params});
    let malloc = |name: &str, mib: u64, block_size: u64| {
        let blocks = (mib << 20) / block_size;
        method("bdev_malloc_create", json!({"name": name, "num_blocks": blocks, "block_size": block_size}))
    };
    let file = |name: &str| {
        let path = place.path(name);
        fs::File::create(&path).unwrap().set_len(8 << 20).unwrap();
        path
    };
    json!([
        method("bdev_set_options", json!({"bdev_io_pool_size": 8191, "bdev_io_cache_size": 128})),
        malloc("Malloc512", 8, 512),
        malloc("Malloc4096", 8, 4096),
        malloc("MallocP", 8, 512),
        malloc("MallocR0", 8, 512),
        malloc("MallocR1", 8, 512),
        malloc("MallocL", 32, 512),
        malloc("MallocD", 8, 512),
        malloc("MallocE", 8, 512),
        malloc("MallocS", 16, 512),
        method("bdev_aio_create", json!({"name": "Aio0", "filename": file("aio"), "block_size": 512})),
        method(
            &format!("bdev_{}_create", release::uring_or_aio()),
            json!({"name": "Uring0", "filename": file("uring"), "block_size": 512})
        ),
        method("bdev_passthru_create", json!({"name": "Pass0", "base_bdev_name": "MallocP"})),
        method(
            "bdev_raid_create",
            json!({
                "name": "Raid0", "raid_level": "raid0", "strip_size_kb": 64, "base_bdevs": ["MallocR0", "MallocR1"],
            })
        ),
        method("bdev_lvol_create_lvstore", json!({"bdev_name": "MallocL", "lvs_name": "lvs0", "cluster_sz": 1 << 20})),
        method(
            "bdev_lvol_create",
            json!({
                "lvs_name": "lvs0", "lvol_name": "lv0", "size_in_mib": 8, "thin_provision": true,
            })
        ),
        method(
            "bdev_delay_create",
            json!({
                "name": "Delay0", "base_bdev_name": "MallocD", "avg_read_latency": 100, "p99_read_latency": 200,
                "avg_write_latency": 100, "p99_write_latency": 200,
            })
        ),
        method("bdev_error_create", json!({"base_name": "MallocE"})),
        method("bdev_split_create", json!({"base_bdev": "MallocS", "split_count": 2})),
        method("bdev_null_create", json!({"name": "Null0", "num_blocks": 2048, "block_size": 512})),
    ])
}

/// A target with these bdevs as LUNs, from 0 on.
fn configuration(place: &Place, served: &[&str]) -> String {
    let json = json!({"subsystems": [
        {"subsystem": "iobuf", "config": [
            {"method": "iobuf_set_options", "params": {"small_pool_count": 1024, "large_pool_count": 128}},
        ]},
        {"subsystem": "bdev", "config": bdevs(place)},
    ]});
    fs::write(place.path("spdk.json"), json.to_string()).unwrap();
    target("config = '{dir}/spdk.json'\nrpc_socket = '{dir}/rpc.sock'\n", served)
}

/// A target with these keys, or tables, of `[spdk]` beside its memory, and with these bdevs as LUNs, from 0 on.
fn target(spdk: &str, served: &[&str]) -> String {
    let mut text = format!(
        "[metrics]\nlisten = '127.0.0.1:0'\n[reactor]\ncores = [{core}]\n\
         [spdk]\nmemory = '640MiB'\nordinary_memory = true\n{spdk}\
         [[scsi]]\nname = 'vm0'\nsocket = '{{dir}}/vm0.sock'\npollers = [{core}]\n",
        core = tests::live::rig::cores(1).unwrap()[0]
    );
    for (number, bdev) in served.iter().enumerate() {
        text += &format!("[[scsi.lun]]\nlun = {number}\nbdev = 'd{number}'\n");
        text += &format!("[[bdev]]\nname = 'd{number}'\nkind = 'spdk'\nbdev = '{bdev}'\n");
    }
    text
}

fn call(place: &Place, method: &str, params: &Value) -> Value {
    rpc::call(&place.path("rpc.sock"), method, params)["result"].clone()
}

/// A LUN, all of it.
fn keeps_every_byte(place: &Place, lun: usize) {
    bench(place, lun, &["--verify"]);
}

fn bench(place: &Place, lun: usize, arguments: &[&str]) {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_ringside"));
    bench.args(["bench", "scsi", "--rw", "randrw", "--bs", "8k", "--qd", "16", "--number-ios", "1000"]).args(arguments);
    bench.args(["--lun", &lun.to_string(), "--socket"]).arg(place.path("vm0.sock"));
    let output = bench.output().unwrap();
    assert!(output.status.success(), "LUN {lun}: {}", String::from_utf8_lossy(&output.stderr));
}

/// It ends by itself, and SPDK has nothing to complain of.
fn ends_silently(mut process: Process) {
    process.signal(Signal::TERM);
    let lines = process.lines_until("drained");
    assert_eq!(process.wait().code(), Some(0));
    let is_complaint = |line: &&String| line.contains("ERROR") || line.contains("WARN");
    let copied = |line: &String| line.contains("SPDK does not take a guest's memory") && !release::takes_small_memory();
    let complaints: Vec<_> = lines.iter().filter(is_complaint).filter(|line| !copied(line)).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn spdk_bdevs_of_every_kind_keep_every_byte() {
    let place = Place::new();
    let served = [&SERVED[..], &["Null0"]].concat();
    let process = place.serve(&configuration(&place, &served));
    (0..SERVED.len()).for_each(|number| keeps_every_byte(&place, number));
    bench(&place, SERVED.len(), &[]); // reads of the null bdev leave the guest's buffers as they are: there is nothing to verify
    let metrics = process.scrape();
    for (number, bdev) in served.iter().enumerate() {
        let label = ("bdev", &*format!("d{number}"));
        let ways = ["direct", "bounced", "lent"];
        let [direct, bounced, lent] = ways.map(|way| metrics.sum(&format!("ringside_bdev_spdk_{way}_total"), &[label]));
        assert!(direct + bounced + lent >= 500.0, "{bdev}: {direct}, {bounced}, {lent}");
        // What stands on a malloc bdev has reads and writes of its own.
        assert_eq!(lent > 0.0, ["Malloc512", "Malloc4096"].contains(bdev), "{bdev}: {lent} lent");
    }
    ends_silently(process);
}

#[test]
fn r22_spdk_bdev_that_is_taken_away_takes_its_lun_along() {
    let place = Place::new();
    let text = configuration(&place, &["Malloc512", "Malloc4096"]);
    let mut process = place.serve(&text.replace("'Malloc4096'", "'Malloc4096'\nmissing = 'fail'"));
    let mut client = connect(&place);
    good(client.run(FIRST, write(0, 9, &[5; 512])));
    client.ready(FIRST, 1);
    // SPDK answers when the last of those who have it has let go.
    let removed = thread::scope(|scope| {
        let removal = scope.spawn(|| call(&place, "bdev_malloc_delete", &json!({"name": "Malloc4096"})));
        assert_eq!(client.wait_event(), (1, [1, 0, 0, 1, 0, 0, 0, 0], 2));
        removal.join().unwrap()
    });
    assert_eq!(removed, true);
    assert_eq!(client.run(FIRST, test_unit_ready(1)).sense(), Some(NOT_SUPPORTED));
    assert_eq!(client.run(FIRST, test_unit_ready(0)).sense(), Some(LUNS_CHANGED));
    assert_eq!(good(client.run(FIRST, read(0, 9, 1))), [5; 512]);
    until("its metrics are gone", || process.scrape().families["ringside_bdev_info"].samples.len() == 1);
    // It is as if it had not been configured: as long as SPDK has none, the file cannot be put in force; then it can.
    process.signal(Signal::HUP);
    let said = process.wait_line("SIGHUP: ");
    assert!(said.contains("nothing is changed: bdev \"d1\": SPDK has no bdev \"Malloc4096\""), "{said}");
    let again = json!({"name": "Malloc4096", "num_blocks": 512, "block_size": 4096});
    assert_eq!(call(&place, "bdev_malloc_create", &again), "Malloc4096");
    process.signal(Signal::HUP);
    let said = process.wait_line("SIGHUP: ");
    assert!(said.contains("1 LUNs added, 0 removed"), "{said}");
    assert_eq!(client.wait_event(), (1, [1, 0, 0, 1, 0, 0, 0, 0], 1));
    client.ready(FIRST, 1);
    ends_silently(process);
}

#[test]
fn r18_spdk_bdev_that_is_resized_gives_its_lun_another_capacity() {
    let place = Place::new();
    let process = place.serve(&configuration(&place, &["Null0"]));
    let mut client = connect(&place);
    assert!(client.run(FIRST, read(0, 2048, 1)).sense().is_some());
    assert_eq!(call(&place, "bdev_null_resize", &json!({"name": "Null0", "new_size": 2})), true);
    until("the guest is told", || client.run(FIRST, test_unit_ready(0)).sense() == Some(CAPACITY_CHANGED));
    good(client.run(FIRST, read(0, 4095, 1)));
    assert!(client.run(FIRST, read(0, 4096, 1)).sense().is_some());
    assert_eq!(process.scrape().sum("ringside_bdev_size_bytes", &[("bdev", "d0")]), f64::from(2 << 20));
    ends_silently(process);
}

#[test]
fn spdk_that_does_not_start_ends_the_start_with_its_reason() {
    let place = Place::new();
    let text = configuration(&place, &["Malloc512"]);
    for (from, to, reason) in [
        ("'Malloc512'", "'Nowhere'\nmissing = 'fail'", "SPDK has no bdev \"Nowhere\""),
        ("spdk.json", "missing.json", "spdk: config \""),
    ] {
        let output = place.fails(&text.replace(from, to));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(reason), "no {reason:?} in {stderr}");
    }
}
