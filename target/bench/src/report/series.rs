//! Which points belong in which plot. No drawing in here.

use super::summary::{Case, Summary};
use super::window::{Input, Window};
use crate::histogram::LatencyHistogram;

/// Cases that differ in one number only: the depth (`qd32`) or the bytes of a frame (`64B`).
#[derive(Debug, PartialEq)]
pub(super) struct Scaling {
    /// The name that they have in common, with `*` for the number.
    pub name: String,
    pub axis: &'static str,
    pub lines: Vec<Line>,
}

/// A line of points.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    pub who: String,
    pub points: Vec<(f64, f64)>,
}

/// Curves of two numbers and more, by rising number.
pub(super) fn scalings(summary: &Summary) -> Vec<Scaling> {
    let mut scalings: Vec<Scaling> = Vec::new();
    for (case, Number { name, axis, value }) in
        summary.cases.iter().filter_map(|case| Some((case, number(&case.case)?)))
    {
        let place = scalings.iter().position(|scaling| scaling.name == name).unwrap_or_else(|| {
            scalings.push(Scaling { name, axis, lines: Vec::new() });
            scalings.len() - 1
        });
        for who in summary.targets() {
            let Some(figures) = case.of_all(who) else { continue };
            let lines = &mut scalings[place].lines;
            let point = (value, figures.rate.median);
            match lines.iter_mut().find(|line| line.who == who) {
                Some(line) => line.points.push(point),
                None => lines.push(Line { who: who.to_owned(), points: vec![point] }),
            }
        }
    }
    for line in scalings.iter_mut().flat_map(|scaling| &mut scaling.lines) {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    scalings.retain(|scaling| scaling.lines.iter().any(|line| line.points.len() > 1));
    scalings
}

/// Whether a case is a point of these curves.
pub(super) fn is_on(scaling: &Scaling, case: &str) -> bool {
    number(case).is_some_and(|number| number.name == scaling.name)
}

struct Number {
    name: String,
    axis: &'static str,
    value: f64,
}

/// The number in the name of a case that a curve can go over.
fn number(case: &str) -> Option<Number> {
    let of = |part: &str| {
        let depth = part.strip_prefix("qd").map(|digits| (digits, "depth"));
        let (digits, axis) = depth.or_else(|| part.strip_suffix('B').map(|digits| (digits, "bytes of a frame")))?;
        Some((digits.parse::<u32>().ok().filter(|value| *value > 0)?, axis))
    };
    let parts: Vec<&str> = case.split('/').collect();
    let (place, (value, axis)) = parts.iter().enumerate().find_map(|(place, part)| Some((place, of(part)?)))?;
    let name = [&parts[..place], &["*"], &parts[place + 1..]].concat().join("/");
    Some(Number { name, axis, value: value.into() })
}

/// Cases whose names begin with the same words, which are drawn together.
pub(super) fn groups(summary: &Summary) -> Vec<(String, Vec<&Case>)> {
    let mut groups: Vec<(String, Vec<&Case>)> = Vec::new();
    for case in &summary.cases {
        let parts: Vec<&str> = case.case.split('/').collect();
        let name = parts[..parts.len().min(2)].join("/");
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, cases)) => cases.push(case),
            None => groups.push((name, vec![case])),
        }
    }
    groups
}

/// Windows of a case that count, by target.
pub(super) fn windows<'a>(input: &'a Input, case: &str, who: &str) -> Vec<&'a Window> {
    let counts = |window: &&Window| window.case == case && window.who == who && window.failed.is_none();
    input.windows.iter().filter(counts).collect()
}

/// Latencies of all windows of each target of a case together: microseconds against the number of nines ([`nines`]) of the
/// share that is at most as long.
pub(super) fn latencies(input: &Input, summary: &Summary, case: &str) -> Vec<Line> {
    let line = |who: &&str| {
        let mut sum = LatencyHistogram::new();
        let windows = windows(input, case, who);
        windows.iter().filter_map(|window| window.histogram.as_ref()).for_each(|histogram| sum.add(histogram));
        (sum.count() > 0).then(|| Line { who: (*who).to_owned(), points: distribution(&sum) })
    };
    summary.targets().iter().filter_map(line).collect()
}

/// Up to the last quantile that there is a value for, and no further than [`NINES_MAX`].
fn distribution(histogram: &LatencyHistogram) -> Vec<(f64, f64)> {
    let last = nines(1.0 - 1.0 / histogram.count() as f64).min(NINES_MAX);
    // Rounded down, but not where only the logarithm is a little short.
    let steps = (last * STEPS_PER_NINE + 1e-6).floor() as u32;
    let point = |step: u32| {
        let nines = f64::from(step) / STEPS_PER_NINE;
        (histogram.micros_at(share(nines)), nines)
    };
    (0..=steps).map(point).collect()
}

/// How many nines a share has: 0 is 0, 0.9 is 1, 0.99 is 2.
pub(super) fn nines(share: f64) -> f64 {
    -(1.0 - share).log10()
}

/// The reverse of [`nines`].
pub(super) fn share(nines: f64) -> f64 {
    1.0 - 10f64.powf(-nines)
}

/// 99.999 %.
pub(super) const NINES_MAX: f64 = 5.0;
const STEPS_PER_NINE: f64 = 40.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_a_case_is_its_depth_or_its_frame_size() {
        let of = |case| number(case).map(|Number { name, axis, value }| (name, axis, value));
        assert_eq!(
            of("scsi/null/randread/4k/qd32/split"),
            Some(("scsi/null/randread/4k/*/split".to_owned(), "depth", 32.0))
        );
        assert_eq!(of("net/tx/1518B/split"), Some(("net/tx/*/split".to_owned(), "bytes of a frame", 1518.0)));
        for case in ["swap/quiet", "scsi/qd", "scsi/B", "scsi/qd0", "4kB"] {
            assert_eq!(of(case), None, "{case}");
        }
    }

    #[test]
    fn nines_count_the_nines_of_a_share() {
        for (share_of, wanted) in [(0.0, 0.0), (0.9, 1.0), (0.99, 2.0), (0.5, std::f64::consts::LOG10_2)] {
            assert!((nines(share_of) - wanted).abs() < 1e-9, "{share_of}");
            assert!((share(wanted) - share_of).abs() < 1e-9, "{share_of}");
        }
    }

    #[test]
    fn distribution_ends_where_there_are_no_more_values() {
        let mut histogram = LatencyHistogram::new();
        histogram.record(1_000, 90);
        histogram.record(50_000, 10);
        let points = distribution(&histogram);
        assert_eq!(points.len(), 81, "two nines of a hundred values");
        let close = |got: f64, wanted: f64| assert!((got - wanted).abs() <= wanted / 100.0, "{got} for {wanted}");
        close(points[0].0, 1.0);
        close(points[39].0, 1.0);
        close(points[80].0, 50.0);
        assert!(points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 < b.1));
    }
}
