//! Histograms of latencies as they stand in JSON: HdrHistogram's V2 encoding, deflated, in base64, as its tools in all
//! languages read it. Values are nanoseconds. Nothing is recorded on a hot path here: that is `meter`'s.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Serialize, Serializer};

/// Latencies in nanoseconds, each known to better than 1 %. In JSON a text.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyHistogram(Histogram<u64>);

/// Why a text is no histogram.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HistogramError {
    /// Characters or padding.
    #[error("is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// Something else was encoded.
    #[error("is not a deflated V2 HdrHistogram: {0}")]
    Encoding(String),
}

impl LatencyHistogram {
    pub(crate) fn new() -> LatencyHistogram {
        let histogram = Histogram::new_with_bounds(1, NANOS_MAX, SIGNIFICANT_DIGITS).expect("bounds that it takes");
        LatencyHistogram(histogram)
    }

    pub(crate) fn record(&mut self, nanos: u64, count: u64) {
        self.0.saturating_record_n(nanos, count);
    }

    /// Adds what another one holds, of whatever precision.
    pub(crate) fn add(&mut self, other: &LatencyHistogram) {
        other.0.iter_recorded().for_each(|step| self.record(step.value_iterated_to(), step.count_at_value()));
    }

    /// Number of latencies.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency in microseconds that this share of all does not exceed.
    pub(crate) fn micros_at(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e3
    }

    pub(crate) fn encode(&self) -> String {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&self.0, &mut bytes).expect("memory takes everything");
        STANDARD.encode(bytes)
    }

    /// Reads what [`LatencyHistogram::encode`] or another HdrHistogram has written.
    ///
    /// # Errors
    /// It is no such text.
    pub(crate) fn decode(text: &str) -> Result<LatencyHistogram, HistogramError> {
        let bytes = STANDARD.decode(text)?;
        let histogram = Deserializer::new().deserialize(&mut bytes.as_slice());
        histogram.map(LatencyHistogram).map_err(|error| HistogramError::Encoding(error.to_string()))
    }
}

impl Serialize for LatencyHistogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.encode())
    }
}

/// Longer ones count as this: some minutes.
const NANOS_MAX: u64 = 1 << 40;
const SIGNIFICANT_DIGITS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> LatencyHistogram {
        let mut histogram = LatencyHistogram::new();
        histogram.record(1_000, 90);
        histogram.record(10_000, 9);
        histogram.record(2_000_000, 1);
        histogram
    }

    #[test]
    fn histogram_survives_its_text_form() {
        let text = sample().encode();
        assert!(text.len() < 100, "{} characters for three values", text.len());
        let read = LatencyHistogram::decode(&text).unwrap();
        assert_eq!(read, sample());
        assert_eq!(read.count(), 100);
    }

    #[test]
    fn histogram_text_begins_with_the_cookie_of_a_deflated_v2_histogram() {
        // 0x1c849304, as HdrHistogram's other implementations write it.
        assert!(sample().encode().starts_with("HISTFAAA"), "{}", sample().encode());
    }

    #[test]
    fn histogram_quantiles_are_in_microseconds() {
        let close = |got: f64, wanted: f64| assert!((got - wanted).abs() <= wanted / 100.0, "{got} for {wanted}");
        close(sample().micros_at(0.5), 1.0);
        close(sample().micros_at(0.99), 10.0);
        close(sample().micros_at(1.0), 2000.0);
    }

    #[test]
    fn histograms_added_hold_the_values_of_both() {
        let mut sum = sample();
        sum.add(&sample());
        assert_eq!((sum.count(), sum.micros_at(0.5)), (200, sample().micros_at(0.5)));
    }

    #[test]
    fn text_that_is_no_histogram_says_why() {
        let error = LatencyHistogram::decode("not base64!").unwrap_err().to_string();
        assert!(error.starts_with("is not base64: "), "{error}");
        let error = LatencyHistogram::decode("AAAA").unwrap_err().to_string();
        assert!(error.starts_with("is not a deflated V2 HdrHistogram: "), "{error}");
    }
}
