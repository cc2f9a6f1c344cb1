//! `/metrics` of a serving process (R28): what it exports is what the catalogue says, in both directions and in both formats.
//! That the numbers are right is tested on the running target in this process, in `live_limits.rs` of the crate `tests`.

use std::collections::{BTreeMap, BTreeSet};

use ringside::metrics::catalogue::{self, Kind, Metric};
use rustix::process::Signal;
use tests::live::client::{ABORT_TASK, Client, FIRST, Plan, good, read, write};
use tests::live::exposition::{Exposition, fetch};

use crate::place::{Place, Process, one_controller};

/// Metrics that a quiet target has not: they begin with what they count.
const NOT_YET: [&str; 4] = [
    "ringside_http_requests_total",
    "ringside_scrape_seconds",
    "ringside_session_info",
    "ringside_virtqueue_faults_total",
];

/// Metrics that only ports of DPDK have.
const DPDK_ALONE: [&str; 3] =
    ["ringside_port_mbufs", "ringside_port_extended_total", "ringside_port_speed_bytes_per_second"];

/// Metrics that only SPDK and its block devices have; `spdk.rs` reads them.
const SPDK_ALONE: [&str; 7] = [
    "ringside_bdev_spdk_direct_total",
    "ringside_bdev_spdk_lent_total",
    "ringside_bdev_spdk_bounced_total",
    "ringside_bdev_spdk_starved_total",
    "ringside_bdev_spdk_waited_total",
    "ringside_bdev_spdk_awaited",
    "ringside_spdk_guest_memory_bytes",
];

/// One of everything that needs no SPDK: every kind of block device and port.
fn everything() -> String {
    let mut text = one_controller(0)
        + "[[bdev]]\nname = 'file'\nkind = 'file'\npath = '{dir}/disk'\nsize = '1MiB'\n\
           [[scsi.lun]]\nlun = 2\nbdev = 'file'\n\
           [[port]]\nname = 'lo'\nkind = 'loopback'\n\
           [[net]]\nname = 'n0'\nsocket = '{dir}/n0.sock'\nport = 'lo'\n\
           [[port]]\nname = 'sw'\nkind = 'switch'\n\
           [[net]]\nname = 'n1'\nsocket = '{dir}/n1.sock'\nport = 'sw'\n";
    if cfg!(feature = "dpdk") {
        text += "[[port]]\nname = 'null'\nkind = 'dpdk'\ndevice = 'net_null0'\n\
                 [[net]]\nname = 'n2'\nsocket = '{dir}/n2.sock'\nport = 'null'\n";
    }
    text
}

/// Commands, a task management function, a CHECK CONDITION and a broken queue. The controller's front-end is still there.
fn trouble(place: &Place) -> Client {
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
    client
}

fn end(process: Process) {
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn r28_target_exports_the_whole_catalogue_and_nothing_else() {
    let place = Place::new();
    let process = place.serve(&everything());
    let quiet = process.scrape();
    agrees(&quiet, &NOT_YET);
    let always = catalogue::metrics().filter(|metric| metric.when().is_none());
    always.for_each(|metric| assert!(quiet.families.contains_key(metric.name()), "{}", metric.name()));

    // What has not happened is 0 and not absent, so that the first time is a change.
    let reset = [("function", "logical_unit_reset"), ("response", "function_complete")];
    assert_eq!(quiet.samples("ringside_scsi_tmf_total", &reset).count(), 1);
    assert_eq!(quiet.samples("ringside_scsi_tmf_total", &[]).count(), 8);
    assert_eq!(quiet.samples("ringside_scsi_check_conditions_total", &[]).count(), 16);

    let client = trouble(&place);
    let busy = process.scrape();
    agrees(&busy, &[]);
    drop(client);
    end(process);
}

#[test]
fn r28_target_without_devices_exports_what_is_always_there() {
    let place = Place::new();
    let process = place.serve(&format!(
        "[metrics]\nlisten = '127.0.0.1:0'\n[reactor]\ncores = [{}]\n",
        tests::live::rig::cores(1).unwrap()[0]
    ));
    let metrics = process.scrape();
    for metric in metrics.families.keys().map(|name| known(name)) {
        let about_devices =
            ["controller", "device", "bdev", "port"].iter().any(|label| metric.labels().contains(label));
        assert!(!about_devices, "{}", metric.name());
    }
    end(process);
}

/// Every family of the scrape is in the catalogue, with its type and its labels; every metric of the catalogue is a family of
/// the scrape, but for those that are not yet there.
fn agrees(metrics: &Exposition, not_yet: &[&str]) {
    for (name, family) in &metrics.families {
        let metric = known(name);
        let kind = match metric.kind() {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::Info => "gauge",
            Kind::Histogram => "histogram",
        };
        assert_eq!(family.kind, kind, "{name}");
        let labels: BTreeSet<&str> = metric.labels().iter().copied().collect();
        for sample in &family.samples {
            let has = sample.labels.keys().map(String::as_str).filter(|label| *label != "le");
            assert_eq!(has.collect::<BTreeSet<_>>(), labels, "{name}");
            assert!(metric.kind() != Kind::Info || sample.value == 1.0, "{name}");
        }
    }
    let missing: Vec<&str> =
        catalogue::metrics().map(Metric::name).filter(|name| !metrics.families.contains_key(*name)).collect();
    let mut expected: Vec<&str> =
        catalogue::metrics().map(Metric::name).filter(|name| not_yet.contains(name)).collect();
    if cfg!(not(feature = "dpdk")) {
        expected.extend(catalogue::metrics().map(Metric::name).filter(|name| DPDK_ALONE.contains(name)));
    }
    expected.extend(catalogue::metrics().map(Metric::name).filter(|name| SPDK_ALONE.contains(name)));
    assert_eq!(BTreeSet::from_iter(missing), BTreeSet::from_iter(expected));
}

fn known(name: &str) -> &'static Metric {
    catalogue::metrics()
        .find(|metric| metric.name() == name)
        .unwrap_or_else(|| panic!("{name} is not in the catalogue"))
}

#[test]
fn r28_metrics_tell_of_commands_faults_sessions_and_pollers() {
    let place = Place::new();
    let process = place.serve(&one_controller(0));
    let client = trouble(&place);
    let metrics = process.scrape();
    let of = |name, labels: &[(&str, &str)]| metrics.sum(name, labels);
    let write = [("target", "0"), ("lun", "0"), ("op", "write")];
    assert_eq!(of("ringside_scsi_commands_total", &write), 100.0);
    assert_eq!(of("ringside_scsi_bytes_total", &write), 51_200.0);
    assert_eq!(of("ringside_scsi_command_duration_seconds_count", &write), 100.0);
    assert_eq!(of("ringside_scsi_lun_info", &[("lun", "1"), ("bdev", "slow")]), 1.0);
    let fault = [("controller", "vm0"), ("queue", "3"), ("reason", "avail_index_jump")];
    assert_eq!(of("ringside_virtqueue_faults_total", &fault), 1.0);
    assert_eq!(of("ringside_virtqueue_broken", &fault[..2]), 1.0);
    assert_eq!(of("ringside_scsi_limit", &[("limit", "cmd_per_lun")]), 128.0);
    assert_eq!(of("ringside_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert_eq!(of("ringside_bdev_memory_bytes", &[("bdev", "disk0")]), f64::from(1 << 20));

    let queue = [("controller", "vm0"), ("queue", "2")];
    let batches = of("ringside_virtqueue_batches_total", &queue);
    assert!(batches >= 200.0, "one command at a time: {batches}");
    assert_eq!(of("ringside_virtqueue_batch_chains_count", &queue), batches);
    assert_eq!(of("ringside_virtqueue_batch_chains_sum", &queue), of("ringside_virtqueue_chains_total", &queue));
    assert_eq!(of("ringside_virtqueue_batch_chains_bucket", &[queue[0], queue[1], ("le", "1")]), batches);
    assert_eq!(of("ringside_virtqueue_in_flight", &queue), 0.0);

    let session = [("controller", "vm0")];
    assert_eq!(of("ringside_session_listening", &session), 1.0);
    assert_eq!(of("ringside_session_connected", &session), 1.0);
    assert_eq!(
        of("ringside_memory_table_duration_seconds_count", &session),
        of("ringside_memory_tables_total", &session)
    );
    assert!(of("ringside_memory_tables_total", &session) >= 1.0);
    let info = metrics.samples("ringside_session_info", &session).next().expect("features were agreed on");
    let features = u64::from_str_radix(info.labels["features"].trim_start_matches("0x"), 16).unwrap();
    assert!(features & tests::live::client::VERSION_1 != 0, "{features:#x}");

    for mode in ["busy", "idle", "asleep"] {
        assert!(of("ringside_poller_seconds_total", &[("mode", mode)]) > 0.0, "{mode}");
    }
    let (loops, idle) = (of("ringside_poller_loops_total", &[]), of("ringside_poller_idle_loops_total", &[]));
    let busy = of("ringside_poller_busy_loop_seconds_count", &[]);
    assert!(idle > 0.0 && busy > 0.0 && loops > 0.0, "{loops} loops, {idle} idle, {busy} busy");
    assert!(of("ringside_poller_context_switches_total", &[("kind", "voluntary")]) > 0.0, "it has slept");
    assert_eq!(of("ringside_poller_turning", &[]), 1.0);

    assert!(of("process_start_time_seconds", &[]) > 1.6e9);
    assert!(of("process_open_fds", &[]) < of("process_max_fds", &[]));
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap().count();
    assert_eq!(of("process_threads", &[]), threads as f64);
    let again = process.scrape();
    assert_eq!(again.sum("ringside_http_requests_total", &[("path", "/metrics"), ("code", "200")]), 1.0);
    assert_eq!(again.sum("ringside_scrape_seconds_count", &[("format", "prometheus")]), 1.0);
    drop(client);
    end(process);
}

#[test]
fn r28_histograms_of_durations_reach_from_a_microsecond_to_ten_seconds() {
    let place = Place::new();
    let process = place.serve(&everything());
    let metrics = process.scrape();
    let mut expected: Vec<f64> =
        (-6..=0).flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(decade))).collect();
    expected.extend([10.0, f64::INFINITY]);
    let mut seen = 0;
    for metric in
        catalogue::metrics().filter(|metric| (metric.kind(), metric.unit()) == (Kind::Histogram, Some("seconds")))
    {
        let Some(family) = metrics.families.get(metric.name()) else { continue };
        let mut edges: BTreeMap<BTreeMap<String, String>, Vec<f64>> = BTreeMap::new();
        for sample in family.samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
            let mut labels = sample.labels.clone();
            let edge = labels.remove("le").unwrap().parse().unwrap();
            edges.entry(labels).or_default().push(edge);
        }
        for edges in edges.values() {
            let near = |(edge, expected): (&f64, &f64)| edge == expected || (edge / expected - 1.0).abs() < 1e-9;
            assert!(
                edges.len() == expected.len() && edges.iter().zip(&expected).all(near),
                "{}: {edges:?}",
                metric.name()
            );
        }
        seen += 1;
    }
    assert!(seen >= 5, "{seen}");
    end(process);
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
    end(process);
}

mod openmetrics {
    //! The text for scrapers that ask for OpenMetrics, read by the official parser where there is one.

    use std::io::Write;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    use tests::live::exposition::fetch_with;

    use super::*;

    const ACCEPT: &str = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

    #[test]
    fn official_parser_reads_the_same_samples_from_both_formats() {
        let Some(python) = python() else {
            eprintln!("SKIPPED: no Python with prometheus_client (scripts/setup.sh --only dashboards)");
            return;
        };
        let place = Place::new();
        let process = place.serve(&everything());
        let client = trouble(&place);
        // The second text of each, so that each counts the same scrapes.
        let text = || fetch_with(process.metrics_addr(), "/metrics", &["Accept: text/plain"]).1;
        let open = || fetch_with(process.metrics_addr(), "/metrics", &[ACCEPT]).1;
        drop((text(), open()));
        let (text, open) = (text(), open());
        let (prometheus_file, open_file) = (place.path("prometheus.txt"), place.path("openmetrics.txt"));
        std::fs::write(&prometheus_file, &text).unwrap();
        std::fs::write(&open_file, &open).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/openmetrics.py");
        let mut parser = Command::new(python);
        parser.arg(script).args([&prometheus_file, &open_file]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut parser = parser.stderr(Stdio::piped()).spawn().unwrap();
        let catalogue = catalogue::metrics()
            .map(|metric| format!("{} {} {}\n", metric.family(), metric.kind(), metric.unit().unwrap_or_default()));
        parser.stdin.take().unwrap().write_all(catalogue.collect::<String>().as_bytes()).unwrap();
        let output = parser.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let samples: usize = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        assert_eq!(samples, text.lines().filter(|line| !line.starts_with('#')).count());
        drop(client);
        end(process);
    }

    #[test]
    fn scraper_that_asks_for_openmetrics_is_told_that_it_is() {
        let place = Place::new();
        let process = place.serve(&one_controller(0));
        let (head, body) = fetch_with(process.metrics_addr(), "/metrics", &[ACCEPT]);
        assert!(head.contains("application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
        assert!(body.ends_with("\n# EOF\n") && body.contains("# TYPE ringside_scsi_commands counter\n"));
        // Two lines are one list.
        let lines = ["Accept: text/plain;q=0.1", "Accept: application/openmetrics-text;q=0.2"];
        let (head, _) = fetch_with(process.metrics_addr(), "/metrics", &lines);
        assert!(head.contains("application/openmetrics-text"), "{head}");
        end(process);
    }

    /// A Python that has the official parser: that of `scripts/setup.sh`, or the machine's.
    fn python() -> Option<PathBuf> {
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.build/dashboards/bin/python");
        let candidates = [ours, "/usr/bin/python3".into(), "python3".into()];
        candidates.into_iter().find(|python| {
            let parser = Command::new(python).args(["-c", "import prometheus_client.openmetrics.parser"]).output();
            parser.is_ok_and(|output| output.status.success())
        })
    }
}
