//! Levels: the current one and the highest one; events that only add up are in `counter`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The present level of something (requests in flight, sources polled). One writer, any readers.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// A gauge at zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Publishes the level, which the writer keeps in a plain variable of its own. Writer only. One store.
    #[inline]
    pub fn set(&self, value: u64) {
        if cfg!(uncounted) {
            return;
        }
        self.0.store(value, Relaxed);
    }

    /// The level published last. Any thread.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The highest value seen since the start (a high-water mark). One writer, any readers.
#[derive(Debug, Default)]
pub struct MaxGauge(AtomicU64);

impl MaxGauge {
    /// A mark at zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Raises the mark to `value` where that is higher. Writer only. A load, a compare and a branch rarely taken; the store
    /// happens only for a new record, so the line is written seldom.
    #[inline]
    pub fn record(&self, value: u64) {
        if cfg!(uncounted) {
            return;
        }
        if value > self.0.load(Relaxed) {
            self.0.store(value, Relaxed);
        }
    }

    /// Back to zero, for another thing to be watched. Only while there is no writer.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }

    /// The mark. Any thread.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauge_set_twice_keeps_the_last() {
        let gauge = Gauge::new();
        assert_eq!(gauge.value(), 0);
        gauge.set(9);
        gauge.set(4);
        assert_eq!(gauge.value(), 4);
    }

    #[test]
    fn max_gauge_recording_lower_values_keeps_the_highest() {
        let mark = MaxGauge::new();
        for value in [3, 17, 5, 17, 0] {
            mark.record(value);
        }
        assert_eq!(mark.value(), 17);
        mark.record(u64::MAX);
        assert_eq!(mark.value(), u64::MAX);
    }
}
