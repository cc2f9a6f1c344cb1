//! What happens to SPDK's bdevs while they are busy: they fail, they go, the target is killed.

use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::device::{HOTPLUG, Reply};
use tests::live::client::{Client, EVENT, FIRST, Plan, good, read, test_unit_ready, write};
use tests::live::load::{DISK_LEN, Load};
use tests::live::until;

use super::release::{errors_have_a_status, uring_or_aio};
use super::{LUNS_CHANGED, NOT_SUPPORTED, call, ends_silently};
use crate::place::{Place, Process};

pub const TRANSPORT_FAILURE: u8 = 6;

/// SPDK with these bdevs, on pollers on these cores; then controllers, each a name and the bdevs of its LUNs from 0 on.
pub fn configuration(place: &Place, cores: &[usize], bdevs: &Value, controllers: &[(&str, &[&str])]) -> String {
    let json = json!({"subsystems": [
        {"subsystem": "iobuf", "config": [
            {"method": "iobuf_set_options", "params": {"small_pool_count": 1024, "large_pool_count": 128}},
        ]},
        {"subsystem": "bdev", "config": bdevs},
    ]});
    std::fs::write(place.path("spdk.json"), json.to_string()).unwrap();
    let mut text = format!(
        "[metrics]\nlisten = '127.0.0.1:0'\n[reactor]\ncores = {cores:?}\n\
         [spdk]\nconfig = '{{dir}}/spdk.json'\nrpc_socket = '{{dir}}/rpc.sock'\nmemory = '640MiB'\nordinary_memory = true\n"
    );
    for (name, luns) in controllers {
        text += &format!("[[scsi]]\nname = '{name}'\nsocket = '{{dir}}/{name}.sock'\npollers = {cores:?}\n");
        text += "cmd_per_lun = 64\n"; // no more than one ring of the clients holds, of which the target would warn
        for number in 0..luns.len() {
            text += &format!("[[scsi.lun]]\nlun = {number}\nbdev = '{name}-{number}'\n");
        }
        for (number, bdev) in luns.iter().enumerate() {
            text += &format!("[[bdev]]\nname = '{name}-{number}'\nkind = 'spdk'\nbdev = '{bdev}'\n");
        }
    }
    text
}

pub fn method(method: &str, params: Value) -> Value {
    json!({"method": method, "params": params})
}

pub fn malloc(name: &str, mib: u64) -> Value {
    method("bdev_malloc_create", json!({"name": name, "num_blocks": mib << 11, "block_size": 512}))
}

/// A file that is big enough for a neighbour's load and for a verification.
pub fn file(place: &Place, name: &str) -> String {
    let path = place.path(name);
    if !path.exists() {
        std::fs::File::create(&path).unwrap().set_len(8 << 20).unwrap();
    }
    path.to_str().unwrap().to_owned()
}

/// The load generator with verification, on LUN 0 of a controller.
pub fn bench(place: &Place, controller: &str, arguments: &[&str]) -> Child {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_ringside"));
    bench.args(["bench", "scsi", "--rw", "randrw", "--bs", "8k", "--qd", "16", "--verify"]).args(arguments);
    bench.arg("--socket").arg(place.path(&format!("{controller}.sock")));
    bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// It has found no fault.
pub fn passes(bench: Child) {
    let output = bench.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub fn in_flight(process: &Process, controller: &str) -> f64 {
    process.scrape().sum("ringside_scsi_in_flight", &[("controller", controller)])
}

fn one_core() -> Vec<usize> {
    tests::live::rig::cores(1).unwrap()
}

/// NVMe status type and code as the bdev fails with, of reads or of writes, and what the guest is told: SAM status, then sense.
#[test]
fn spdk_bdev_that_fails_says_so_in_sense_data() {
    let place = Place::new();
    let bdevs = json!([malloc("Base", 1), method("bdev_error_create", json!({"base_name": "Base"}))]);
    let process = place.serve(&configuration(&place, &one_core(), &bdevs, &[("vm0", &["EE_Base"])]));
    let mut client = Client::connect(&place.path("vm0.sock"), &Plan::default());
    client.ready(FIRST, 0);
    type Failure = (&'static str, Option<(u16, u16)>, (u8, u8, u8));
    let failures: [Failure; 10] = [
        ("read", None, (0x03, 0x11, 0x00)),             // MEDIUM ERROR, unrecovered read error
        ("write", None, (0x03, 0x0c, 0x00)),            // MEDIUM ERROR, write error
        ("read", Some((2, 0x81)), (0x03, 0x11, 0x00)),  // unrecovered read error
        ("write", Some((2, 0x80)), (0x03, 0x0c, 0x00)), // write fault
        ("read", Some((0, 0x80)), (0x05, 0x21, 0x00)),  // LBA out of range
        ("write", Some((0, 0x81)), (0x07, 0x27, 0x07)), // capacity exceeded: space allocation failed
        ("write", Some((0, 0x20)), (0x07, 0x27, 0x00)), // namespace is write protected
        ("read", Some((0, 0x07)), (0x0b, 0x00, 0x00)),  // abort requested
        ("read", Some((3, 0x71)), (0x0b, 0x00, 0x00)),  // path: host pathing error
        ("read", Some((0, 0x82)), (0x0b, 0x00, 0x00)),  // namespace not ready
    ];
    let every_status = errors_have_a_status();
    for (kind, nvme, sense) in failures.into_iter().filter(|(_, nvme, _)| every_status || nvme.is_none()) {
        let mut params = json!({"name": "EE_Base", "io_type": kind, "error_type": "failure", "num": 1});
        if let Some((status_type, code)) = nvme {
            params["error_type"] = "nvme_failure".into();
            params["nvme_sct"] = status_type.into();
            params["nvme_sc"] = code.into();
        }
        assert_eq!(call(&place, "bdev_error_inject_error", &params), true, "{params}");
        let command = if kind == "read" { read(0, 8, 1) } else { write(0, 8, &[7; 512]) };
        assert_eq!(client.run(FIRST, command).sense(), Some(sense), "{kind} {nvme:x?}");
        good(client.run(FIRST, write(0, 8, &[7; 512])));
        assert_eq!(good(client.run(FIRST, read(0, 8, 1))), [7; 512]);
    }
    ends_silently(process);
}

/// Two queues, kept full, each on a poller of its own if there are two; and a neighbour.
#[test]
fn r22_spdk_bdev_that_goes_under_load_on_two_pollers_loses_no_command() {
    let Some(cores) = tests::live::rig::cores(2) else { return };
    let place = Place::new();
    let slow = json!({
        "name": "Slow", "base_bdev_name": "Below", "avg_read_latency": 500, "p99_read_latency": 1000,
        "avg_write_latency": 500, "p99_write_latency": 1000,
    });
    let bdevs = json!([
        malloc("Below", 1),
        method("bdev_delay_create", slow),
        malloc("Stays", 1),
        malloc("Other", DISK_LEN.div_ceil(1 << 20)),
    ]);
    let controllers: [(&str, &[&str]); 2] = [("vm0", &["Stays", "Slow"]), ("vm1", &["Other"])];
    let mut process = place.serve(&configuration(&place, &cores, &bdevs, &controllers));
    let neighbour = Load::start(place.path("vm1.sock"));
    let second = FIRST + 1;
    let plan = Plan { rings: vec![0, EVENT, FIRST, second], features: HOTPLUG, ..Plan::default() };
    let mut client = Client::connect(&place.path("vm0.sock"), &plan);
    client.post_event_buffers(8);
    client.ready(FIRST, 0);
    client.ready(FIRST, 1);
    let mut told = Told::default();
    let send = |client: &mut Client, told: &mut Told| {
        for queue in [FIRST, second] {
            while client.queue(queue).in_flight() < 12 {
                let block = u32::from(queue) * 16 + told.sent % 16;
                let command = if told.sent.is_multiple_of(2) { read(1, block, 1) } else { write(1, block, &[1; 512]) };
                client.queue(queue).put(command);
                told.sent += 1;
            }
            client.queue(queue).publish();
            told.take(client, queue);
        }
    };
    until("both queues are served", || {
        send(&mut client, &mut told);
        told.good > 200
    });
    let removed = thread::scope(|scope| {
        // Not the delay bdev but the one below it, which takes that one along.
        let removal = scope.spawn(|| call(&place, "bdev_malloc_delete", &json!({"name": "Below"})));
        until("the LUN is gone", || {
            send(&mut client, &mut told);
            told.gone > 100
        });
        removal.join().unwrap()
    });
    assert_eq!(removed, true);
    for queue in [FIRST, second] {
        until("every command has ended", || {
            told.take(&mut client, queue);
            client.queue(queue).in_flight() == 0
        });
    }
    assert_eq!(told.good + told.cut + told.gone, told.sent, "{told:?}");
    assert_eq!(client.wait_event(), (1, [1, 0, 0, 1, 0, 0, 0, 0], 2));
    assert_eq!(client.run(FIRST, test_unit_ready(0)).sense(), Some(LUNS_CHANGED));
    good(client.run(second, read(0, 0, 1)));
    neighbour.progress(100);
    neighbour.finish();
    process.wait_line("the LUN over it is not there");
    ends_silently(process);
}

/// What commands to the LUN have ended with.
#[derive(Debug, Default)]
struct Told {
    sent: u32,
    good: u32,
    /// S_TRANSPORT_FAILURE, or ABORTED COMMAND: they were under way.
    cut: u32,
    /// LOGICAL UNIT NOT SUPPORTED.
    gone: u32,
}

impl Told {
    fn take(&mut self, client: &mut Client, queue: u16) {
        while let Some(reply) = client.queue(queue).take() {
            self.count(&reply);
        }
    }

    fn count(&mut self, reply: &Reply) {
        match reply.sense() {
            _ if reply.code() == TRANSPORT_FAILURE => self.cut += 1,
            None => self.good += 1,
            Some(NOT_SUPPORTED) => self.gone += 1,
            // UNIT ATTENTION of the LUN that stays is for commands to it.
            Some((0x0b, 0x00, 0x00)) => self.cut += 1,
            Some(sense) => panic!("{sense:x?}"),
        }
    }
}

#[test]
fn spdk_target_that_was_killed_under_load_is_followed_by_one_with_the_same_data() {
    let place = Place::new();
    let over_file = |kind: &str, name: &str| {
        let params = json!({"name": name, "filename": file(&place, name), "block_size": 512});
        method(&format!("bdev_{kind}_create"), params)
    };
    let bdevs = json!([over_file("aio", "Aio"), over_file(uring_or_aio(), "Uring"), malloc("Load", 8)]);
    let text = configuration(&place, &one_core(), &bdevs, &[("vm0", &["Aio", "Uring"]), ("vm1", &["Load"])]);
    let data = |lun: u16, lba: u32| vec![(lba * 2) as u8 + lun as u8 + 1; 512];
    let process = place.serve(&text);
    let mut client = Client::connect(&place.path("vm0.sock"), &Plan::default());
    for lun in [0, 1] {
        client.ready(FIRST, lun);
        (0..64).for_each(|lba| drop(good(client.run(FIRST, write(lun, lba, &data(lun, lba))))));
    }
    let busy = bench(&place, "vm1", &["--time", "600"]);
    until("the neighbour is busy", || in_flight(&process, "vm1") > 0.0);
    process.signal(Signal::KILL);
    assert_eq!(process.wait().code(), None);
    assert!(!busy.wait_with_output().unwrap().status.success(), "it says that the target is gone");
    assert!(client.frontend.queue_num().is_err(), "the front-end sees it");

    // Sockets, the lock of SPDK's RPC server and whatever else the dead one has left are no obstacle.
    let process = place.serve(&text);
    assert_eq!(call(&place, "bdev_get_bdevs", &json!({})).as_array().map(Vec::len), Some(3));
    let mut client = Client::connect(&place.path("vm0.sock"), &Plan::default());
    for lun in [0, 1] {
        client.ready(FIRST, lun);
        for lba in 0..64 {
            assert_eq!(good(client.run(FIRST, read(lun, lba, 1))), data(lun, lba), "LUN {lun}, block {lba}");
        }
    }
    drop(client);
    passes(bench(&place, "vm0", &["--number-ios", "500"]));
    ends_silently(process);
}
