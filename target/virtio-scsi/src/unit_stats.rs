//! What one shard counts of each logical unit. Units come and go while pollers write and the exporter reads, so the table
//! grows in place: what was there stays where it is, and nobody takes a lock.

use std::ops::Index;
use std::sync::OnceLock;

use ::stats::{Counter, Gauge, Histogram, MaxGauge};

use crate::stats::Limit;

/// Counters of one logical unit on one shard.
#[derive(Debug, Default)]
pub struct UnitStats {
    /// READ commands that ended.
    pub reads: Counter,
    /// WRITE commands that ended.
    pub writes: Counter,
    /// All other commands that ended.
    pub others: Counter,
    /// Bytes that READ commands moved.
    pub read_bytes: Counter,
    /// Bytes that WRITE commands moved.
    pub write_bytes: Counter,
    /// Commands that ended with CHECK CONDITION.
    pub errors: Counter,
    /// Refusals by a transport limit.
    pub refused: [Counter; Limit::ALL.len()],
    /// Commands in flight.
    pub in_flight: Gauge,
    /// The most commands that were in flight at once, over all shards of the connection.
    pub high_water: MaxGauge,
    /// From pop to completion of READ commands, in TSC ticks.
    pub read_latency: Histogram,
    /// From pop to completion of WRITE commands, in TSC ticks.
    pub write_latency: Histogram,
}

impl UnitStats {
    /// So many READ commands ended, which moved so many bytes together, each after `ticks`.
    #[inline(always)]
    pub(crate) fn count_reads(&self, commands: u64, bytes: u64, ticks: u64) {
        if commands > 0 {
            self.reads.add(commands);
            self.read_bytes.add(bytes);
            self.read_latency.record_n(ticks, commands);
        }
    }

    /// As [`UnitStats::count_reads`], of WRITE commands.
    #[inline(always)]
    pub(crate) fn count_writes(&self, commands: u64, bytes: u64, ticks: u64) {
        if commands > 0 {
            self.writes.add(commands);
            self.write_bytes.add(bytes);
            self.write_latency.record_n(ticks, commands);
        }
    }
}

/// The counters of every logical unit on one shard, by the unit's index.
///
/// Chunks of 4, 8, 16 … units, each made when its first unit is.
#[derive(Debug, Default)]
pub struct UnitBlocks {
    chunks: [OnceLock<Box<[UnitStats]>>; CHUNKS],
}

/// Units of the first chunk.
const FIRST: usize = 4;
/// Enough for every index of 16 bits.
const CHUNKS: usize = 15;

impl UnitBlocks {
    /// Counters for this many units.
    #[must_use]
    pub(crate) fn new(units: usize) -> UnitBlocks {
        let blocks = UnitBlocks::default();
        blocks.grow(units);
        blocks
    }

    /// Makes room for this many units. On control threads: it may allocate.
    pub(crate) fn grow(&self, units: usize) {
        let Some(last) = units.checked_sub(1) else { return };
        for (number, chunk) in self.chunks.iter().enumerate().take(place(last).0 + 1) {
            chunk.get_or_init(|| (0..FIRST << number).map(|_| UnitStats::default()).collect());
        }
    }

    /// All of them, those without a unit included.
    pub fn iter(&self) -> impl Iterator<Item = &UnitStats> {
        self.chunks.iter().filter_map(OnceLock::get).flatten()
    }

    /// The counters of one unit; `None` if there was never one of this index.
    #[must_use]
    pub fn of(&self, unit: usize) -> Option<&UnitStats> {
        let (chunk, at) = place(unit);
        self.chunks.get(chunk)?.get().map(|chunk| &chunk[at])
    }
}

impl Index<usize> for UnitBlocks {
    type Output = UnitStats;

    #[inline]
    fn index(&self, unit: usize) -> &UnitStats {
        let (chunk, at) = place(unit);
        &self.chunks[chunk].get().expect("room was made when the unit came")[at]
    }
}

impl UnitStats {
    /// Everything back to zero: another unit takes the index. Only while no poller counts here.
    pub(crate) fn reset(&self) {
        let UnitStats {
            reads,
            writes,
            others,
            read_bytes,
            write_bytes,
            errors,
            refused,
            in_flight,
            high_water,
            read_latency,
            write_latency,
        } = self;
        [reads, writes, others, read_bytes, write_bytes, errors].into_iter().chain(refused).for_each(Counter::reset);
        in_flight.set(0);
        high_water.reset();
        read_latency.reset();
        write_latency.reset();
    }
}

/// Chunk of a unit, and its place in there.
#[inline]
fn place(unit: usize) -> (usize, usize) {
    let chunk = (unit / FIRST + 1).ilog2() as usize;
    (chunk, unit + FIRST - (FIRST << chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_a_place_of_its_own_within_its_chunk() {
        let mut expected = (0, 0);
        for unit in 0..=usize::from(u16::MAX) {
            assert_eq!(place(unit), expected, "unit {unit}");
            assert!(expected.0 < CHUNKS);
            expected.1 += 1;
            if expected.1 == FIRST << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
    }

    #[test]
    fn growing_keeps_what_was_counted_where_it_was() {
        let blocks = UnitBlocks::new(1);
        let first = &blocks[0];
        first.reads.add(3);
        assert!(blocks.of(4).is_none());
        blocks.grow(5);
        assert!(blocks.of(4).is_some());
        assert!(std::ptr::eq(first, &blocks[0]));
        assert_eq!(blocks[0].reads.value(), 3);
        assert_eq!(blocks.iter().count(), 4 + 8);
    }

    #[test]
    fn reset_forgets_everything() {
        let unit = UnitStats::default();
        let counters = [&unit.reads, &unit.writes, &unit.others, &unit.read_bytes, &unit.write_bytes, &unit.errors];
        counters.into_iter().chain(&unit.refused).for_each(|counter| counter.add(1));
        unit.in_flight.set(4);
        unit.high_water.record(4);
        unit.read_latency.record(100);
        unit.write_latency.record(100);
        unit.reset();
        assert!(counters.into_iter().chain(&unit.refused).all(|counter| counter.value() == 0));
        assert_eq!((unit.in_flight.value(), unit.high_water.value()), (0, 0));
        let (read, write) = (unit.read_latency.snapshot(), unit.write_latency.snapshot());
        assert_eq!((read.count(), read.max(), write.sum()), (0, 0, 0));
    }
}
