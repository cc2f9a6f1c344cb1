//! Namespaces of another machine, as far as one machine can show it: NVMe-oF over TCP, on an address of the loopback network, from
//! SPDK's own target in a process of its own, which dies.
//!
//! That program is `nvmf_tgt` in PATH, or what NVMF_TGT names. Without it these tests say SKIPPED and succeed.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::{env, fs};

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::device::HOTPLUG;
use tests::live::client::{Client, EVENT, FIRST, Plan, good, read, test_unit_ready, write};
use tests::live::load::Load;
use tests::live::until;

use super::load::{TRANSPORT_FAILURE, bench, configuration, file, in_flight, malloc, method, passes};
use super::{LUNS_CHANGED, NOT_SUPPORTED};
use crate::place::Place;

const NQN: &str = "nqn.2026-01.test:ringside";
const PORT: u16 = 4420;

/// SPDK's NVMe-oF target with one namespace on a file. Killed when dropped.
struct Remote {
    program: PathBuf,
    place: PathBuf,
    address: String,
    child: Child,
}

impl Remote {
    /// Starts it; `None`, which is said, if there is no such program. Writes take `write_us`.
    fn start(test: &str, place: &Place, write_us: u32) -> Option<Remote> {
        let Some(program) = program() else {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: no nvmf_tgt in PATH, nor NVMF_TGT");
            return None;
        };
        // One of 2^22 addresses, so that tests of other processes have others.
        let [_, a, b, c] = (std::process::id() << 2 | 1).to_be_bytes();
        let address = format!("127.{a}.{b}.{c}");
        fs::write(place.path("remote.json"), remote_configuration(place, &address, write_us).to_string()).unwrap();
        let folder = place.path("");
        let child = spawn(&program, &folder);
        let remote = Remote { program, place: folder, address, child };
        remote.wait_ready();
        Some(remote)
    }

    /// Until it listens.
    fn wait_ready(&self) {
        until("the NVMe-oF target listens", || TcpStream::connect((self.address.as_str(), PORT)).is_ok());
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = spawn(&self.program, &self.place);
        self.wait_ready();
    }

    /// How SPDK's initiator is to use it, and what it is to do when the way to it is lost.
    fn attach(&self, loss: &Value) -> Value {
        let mut params = json!({
            "name": "Remote", "trtype": "TCP", "adrfam": "IPv4", "traddr": self.address, "trsvcid": PORT.to_string(),
            "subnqn": NQN,
        });
        params.as_object_mut().unwrap().extend(loss.as_object().unwrap().clone());
        method("bdev_nvme_attach_controller", params)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The test harness shows it if the test fails.
        let said = fs::read_to_string(self.place.join("remote.log")).unwrap_or_default();
        eprintln!("--- all that nvmf_tgt said:\n{said}");
    }
}

fn program() -> Option<PathBuf> {
    let named = env::var_os("NVMF_TGT").map(PathBuf::from);
    let paths = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&paths).map(|folder| folder.join("nvmf_tgt"));
    named.into_iter().chain(found).find(|path| path.exists())
}

fn spawn(program: &Path, folder: &Path) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("remote.log")).unwrap();
    let core = format!("[{}]", tests::live::rig::cores(1).unwrap()[0]);
    let mut command = Command::new(program);
    command.args(["-m", &core, "-s", "256", "--no-huge", "-u", "--disable-cpumask-locks"]);
    command.args(["--msg-mempool-size", "8191", "--num-trace-entries", "0", "-r", "remote.sock", "-c", "remote.json"]);
    command.current_dir(folder).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn remote_configuration(place: &Place, address: &str, write_us: u32) -> Value {
    let aio = json!({"name": "Aio", "filename": file(place, "namespace"), "block_size": 512});
    let slow = write_us > 0;
    let delay = json!({
        "name": "Slow", "base_bdev_name": "Aio", "avg_read_latency": 0, "p99_read_latency": 0,
        "avg_write_latency": write_us, "p99_write_latency": write_us,
    });
    let host = json!({"nqn": NQN, "allow_any_host": true});
    // The same namespace after a restart: an initiator looks at its name.
    let namespace = json!({"bdev_name": if slow { "Slow" } else { "Aio" }, "nsid": 1, "uuid": "7b7c5a0e-3f1c-4e3a-9f57-2f6c1d0f8a11"});
    let listen = json!({"trtype": "TCP", "adrfam": "IPv4", "traddr": address, "trsvcid": PORT.to_string()});
    let bdevs = [method("bdev_aio_create", aio)].into_iter().chain(slow.then(|| method("bdev_delay_create", delay)));
    json!({"subsystems": [
        {"subsystem": "iobuf", "config": [
            method("iobuf_set_options", json!({"small_pool_count": 1024, "large_pool_count": 128})),
        ]},
        {"subsystem": "bdev", "config": bdevs.collect::<Vec<_>>()},
        {"subsystem": "nvmf", "config": [
            method("nvmf_create_transport", json!({"trtype": "TCP"})),
            method("nvmf_create_subsystem", host),
            method("nvmf_subsystem_add_ns", json!({"nqn": NQN, "namespace": namespace})),
            method("nvmf_subsystem_add_listener", json!({"nqn": NQN, "listen_address": listen})),
        ]},
    ]})
}

fn cores() -> Vec<usize> {
    tests::live::rig::cores(1).unwrap()
}

#[test]
fn spdk_nvme_over_tcp_keeps_every_byte_and_holds_commands_until_its_target_is_back() {
    let place = Place::new();
    let test = "spdk_nvme_over_tcp_keeps_every_byte_and_holds_commands_until_its_target_is_back";
    let Some(mut remote) = Remote::start(test, &place, 0) else { return };
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
    let Some(mut remote) = Remote::start(test, &place, 60_000_000) else { return };
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
