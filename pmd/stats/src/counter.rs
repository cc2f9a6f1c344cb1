//! The monotonic counter; levels that also fall are in `gauge`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A count of events, only ever growing (modulo 2^64). One writer, any readers; see the crate documentation.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts `n` more. Writer only. One instruction on x86-64: `add [mem], n`, without a lock prefix.
    #[inline]
    pub fn add(&self, n: u64) {
        if cfg!(uncounted) {
            return;
        }
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Back to zero, for another thing to be counted. Only while there is no writer.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }

    /// The count so far. Any thread.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_added_to_sums_up() {
        let counter = Counter::new();
        counter.add(1);
        counter.add(0);
        counter.add(41);
        assert_eq!(counter.value(), 42);
    }

    #[test]
    fn counter_reset_counts_from_zero() {
        let counter = Counter::new();
        counter.add(7);
        counter.reset();
        counter.add(2);
        assert_eq!(counter.value(), 2);
    }

    #[test]
    fn counter_beyond_its_width_wraps() {
        let counter = Counter::new();
        counter.add(u64::MAX);
        counter.add(3);
        assert_eq!(counter.value(), 2);
    }

    #[test]
    fn counter_read_while_written_only_grows_to_the_total() {
        const TOTAL: u64 = 200_000;
        let counter = Counter::new();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..TOTAL).for_each(|_| counter.add(1)));
            let mut last = 0;
            while last < TOTAL {
                let value = counter.value();
                assert!(value >= last && value <= TOTAL);
                last = value;
            }
        });
        assert_eq!(counter.value(), TOTAL);
    }
}
