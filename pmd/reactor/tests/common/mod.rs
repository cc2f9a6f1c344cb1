//! Sources and waits that several test files of this crate share; no test.
#![allow(dead_code, reason = "each test file uses its own part")]

use reactor::{IdlePolicy, PollerHandle, Reactor, ReactorConfig, Source, Tsc};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};

/// The cores that tests may use.
pub fn allowed() -> Vec<usize> {
    reactor::affinity::allowed().expect("readable")
}

/// A reactor with one poller.
pub fn one(idle: IdlePolicy) -> (Reactor, PollerHandle) {
    let config = ReactorConfig { cores: allowed()[..1].to_vec(), idle };
    let reactor = Reactor::start(&config).expect("started");
    let poller = reactor.pollers()[0].clone();
    (reactor, poller)
}

/// Waits for a condition that another thread brings about. There is no deadline: the test runner has one.
pub fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

/// Counts its polls where others can see them.
#[derive(Default)]
pub struct Counting {
    pub polls: Arc<AtomicU64>,
    /// What `poll` answers.
    pub work: usize,
    pub log: Vec<u64>,
    pub witness: Witness,
}

impl Source for Counting {
    fn poll(&mut self, _now: Tsc) -> usize {
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.work
    }
}

/// Part of a source: tells on which thread it was dropped.
#[derive(Default)]
pub struct Witness(Option<mpsc::Sender<ThreadId>>);

impl Witness {
    pub fn new() -> (Self, mpsc::Receiver<ThreadId>) {
        let (report, dropped_on) = mpsc::channel();
        (Self(Some(report)), dropped_on)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if let Some(report) = &self.0 {
            let _ = report.send(thread::current().id());
        }
    }
}

/// Waits until the source was polled so many times more.
pub fn polled_again(polls: &AtomicU64, times: u64) {
    let start = polls.load(Ordering::Relaxed);
    until(|| polls.load(Ordering::Relaxed) >= start + times);
}
