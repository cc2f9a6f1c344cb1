//! `/metrics` of a serving process: a well-formed text with everything an operator is promised (R28). That the numbers
//! are right is tested on the running target in this process, in `live_limits.rs` of the crate `tests`.

use rustix::process::Signal;
use tests::live::client::{ABORT_TASK, Client, FIRST, Plan, good, read, write};
use tests::live::exposition::{Exposition, fetch};

use crate::place::{Place, one_controller};

/// Family, kind, and the labels that its samples have.
const FAMILIES: [(&str, &str, &[&str]); 48] = [
    ("ringside_build_info", "gauge", &["version"]),
    // per LUN
    ("ringside_scsi_commands_total", "counter", &["controller", "lun", "op", "target"]),
    ("ringside_scsi_bytes_total", "counter", &["controller", "lun", "op", "target"]),
    ("ringside_scsi_errors_total", "counter", &["controller", "lun", "target"]),
    ("ringside_scsi_command_duration_seconds", "histogram", &["controller", "lun", "op", "target"]),
    ("ringside_scsi_in_flight", "gauge", &["controller", "lun", "target"]),
    ("ringside_scsi_in_flight_high_water", "gauge", &["controller", "lun", "target"]),
    ("ringside_scsi_refused_total", "counter", &["controller", "limit", "lun", "target"]),
    // per controller
    ("ringside_scsi_responses_total", "counter", &["controller", "response"]),
    ("ringside_scsi_check_conditions_total", "counter", &["controller", "sense_key"]),
    ("ringside_scsi_events_total", "counter", &["controller", "event"]),
    ("ringside_scsi_events_missed_total", "counter", &["controller"]),
    ("ringside_scsi_no_response_room_total", "counter", &["controller"]),
    ("ringside_scsi_tmf_total", "counter", &["controller", "function", "response"]),
    ("ringside_scsi_tmf_duration_seconds", "histogram", &["controller"]),
    ("ringside_scsi_limit", "gauge", &["controller", "limit"]),
    ("ringside_scsi_cmd_per_lun_effective", "gauge", &["controller"]),
    ("ringside_session_connected", "gauge", &["controller"]),
    ("ringside_sessions", "gauge", &["controller"]),
    ("ringside_sessions_total", "counter", &["controller"]),
    ("ringside_sessions_turned_away_total", "counter", &["controller"]),
    ("ringside_vhost_messages_refused_total", "counter", &["controller"]),
    ("ringside_device_resets_total", "counter", &["controller"]),
    ("ringside_memory_tables_total", "counter", &["controller"]),
    ("ringside_quiesce_wait_seconds", "gauge", &["controller"]),
    // per queue
    ("ringside_virtqueue_chains_total", "counter", &["controller", "queue"]),
    ("ringside_virtqueue_batches_total", "counter", &["controller", "queue"]),
    ("ringside_virtqueue_kicks_total", "counter", &["controller", "queue"]),
    ("ringside_virtqueue_calls_total", "counter", &["controller", "queue"]),
    ("ringside_virtqueue_calls_suppressed_total", "counter", &["controller", "queue"]),
    ("ringside_coalescing_delay_base_seconds", "gauge", &["controller"]),
    ("ringside_coalescing_iops_threshold", "gauge", &["controller"]),
    ("ringside_virtqueue_calls_delayed_total", "counter", &["controller", "queue"]),
    ("ringside_virtqueue_calls_coalesced_total", "counter", &["controller", "queue"]),
    ("ringside_virtqueue_size", "gauge", &["controller", "queue"]),
    ("ringside_virtqueue_cold", "gauge", &["controller", "queue"]),
    ("ringside_virtqueue_broken", "gauge", &["controller", "queue"]),
    ("ringside_virtqueue_faults_total", "counter", &["controller", "queue", "reason"]),
    // per poller
    ("ringside_poller_seconds_total", "counter", &["core", "mode"]),
    ("ringside_poller_loops_total", "counter", &["core"]),
    ("ringside_poller_sleeps_total", "counter", &["core"]),
    ("ringside_poller_wakeups_total", "counter", &["core"]),
    ("ringside_poller_jobs_total", "counter", &["core"]),
    ("ringside_poller_sources", "gauge", &["core"]),
    ("ringside_poller_cold_sources", "gauge", &["core"]),
    ("ringside_poller_longest_loop_seconds", "gauge", &["core"]),
    // per bdev
    ("ringside_bdev_info", "gauge", &["bdev", "kind"]),
    ("ringside_bdev_size_bytes", "gauge", &["bdev"]),
];

#[test]
fn r28_metrics_are_well_formed_and_complete() {
    let place = Place::new();
    let process = place.serve(&one_controller(0));
    let absent = ["ringside_scsi_tmf_total", "ringside_scsi_check_conditions_total", "ringside_virtqueue_faults_total"];
    complete(&process.scrape(), &absent);

    let mut client = Client::connect(&place.path("vm0.sock"), &Plan::queues(2));
    client.ready(FIRST, 0);
    client.ready(FIRST, 1);
    for lba in 0..100 {
        good(client.run(FIRST, write(0, lba, &[1; 512])));
        good(client.run(FIRST, read(1, lba, 1)));
    }
    let function = client.send_tmf(ABORT_TASK, 0, 1);
    client.queue(0).wait_for(function);
    let ring = client.queue(FIRST + 1).raw();
    ring.set_avail_index(1000);
    client.queue(FIRST + 1).kick();
    client.queue(FIRST + 1).wait_err();

    let metrics = process.scrape();
    complete(&metrics, &[]);
    let of = |name, labels: &[(&str, &str)]| metrics.sum(name, labels);
    let write = [("target", "0"), ("lun", "0"), ("op", "write")];
    assert_eq!(of("ringside_scsi_commands_total", &write), 100.0);
    assert_eq!(of("ringside_scsi_bytes_total", &write), 51_200.0);
    assert_eq!(of("ringside_scsi_command_duration_seconds_count", &write), 100.0);
    let fault = [("controller", "vm0"), ("queue", "3"), ("reason", "avail_index_jump")];
    assert_eq!(of("ringside_virtqueue_faults_total", &fault), 1.0);
    assert_eq!(of("ringside_virtqueue_broken", &fault[..2]), 1.0);
    for mode in ["busy", "idle", "asleep"] {
        assert!(of("ringside_poller_seconds_total", &[("mode", mode)]) > 0.0, "{mode}");
    }
    assert_eq!(of("ringside_scsi_limit", &[("limit", "cmd_per_lun")]), 128.0);
    assert_eq!(of("ringside_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

/// Every promised family is there, of its kind, with its labels.
fn complete(metrics: &Exposition, not_yet: &[&str]) {
    for (name, kind, labels) in FAMILIES {
        let Some(family) = metrics.families.get(name) else {
            assert!(not_yet.contains(&name), "{name} is missing");
            continue;
        };
        assert_eq!(family.kind, kind, "{name}");
        for sample in &family.samples {
            let has: Vec<&str> = sample.labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
            assert_eq!(has, labels, "{name}");
        }
    }
    assert!(metrics.families.keys().all(|name| name.starts_with("ringside_")), "{:?}", metrics.families.keys());
}

#[test]
fn r28_scrapes_disturb_no_io_and_other_paths_are_not_found() {
    let place = Place::new();
    let process = place.serve(&one_controller(0));
    let load = tests::live::load::Load::start(place.path("vm0.sock"));
    let mut commands = 0.0;
    for _ in 0..20 {
        let now = process.scrape().sum("ringside_scsi_commands_total", &[("lun", "0")]);
        assert!(now >= commands, "counters never go back");
        commands = now;
        load.progress(16);
    }
    assert!(commands >= 20.0 * 16.0);
    let (head, _) = fetch(process.metrics_addr(), "/other");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let (head, body) = fetch(process.metrics_addr(), "/");
    assert!(head.starts_with("HTTP/1.1 200 ") && body.contains("/metrics"), "{head} {body}");
    load.finish();
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}
