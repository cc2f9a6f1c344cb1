//! What a chain looks like once it has been popped: every shape that drivers may build, and a few that they should not
//! but may.

use virtqueue::{ChainBatch, Features, Segment};

use crate::fixture::{BUFFERS, Guest, HIGH, HOLE, INDIRECT, MIB, NEIGHBOUR, NEXT, WRITE, make_available};

const TABLE: u64 = NEIGHBOUR + 0x1000;

/// Pops head 0 of a ring of 64 and compares it: descriptors and bytes of both directions, and where its slices lie.
fn assert_chain(
    write: impl FnOnce(&Guest, &virtqueue::split::RawSplit),
    readable: &[(u64, usize)],
    writable: &[(u64, usize)],
    descriptors: [u16; 2],
) {
    let guest = Guest::new(64);
    let raw = guest.raw();
    write(&guest, &raw);
    make_available(&raw, &[0]);
    let mut device = guest.device();
    // Small arenas have to grow, large ones do not: both give the same.
    for hint in [0, 256] {
        let mut batch = ChainBatch::new(4, hint);
        assert_eq!(device.pop(&guest.table, 4, &mut batch), 1, "{:?}", device.fault());
        let chain = batch.chains()[0];
        assert_eq!(guest.shape(&batch, &chain), [readable.to_vec(), writable.to_vec()]);
        assert_eq!([chain.readable_descriptors, chain.writable_descriptors], descriptors);
        let bytes = |slices: &[(u64, usize)]| slices.iter().map(|(_, len)| *len as u64).sum::<u64>();
        assert_eq!((chain.readable_bytes, chain.writable_bytes), (bytes(readable), bytes(writable)));
        assert_eq!(chain.head, 0);
        device = guest.device();
    }
}

#[test]
fn r04_direct_chain_of_any_length_up_to_the_ring_is_one_command() {
    for readable in 0..=6 {
        for writable in 0..=6 {
            if readable + writable == 0 {
                continue;
            }
            let buffer = |index: u64| (BUFFERS + 0x100 * index, 16 + index as usize);
            let buffers: Vec<_> = (0..readable + writable).map(buffer).collect();
            let (first, second) = buffers.split_at(readable as usize);
            assert_chain(
                |_, raw| {
                    for (index, (addr, len)) in buffers.iter().enumerate() {
                        let more = if index + 1 < buffers.len() { NEXT } else { 0 };
                        let side = if index < first.len() { 0 } else { WRITE };
                        // Scattered over the ring: 0, 5, 10 … modulo 64.
                        let at = |index: usize| (5 * index % 64) as u16;
                        raw.set_descriptor(at(index), *addr, *len as u32, more | side, at(index + 1));
                    }
                },
                first,
                second,
                [readable as u16, writable as u16],
            );
        }
    }
}

#[test]
fn r04_indirect_chain_of_any_length_up_to_the_ring_is_one_command() {
    for (readable, writable) in [(1, 0), (0, 1), (1, 1), (1, 2), (2, 1), (3, 1), (1, 3), (4, 0), (1, 4), (31, 33)] {
        let buffer = |index: u64| (HIGH + 0x100 * index, 16 + index as usize);
        let buffers: Vec<_> = (0..readable + writable).map(buffer).collect();
        let (first, second) = buffers.split_at(readable as usize);
        assert_chain(
            |guest, raw| {
                let entry = |(index, (addr, len)): (usize, &(u64, usize))| {
                    let more = if index + 1 < buffers.len() { NEXT } else { 0 };
                    let side = if index < first.len() { 0 } else { WRITE };
                    (*addr, *len as u32, more | side, index as u16 + 1)
                };
                guest.write_table(TABLE, &buffers.iter().enumerate().map(entry).collect::<Vec<_>>());
                raw.set_descriptor(0, TABLE, 16 * buffers.len() as u32, INDIRECT, 0);
            },
            first,
            second,
            [readable as u16, writable as u16],
        );
    }
}

#[test]
fn direct_descriptors_before_an_indirect_one_belong_to_the_chain() {
    assert_chain(
        |guest, raw| {
            raw.set_descriptor(0, BUFFERS, 51, NEXT, 9);
            raw.set_descriptor(9, BUFFERS + 64, 8, NEXT, 3);
            raw.set_descriptor(3, TABLE, 32, INDIRECT, 0);
            guest.write_table(TABLE, &[(BUFFERS + 128, 16, NEXT, 1), (BUFFERS + 256, 108, WRITE, 0)]);
        },
        &[(BUFFERS, 51), (BUFFERS + 64, 8), (BUFFERS + 128, 16)],
        &[(BUFFERS + 256, 108)],
        [3, 1],
    );
    // Directly behind a writable one, the table goes on being writable.
    assert_chain(
        |guest, raw| {
            raw.set_descriptor(0, BUFFERS, 8, WRITE | NEXT, 1);
            raw.set_descriptor(1, TABLE, 16, INDIRECT, 0);
            guest.write_table(TABLE, &[(BUFFERS + 128, 16, WRITE, 0)]);
        },
        &[],
        &[(BUFFERS, 8), (BUFFERS + 128, 16)],
        [0, 2],
    );
}

#[test]
fn write_flag_of_an_indirect_descriptor_means_nothing() {
    for flags in [INDIRECT, INDIRECT | WRITE] {
        assert_chain(
            |guest, raw| {
                raw.set_descriptor(0, TABLE, 32, flags, 0);
                guest.write_table(TABLE, &[(BUFFERS, 16, NEXT, 1), (BUFFERS + 64, 16, WRITE, 0)]);
            },
            &[(BUFFERS, 16)],
            &[(BUFFERS + 64, 16)],
            [1, 1],
        );
    }
}

#[test]
fn entries_of_an_indirect_table_may_come_in_any_order() {
    assert_chain(
        |guest, raw| {
            raw.set_descriptor(0, TABLE, 64, INDIRECT, 0);
            let unused = (HOLE, 16, INDIRECT | NEXT, 65535);
            guest.write_table(TABLE, &[(BUFFERS, 1, NEXT, 3), unused, (BUFFERS, 3, WRITE, 0), (BUFFERS, 2, NEXT, 2)]);
        },
        &[(BUFFERS, 1), (BUFFERS, 2)],
        &[(BUFFERS, 3)],
        [2, 1],
    );
}

#[test]
fn indirect_table_larger_than_the_ring_is_fine_if_the_chain_is_not() {
    assert_chain(
        |guest, raw| {
            raw.set_descriptor(0, TABLE, 16 * 200, INDIRECT, 0);
            guest.write_table(TABLE, &[(BUFFERS, 16, NEXT, 199)]);
            guest.write_table(TABLE + 16 * 199, &[(BUFFERS, 32, 0, 0)]);
        },
        &[(BUFFERS, 16), (BUFFERS, 32)],
        &[],
        [2, 0],
    );
}

#[test]
fn indirect_table_at_any_alignment_is_read() {
    for by in 0..16 {
        assert_chain(
            |guest, raw| {
                raw.set_descriptor(0, TABLE + by, 48, INDIRECT, 0);
                let entries = [(BUFFERS, 16, NEXT, 1), (BUFFERS + 64, 32, WRITE | NEXT, 2), (HIGH, 64, WRITE, 0)];
                guest.write_table(TABLE + by, &entries);
            },
            &[(BUFFERS, 16)],
            &[(BUFFERS + 64, 32), (HIGH, 64)],
            [1, 2],
        );
    }
}

#[test]
fn indirect_table_across_two_regions_is_read() {
    // The border lies between entries, and at every place within one.
    for before in 16..=32 {
        let table = NEIGHBOUR - before;
        assert_chain(
            |guest, raw| {
                raw.set_descriptor(0, table, 48, INDIRECT, 0);
                let entries = [(BUFFERS, 16, NEXT, 1), (BUFFERS + 64, 32, WRITE | NEXT, 2), (HIGH, 64, WRITE, 0)];
                guest.write_table(table, &entries);
            },
            &[(BUFFERS, 16)],
            &[(BUFFERS + 64, 32), (HIGH, 64)],
            [1, 2],
        );
    }
}

#[test]
fn buffer_across_two_regions_is_one_descriptor_and_two_slices() {
    assert_chain(
        |_, raw| {
            raw.set_descriptor(0, NEIGHBOUR - 10, 30, NEXT, 1);
            raw.set_descriptor(1, BUFFERS, 5, NEXT, 2);
            raw.set_descriptor(2, NEIGHBOUR - 1, 4097, WRITE, 0);
        },
        &[(NEIGHBOUR - 10, 10), (NEIGHBOUR, 20), (BUFFERS, 5)],
        &[(NEIGHBOUR - 1, 1), (NEIGHBOUR, 4096)],
        [2, 1],
    );
}

#[test]
fn buffer_up_to_the_last_byte_of_memory_is_translated() {
    assert_chain(
        |_, raw| {
            raw.set_descriptor(0, HIGH + MIB - 1, 1, NEXT, 1);
            raw.set_descriptor(1, HIGH, MIB as u32, WRITE, 0);
        },
        &[(HIGH + MIB - 1, 1)],
        &[(HIGH, MIB as usize)],
        [1, 1],
    );
}

#[test]
fn r19_zero_length_descriptor_is_ignored() {
    // Wherever it stands, wherever it points, whatever its direction.
    for addr in [BUFFERS, HOLE, u64::MAX] {
        assert_chain(
            |_, raw| {
                raw.set_descriptor(0, addr, 0, NEXT | WRITE, 1);
                raw.set_descriptor(1, BUFFERS, 51, NEXT, 2);
                raw.set_descriptor(2, addr, 0, NEXT, 3);
                raw.set_descriptor(3, BUFFERS + 64, 108, WRITE | NEXT, 4);
                raw.set_descriptor(4, addr, 0, 0, 5);
            },
            &[(BUFFERS, 51)],
            &[(BUFFERS + 64, 108)],
            [1, 1],
        );
    }
    assert_chain(|_, raw| raw.set_descriptor(0, HOLE, 0, WRITE, 0), &[], &[], [0, 0]);
    assert_chain(
        |guest, raw| {
            raw.set_descriptor(0, TABLE, 32, INDIRECT, 0);
            guest.write_table(TABLE, &[(HOLE, 0, NEXT, 1), (BUFFERS, 7, WRITE, 0)]);
        },
        &[],
        &[(BUFFERS, 7)],
        [0, 1],
    );
}

#[test]
fn reserved_flags_mean_nothing() {
    assert_chain(
        |_, raw| {
            raw.set_descriptor(0, BUFFERS, 16, NEXT | 0xfff8, 1);
            raw.set_descriptor(1, BUFFERS, 16, WRITE | 0xfff8, 0);
        },
        &[(BUFFERS, 16)],
        &[(BUFFERS, 16)],
        [1, 1],
    );
}

#[test]
fn buffers_that_alternate_between_regions_are_found() {
    // More regions than are kept at hand, in one batch and in the next.
    let guest = Guest::new(64);
    let mut driver = guest.driver();
    let mut device = guest.device();
    let mut batch = ChainBatch::new(8, 64);
    for round in 0..4 {
        let places = [HIGH, BUFFERS, NEIGHBOUR, HIGH + 64, NEIGHBOUR + 64];
        let chains: Vec<Vec<_>> =
            (0..8).map(|chain| (0..chain % 3 + 2).map(|at| (places[(chain + at + round) % 5], 32)).collect()).collect();
        for (token, chain) in chains.iter().enumerate() {
            let segments: Vec<_> = chain.iter().map(|(addr, len)| Segment::readable(*addr, *len as u32)).collect();
            driver.add(&segments, token).unwrap();
        }
        driver.publish();
        assert_eq!(device.pop(&guest.table, 8, &mut batch), 8);
        for (chain, expected) in batch.chains().iter().zip(&chains) {
            assert_eq!(guest.shape(&batch, chain), [expected.clone(), vec![]]);
            device.complete(chain.head, 0);
        }
        device.publish();
        assert_eq!((0..8).map(|_| driver.pop_used().unwrap().token).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}

#[test]
fn batch_that_is_full_leaves_the_rest_on_the_ring() {
    let guest = Guest::with(64, Features { event_idx: true });
    let mut driver = guest.driver();
    let mut device = guest.device();
    let long: Vec<_> = (0..6).map(|at| Segment::readable(BUFFERS + at, 1)).collect();
    for token in 0..5 {
        driver.add(&long, token).unwrap();
    }
    driver.publish();
    // Room for two chains of six: the third ends the batch.
    let mut batch = ChainBatch::new(8, 12);
    assert_eq!(device.pop(&guest.table, 8, &mut batch), 2);
    assert_eq!((device.in_flight(), device.fault()), (2, None));
    // `limit` is one bound, the number of chains in the batch another.
    assert_eq!(device.pop(&guest.table, 1, &mut batch), 1);
    assert_eq!(device.pop(&guest.table, 0, &mut batch), 0);
    assert!(device.has_available());
    assert_eq!(device.pop(&guest.table, 8, &mut ChainBatch::new(1, 100)), 1);
    // A chain that does not fit alone makes the arena grow.
    let mut tiny = ChainBatch::new(8, 0);
    assert_eq!(device.pop(&guest.table, 8, &mut tiny), 1);
    assert_eq!(tiny.readable(&tiny.chains()[0]).len(), 6);
    assert!(!device.has_available());
    assert_eq!(device.in_flight(), 5);
}
