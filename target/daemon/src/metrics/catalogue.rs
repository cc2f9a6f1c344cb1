//! The catalogue of metrics: everything that `/metrics` may say, with its type, its labels, and what an operator does when it
//! moves. `METRICS.md` is written from it (`ringside metrics`), and what is not in here cannot be exported: collectors name
//! an entry, and nobody else can make one. Where the numbers come from is the collectors' business.
//!
//! Conventions are Prometheus': base units, counters end in `_total`, facts about a thing in `_info`. Every label has few
//! values: names of the configuration, indices within their bounds, words of a fixed list.

pub(super) mod bdevs;
pub(super) mod net;
pub(super) mod pollers;
pub(super) mod ports;
pub(super) mod process;
pub(super) mod scsi;
pub(super) mod served;

use std::fmt::{self, Write};

/// What a metric's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process ends.
    Counter,
    /// A level.
    Gauge,
    /// A classic histogram: cumulative buckets, sum and count.
    Histogram,
    /// The constant 1, with facts as labels.
    Info,
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    requirement: &'static str,
    when: Option<&'static str>,
    help: &'static str,
    act: &'static str,
}

/// Metrics of the same things.
#[derive(Debug)]
pub struct Group {
    /// Its heading.
    pub title: &'static str,
    /// What the labels mean.
    pub about: &'static str,
    /// Its metrics.
    pub metrics: &'static [&'static Metric],
}

/// Every group.
pub static GROUPS: [&Group; 7] =
    [&scsi::GROUP, &served::GROUP, &bdevs::GROUP, &pollers::GROUP, &net::GROUP, &ports::GROUP, &process::GROUP];

impl Metric {
    /// The name in Prometheus' text format.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What its values are.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Names of its labels, in the order of their values. All of its series have all of them.
    #[must_use]
    pub fn labels(&self) -> &'static [&'static str] {
        self.labels
    }

    /// What it is, in one sentence.
    #[must_use]
    pub fn help(&self) -> &'static str {
        self.help
    }

    /// When it is exported, if not always.
    #[must_use]
    pub fn when(&self) -> Option<&'static str> {
        self.when
    }

    /// The name without what the type adds: that of the family in OpenMetrics.
    #[must_use]
    pub fn family(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }

    /// The unit, which the name says; none where things are counted.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        UNITS.into_iter().find(|unit| self.family().strip_suffix(unit).is_some_and(|stem| stem.ends_with('_')))
    }
}

/// Every metric.
pub fn metrics() -> impl Iterator<Item = &'static Metric> {
    GROUPS.into_iter().flat_map(|group| group.metrics.iter().copied())
}

/// The catalogue as `METRICS.md` has it.
#[must_use]
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    for group in GROUPS {
        write!(text, "\n## {}\n\n{}\n", group.title, group.about).expect("a string takes everything");
        for metric in group.metrics {
            write!(text, "\n{metric}").expect("a string takes everything");
        }
    }
    text
}

impl fmt::Display for Metric {
    /// Its part of `METRICS.md`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Metric { name, kind, labels, requirement, when, help, act } = self;
        writeln!(f, "### `{name}`\n")?;
        write!(f, "{kind}")?;
        if let Some(unit) = self.unit() {
            write!(f, ", {}", unit.replace('_', " "))?;
        }
        if !labels.is_empty() {
            write!(f, " · labels `{}`", labels.join("`, `"))?;
        }
        write!(f, " · {requirement}")?;
        if let Some(when) = when {
            write!(f, " · only {when}")?;
        }
        writeln!(f, "\n\n{help}\n\n**When it moves:** {act}")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        })
    }
}

/// The longest first: a unit may end in another.
const UNITS: [&str; 3] = ["bytes_per_second", "seconds", "bytes"];

const HEAD: &str = include_str!("catalogue/head.md");

/// One group of metrics: each `NAME: kind "name" [labels] "requirement", "help", "what to do"`, with `if "…"` after the
/// requirement where it is not always exported.
macro_rules! group {
    (
        $title:literal, $about:literal;
        $($metric:ident: $kind:ident $name:literal [$($label:literal),*] $requirement:literal $(if $when:literal)?,
            $help:literal, $act:literal;)+
    ) => {
        $(
            pub(in crate::metrics) static $metric: super::Metric = super::Metric {
                name: $name,
                kind: super::Kind::$kind,
                labels: &[$($label),*],
                requirement: $requirement,
                when: { let when: &[&'static str] = &[$($when)?]; when.first().copied() },
                help: $help,
                act: $act,
            };
        )+
        pub(super) static GROUP: super::Group =
            super::Group { title: $title, about: $about, metrics: &[$(&$metric),+] };
    };
}
use group;

#[cfg(test)]
mod tests;
