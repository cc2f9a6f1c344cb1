//! Twenty thousand random messages against a model of whoever performs the effects. Deterministic.

use std::collections::HashSet;

use super::testing::*;
use super::*;
use crate::message::{config_body, mem_table_body, region_body, vring_addr_body, vring_state_body};

/// xorshift64*: enough to choose messages, the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.below(300);
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn region(&mut self) -> RegionConfig {
        match self.below(8) {
            0 => RegionConfig {
                guest_addr: self.next(),
                size: self.next(),
                user_addr: self.next(),
                mmap_offset: self.next(),
            },
            1 => region(self.below(16) * MIB, 0),
            _ => region(self.below(16) * 2 * MIB, MIB << (self.below(10) / 9)),
        }
    }

    /// Mostly a valid ring.
    fn ring(&mut self) -> u32 {
        if self.below(20) == 0 { self.next() as u32 } else { self.below(3) as u32 }
    }

    /// A message that is likely to be understood.
    fn plausible(&mut self) -> (u32, Vec<u8>, usize) {
        let ring = self.ring();
        let state = |num: u64| vring_state_body(ring, num as u32).to_vec();
        match self.below(24) {
            0 => (
                2,
                self.pick(&[
                    VERSION_1,
                    VERSION_1 | BIT_30,
                    VERSION_1 | BIT_30,
                    VERSION_1 | BIT_30 | CHANGE,
                    0,
                    u64::MAX,
                ])
                .to_le_bytes()
                .to_vec(),
                0,
            ),
            1 => (16, self.pick(&[0, 8, 0x1a209, u64::MAX]).to_le_bytes().to_vec(), 0),
            2 | 3 => {
                let regions: Vec<_> = (0..self.below(3)).map(|_| self.region()).collect();
                (5, mem_table_body(regions.iter()), regions.len())
            }
            4..=6 => (8, state(self.pick(&[128, 64, 1024, 1, 3, 2048])), 0),
            7..=9 => (9, vring_addr_body(ring, &addresses(ring & 3)).to_vec(), 0),
            10 => (10, state(self.below(70_000)), 0),
            11 | 12 => (11, state(0), 0),
            13..=15 => (12, u64::from(ring as u8).to_le_bytes().to_vec(), 1),
            16 => (12, (u64::from(ring as u8) | 0x100).to_le_bytes().to_vec(), 0),
            17 => (self.pick(&[13, 14]), u64::from(ring as u8).to_le_bytes().to_vec(), 1),
            18 => (18, state(self.below(3)), 0),
            19 => (37, region_body(&self.region()), 1),
            20 => (38, region_body(&self.region()), 0),
            21 => (39, self.pick(&[0u64, 3, 0x0b, 0x0f, 0x4f, 300]).to_le_bytes().to_vec(), 0),
            22 => (self.pick(&[24, 25]), config_body(self.below(300) as u32, 0, &[0; 36]), 0),
            _ => (self.pick(&[1, 3, 4, 15, 17, 34, 36, 40]), Vec::new(), 0),
        }
    }

    fn message(&mut self) -> (u32, Vec<u8>, usize) {
        let (code, mut body, mut fd_count) = self.plausible();
        match self.below(10) {
            0 => return (self.below(50) as u32, self.bytes(), self.below(9) as usize),
            1 => fd_count = self.below(9) as usize,
            2 => body.resize(self.below(300) as usize, 0),
            3 if !body.is_empty() => {
                let at = self.below(body.len() as u64) as usize;
                body[at] = self.next() as u8;
            }
            _ => {}
        }
        (code, body, fd_count)
    }
}

/// What a device would hold; every effect must make sense to it.
#[derive(Default)]
struct Model {
    features: Option<u64>,
    regions: Vec<RegionConfig>,
    started: HashSet<u16>,
    enabled: HashSet<u16>,
}

impl Model {
    fn perform(&mut self, effect: Effect, code: u32) {
        match effect {
            Effect::SetFeatures(features) => {
                assert!(self.started.is_empty());
                assert_eq!(features & !(VERSION_1 | HOTPLUG | BIT_30), 0);
                self.features = Some(features);
            }
            Effect::SetMemTable(regions) => {
                self.regions = regions.into_iter().map(|(region, _)| region).collect();
            }
            Effect::AddRegion(region, _) => self.regions.push(region),
            Effect::RemoveRegion(region) => {
                let before = self.regions.len();
                self.regions.retain(|other| *other != region);
                assert_eq!(self.regions.len() + 1, before);
            }
            Effect::StartRing { index, config, .. } => {
                assert!(self.started.insert(index), "ring {index} is started");
                assert!(self.features.is_some() && !self.regions.is_empty());
                assert!(config.size.is_power_of_two() && config.size <= 1024);
                assert!(config.base <= 0xffff);
                let negotiated = self.features.is_some_and(|features| features & BIT_30 != 0);
                assert!(negotiated || self.enabled.contains(&index));
            }
            Effect::StopRing { index } => assert!(self.started.remove(&index), "ring {index} is stopped"),
            Effect::EnableRing { index, enabled } => {
                assert!(index < 3);
                if enabled {
                    self.enabled.insert(index)
                } else {
                    self.enabled.remove(&index)
                };
            }
            Effect::SetKick { index, .. } => assert!(self.started.contains(&index)),
            Effect::SetCall { index, .. } | Effect::SetErr { index, .. } => assert!(index < 3),
            Effect::ResetDevice => {
                assert!(self.started.is_empty() && self.enabled.is_empty());
                if code == 39 {
                    self.features = None;
                }
            }
            Effect::SetConfig { offset, bytes, .. } => assert!(offset as usize + bytes.len() <= 256),
            other => panic!("{other:?} was not offered"),
        }
        self.check_regions();
    }

    fn check_regions(&self) {
        for (at, region) in self.regions.iter().enumerate() {
            assert!(region.size > 0);
            assert_eq!(check_overlap(region, &self.regions[..at]), None);
        }
    }
}

fn check_overlap<'a>(region: &RegionConfig, others: &'a [RegionConfig]) -> Option<&'a RegionConfig> {
    let end = region.guest_addr.checked_add(region.size).unwrap();
    others.iter().find(|other| region.guest_addr < other.guest_addr + other.size && other.guest_addr < end)
}

#[test]
fn session_twenty_thousand_random_messages_never_panics_and_stays_consistent() {
    let mut random = Random(0x5eed_0f5c_511e_55ed);
    let mut refused = 0;
    let mut seen = HashSet::new();
    for _ in 0..100 {
        let mut talk = Talk::new();
        let mut model = Model::default();
        for _ in 0..200 {
            let (code, body, fd_count) = random.message();
            let outcome = talk.outcome(code, &body, fd_count);
            assert!(!RequestCode(code).solicits_reply() || !matches!(outcome.reply, Reply::None | Reply::Ack));
            refused += u32::from(outcome.refused.is_some());
            if outcome.refused.is_some() {
                assert!(outcome.effects.is_empty());
                if code == 2 && model.started.is_empty() {
                    model.features = talk.session.features();
                }
            }
            for effect in outcome.effects {
                seen.insert(std::mem::discriminant(&effect));
                model.perform(effect, code);
            }
            assert_eq!(talk.session.features(), model.features);
            assert_eq!(talk.session.regions, model.regions);
        }
    }
    // Every effect that this device offers was reached, and plenty of refusals.
    assert_eq!(seen.len(), 12);
    assert!((5_000..15_000).contains(&refused), "{refused} refused");
}
