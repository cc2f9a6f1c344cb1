//! Tests of the histogram against the plain truth: a sorted vector of what was recorded.

use super::*;
use proptest::prelude::*;

/// Values spread over all magnitudes, not only the large ones a uniform `u64` would give.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift),
        1 => Just(0),
        1 => Just(u64::MAX),
    ]
}

fn recorded(values: &[u64]) -> Histogram {
    let histogram = Histogram::new();
    values.iter().for_each(|&value| histogram.record(value));
    histogram
}

#[test]
fn bucket_borders_tile_the_whole_range() {
    assert_eq!(BUCKETS, 976);
    assert_eq!(lowest_of(0), 0);
    for bucket in 0..BUCKETS {
        let (lowest, highest) = (lowest_of(bucket), highest_of(bucket));
        assert_eq!((bucket_of(lowest), bucket_of(highest)), (bucket, bucket));
        assert!(highest - lowest <= lowest / 16, "bucket {bucket}: {lowest}..={highest}");
        if bucket + 1 < BUCKETS {
            assert_eq!(lowest_of(bucket + 1), highest + 1);
        } else {
            assert_eq!(highest, u64::MAX);
        }
    }
}

#[test]
fn histogram_empty_has_no_quantile() {
    let snapshot = Histogram::new().snapshot();
    assert_eq!(snapshot, HistogramSnapshot::empty());
    assert_eq!((snapshot.count(), snapshot.sum(), snapshot.max()), (0, 0, 0));
    assert_eq!(snapshot.quantile(0.5), None);
    assert_eq!(snapshot.cumulative_below(u64::MAX), 0);
}

#[test]
fn histogram_of_small_values_is_exact() {
    let snapshot = recorded(&(1..=31).collect::<Vec<_>>()).snapshot();
    assert_eq!((snapshot.count(), snapshot.sum(), snapshot.max()), (31, 496, 31));
    assert_eq!(snapshot.quantile(0.5), Some(16));
    assert_eq!(snapshot.quantile(1.0), Some(31));
    assert_eq!(snapshot.quantile(0.0), Some(1));
    assert_eq!(snapshot.cumulative_below(0), 0);
    assert_eq!(snapshot.cumulative_below(10), 10);
}

#[test]
fn quantile_outside_its_range_is_clamped() {
    let snapshot = recorded(&[5, 6, 7]).snapshot();
    assert_eq!(snapshot.quantile(-1.0), Some(5));
    assert_eq!(snapshot.quantile(2.0), Some(7));
    assert_eq!(snapshot.quantile(f64::NAN), Some(5));
}

#[test]
fn record_n_of_none_changes_nothing() {
    let histogram = Histogram::new();
    histogram.record_n(1_000, 0);
    assert_eq!(histogram.snapshot(), HistogramSnapshot::empty());
}

#[test]
fn snapshot_taken_while_recording_never_falls() {
    const TOTAL: u64 = 100_000;
    let histogram = Histogram::new();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..TOTAL).for_each(|value| histogram.record(value)));
        let mut last = histogram.snapshot();
        while last.count() < TOTAL {
            let next = histogram.snapshot();
            assert!(next.cumulative.iter().zip(&last.cumulative).all(|(next, last)| next >= last));
            assert!(next.max() >= last.max() && next.quantile(1.0) <= Some(next.max()));
            last = next;
        }
    });
    assert_eq!(histogram.snapshot().sum(), TOTAL * (TOTAL - 1) / 2);
}

proptest! {
    #[test]
    fn quantile_of_any_values_stays_within_a_sixteenth(
        mut values in prop::collection::vec(value(), 1..400),
        per_mille in 0..=1000usize,
    ) {
        let snapshot = recorded(&values).snapshot();
        values.sort_unstable();
        let rank = (per_mille * values.len()).div_ceil(1000).max(1);
        let truth = values[rank - 1];
        let answer = snapshot.quantile(per_mille as f64 / 1000.0).expect("values were recorded");
        prop_assert!(answer >= truth && answer - truth <= truth / 16, "{truth} answered as {answer}");
        prop_assert!(answer <= snapshot.max());
    }

    #[test]
    fn totals_of_any_values_are_exact(values in prop::collection::vec(value(), 0..400)) {
        let snapshot = recorded(&values).snapshot();
        prop_assert_eq!(snapshot.count(), values.len() as u64);
        prop_assert_eq!(snapshot.sum(), values.iter().fold(0u64, |sum, value| sum.wrapping_add(*value)));
        prop_assert_eq!(snapshot.max(), values.iter().copied().max().unwrap_or(0));
    }

    #[test]
    fn cumulative_below_any_edge_counts_all_up_to_it_and_little_above(
        values in prop::collection::vec(value(), 0..400),
        edge in value(),
    ) {
        let below = recorded(&values).snapshot().cumulative_below(edge);
        let at_least = values.iter().filter(|&&value| value <= edge).count() as u64;
        let at_most = values.iter().filter(|&&value| value <= edge.saturating_add(edge / 16)).count() as u64;
        prop_assert!((at_least..=at_most).contains(&below), "{below} not in {at_least}..={at_most}");
    }

    #[test]
    fn record_n_of_any_value_equals_n_records(value in value(), n in 0..50u64) {
        let (once, each) = (Histogram::new(), Histogram::new());
        once.record_n(value, n);
        (0..n).for_each(|_| each.record(value));
        prop_assert_eq!(once.snapshot(), each.snapshot());
    }

    #[test]
    fn merge_of_two_snapshots_equals_one_histogram(
        left in prop::collection::vec(value(), 0..200),
        right in prop::collection::vec(value(), 0..200),
    ) {
        let mut merged = recorded(&left).snapshot();
        merged.merge(&recorded(&right).snapshot());
        prop_assert_eq!(merged, recorded(&[left, right].concat()).snapshot());
    }
}
