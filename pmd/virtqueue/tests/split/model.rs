//! Driver and device against a model that is nothing but queues of what has to come next. Any sequence of operations,
//! at any place of the index, over the wrap; the same sequence on a split and on a packed ring, and on both with chains used
//! in order (VIRTIO_F_IN_ORDER).

use std::collections::VecDeque;

use proptest::prelude::*;
use virtqueue::{ChainBatch, DeviceQueue, DriverQueue, Features, RingFormat, Segment};

use crate::fixture::{BUFFERS, Guest, HIGH, MIB, NEIGHBOUR};

const SIZE: u16 = 16;
/// Format of a ring, and whether its chains are used in order.
const KINDS: [(RingFormat, bool); 4] =
    [(RingFormat::Split, false), (RingFormat::Packed, false), (RingFormat::Split, true), (RingFormat::Packed, true)];

#[derive(Clone, Debug)]
enum Op {
    /// Lengths of the readable and of the writable buffers; whether in an indirect table.
    Add {
        readable: Vec<u32>,
        writable: Vec<u32>,
        indirect: bool,
    },
    DriverPublish,
    Pop {
        limit: usize,
        /// How many of them are put back at once.
        back: usize,
    },
    /// Pops chains and completes all of them.
    PopAndComplete {
        limit: usize,
    },
    /// Completes one of the chains in flight, as written in full or otherwise.
    Complete {
        which: usize,
        written: Option<u32>,
    },
    /// Waits for one of the chains in flight to be published, or for all that have ended.
    Await {
        which: Option<usize>,
    },
    DevicePublish,
    TakeUsed,
}

fn op() -> impl Strategy<Value = Op> {
    let lengths = |most| prop::collection::vec(1u32..5000, 0..=most);
    prop_oneof![
        4 => (lengths(5), lengths(5), any::<bool>())
            .prop_filter("a chain has a buffer", |(readable, writable, _)| readable.len() + writable.len() > 0)
            .prop_map(|(readable, writable, indirect)| Op::Add { readable, writable, indirect }),
        3 => Just(Op::DriverPublish),
        3 => (1usize..6, 0usize..8).prop_map(|(limit, back)| Op::Pop { limit, back: back.saturating_sub(3) }),
        1 => (1usize..6).prop_map(|limit| Op::PopAndComplete { limit }),
        4 => (any::<usize>(), prop::option::of(any::<u32>()))
            .prop_map(|(which, written)| Op::Complete { which, written }),
        1 => prop::option::of(any::<usize>()).prop_map(|which| Op::Await { which }),
        3 => Just(Op::DevicePublish),
        3 => Just(Op::TakeUsed),
    ]
}

struct World {
    guest: Guest,
    driver: DriverQueue,
    device: DeviceQueue,
    batch: ChainBatch,
    tokens: usize,
    /// Chains by stage, oldest first: (token, head, segments).
    added: VecDeque<Added>,
    available: VecDeque<Added>,
    /// All that were popped, ever.
    seen: Vec<Added>,
    /// In flight: (token, head).
    popped: Vec<(usize, u16)>,
    /// Chains that were popped and are not used, the oldest first, and what was written into those that have ended; not kept
    /// where chains are used in any order.
    window: Option<VecDeque<(usize, u16, Option<u32>)>>,
    /// The youngest chain that somebody waits for.
    awaited: Option<usize>,
    /// (token, head, written)
    completed: VecDeque<(usize, u16, u32)>,
    used: VecDeque<(usize, u16, u32)>,
    /// Ring descriptors by head.
    descriptors: [usize; SIZE as usize],
}

#[derive(Clone, Debug)]
struct Added {
    token: usize,
    head: u16,
    segments: Vec<Segment>,
}

impl World {
    /// `turns` chains have gone round before.
    fn new((format, in_order): (RingFormat, bool), event_idx: bool, turns: usize) -> World {
        let guest = Guest::with(SIZE, Features { event_idx });
        let rings = guest.rings_of(format);
        let mut driver = DriverQueue::new(format, SIZE, rings, guest.features).unwrap();
        let mut device = DeviceQueue::new(format, SIZE, rings, format.first_base(), guest.features).unwrap();
        if in_order {
            driver.expect_in_order();
            device = device.in_order();
        }
        let batch = ChainBatch::new(4, 8);
        let mut world = World {
            guest,
            driver,
            device,
            batch,
            tokens: 0,
            added: VecDeque::new(),
            available: VecDeque::new(),
            seen: Vec::new(),
            popped: Vec::new(),
            window: in_order.then(VecDeque::new),
            awaited: None,
            completed: VecDeque::new(),
            used: VecDeque::new(),
            descriptors: [0; SIZE as usize],
        };
        let prepared = world.driver.prepare(&[Segment::readable(BUFFERS, 1)], 0).unwrap();
        for _ in 0..turns {
            world.driver.submit(&prepared);
            world.driver.publish();
            assert_eq!(world.device.pop(&world.guest.table, 1, &mut world.batch), 1);
            world.device.complete(prepared.head(), 0);
            world.device.publish();
            world.driver.pop_used().unwrap();
        }
        world.driver.release(prepared);
        world
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Add { readable, writable, indirect } => self.add(&readable, &writable, indirect),
            Op::DriverPublish => {
                self.driver.publish();
                self.available.append(&mut self.added);
            }
            Op::Pop { limit, back } => {
                let count = self.pop(limit);
                self.put_back(back.min(count));
            }
            Op::PopAndComplete { limit } => {
                let count = self.pop(limit);
                let chains = self.popped.split_off(self.popped.len() - count);
                // Every third is written in part.
                let written = |index: usize, token| if index % 3 == 2 { 7 } else { self.writable(token) };
                let written: Vec<u32> =
                    chains.iter().enumerate().map(|(index, (token, _))| written(index, *token)).collect();
                self.device.complete_popped(self.batch.chains(), written.iter().copied());
                for ((token, head), written) in chains.into_iter().zip(written) {
                    self.completed(token, head, written);
                }
            }
            Op::Complete { which, written } => {
                if !self.popped.is_empty() {
                    let (token, head) = self.popped.swap_remove(which % self.popped.len());
                    let written = written.unwrap_or_else(|| self.writable(token));
                    self.device.complete(head, written);
                    self.completed(token, head, written);
                }
            }
            Op::Await { which } => self.wait_for(which),
            Op::DevicePublish => {
                self.device.publish();
                self.used.append(&mut self.completed);
            }
            Op::TakeUsed => {
                let used = self.driver.pop_used().map(|used| (used.token, used.head, used.written));
                assert_eq!(used, self.used.pop_front());
            }
        }
        self.check();
    }

    fn add(&mut self, readable: &[u32], writable: &[u32], indirect: bool) {
        // All over memory, some across the border of two regions.
        let place = |index: usize| match (self.tokens + index) % 3 {
            0 => NEIGHBOUR - 100 * index as u64,
            1 => HIGH + 5000 * index as u64,
            _ => BUFFERS + 16 * index as u64,
        };
        let segments: Vec<_> = readable
            .iter()
            .map(|len| (*len, false))
            .chain(writable.iter().map(|len| (*len, true)))
            .enumerate()
            .map(|(index, (len, writable))| Segment { addr: place(index), len, writable })
            .collect();
        let needed = if indirect { 1 } else { segments.len() };
        let free = self.free();
        let result = if indirect {
            // A table for each head there can be; which one it will be is not known before.
            let table_addr = HIGH + MIB / 2 + 256 * (self.tokens as u64 % 512);
            let table = self.guest.bytes(table_addr, 256);
            self.driver.add_indirect(&segments, table_addr, table, self.tokens)
        } else {
            self.driver.add(&segments, self.tokens)
        };
        assert_eq!(result.is_ok(), needed <= free);
        if let Ok(head) = result {
            self.descriptors[usize::from(head)] = needed;
            self.added.push_back(Added { token: self.tokens, head, segments });
            self.tokens += 1;
        }
    }

    /// Bytes that the device may write into a chain that it was given.
    fn writable(&self, token: usize) -> u32 {
        let added = self.seen.iter().rfind(|added| added.token == token).expect("it was popped");
        added.segments.iter().filter(|segment| segment.writable).map(|segment| segment.len).sum()
    }

    /// A chain was completed: it is used, in order when those before it are.
    fn completed(&mut self, token: usize, head: u16, written: u32) {
        let Some(window) = &mut self.window else { return self.completed.push_back((token, head, written)) };
        let place = window.iter_mut().find(|(of, ..)| *of == token).expect("it was popped");
        place.2 = Some(written);
        while let Some((token, head, Some(written))) = window.front().copied() {
            self.completed.push_back((token, head, written));
            window.pop_front();
        }
    }

    fn wait_for(&mut self, which: Option<usize>) {
        let (DeviceQueue::InOrder(device), Some(window)) = (&mut self.device, &self.window) else { return };
        let token = match which {
            Some(_) if self.popped.is_empty() => return,
            Some(which) => {
                let (token, head) = self.popped[which % self.popped.len()];
                device.await_published(head);
                Some(token)
            }
            None => {
                device.await_ended();
                window.iter().rfind(|(.., written)| written.is_some()).map(|(token, ..)| *token)
            }
        };
        self.awaited = self.awaited.max(token);
    }

    /// The last chains that were popped are available again.
    fn put_back(&mut self, count: usize) {
        let chains = self.popped.split_off(self.popped.len() - count);
        self.device.put_back(chains.iter().map(|(_, head)| *head));
        if let Some(window) = &mut self.window {
            window.truncate(window.len() - count);
        }
        for (token, _) in chains.into_iter().rev() {
            let added = self.seen.iter().rfind(|added| added.token == token).expect("it was popped");
            self.available.push_front(added.clone());
        }
    }

    fn pop(&mut self, limit: usize) -> usize {
        let count = self.device.pop(&self.guest.table, limit, &mut self.batch);
        assert_eq!(count, self.batch.chains().len());
        assert!(count <= limit.min(4));
        // A batch may end early, but not before it has begun.
        assert_eq!(count == 0, self.available.is_empty());
        for chain in self.batch.chains() {
            let added = self.available.pop_front().expect("no more than were available");
            self.seen.push(added.clone());
            let Added { token, head, segments } = added;
            assert_eq!(chain.head, head);
            let of = |writable| segments.iter().filter(move |segment| segment.writable == writable);
            let bytes = |writable| of(writable).map(|segment| u64::from(segment.len)).sum::<u64>();
            assert_eq!([chain.readable_bytes, chain.writable_bytes], [bytes(false), bytes(true)]);
            let descriptors = [chain.readable_descriptors, chain.writable_descriptors].map(usize::from);
            assert_eq!(descriptors, [of(false).count(), of(true).count()]);
            let expected = [false, true].map(|writable| of(writable).flat_map(cut).collect::<Vec<_>>());
            assert_eq!(self.guest.shape(&self.batch, chain), expected);
            self.popped.push((token, head));
            if let Some(window) = &mut self.window {
                window.push_back((token, head, None));
            }
        }
        count
    }

    fn free(&self) -> usize {
        let heads = self.added.iter().chain(&self.available).map(|added| added.head);
        let in_flight: Vec<u16> = match &self.window {
            Some(window) => window.iter().map(|(_, head, _)| *head).collect(),
            None => self.popped.iter().map(|(_, head)| *head).collect(),
        };
        let heads = heads.chain(in_flight);
        let heads = heads.chain(self.completed.iter().chain(&self.used).map(|(_, head, _)| *head));
        usize::from(SIZE) - heads.map(|head| self.descriptors[usize::from(head)]).sum::<usize>()
    }

    fn check(&self) {
        assert_eq!(self.device.fault(), None);
        assert_eq!(self.driver.fault(), None);
        let in_flight = self.window.as_ref().map_or(self.popped.len(), VecDeque::len);
        assert_eq!(usize::from(self.device.in_flight()), in_flight);
        if let (DeviceQueue::InOrder(device), Some(window)) = (&self.device, &self.window) {
            let waits = window.front().is_some_and(|(oldest, ..)| Some(*oldest) <= self.awaited);
            assert_eq!(device.is_awaited(), waits || !self.completed.is_empty());
        }
        assert_eq!(usize::from(self.device.unpublished()), self.completed.len());
        assert_eq!(self.device.has_available(), !self.available.is_empty());
        let ahead = self.device.avail_snapshot().wrapping_sub(self.device.next_avail());
        assert_eq!(usize::from(ahead), self.available.len());
        assert_eq!(self.driver.num_free(), self.free());
        let out = [self.added.len(), self.available.len(), in_flight, self.completed.len(), self.used.len()];
        assert_eq!(usize::from(self.driver.in_flight()), out.iter().sum::<usize>());
    }
}

/// A segment as slices: cut where the first region ends and the second begins.
fn cut(segment: &Segment) -> Vec<(u64, usize)> {
    let (addr, len) = (segment.addr, segment.len as usize);
    match NEIGHBOUR.checked_sub(addr) {
        Some(before) if before > 0 && len as u64 > before => {
            vec![(addr, before as usize), (NEIGHBOUR, len - before as usize)]
        }
        _ => vec![(addr, len)],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_time: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_operations_does_what_the_model_says(
        event_idx in any::<bool>(),
        // At the beginning of the index, at its half, just before its end.
        turns in prop::sample::select(vec![0usize, 0, 0, 32_760, 65_520]),
        ops in prop::collection::vec(op(), 1..200),
    ) {
        for kind in KINDS {
            let mut world = World::new(kind, event_idx, turns);
            for op in ops.clone() {
                world.apply(op);
            }
        }
    }
}

#[test]
fn index_that_wraps_twice_loses_nothing() {
    for kind in KINDS {
        wraps_twice(World::new(kind, true, 65_530));
    }
}

fn wraps_twice(mut world: World) {
    for round in 0..70_000 {
        world.apply(Op::Add { readable: vec![51], writable: vec![108, 4096], indirect: round % 2 == 0 });
        world.apply(Op::DriverPublish);
        world.apply(Op::Pop { limit: 4, back: 0 });
        world.apply(Op::Complete { which: 0, written: Some(round) });
        world.apply(Op::DevicePublish);
        world.apply(Op::TakeUsed);
    }
    assert_eq!((world.tokens, world.free()), (70_000, 16));
}
