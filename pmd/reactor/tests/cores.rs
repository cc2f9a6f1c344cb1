//! Which cores the poller threads run on, and which configurations are refused. One test at a time looks at the threads of
//! this process, so this file starts reactors nowhere else.
#![cfg(not(loom))]

mod common;

use common::{allowed, until};
use reactor::{IdlePolicy, Reactor, ReactorConfig, ReactorError, affinity};
use std::fs;

/// Name and allowed cores of every thread of this process.
fn threads() -> Vec<(String, String)> {
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.expect("the kernel shows this field").trim().to_owned()
    };
    let tasks = fs::read_dir("/proc/self/task").expect("threads are listed");
    let status = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    status.map(|status| (field(&status, "Name:"), field(&status, "Cpus_allowed_list:"))).collect()
}

#[test]
fn pollers_are_named_after_and_pinned_to_their_cores() {
    let cores = allowed();
    let config = ReactorConfig { cores: cores.clone(), idle: IdlePolicy::Adaptive };
    let reactor = Reactor::start(&config).expect("started");
    let mut pollers: Vec<_> = threads().into_iter().filter(|(name, _)| name.starts_with("ringside-p")).collect();
    pollers.sort();
    let mut wanted: Vec<_> = cores.iter().map(|core| (format!("ringside-p{core}"), core.to_string())).collect();
    wanted.sort();
    assert_eq!(pollers, wanted);
    drop(reactor);
    // A joined thread may still be listed for a moment.
    until(|| !threads().iter().any(|(name, _)| name.starts_with("ringside-p")));
}

#[test]
fn control_threads_inherit_what_the_pollers_leave() {
    let cores = allowed();
    let inherited = std::thread::spawn(move || {
        let left = affinity::control_affinity(&cores[..1]).expect("applied");
        let child = std::thread::spawn(allowed).join().expect("the thread ends well");
        assert_eq!(child, left);
        (child, cores)
    });
    let (child, cores) = inherited.join().expect("the thread ends well");
    assert_eq!(child, if cores.len() > 1 { &cores[1..] } else { &cores[..] });
}

#[test]
fn start_on_cores_that_are_no_good_names_them() {
    let refused = |cores: Vec<usize>| {
        let started = Reactor::start(&ReactorConfig { cores, idle: IdlePolicy::Busy });
        match started.err().expect("refused") {
            ReactorError::Affinity(error) => error.to_string(),
            other => panic!("not about cores: {other}"),
        }
    };
    assert_eq!(refused(vec![]), "cores: the list is empty, at least one core is needed");
    let core = allowed()[0];
    assert_eq!(refused(vec![core, core]), format!("cores: core {core} is listed more than once"));
    let missing = 5_000;
    let text = refused(vec![core, missing]);
    assert!(text.starts_with("cores: core 5000 is not in the set allowed for this process, "), "{text}");
}
