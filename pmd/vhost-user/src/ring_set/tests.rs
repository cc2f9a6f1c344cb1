//! What the control half may rely on: calls that are not lost, rings that keep nobody awake. The data path is tested
//! with the device models that use it.

use crossbeam::channel;
use guest_memory::{Pages, SharedMemory};
use rustix::event::{EventfdFlags, eventfd};
use virtqueue::split::SplitDriver;
use virtqueue::{Features, RingAddresses, Segment, SplitLayout};

use super::*;

const SIZE: u16 = 8;
const FEATURES: Features = Features { event_idx: true };

/// A ring set with one ring, which is enabled, and the memory of that ring.
struct Rig {
    memory: SharedMemory,
    set: RingSet,
}

impl Rig {
    fn new() -> Rig {
        let (reports, _) = channel::bounded(1);
        let mut set = RingSet::new("vm0".into(), vec![(0, Arc::default())], reports);
        set.enable(0);
        Rig { memory: SharedMemory::create("ring", 4096, Pages::Small).unwrap(), set }
    }

    fn addresses(&self) -> RingAddresses {
        let area = |offset, len| self.memory.slice().subslice(offset, len).unwrap();
        RingAddresses {
            desc: area(0, SplitLayout::desc_len(SIZE)),
            avail: area(1024, SplitLayout::avail_len(SIZE)),
            used: area(2048, SplitLayout::used_len(SIZE)),
        }
    }

    fn driver(&self) -> SplitDriver {
        SplitDriver::new(SIZE, self.addresses(), FEATURES).unwrap()
    }

    fn start(&mut self, base: u16) {
        let queue = SplitDevice::new(SIZE, self.addresses(), base, FEATURES).unwrap();
        assert!(self.set.start(0, queue, None).is_none());
    }

    /// Gives the ring a call descriptor and returns the front-end's end of it.
    fn call(&mut self) -> Notifier {
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
    driver.add(&[Segment::writable(0, 16)], 0).unwrap();
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
    driver.add(&[Segment::writable(0, 16)], 0).unwrap();
    driver.publish();
    assert!(rig.set.enable_notifications(), "a chain is available");
    rig.set.set_passive(0, true);
    assert!(!rig.set.enable_notifications());
}
