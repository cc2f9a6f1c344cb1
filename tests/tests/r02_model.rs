//! R02 against a model: whatever the driver submits on whichever queue, and whenever backends end what they have, a
//! command is refused exactly if its unit has the limit in flight. Never at N-1, never accepted at N.

use std::collections::VecDeque;
use std::sync::Arc;

use bdev::{Delay, Gate, Null};
use tests::device::{Device, FIRST, Noise, Request, Setup, TEST_UNIT_READY, lun, read_10, unit};
use virtio_scsi::Limit;

const OPERATIONS: u32 = 10_000;
const LIMIT: usize = 5;
const QUEUES: usize = 3;
/// Chains that a shard takes from a ring in one poll.
const BATCH: usize = 32;
const OK: u8 = 0;
const BUSY: u8 = 5;

#[derive(Clone, Copy)]
struct Submitted {
    token: usize,
    unit: usize,
    /// Answered without a backend: in flight until the end of its batch.
    instant: bool,
}

/// What should happen.
struct Model {
    shards: usize,
    rings: [VecDeque<Submitted>; QUEUES],
    /// At the backend, by shard and unit: queue and token.
    pending: Vec<[VecDeque<(usize, usize)>; 2]>,
    permits: [u64; 2],
    in_flight: [usize; 2],
    high_water: [usize; 2],
    refused: [u64; 2],
}

impl Model {
    /// A poll of one shard: queue, token and response of everything that comes back.
    fn poll(&mut self, shard: usize) -> Vec<(usize, usize, u8)> {
        let mut back = Vec::new();
        for unit in 0..2 {
            let count = self.permits[unit].min(self.pending[shard][unit].len() as u64);
            self.permits[unit] -= count;
            self.in_flight[unit] -= count as usize;
            back.extend(self.pending[shard][unit].drain(..count as usize).map(|(queue, token)| (queue, token, OK)));
        }
        for queue in (0..QUEUES).filter(|queue| queue % self.shards == shard) {
            let mut ended = [0; 2];
            for _ in 0..self.rings[queue].len().min(BATCH) {
                let Submitted { token, unit, instant } = self.rings[queue].pop_front().unwrap();
                if self.in_flight[unit] == LIMIT {
                    self.refused[unit] += 1;
                    back.push((queue, token, BUSY));
                    continue;
                }
                self.in_flight[unit] += 1;
                self.high_water[unit] = self.high_water[unit].max(self.in_flight[unit]);
                if instant {
                    ended[unit] += 1;
                    back.push((queue, token, OK));
                } else {
                    self.pending[shard][unit].push_back((queue, token));
                }
            }
            (0..2).for_each(|unit| self.in_flight[unit] -= ended[unit]);
        }
        back
    }
}

fn compare(shards: usize, seed: u64) {
    let gates = [Gate::closed(), Gate::closed()];
    let units = [0, 1].map(|number: u16| {
        let null = Null::new("null", 64, 512).unwrap();
        unit(0, number, Arc::new(Delay::held(Arc::new(null), &gates[usize::from(number)])))
    });
    let mut setup = Setup::of(units);
    setup.request_queues = QUEUES as u16;
    setup.shards = shards;
    setup.limits.cmd_per_lun = LIMIT as u32;
    let mut device = Device::ready(setup);
    let mut model = Model {
        shards,
        rings: Default::default(),
        pending: vec![Default::default(); shards],
        permits: [0; 2],
        in_flight: [0; 2],
        high_water: [1; 2],
        refused: [0; 2],
    };
    let mut noise = Noise::new(seed);
    for operation in 0..OPERATIONS {
        match noise.below(10) {
            0..5 => {
                let (queue, unit) = (noise.below(QUEUES as u64) as usize, noise.below(2) as usize);
                if device.outstanding(FIRST + queue as u16) < 40 {
                    let instant = noise.once_in(4);
                    let request = match instant {
                        true => Request::new(lun(0, unit as u16), &TEST_UNIT_READY),
                        false => Request::new(lun(0, unit as u16), &read_10(0, 1)).data_in(512),
                    };
                    let token = device.submit(FIRST + queue as u16, request);
                    model.rings[queue].push_back(Submitted { token, unit, instant });
                }
            }
            5..7 => {
                let (unit, count) = (noise.below(2) as usize, noise.below(4));
                gates[unit].release(count);
                model.permits[unit] += count;
            }
            _ => {
                let shard = noise.below(shards as u64) as usize;
                device.poll_shard(shard);
                let mut expected = model.poll(shard);
                let mut seen = Vec::new();
                for queue in 0..QUEUES {
                    let replies = device.take(FIRST + queue as u16);
                    seen.extend(replies.iter().map(|reply| (queue, reply.token, reply.code())));
                }
                expected.sort_unstable();
                seen.sort_unstable();
                assert_eq!(seen, expected, "seed {seed}, {shards} shards, operation {operation}");
                for unit in 0..2 {
                    assert_eq!(device.in_flight(unit), model.in_flight[unit] as u64, "seed {seed} at {operation}");
                }
            }
        }
    }
    assert_eq!(model.high_water, [LIMIT; 2], "the limit was reached");
    for unit in 0..2 {
        assert!(model.refused[unit] > 100, "{:?}", model.refused);
        assert_eq!(device.refused(unit, Limit::CmdPerLun), model.refused[unit]);
        let marks = device.controller.stats().iter().map(|stats| stats.units[unit].high_water.value()).max();
        assert_eq!(marks, Some(LIMIT as u64));
    }
    gates.iter().for_each(Gate::open);
}

#[test]
fn r02_random_operations_on_one_shard_are_refused_exactly_at_the_limit() {
    (1..=3).for_each(|seed| compare(1, seed));
}

#[test]
fn r02_random_operations_on_two_shards_are_refused_exactly_at_the_limit() {
    (1..=3).for_each(|seed| compare(2, seed));
}
