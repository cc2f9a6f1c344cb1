//! Where DPDK's own threads run, with the arguments that are chosen by default. A program of its own, because EAL is started
//! once per process.
#![cfg(feature = "libdpdk")]

use std::fs;

use port_dpdk::{DpdkConfig, DpdkPort, DpdkPortConfig, start_eal};
use rustix::thread::sched_getaffinity;

#[test]
fn eal_with_default_arguments_keeps_its_threads_on_the_control_cores() {
    let before = sched_getaffinity(None).unwrap();
    let allowed: Vec<usize> = (0..1024).filter(|&core| before.is_set(core)).collect();
    let control = &allowed[..1];
    let config = DpdkPortConfig { queues: 1, ..DpdkPortConfig::new("up", "net_null0") };
    let own = threads();
    let eal = start_eal(&DpdkConfig::default(), std::slice::from_ref(&config), control).unwrap().eal;
    let port = DpdkPort::open(eal, config).unwrap();
    assert_eq!(sched_getaffinity(None).unwrap(), before, "the caller's own");
    let others: Vec<_> = threads().into_iter().filter(|thread| !own.contains(thread)).collect();
    assert!(!others.is_empty(), "EAL has threads");
    for thread in others {
        assert_eq!(cpus(&thread), control[0].to_string(), "thread {thread}");
    }
    drop(port);
}

fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks.map(|task| task.unwrap().file_name().into_string().unwrap()).collect()
}

fn cpus(thread: &str) -> String {
    let status = fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    line.trim().to_owned()
}
