//! Adaptive pollers: when they sleep, what wakes them, and that no wakeup is lost. The model of the protocol is in
//! `src/doze/model.rs`; here it meets a kernel.
#![cfg(not(loom))]

mod common;

use common::{Counting, one, until};
use reactor::{Armed, IdlePolicy, PollerHandle, Source, SourceHandle, Tsc};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, mpsc};
use std::thread;

/// What a driver and a device share of a ring: how much was submitted, and whether to kick.
struct Ring {
    avail: AtomicU64,
    notify: AtomicBool,
    kick: OwnedFd,
}

impl Ring {
    fn new() -> Arc<Self> {
        let kick = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
        Arc::new(Self { avail: AtomicU64::new(0), notify: AtomicBool::new(false), kick })
    }

    /// The driver's side: publish, full fence, kick if asked to.
    fn submit(&self) {
        self.avail.fetch_add(1, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.notify.load(Ordering::Relaxed) {
            write(&self.kick, &1u64.to_ne_bytes()).expect("kicked");
        }
    }
}

/// The device's side: reports every chain it has seen.
struct Device {
    ring: Arc<Ring>,
    used: u64,
    seen: mpsc::Sender<u64>,
}

impl Device {
    fn new(ring: &Arc<Ring>) -> (Self, mpsc::Receiver<u64>) {
        let (seen, reports) = mpsc::channel();
        (Self { ring: Arc::clone(ring), used: 0, seen }, reports)
    }
}

impl Source for Device {
    fn poll(&mut self, _now: Tsc) -> usize {
        let avail = self.ring.avail.load(Ordering::Acquire);
        let new = avail - std::mem::replace(&mut self.used, avail);
        if new > 0 {
            let _ = self.seen.send(avail);
        }
        new as usize
    }

    fn arm(&mut self) -> Armed {
        self.ring.notify.store(true, Ordering::Relaxed);
        Armed::Sleep
    }

    fn disarm(&mut self) {
        self.ring.notify.store(false, Ordering::Relaxed);
    }

    fn wake_fds(&self, add: &mut dyn FnMut(BorrowedFd<'_>)) {
        add(self.ring.kick.as_fd());
    }
}

/// Waits until the poller has gone to sleep and nothing has woken it yet. Not for pollers with deadlines.
fn asleep(poller: &PollerHandle) {
    let stats = poller.stats();
    until(|| stats.sleeps.value() > stats.wakeups.value());
}

#[test]
fn kicks_of_ten_thousand_cycles_are_all_heard() {
    let (_reactor, poller) = one(IdlePolicy::Adaptive);
    let ring = Ring::new();
    let (device, reports) = Device::new(&ring);
    poller.add(device);
    let mut pause = 1u64;
    for cycle in 1..=10_000 {
        // Every fourth cycle kicks a sleeper; the others land anywhere between polling and sleeping.
        pause = pause.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if cycle % 4 == 0 {
            asleep(&poller);
        } else {
            (0..pause >> 51).for_each(|_| std::hint::spin_loop());
        }
        ring.submit();
        assert_eq!(reports.recv(), Ok(cycle));
    }
    let stats = poller.stats();
    assert!(stats.sleeps.value() >= 2_500 && stats.wakeups.value() >= 2_499);
}

#[test]
fn jobs_of_ten_thousand_cycles_are_all_heard() {
    let (_reactor, poller) = one(IdlePolicy::Adaptive);
    let (device, _reports) = Device::new(&Ring::new());
    let handle = poller.add(device);
    let mut pause = 1u64;
    for _ in 0..10_000 {
        pause = pause.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (0..pause >> 51).for_each(|_| std::hint::spin_loop());
        handle.call(|_| ()).expect("there");
    }
}

#[test]
fn wake_makes_a_sleeper_poll() {
    let (_reactor, poller) = one(IdlePolicy::Adaptive);
    let ring = Ring::new();
    let (device, reports) = Device::new(&ring);
    poller.add(device);
    for cycle in 1..=100 {
        asleep(&poller);
        // Published behind the back of the device: no kick.
        ring.avail.fetch_add(1, Ordering::Release);
        poller.wake();
        assert_eq!(reports.recv(), Ok(cycle));
    }
}

#[test]
fn sleep_that_ends_disarms_every_source() {
    let (_reactor, poller) = one(IdlePolicy::Adaptive);
    let rings = [Ring::new(), Ring::new(), Ring::new()];
    let devices: Vec<_> = rings.iter().map(|ring| poller.add(Device::new(ring).0)).collect();
    until(|| rings.iter().all(|ring| ring.notify.load(Ordering::Relaxed)));
    let armed = devices[0].call({
        let rings = rings.clone();
        move |_| rings.iter().any(|ring| ring.notify.load(Ordering::Relaxed))
    });
    assert_eq!(armed, Ok(false));
}

/// Holds the times that its poller accounts for against the clock.
struct Auditor {
    poller: PollerHandle,
    /// The first moment seen, and what was accounted for until then.
    start: Option<(Tsc, u64)>,
    armed: bool,
    audits: u64,
}

impl Source for Auditor {
    fn poll(&mut self, now: Tsc) -> usize {
        // The look before a sleep lies within a loop: nothing is accounted for there.
        if self.armed {
            return 0;
        }
        let stats = self.poller.stats();
        let times = [&stats.busy_ticks, &stats.idle_ticks, &stats.asleep_ticks];
        let accounted = times.map(|ticks| ticks.value()).iter().sum::<u64>();
        let (start, before) = *self.start.get_or_insert((now, accounted));
        assert_eq!(accounted - before, now - start);
        self.audits += 1;
        0
    }

    fn arm(&mut self) -> Armed {
        self.armed = true;
        Armed::Sleep
    }

    fn disarm(&mut self) {
        self.armed = false;
    }
}

#[test]
fn times_busy_idle_and_asleep_add_up() {
    let (_reactor, poller) = one(IdlePolicy::Adaptive);
    let auditor = Auditor { poller: poller.clone(), start: None, armed: false, audits: 0 };
    let auditor = poller.add(auditor);
    let mut audits = 0;
    for _ in 0..100 {
        asleep(&poller);
        audits = auditor.call(|auditor| auditor.audits).expect("every audit found the times right");
    }
    let stats = poller.stats();
    until(|| stats.asleep.value() == 1);
    assert!(audits > 0 && stats.sleeps.value() >= 99);
    assert!([&stats.busy_ticks, &stats.idle_ticks, &stats.asleep_ticks].iter().all(|ticks| ticks.value() > 0));
}

#[test]
fn source_without_notifications_keeps_its_poller_awake() {
    let (_reactor, poller) = one(IdlePolicy::Adaptive);
    let (device, _reports) = Device::new(&Ring::new());
    poller.add(device);
    asleep(&poller);
    let restless = poller.add(Counting::default());
    let polls = restless.call(|source| Arc::clone(&source.polls)).expect("there");
    let sleeps = poller.stats().sleeps.value();
    common::polled_again(&polls, 20_000);
    assert_eq!(poller.stats().sleeps.value(), sleeps);
    restless.remove().expect("there");
    until(|| poller.stats().sleeps.value() > sleeps);
}

/// Has nothing but a moment at which it wants to be polled, again and again.
struct Timer {
    deadline: Tsc,
    period: u64,
    late: mpsc::Sender<(Tsc, Tsc)>,
}

impl Source for Timer {
    fn poll(&mut self, now: Tsc) -> usize {
        if now < self.deadline {
            return 0;
        }
        let _ = self.late.send((self.deadline, now));
        self.deadline = now + self.period;
        1
    }

    fn arm(&mut self) -> Armed {
        Armed::MustPoll { deadline: Some(self.deadline) }
    }
}

#[test]
fn deadline_of_a_source_ends_the_sleep() {
    let (_reactor, poller) = one(IdlePolicy::Adaptive);
    let (late, polls) = mpsc::channel();
    let period = Tsc::ticks(500_000);
    poller.add(Timer { deadline: Tsc::now() + period, period, late });
    let (device, _reports) = Device::new(&Ring::new());
    poller.add(device);
    for _ in 0..20 {
        let (deadline, now) = polls.recv().expect("polled in time");
        assert!(now >= deadline);
    }
    let stats = poller.stats();
    assert!(stats.sleeps.value() > stats.wakeups.value(), "some sleeps met their deadline");
}

#[test]
fn deadline_too_near_to_sleep_is_met_awake() {
    let (_reactor, poller) = one(IdlePolicy::Adaptive);
    let (late, polls) = mpsc::channel();
    let period = Tsc::ticks(10_000);
    let timer = poller.add(Timer { deadline: Tsc::now() + period, period, late });
    timer.call(|_| ()).expect("there");
    let sleeps = poller.stats().sleeps.value();
    for _ in 0..1_000 {
        polls.recv().expect("polled in time");
    }
    assert_eq!(poller.stats().sleeps.value(), sleeps);
}

/// A device whose kick fd can be exchanged while it runs.
struct Rewired {
    device: Device,
    generation: u64,
}

impl Source for Rewired {
    fn poll(&mut self, now: Tsc) -> usize {
        self.device.poll(now)
    }

    fn arm(&mut self) -> Armed {
        self.device.arm()
    }

    fn disarm(&mut self) {
        self.device.disarm();
    }

    fn wake_fds(&self, add: &mut dyn FnMut(BorrowedFd<'_>)) {
        self.device.wake_fds(add);
    }

    fn fds_generation(&self) -> u64 {
        self.generation
    }
}

#[test]
fn fd_set_that_changed_is_read_again() {
    let (_reactor, poller) = one(IdlePolicy::Adaptive);
    let old = Ring::new();
    let (device, old_reports) = Device::new(&old);
    let handle = poller.add(Rewired { device, generation: 0 });
    asleep(&poller);
    old.submit();
    assert_eq!(old_reports.recv(), Ok(1));
    let new = Ring::new();
    let (device, reports) = Device::new(&new);
    handle.run(|source| *source = Rewired { device, generation: 1 });
    for cycle in 1..=10 {
        asleep(&poller);
        new.submit();
        assert_eq!(reports.recv(), Ok(cycle));
    }
}

/// Shows an fd that epoll does not take.
struct Unwatchable(std::fs::File);

impl Source for Unwatchable {
    fn poll(&mut self, _now: Tsc) -> usize {
        0
    }

    fn arm(&mut self) -> Armed {
        Armed::Sleep
    }

    fn wake_fds(&self, add: &mut dyn FnMut(BorrowedFd<'_>)) {
        add(self.0.as_fd());
    }
}

#[test]
fn source_whose_fd_cannot_be_watched_keeps_its_poller_awake() {
    let (_reactor, poller) = one(IdlePolicy::Adaptive);
    let file = std::fs::File::open("/proc/self/exe").expect("a regular file");
    let handle = poller.add(Unwatchable(file));
    handle.call(|_| ()).expect("there");
    let (sleeps, loops) = (poller.stats().sleeps.value(), poller.stats().loops.value());
    until(|| poller.stats().loops.value() > loops + 20_000);
    assert_eq!(poller.stats().sleeps.value(), sleeps);
}

/// Panics when asked to arm or to disarm.
struct Nervous {
    arm: bool,
}

impl Source for Nervous {
    fn poll(&mut self, _now: Tsc) -> usize {
        0
    }

    fn arm(&mut self) -> Armed {
        assert!(!self.arm, "in arm");
        Armed::Sleep
    }

    fn disarm(&mut self) {
        panic!("in disarm");
    }
}

#[test]
fn source_that_panics_on_the_way_to_sleep_leaves_a_poller_that_sleeps_and_wakes() {
    let (_reactor, poller) = one(IdlePolicy::Adaptive);
    let ring = Ring::new();
    let (device, reports) = Device::new(&ring);
    poller.add(device);
    let nervous: [SourceHandle<Nervous>; 3] = [true, false, false].map(|arm| poller.add(Nervous { arm }));
    until(|| {
        poller.wake();
        poller.stats().panics.value() == 3
    });
    assert!(nervous.iter().all(|handle| handle.call(|_| ()).is_err()));
    for cycle in 1..=100 {
        asleep(&poller);
        ring.submit();
        assert_eq!(reports.recv(), Ok(cycle));
    }
}

#[test]
fn busy_poller_never_sleeps() {
    let (_reactor, poller) = one(IdlePolicy::Busy);
    let ring = Ring::new();
    let (device, reports) = Device::new(&ring);
    let handle = poller.add(device);
    handle.call(|_| ()).expect("there");
    let start = Tsc::now();
    until(|| Tsc::now() - start > Tsc::ticks(2_000_000));
    ring.submit();
    assert_eq!(reports.recv(), Ok(1));
    assert_eq!((poller.stats().sleeps.value(), poller.stats().asleep_ticks.value()), (0, 0));
}

#[test]
fn shutdown_wakes_a_sleeper() {
    let (reactor, poller) = one(IdlePolicy::Adaptive);
    let (device, _reports) = Device::new(&Ring::new());
    poller.add(device);
    asleep(&poller);
    let left = thread::spawn(|| reactor.shutdown().len()).join().expect("shut down");
    assert_eq!(left, 1);
}
