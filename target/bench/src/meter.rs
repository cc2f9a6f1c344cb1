//! What is measured: latencies in ticks of the clock while it runs, and in microseconds once it is read.

use hdrhistogram::Histogram;
use reactor::Tsc;
use serde::Serialize;

use crate::histogram::LatencyHistogram;

/// Latencies of what came back without a failure.
///
/// Most are short, and counted in a table by a shift and an addition. The others go into the histogram at once, and the
/// table when it is read.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    /// By ticks, in steps of 2^[`STEP_BITS`].
    short: Box<[u64; STEPS]>,
    long: Histogram<u64>,
}

/// Latencies in microseconds; all 0 if there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Meter {
    pub(crate) fn new() -> Meter {
        let long = Histogram::new_with_bounds(1, TICKS_MAX, SIGNIFICANT_DIGITS).expect("bounds that it takes");
        Meter { short: Box::new([0; STEPS]), long }
    }

    /// Records one latency in ticks.
    #[inline(always)]
    pub(crate) fn record(&mut self, ticks: u64) {
        match self.short.get_mut((ticks >> STEP_BITS) as usize) {
            Some(count) => *count += 1,
            None => self.record_long(ticks),
        }
    }

    #[cold]
    #[inline(never)]
    fn record_long(&mut self, ticks: u64) {
        self.long.saturating_record(ticks);
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.short.fill(0);
        self.long.reset();
    }

    /// Number of latencies recorded.
    pub(crate) fn count(&self) -> u64 {
        self.long.len() + self.short.iter().sum::<u64>()
    }

    pub(crate) fn latency(&self) -> Latency {
        let all = self.histogram();
        if all.is_empty() {
            return Latency::default();
        }
        // A tick is a fraction of a nanosecond, so whole ones lose nothing.
        let micros = |ticks: u64| (Tsc::nanos(ticks) as f64 / 10.0).round() / 100.0;
        let at = |quantile: f64| micros(all.value_at_quantile(quantile));
        Latency {
            mean: micros(all.mean().round() as u64),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(all.max()),
        }
    }

    /// Everything, for others to read; `None` if there were none.
    pub(crate) fn export(&self) -> Option<LatencyHistogram> {
        let mut nanos = LatencyHistogram::new();
        // Values are the middles of their steps, so that a second rounding does not add to the first.
        for step in self.histogram().iter_recorded() {
            let value = self.long.median_equivalent(step.value_iterated_to());
            nanos.record(Tsc::nanos(value), step.count_at_value());
        }
        (nanos.count() > 0).then_some(nanos)
    }

    /// Everything in one histogram.
    fn histogram(&self) -> Histogram<u64> {
        let mut all = self.long.clone();
        let middle = 1 << (STEP_BITS - 1);
        for (step, count) in (0u64..).zip(self.short.iter()).filter(|(_, count)| **count > 0) {
            all.saturating_record_n((step << STEP_BITS) + middle, *count);
        }
        all
    }
}

/// As many digits behind the point as `unit` has zeros.
pub(crate) fn rounded(value: f64, unit: f64) -> f64 {
    if value.is_finite() { (value * unit).round() / unit } else { 0.0 }
}

/// Some nanoseconds a step, and some tens of microseconds in all.
const STEP_BITS: u32 = 4;
const STEPS: usize = 8192;
/// Longer ones count as this: some minutes.
const TICKS_MAX: u64 = 1 << 40;
/// A value is known to better than 1 %, or to a step.
const SIGNIFICANT_DIGITS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_of_nothing_is_zero() {
        assert_eq!(Meter::new().latency(), Latency::default());
    }

    #[test]
    fn latency_quantiles_are_within_a_hundredth() {
        let mut meter = Meter::new();
        for micros in 1..=1000 {
            meter.record(Tsc::ticks(micros * 1000));
        }
        let latency = meter.latency();
        let close = |got: f64, wanted: f64| assert!((got - wanted).abs() <= wanted / 100.0, "{got} for {wanted}");
        close(latency.mean, 500.5);
        close(latency.p50, 500.0);
        close(latency.p99, 990.0);
        close(latency.p999, 999.0);
        close(latency.max, 1000.0);
        assert_eq!(meter.count(), 1000);
    }

    #[test]
    fn export_has_the_quantiles_of_the_meter() {
        assert_eq!(Meter::new().export(), None);
        let mut meter = Meter::new();
        (1..=1000).for_each(|micros| meter.record(Tsc::ticks(micros * 1000)));
        let export = meter.export().expect("a thousand");
        assert_eq!(export.count(), 1000);
        let latency = meter.latency();
        for (share, wanted) in [(0.5, latency.p50), (0.99, latency.p99), (0.999, latency.p999), (1.0, latency.max)] {
            let got = export.micros_at(share);
            assert!((got - wanted).abs() <= wanted / 60.0, "{share}: {got} for {wanted}");
        }
    }

    #[test]
    fn latency_of_some_ticks_is_known_to_a_step() {
        let mut meter = Meter::new();
        let ticks = [1000, 1016, 1032, 8192 * 16 - 1, 8192 * 16];
        ticks.into_iter().for_each(|ticks| meter.record(ticks));
        let all = meter.histogram();
        assert_eq!((all.len(), all.count_at(1000), all.count_at(1016)), (5, 1, 1));
        assert_eq!(meter.long.len(), 1, "the first one behind the table");
        meter.clear();
        assert_eq!(meter.count(), 0);
    }

    #[test]
    fn latency_beyond_all_bounds_counts_as_the_longest() {
        let mut meter = Meter::new();
        meter.record(u64::MAX);
        meter.record(0);
        assert_eq!(meter.count(), 2);
        assert!(meter.latency().max > 1e6);
    }
}
