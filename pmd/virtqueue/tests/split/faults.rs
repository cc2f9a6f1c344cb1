//! What halts a ring (requirement R19), each row of the table with the bytes that a driver would have to write for it, and
//! what a halted ring still does.

use virtqueue::split::{RawSplit, SplitDevice};
use virtqueue::{ChainBatch, Fault, FaultReason, Features};

use crate::fixture::{BUFFERS, Guest, HIGH, HOLE, INDIRECT, MIB, NEIGHBOUR, NEXT, WRITE, make_available};

const TABLE: u64 = NEIGHBOUR + 0x1000;

/// A ring of 8 in which descriptor 7 is a chain of its own and `write` lays out head 0. Both are made available, the good
/// one first.
fn halted_by(write: impl FnOnce(&Guest, &RawSplit)) -> Fault {
    let guest = Guest::new(8);
    let raw = guest.raw();
    raw.set_descriptor(7, BUFFERS, 16, WRITE, 0);
    write(&guest, &raw);
    make_available(&raw, &[7, 0]);
    let mut device = guest.device();
    let mut batch = ChainBatch::new(8, 16);
    assert_eq!(device.pop(&guest.table, 8, &mut batch), 1, "the chain before the fault is handed over");
    assert_eq!(batch.chains()[0].head, 7);
    assert_halted(&mut device, &guest, &raw);
    device.fault().unwrap()
}

/// What holds for every halted ring with one chain, head 7, in flight.
fn assert_halted(device: &mut SplitDevice, guest: &Guest, raw: &RawSplit) {
    let fault = device.fault().expect("the ring is broken");
    let mut batch = ChainBatch::new(8, 8);
    // A driver that repairs its ring changes nothing: it has to set it up again.
    raw.set_descriptor(0, BUFFERS, 16, WRITE, 0);
    assert_eq!(device.pop(&guest.table, 8, &mut batch), 0);
    assert!(batch.chains().is_empty());
    assert!(!device.has_available());
    assert!(!device.enable_notifications(), "nothing to stay awake for");
    assert_eq!(device.fault(), Some(fault), "the first fault stays");
    // What is in flight completes.
    assert_eq!((device.in_flight(), device.next_avail()), (1, 1));
    device.complete(7, 3);
    device.publish();
    assert_eq!((raw.used_index(), raw.used_element(0), device.in_flight()), (1, (7, 3), 0));
}

fn assert_halts(reason: FaultReason, write: impl FnOnce(&Guest, &RawSplit)) {
    assert_eq!(halted_by(write), Fault { reason, head: Some(0) });
}

#[test]
fn r19_readable_after_writable_halts() {
    assert_halts(FaultReason::ReadableAfterWritable, |_, raw| {
        raw.set_descriptor(0, BUFFERS, 16, WRITE | NEXT, 1);
        raw.set_descriptor(1, BUFFERS, 16, 0, 0);
    });
    assert_halts(FaultReason::ReadableAfterWritable, |guest, raw| {
        guest.write_table(TABLE, &[(BUFFERS, 16, NEXT, 1), (BUFFERS, 16, WRITE | NEXT, 2), (BUFFERS, 16, 0, 0)]);
        raw.set_descriptor(0, TABLE, 48, INDIRECT, 0);
    });
}

#[test]
fn r19_indirect_table_in_an_indirect_table_halts() {
    assert_halts(FaultReason::NestedIndirect, |guest, raw| {
        guest.write_table(TABLE, &[(BUFFERS, 16, NEXT, 1), (TABLE, 16, INDIRECT, 0)]);
        raw.set_descriptor(0, TABLE, 32, INDIRECT, 0);
    });
    assert_halts(FaultReason::NestedIndirect, |guest, raw| {
        guest.write_table(TABLE, &[(TABLE, 16, INDIRECT, 0)]);
        raw.set_descriptor(0, TABLE, 16, INDIRECT, 0);
    });
}

#[test]
fn r19_indirect_descriptor_with_a_next_one_halts() {
    assert_halts(FaultReason::IndirectWithNext, |guest, raw| {
        guest.write_table(TABLE, &[(BUFFERS, 16, 0, 0)]);
        raw.set_descriptor(0, TABLE, 16, INDIRECT | NEXT, 1);
        raw.set_descriptor(1, BUFFERS, 16, WRITE, 0);
    });
    assert_halts(FaultReason::IndirectWithNext, |guest, raw| {
        guest.write_table(TABLE, &[(BUFFERS, 16, 0, 0)]);
        raw.set_descriptor(0, BUFFERS, 16, NEXT, 1);
        raw.set_descriptor(1, TABLE, 16, INDIRECT | NEXT, 2);
        raw.set_descriptor(2, BUFFERS, 16, WRITE, 0);
    });
}

#[test]
fn r19_indirect_table_of_a_length_that_cannot_be_halts() {
    for len in [0, 1, 15, 17, 40, u32::MAX] {
        assert_halts(FaultReason::IndirectLength, |guest, raw| {
            guest.write_table(TABLE, &[(BUFFERS, 16, NEXT, 1), (BUFFERS, 16, 0, 0)]);
            raw.set_descriptor(0, TABLE, len, INDIRECT, 0);
        });
    }
}

#[test]
fn r19_indirect_table_outside_memory_halts() {
    for (addr, len) in [(HOLE, 16), (0, 16), (HIGH + MIB - 16, 32), (HIGH + MIB, 16), (TABLE, 0xffff_fff0)] {
        assert_halts(FaultReason::IndirectUnmapped, |_, raw| raw.set_descriptor(0, addr, len, INDIRECT, 0));
    }
}

#[test]
fn r19_loop_halts() {
    // To itself, to its head, and into the middle.
    for back_to in [0, 1, 2] {
        assert_halts(FaultReason::Loop, |_, raw| {
            raw.set_descriptor(0, BUFFERS, 16, NEXT, 1);
            raw.set_descriptor(1, BUFFERS, 16, NEXT, 2);
            raw.set_descriptor(2, BUFFERS, 16, NEXT, back_to);
        });
        assert_halts(FaultReason::Loop, |guest, raw| {
            let entries = [(BUFFERS, 16, NEXT, 1), (BUFFERS, 16, NEXT, 2), (BUFFERS, 16, NEXT, back_to)];
            guest.write_table(TABLE, &entries);
            raw.set_descriptor(0, TABLE, 48, INDIRECT, 0);
        });
    }
}

#[test]
fn r19_loop_of_buffers_without_a_byte_halts() {
    assert_halts(FaultReason::Loop, |_, raw| {
        raw.set_descriptor(0, BUFFERS, 0, NEXT, 1);
        raw.set_descriptor(1, BUFFERS, 0, NEXT, 0);
    });
}

#[test]
fn r04_chain_longer_than_the_ring_halts() {
    let entries = |count: u16| -> Vec<_> {
        (0..count).map(|index| (BUFFERS, 16, if index + 1 < count { NEXT } else { 0 }, index + 1)).collect()
    };
    assert_halts(FaultReason::ChainTooLong, |guest, raw| {
        guest.write_table(TABLE, &entries(9));
        raw.set_descriptor(0, TABLE, 9 * 16, INDIRECT, 0);
    });
    assert_halts(FaultReason::ChainTooLong, |guest, raw| {
        // Two in the ring and seven in the table.
        raw.set_descriptor(0, BUFFERS, 16, NEXT, 1);
        raw.set_descriptor(1, BUFFERS, 16, NEXT, 2);
        guest.write_table(TABLE, &entries(7));
        raw.set_descriptor(2, TABLE, 7 * 16, INDIRECT, 0);
    });
}

#[test]
fn r04_chain_longer_than_a_small_ring_halts() {
    // Four buffers are a usual chain, but not in a ring of two.
    let guest = Guest::new(2);
    let raw = guest.raw();
    guest.write_table(TABLE, &[(BUFFERS, 16, NEXT, 1), (BUFFERS, 16, NEXT, 2), (BUFFERS, 16, 0, 0)]);
    raw.set_descriptor(1, TABLE, 48, INDIRECT, 0);
    make_available(&raw, &[1]);
    let mut device = guest.device();
    assert_eq!(device.pop(&guest.table, 2, &mut ChainBatch::new(2, 8)), 0);
    assert_eq!(device.fault(), Some(Fault { reason: FaultReason::ChainTooLong, head: Some(1) }));
}

#[test]
fn r19_chain_of_more_pieces_than_buffers_can_have_halts() {
    // Each buffer is cut at the border of two regions. Buffers that do not overlap can be cut there once only.
    let across = |guest: &Guest, raw: &RawSplit, count: u16| {
        let entry = |index| (NEIGHBOUR - 8, 16, if index + 1 < count { NEXT } else { 0 }, index + 1);
        guest.write_table(TABLE, &(0..count).map(entry).collect::<Vec<_>>());
        raw.set_descriptor(0, TABLE, 16 * u32::from(count), INDIRECT, 0);
    };
    // 8 descriptors and 3 regions: 11 pieces.
    assert_halts(FaultReason::ChainTooLong, |guest, raw| across(guest, raw, 6));
    let guest = Guest::new(8);
    let raw = guest.raw();
    across(&guest, &raw, 5);
    make_available(&raw, &[0]);
    let mut batch = ChainBatch::new(1, 0);
    assert_eq!(guest.device().pop(&guest.table, 1, &mut batch), 1);
    assert_eq!((batch.chains()[0].readable_descriptors, batch.readable(&batch.chains()[0]).len()), (5, 10));
}

#[test]
fn r19_next_outside_of_its_table_halts() {
    for next in [8, 9, 65535] {
        assert_halts(FaultReason::NextOutOfRange, |_, raw| raw.set_descriptor(0, BUFFERS, 16, NEXT, next));
    }
    for next in [2, 8, 65535] {
        assert_halts(FaultReason::NextOutOfRange, |guest, raw| {
            guest.write_table(TABLE, &[(BUFFERS, 16, NEXT, 1), (BUFFERS, 16, NEXT, next)]);
            raw.set_descriptor(0, TABLE, 32, INDIRECT, 0);
        });
    }
}

#[test]
fn r19_address_and_length_that_overflow_halt() {
    for (addr, len) in [(u64::MAX, 2), (u64::MAX - 14, 16), (0xffff_ffff_0000_0002, u32::MAX)] {
        for flags in [0, WRITE] {
            assert_halts(FaultReason::AddressOverflow, |_, raw| raw.set_descriptor(0, addr, len, flags, 0));
        }
    }
    assert_halts(FaultReason::AddressOverflow, |_, raw| raw.set_descriptor(0, u64::MAX - 30, 32, INDIRECT, 0));
}

#[test]
fn r19_buffer_outside_memory_halts() {
    // In the hole, below everything, at the very end of the address space, and with its last byte outside.
    let outside =
        [(HOLE, 1), (0, 1), (u64::MAX, 1), (HIGH + MIB, 1), (HIGH + MIB - 15, 16), (HIGH - 1, 2), (BUFFERS, u32::MAX)];
    for (addr, len) in outside {
        for flags in [0, WRITE] {
            assert_halts(FaultReason::Unmapped, |_, raw| raw.set_descriptor(0, addr, len, flags, 0));
        }
        assert_halts(FaultReason::Unmapped, |guest, raw| {
            guest.write_table(TABLE, &[(BUFFERS, 16, NEXT, 1), (addr, len, WRITE, 0)]);
            raw.set_descriptor(0, TABLE, 32, INDIRECT, 0);
        });
    }
}

#[test]
fn r19_head_outside_of_the_ring_halts() {
    for head in [8, 9, 64, 65535] {
        let guest = Guest::new(8);
        let raw = guest.raw();
        raw.set_descriptor(7, BUFFERS, 16, WRITE, 0);
        make_available(&raw, &[7, head]);
        let mut device = guest.device();
        assert_eq!(device.pop(&guest.table, 8, &mut ChainBatch::new(8, 8)), 1);
        assert_eq!(device.fault(), Some(Fault { reason: FaultReason::HeadOutOfRange, head: Some(head) }));
        assert_halted(&mut device, &guest, &raw);
    }
}

#[test]
fn r19_head_that_is_in_flight_halts() {
    let guest = Guest::new(8);
    let raw = guest.raw();
    raw.set_descriptor(7, BUFFERS, 16, WRITE, 0);
    // Twice in one batch.
    make_available(&raw, &[7, 7]);
    let mut device = guest.device();
    assert_eq!(device.pop(&guest.table, 8, &mut ChainBatch::new(8, 8)), 1);
    assert_eq!(device.fault(), Some(Fault { reason: FaultReason::HeadInFlight, head: Some(7) }));
    assert_halted(&mut device, &guest, &raw);
    // In two batches.
    let raw = guest.raw();
    raw.set_descriptor(7, BUFFERS, 16, WRITE, 0);
    make_available(&raw, &[7]);
    let mut device = guest.device();
    assert_eq!(device.pop(&guest.table, 8, &mut ChainBatch::new(8, 8)), 1);
    assert_eq!(device.fault(), None);
    make_available(&raw, &[7, 7]);
    assert_eq!(device.pop(&guest.table, 8, &mut ChainBatch::new(8, 8)), 0);
    assert_eq!(device.fault(), Some(Fault { reason: FaultReason::HeadInFlight, head: Some(7) }));
    assert_halted(&mut device, &guest, &raw);
}

#[test]
fn r19_available_index_that_jumps_halts() {
    for index in [9u16, 1000, 32768, 65535] {
        let guest = Guest::new(8);
        let raw = guest.raw();
        raw.set_descriptor(7, BUFFERS, 16, WRITE, 0);
        let mut device = guest.device();
        make_available(&raw, &[7]);
        assert_eq!(device.pop(&guest.table, 8, &mut ChainBatch::new(8, 8)), 1);
        // Relative to the entry fetched: 8 ahead is the most that a ring of 8 can have.
        raw.set_avail_index(index.wrapping_add(1));
        assert!(device.has_available());
        assert_eq!(device.pop(&guest.table, 8, &mut ChainBatch::new(8, 8)), 0);
        assert_eq!(device.fault(), Some(Fault { reason: FaultReason::AvailIndexJump, head: None }));
        assert_halted(&mut device, &guest, &raw);
    }
}

#[test]
fn r19_available_index_that_goes_back_halts() {
    let guest = Guest::new(8);
    let raw = guest.raw();
    raw.set_descriptor(7, BUFFERS, 16, WRITE, 0);
    make_available(&raw, &[7]);
    let mut device = guest.device();
    assert_eq!(device.pop(&guest.table, 8, &mut ChainBatch::new(8, 8)), 1);
    raw.set_avail_index(0);
    assert_eq!(device.pop(&guest.table, 8, &mut ChainBatch::new(8, 8)), 0);
    assert_eq!(device.fault(), Some(Fault { reason: FaultReason::AvailIndexJump, head: None }));
}

#[test]
fn r19_full_ring_is_no_jump() {
    let guest = Guest::new(8);
    let raw = guest.raw();
    (0..8).for_each(|index| raw.set_descriptor(index, BUFFERS, 16, 0, 0));
    make_available(&raw, &[3, 1, 4, 0, 5, 2, 6, 7]);
    let mut device = guest.device();
    assert_eq!(device.pop(&guest.table, 9, &mut ChainBatch::new(16, 8)), 8);
    assert_eq!(device.fault(), None);
}

#[test]
fn r19_fault_in_the_middle_of_a_batch_leaves_what_comes_after_it() {
    let guest = Guest::new(8);
    let raw = guest.raw();
    for index in 0..8 {
        raw.set_descriptor(index, if index == 2 { HOLE } else { BUFFERS }, 16, 0, 0);
    }
    // The head out of range is read before the chain of head 2 is walked, but comes after it.
    make_available(&raw, &[0, 1, 2, 3, 9]);
    let mut device = guest.device();
    let mut batch = ChainBatch::new(8, 8);
    assert_eq!(device.pop(&guest.table, 8, &mut batch), 2);
    assert_eq!(batch.chains().iter().map(|chain| chain.head).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(device.fault(), Some(Fault { reason: FaultReason::Unmapped, head: Some(2) }));
    assert_eq!((device.in_flight(), device.next_avail()), (2, 2));
}

#[test]
fn r19_halted_ring_recovers_when_it_is_set_up_again() {
    let guest = Guest::new(8);
    let raw = guest.raw();
    raw.set_descriptor(0, BUFFERS, 16, 0, 0);
    raw.set_descriptor(1, HOLE, 16, 0, 0);
    make_available(&raw, &[0, 1]);
    let mut device = guest.device();
    let mut batch = ChainBatch::new(8, 8);
    assert_eq!(device.pop(&guest.table, 8, &mut batch), 1);
    device.complete(0, 0);
    device.publish();
    // GET_VRING_BASE names the chain that was not taken; the driver has put it right meanwhile.
    raw.set_descriptor(1, BUFFERS, 16, 0, 0);
    let mut device = SplitDevice::new(8, guest.rings(), device.next_avail(), guest.features).unwrap();
    assert_eq!(device.pop(&guest.table, 8, &mut batch), 1);
    assert_eq!((batch.chains()[0].head, device.fault()), (1, None));
}

#[test]
fn r19_ring_broken_from_outside_keeps_its_first_fault() {
    let guest = Guest::with(8, Features { event_idx: true });
    let raw = guest.raw();
    raw.set_descriptor(0, BUFFERS, 16, 0, 0);
    make_available(&raw, &[0]);
    let mut device = guest.device();
    let lost = Fault { reason: FaultReason::MemoryLost, head: None };
    device.mark_broken(lost);
    device.mark_broken(Fault { reason: FaultReason::RingUnmapped, head: None });
    assert_eq!(device.fault(), Some(lost));
    assert_eq!(device.pop(&guest.table, 8, &mut ChainBatch::new(8, 8)), 0);
    raw.set_avail_event(77);
    assert!(!device.enable_notifications());
    assert_eq!(raw.avail_event(), 77, "nothing asks a driver for kicks that lead nowhere");
}

#[test]
#[should_panic(expected = "head 0 completed, but not in flight")]
fn completing_twice_is_a_bug_of_ours() {
    let guest = Guest::new(8);
    let raw = guest.raw();
    raw.set_descriptor(0, BUFFERS, 16, 0, 0);
    make_available(&raw, &[0]);
    let mut device = guest.device();
    device.pop(&guest.table, 8, &mut ChainBatch::new(8, 8));
    device.complete(0, 0);
    device.complete(0, 0);
}

#[test]
#[should_panic(expected = "head 8 completed, but not in flight")]
fn completing_a_head_that_cannot_be_is_a_bug_of_ours() {
    Guest::new(8).device().complete(8, 0);
}
