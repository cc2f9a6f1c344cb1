//! The device side against rust-vmm's `virtio-queue`, an implementation that shares no line with ours: the same ring in
//! two memories, the same chains out of it, the same used ring afterwards.

use std::fs::File;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use virtqueue::split::{RawSplit, SplitDevice};
use virtqueue::{ChainBatch, Features};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use crate::fixture::{AVAIL, BUFFERS, Dice, Guest, HIGH, INDIRECT, LOW, MIB, NEIGHBOUR, NEXT, USED, WRITE};

const SIZE: u16 = 32;
const TABLES: u64 = HIGH + MIB / 2;

/// Guest address, length, whether writable.
type Piece = (u64, u64, bool);

#[test]
fn device_agrees_with_virtio_queue_on_chains_and_used_ring() {
    for seed in 0..40 {
        for event_idx in [false, true] {
            Pair::new(Features { event_idx }).run(&mut Dice(seed), 30);
        }
    }
}

#[test]
fn device_agrees_with_virtio_queue_across_the_wrap_of_the_index() {
    for event_idx in [false, true] {
        let mut pair = Pair::new(Features { event_idx });
        pair.start_at(65_400);
        pair.run(&mut Dice(1), 60);
        assert!(pair.next < 10_000, "the index wrapped");
    }
}

/// Our device on one memory, theirs on another.
struct Pair {
    ours: Guest,
    device: SplitDevice,
    raw: RawSplit,
    theirs: Guest,
    queue: Queue,
    memory: GuestMemoryMmap,
    batch: ChainBatch,
    /// The available index.
    next: u16,
}

impl Pair {
    fn new(features: Features) -> Pair {
        let (ours, theirs) = (Guest::with(SIZE, features), Guest::with(SIZE, features));
        let regions = [(LOW, 0), (NEIGHBOUR, MIB), (HIGH, 2 * MIB)].map(|(addr, offset)| {
            let file = File::from(theirs.memory.fd().try_clone_to_owned().unwrap());
            (GuestAddress(addr), MIB as usize, Some(FileOffset::new(file, offset)))
        });
        let memory = GuestMemoryMmap::from_ranges_with_files(&regions).unwrap();
        let mut queue = Queue::new(SIZE).unwrap();
        queue.set_desc_table_address(Some(LOW as u32), Some((LOW >> 32) as u32));
        queue.set_avail_ring_address(Some(AVAIL as u32), Some((AVAIL >> 32) as u32));
        queue.set_used_ring_address(Some(USED as u32), Some((USED >> 32) as u32));
        queue.set_event_idx(features.event_idx);
        queue.set_ready(true);
        assert!(queue.is_valid(&memory));
        let (raw, device) = (ours.raw(), ours.device());
        Pair { ours, device, raw, theirs, queue, memory, batch: ChainBatch::new(8, 8), next: 0 }
    }

    fn start_at(&mut self, index: u16) {
        self.raw.set_avail_index(index);
        self.raw.set_used_index(index);
        self.device = SplitDevice::new(SIZE, self.ours.rings(), index, self.ours.features).unwrap();
        self.queue.set_next_avail(index);
        self.queue.set_next_used(index);
        self.next = index;
    }

    fn run(&mut self, dice: &mut Dice, rounds: usize) {
        for round in 0..rounds {
            let count = self.write_chains(dice);
            self.ours.memory.slice().copy_to(self.theirs.memory.slice());
            let mut heads = self.compare_chains(count);
            dice.shuffle(&mut heads);
            self.compare_used(&heads, dice, round == 0);
            self.compare_wish_for_kicks();
        }
    }

    /// Writes as many random chains as fit into the ring and makes them available. Returns how many.
    fn write_chains(&mut self, dice: &mut Dice) -> usize {
        let mut free: Vec<u16> = (0..SIZE).collect();
        dice.shuffle(&mut free);
        let mut count = 0;
        while let Some(head) = self.write_chain(dice, &mut free, count) {
            self.raw.set_avail_entry(self.next, head);
            self.next = self.next.wrapping_add(1);
            count += 1;
        }
        self.raw.set_avail_index(self.next);
        count
    }

    fn write_chain(&self, dice: &mut Dice, free: &mut Vec<u16>, number: usize) -> Option<u16> {
        let readable = dice.below(5);
        let buffers = readable + dice.below(6) + u64::from(readable == 0);
        let some = dice.below(buffers + 1);
        let direct = dice.one_of(&[0, buffers, some]);
        let in_ring = (direct + u64::from(direct < buffers)) as usize;
        if free.len() < in_ring {
            return None;
        }
        let mine = free.split_off(free.len() - in_ring);
        let entry = |dice: &mut Dice, index: u64, next: u16| {
            let (addr, len) = buffer(dice);
            let side = if index < readable { 0 } else { WRITE };
            let more = if index + 1 < buffers { NEXT } else { 0 };
            (addr, len, side | more, next)
        };
        for index in 0..direct {
            let next = mine.get(index as usize + 1).copied().unwrap_or(0);
            let (addr, len, flags, next) = entry(dice, index, next);
            self.raw.set_descriptor(mine[index as usize], addr, len, flags, next);
        }
        if direct < buffers {
            // Some are not aligned; the first of the last kind lies across two regions.
            let table = dice.one_of(&[TABLES, TABLES + 3, NEIGHBOUR - 24]) + 512 * number as u64;
            let entries: Vec<_> =
                (direct..buffers).map(|index| entry(dice, index, (index - direct) as u16 + 1)).collect();
            self.ours.write_table(table, &entries);
            self.raw.set_descriptor(mine[direct as usize], table, 16 * entries.len() as u32, INDIRECT, 0);
        }
        Some(mine[0])
    }

    /// Takes `count` chains from both, and compares them. Returns their heads.
    fn compare_chains(&mut self, count: usize) -> Vec<u16> {
        let mut ours = Vec::new();
        while self.device.pop(&self.ours.table, 8, &mut self.batch) > 0 {
            for chain in self.batch.chains() {
                let [readable, writable] = self.ours.shape(&self.batch, chain);
                let pieces = |slices: Vec<(u64, usize)>, writable| {
                    slices.into_iter().map(move |(addr, len)| (addr, len as u64, writable))
                };
                let pieces: Vec<Piece> = pieces(readable, false).chain(pieces(writable, true)).collect();
                ours.push((chain.head, pieces));
            }
        }
        assert_eq!((self.device.fault(), ours.len()), (None, count));
        let theirs: Vec<_> = self
            .queue
            .iter(&self.memory)
            .unwrap()
            .map(|chain| {
                let head = chain.head_index();
                (head, chain.flat_map(|at| cut(at.addr().0, u64::from(at.len()), at.is_write_only())).collect())
            })
            .collect();
        assert_eq!(ours, theirs);
        ours.into_iter().map(|(head, _)| head).collect()
    }

    /// Completes in this order, in batches, and compares the used ring and the wish for a call after each.
    fn compare_used(&mut self, heads: &[u16], dice: &mut Dice, first: bool) {
        let mut left = heads;
        let mut first = first;
        while !left.is_empty() {
            let (batch, rest) = left.split_at(1 + dice.below(left.len() as u64) as usize);
            left = rest;
            let event = self.raw.used_index().wrapping_add(dice.below(10) as u16).wrapping_sub(2);
            self.raw.set_used_event(event);
            RawSplit::new(SIZE, self.theirs.rings()).unwrap().set_used_event(event);
            for head in batch {
                let written = dice.next() as u32;
                self.device.complete(*head, written);
                self.queue.add_used(&self.memory, *head, written).unwrap();
            }
            let calls = (self.device.publish(), self.queue.needs_notification(&self.memory).unwrap());
            // The first call is ours alone: we do not know what the driver was told before, they do not ask.
            assert!(calls.0 == calls.1 || (first && calls.0), "{calls:?}");
            first = false;
            assert_eq!(self.used_ring(&self.ours), self.used_ring(&self.theirs));
        }
    }

    fn compare_wish_for_kicks(&mut self) {
        self.device.disable_notifications();
        self.queue.disable_notification(&self.memory).unwrap();
        if !self.ours.features.event_idx {
            // With event indices, they leave the event where it was and we move it behind.
            assert_eq!(self.used_ring(&self.ours), self.used_ring(&self.theirs));
        }
        let available = (self.device.enable_notifications(), self.queue.enable_notification(&self.memory).unwrap());
        assert_eq!(available, (false, false));
        assert_eq!(self.used_ring(&self.ours), self.used_ring(&self.theirs));
    }

    fn used_ring(&self, guest: &Guest) -> Vec<u8> {
        let mut bytes = vec![0; guest.rings().used.len()];
        guest.rings().used.read(&mut bytes);
        bytes
    }
}

/// A buffer somewhere in memory, now and then across two regions or without a byte.
fn buffer(dice: &mut Dice) -> (u64, u32) {
    let len = dice.one_of(&[0, 1, 51, 108, 512, 4096]);
    (dice.one_of(&[BUFFERS, NEIGHBOUR - 40, NEIGHBOUR + 0x1_0000, HIGH, HIGH + MIB - 4096]), len)
}

/// A buffer in pieces, one a region; none if it has no byte.
fn cut(addr: u64, len: u64, writable: bool) -> Vec<Piece> {
    let before = NEIGHBOUR.saturating_sub(addr).min(len);
    [(addr, before, writable), (addr + before, len - before, writable)]
        .into_iter()
        .filter(|(_, len, _)| *len > 0)
        .collect()
}
