//! One used descriptor for a run of chains that are used in order (virtio 1.3 §2.8.9), where the device writes: each chain but
//! the last of a run was written in full, because that is what a driver takes those for that are not named.

use std::iter;

use virtqueue::{ChainBatch, DeviceQueue, RingFormat};

use crate::fixture::{BUFFERS, WRITE};
use crate::ring::{AVAIL, Ring, USED};

/// Chains of 16 writable bytes, one in each slot; the id of each is 10 less its slot.
fn ring_of(chains: u16) -> (Ring, DeviceQueue, ChainBatch) {
    let ring = Ring::new(16);
    let rings = ring.guest.rings_of(RingFormat::Packed);
    let mut device = DeviceQueue::new(RingFormat::Packed, 16, rings, 0x8000, ring.guest.features).unwrap().in_order();
    let mut batch = ChainBatch::new(16, 16);
    (0..chains).for_each(|slot| ring.raw.set_descriptor(slot, BUFFERS, 16, 10 - slot, WRITE | AVAIL));
    assert_eq!(device.pop(&ring.guest.table, 16, &mut batch), usize::from(chains));
    (ring, device, batch)
}

/// Slot, length and id of the used descriptors.
fn used(ring: &Ring) -> Vec<(u16, u32, u16)> {
    let descriptors = (0..16).map(|slot| (slot, ring.raw.descriptor(slot)));
    descriptors.filter(|(_, (.., flags))| flags & USED != 0).map(|(slot, (len, id, _))| (slot, len, id)).collect()
}

#[test]
fn packed_run_of_chains_written_in_full_comes_back_by_one_used_descriptor() {
    let (ring, mut device, batch) = ring_of(4);
    device.complete_popped(batch.chains(), iter::repeat(16));
    assert_eq!(used(&ring), [], "not before it is published");
    device.publish();
    assert_eq!(used(&ring), [(0, 16, 7)]);
    // The next one goes on behind all of them.
    ring.raw.set_descriptor(4, BUFFERS, 16, 10, WRITE | AVAIL);
    let mut batch = ChainBatch::new(16, 16);
    assert_eq!(device.pop(&ring.guest.table, 16, &mut batch), 1);
    device.complete(10, 3);
    device.publish();
    assert_eq!(used(&ring), [(0, 16, 7), (4, 3, 10)]);
}

#[test]
fn packed_chain_that_was_written_in_part_ends_its_run() {
    let (ring, mut device, batch) = ring_of(7);
    // In one go, and one by one: the runs are the same.
    device.complete_popped(&batch.chains()[..4], [16, 5, 16, 16].into_iter());
    [(6, 16), (5, 0), (4, 9)].into_iter().for_each(|(head, written)| device.complete(head, written));
    device.publish();
    assert_eq!(used(&ring), [(0, 5, 9), (2, 0, 5), (6, 9, 4)]);
}

#[test]
fn packed_chains_that_waited_for_an_older_one_come_back_with_it() {
    let (ring, mut device, _) = ring_of(5);
    [9, 7, 8].into_iter().for_each(|head| device.complete(head, 16));
    assert_eq!((device.unpublished(), device.in_flight(), device.publish()), (0, 5, false));
    device.complete(10, 16);
    assert_eq!((device.unpublished(), device.in_flight()), (4, 1));
    device.publish();
    assert_eq!(used(&ring), [(0, 16, 7)], "one used descriptor, and none for the last chain");
    let DeviceQueue::InOrder(device) = &mut device else { unreachable!() };
    assert_eq!([device.take_late(), device.take_late()], [3, 0]);
}

#[test]
#[should_panic(expected = "chain 9 completed, but not in flight")]
fn packed_chain_that_waits_cannot_be_completed_again() {
    let (_ring, mut device, _) = ring_of(3);
    device.complete(9, 16);
    device.complete(9, 16);
}
