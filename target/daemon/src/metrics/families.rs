//! The samples of a scrape, in the terms of the `prometheus` crate: label pairs, values, histogram edges. Which metrics there
//! are is the catalogue's.

use std::collections::BTreeMap;

use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};
use reactor::Tsc;
use stats::HistogramSnapshot;

use super::catalogue::{Kind, Metric};

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

/// The samples of one metric.
pub(super) struct Family {
    pub(super) metric: &'static Metric,
    pub(super) samples: MetricFamily,
}

/// The families of a scrape that have samples, by name.
#[derive(Default)]
pub(super) struct Families(BTreeMap<&'static str, Family>);

impl Families {
    /// Adds a value; `labels` are the values of the metric's labels, in its order.
    pub(super) fn sample(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        let mut sample = proto::Metric::from_label(pairs(metric, labels));
        match metric.kind() {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                sample.set_counter(counter);
            }
            Kind::Gauge | Kind::Info => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                sample.set_gauge(gauge);
            }
            Kind::Histogram => unreachable!("{} is a histogram: it has buckets, not a value", metric.name()),
        }
        self.push(metric, sample);
    }

    /// Adds the facts of one thing.
    pub(super) fn info(&mut self, metric: &'static Metric, labels: &[&str]) {
        debug_assert_eq!(metric.kind(), Kind::Info, "{}", metric.name());
        self.sample(metric, labels, 1.0);
    }

    /// Adds a distribution of durations that was recorded in TSC ticks.
    pub(super) fn durations(&mut self, metric: &'static Metric, labels: &[&str], ticks: &HistogramSnapshot) {
        let buckets = EDGES_NS.map(|edge| (edge as f64 / 1e9, ticks.cumulative_below(Tsc::ticks(edge))));
        self.distribution(metric, labels, buckets, ticks.count(), Tsc::nanos(ticks.sum()) as f64 / 1e9);
    }

    /// Adds a distribution that was counted in classes: `edges` are their upper bounds, the last class has none.
    pub(super) fn classes(
        &mut self,
        metric: &'static Metric,
        labels: &[&str],
        edges: &[f64],
        counts: impl IntoIterator<Item = u64>,
        sum: f64,
    ) {
        let cumulative: Vec<u64> = counts
            .into_iter()
            .scan(0, |total, count| {
                *total += count;
                Some(*total)
            })
            .collect();
        let buckets = edges.iter().copied().zip(cumulative.iter().copied());
        self.distribution(metric, labels, buckets, cumulative.last().copied().unwrap_or(0), sum);
    }

    /// All of them, in the order of their names.
    pub(super) fn into_iter(self) -> impl Iterator<Item = Family> {
        self.0.into_values()
    }

    fn distribution(
        &mut self,
        metric: &'static Metric,
        labels: &[&str],
        buckets: impl IntoIterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) {
        debug_assert_eq!(metric.kind(), Kind::Histogram, "{}", metric.name());
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
        let mut sample = proto::Metric::from_label(pairs(metric, labels));
        sample.set_histogram(histogram);
        self.push(metric, sample);
    }

    fn push(&mut self, metric: &'static Metric, sample: proto::Metric) {
        let family = self.0.entry(metric.name()).or_insert_with(|| Family::new(metric));
        family.samples.mut_metric().push(sample);
    }
}

impl Family {
    fn new(metric: &'static Metric) -> Family {
        let mut samples = MetricFamily::default();
        samples.set_name(metric.name().to_owned());
        samples.set_help(metric.help().to_owned());
        samples.set_field_type(match metric.kind() {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge | Kind::Info => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        Family { metric, samples }
    }
}

fn pairs(metric: &'static Metric, values: &[&str]) -> Vec<LabelPair> {
    assert_eq!(metric.labels().len(), values.len(), "the labels of {}", metric.name());
    let pair = |(name, value): (&&str, &&str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    metric.labels().iter().zip(values).map(pair).collect()
}
