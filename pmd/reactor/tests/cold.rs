//! Sources that go cold on a poller that stays awake: what leaves the loop, and what brings it back. Sleeping pollers are in
//! `sleep.rs`; the model of the protocol is in `src/doze/model.rs`.
#![cfg(not(loom))]

mod common;

use common::{Counting, one, polled_again, until};
use reactor::{Armed, IdlePolicy, PollerHandle, Source, SourceHandle, Tsc};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// What a driver, a device and a test share.
struct Ring {
    avail: AtomicU64,
    used: AtomicU64,
    notify: AtomicBool,
    kick: OwnedFd,
    polls: AtomicU64,
    warmed: AtomicU64,
}

impl Ring {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            avail: AtomicU64::new(0),
            used: AtomicU64::new(0),
            notify: AtomicBool::new(false),
            kick: eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"),
            polls: AtomicU64::new(0),
            warmed: AtomicU64::new(0),
        })
    }

    /// The driver's side: publish, full fence; whether the device wants a kick.
    fn publish(&self) -> bool {
        self.avail.fetch_add(1, Ordering::Release);
        fence(Ordering::SeqCst);
        self.notify.load(Ordering::Relaxed)
    }

    fn kick(&self) {
        write(&self.kick, &1u64.to_ne_bytes()).expect("kicked");
    }

    fn all_used(&self) -> bool {
        self.used.load(Ordering::Acquire) == self.avail.load(Ordering::Relaxed)
    }
}

/// The device's side.
struct Device {
    ring: Arc<Ring>,
    armed: bool,
    /// Panics when it is looked at and has work.
    nervous: bool,
}

impl Device {
    fn new(ring: &Arc<Ring>) -> Self {
        Self { ring: Arc::clone(ring), armed: false, nervous: false }
    }
}

impl Source for Device {
    fn poll(&mut self, _now: Tsc) -> usize {
        self.ring.polls.fetch_add(1, Ordering::Relaxed);
        let avail = self.ring.avail.load(Ordering::Acquire);
        (avail - self.ring.used.swap(avail, Ordering::Release)) as usize
    }

    fn arm(&mut self) -> Armed {
        assert!(!std::mem::replace(&mut self.armed, true), "armed twice");
        self.ring.notify.store(true, Ordering::Relaxed);
        Armed::Sleep
    }

    fn disarm(&mut self) {
        assert!(std::mem::take(&mut self.armed), "disarmed twice");
        self.ring.notify.store(false, Ordering::Relaxed);
    }

    fn warm(&mut self) {
        self.ring.warmed.fetch_add(1, Ordering::Relaxed);
        assert!(!self.nervous || self.ring.all_used(), "nervous");
    }

    fn wake_fds(&self, add: &mut dyn FnMut(BorrowedFd<'_>)) {
        add(self.ring.kick.as_fd());
    }
}

/// Publishes on each of them, without a kick.
fn publish_all(rings: &[Arc<Ring>]) {
    for ring in rings {
        ring.publish();
    }
}

/// Always has work, and so keeps its poller awake.
fn keep_busy(poller: &PollerHandle) -> SourceHandle<Counting> {
    poller.add(Counting { work: 1, ..Counting::default() })
}

fn cold(poller: &PollerHandle, count: u64) {
    until(|| poller.stats().cold_sources.value() == count);
}

/// Pollers that do not sleep: one may not, the other has work.
fn awake() -> [(reactor::Reactor, PollerHandle); 2] {
    [IdlePolicy::Busy, IdlePolicy::Adaptive].map(|idle| {
        let (reactor, poller) = one(idle);
        keep_busy(&poller);
        (reactor, poller)
    })
}

#[test]
fn source_that_is_idle_goes_cold_and_leaves_the_loop() {
    for (_reactor, poller) in awake() {
        let ring = Ring::new();
        poller.add(Device::new(&ring));
        cold(&poller, 1);
        let (polls, loops) = (ring.polls.load(Ordering::Relaxed), poller.stats().loops.value());
        until(|| poller.stats().loops.value() > loops + 100_000);
        let (polls, loops) = (ring.polls.load(Ordering::Relaxed) - polls, poller.stats().loops.value() - loops);
        assert!(polls < loops / 10, "{polls} polls in {loops} loops");
        assert_eq!(poller.stats().sources.value(), 2);
        assert!(ring.notify.load(Ordering::Relaxed));
    }
}

#[test]
fn kick_makes_a_cold_source_hot_again() {
    for (_reactor, poller) in awake() {
        let ring = Ring::new();
        poller.add(Device::new(&ring));
        for _ in 0..10 {
            cold(&poller, 1);
            if ring.publish() {
                ring.kick();
            }
            until(|| ring.all_used());
        }
        assert!(ring.warmed.load(Ordering::Relaxed) > 0, "its cold parts were looked at");
    }
}

#[test]
fn kicks_of_hundreds_of_cold_sources_at_once_are_all_heard() {
    for (_reactor, poller) in awake() {
        let rings: Vec<_> = (0..300).map(|_| Ring::new()).collect();
        rings.iter().for_each(|ring| drop(poller.add(Device::new(ring))));
        for _ in 0..3 {
            cold(&poller, 300);
            rings.iter().filter(|ring| ring.publish()).for_each(|ring| ring.kick());
            until(|| rings.iter().all(|ring| ring.all_used()));
        }
    }
}

#[test]
fn sweep_finds_what_nobody_kicked_for() {
    for (_reactor, poller) in awake() {
        let rings: Vec<_> = (0..20).map(|_| Ring::new()).collect();
        rings.iter().for_each(|ring| drop(poller.add(Device::new(ring))));
        cold(&poller, 20);
        publish_all(&rings);
        until(|| rings.iter().all(|ring| ring.all_used()));
    }
}

#[test]
fn sweep_looks_at_the_cold_parts_of_hot_sources() {
    let (_reactor, poller) = one(IdlePolicy::Busy);
    let rings = [Ring::new(), Ring::new(), Ring::new()];
    rings.iter().for_each(|ring| drop(poller.add(Device::new(ring))));
    // Hot, because there is always work.
    until(|| {
        publish_all(&rings);
        rings.iter().all(|ring| ring.warmed.load(Ordering::Relaxed) > 2)
    });
}

#[test]
fn wake_makes_a_poller_that_is_awake_look_at_its_cold_sources() {
    for (_reactor, poller) in awake() {
        // So many that the sweep is no help.
        let rings: Vec<_> = (0..200).map(|_| Ring::new()).collect();
        rings.iter().for_each(|ring| drop(poller.add(Device::new(ring))));
        for _ in 0..10 {
            cold(&poller, 200);
            publish_all(&rings);
            poller.wake();
            // The loop that finds the flag looks at all of them; one that is under way may have missed it.
            let loops = poller.stats().loops.value();
            until(|| poller.stats().loops.value() > loops + 2);
            assert!(rings.iter().all(|ring| ring.all_used()));
        }
    }
}

#[test]
fn wake_that_brings_no_work_leaves_sources_cold() {
    let (_reactor, poller) = one(IdlePolicy::Busy);
    let ring = Ring::new();
    poller.add(Device::new(&ring));
    cold(&poller, 1);
    let polls = ring.polls.load(Ordering::Relaxed);
    poller.wake();
    polled_again(&ring.polls, 1);
    assert!(ring.polls.load(Ordering::Relaxed) > polls);
    cold(&poller, 1);
}

#[test]
fn job_meets_a_cold_source_disarmed_and_hot() {
    for (_reactor, poller) in awake() {
        let ring = Ring::new();
        let device = poller.add(Device::new(&ring));
        for _ in 0..5 {
            cold(&poller, 1);
            assert_eq!(device.call(|device| device.armed), Ok(false));
        }
        cold(&poller, 1);
        let device = device.remove().expect("there");
        assert!(!device.armed && !ring.notify.load(Ordering::Relaxed));
        cold(&poller, 0);
    }
}

#[test]
fn source_without_notifications_stays_hot() {
    let (_reactor, poller) = one(IdlePolicy::Busy);
    let restless = Counting::default();
    let polls = Arc::clone(&restless.polls);
    poller.add(restless);
    poller.add(Device::new(&Ring::new()));
    cold(&poller, 1);
    polled_again(&polls, 100_000);
    assert_eq!(poller.stats().cold_sources.value(), 1);
}

/// Shows an fd that cannot be watched.
struct Unwatchable(std::fs::File, Arc<AtomicU64>);

impl Source for Unwatchable {
    fn poll(&mut self, _now: Tsc) -> usize {
        0
    }

    fn arm(&mut self) -> Armed {
        Armed::Sleep
    }

    fn cool(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }

    fn wake_fds(&self, add: &mut dyn FnMut(BorrowedFd<'_>)) {
        add(self.0.as_fd());
    }
}

#[test]
fn source_whose_fd_cannot_be_watched_stays_hot_with_all_its_parts() {
    let (_reactor, poller) = one(IdlePolicy::Busy);
    let cooled = Arc::new(AtomicU64::new(0));
    let file = std::fs::File::open("/proc/self/exe").expect("a regular file");
    poller.add(Unwatchable(file, Arc::clone(&cooled)));
    let ring = Ring::new();
    for _ in 0..3 {
        poller.add(Device::new(&ring)).remove().map_err(|_| ()).expect("there");
        poller.add(Device::new(&Ring::new()));
    }
    cold(&poller, 3);
    assert_eq!((cooled.load(Ordering::Relaxed), poller.stats().sources.value()), (0, 4));
}

#[test]
fn cold_source_that_panics_when_kicked_takes_no_kick_of_its_neighbours_along() {
    for (_reactor, poller) in awake() {
        // Too many for the sweep to be quick.
        let rings: Vec<_> = (0..40).map(|_| Ring::new()).collect();
        for (index, ring) in rings.iter().enumerate() {
            poller.add(Device { nervous: index % 4 == 0, ..Device::new(ring) });
        }
        cold(&poller, 40);
        publish_all(&rings);
        rings.iter().for_each(|ring| ring.kick());
        let calm = || rings.iter().enumerate().filter(|(index, _)| index % 4 != 0);
        until(|| calm().all(|(_, ring)| ring.all_used()));
        until(|| poller.stats().panics.value() == 10);
        cold(&poller, 30);
    }
}

#[test]
fn shutdown_returns_cold_sources_disarmed() {
    let (reactor, poller) = one(IdlePolicy::Busy);
    let rings = [Ring::new(), Ring::new()];
    rings.iter().for_each(|ring| drop(poller.add(Device::new(ring))));
    cold(&poller, 2);
    assert_eq!(reactor.shutdown().len(), 2);
    assert!(rings.iter().all(|ring| !ring.notify.load(Ordering::Relaxed)));
}
