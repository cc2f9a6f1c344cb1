//! SPDK's own client against a serving target: what SPDK_RPC names (the `scripts/rpc.py` of that SPDK), or `spdk-rpc` of PyPI. Without
//! it (`scripts/setup.sh --only spdk-client`) these tests say SKIPPED and succeed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use serde_json::Value;
use tests::live::client::{FIRST, good, read, test_unit_ready};

use super::release::saves_for_newer_clients;
use super::{NOT_SUPPORTED, ends_silently, target};
use crate::place::{Place, Process};
use crate::reload::connect;

/// The client, on the socket of a place.
struct Client<'p> {
    program: PathBuf,
    place: &'p Place,
}

impl<'p> Client<'p> {
    fn new(test: &str, place: &'p Place) -> Option<Client<'p>> {
        let newest = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.build/spdk-client/bin/spdk-rpc");
        let program = own_client().unwrap_or_else(newest);
        if !program.exists() {
            // Not by `eprintln!`: the test harness would keep the line to itself.
            let line = format!("SKIPPED: {test}: no .build/spdk-client (scripts/setup.sh --only spdk-client)\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            return None;
        }
        Some(Client { program, place })
    }

    fn run(&self, arguments: &str) -> Output {
        let mut command = Command::new(&self.program);
        command.arg("-s").arg(self.place.path("rpc.sock")).args(arguments.split(' ')).output().unwrap()
    }

    /// What it prints of an answer.
    fn says(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What it prints of an error.
    fn complains(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments}: {output:?}");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }
}

/// The client of the same release as the SPDK in the program.
fn own_client() -> Option<PathBuf> {
    env::var_os("SPDK_RPC").map(PathBuf::from)
}

/// A target with a LUN over a malloc bdev that is not there, and one over a bdev over another one.
fn serve(place: &Place, spdk: &str) -> Process {
    place.serve(&target(&format!("{spdk}rpc_socket = '{{dir}}/rpc.sock'\n"), &["Malloc0", "Pass0"]))
}

/// In the place of the defaults, which want more memory than a test has.
const POOLS: &str =
    "call = [{ method = 'iobuf_set_options', params = { small_pool_count = 1024, large_pool_count = 128 } }]\n";

#[test]
fn spdk_client_makes_bdevs_and_takes_them_away_and_what_it_saves_can_be_started_with() {
    let test = "spdk_client_makes_bdevs_and_takes_them_away_and_what_it_saves_can_be_started_with";
    let place = Place::new();
    let Some(client) = Client::new(test, &place) else { return };
    let mut process = serve(&place, POOLS);
    client.says("framework_wait_init");
    assert_eq!(client.says("bdev_malloc_create -b Malloc0 8 512"), "Malloc0");
    assert_eq!(client.says("bdev_malloc_create -b Malloc1 4 4096"), "Malloc1");
    assert_eq!(client.says("bdev_passthru_create -b Malloc1 -p Pass0"), "Pass0");
    for _ in 0..2 {
        process.wait_line("SPDK has the bdev that was waited for");
    }
    let mut guest = connect(&place);
    guest.ready(FIRST, 1);
    good(guest.run(FIRST, read(0, 16383, 1)));
    let bdevs: Value = serde_json::from_str(&client.says("bdev_get_bdevs -b Malloc0")).unwrap();
    assert_eq!((bdevs[0]["num_blocks"].as_u64(), bdevs[0]["block_size"].as_u64()), (Some(16384), Some(512)));
    let can_save = own_client().is_some() || saves_for_newer_clients();
    let saved = can_save.then(|| client.says("save_config"));
    client.says("bdev_passthru_delete Pass0");
    assert_eq!(guest.wait_event(), (1, [1, 0, 0, 1, 0, 0, 0, 0], 2));
    assert_eq!(guest.run(FIRST, test_unit_ready(1)).sense(), Some(NOT_SUPPORTED));
    process.wait_line("SPDK has no bdev \"Pass0\"");
    drop(guest);
    ends_silently(process);

    let Some(saved) = saved else { return };
    fs::write(place.path("spdk.json"), saved).unwrap();
    let process = serve(&place, "config = '{dir}/spdk.json'\n");
    let mut guest = connect(&place);
    guest.ready(FIRST, 1);
    drop(guest);
    ends_silently(process);
}

#[test]
fn spdk_client_says_what_spdk_logs_and_gets_no_methods_of_reactors() {
    let test = "spdk_client_says_what_spdk_logs_and_gets_no_methods_of_reactors";
    let place = Place::new();
    let Some(client) = Client::new(test, &place) else { return };
    let mut process = serve(&place, POOLS);
    assert_eq!(client.says("log_get_print_level"), "\"NOTICE\"");
    client.says("bdev_malloc_create -b Malloc0 8 512");
    process.wait_line("SPDK has the bdev that was waited for");
    let look_for = |bdev: &str| client.complains(&format!("bdev_null_delete {bdev}"));
    look_for("First");
    process.wait_line("unable to find bdev with name: First");
    client.says("log_set_print_level ERROR");
    client.says("log_set_level ERROR");
    look_for("Second");
    client.says("log_set_print_level NOTICE");
    look_for("Third");
    let lines = process.lines_until("unable to find bdev with name: Third");
    assert!(!lines.iter().any(|line| line.contains("unable to find bdev with name: Second")), "{lines:#?}");
    process.wait_line("Failed to open bdev with name: Third"); // an error of SPDK's: no complaint at the end
    for method in ["framework_get_reactors", "thread_get_stats", "framework_get_scheduler"] {
        let complaint = client.complains(method);
        assert!(complaint.contains("Method not found"), "{method}: {complaint}");
    }
    ends_silently(process);
}
