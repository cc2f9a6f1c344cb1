//! The driver side: what it writes, how descriptors come back, and what it does about a device that breaks the rules.

use virtqueue::{ChainBatch, Full, Segment, UsedFault};

use crate::fixture::{BUFFERS, Guest, INDIRECT, LOW, NEIGHBOUR, NEXT, WRITE};

/// The 16 bytes of descriptor `index` of a table.
fn descriptor(guest: &Guest, table: u64, index: u16) -> [u8; 16] {
    guest.bytes(table + 16 * u64::from(index), 16).read_array().unwrap()
}

#[test]
fn added_chain_lies_in_the_ring_as_the_specification_says() {
    let guest = Guest::new(4);
    let mut driver = guest.driver();
    let segments = [Segment::readable(0x0102_0304_0506_0708, 51), Segment::writable(BUFFERS, 0x1000)];
    assert_eq!(driver.add(&segments, 77), Ok(0));
    assert_eq!(descriptor(&guest, LOW, 0), [8, 7, 6, 5, 4, 3, 2, 1, 51, 0, 0, 0, 1, 0, 1, 0]);
    assert_eq!(descriptor(&guest, LOW, 1), [0, 0, 0x1f, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 2, 0, 0, 0]);
    assert_eq!(guest.rings().avail.read_array::<8>(), Some([0, 0, 0, 0, 0, 0, 0, 0]), "not available yet");
    driver.publish();
    assert_eq!(guest.rings().avail.read_array::<6>(), Some([0, 0, 1, 0, 0, 0]));
    assert_eq!((driver.num_free(), driver.in_flight()), (2, 1));
}

#[test]
fn added_indirect_chain_takes_one_descriptor() {
    let guest = Guest::new(4);
    let mut driver = guest.driver();
    let segments = [Segment::readable(1, 2), Segment::readable(3, 4), Segment::writable(5, 6)];
    let table = guest.bytes(NEIGHBOUR, 48);
    assert_eq!(driver.add_indirect(&segments, NEIGHBOUR, table, 5), Ok(0));
    assert_eq!(driver.num_free(), 3);
    assert_eq!(descriptor(&guest, LOW, 0), [0, 0, 0x20, 0, 0, 0, 0, 0, 48, 0, 0, 0, INDIRECT as u8, 0, 0, 0]);
    assert_eq!(descriptor(&guest, NEIGHBOUR, 0), [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, NEXT as u8, 0, 1, 0]);
    assert_eq!(descriptor(&guest, NEIGHBOUR, 1), [3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, NEXT as u8, 0, 2, 0]);
    assert_eq!(descriptor(&guest, NEIGHBOUR, 2), [5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, WRITE as u8, 0, 0, 0]);
}

#[test]
fn full_ring_refuses_and_says_what_is_missing() {
    let guest = Guest::new(4);
    let mut driver = guest.driver();
    let three = [Segment::readable(BUFFERS, 1); 3];
    driver.add(&three, 0).unwrap();
    let error = driver.add(&three, 1).unwrap_err();
    assert_eq!(error, Full { wanted: 3, free: 1 });
    assert_eq!(error.to_string(), "3 descriptors are needed, 1 are free");
    assert_eq!(driver.num_free(), 1, "a refused chain takes nothing");
    driver.add(&three[..1], 2).unwrap();
    let table = guest.bytes(NEIGHBOUR, 16);
    assert_eq!(driver.add_indirect(&three[..1], NEIGHBOUR, table, 3), Err(Full { wanted: 1, free: 0 }));
}

#[test]
fn descriptors_come_back_last_in_first_out() {
    let guest = Guest::new(8);
    let mut driver = guest.driver();
    let mut device = guest.device();
    let mut batch = ChainBatch::new(8, 8);
    let three = [Segment::readable(BUFFERS, 1); 3];
    for round in 0..10 {
        assert_eq!(driver.add(&three, round), Ok(0), "the same three each time");
        driver.publish();
        device.pop(&guest.table, 8, &mut batch);
        device.complete(0, round as u32);
        device.publish();
        let used = driver.pop_used().unwrap();
        assert_eq!((used.token, used.head, used.written), (round, 0, round as u32));
        assert_eq!(driver.num_free(), 8);
    }
}

#[test]
fn prepared_chains_are_submitted_again_and_again() {
    let guest = Guest::new(8);
    let mut driver = guest.driver();
    let mut device = guest.device();
    let mut batch = ChainBatch::new(8, 8);
    let direct = driver.prepare(&[Segment::readable(BUFFERS, 51), Segment::writable(BUFFERS + 64, 108)], 10).unwrap();
    let table = guest.bytes(NEIGHBOUR, 32);
    let segments = [Segment::readable(BUFFERS, 51), Segment::writable(BUFFERS + 64, 4096)];
    let indirect = driver.prepare_indirect(&segments, NEIGHBOUR, table, 11).unwrap();
    assert_eq!((driver.num_free(), driver.in_flight()), (5, 0));
    for _ in 0..20 {
        driver.submit(&indirect);
        driver.submit(&direct);
        driver.publish();
        assert_eq!(device.pop(&guest.table, 8, &mut batch), 2);
        let written: Vec<_> = batch.chains().iter().map(|chain| chain.writable_bytes).collect();
        assert_eq!(written, [4096, 108]);
        batch.chains().iter().rev().for_each(|chain| device.complete(chain.head, 1));
        device.publish();
        assert_eq!([driver.pop_used().unwrap().token, driver.pop_used().unwrap().token], [10, 11]);
        assert_eq!((driver.pop_used(), driver.num_free()), (None, 5));
    }
    driver.release(direct);
    driver.release(indirect);
    assert_eq!(driver.num_free(), 8);
}

#[test]
#[should_panic(expected = "head 0 submitted while it is in flight")]
fn prepared_chain_in_flight_cannot_be_submitted() {
    let guest = Guest::new(8);
    let mut driver = guest.driver();
    let chain = driver.prepare(&[Segment::readable(BUFFERS, 51)], 0).unwrap();
    driver.submit(&chain);
    driver.submit(&chain);
}

#[test]
#[should_panic(expected = "head 0 released while it is in flight")]
fn prepared_chain_in_flight_cannot_be_released() {
    let guest = Guest::new(8);
    let mut driver = guest.driver();
    let chain = driver.prepare(&[Segment::readable(BUFFERS, 51)], 0).unwrap();
    driver.submit(&chain);
    driver.release(chain);
}

#[test]
fn used_index_that_jumps_stops_the_driver() {
    let guest = Guest::new(8);
    let mut driver = guest.driver();
    driver.add(&[Segment::readable(BUFFERS, 51)], 0).unwrap();
    driver.publish();
    driver.raw().set_used_index(2);
    assert_eq!(driver.pop_used(), None);
    assert_eq!(driver.fault(), Some(UsedFault::IndexJump { index: 2, ahead: 2, in_flight: 1 }));
    assert_eq!(driver.fault().unwrap().to_string(), "used index 2: 2 entries ahead, 1 chains are in flight");
    driver.raw().set_used_index(1);
    assert_eq!(driver.pop_used(), None, "a fault is for good");
}

#[test]
fn used_entry_that_is_not_in_flight_stops_the_driver() {
    for head in [1, 8, 0x1_0000, u32::MAX] {
        let guest = Guest::new(8);
        let mut driver = guest.driver();
        driver.add(&[Segment::readable(BUFFERS, 51)], 0).unwrap();
        driver.publish();
        driver.raw().set_used_element(0, head, 0);
        driver.raw().set_used_index(1);
        assert_eq!(driver.pop_used(), None);
        assert_eq!(driver.fault(), Some(UsedFault::NotInFlight { head }));
        driver.raw().set_used_element(0, 0, 0);
        assert_eq!(driver.pop_used(), None);
        assert!(!driver.enable_calls());
    }
}

#[test]
fn used_entry_of_a_device_in_order_speaks_of_all_chains_before_it() {
    let guest = Guest::new(8);
    let mut driver = guest.driver();
    driver.expect_in_order();
    let chains: Vec<_> =
        (0..8).map(|token| driver.prepare(&[Segment::writable(BUFFERS, 100 + token as u32)], token).unwrap()).collect();
    let raw = driver.raw();
    let mut used = 0u16;
    // Batches of every size, across the end of the ring again and again, and beyond the wrap of the indices.
    for round in 0..20_000 {
        let batch = 1 + round % 7;
        let heads: Vec<u16> = (0..batch).map(|k| used.wrapping_add(k) % 8).collect();
        heads.iter().for_each(|head| driver.submit(&chains[usize::from(*head)]));
        driver.publish();
        let last = *heads.last().unwrap();
        raw.set_used_element(used, last.into(), 7);
        used = used.wrapping_add(batch);
        raw.set_used_index(used);
        for head in heads {
            let written = if head == last { 7 } else { 100 + u32::from(head) };
            let back = driver.pop_used().unwrap();
            assert_eq!((back.head, back.token, back.written), (head, usize::from(head), written));
        }
        assert_eq!((driver.pop_used(), driver.fault(), driver.in_flight()), (None, None, 0));
    }
}

#[test]
fn used_entry_of_a_device_in_order_that_is_not_among_the_oldest_stops_the_driver() {
    let guest = Guest::new(8);
    let mut driver = guest.driver();
    driver.expect_in_order();
    for token in 0..3 {
        driver.add(&[Segment::writable(BUFFERS, 1)], token).unwrap();
    }
    driver.publish();
    driver.raw().set_used_element(0, 2, 0);
    driver.raw().set_used_index(2);
    assert_eq!(driver.pop_used(), None, "two are used, and this is the third");
    assert_eq!(driver.fault(), Some(UsedFault::OutOfOrder { head: 2 }));
    let text =
        "used out of order (VIRTIO_F_IN_ORDER): head 2, while chains are in flight that were made available before it";
    assert_eq!(driver.fault().unwrap().to_string(), text);
}

#[test]
fn driver_of_a_device_in_order_takes_descriptors_in_the_order_of_the_ring() {
    let guest = Guest::new(8);
    let mut driver = guest.driver();
    driver.expect_in_order();
    let raw = driver.raw();
    let chain = [Segment::writable(BUFFERS, 1); 3];
    let mut at = 0u16;
    for round in 0..40u16 {
        let len = 1 + round % 3;
        let head = driver.add(&chain[..usize::from(len)], 0).unwrap();
        assert_eq!(head, at % 8);
        // Each link leads to the next descriptor, and from the last to the first (virtio 1.3 §2.7.5.1).
        for link in 0..len - 1 {
            let next = guest.bytes(LOW + 16 * u64::from((at + link) % 8) + 14, 2).read_array().unwrap();
            assert_eq!(u16::from_le_bytes(next), (at + link + 1) % 8, "round {round}");
        }
        at += len;
        driver.publish();
        raw.set_used_element(round, head.into(), 1);
        raw.set_used_index(round + 1);
        assert_eq!(driver.pop_used().map(|used| used.head), Some(head));
    }
}
