//! The families of a scrape as OpenMetrics 1.0.0 text. It differs from Prometheus' own format in that counters and infos have
//! their suffix on the sample only, units have a line, quotes in help texts are escaped, the edges of buckets have one way
//! to be written, and the end is marked. Timestamps, `_created` and exemplars are not written.

use std::fmt::{self, Write};

use prometheus::proto::{self, LabelPair};

use super::catalogue::{Kind, Metric};
use super::families::Family;

/// The type of the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Appends a family.
pub(super) fn encode(family: &Family, text: &mut String) {
    write_family(family, text).expect("a string takes everything");
}

/// Ends the text.
pub(super) fn end(text: &mut String) {
    text.push_str("# EOF\n");
}

fn write_family(Family { metric, samples }: &Family, text: &mut String) -> fmt::Result {
    let name = metric.family();
    writeln!(text, "# TYPE {name} {}", metric.kind())?;
    if let Some(unit) = metric.unit() {
        writeln!(text, "# UNIT {name} {unit}")?;
    }
    writeln!(text, "# HELP {name} {}", Escaped(metric.help()))?;
    samples.get_metric().iter().try_for_each(|sample| write_sample(metric, sample, text))
}

fn write_sample(metric: &Metric, sample: &proto::Metric, text: &mut String) -> fmt::Result {
    let (name, labels) = (metric.name(), sample.get_label());
    match metric.kind() {
        Kind::Counter => writeln!(text, "{name}{} {}", Labels(labels, None), Value(sample.get_counter().get_value())),
        Kind::Gauge | Kind::Info => {
            writeln!(text, "{name}{} {}", Labels(labels, None), Value(sample.get_gauge().get_value()))
        }
        Kind::Histogram => {
            let histogram = sample.get_histogram();
            for bucket in histogram.get_bucket() {
                let labels = Labels(labels, Some(bucket.upper_bound()));
                writeln!(text, "{name}_bucket{labels} {}", bucket.cumulative_count())?;
            }
            let count = histogram.get_sample_count();
            writeln!(text, "{name}_bucket{} {count}", Labels(labels, Some(f64::INFINITY)))?;
            writeln!(text, "{name}_count{} {count}", Labels(labels, None))?;
            writeln!(text, "{name}_sum{} {}", Labels(labels, None), Value(histogram.get_sample_sum()))
        }
    }
}

/// Labels in their brackets, with the edge of a bucket as the last one; nothing if there is none.
struct Labels<'a>(&'a [LabelPair], Option<f64>);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = '{';
        for label in self.0 {
            write!(f, "{before}{}=\"{}\"", label.name(), Escaped(label.value()))?;
            before = ',';
        }
        if let Some(edge) = self.1 {
            write!(f, "{before}le=\"{}\"", Canonical(edge))?;
            before = ',';
        }
        if before == ',' { f.write_char('}') } else { Ok(()) }
    }
}

/// A text with backslashes, quotes and line feeds escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['\\', '"', '\n']) {
            f.write_str(&rest[..at])?;
            f.write_str(match rest.as_bytes()[at] {
                b'\\' => "\\\\",
                b'"' => "\\\"",
                _ => "\\n",
            })?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)
    }
}

/// A value: whole numbers without a point.
struct Value(f64);

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            whole if whole.is_finite() && whole.fract() == 0.0 => write!(f, "{whole}"),
            value => Canonical(value).fmt(f),
        }
    }
}

/// A number as OpenMetrics wants the edges of buckets ("Considerations: Canonical Numbers"): the shortest that reads back, with
/// a point or an exponent, as Go's `%g` has it.
struct Canonical(f64);

impl fmt::Display for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0;
        if number.is_nan() {
            return f.write_str("NaN");
        }
        if number.is_infinite() {
            return f.write_str(if number > 0.0 { "+Inf" } else { "-Inf" });
        }
        let scientific = format!("{number:e}");
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        if (-4..=5).contains(&exponent) {
            // Debug writes the point of whole numbers, too.
            return write!(f, "{number:?}");
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(f, "{mantissa}e{sign}{:02}", exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue;
    use super::super::families::Families;
    use super::*;

    fn text(families: Families) -> String {
        let mut text = String::new();
        families.into_iter().for_each(|family| encode(&family, &mut text));
        end(&mut text);
        text
    }

    #[test]
    fn counters_infos_and_histograms_are_written_as_the_specification_shows() {
        let mut families = Families::default();
        families.sample(&catalogue::pollers::SECONDS, &["0", "busy"], 1.5);
        families.sample(&catalogue::process::RESIDENT, &[], 17_179_869_184.0);
        families.info(&catalogue::bdevs::INFO, &["a\"b\\c\nd", "null"]);
        families.classes(&catalogue::net::SIZES, &["n", "0", "tx"], &[64.0, 1e6], [1, 2, 3], 4.25);
        let expected = "\
# TYPE process_resident_memory_bytes gauge
# UNIT process_resident_memory_bytes bytes
# HELP process_resident_memory_bytes Resident memory, guests' memory that was touched included, huge pages excluded.
process_resident_memory_bytes 17179869184
# TYPE ringside_bdev info
# HELP ringside_bdev 1, with the kind of a block device.
ringside_bdev_info{bdev=\"a\\\"b\\\\c\\nd\",kind=\"null\"} 1
# TYPE ringside_net_frame_size_bytes histogram
# UNIT ringside_net_frame_size_bytes bytes
# HELP ringside_net_frame_size_bytes Sizes of the frames moved, in the classes of RFC 2819.
ringside_net_frame_size_bytes_bucket{device=\"n\",queue=\"0\",direction=\"tx\",le=\"64.0\"} 1
ringside_net_frame_size_bytes_bucket{device=\"n\",queue=\"0\",direction=\"tx\",le=\"1e+06\"} 3
ringside_net_frame_size_bytes_bucket{device=\"n\",queue=\"0\",direction=\"tx\",le=\"+Inf\"} 6
ringside_net_frame_size_bytes_count{device=\"n\",queue=\"0\",direction=\"tx\"} 6
ringside_net_frame_size_bytes_sum{device=\"n\",queue=\"0\",direction=\"tx\"} 4.25
# TYPE ringside_poller_seconds counter
# UNIT ringside_poller_seconds seconds
# HELP ringside_poller_seconds Time of a poller by what it did: `busy` (loops that found work), `idle` (loops that did not), \
`asleep`.
ringside_poller_seconds_total{core=\"0\",mode=\"busy\"} 1.5
# EOF
";
        assert_eq!(text(families), expected);
    }

    #[test]
    fn numbers_are_canonical() {
        // OpenMetrics 1.0, "Considerations: Canonical Numbers".
        for (number, expected) in [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (10.0, "10.0"),
            (1518.0, "1518.0"),
            (100_000.0, "100000.0"),
            (1e6, "1e+06"),
            (1e10, "1e+10"),
            (0.0001, "0.0001"),
            (1e-5, "1e-05"),
            (0.000_002, "2e-06"),
            (1.234e-9, "1.234e-09"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(Canonical(number).to_string(), expected);
        }
        assert_eq!((Value(3.0).to_string(), Value(1e17).to_string()), ("3".into(), "100000000000000000".into()));
        assert_eq!((Value(0.25).to_string(), Value(f64::INFINITY).to_string()), ("0.25".into(), "+Inf".into()));
    }
}
