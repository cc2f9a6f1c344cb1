//! The summary as a table for terminals.

use std::fmt;

use super::statistics::{LEAST_PAIRS, Ratio};
use super::summary::{Case, Class, Comparison, Figures, Summary};

/// A summary, to be printed.
pub(super) struct Table<'a>(pub &'a Summary);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { machine, cases } = self.0;
        machine.iter().try_for_each(|(name, value)| writeln!(f, "{name}: {value}"))?;
        if !machine.is_empty() {
            writeln!(f)?;
        }
        let width = cases.iter().map(|case| case.case.len()).max().unwrap_or(0);
        let who = self.0.targets().iter().map(|who| who.len()).max().unwrap_or(0);
        writeln!(
            f,
            "{:width$}  {:who$}  {:5}  {:>3}  {:>9}  {:>19}  {:>9}  {:>9}  first / this [95 %]",
            "case", "target", "cores", "n", "median", "quartiles", "p50 us", "p99 us"
        )?;
        cases.iter().try_for_each(|case| write_case(f, case, width, who))
    }
}

fn write_case(f: &mut fmt::Formatter<'_>, case: &Case, width: usize, who: usize) -> fmt::Result {
    for figures in case.figures.iter().filter(|figures| !is_repetition(case, figures)) {
        let rate = figures.rate;
        let quartiles = format!("{} to {}", short(rate.q1), short(rate.q3));
        let micros = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |micros| format!("{micros:.2}"));
        let (p50, p99) = (micros(figures.p50_us), micros(figures.p99_us));
        let Figures { windows, disturbed, cores, .. } = figures;
        let line = format!(
            "{:width$}  {:who$}  {:5}  {windows:>3}  {:>9}  {quartiles:>19}  {p50:>9}  {p99:>9}  {}",
            case.case,
            figures.who,
            cores.name(),
            short(rate.median),
            comparison(case, figures).map_or_else(String::new, ratios),
        );
        let disturbed = if *disturbed > 0 { format!("  ({disturbed} disturbed)") } else { String::new() };
        writeln!(f, "{}{disturbed}", line.trim_end())?;
    }
    for failure in &case.failures {
        writeln!(f, "{:width$}  {:who$}  round {} FAILED: {}", case.case, failure.who, failure.round, failure.why)?;
    }
    Ok(())
}

/// Whether the line about all windows would say the same as that about one class.
fn is_repetition(case: &Case, figures: &Figures) -> bool {
    let mut others = case.figures.iter().filter(|other| other.who == figures.who && other.cores != Class::All);
    figures.cores == Class::All && others.any(|other| other.windows == figures.windows)
}

/// What the first target is to this one.
pub(super) fn comparison<'a>(case: &'a Case, figures: &Figures) -> Option<&'a Comparison> {
    case.ratios.iter().find(|ratio| ratio.to == figures.who && ratio.cores == figures.cores)
}

/// `1.52 [1.48 to 1.57], p99 0.61 [0.58 to 0.66]`
fn ratios(comparison: &Comparison) -> String {
    let p99 = comparison.p99.map_or_else(String::new, |p99| format!(", p99 {}", ratio(&p99)));
    format!("{}{p99}", ratio(&comparison.rate))
}

/// `1.52 [1.48 to 1.57]`
pub(super) fn ratio(ratio: &Ratio) -> String {
    match ratio.interval {
        Some([low, high]) => format!("{:.3} [{low:.3} to {high:.3}]", ratio.ratio),
        None => format!("{:.3} [{} pairs, fewer than {LEAST_PAIRS}]", ratio.ratio, ratio.pairs),
    }
}

/// Four digits: `5.432 M`, `9.821 k`, `17`.
pub(super) fn short(rate: f64) -> String {
    match rate {
        1e6.. => format!("{:.3} M", rate / 1e6),
        1e3.. => format!("{:.3} k", rate / 1e3),
        _ => format!("{rate:.0}"),
    }
}
