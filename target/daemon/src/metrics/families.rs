//! Metric families in the terms of the `prometheus` crate: names, labels, values, histogram edges. No metric is named
//! here.

use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};
use reactor::Tsc;
use stats::HistogramSnapshot;

/// Upper edges of every histogram of durations, in nanoseconds: 1 µs to 10 s.
const EDGES_NS: [u64; 22] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// What a family's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One family and its samples.
pub(super) struct Family {
    family: MetricFamily,
    kind: Kind,
}

/// The families of a scrape.
#[derive(Default)]
pub(super) struct Families(Vec<MetricFamily>);

impl Family {
    pub(super) fn new(name: &str, help: &str, kind: Kind) -> Family {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(match kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        Family { family, kind }
    }

    /// Adds a value.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut metric = proto::Metric::from_label(pairs(labels));
        match self.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            Kind::Histogram => unreachable!("a histogram has buckets, not a value"),
        }
        self.family.mut_metric().push(metric);
    }

    /// Adds a distribution of durations that was recorded in TSC ticks.
    pub(super) fn histogram(&mut self, labels: &[(&str, &str)], ticks: &HistogramSnapshot) {
        let buckets = EDGES_NS.map(|edge| (edge as f64 / 1e9, ticks.cumulative_below(Tsc::ticks(edge))));
        self.distribution(labels, buckets, ticks.count(), Tsc::nanos(ticks.sum()) as f64 / 1e9);
    }

    /// Adds a distribution that was counted in classes: `edges` are their upper bounds, the last class has none.
    pub(super) fn classes(&mut self, labels: &[(&str, &str)], edges: &[f64], counts: &[u64], sum: f64) {
        let cumulative: Vec<u64> = counts
            .iter()
            .scan(0, |total, count| {
                *total += count;
                Some(*total)
            })
            .collect();
        let buckets = edges.iter().copied().zip(cumulative.iter().copied());
        self.distribution(labels, buckets, cumulative.last().copied().unwrap_or(0), sum);
    }

    fn distribution(
        &mut self,
        labels: &[(&str, &str)],
        buckets: impl IntoIterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) {
        let bucket = |(edge, cumulative)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(edge);
            bucket.set_cumulative_count(cumulative);
            bucket
        };
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.into_iter().map(bucket).collect());
        histogram.set_sample_count(count);
        histogram.set_sample_sum(sum);
        let mut metric = proto::Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        self.family.mut_metric().push(metric);
    }
}

impl Families {
    /// Adds a family. One without samples is left out: the text format has no place for it.
    pub(super) fn add(&mut self, family: Family) {
        if !family.family.get_metric().is_empty() {
            self.0.push(family.family);
        }
    }

    pub(super) fn extend(&mut self, families: impl IntoIterator<Item = Family>) {
        families.into_iter().for_each(|family| self.add(family));
    }

    pub(super) fn into_vec(self) -> Vec<MetricFamily> {
        self.0
    }
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}
