//! `ringside serve` as a process: how it starts or refuses to, what signals do, what it leaves behind. The command line
//! is tested in `cli.rs`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use rustix::process::{Resource, Rlimit, Signal};
use tests::live::client::{Client, FIRST, Plan, good, read, test_unit_ready, write};
use tests::live::{PATIENCE, until};
use vhost_user::frontend::{Frontend, FrontendError};

use crate::place::{Place, one_controller};

/// The slow LUN.
const SLOW: [(&str, &str); 3] = [("controller", "vm0"), ("target", "0"), ("lun", "1")];

/// A refusal to start: status 2, nothing on standard output, and the text on standard error.
fn refuses(place: &Place, text: &str, expected: &[&str]) {
    let output = place.fails(text);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(output.stdout, b"");
    for part in expected {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
}

fn connect(place: &Place, socket: &str) -> Client {
    Client::connect(&place.path(socket), &Plan::default())
}

#[test]
fn stale_socket_is_replaced_and_removed_at_the_end() {
    let place = Place::new();
    drop(UnixListener::bind(place.path("vm0.sock")).unwrap());
    assert!(place.path("vm0.sock").exists(), "as after a crash");
    let process = place.serve(&one_controller(0));
    let mut client = connect(&place, "vm0.sock");
    client.ready(FIRST, 0);
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    assert!(!place.path("vm0.sock").exists());
}

/// Requests of a disk whose answers overtake each other come back in order where the driver wants that.
#[test]
fn controller_in_order_passes_a_verified_run_in_order_on_either_ring() {
    let place = Place::new();
    let text = one_controller(0).replace("queue_size_max = 256", "queue_size_max = 256\nin_order = true")
        + "[[bdev]]\nname = 'base'\nkind = 'malloc'\nsize = '1MiB'\n\
        [[bdev]]\nname = 'uneven'\nkind = 'delay'\nbase = 'base'\nlatency_us = 20\np99_us = 500\n\
        [[scsi.lun]]\nlun = 7\nbdev = 'uneven'\n";
    let process = place.serve(&text);
    for ring in ["split", "packed"] {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_ringside"));
        bench.args(["bench", "scsi", "--verify", "--in-order", "--rw", "randrw", "--qd", "24", "--number-ios", "1000"]);
        bench.args(["--lun", "7", "--ring", ring, "--socket"]).arg(place.path("vm0.sock"));
        let output = bench.output().unwrap();
        assert!(output.status.success(), "{ring}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let held: f64 = process.scrape().sum("ringside_virtqueue_held_total", &[("controller", "vm0")]);
    assert!(held > 0.0, "of 2000 requests some were done before older ones");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn socket_of_a_live_process_ends_the_start_and_stays_usable() {
    let place = Place::new();
    let living = UnixListener::bind(place.path("vm0.sock")).unwrap();
    refuses(&place, &one_controller(0), &["scsi[0].socket: ", "vm0.sock\": a live process listens on it"]);
    drop(UnixStream::connect(place.path("vm0.sock")).unwrap());
    drop(living);

    // Nor do two of our own share one.
    let process = place.serve(&one_controller(0));
    let second = one_controller(0).replace("vm0'", "other'").replace("/vm0.sock", "/other.sock");
    let clash = second
        + "[[bdev]]\nname = 'd'\nkind = 'null'\nsize = '1MiB'\n\
        [[scsi]]\nname = 'x'\nsocket = '{dir}/vm0.sock'\n[[scsi.lun]]\nbdev = 'd'\n";
    refuses(&place, &clash, &["scsi[1].socket: ", "a live process listens on it"]);
    assert!(!place.path("other.sock").exists(), "what was bound before is gone again");
    connect(&place, "vm0.sock").ready(FIRST, 0);
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn socket_path_of_a_file_ends_the_start_and_the_file_stays() {
    let place = Place::new();
    fs::write(place.path("vm0.sock"), "precious").unwrap();
    refuses(&place, &one_controller(0), &["scsi[0].socket: ", "vm0.sock\": exists and is no socket"]);
    assert_eq!(fs::read(place.path("vm0.sock")).unwrap(), b"precious");
}

#[test]
fn socket_in_a_missing_directory_ends_the_start_and_makes_none() {
    let place = Place::new();
    let text = one_controller(0).replace("/vm0.sock", "/missing/vm0.sock");
    refuses(&place, &text, &["scsi[0].socket: ", "/missing\" does not exist"]);
    assert!(!place.path("missing").exists());
}

#[test]
fn metrics_address_in_use_ends_the_start_and_leaves_no_socket() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = one_controller(0).replace("127.0.0.1:0", &address);
    refuses(&place, &text, &[&format!("metrics.listen: {address}: "), "in use"]);
    assert!(!place.path("vm0.sock").exists());
}

#[test]
fn unknown_key_ends_the_start_with_its_line() {
    let place = Place::new();
    let text = one_controller(0) + "colour = 'red'\n";
    let line = text.lines().count();
    refuses(&place, &text, &[&format!("ringside.toml:{line}: "), "colour: unknown key"]);
    assert!(!place.path("vm0.sock").exists());
}

#[test]
fn core_that_is_not_allowed_ends_the_start() {
    let place = Place::new();
    let allowed = reactor::affinity::allowed().unwrap();
    let outside = (0..1024).find(|core| !allowed.contains(core)).unwrap();
    let text = format!("[reactor]\ncores = [{outside}]\n[metrics]\nlisten = '127.0.0.1:0'\n");
    refuses(&place, &text, &["reactor.cores: ", &format!("core {outside} is not in the set allowed")]);
}

/// Both signals that ask for an end.
#[test]
fn term_and_int_with_io_in_flight_drain_and_exit_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let mut process = place.serve(&one_controller(500_000));
        let mut client = connect(&place, "vm0.sock");
        client.ready(FIRST, 0);
        client.ready(FIRST, 1);
        let tokens: Vec<usize> = (0..4).map(|lba| client.send(FIRST, write(1, lba, &[1; 512]))).collect();
        until("four are in flight", || process.scrape().sum("ringside_scsi_in_flight", &SLOW) == 4.0);
        process.signal(signal);
        process.wait_line("drained");
        assert_eq!(process.wait().code(), Some(0));
        // The memory is ours, the answers are in it.
        let queue = client.queue(FIRST);
        let replies: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(replies.iter().map(|reply| reply.token).collect::<Vec<_>>(), tokens);
        replies.into_iter().for_each(|reply| drop(good(reply)));
        assert!(client.has_reply() && client.frontend.queue_num().is_err(), "the connection is closed");
        assert!(!place.path("vm0.sock").exists());
    }
}

/// Requests take a minute; nobody has to wait for that.
#[test]
fn second_term_during_a_stuck_drain_exits_at_once_and_not_with_0() {
    let place = Place::new();
    let mut process = place.serve(&one_controller(60_000_000));
    let mut client = connect(&place, "vm0.sock");
    client.ready(FIRST, 1);
    client.send(FIRST, read(1, 0, 1));
    until("it is in flight", || process.scrape().sum("ringside_scsi_in_flight", &SLOW) == 1.0);
    process.signal(Signal::TERM);
    process.wait_line("draining");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(1));
    assert!(client.queue(FIRST).take().is_none());

    // What is left of it does not stop the next one.
    let next = place.serve(&one_controller(0));
    connect(&place, "vm0.sock").ready(FIRST, 1);
    next.signal(Signal::TERM);
    assert_eq!(next.wait().code(), Some(0));
}

#[test]
fn killed_process_is_followed_by_one_that_serves_the_same_front_end_again() {
    let place = Place::new();
    let process = place.serve(&one_controller(0));
    let mut client = connect(&place, "vm0.sock");
    client.ready(FIRST, 0);
    process.signal(Signal::KILL);
    assert_eq!(process.wait().code(), None);
    assert!(client.frontend.queue_num().is_err(), "the front-end sees it");
    let next = place.serve(&one_controller(0));
    let mut again = connect(&place, "vm0.sock");
    again.ready(FIRST, 0);
    next.signal(Signal::TERM);
    assert_eq!(next.wait().code(), Some(0));
}

#[test]
fn hup_keeps_serving() {
    let place = Place::new();
    let mut process = place.serve(&one_controller(0));
    let mut client = connect(&place, "vm0.sock");
    client.ready(FIRST, 0);
    for _ in 0..3 {
        process.signal(Signal::HUP);
        process.wait_line("SIGHUP: nothing to change");
        good(client.run(FIRST, test_unit_ready(0)));
    }
    client.in_step();
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn two_controllers_serve_two_front_ends_with_data_of_their_own() {
    let place = Place::new();
    let text = one_controller(0)
        + "[[bdev]]\nname = 'disk1'\nkind = 'malloc'\nsize = '1MiB'\n\
           [[scsi]]\nname = 'vm1'\nsocket = '{dir}/vm1.sock'\nqueue_size_max = 256\n[[scsi.lun]]\nbdev = 'disk1'\n";
    let process = place.serve(&text);
    let mut clients = ["vm0.sock", "vm1.sock"].map(|socket| connect(&place, socket));
    for (value, client) in (1..).zip(&mut clients) {
        client.ready(FIRST, 0);
        good(client.run(FIRST, write(0, 0, &[value; 512])));
    }
    for (value, client) in (1..).zip(&mut clients) {
        assert_eq!(good(client.run(FIRST, read(0, 0, 1))), [value; 512]);
    }
    let metrics = process.scrape();
    for controller in ["vm0", "vm1"] {
        assert_eq!(metrics.sum("ringside_session_connected", &[("controller", controller)]), 1.0);
        let writes = [("controller", controller), ("op", "write")];
        assert_eq!(metrics.sum("ringside_scsi_commands_total", &writes), 1.0);
    }
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    assert!(!place.path("vm0.sock").exists() && !place.path("vm1.sock").exists());
}

/// Out of descriptors, front-ends are turned away; with descriptors again, they are served again.
#[test]
fn front_end_without_a_descriptor_left_for_it_does_not_end_the_listening() {
    let place = Place::new();
    let process = place.serve(&one_controller(0));
    let pid = rustix::process::Pid::from_raw(process.pid().try_into().unwrap());
    let taken = fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap().count() as u64;
    let usual = rustix::process::getrlimit(Resource::Nofile);
    let limit = |current| rustix::process::prlimit(pid, Resource::Nofile, Rlimit { current, ..usual });
    for room in 1..=3 {
        limit(Some(taken + room)).unwrap();
        for _ in 0..3 {
            let mut frontend = Frontend::connect(place.path("vm0.sock")).unwrap();
            frontend.set_reply_timeout(Some(PATIENCE)).unwrap();
            // Served or turned away: the socket says so either way.
            let answer = frontend.features();
            assert!(matches!(answer, Ok(_) | Err(FrontendError::Closed { .. })), "{answer:?}");
        }
    }
    limit(usual.current).unwrap();
    connect(&place, "vm0.sock").ready(FIRST, 0);
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

/// `Name` and `Cpus_allowed_list` of every thread, when there are threads of these names, or of one of the names that stand with `|`
/// between them: a thread names itself.
fn threads(pid: u32, names: &[&str]) -> Vec<(String, String)> {
    let mut threads = Vec::new();
    until("threads have their names", || {
        threads = threads_now(pid);
        names.iter().all(|wanted| threads.iter().any(|(name, _)| wanted.split('|').any(|wanted| name == wanted)))
    });
    threads
}

fn threads_now(pid: u32) -> Vec<(String, String)> {
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).to_owned()
    };
    fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        // A thread that ends meanwhile is none of ours to look at.
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
        .map(|status| (field(&status, "Name"), field(&status, "Cpus_allowed_list")))
        .collect()
}

/// Whether a list as in `0-3,8` has the core.
fn holds(list: &str, core: usize) -> bool {
    list.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        (first.parse().unwrap()..=last.parse().unwrap()).contains(&core)
    })
}

#[test]
fn pollers_are_pinned_and_every_other_thread_keeps_off_their_cores() {
    keeps_off(&one_controller(0), &[]);
}

/// DPDK narrows the affinity of who starts it, and has threads of its own.
#[cfg(feature = "dpdk")]
#[test]
fn pollers_are_pinned_and_every_other_thread_keeps_off_their_cores_with_dpdk() {
    keeps_off(&with_dpdk(), &["eal-intr-thread|dpdk-intr"]); // before DPDK 23.11, and since
}

#[cfg(feature = "dpdk")]
fn with_dpdk() -> String {
    one_controller(0)
        + "[[port]]\nname = 'up'\nkind = 'dpdk'\ndevice = 'net_null0'\n\
           [[net]]\nname = 'n0'\nsocket = '{dir}/n0.sock'\nport = 'up'\n"
}

fn keeps_off(text: &str, more: &[&str]) {
    let place = Place::new();
    let allowed = reactor::affinity::allowed().unwrap();
    let process = place.serve(text);
    let mut client = connect(&place, "vm0.sock");
    client.ready(FIRST, 0);
    let names = [&["accept-vm0", "vhost-vm0", "ringside-http", "ringside-watch"], more].concat();
    let threads = threads(process.pid(), &names);
    let pollers: Vec<_> = threads.iter().filter(|(name, _)| name.starts_with("ringside-p")).collect();
    assert_eq!(pollers.len(), 1, "{threads:?}");
    let (name, cores) = pollers[0];
    assert_eq!(name, &format!("ringside-p{cores}"), "pinned to the core in its name");
    let core: usize = cores.parse().unwrap();
    if allowed.len() == 1 {
        eprintln!("SKIPPED that others keep off: this process may use one core only");
    } else {
        for (name, cores) in threads.iter().filter(|(name, _)| !name.starts_with("ringside-p")) {
            assert!(!holds(cores, core), "{name} may run on {cores}, a poller is on {core}");
            assert!(
                allowed.iter().filter(|other| **other != core).all(|other| holds(cores, *other)),
                "{name}: {cores}"
            );
        }
    }
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn pollers_on_every_core_leave_the_other_threads_where_they_may_be() {
    stays_anywhere(&one_controller(0));
}

#[cfg(feature = "dpdk")]
#[test]
fn pollers_on_every_core_leave_the_other_threads_where_they_may_be_with_dpdk() {
    stays_anywhere(&with_dpdk());
}

fn stays_anywhere(text: &str) {
    let place = Place::new();
    let allowed = reactor::affinity::allowed().unwrap();
    let list = format!("cores = {allowed:?}");
    let old = text.lines().find(|line| line.starts_with("cores")).unwrap().to_owned();
    let process = place.serve(&text.replace(&old, &list));
    let threads = threads(process.pid(), &["ringside-http"]);
    for core in &allowed {
        assert!(threads.contains(&(format!("ringside-p{core}"), core.to_string())), "{threads:?}");
    }
    let (_, cores) = threads.iter().find(|(name, _)| name == "ringside-http").unwrap();
    assert!(allowed.iter().all(|core| holds(cores, *core)), "{cores}");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}
