//! Chains are followed in rows of a kind: many at once must be what they are one by one, and a row ends where it must.

use virtqueue::{ChainBatch, Fault, FaultReason};

use crate::fixture::{BUFFERS, Dice, INDIRECT, NEIGHBOUR, NEXT, WRITE};
use crate::ring::{AVAIL, Ring, USED};

const TABLE: u64 = NEIGHBOUR + 0x1000;

/// Writes a chain of a random kind from `slot` on, in a ring of which `room` slots are free. Returns how many it takes.
fn write_chain(ring: &Ring, dice: &mut Dice, slot: u16, id: u16, room: u16) -> u16 {
    let size = ring.guest.size;
    let flags = |at: u16, own: u16| own | if at < size { AVAIL } else { USED };
    let len = |dice: &mut Dice| 1 + dice.below(64) as u32;
    if dice.below(3) == 0 {
        let entries = 1 + dice.below(6.min(u64::from(size))) as usize;
        let readable = dice.below(entries as u64 + 1) as usize;
        let direction = |entry| if entry < readable { 0 } else { WRITE };
        let table: Vec<_> = (0..entries).map(|entry| (BUFFERS, len(dice), direction(entry))).collect();
        let at = TABLE + 0x100 * u64::from(id);
        ring.write_table(at, &table);
        ring.raw.set_descriptor(slot % size, at, 16 * entries as u32, id, flags(slot, INDIRECT));
        return 1;
    }
    // One descriptor as often as several.
    let count = if dice.below(2) == 0 { 1 } else { 1 + dice.below(u64::from(room.min(7))) as u16 };
    let readable = dice.below(u64::from(count) + 1) as u16;
    for index in 0..count {
        let next = if index + 1 < count { NEXT } else { 0 };
        let write = if index < readable { 0 } else { WRITE };
        let at = slot + index;
        ring.raw.set_descriptor(at % size, BUFFERS + 64 * u64::from(index), len(dice), id, flags(at, next | write));
    }
    count
}

#[test]
fn packed_chains_of_all_kinds_are_the_same_in_rows_and_one_by_one() {
    let mut dice = Dice(61);
    let mut seen = 0;
    for turn in 0..3000u16 {
        let size = [1, 2, 3, 4, 8, 64][usize::from(turn % 6)];
        let ring = Ring::new(size);
        let start = dice.below(u64::from(size)) as u16;
        let (mut slot, mut id) = (start, 0);
        while slot < start + size {
            slot += write_chain(&ring, &mut dice, slot, id, start + size - slot);
            id += 1;
        }
        let base = u32::from(start | 0x8000);
        let [mut in_rows, mut singly] = [0, 1].map(|_| ring.device_at(base));
        let [mut many, mut one] = [0, 1].map(|_| ChainBatch::new(64, 16));
        while in_rows.pop(&ring.guest.table, 1 + dice.below(64) as usize, &mut many) > 0 {
            for chain in many.chains() {
                assert_eq!(singly.pop(&ring.guest.table, 1, &mut one), 1, "turn {turn}");
                let alone = &one.chains()[0];
                assert_eq!(chain.head, alone.head, "turn {turn}");
                assert_eq!(ring.guest.shape(&many, chain), ring.guest.shape(&one, alone), "turn {turn}");
                let descriptors = |chain: &virtqueue::Chain| (chain.readable_descriptors, chain.writable_descriptors);
                assert_eq!(descriptors(chain), descriptors(alone), "turn {turn}");
                seen += 1;
            }
        }
        assert_eq!((in_rows.fault(), singly.fault()), (None, None), "turn {turn}");
        assert_eq!((in_rows.in_flight(), in_rows.base()), (id, singly.base()), "turn {turn}");
        assert!(!in_rows.has_available() && !singly.has_available(), "turn {turn}");
    }
    assert!(seen > 10_000, "{seen} chains");
}

/// A ring of 8 of which slots 1 to 7 are in flight, at the end of a round; what the driver writes next begins in slot 0.
fn nearly_full() -> (Ring, virtqueue::packed::PackedDevice, ChainBatch) {
    let ring = Ring::new(8);
    let mut device = ring.device();
    let mut batch = ChainBatch::new(8, 16);
    (0..8).for_each(|slot| ring.raw.set_descriptor(slot, BUFFERS, 16, slot, AVAIL));
    assert_eq!(device.pop(&ring.guest.table, 8, &mut batch), 8);
    device.complete(0, 0);
    device.publish();
    (ring, device, batch)
}

#[test]
fn r19_packed_descriptors_in_flight_are_not_available_whatever_they_say() {
    for flags in [0, WRITE, INDIRECT] {
        let (ring, mut device, mut batch) = nearly_full();
        ring.write_table(TABLE, &[(BUFFERS, 16, 0)]);
        // One slot is free; the driver writes all of them again.
        (0..8).for_each(|slot| ring.raw.set_descriptor(slot, TABLE, 16, 0, flags | USED));
        assert_eq!(device.pop(&ring.guest.table, 8, &mut batch), 1);
        assert_eq!((device.in_flight(), device.fault()), (8, None));
        assert_eq!(device.pop(&ring.guest.table, 8, &mut batch), 0);
    }
}

#[test]
fn r19_packed_chain_that_goes_on_in_descriptors_in_flight_halts() {
    for count in 2..=5 {
        let (ring, mut device, mut batch) = nearly_full();
        for slot in 0..count {
            let next = if slot + 1 < count { NEXT } else { 0 };
            ring.raw.set_descriptor(slot, BUFFERS, 16, 0, next | USED);
        }
        assert_eq!(device.pop(&ring.guest.table, 8, &mut batch), 0, "{count} descriptors");
        assert_eq!(device.fault(), Some(Fault { reason: FaultReason::ChainTooLong, head: Some(0) }));
        assert_eq!(device.in_flight(), 7);
    }
}

#[test]
fn r19_packed_table_longer_than_a_tiny_ring_halts() {
    for size in 1..=3u16 {
        for more in 0..=1 {
            let ring = Ring::new(size);
            let entries = usize::from(size) + more;
            ring.write_table(TABLE, &vec![(BUFFERS, 16, 0); entries]);
            ring.raw.set_descriptor(0, TABLE, 16 * entries as u32, 0, INDIRECT | AVAIL);
            let mut device = ring.device();
            assert_eq!(device.pop(&ring.guest.table, 8, &mut ChainBatch::new(8, 16)), 1 - more);
            let fault = Fault { reason: FaultReason::ChainTooLong, head: Some(0) };
            assert_eq!(device.fault(), (more == 1).then_some(fault), "{entries} entries, ring of {size}");
        }
    }
}
