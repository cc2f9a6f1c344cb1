//! Tests of the kind of ring that channels get, and of where the kernel works for it. What goes through it is tested with
//! the channel.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::sched_setaffinity;
use tempfile::NamedTempFile;

use super::*;

fn ring(file: &NamedTempFile) -> Ring {
    Ring::new(file.as_file().as_fd(), 8).unwrap()
}

fn sync(ring: &mut Ring, name: u32) {
    assert!(ring.has_room());
    // SAFETY: a call without addresses.
    unsafe { ring.push(Call::Fdatasync, name) };
    ring.enter().unwrap();
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        thread::yield_now();
    }
}

/// The kernel has the flags from 6.1 on.
fn kernel_defers() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 1) {
        eprintln!("SKIPPED: Linux {release} has no rings of one thread that defers");
    }
    version >= (6, 1)
}

#[test]
fn ring_belongs_to_one_thread_and_finishes_calls_when_that_thread_asks() {
    if !kernel_defers() {
        return;
    }
    let file = NamedTempFile::new().unwrap();
    let mut ring = ring(&file);
    assert!(ring.uring().params().is_setup_single_issuer());
    ring.begin().unwrap();
    sync(&mut ring, 5);
    // A worker has made the call and says so by a flag; whatever system calls the thread makes, nothing is posted.
    until("the kernel has work for this thread", || ring.wants_enter());
    thread::yield_now();
    assert_eq!(ring.uring().completion().len(), 0);
    ring.enter().unwrap();
    let mut results = Vec::new();
    ring.reap(&mut results);
    assert_eq!(results, [(5, 0)]);
    // another thread is turned away
    thread::scope(|scope| {
        let other = scope.spawn(|| ring.uring().submitter().submit_and_wait(1).unwrap_err().raw_os_error());
        assert_eq!(other.join().unwrap(), Some(libc::EEXIST));
    });
}

#[test]
fn ring_has_its_file_registered() {
    let file = NamedTempFile::new().unwrap();
    let mut ring = ring(&file);
    let fd = ring.uring().as_raw_fd();
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let files = told.lines().find(|line| line.starts_with("UserFiles:")).map(str::split_whitespace);
    assert_eq!(files.and_then(|mut words| words.nth(1)), Some("2"), "the file and the pipe: {told}");
}

/// What the kernel shows of the workers of a thread: names and the cores that they may use.
fn workers_of(thread: i32) -> Vec<String> {
    let name = format!("iou-wrk-{thread}");
    let mut cores = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default();
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        if field("Name:") == Some(&name) {
            cores.extend(field("Cpus_allowed_list:").map(str::to_owned));
        }
    }
    cores
}

#[test]
fn ring_workers_stay_off_the_core_of_the_poller_where_there_are_others() {
    let allowed = sched_getaffinity(None).unwrap();
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    let [poller, others @ ..] = cores.as_slice() else { return };
    if others.is_empty() {
        eprintln!("SKIPPED: needs two cores");
        return;
    }
    let file = NamedTempFile::new().unwrap();
    let on = |cores: &[usize]| {
        let mut set = CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        sched_setaffinity(None, &set).unwrap();
    };
    // opened by a control thread, which is kept off the cores of pollers; used by a poller
    for (opener, expected) in [(&others[..1], others[0].to_string()), (&cores[..], String::new())] {
        let mut ring = thread::scope(|scope| {
            let control = scope.spawn(|| {
                on(opener);
                ring(&file)
            });
            control.join().unwrap()
        });
        thread::scope(|scope| {
            scope.spawn(|| {
                on(&[*poller]);
                ring.begin().unwrap();
                // Calls like these are always made by a worker.
                sync(&mut ring, 1);
                let own = rustix::thread::gettid().as_raw_nonzero().get();
                let mut found = Vec::new();
                until("a worker has named itself", || {
                    found = workers_of(own);
                    !found.is_empty()
                });
                assert!(expected.is_empty() || found == [expected], "{found:?}");
                let mut results = Vec::new();
                until("the call returns", || {
                    ring.enter().unwrap();
                    ring.reap(&mut results);
                    !results.is_empty()
                });
            });
        });
    }
}
