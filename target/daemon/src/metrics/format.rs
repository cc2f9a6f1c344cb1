//! Which text a scraper gets, by what it says that it accepts (RFC 9110 §12.5.1). Not how the texts are written.

use mediatype::{MediaType, MediaTypeList, ReadParams};

use super::openmetrics;

/// A format of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own text, 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

/// How well a media range names a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    Anything,
    Type,
    Subtype,
    Version,
}

impl Format {
    /// Each of them, in the order of preference where a scraper has none.
    pub const ALL: [Format; 2] = [Format::Prometheus, Format::OpenMetrics];

    /// The one that an Accept header wants most. What cannot be read of the header counts for nothing; a scraper that accepts
    /// neither gets Prometheus' text all the same, which everybody can read.
    #[must_use]
    pub fn accepted(accept: &str) -> Format {
        let ranges: Vec<MediaType<'_>> = MediaTypeList::new(accept).flatten().collect();
        let [prometheus, openmetrics] = Format::ALL.map(|format| format.weight(&ranges));
        if openmetrics > prometheus { Format::OpenMetrics } else { Format::Prometheus }
    }

    /// The media type of an answer.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => prometheus::TEXT_FORMAT,
            Format::OpenMetrics => openmetrics::CONTENT_TYPE,
        }
    }

    /// Its name: a metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Format::Prometheus => "prometheus",
            Format::OpenMetrics => "openmetrics",
        }
    }

    /// The weight in thousandths of the range that names it best; of several such, the highest.
    fn weight(self, ranges: &[MediaType<'_>]) -> u32 {
        let named = ranges.iter().filter_map(|range| Some((self.named_by(range)?, weight(range)?)));
        named.max().map_or(0, |(_, weight)| weight)
    }

    fn named_by(self, range: &MediaType<'_>) -> Option<Specificity> {
        let (kind, subtype, our_version) = match self {
            Format::Prometheus => ("text", "plain", "0.0.4"),
            Format::OpenMetrics => ("application", "openmetrics-text", "1.0.0"),
        };
        let version = parameter(range, "version");
        match (range.ty.as_str(), range.subty.as_str()) {
            ("*", "*") => Some(Specificity::Anything),
            (ty, "*") if ty.eq_ignore_ascii_case(kind) => Some(Specificity::Type),
            (ty, sub) if ty.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) => match version {
                None => Some(Specificity::Subtype),
                Some(version) => (version == our_version).then_some(Specificity::Version),
            },
            _ => None,
        }
    }
}

/// The weight of a range in thousandths, 1000 if it has none; none if it is no weight.
fn weight(range: &MediaType<'_>) -> Option<u32> {
    let Some(text) = parameter(range, "q") else { return Some(1000) };
    let weight: f64 = text.parse().ok()?;
    (0.0..=1.0).contains(&weight).then(|| (weight * 1000.0).round() as u32)
}

fn parameter(range: &MediaType<'_>, name: &str) -> Option<String> {
    let mut parameters = range.params();
    parameters
        .find(|(key, _)| key.as_str().eq_ignore_ascii_case(name))
        .map(|(_, value)| value.unquoted_str().into_owned())
}

#[cfg(test)]
mod tests {
    use super::Format::{OpenMetrics, Prometheus};
    use super::*;

    #[test]
    fn scraper_gets_the_format_that_it_wants_most() {
        for (accept, expected) in [
            ("", Prometheus),
            ("*/*", Prometheus),
            ("text/html", Prometheus),
            ("text/plain", Prometheus),
            ("application/openmetrics-text", OpenMetrics),
            ("APPLICATION/OpenMetrics-Text; Version=1.0.0", OpenMetrics),
            ("application/openmetrics-text; version=\"1.0.0\"", OpenMetrics),
            ("application/openmetrics-text; version=2.0.0", Prometheus),
            ("application/*", OpenMetrics),
            ("application/*, text/*", Prometheus),
            ("application/openmetrics-text;q=0.5, text/plain;q=0.4", OpenMetrics),
            ("application/openmetrics-text;q=0.4, text/plain;q=0.5", Prometheus),
            ("application/openmetrics-text;q=0.5, text/plain;q=0.5", Prometheus),
            ("application/openmetrics-text;q=0, */*", Prometheus),
            ("text/plain;q=0, */*;q=0.1", OpenMetrics),
            ("text/plain;q=0", Prometheus),
            // The best name counts, not the highest weight.
            ("*/*;q=1, application/openmetrics-text;q=0.2, text/plain;q=0.1", OpenMetrics),
            ("application/openmetrics-text;q=0.9;version=3.0.0, text/plain;q=0.1", Prometheus),
            // What is no weight, or no media range, counts for nothing.
            ("application/openmetrics-text;q=2", Prometheus),
            ("application/openmetrics-text;q=NaN", Prometheus),
            ("application/openmetrics-text;q=x", Prometheus),
            (";;;, application/openmetrics-text", OpenMetrics),
            ("text/plain;version=1.0.0;q=0.9, application/openmetrics-text;version=1.0.0;q=0.1", OpenMetrics),
        ] {
            assert_eq!(Format::accepted(accept), expected, "{accept}");
        }
    }

    #[test]
    fn prometheus_2_and_3_get_openmetrics() {
        let two = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                   text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let three = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                     application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                     text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!([two, three].map(Format::accepted), [OpenMetrics, OpenMetrics]);
    }
}
