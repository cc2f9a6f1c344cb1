//! Which address was last seen behind which port: a table of fixed size that every queue of the switch reads and writes
//! without a lock. Where frames go is `forward.rs`.
//!
//! An address has two buckets of eight slots, picked by a keyed hash, so that a guest cannot choose addresses that push a
//! certain other one out. One slot is one word, the address and its port together, so readers never see half of a change.
//! Writers take turns by a flag: who finds it raised goes on without having learned, and learns from a later frame.
//! Nothing runs to remove what is old: whoever finds an old entry treats it as none, and writers clear away as they pass.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use reactor::Tsc;

use super::stats::SwitchStats;
use crate::Mac;

/// Number of a port of the switch: 0 is the uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortId(pub(crate) u16);

/// The table.
pub(crate) struct MacTable {
    /// Address in the upper 48 bits, port in the lower 16; 0 is a free slot.
    entries: Box<[AtomicU64]>,
    /// When a frame of it was last noticed, in ticks.
    seen: Box<[AtomicU64]>,
    buckets: usize,
    /// Nobody else knows them.
    seeds: [u64; 2],
    writing: AtomicBool,
    /// Where clearing goes on. Like the counts, only touched by the writer.
    hand: AtomicU32,
    entries_count: AtomicU32,
    port_counts: Box<[AtomicU32]>,
    entries_max: u32,
    port_entries_max: u32,
    age_ticks: u64,
    refresh_ticks: u64,
}

impl MacTable {
    /// Room for `entries_max` addresses, of which one device may have `port_entries_max`; `ports` is one more than the highest
    /// port number. Entries count as gone when no frame has come for `age`.
    pub(crate) fn new(entries_max: u32, port_entries_max: u32, ports: usize, age: Duration) -> MacTable {
        let slots = (entries_max as usize * 2).next_power_of_two().max(2 * BUCKET);
        let age_ticks = Tsc::ticks(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        MacTable {
            entries: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            seen: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            buckets: slots / BUCKET,
            seeds: [0; 2].map(|_| RandomState::new().build_hasher().finish()),
            writing: AtomicBool::new(false),
            hand: AtomicU32::new(0),
            entries_count: AtomicU32::new(0),
            port_counts: (0..ports).map(|_| AtomicU32::new(0)).collect(),
            entries_max,
            port_entries_max,
            age_ticks,
            refresh_ticks: (age_ticks / 64).min(Tsc::ticks(1_000_000_000)),
        }
    }

    /// The port that frames to this address go to.
    #[inline]
    pub(crate) fn find(&self, mac: Mac, now: Tsc) -> Option<PortId> {
        let (slot, entry) = self.slot_of(key(mac))?;
        (!self.is_old(slot, now)).then_some(port(entry))
    }

    /// A frame of this address came from that port. Writes only if that is news, or about once a second.
    #[inline]
    pub(crate) fn learn(&self, mac: Mac, from: PortId, now: Tsc, stats: &SwitchStats) {
        let key = key(mac);
        if key == 0 || mac.is_multicast() {
            return;
        }
        match self.slot_of(key) {
            Some((slot, entry)) if port(entry) == from => {
                if now - Tsc(self.seen[slot].load(Ordering::Relaxed)) >= self.refresh_ticks {
                    self.seen[slot].store(now.0, Ordering::Relaxed);
                }
            }
            _ => self.write(|| self.learn_news(key, from, now, stats)),
        }
    }

    /// Forgets every address behind a port whose device has gone. Control threads only: waits for its turn.
    pub(crate) fn forget_port(&self, gone: PortId, stats: &SwitchStats) {
        let mut over = false;
        while !over {
            self.write(|| {
                (0..self.entries.len()).filter(|slot| self.holds(*slot, gone)).for_each(|slot| self.clear(slot));
                stats.entries.set(u64::from(self.entries_count.load(Ordering::Relaxed)));
                over = true;
            });
            std::hint::spin_loop();
        }
    }

    /// Clears what is old away, so that the number of entries is right. Does nothing if somebody is writing.
    pub(crate) fn sweep(&self, now: Tsc, stats: &SwitchStats) {
        self.write(|| self.clear_old(0, self.buckets, now, stats));
    }

    /// Runs `work` as the only writer, or not at all.
    #[cold]
    fn write(&self, work: impl FnOnce()) {
        if self.writing.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            work();
            self.writing.store(false, Ordering::Release);
        }
    }

    fn learn_news(&self, key: u64, from: PortId, now: Tsc, stats: &SwitchStats) {
        let hand = self.hand.load(Ordering::Relaxed);
        self.clear_old(hand as usize, BUCKETS_CLEARED, now, stats);
        self.hand.store(hand.wrapping_add(BUCKETS_CLEARED as u32), Ordering::Relaxed);
        let known = self.slot_of(key);
        let full = from.0 != 0 && self.count_of(from).load(Ordering::Relaxed) >= self.port_entries_max;
        let room =
            || if self.entries_count.load(Ordering::Relaxed) < self.entries_max { self.free_slot(key) } else { None };
        match known {
            _ if full => stats.table_full.add(1),
            // Another writer may have been faster.
            Some((_, entry)) if port(entry) == from => {}
            Some((slot, entry)) => {
                self.count(port(entry), -1);
                self.set(slot, key, from, now);
                stats.moved.add(1);
            }
            None => match room() {
                Some(slot) => {
                    self.set(slot, key, from, now);
                    stats.learned.add(1);
                }
                None => stats.table_full.add(1),
            },
        }
        stats.entries.set(u64::from(self.entries_count.load(Ordering::Relaxed)));
    }

    fn clear_old(&self, first: usize, buckets: usize, now: Tsc, stats: &SwitchStats) {
        let slots = (first..first + buckets.min(self.buckets)).flat_map(|bucket| self.slots(bucket));
        for slot in slots {
            if self.entries[slot].load(Ordering::Relaxed) != 0 && self.is_old(slot, now) {
                self.clear(slot);
                stats.aged.add(1);
            }
        }
        stats.entries.set(u64::from(self.entries_count.load(Ordering::Relaxed)));
    }

    fn set(&self, slot: usize, key: u64, port: PortId, now: Tsc) {
        self.seen[slot].store(now.0, Ordering::Relaxed);
        // Whoever finds the entry finds its time as well.
        self.entries[slot].store(key << 16 | u64::from(port.0), Ordering::Release);
        self.count(port, 1);
    }

    fn clear(&self, slot: usize) {
        let entry = self.entries[slot].load(Ordering::Relaxed);
        self.entries[slot].store(0, Ordering::Relaxed);
        self.count(port(entry), -1);
    }

    fn count(&self, port: PortId, change: i32) {
        for count in [self.count_of(port), &self.entries_count] {
            count.store(count.load(Ordering::Relaxed).wrapping_add_signed(change), Ordering::Relaxed);
        }
    }

    fn holds(&self, slot: usize, of: PortId) -> bool {
        let entry = self.entries[slot].load(Ordering::Relaxed);
        entry != 0 && port(entry) == of
    }

    fn count_of(&self, port: PortId) -> &AtomicU32 {
        &self.port_counts[usize::from(port.0)]
    }

    #[inline]
    fn is_old(&self, slot: usize, now: Tsc) -> bool {
        now - Tsc(self.seen[slot].load(Ordering::Relaxed)) > self.age_ticks
    }

    #[inline]
    fn slot_of(&self, key: u64) -> Option<(usize, u64)> {
        let loaded = |slot: usize| (slot, self.entries[slot].load(Ordering::Acquire));
        self.candidates(key).map(loaded).find(|(_, entry)| entry >> 16 == key)
    }

    /// In the emptier of the two buckets.
    fn free_slot(&self, key: u64) -> Option<usize> {
        let is_free = |slot: &usize| self.entries[*slot].load(Ordering::Relaxed) == 0;
        let [first, second] = self.buckets_of(key);
        let room = |bucket| self.slots(bucket).filter(is_free).count();
        let bucket = if room(first) >= room(second) { first } else { second };
        self.slots(bucket).find(is_free)
    }

    #[inline]
    fn candidates(&self, key: u64) -> impl Iterator<Item = usize> {
        let [first, second] = self.buckets_of(key);
        self.slots(first).chain(self.slots(second))
    }

    #[inline]
    fn slots(&self, bucket: usize) -> std::ops::Range<usize> {
        let start = bucket % self.buckets * BUCKET;
        start..start + BUCKET
    }

    #[inline]
    fn buckets_of(&self, key: u64) -> [usize; 2] {
        let hash = multiply(multiply(key ^ self.seeds[0], MIX) ^ self.seeds[1], MIX);
        let mask = self.buckets - 1; // a power of two
        [hash as usize & mask, (hash >> 32) as usize & mask]
    }
}

/// Both halves of the product, folded.
#[inline]
fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

#[inline]
fn key(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

#[inline]
fn port(entry: u64) -> PortId {
    PortId(entry as u16)
}

/// Slots in a bucket: one cache line of entries.
const BUCKET: usize = 8;
/// Buckets that a writer clears as it passes.
const BUCKETS_CLEARED: usize = 4;
/// An odd number with as many ones as zeros, more or less (the golden ratio).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AGE: Duration = Duration::from_secs(300);

    fn table(entries_max: u32) -> (MacTable, SwitchStats) {
        (MacTable::new(entries_max, entries_max, 8, AGE), SwitchStats::default())
    }

    fn mac(number: u32) -> Mac {
        let [a, b, c, d] = number.to_be_bytes();
        Mac([0x52, 0x54, a, b, c, d])
    }

    fn counts(stats: &SwitchStats) -> [u64; 5] {
        [
            stats.entries.value(),
            stats.learned.value(),
            stats.moved.value(),
            stats.aged.value(),
            stats.table_full.value(),
        ]
    }

    fn seconds(seconds: u64) -> Tsc {
        Tsc(1 << 40) + Tsc::ticks(seconds * 1_000_000_000)
    }

    #[test]
    fn address_learned_is_found_behind_its_port_and_moves_with_it() {
        let (table, stats) = table(16);
        assert_eq!(table.find(mac(1), seconds(0)), None);
        table.learn(mac(1), PortId(3), seconds(0), &stats);
        table.learn(mac(1), PortId(3), seconds(0), &stats);
        assert_eq!(table.find(mac(1), seconds(0)), Some(PortId(3)));
        table.learn(mac(1), PortId(0), seconds(1), &stats);
        assert_eq!(table.find(mac(1), seconds(1)), Some(PortId(0)));
        assert_eq!(counts(&stats), [1, 1, 1, 0, 0]);
    }

    #[test]
    fn address_of_a_group_or_of_nobody_is_never_learned() {
        let (table, stats) = table(16);
        for mac in [Mac::BROADCAST, Mac([0x33, 0x33, 0, 0, 0, 1]), Mac([1, 0, 0, 0, 0, 0]), Mac([0; 6])] {
            table.learn(mac, PortId(1), seconds(0), &stats);
            assert_eq!(table.find(mac, seconds(0)), None);
        }
        assert_eq!(counts(&stats), [0; 5]);
    }

    #[test]
    fn address_not_seen_for_its_age_is_gone_and_one_that_is_seen_stays() {
        let (table, stats) = table(16);
        table.learn(mac(1), PortId(1), seconds(0), &stats);
        table.learn(mac(2), PortId(1), seconds(0), &stats);
        table.learn(mac(2), PortId(1), seconds(200), &stats);
        assert_eq!(table.find(mac(1), seconds(299)), Some(PortId(1)));
        assert_eq!((table.find(mac(1), seconds(301)), table.find(mac(2), seconds(301))), (None, Some(PortId(1))));
        table.sweep(seconds(301), &stats);
        assert_eq!(counts(&stats), [1, 2, 0, 1, 0]);
        // It comes back as a new one.
        table.learn(mac(1), PortId(2), seconds(302), &stats);
        assert_eq!((table.find(mac(1), seconds(302)), counts(&stats)), (Some(PortId(2)), [2, 3, 0, 1, 0]));
    }

    #[test]
    fn table_that_is_full_learns_again_when_entries_are_old() {
        let (table, stats) = table(64);
        (0..100).for_each(|number| table.learn(mac(number), PortId(1), seconds(0), &stats));
        assert_eq!(counts(&stats), [64, 64, 0, 0, 36]);
        assert!((0..100).filter(|number| table.find(mac(*number), seconds(0)).is_some()).count() == 64);
        table.learn(mac(1000), PortId(1), seconds(301), &stats);
        table.learn(mac(1000), PortId(1), seconds(301), &stats);
        assert_eq!(table.find(mac(1000), seconds(301)), Some(PortId(1)));
    }

    #[test]
    fn table_of_any_size_holds_as_many_as_it_says() {
        for entries_max in [1, 7, 100, 4096] {
            let (table, stats) = table(entries_max);
            (0..entries_max).for_each(|number| table.learn(mac(number * 77), PortId(1), seconds(0), &stats));
            assert_eq!(stats.entries.value() + stats.table_full.value(), u64::from(entries_max));
            assert!(stats.table_full.value() * 100 <= u64::from(entries_max), "{} refused", stats.table_full.value());
        }
    }

    #[test]
    fn device_with_as_many_addresses_as_it_may_have_leaves_room_for_others() {
        let (table, stats) = (MacTable::new(64, 8, 4, AGE), SwitchStats::default());
        (0..50).for_each(|number| table.learn(mac(number), PortId(1), seconds(0), &stats));
        assert_eq!(counts(&stats), [8, 8, 0, 0, 42]);
        table.learn(mac(100), PortId(2), seconds(0), &stats);
        assert_eq!(table.find(mac(100), seconds(0)), Some(PortId(2)));
        // Nor does it get another's by pretending to be that one.
        table.learn(mac(100), PortId(1), seconds(0), &stats);
        assert_eq!(table.find(mac(100), seconds(0)), Some(PortId(2)));
        // The uplink has no such bound.
        (200..220).for_each(|number| table.learn(mac(number), PortId(0), seconds(0), &stats));
        assert_eq!(stats.entries.value(), 29);
    }

    #[test]
    fn port_forgotten_leaves_the_others() {
        let (table, stats) = table(64);
        (0..40).for_each(|number| table.learn(mac(number), PortId(number as u16 % 2 + 1), seconds(0), &stats));
        table.forget_port(PortId(1), &stats);
        for number in 0..40 {
            let expected = (number % 2 == 1).then_some(PortId(2));
            assert_eq!(table.find(mac(number), seconds(0)), expected);
        }
        assert_eq!(stats.entries.value(), 20);
    }

    #[test]
    fn table_written_by_several_threads_has_every_address_once() {
        let (table, stats) = table(512);
        std::thread::scope(|scope| {
            for port in 1..5 {
                let (table, stats) = (&table, &stats);
                scope.spawn(move || {
                    for round in 0..200u64 {
                        (0..200).for_each(|number| table.learn(mac(number), PortId(port), seconds(round), stats));
                    }
                });
            }
        });
        (0..200).for_each(|number| table.learn(mac(number), PortId(1), seconds(200), &stats));
        let held: Vec<u64> =
            table.entries.iter().map(|entry| entry.load(Ordering::Relaxed)).filter(|e| *e != 0).collect();
        assert_eq!((held.len(), stats.entries.value()), (200, 200));
        let mut keys: Vec<u64> = held.iter().map(|entry| entry >> 16).collect();
        keys.dedup();
        assert_eq!(keys.len(), 200);
        assert!(held.iter().all(|entry| port(*entry) == PortId(1)));
        assert_eq!(table.count_of(PortId(1)).load(Ordering::Relaxed), 200);
    }

    proptest! {
        /// With room for all, the table is a map.
        #[test]
        fn table_with_room_is_a_map(steps in prop::collection::vec((0..40u32, 0..5u16), 0..200)) {
            let (table, stats) = table(64);
            let mut map = std::collections::HashMap::new();
            for (number, port) in steps {
                table.learn(mac(number), PortId(port), seconds(0), &stats);
                map.insert(number, PortId(port));
            }
            for number in 0..40 {
                prop_assert_eq!(table.find(mac(number), seconds(0)), map.get(&number).copied());
            }
            prop_assert_eq!(stats.entries.value(), map.len() as u64);
        }
    }
}
