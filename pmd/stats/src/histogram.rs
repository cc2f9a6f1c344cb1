//! The log-linear histogram and its snapshot; what the values mean (ticks, nanoseconds, bytes) is the owner's business.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A distribution of `u64` values in fixed memory (7.6 KiB): each power of two is cut into 16 linear buckets, and values
/// below 32 have a bucket each. A bucket is narrower than 1/16 of every value in it, over the whole range of `u64`.
/// One writer, any readers; see the crate documentation. It is large: build it in a `Box` or a `Vec`, not in arrays on a stack.
pub struct Histogram {
    sum: AtomicU64,
    max: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Histogram {
    /// An empty histogram.
    pub const fn new() -> Self {
        Self { sum: AtomicU64::new(0), max: AtomicU64::new(0), buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }

    /// Records one value. Writer only. 15 instructions on x86-64 (8 to find the bucket, 2 to check its bound, 1 each to add
    /// to bucket and sum, 3 for the maximum), in 3 cache lines at most.
    #[inline]
    pub fn record(&self, value: u64) {
        self.add(value, 1, value);
    }

    /// Records `n` equal values at the price of one, and one multiplication. Writer only.
    #[inline]
    pub fn record_n(&self, value: u64, n: u64) {
        if n > 0 {
            self.add(value, n, value.wrapping_mul(n));
        }
    }

    /// The sum of all values, modulo 2^64. Any thread, at any time.
    pub fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }

    /// Back to empty, for another thing to be measured. Only while there is no writer.
    pub fn reset(&self) {
        let words = [&self.sum, &self.max];
        words.into_iter().chain(&self.buckets).for_each(|word| word.store(0, Relaxed));
    }

    /// A copy to look at. Any thread, at any time: the writer is not disturbed beyond the cache lines read.
    ///
    /// Count, quantiles and cumulative counts of a snapshot agree with each other, and never fall from one snapshot to
    /// the next. `sum` and `max` are separate words, so they may be ahead or behind by the values that were recorded while the
    /// snapshot was taken.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut snapshot = HistogramSnapshot::empty();
        snapshot.add(self);
        snapshot
    }

    #[inline(always)]
    fn add(&self, value: u64, n: u64, total: u64) {
        if cfg!(uncounted) {
            return;
        }
        let bucket = &self.buckets[bucket_of(value)];
        bucket.store(bucket.load(Relaxed).wrapping_add(n), Relaxed);
        self.sum.store(self.sum.load(Relaxed).wrapping_add(total), Relaxed);
        if value > self.max.load(Relaxed) {
            self.max.store(value, Relaxed);
        }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

/// What a [`Histogram`] held at one moment. Snapshots of several histograms (one per poller) add up with [`merge`](Self::merge).
#[derive(Clone, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Number of values in this bucket and all below it. The last entry is the count.
    cumulative: Box<[u64]>,
    sum: u64,
    max: u64,
}

impl HistogramSnapshot {
    /// A snapshot of nothing, to merge others into.
    pub fn empty() -> Self {
        Self { cumulative: vec![0; BUCKETS].into(), sum: 0, max: 0 }
    }

    /// Number of values recorded.
    pub fn count(&self) -> u64 {
        self.cumulative[BUCKETS - 1]
    }

    /// Sum of the values recorded (modulo 2^64).
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The highest value recorded, exactly; 0 if there is none.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The value that the fraction `q` (clamped to 0 ..= 1) of the values does not exceed: with `t` the true one, i.e. the
    /// ⌈q × count⌉-th smallest, the answer lies in `t ..= t + t / 16`, and never above [`max`](Self::max). `None` if empty.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        // 0.07 × 100 is 7.000000000000001 in binary; a rank is a whole number that must not be rounded up by such a rest.
        let rank = (q * count as f64 * (1.0 - 4.0 * f64::EPSILON)).ceil();
        let rank = (rank as u64).clamp(1, count);
        let bucket = self.cumulative.partition_point(|&below| below < rank);
        Some(highest_of(bucket).min(self.max))
    }

    /// Number of values up to `edge`, for a classic Prometheus bucket (`le`): every value `<= edge` is counted, and so may be
    /// values up to 1/16 above it, those that share the bucket of `edge`. Grows with `edge`; the count at `u64::MAX`.
    pub fn cumulative_below(&self, edge: u64) -> u64 {
        self.cumulative[bucket_of(edge)]
    }

    /// Forgets everything, to be used again without allocating.
    pub fn clear(&mut self) {
        self.cumulative.fill(0);
        (self.sum, self.max) = (0, 0);
    }

    /// Adds what a histogram holds now, as [`merge`](Self::merge) with a snapshot of it does, without allocating one.
    pub fn add(&mut self, histogram: &Histogram) {
        let mut count = 0u64;
        for (mine, bucket) in self.cumulative.iter_mut().zip(&histogram.buckets) {
            count = count.wrapping_add(bucket.load(Relaxed));
            *mine = mine.wrapping_add(count);
        }
        self.sum = self.sum.wrapping_add(histogram.sum.load(Relaxed));
        self.max = self.max.max(histogram.max.load(Relaxed)).max(self.floor());
    }

    /// The lowest value that the highest bucket in use stands for: the mark of the maximum may be behind.
    fn floor(&self) -> u64 {
        let count = self.count();
        if count == 0 { 0 } else { lowest_of(self.cumulative.partition_point(|&below| below < count)) }
    }

    /// Adds the values of `other` to these, as if one histogram had recorded both.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.cumulative.iter_mut().zip(&other.cumulative) {
            *mine = mine.wrapping_add(*theirs);
        }
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for HistogramSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistogramSnapshot")
            .field("count", &self.count())
            .field("sum", &self.sum)
            .field("max", &self.max)
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .finish_non_exhaustive()
    }
}

/// Each power of two has 2^4 = 16 buckets.
const LINEAR_BITS: u32 = 4;
const LINEAR: usize = 1 << LINEAR_BITS;
/// Values below 16 are the first 16 buckets, and each of the powers 2^4 ..= 2^63 has 16.
const BUCKETS: usize = LINEAR * (64 - LINEAR_BITS as usize + 1);

/// The bucket of a value: its five leading bits, at the exponent that is left. Monotonic, without a branch.
#[inline(always)]
fn bucket_of(value: u64) -> usize {
    let exponent = (value | LINEAR as u64).ilog2() - LINEAR_BITS;
    exponent as usize * LINEAR + (value >> exponent) as usize
}

/// The lowest value of a bucket.
fn lowest_of(bucket: usize) -> u64 {
    let exponent = (bucket / LINEAR).saturating_sub(1);
    ((bucket - exponent * LINEAR) as u64) << exponent
}

/// The highest value of a bucket.
fn highest_of(bucket: usize) -> u64 {
    let exponent = (bucket / LINEAR).saturating_sub(1);
    lowest_of(bucket) + ((1 << exponent) - 1)
}

#[cfg(test)]
mod tests;
