//! The driver side of a packed ring against a device that is written by hand.

use virtqueue::{Segment, UsedFault};

use crate::fixture::{BUFFERS, NEXT, WRITE};
use crate::ring::{AVAIL, Ring, USED};

#[test]
fn packed_chains_lie_in_the_ring_one_after_the_other_and_the_first_head_is_written_last() {
    let ring = Ring::new(4);
    let mut driver = ring.driver();
    let segments = [Segment::readable(BUFFERS, 51), Segment::writable(BUFFERS + 64, 108)];
    let first = driver.add(&segments, 10).unwrap();
    let second = driver.add(&segments[..1], 11).unwrap();
    assert_eq!(ring.raw.descriptor(0), (0, 0, 0), "not published");
    assert_eq!(ring.raw.descriptor(1), (108, first, WRITE | AVAIL));
    driver.publish();
    assert_eq!(ring.raw.descriptor(0), (51, first, NEXT | AVAIL));
    assert_eq!(ring.raw.descriptor(2), (51, second, AVAIL));
    assert_eq!((driver.num_free(), driver.in_flight()), (1, 2));
    // Used out of order: the first used descriptor lies in slot 0, the next behind as many slots as its chain had.
    ring.raw.set_descriptor(0, 0, 0, second, AVAIL | USED);
    ring.raw.set_descriptor(1, 0, 7, first, WRITE | AVAIL | USED);
    let used = [driver.pop_used().unwrap(), driver.pop_used().unwrap()];
    assert_eq!(used.map(|used| (used.token, used.head, used.written)), [(11, second, 0), (10, first, 7)]);
    assert_eq!((driver.pop_used(), driver.num_free()), (None, 4));
}

#[test]
fn packed_device_that_uses_what_is_not_in_flight_is_found_out() {
    let ring = Ring::new(4);
    let mut driver = ring.driver();
    let id = driver.add(&[Segment::readable(BUFFERS, 1)], 0).unwrap();
    driver.publish();
    ring.raw.set_descriptor(0, 0, 0, id + 1, AVAIL | USED);
    assert_eq!(driver.pop_used(), None);
    assert_eq!(driver.fault(), Some(UsedFault::NotInFlight { head: u32::from(id) + 1 }));
    ring.raw.set_descriptor(0, 0, 0, id, AVAIL | USED);
    assert_eq!(driver.pop_used(), None, "sticky");
}

#[test]
fn packed_chains_in_order_come_back_by_one_used_descriptor() {
    let ring = Ring::new(4);
    let mut driver = ring.driver();
    driver.expect_in_order();
    let chain = [Segment::writable(BUFFERS, 100)];
    let ids = [0, 1, 2].map(|token| driver.add(&chain, token).unwrap());
    driver.publish();
    ring.raw.set_descriptor(0, 0, 30, ids[1], WRITE | AVAIL | USED);
    let used = [driver.pop_used().unwrap(), driver.pop_used().unwrap()];
    assert_eq!(used.map(|used| (used.token, used.written)), [(0, 100), (1, 30)], "not named is written in full");
    assert_eq!(driver.pop_used(), None);
    ring.raw.set_descriptor(2, 0, 40, ids[2], WRITE | AVAIL | USED);
    assert_eq!(driver.pop_used().map(|used| (used.token, used.written)), Some((2, 40)));
}
