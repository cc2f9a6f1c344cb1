//! What halts a packed ring (requirement R19), each row of the table with the descriptors that a driver would have to write
//! for it, and a driver that writes anything anywhere.

use std::collections::HashSet;
use std::iter;

use virtqueue::{ChainBatch, Fault, FaultReason};

use crate::fixture::{BUFFERS, Dice, HIGH, HOLE, INDIRECT, LOW, MIB, NEIGHBOUR, NEXT, WRITE};
use crate::ring::{AVAIL, Ring, USED};

const TABLE: u64 = NEIGHBOUR + 0x1000;

/// A ring of 8 in which slot 0 is a chain of its own, and `write` lays out what begins in slot 1, with buffer id 3.
fn assert_halts(reason: FaultReason, write: impl FnOnce(&Ring)) {
    let ring = Ring::new(8);
    ring.raw.set_descriptor(0, BUFFERS, 16, 7, WRITE | AVAIL);
    write(&ring);
    let mut device = ring.device();
    let mut batch = ChainBatch::new(8, 16);
    assert_eq!(device.pop(&ring.guest.table, 8, &mut batch), 1, "the chain before the fault is handed over");
    assert_eq!(batch.chains()[0].head, 7);
    assert_eq!(device.fault(), Some(Fault { reason, head: Some(3) }));
    // A driver that repairs its ring changes nothing; what is in flight completes.
    ring.raw.set_descriptor(1, BUFFERS, 16, 3, WRITE | AVAIL);
    assert_eq!(device.pop(&ring.guest.table, 8, &mut batch), 0);
    assert!(!device.has_available() && !device.enable_notifications());
    device.complete(7, 5);
    device.publish();
    assert_eq!((ring.raw.descriptor(0), device.in_flight()), ((5, 7, WRITE | AVAIL | USED), 0));
}

#[test]
fn r19_packed_readable_after_writable_halts() {
    assert_halts(FaultReason::ReadableAfterWritable, |ring| {
        ring.raw.set_descriptor(1, BUFFERS, 16, 3, WRITE | NEXT | AVAIL);
        ring.raw.set_descriptor(2, BUFFERS, 16, 3, AVAIL);
    });
    assert_halts(FaultReason::ReadableAfterWritable, |ring| {
        ring.write_table(TABLE, &[(BUFFERS, 16, WRITE), (BUFFERS, 16, 0)]);
        ring.raw.set_descriptor(1, TABLE, 32, 3, INDIRECT | AVAIL);
    });
}

/// Of a ring that is only read, tables hold readable buffers: DPDK's driver sends with entries that still say WRITE. All else
/// that halts a ring halts this one.
#[test]
fn r19_packed_tables_of_a_ring_that_is_only_read_say_nothing_of_directions() {
    for flags in [[WRITE, 0], [0, WRITE], [WRITE, WRITE]] {
        for entries in [2, 3, 9] {
            let ring = Ring::new(16);
            let table: Vec<_> = (0..entries).map(|entry| (BUFFERS, 16, flags[entry % 2])).collect();
            ring.write_table(TABLE, &table);
            ring.raw.set_descriptor(0, TABLE, 16 * entries as u32, 3, INDIRECT | AVAIL);
            let mut device = ring.device();
            device.set_read_only(true);
            let mut batch = ChainBatch::new(8, 32);
            assert_eq!(device.pop(&ring.guest.table, 8, &mut batch), 1);
            let chain = batch.chains()[0];
            assert_eq!((chain.readable_descriptors, chain.writable_descriptors), (entries as u16, 0));
            assert_eq!((chain.readable_bytes, chain.writable_bytes), (16 * entries as u64, 0));
            assert_eq!(device.fault(), None);
        }
    }
    let direct = |ring: &Ring| {
        ring.raw.set_descriptor(0, BUFFERS, 16, 3, WRITE | NEXT | AVAIL);
        ring.raw.set_descriptor(1, BUFFERS, 16, 3, AVAIL);
    };
    let nested = |ring: &Ring| {
        ring.write_table(TABLE, &[(BUFFERS, 16, WRITE), (TABLE, 16, INDIRECT | WRITE)]);
        ring.raw.set_descriptor(0, TABLE, 32, 3, INDIRECT | AVAIL);
    };
    for (reason, write) in
        [(FaultReason::ReadableAfterWritable, &direct as &dyn Fn(&Ring)), (FaultReason::NestedIndirect, &nested)]
    {
        let ring = Ring::new(8);
        write(&ring);
        let mut device = ring.device();
        device.set_read_only(true);
        assert_eq!(device.pop(&ring.guest.table, 8, &mut ChainBatch::new(8, 16)), 0);
        assert_eq!(device.fault(), Some(Fault { reason, head: Some(3) }));
    }
}

#[test]
fn r19_packed_indirect_tables_that_cannot_be_halt() {
    assert_halts(FaultReason::NestedIndirect, |ring| {
        ring.write_table(TABLE, &[(BUFFERS, 16, 0), (TABLE, 16, INDIRECT)]);
        ring.raw.set_descriptor(1, TABLE, 32, 3, INDIRECT | AVAIL);
    });
    assert_halts(FaultReason::IndirectWithNext, |ring| {
        ring.write_table(TABLE, &[(BUFFERS, 16, 0)]);
        ring.raw.set_descriptor(1, TABLE, 16, 3, INDIRECT | NEXT | AVAIL);
    });
    assert_halts(FaultReason::IndirectWithNext, |ring| {
        ring.write_table(TABLE, &[(BUFFERS, 16, 0)]);
        ring.raw.set_descriptor(1, BUFFERS, 16, 3, NEXT | AVAIL);
        ring.raw.set_descriptor(2, TABLE, 16, 3, INDIRECT | AVAIL);
    });
    for len in [0, 1, 15, 17, u32::MAX] {
        assert_halts(FaultReason::IndirectLength, |ring| {
            ring.raw.set_descriptor(1, TABLE, len, 3, INDIRECT | AVAIL);
        });
    }
    for (addr, len) in [(HOLE, 16), (0, 16), (HIGH + MIB - 16, 32), (TABLE, 0xffff_fff0)] {
        assert_halts(FaultReason::IndirectUnmapped, |ring| {
            ring.raw.set_descriptor(1, addr, len, 3, INDIRECT | AVAIL);
        });
    }
    // Longer than the ring.
    assert_halts(FaultReason::ChainTooLong, |ring| {
        ring.write_table(TABLE, &[(BUFFERS, 16, 0); 9]);
        ring.raw.set_descriptor(1, TABLE, 144, 3, INDIRECT | AVAIL);
    });
}

#[test]
fn r19_packed_buffer_outside_memory_halts() {
    for (addr, reason) in [
        (HOLE, FaultReason::Unmapped),
        (LOW - 1, FaultReason::Unmapped),
        (HIGH + MIB - 15, FaultReason::Unmapped),
        (u64::MAX - 14, FaultReason::AddressOverflow),
    ] {
        assert_halts(reason, |ring| ring.raw.set_descriptor(1, addr, 16, 3, AVAIL));
    }
}

#[test]
fn r19_packed_chain_into_descriptors_in_flight_halts() {
    // Seven slots are left, and all of them say that there is more.
    assert_halts(FaultReason::ChainTooLong, |ring| {
        (1..8).for_each(|slot| ring.raw.set_descriptor(slot, BUFFERS, 16, 3, NEXT | AVAIL));
    });
}

#[test]
fn r19_packed_buffer_id_that_cannot_be_halts() {
    for (id, reason) in
        [(7, FaultReason::HeadInFlight), (8, FaultReason::HeadOutOfRange), (65_535, FaultReason::HeadOutOfRange)]
    {
        let ring = Ring::new(8);
        ring.raw.set_descriptor(0, BUFFERS, 16, 7, WRITE | AVAIL);
        // The id of a chain stands in its last descriptor (virtio 1.3 §2.8.6).
        ring.raw.set_descriptor(1, BUFFERS, 16, 2, NEXT | AVAIL);
        ring.raw.set_descriptor(2, BUFFERS, 16, id, AVAIL);
        let mut device = ring.device();
        assert_eq!(device.pop(&ring.guest.table, 8, &mut ChainBatch::new(8, 16)), 1);
        assert_eq!(device.fault(), Some(Fault { reason, head: Some(id) }));
    }
}

#[test]
fn r19_packed_zero_length_descriptor_is_ignored() {
    let ring = Ring::new(8);
    ring.raw.set_descriptor(0, HOLE, 0, 1, WRITE | NEXT | AVAIL);
    ring.raw.set_descriptor(1, BUFFERS, 16, 1, NEXT | AVAIL);
    ring.raw.set_descriptor(2, BUFFERS, 0, 1, AVAIL);
    let mut device = ring.device();
    let mut batch = ChainBatch::new(8, 16);
    assert_eq!(device.pop(&ring.guest.table, 8, &mut batch), 1);
    let chain = batch.chains()[0];
    assert_eq!((chain.readable_descriptors, chain.writable_descriptors, chain.readable_bytes), (1, 0, 16));
    device.complete(1, 0);
    device.publish();
    // Three slots further on, where the next used descriptor is.
    assert_eq!(device.base(), 0x8003_8003);
}

/// A run of chains of one descriptor is as long as it can be: up to the ring's end and on from its beginning, up to a chain of
/// another kind and behind it, up to one that halts the ring.
#[test]
fn r19_packed_runs_of_single_descriptors_end_where_they_must() {
    let ring = Ring::new(16);
    let mut device = ring.device();
    let mut batch = ChainBatch::new(16, 16);
    let single = |slot: u16, id: u16, len: u32, flags: u16| {
        let addr = BUFFERS + 64 * u64::from(id);
        ring.raw.set_descriptor(slot, addr, len, id, flags);
    };
    (0..10).for_each(|slot| single(slot, slot, 60, AVAIL));
    assert_eq!(device.pop(&ring.guest.table, 16, &mut batch), 10);
    device.complete_popped(batch.chains(), iter::repeat(0));
    device.publish();
    // Over the end of the ring: readable, writable, of no bytes, indirect, of two descriptors, and one whose id is taken.
    (10..16).for_each(|slot| single(slot, 25 - slot, 60, WRITE | AVAIL));
    ring.write_table(TABLE, &[(BUFFERS, 16, 0), (BUFFERS, 16, WRITE)]);
    single(0, 0, 61, USED);
    single(1, 1, 0, USED);
    ring.raw.set_descriptor(2, TABLE, 32, 2, INDIRECT | USED);
    single(3, 4, 62, NEXT | USED);
    single(4, 3, 63, USED);
    single(5, 15, 60, USED);
    single(6, 6, 60, USED);
    assert_eq!(device.pop(&ring.guest.table, 16, &mut batch), 10);
    let found: Vec<_> =
        batch.chains().iter().map(|chain| (chain.head, chain.readable_bytes, chain.writable_bytes)).collect();
    let writable = (10..16).map(|slot| (25 - slot, 0, 60));
    let others = [(0, 61, 0), (1, 0, 0), (2, 16, 16), (3, 125, 0)];
    assert_eq!(found, writable.chain(others).collect::<Vec<_>>());
    let shape = ring.guest.shape(&batch, &batch.chains()[6]);
    assert_eq!(shape, [vec![(BUFFERS, 61)], vec![]]);
    assert_eq!(device.fault(), Some(Fault { reason: FaultReason::HeadInFlight, head: Some(15) }));
    assert_eq!(device.in_flight(), 10);
}

#[test]
fn r19_packed_random_rings_end_in_chains_or_in_a_named_fault() {
    let mut dice = Dice(34);
    let (mut seen, mut chains) = (HashSet::new(), 0);
    for turn in 0..20_000 {
        let ring = Ring::with([1, 2, 3, 8, 64][turn % 5], turn % 2 == 0);
        let size = ring.guest.size;
        let mut device = ring.device();
        let mut batch = ChainBatch::new(16, 16);
        for round in 0..3u16 {
            for slot in 0..size {
                let any = dice.next() as u16;
                let kind = dice.one_of(&[0, NEXT, NEXT, WRITE, WRITE | NEXT, INDIRECT, any]);
                let wrap = if round % 2 == 0 { AVAIL } else { USED };
                let sane = dice.below(16) > 0;
                let addr = if sane { BUFFERS } else { dice.one_of(&[HOLE, NEIGHBOUR - 8, HIGH, u64::MAX, 0]) };
                let len = if sane { 16 } else { dice.one_of(&[0, 15, 48, 4096, u32::MAX]) };
                let id = if dice.below(32) == 0 { any } else { dice.below(u64::from(size)) as u16 };
                ring.raw.set_descriptor(slot, addr, len, id, kind & !(AVAIL | USED) | wrap);
            }
            ring.write_table(BUFFERS, &[(HIGH, 16, dice.next() as u16 & 6), (BUFFERS, 16, WRITE)]);
            ring.raw.set_driver_event(dice.next() as u16, dice.next() as u16);
            while device.has_available() {
                let ahead = device.avail_snapshot().wrapping_sub(device.next_avail());
                assert!(ahead <= size);
                let limit = 1 + dice.below(20) as usize;
                let count = device.pop(&ring.guest.table, limit, &mut batch);
                assert!(count <= limit && count <= usize::from(ahead));
                for chain in batch.chains() {
                    let shape = ring.guest.shape(&batch, chain); // panics for a slice outside
                    let bytes = |slices: &[(u64, usize)]| slices.iter().map(|(_, len)| *len as u64).sum::<u64>();
                    assert_eq!([bytes(&shape[0]), bytes(&shape[1])], [chain.readable_bytes, chain.writable_bytes]);
                }
                chains += count;
                let heads: Vec<u16> = batch.chains().iter().map(|chain| chain.head).collect();
                heads.iter().rev().for_each(|head| device.complete(*head, 1));
                device.publish();
                assert_eq!((device.in_flight(), device.unpublished()), (0, 0));
            }
        }
        seen.extend(device.fault().map(|fault| fault.reason));
    }
    assert!(chains > 5000, "{chains} chains got through");
    // What a packed ring cannot have: an index, links, and faults that are found elsewhere.
    let not_seen: HashSet<_> = FaultReason::ALL.into_iter().filter(|reason| !seen.contains(reason)).collect();
    let elsewhere = [
        FaultReason::AvailIndexJump,
        FaultReason::NextOutOfRange,
        FaultReason::Loop,
        FaultReason::RingUnmapped,
        FaultReason::MemoryLost,
    ];
    assert!(not_seen.is_subset(&HashSet::from(elsewhere)), "{not_seen:?}");
}
