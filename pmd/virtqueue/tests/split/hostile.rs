//! A driver that writes anything anywhere: whatever it does, the device ends in a fault or in chains that lie inside
//! memory, in bounded time.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use virtqueue::split::{RawSplit, SplitDevice};
use virtqueue::{ChainBatch, FaultReason, Features};

use crate::fixture::{BUFFERS, Dice, Guest, HIGH, HOLE, INDIRECT, LOW, MIB, NEIGHBOUR, NEXT, WRITE};

/// Addresses that mean something: memory, its borders, the ring itself, nothing.
const PLACES: [u64; 14] = [
    BUFFERS,
    BUFFERS + 16,
    LOW,
    LOW - 1,
    NEIGHBOUR - 8,
    NEIGHBOUR,
    NEIGHBOUR + MIB - 16,
    NEIGHBOUR + MIB,
    HIGH,
    HIGH + MIB - 48,
    HOLE,
    0,
    u64::MAX - 15,
    u64::MAX,
];
const LENGTHS: [u32; 10] = [0, 1, 15, 16, 32, 48, 64, 4096, 0x8000_0000, u32::MAX];

fn descriptor(dice: &mut Dice, size: u16) -> (u64, u32, u16, u16) {
    // Mostly sense, so that chains become long enough to go wrong in interesting places.
    let sane = dice.below(16) > 0;
    let addr = if sane { dice.one_of(&[BUFFERS, HIGH, NEIGHBOUR - 8]) } else { dice.one_of(&PLACES) };
    let len = if sane { dice.one_of(&[16, 32, 48]) } else { dice.one_of(&LENGTHS) };
    let any = dice.next() as u16;
    let flags = dice.one_of(&[0, NEXT, NEXT, NEXT, WRITE, WRITE | NEXT, WRITE | NEXT, INDIRECT, any]);
    let next = if dice.below(16) == 0 { dice.next() as u16 } else { dice.below(u64::from(size)) as u16 };
    (addr, len, flags, next)
}

fn write_everything(guest: &Guest, raw: &RawSplit, dice: &mut Dice) {
    for index in 0..guest.size {
        let (addr, len, flags, next) = descriptor(dice, guest.size);
        raw.set_descriptor(index, addr, len, flags, next);
        let outside = dice.below(32) == 0;
        raw.set_avail_entry(index, if outside { dice.next() as u16 } else { dice.below(u64::from(guest.size)) as u16 });
    }
    // What descriptors call an indirect table.
    for table in [BUFFERS, HIGH, NEIGHBOUR - 8] {
        let entries: Vec<_> = (0..4).map(|_| descriptor(dice, 4)).collect();
        guest.write_table(table, &entries);
    }
    raw.set_used_event(dice.next() as u16);
    raw.set_avail_flags(dice.next() as u16);
}

/// Pops everything there is to pop, looks at every slice, completes and publishes. Returns the number of chains.
fn serve(guest: &Guest, device: &mut SplitDevice, batch: &mut ChainBatch, limit: usize) -> usize {
    let count = device.pop(&guest.table, limit, batch);
    assert!(count <= limit.min(usize::from(guest.size)));
    for chain in batch.chains() {
        let shape = guest.shape(batch, chain); // panics for a slice outside
        let bytes = |slices: &[(u64, usize)]| slices.iter().map(|(_, len)| *len as u64).sum::<u64>();
        assert_eq!([bytes(&shape[0]), bytes(&shape[1])], [chain.readable_bytes, chain.writable_bytes]);
        assert!(chain.readable_descriptors + chain.writable_descriptors <= guest.size);
        assert!(shape.iter().flatten().all(|(_, len)| *len > 0));
    }
    for chain in batch.chains() {
        device.complete(chain.head, 1);
    }
    device.publish();
    count
}

#[test]
fn r19_random_rings_end_in_chains_or_in_a_named_fault() {
    let mut dice = Dice(19);
    let mut seen = HashSet::new();
    let mut chains = 0;
    let guests = [1, 2, 4, 8, 64].map(|size| Guest::with(size, Features { event_idx: size > 4 }));
    let mut batch = ChainBatch::new(32, 16);
    for turn in 0..10_000 {
        let guest = &guests[turn % guests.len()];
        let raw = guest.raw();
        let anywhere = dice.next() as u16;
        let start = dice.one_of(&[0, 0, 65_533, anywhere]);
        raw.set_used_index(start);
        raw.set_avail_index(start);
        let mut device = SplitDevice::new(guest.size, guest.rings(), start, guest.features).unwrap();
        for _ in 0..3 {
            write_everything(guest, &raw, &mut dice);
            let ahead = dice.below(u64::from(guest.size) + 1) as u16;
            let jump = if dice.below(20) == 0 { dice.next() as u16 } else { ahead };
            raw.set_avail_index(device.next_avail().wrapping_add(jump));
            let limit = 1 + dice.below(40) as usize;
            while device.has_available() {
                chains += serve(guest, &mut device, &mut batch, limit);
            }
            assert_eq!((device.in_flight(), device.unpublished()), (0, 0));
        }
        seen.extend(device.fault().map(|fault| fault.reason));
    }
    assert!(chains > 5000, "{chains} chains got through");
    let not_seen: Vec<_> = FaultReason::ALL.into_iter().filter(|reason| !seen.contains(reason)).collect();
    // A head is in flight only while we leave it so; the other two are found elsewhere.
    assert_eq!(not_seen, [FaultReason::RingUnmapped, FaultReason::MemoryLost]);
}

/// Turns of two threads. One that gets no answer to its turn lets the other have the core, if they share one.
struct Turns([AtomicU32; 2]);

impl Turns {
    fn of(&self, side: usize) -> u32 {
        self.0[side].load(Ordering::Relaxed)
    }

    /// Ends a turn of `side`, which had `seen` the other's turns before; what it sees now.
    fn end(&self, side: usize, seen: u32) -> u32 {
        self.0[side].fetch_add(1, Ordering::Relaxed);
        if self.of(1 - side) == seen {
            thread::yield_now();
        }
        self.of(1 - side)
    }
}

#[test]
fn r19_driver_that_writes_while_the_device_reads_ends_in_chains_or_in_a_named_fault() {
    const DEVICE: usize = 0;
    const DRIVER: usize = 1;
    let guest = Guest::new(64);
    let raw = guest.raw();
    let (stop, turns) = (AtomicBool::new(false), Turns(Default::default()));
    let (mut chains, mut faults) = (0, 0);
    thread::scope(|scope| {
        let (guest, stop, turns) = (&guest, &stop, &turns);
        scope.spawn(move || {
            let (mut dice, mut seen) = (Dice(7), 0);
            while !stop.load(Ordering::Relaxed) {
                write_everything(guest, &raw, &mut dice);
                raw.set_avail_index(raw.used_index().wrapping_add(dice.below(70) as u16));
                seen = turns.end(DRIVER, seen);
            }
        });
        let mut batch = ChainBatch::new(32, 16);
        let mut device = guest.device();
        let mut seen = 0;
        // Until both have been seen often, in turns of the driver: what the device does meanwhile proves nothing new.
        while (chains < 5000 || faults < 500) && turns.of(DRIVER) < 1_000_000 {
            chains += serve(guest, &mut device, &mut batch, 32);
            if device.fault().is_some() {
                faults += 1;
                device = SplitDevice::new(guest.size, guest.rings(), raw.used_index(), guest.features).unwrap();
            }
            seen = turns.end(DEVICE, seen);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(chains >= 5000 && faults >= 500, "{chains} chains, {faults} faults, {:?} turns", turns.0);
}

#[test]
fn r19_worst_ring_takes_bounded_time() {
    // Every head is a chain of as many descriptors as the ring has, most of them in loops: the product of the two is
    // what a batch may cost. 32 heads of 32768 descriptors, twice round each loop.
    let guest = Guest::new(32768);
    let raw = guest.raw();
    for index in 0..32768u16 {
        raw.set_descriptor(index, BUFFERS, 16, NEXT, (index + 1) % 32768);
        raw.set_avail_entry(index, index);
    }
    raw.set_avail_index(32768);
    let mut device = guest.device();
    assert_eq!(device.pop(&guest.table, 32, &mut ChainBatch::new(32, 16)), 0);
    assert_eq!(device.fault().map(|fault| fault.reason), Some(FaultReason::Loop));
    // The longest chain there can be is none of that.
    raw.set_descriptor(32767, BUFFERS, 16, 0, 0);
    let mut device = guest.device();
    let mut batch = ChainBatch::new(32, 16);
    assert_eq!(device.pop(&guest.table, 1, &mut batch), 1);
    assert_eq!(batch.chains()[0].readable_descriptors, 32768);
    assert_eq!(batch.chains()[0].readable_bytes, 16 * 32768);
}
