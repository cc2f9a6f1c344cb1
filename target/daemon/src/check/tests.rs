//! Tests of `check`: every note with its text, and what of the host is looked at.

use std::fs;
use std::os::unix::net::UnixListener;
#[cfg(feature = "dpdk")]
use std::path::Path;

use super::*;

const DISK: &str = "[[bdev]]\nname = 'disk0'\nkind = 'null'\nsize = '1MiB'\n";
const CONTROLLER: &str = "[[scsi]]\nname = 'vm0'\nsocket = '/run/vm0'\n";
const LUN: &str = "[[scsi.lun]]\nbdev = 'disk0'\n";

fn parse(text: &str) -> Config {
    Config::parse(text, "f").unwrap_or_else(|errors| panic!("{errors}"))
}

fn notes_of(text: &str) -> Vec<String> {
    notes(&parse(text)).iter().map(Note::to_string).collect()
}

/// The notes of one controller with a disk and these keys.
fn notes_with(keys: &str) -> Vec<String> {
    notes_of(&format!("{DISK}{CONTROLLER}{keys}{LUN}"))
}

#[test]
fn notes_on_defaults_are_none() {
    assert_eq!(notes_with(""), [""; 0]);
    assert_eq!(notes(&Config::embedded("/run").unwrap()), []);
}

#[test]
fn r02_cmd_per_lun_below_qemus_default_says_what_each_policy_means() {
    let start = "scsi[0].cmd_per_lun = 32: below QEMU's default of 128. QEMU never asks for it: give its device \
                 cmd_per_lun=32 (`ringside qemu-args vm0`). Otherwise guests keep up to 128 commands per LUN in flight, \
                 and each one beyond 32 is answered";
    let table = [
        (
            "transport",
            "VIRTIO_SCSI_S_BUSY: a Linux guest makes 6 attempts within 0.1 s and then fails the request with EIO, so \
             S_BUSY carries it over short bursts only (on_cmd_per_lun = \"scsi\" is retried without a count).",
        ),
        (
            "failure",
            "VIRTIO_SCSI_S_FAILURE: a Linux guest makes 6 attempts within 0.1 s and then fails the request with EIO.",
        ),
        (
            "scsi",
            "TASK SET FULL (28h): a Linux guest requeues the command without a count of attempts and lowers its queue \
             depth.",
        ),
    ];
    for (policy, end) in table {
        let notes = notes_with(&format!("cmd_per_lun = 32\non_cmd_per_lun = '{policy}'\n"));
        assert_eq!(notes, [format!("{start} {end}")]);
    }
}

#[test]
fn r01_max_sectors_below_qemus_default_says_what_each_policy_means() {
    let start = "scsi[0].max_sectors = 256: below QEMU's default of 65535. QEMU never asks for it: give its device \
                 max_sectors=256 (`ringside qemu-args vm0`). Otherwise guests that do not read Block Limits VPD (B0h) \
                 may send up to 65535 sectors, and each command beyond 256 is answered";
    let table = [
        (
            "transport",
            "VIRTIO_SCSI_S_FAILURE: a Linux guest makes 6 attempts within 0.1 s and then fails the request with EIO.",
        ),
        ("scsi", "CHECK CONDITION, INVALID FIELD IN CDB (05h/24h/00h): a Linux guest fails it with EIO at once."),
    ];
    for (policy, end) in table {
        let notes = notes_with(&format!("max_sectors = 256\non_max_sectors = '{policy}'\n"));
        assert_eq!(notes, [format!("{start} {end}")]);
    }
}

#[test]
fn r05_limits_above_qemus_defaults_say_that_guests_are_not_told() {
    assert_eq!(
        notes_with("cmd_per_lun = 129\nmax_sectors = 65536\n"),
        [
            "scsi[0].cmd_per_lun = 129: above QEMU's default of 128. QEMU never asks for it: give its device \
             cmd_per_lun=129 (`ringside qemu-args vm0`). Otherwise guests stay at 128.",
            "scsi[0].max_sectors = 65536: above QEMU's default of 65535. QEMU never asks for it: give its device \
             max_sectors=65536 (`ringside qemu-args vm0`). Otherwise guests stay at 65535.",
        ]
    );
}

#[test]
fn r04_rings_and_segments_that_qemu_does_not_fit_are_noted() {
    assert_eq!(
        notes_with("queue_size_max = 64\ncmd_per_lun = 128\n"),
        [
            "scsi[0].queue_size_max = 64: below QEMU's default virtqueue_size of 128, which would be refused. QEMU never \
          asks for it: give its device virtqueue_size=64 (`ringside qemu-args vm0`). But QEMU tells every guest a \
          seg_max of 126, so large requests have up to 128 descriptors, and a chain longer than the ring halts the \
          queue: use 128 or more with QEMU."
        ]
    );
    assert_eq!(
        notes_with("queue_size_max = 2048\n"),
        ["scsi[0].queue_size_max = 2048: QEMU's largest virtqueue_size is 1024"]
    );
    assert_eq!(
        notes_with("seg_max = 125\n"),
        ["scsi[0].seg_max = 125: below the 126 that QEMU's vhost-user-scsi tells every guest, for which it has no \
          property. Each request with more segments is answered VIRTIO_SCSI_S_FAILURE: a Linux guest makes 6 attempts \
          within 0.1 s and then fails the request with EIO."]
    );
    assert_eq!(notes_with("seg_max = 126\nqueue_size_max = 128\n"), [""; 0]);
}

#[test]
fn threshold_of_coalescing_that_is_off_is_noted() {
    let text = "iops_threshold = 100: without delay_base_us no call is delayed, however many requests there are";
    assert_eq!(notes_with("iops_threshold = 100\n"), [format!("scsi[0].{text}")]);
    assert_eq!(notes_of(&format!("{SWITCH}{NET}iops_threshold = 100\n")), [format!("net[0].{text}")]);
    assert_eq!(notes_with("iops_threshold = 60000\n"), [""; 0], "the default");
    assert_eq!(notes_with("delay_base_us = 80\niops_threshold = 100\n"), [""; 0]);
}

#[test]
fn order_that_quick_commands_wait_for_is_noted() {
    let text = "scsi[0].in_order = true: a guest that takes VIRTIO_F_IN_ORDER gets commands of a queue back in the order that it \
                sent them in, quick ones of any LUN behind slow ones";
    assert_eq!(notes_with("in_order = true\n"), [text]);
    assert_eq!(notes_with("in_order = false\n"), [""; 0]);
}

#[test]
fn parts_that_nothing_uses_are_noted() {
    assert_eq!(
        notes_of(DISK),
        [
            "bdev[0].name = \"disk0\": no LUN and no other bdev uses this one",
            "scsi, net: there is no controller and no net device: nothing is served",
        ]
    );
    assert_eq!(notes_of(CONTROLLER), ["scsi[0].lun: this controller has no LUN: guests find no disk"]);
    assert_eq!(
        notes_of(&format!("[reactor]\ncores = [0, 1]\n{DISK}{CONTROLLER}queues = 1\npollers = [0, 1]\n{LUN}")),
        ["scsi[0].pollers: 2 pollers for 1 request queues: some of them will have none"]
    );
}

const SWITCH: &str = "[[port]]\nname = 'sw'\nkind = 'switch'\n";
const NET: &str = "[[net]]\nname = 'n0'\nsocket = '/run/n0'\nport = 'sw'\n";

#[test]
fn notes_on_net_devices_and_ports_tell_what_does_not_fit() {
    assert_eq!(notes_of(&format!("{SWITCH}{NET}")), [""; 0]);
    assert_eq!(
        notes_of(SWITCH),
        [
            "scsi, net: there is no controller and no net device: nothing is served",
            "port[0].name = \"sw\": no net device and no switch uses this one",
        ]
    );
    assert_eq!(
        notes_of(&format!("[reactor]\ncores = [0, 1]\n{SWITCH}{NET}pollers = [0, 1]\nqueue_size_max = 128\n")),
        [
            "net[0].pollers: 2 pollers for 1 queue pairs: some of them will have none",
            "net[0].queue_size_max = 128: QEMU's smallest rx_queue_size and tx_queue_size are 256, which would be refused",
        ]
    );
    assert_eq!(
        notes_of(&format!("{SWITCH}{NET}queue_size_max = 2048\n")),
        ["net[0].queue_size_max = 2048: QEMU's largest rx_queue_size and tx_queue_size are 1024"]
    );
    assert_eq!(
        notes_of(&format!("{SWITCH}{NET}isolated = true\n")),
        ["net[0].isolated = true: the switch \"sw\" has no uplink, so this device exchanges frames with nobody"]
    );
}

#[cfg(feature = "dpdk")]
#[test]
fn note_on_a_dpdk_port_says_that_pollers_stay_awake() {
    let uplink = "[[port]]\nname = 'up'\nkind = 'dpdk'\ndevice = 'net_null0'\n";
    let text = format!("{SWITCH}uplink = 'up'\npoller = 1\n{uplink}{NET}");
    assert_eq!(
        notes_of(&format!("[reactor]\ncores = [0, 1]\n{text}")),
        [
            "port[1].device = \"net_null0\": a DPDK port does not tell when frames have come, so the pollers on these cores \
             never sleep while it is in use, although reactor.idle is \"adaptive\": 1",
        ]
    );
    assert_eq!(notes_of(&format!("[reactor]\ncores = [0, 1]\nidle = 'busy'\n{text}")), [""; 0]);
}

#[cfg(feature = "dpdk")]
#[test]
fn note_on_a_dpdk_port_says_that_there_are_no_huge_pages() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        parse("[[port]]\nname = 'a'\nkind = 'loopback'\n[[port]]\nname = 'b'\nkind = 'dpdk'\ndevice = 'net_null0'\n");
    let note = || super::host::dpdk_memory(&config, dir.path()).map(|note| note.to_string());
    let start = "port[1].kind = \"dpdk\": this host has no free huge pages, so DPDK's memory is in ordinary pages, ";
    assert!(note().is_some_and(|note| note.starts_with(start)), "{:?}", note());
    for (size, free) in [("2048kB", "0\n"), ("1048576kB", "2\n")] {
        let folder = dir.path().join(format!("hugepages-{size}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("free_hugepages"), free).unwrap();
        assert_eq!(note().is_some(), free == "0\n", "{size}");
    }
    assert_eq!(super::host::dpdk_memory(&parse(""), Path::new("/no/such")), None);
}

#[test]
fn output_with_notes_reads_back_as_the_same_configuration() {
    let config = parse(&format!("{DISK}{CONTROLLER}cmd_per_lun = 1\n{LUN}"));
    let mut out = Vec::new();
    print(&config, &notes(&config), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("\n\n# note: scsi[0].cmd_per_lun = 1: below"), "{text}");
    assert_eq!(parse(&text), config);
}

/// The host's errors for one controller whose socket is at `path`.
fn socket_errors(path: &std::path::Path, mode: &str) -> Vec<String> {
    let mut config = parse(&format!("{CONTROLLER}mode = '{mode}'\n"));
    config.controllers[0].socket = path.to_owned();
    // Whatever cores this test may use: they are not its subject.
    config.reactor.cores.clear();
    host_errors(&config).iter().map(HostError::to_string).collect()
}

#[test]
fn socket_that_a_process_listens_on_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let expected = format!("scsi[0].socket = {path:?}: a process listens on this socket already");
    assert_eq!(socket_errors(&path, "server"), [expected.as_str()]);
    // A front-end is expected to listen there.
    assert_eq!(socket_errors(&path, "client"), [""; 0]);
    // What a process left behind is in nobody's way.
    drop(listener);
    assert_eq!(socket_errors(&path, "server"), [""; 0]);
}

#[test]
fn socket_of_a_net_device_that_a_process_listens_on_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut config = parse(&format!("{SWITCH}{NET}"));
    config.nets[0].socket = path.clone();
    config.reactor.cores.clear();
    let errors: Vec<String> = host_errors(&config).iter().map(HostError::to_string).collect();
    assert_eq!(errors, [format!("net[0].socket = {path:?}: a process listens on this socket already")]);
}

#[test]
fn socket_with_a_full_backlog_is_an_error_and_no_hang() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let expected = format!("scsi[0].socket = {path:?}: a process listens on this socket already");
    assert_eq!(socket_errors(&path, "server"), [expected]);
}

#[test]
fn socket_path_taken_by_a_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    assert_eq!(socket_errors(&path, "server"), [""; 0]);
    fs::write(&path, "precious").unwrap();
    assert_eq!(socket_errors(&path, "server"), [format!("scsi[0].socket = {path:?}: exists and is not a socket")]);
    let inside = path.join("x");
    assert_eq!(
        socket_errors(&inside, "server"),
        [format!("scsi[0].socket = {inside:?}: Not a directory (os error 20)")]
    );
}

#[test]
fn core_outside_the_allowed_set_is_an_error() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let core = |is_set| (0..rustix::thread::CpuSet::MAX_CPU).find(|core| allowed.is_set(*core) == is_set).unwrap();
    let (inside, outside) = (core(true), core(false));
    let mut config = parse("");
    config.reactor.cores = vec![inside];
    assert!(host_errors(&config).is_empty());
    config.reactor.cores = vec![inside, outside];
    let errors: Vec<String> = host_errors(&config).iter().map(HostError::to_string).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    let start = format!("reactor.cores[1] = {outside}: this process may only use cores ");
    assert!(errors[0].starts_with(&start), "{errors:?}");
}
