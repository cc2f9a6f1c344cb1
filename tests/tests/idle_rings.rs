//! Rings on pollers that sleep, and rings that go cold: no kick is lost, and no chain. A device that gives every chain back at
//! once, over real shared memory and real eventfds; that the order of steps is right in every interleaving is `reactor`'s loom
//! model, and the whole target does the same in `live_idle.rs`.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crossbeam::channel;
use guest_memory::{GuestSlice, Mapping, MemTable, Pages, RegionConfig, SharedMemory};
use reactor::{Armed, IdlePolicy, PollerHandle, Reactor, ReactorConfig, Source, SourceHandle, Tsc};
use rustix::event::{EventfdFlags, eventfd};
use tests::live::rig::cores;
use tests::live::{PATIENCE, until, wait_readable};
use vhost_user::{Notifier, RingSet, RingStats};
use virtqueue::split::{SplitDevice, SplitDriver};
use virtqueue::{ChainBatch, Features, RingAddresses, Segment, SplitLayout};

const SIZE: u16 = 16;
/// Bytes of shared memory for each ring, and where its parts are; the last is the buffer.
const AREA: usize = 4096;
const AVAIL: usize = 1024;
const USED: usize = 2048;
const BUFFER: usize = 3072;

/// Gives every chain back at once.
struct Echo {
    rings: RingSet,
    batch: ChainBatch,
}

impl Source for Echo {
    fn poll(&mut self, _now: Tsc) -> usize {
        let (mut work, mut at) = (0, 0);
        while let Some(slot) = self.rings.hot(at) {
            let popped = self.rings.pop(slot, 8, &mut self.batch);
            for chain in self.batch.chains() {
                let ticket = self.rings.ticket(slot, chain);
                self.rings.complete(ticket, 0);
            }
            self.rings.publish(slot);
            (work, at) = (work + popped, at + 1);
        }
        self.rings.settle(work > 0);
        work
    }

    fn arm(&mut self) -> Armed {
        match self.rings.enable_notifications() {
            true => Armed::Ready,
            false if self.rings.can_sleep() => Armed::Sleep,
            false => Armed::MustPoll { deadline: None },
        }
    }

    fn disarm(&mut self) {
        self.rings.disable_notifications();
    }

    fn cool(&mut self) {
        self.rings.cool();
    }

    fn warm(&mut self) {
        self.rings.warm();
    }

    fn wake_fds(&self, add: &mut dyn FnMut(BorrowedFd<'_>)) {
        self.rings.kicks(add);
    }

    fn fds_generation(&self) -> u64 {
        self.rings.kicks_generation()
    }
}

/// The driver's end of one ring.
struct Driver {
    ring: SplitDriver,
    segment: Segment,
    kick: Notifier,
    call: OwnedFd,
    stats: Arc<RingStats>,
}

impl Driver {
    /// Puts a chain on the ring; whether the device wants to be kicked.
    fn submit(&mut self) -> bool {
        self.ring.add(&[self.segment], 0).unwrap();
        self.ring.publish()
    }

    fn kick(&self) {
        assert!(self.kick.signal());
    }

    /// Sleeps until the device calls, and takes the chain back.
    #[track_caller]
    fn wait(&mut self, what: impl Fn() -> String) {
        loop {
            if self.ring.pop_used().is_some() {
                return;
            }
            if !self.ring.enable_calls() {
                assert!(wait_readable(&self.call), "{}: no call within {PATIENCE:?}, a wake-up was lost", what());
                rustix::io::read(&self.call, &mut [0; 8]).unwrap();
            }
        }
    }

    /// One chain there and back, with a kick if the device wants one.
    #[track_caller]
    fn round_trip(&mut self) {
        if self.submit() {
            self.kick();
        }
        self.wait(|| "a round trip".into());
    }

    fn is_cold(&self) -> bool {
        self.stats.cold.value() == 1
    }
}

/// A front-end: its memory, and the drivers of its rings.
struct Front {
    drivers: Vec<Driver>,
    echo: SourceHandle<Echo>,
    _memory: SharedMemory,
}

impl Front {
    /// So many rings, as one source on the poller.
    fn attach(poller: &PollerHandle, rings: u16, features: Features) -> Front {
        let memory = SharedMemory::create("rings", AREA * usize::from(rings), Pages::Small).unwrap();
        let region = RegionConfig { guest_addr: 0, size: memory.len() as u64, user_addr: 0, mmap_offset: 0 };
        let table = Arc::new(MemTable::new(vec![Arc::new(Mapping::map(memory.fd(), &region).unwrap())]).unwrap());
        let stats: Vec<(u16, Arc<RingStats>)> = (0..rings).map(|ring| (ring, Arc::default())).collect();
        let (reports, _) = channel::bounded(1);
        let mut set = RingSet::new("echo".into(), stats.clone(), reports);
        let (back, _old) = channel::bounded(1);
        set.swap_table(Arc::clone(&table), &[], back);
        let mut drivers = Vec::new();
        for (ring, stats) in stats {
            let area = AREA * usize::from(ring);
            let ours = addresses(|at, len| memory.slice().subslice(area + at, len));
            let theirs = addresses(|at, len| table.translate((area + at) as u64, len as u32));
            let driver = SplitDriver::new(SIZE, ours, features).unwrap();
            let (kick, call) = (event(), event());
            let device = SplitDevice::new(SIZE, theirs, 0, features).unwrap();
            set.start(ring, device, Some(Notifier::new(kick.try_clone().unwrap())));
            set.set_call(ring, Some(Notifier::new(call.try_clone().unwrap())));
            set.enable(ring);
            let segment = Segment::writable((area + BUFFER) as u64, 16);
            drivers.push(Driver { ring: driver, segment, kick: Notifier::new(kick), call, stats });
        }
        let echo = poller.add(Echo { rings: set, batch: ChainBatch::new(8, 64) });
        Front { drivers, echo, _memory: memory }
    }
}

fn addresses(part: impl Fn(usize, usize) -> Option<GuestSlice>) -> RingAddresses {
    RingAddresses {
        desc: part(0, SplitLayout::desc_len(SIZE)).unwrap(),
        avail: part(AVAIL, SplitLayout::avail_len(SIZE)).unwrap(),
        used: part(USED, SplitLayout::used_len(SIZE)).unwrap(),
    }
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

fn start(idle: IdlePolicy) -> (Reactor, PollerHandle) {
    let reactor = Reactor::start(&ReactorConfig { cores: cores(1).unwrap(), idle }).unwrap();
    let poller = reactor.pollers()[0].clone();
    (reactor, poller)
}

/// Each cycle meets a poller that has gone to sleep, or is about to block: `sleeps` is counted just before.
fn sleep_and_wake(event_idx: bool) {
    const CYCLES: u64 = 100_000;
    let (_reactor, poller) = start(IdlePolicy::Adaptive);
    let mut front = Front::attach(&poller, 1, Features { event_idx });
    let stats = poller.stats();
    let driver = &mut front.drivers[0];
    // A poller with nothing to poll sleeps, too, and then no ring is armed: those sleeps do not count. Nor can they be counted
    // from here, since it may fall asleep again meanwhile.
    let before = poller.clone();
    let mut slept = front.echo.call(move |_| before.stats().sleeps.value()).unwrap();
    for cycle in 0..CYCLES {
        until("the poller falls asleep", || stats.sleeps.value() > slept);
        slept = stats.sleeps.value();
        assert!(driver.submit(), "cycle {cycle}: a sleeping device wants to be kicked");
        driver.kick();
        driver.wait(|| format!("cycle {cycle} of {CYCLES}, {slept} sleeps, {} wake-ups", stats.wakeups.value()));
    }
    assert!(stats.sleeps.value() >= CYCLES);
    assert!(stats.wakeups.value() + 1 >= CYCLES, "{} wake-ups", stats.wakeups.value());
    assert_eq!(driver.stats.chains.value(), CYCLES);
}

#[test]
fn adaptive_idle_loses_no_wake_up_in_100_000_sleeps_with_event_indices() {
    sleep_and_wake(true);
}

#[test]
fn adaptive_idle_loses_no_wake_up_in_100_000_sleeps_with_flags() {
    sleep_and_wake(false);
}

/// Always has work, and so keeps its poller awake.
struct Restless;

impl Source for Restless {
    fn poll(&mut self, _now: Tsc) -> usize {
        1
    }
}

/// Pollers that do not sleep: one may not, the other has work.
fn awake() -> [(Reactor, PollerHandle); 2] {
    [IdlePolicy::Busy, IdlePolicy::Adaptive].map(|idle| {
        let (reactor, poller) = start(idle);
        poller.add(Restless);
        (reactor, poller)
    })
}

const BOTH: [Features; 2] = [Features { event_idx: false }, Features { event_idx: true }];

#[test]
fn cold_ring_is_answered_by_a_poller_that_is_awake_when_it_is_kicked() {
    const CYCLES: u64 = 10;
    for ((_reactor, poller), features) in awake().into_iter().zip(BOTH) {
        let mut front = Front::attach(&poller, 3, features);
        for _ in 0..CYCLES {
            until("all rings go cold", || front.drivers.iter().all(Driver::is_cold));
            until("the source goes cold", || poller.stats().cold_sources.value() == 1);
            for driver in &mut front.drivers {
                driver.round_trip();
            }
        }
        // What a driver did not need to kick for was found by chance, by the sweep.
        let kicks: u64 = front.drivers.iter().map(|driver| driver.stats.kicks.value()).sum();
        assert!((1..=3 * CYCLES).contains(&kicks), "{kicks} kicks");
    }
}

#[test]
fn cold_ring_is_answered_while_another_ring_of_its_device_is_busy() {
    for features in BOTH {
        let (_reactor, poller) = start(IdlePolicy::Busy);
        let mut front = Front::attach(&poller, 3, features);
        let (busy, idle) = front.drivers.split_at_mut(1);
        let mut answered = 0;
        while answered < 10 {
            busy[0].round_trip();
            if idle[0].is_cold() {
                idle[0].round_trip();
                answered += 1;
            }
        }
        assert_eq!(idle[1].stats.kicks.value(), 0, "nobody kicked the third ring");
    }
}

#[test]
fn chains_of_a_driver_that_never_kicks_are_found_on_cold_rings_and_on_hot_ones() {
    for ((_reactor, poller), features) in awake().into_iter().zip(BOTH) {
        let mut front = Front::attach(&poller, 4, features);
        // Neighbours that have their turn in the sweep, too.
        let _others: Vec<_> = (0..10).map(|_| Front::attach(&poller, 1, features)).collect();
        for _ in 0..5 {
            until("all rings go cold", || front.drivers.iter().all(Driver::is_cold));
            until("all sources go cold", || poller.stats().cold_sources.value() == 11);
            for driver in &mut front.drivers {
                let _kick_not_sent = driver.submit();
                driver.wait(|| "a ring that is not kicked".into());
            }
        }
        assert!(front.drivers.iter().all(|driver| driver.stats.kicks.value() == 0));
    }
}

#[test]
fn cold_ring_whose_kick_descriptor_is_exchanged_hears_the_new_one() {
    let (_reactor, poller) = start(IdlePolicy::Busy);
    let mut front = Front::attach(&poller, 1, Features { event_idx: true });
    for _ in 0..5 {
        until("the ring goes cold", || front.drivers[0].is_cold());
        let kick = event();
        let theirs = Some(Notifier::new(kick.try_clone().unwrap()));
        let exchange = move |echo: &mut Echo| (echo.rings.set_kick(0, theirs), echo.rings.is_hot(0));
        let (_old, hot) = front.echo.call(exchange).unwrap();
        assert!(hot, "polled until the new one is watched");
        front.drivers[0].kick = Notifier::new(kick);
        until("the ring goes cold again", || front.drivers[0].is_cold());
        front.drivers[0].round_trip();
    }
}

#[test]
fn ring_without_a_kick_descriptor_stays_hot() {
    let (_reactor, poller) = start(IdlePolicy::Adaptive);
    let mut front = Front::attach(&poller, 2, Features { event_idx: true });
    drop(front.echo.call(|echo| echo.rings.set_kick(0, None)).unwrap());
    until("the other ring goes cold", || front.drivers[1].is_cold());
    for _ in 0..100 {
        let _kick_that_cannot_be = front.drivers[0].submit();
        front.drivers[0].wait(|| "a ring that cannot be kicked".into());
    }
    assert!(!front.drivers[0].is_cold());
}
