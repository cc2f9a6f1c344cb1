//! SPDK's configuration in ours.

use std::fs;

use serde_json::json;
use tests::live::client::{FIRST, good, read};

use super::{ends_silently, keeps_every_byte};
use crate::place::Place;
use crate::reload::connect;

/// A target whose bdevs are these calls; LUN n is the nth of the named ones.
fn configuration(config: &str, calls: &[&str], served: &[&str]) -> String {
    let mut text = format!(
        "[metrics]\nlisten = '127.0.0.1:0'\n[reactor]\ncores = [{core}]\n\
         [spdk]\n{config}memory = '640MiB'\nordinary_memory = true\n",
        core = tests::live::rig::cores(1).unwrap()[0]
    );
    calls.iter().for_each(|call| text += &format!("[[spdk.call]]\n{call}\n"));
    text += "[[scsi]]\nname = 'vm0'\nsocket = '{dir}/vm0.sock'\n";
    for (number, bdev) in served.iter().enumerate() {
        text += &format!("[[scsi.lun]]\nlun = {number}\nbdev = 'd{number}'\n");
        text += &format!("[[bdev]]\nname = 'd{number}'\nkind = 'spdk'\nbdev = '{bdev}'\n");
    }
    text
}

const POOLS: &str = "method = 'iobuf_set_options'\nparams = { small_pool_count = 1024, large_pool_count = 128 }";
const MALLOC: &str =
    "method = 'bdev_malloc_create'\nparams = { name = 'Malloc0', num_blocks = 16384, block_size = 512 }";
const PASSTHRU: &str = "method = 'bdev_passthru_create'\nparams = { name = 'Pass0', base_bdev_name = 'FromFile0' }";

#[test]
fn spdk_bdevs_of_the_configuration_file_itself_keep_every_byte() {
    let place = Place::new();
    let process = place.serve(&configuration("", &[POOLS, MALLOC], &["Malloc0"]));
    keeps_every_byte(&place, 0);
    ends_silently(process);
}

#[test]
fn spdk_bdevs_of_the_configuration_may_stand_on_those_of_the_json_file() {
    let place = Place::new();
    let malloc = json!({"name": "FromFile0", "num_blocks": 4096, "block_size": 512});
    let file = json!({"subsystems": [
        {"subsystem": "bdev", "config": [{"method": "bdev_malloc_create", "params": malloc}]},
    ]});
    fs::write(place.path("spdk.json"), file.to_string()).unwrap();
    let config = "config = '{dir}/spdk.json'\n";
    let process = place.serve(&configuration(config, &[POOLS, MALLOC, PASSTHRU], &["Malloc0", "Pass0"]));
    let mut client = connect(&place);
    client.ready(FIRST, 1);
    good(client.run(FIRST, read(0, 16383, 1)));
    good(client.run(FIRST, read(1, 4095, 1)));
    ends_silently(process);
}

#[test]
fn call_that_spdk_refuses_is_named_with_its_parameters_and_spdks_reason() {
    let place = Place::new();
    let odd = MALLOC.replace("block_size = 512", "block_size = 500");
    for (call, named, reason) in [
        (
            &*odd,
            "spdk: call[1], \"bdev_malloc_create\" with {\"block_size\":500,\"name\":\"Malloc0\",\"num_blocks\":16384}: ",
            "Data block size must be 512 bytes aligned",
        ),
        (
            "method = 'bdev_nonsense'",
            "spdk: call[1], \"bdev_nonsense\" with {}: ",
            "Method 'bdev_nonsense' was not found",
        ),
        (
            "method = 'bdev_null_create'\nparams = { name = 'N' }",
            "spdk: call[1], \"bdev_null_create\" with {\"name\":\"N\"}: ",
            "spdk_json_decode_object failed",
        ),
    ] {
        let output = place.fails(&configuration("", &[POOLS, call], &[]));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(named) && stderr.contains(reason), "no {named} {reason} in {stderr}");
    }
}
