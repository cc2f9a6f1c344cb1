//! Commands that one of SPDK's bdevs keeps for as long as it likes, and the functions that end them.

use serde_json::json;
use tests::live::client::{ABORT_TASK, Client, FIRST, LOGICAL_UNIT_RESET, Plan, good, read, write};
use tests::live::load::{DISK_LEN, Load};
use tests::live::until;

use super::load::{configuration, in_flight, malloc, method};
use super::{call, ends_silently};
use crate::place::Place;

const ABORTED: u8 = 2;
const RESET: u8 = 4;
const COMPLETE: u8 = 0;
const RESET_OCCURRED: (u8, u8, u8) = (0x06, 0x29, 0x03);

/// On two queues, each on a poller of its own if there are two. The neighbour on the same pollers does not notice.
#[test]
fn r07_lun_reset_ends_commands_that_spdk_would_keep_for_ever() {
    let Some(cores) = tests::live::rig::cores(2) else { return };
    let place = Place::new();
    let bdevs = json!([
        malloc("Base", 1),
        method("bdev_error_create", json!({"base_name": "Base"})),
        malloc("Other", DISK_LEN.div_ceil(1 << 20)),
    ]);
    let controllers: [(&str, &[&str]); 2] = [("vm0", &["EE_Base"]), ("vm1", &["Other"])];
    let process = place.serve(&configuration(&place, &cores, &bdevs, &controllers));
    let neighbour = Load::start(place.path("vm1.sock"));
    let mut client = Client::connect(&place.path("vm0.sock"), &Plan::queues(2));
    let queues = [FIRST, FIRST + 1];
    client.ready(FIRST, 0);
    for round in 1..=3 {
        let keep = json!({"name": "EE_Base", "io_type": "write", "error_type": "pending", "num": 6});
        assert_eq!(call(&place, "bdev_error_inject_error", &keep), true);
        let sent = [0, 1, 2].map(|lba| queues.map(|queue| client.send(queue, write(0, lba, &[round; 512]))));
        until("SPDK keeps them", || in_flight(&process, "vm0") == 6.0);
        neighbour.progress(10);
        let function = client.send_tmf(LOGICAL_UNIT_RESET, 0, 0);
        assert_eq!(client.queue(0).wait_for(function).byte(), COMPLETE);
        for (queue, token) in sent.into_iter().flat_map(|sent| queues.into_iter().zip(sent)) {
            assert_eq!(client.queue(queue).wait_for(token).code(), RESET);
        }
        assert_eq!(client.run(FIRST, read(0, 0, 1)).sense(), Some(RESET_OCCURRED));
        assert_eq!(good(client.run(FIRST, read(0, 0, 1))), [0; 512], "none was written");
        let count = process.scrape().sum("ringside_bdev_requests_total", &[("bdev", "vm0-0"), ("op", "reset")]);
        assert_eq!(count, f64::from(round), "one for each function");
    }
    neighbour.progress(10);
    neighbour.finish();
    ends_silently(process);
}

#[test]
fn r07_abort_ends_the_one_command_that_spdk_would_keep_for_long() {
    let place = Place::new();
    let slow = json!({
        "name": "Slow", "base_bdev_name": "Base", "avg_read_latency": 0, "p99_read_latency": 0,
        "avg_write_latency": 3_600_000_000u64, "p99_write_latency": 3_600_000_000u64,
    });
    let bdevs = json!([malloc("Base", 1), method("bdev_delay_create", slow)]);
    let cores = tests::live::rig::cores(1).unwrap();
    let process = place.serve(&configuration(&place, &cores, &bdevs, &[("vm0", &["Slow"])]));
    let mut client = Client::connect(&place.path("vm0.sock"), &Plan::default());
    client.ready(FIRST, 0);
    let sent = [1, 2, 3].map(|lba| client.send(FIRST, write(0, lba, &[1; 512]).tag(u64::from(lba))));
    until("SPDK has them", || in_flight(&process, "vm0") == 3.0);
    for at in [1, 2, 0] {
        let function = client.send_tmf(ABORT_TASK, 0, at as u64 + 1);
        assert_eq!(client.queue(0).wait_for(function).byte(), COMPLETE);
        assert_eq!(client.queue(FIRST).wait_for(sent[at]).code(), ABORTED);
        good(client.run(FIRST, read(0, 9, 1)));
    }
    ends_silently(process);
}
