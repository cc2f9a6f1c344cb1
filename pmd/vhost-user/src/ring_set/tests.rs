//! What the control half may rely on: calls that are not lost, rings that keep nobody awake. The data path is tested
//! with the device models that use it.

use std::os::fd::AsFd;

use crossbeam::channel;
use guest_memory::{Mapping, Pages, RegionConfig, SharedMemory};
use rustix::event::{EventfdFlags, eventfd};
use virtqueue::split::{SplitDevice, SplitDriver};
use virtqueue::{Features, RingAddresses, Segment, SplitLayout};

use super::*;

pub(super) const SIZE: u16 = 8;
pub(super) const FEATURES: Features = Features { event_idx: true };

/// One writable buffer. What the device's table says of its address does not matter where nobody translates it.
pub(super) const BUFFER: Segment = Segment::writable(0, 16);

/// A ring set with one ring, which is enabled, and the memory of that ring.
pub(super) struct Rig {
    memory: SharedMemory,
    pub(super) set: RingSet,
}

impl Rig {
    fn new() -> Rig {
        let (reports, _) = channel::bounded(1);
        let mut set = RingSet::new("vm0".into(), vec![(0, Arc::default())], reports);
        set.enable(0);
        Rig { memory: SharedMemory::create("ring", 4096, Pages::Small).unwrap(), set }
    }

    pub(super) fn addresses(&self) -> RingAddresses {
        let area = |offset, len| self.memory.slice().subslice(offset, len).unwrap();
        RingAddresses {
            desc: area(0, SplitLayout::desc_len(SIZE)),
            avail: area(1024, SplitLayout::avail_len(SIZE)),
            used: area(2048, SplitLayout::used_len(SIZE)),
        }
    }

    pub(super) fn driver(&self) -> SplitDriver {
        SplitDriver::new(SIZE, self.addresses(), FEATURES).unwrap()
    }

    pub(super) fn start(&mut self, base: u16) {
        let queue = SplitDevice::new(SIZE, self.addresses(), base, FEATURES).unwrap();
        assert!(self.set.start(0, queue, None).is_none());
    }

    /// Starts the ring with a kick descriptor, from memory that the driver has laid out; the driver, and its end of the kick.
    pub(super) fn start_with_kick(&mut self) -> (SplitDriver, Notifier) {
        let driver = self.driver();
        let ours = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let theirs = Notifier::new(ours.try_clone().unwrap());
        let queue = SplitDevice::new(SIZE, self.addresses(), 0, FEATURES).unwrap();
        assert!(self.set.start(0, queue, Some(Notifier::new(ours))).is_none());
        (driver, theirs)
    }

    /// Starts it again after a stop, with a kick descriptor that it had.
    pub(super) fn restart(&mut self, base: u32, kick: &Notifier) {
        let queue = SplitDevice::new(SIZE, self.addresses(), base as u16, FEATURES).unwrap();
        drop(self.set.start(0, queue, Some(Notifier::new(kick.as_fd().try_clone_to_owned().unwrap()))));
    }

    /// Takes what is there and gives it back.
    pub(super) fn echo(&mut self) -> usize {
        let tickets = self.pop();
        let count = tickets.len();
        tickets.into_iter().for_each(|ticket| self.set.complete(ticket, 0));
        self.set.publish(0);
        count
    }

    fn pop(&mut self) -> Vec<Ticket> {
        let mut batch = ChainBatch::new(8, 64);
        self.set.pop(0, 8, &mut batch);
        batch.chains().iter().map(|chain| self.set.ticket(0, chain)).collect()
    }

    /// Time passes, and nobody uses the ring.
    fn idle(&mut self) {
        self.set.cool();
        self.set.cool();
    }

    /// Gives the ring a call descriptor and returns the front-end's end of it.
    pub(super) fn call(&mut self) -> Notifier {
        let ours = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let theirs = Notifier::new(ours.try_clone().unwrap());
        drop(self.set.set_call(0, Some(Notifier::new(ours))));
        theirs
    }
}

#[test]
fn call_descriptor_of_a_started_ring_is_signalled_when_it_is_replaced() {
    let mut rig = Rig::new();
    let early = rig.call();
    rig.start(0);
    assert_eq!(early.drain(), 0, "a ring that was never used has nothing to call for");
    let late = rig.call();
    assert_eq!((early.drain(), late.drain()), (0, 1), "what went to the old one may have been missed");
}

#[test]
fn call_descriptor_of_a_stopped_ring_is_not_signalled() {
    let mut rig = Rig::new();
    rig.start(0);
    let (back, stopped) = channel::bounded(1);
    rig.set.stop(0, back);
    assert_eq!(stopped.recv().unwrap().base, Some(0));
    let call = rig.call();
    assert_eq!(call.drain(), 0, "R15: no call after a reset");
}

#[test]
fn ring_taken_over_from_another_back_end_calls_the_driver() {
    let mut rig = Rig::new();
    let mut driver = rig.driver();
    driver.add(&[BUFFER], 0).unwrap();
    driver.publish();
    // What the back-end before us did, up to the call.
    rig.memory.slice().subslice(2048 + 2, 2).unwrap().write(&[1, 0]);
    let call = rig.call();
    rig.start(1);
    assert_eq!(call.drain(), 1);
}

#[test]
fn chains_of_a_passive_ring_are_no_reason_to_stay_awake() {
    let mut rig = Rig::new();
    rig.start(0);
    let mut driver = rig.driver();
    driver.add(&[BUFFER], 0).unwrap();
    driver.publish();
    assert!(rig.set.enable_notifications(), "a chain is available");
    rig.set.set_passive(0, true);
    assert!(!rig.set.enable_notifications());
}

/// A rig whose device can translate what the driver puts on the ring.
pub(super) fn mapped() -> Rig {
    let mut rig = Rig::new();
    let size = rig.memory.len() as u64;
    let region = RegionConfig { guest_addr: 0, size, user_addr: 0, mmap_offset: 0 };
    let table = MemTable::new(vec![Arc::new(Mapping::map(rig.memory.fd(), &region).unwrap())]).unwrap();
    let (back, _old) = channel::bounded(1);
    rig.set.swap_table(Arc::new(table), &[], back);
    rig
}

fn put(driver: &mut SplitDriver) -> bool {
    driver.add(&[BUFFER], 0).unwrap();
    driver.publish()
}

#[test]
fn ring_that_was_used_goes_cold_after_two_rounds_without_a_chain_and_then_asks_for_kicks() {
    let mut rig = mapped();
    let (mut driver, _kick) = rig.start_with_kick();
    assert_eq!((rig.set.hot(0), rig.set.is_hot(0)), (Some(0), true));
    for _ in 0..3 {
        assert!(!put(&mut driver), "a hot ring wants no kick");
        assert_eq!(rig.echo(), 1);
        rig.set.cool();
        assert!(rig.set.is_hot(0), "used since the last time");
    }
    rig.set.cool();
    assert_eq!((rig.set.hot(0), rig.set.is_hot(0)), (None, false));
    assert!(put(&mut driver), "a cold ring wants a kick");
}

#[test]
fn warm_makes_only_rings_with_chains_hot_and_counts_their_kicks() {
    let mut rig = mapped();
    let (mut driver, kick) = rig.start_with_kick();
    rig.idle();
    rig.set.warm();
    assert!(!rig.set.is_hot(0), "nothing is there");
    assert!(put(&mut driver));
    kick.signal();
    rig.set.warm();
    assert_eq!((rig.set.is_hot(0), rig.set.rings[0].stats.kicks.value()), (true, 1));
    assert!(!put(&mut driver), "hot again");
    assert_eq!(rig.echo(), 2);
}

#[test]
fn ring_with_a_chain_that_came_meanwhile_stays_hot() {
    let mut rig = mapped();
    let (mut driver, _kick) = rig.start_with_kick();
    rig.set.cool();
    assert!(!put(&mut driver));
    rig.set.cool();
    assert!(rig.set.is_hot(0));
    assert!(!put(&mut driver), "it still wants no kick");
}

#[test]
fn ring_with_chains_in_flight_stays_hot_until_they_are_published() {
    let mut rig = mapped();
    let (mut driver, _kick) = rig.start_with_kick();
    put(&mut driver);
    let tickets = rig.pop();
    (0..4).for_each(|_| rig.set.cool());
    assert!(rig.set.is_hot(0));
    tickets.into_iter().for_each(|ticket| rig.set.complete(ticket, 0));
    (0..4).for_each(|_| rig.set.cool());
    assert!(rig.set.is_hot(0), "nobody could publish them otherwise");
    rig.set.publish(0);
    rig.idle();
    assert!(!rig.set.is_hot(0));
}

#[test]
fn depth_of_a_ring_is_what_was_popped_and_neither_published_nor_put_back() {
    let mut rig = mapped();
    let (mut driver, _kick) = rig.start_with_kick();
    let stats = Arc::clone(&rig.set.rings[0].stats);
    let depth = || (stats.in_flight.value(), stats.batches());
    for _ in 0..3 {
        put(&mut driver);
    }
    let mut tickets = rig.pop();
    assert_eq!(depth(), (3, 1));
    rig.set.complete(tickets.remove(0), 0);
    rig.set.publish(0);
    assert_eq!(depth(), (2, 1));
    rig.set.put_back(0, tickets.into_iter());
    assert_eq!(depth(), (0, 1));
    let tickets = rig.pop();
    assert_eq!(depth(), (2, 2));
    tickets.into_iter().for_each(|ticket| rig.set.complete(ticket, 0));
    rig.set.publish(0);
    assert_eq!(depth(), (0, 2));
}

#[test]
fn chain_popped_from_a_cold_ring_makes_it_hot() {
    let mut rig = mapped();
    let (mut driver, _kick) = rig.start_with_kick();
    rig.idle();
    assert!(put(&mut driver));
    assert_eq!(rig.echo(), 1);
    assert!(rig.set.is_hot(0), "the driver was told to kick at that chain only");
}

#[test]
fn ring_that_is_rarely_used_starts_cold_unless_a_chain_waits() {
    for waits in [false, true] {
        let mut rig = mapped();
        rig.set.set_cold_start(0);
        let mut early = rig.driver();
        if waits {
            put(&mut early);
        }
        let kick = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let queue = SplitDevice::new(SIZE, rig.addresses(), 0, FEATURES).unwrap();
        drop(rig.set.start(0, queue, Some(Notifier::new(kick))));
        assert_eq!(rig.set.is_hot(0), waits);
        assert_eq!(put(&mut early), !waits, "whether it wants a kick");
    }
}

#[test]
fn ring_that_does_not_fetch_is_neither_hot_nor_cold() {
    let mut rig = mapped();
    let (mut driver, _kick) = rig.start_with_kick();
    rig.idle();
    let (back, disabled) = channel::bounded(1);
    rig.set.disable(0, back);
    disabled.recv().unwrap();
    put(&mut driver);
    rig.set.warm();
    assert_eq!((rig.set.is_hot(0), rig.set.rings[0].stats.cold.value()), (false, 0));
    rig.set.enable(0);
    assert!(rig.set.is_hot(0));
    let (back, stopped) = channel::bounded(1);
    rig.set.stop(0, back);
    stopped.recv().unwrap();
    assert_eq!(rig.set.hot(0), None);
}

#[test]
fn cold_ring_is_polled_again_when_the_memory_table_changes() {
    let mut rig = mapped();
    let _ = rig.start_with_kick();
    rig.idle();
    let (table, addresses) = (Arc::clone(rig.set.table()), rig.addresses());
    let (back, _old) = channel::bounded(1);
    rig.set.swap_table(Arc::clone(&table), &[(0, addresses)], back);
    assert!(rig.set.is_hot(0));
    rig.idle();
    let (back, _old) = channel::bounded(1);
    rig.set.swap_table(table, &[], back);
    rig.set.warm();
    assert_eq!((rig.set.is_hot(0), rig.set.rings[0].stats.cold.value()), (false, 0), "its memory is gone");
}
