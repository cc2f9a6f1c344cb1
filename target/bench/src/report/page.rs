//! One HTML page without any other file: figures, plots, and how to read them. Well-formed XML, too.

use std::fmt::{self, Write};

use anyhow::Context;

use super::series::{self, Line};
use super::summary::{Case, Figures, Summary};
use super::table;
use super::window::Input;
use super::{plot, statistics::LEAST_PAIRS};

/// The page.
///
/// # Errors
/// A plot cannot be drawn.
pub(super) fn html(input: &Input, summary: &Summary) -> anyhow::Result<String> {
    let mut page = String::from(HEAD);
    write_facts(&mut page, summary)?;
    page.push_str(READING);
    write_overview(&mut page, summary).context("plot")?;
    for (number, case) in summary.cases.iter().enumerate() {
        write_case(&mut page, number, case, input, summary).with_context(|| format!("plot of {}", case.case))?;
    }
    page.push_str("</body>\n</html>\n");
    Ok(page)
}

fn write_facts(page: &mut String, summary: &Summary) -> fmt::Result {
    if summary.machine.is_empty() {
        return Ok(());
    }
    page.push_str("<h2>Machine</h2>\n<table class=\"facts\">\n");
    for (name, value) in &summary.machine {
        writeln!(page, "<tr><th>{}</th><td>{}</td></tr>", Escaped(name), Escaped(value))?;
    }
    page.push_str("</table>\n");
    Ok(())
}

/// Plots of many cases.
fn write_overview(page: &mut String, summary: &Summary) -> anyhow::Result<()> {
    let targets = summary.targets();
    page.push_str("<h2>All cases</h2>\n");
    for (name, cases) in series::groups(summary) {
        let with_figures: Vec<&Case> = cases.into_iter().filter(|case| !case.figures.is_empty()).collect();
        if with_figures.is_empty() {
            continue;
        }
        figure(page, &format!("{name}: median rates, with quartiles"), &plot::rates(&with_figures, &targets)?)?;
        if with_figures.iter().any(|case| !case.ratios.is_empty()) {
            figure(page, &format!("{name}: ratios, with 95 % intervals"), &plot::ratios(&with_figures, &targets)?)?;
        }
    }
    for scaling in series::scalings(summary) {
        let first = summary.cases.iter().find(|case| series::is_on(&scaling, &case.case));
        let Some(case) = first else { continue };
        figure(page, &format!("{}: scaling", scaling.name), &plot::scaling(&scaling, case.unit, &targets)?)?;
    }
    Ok(())
}

/// A section: figures, the rate of each window, and the distribution of latencies where it is known.
fn write_case(page: &mut String, number: usize, case: &Case, input: &Input, summary: &Summary) -> anyhow::Result<()> {
    let targets = summary.targets();
    writeln!(page, "<section id=\"case-{number}\">\n<h2>{}</h2>", Escaped(&case.case))?;
    write_table(page, case)?;
    for failure in &case.failures {
        let (who, why) = (Escaped(&failure.who), Escaped(&failure.why));
        writeln!(page, "<p class=\"failed\">{who}, round {}, failed and does not count: {why}</p>", failure.round)?;
    }
    if !case.figures.is_empty() {
        let windows: Vec<_> = targets.iter().map(|who| (*who, series::windows(input, &case.case, who))).collect();
        figure(page, "windows, in the order of rounds", &plot::windows(&windows, case.unit, &targets)?)?;
    }
    let latencies: Vec<Line> = series::latencies(input, summary, &case.case);
    if !latencies.is_empty() {
        figure(page, "latencies of all windows", &plot::latencies(&latencies, &targets)?)?;
    }
    page.push_str("</section>\n");
    Ok(())
}

fn write_table(page: &mut String, case: &Case) -> fmt::Result {
    write!(page, "<table>\n<tr><th>target</th><th>cores</th><th>windows</th><th>median {}</th>", case.unit.name())?;
    page.push_str("<th>quartiles</th><th>min to max</th><th>p50 us</th><th>p99 us</th><th>p99.9 us</th>");
    page.push_str("<th>target busy</th><th>first / this [95 %]</th><th>p99: first / this</th></tr>\n");
    for figures in &case.figures {
        write_row(page, case, figures)?;
    }
    page.push_str("</table>\n");
    Ok(())
}

fn write_row(page: &mut String, case: &Case, figures: &Figures) -> fmt::Result {
    let Figures { who, cores, windows, disturbed, rate, .. } = figures;
    let disturbed = if *disturbed > 0 { format!(" ({disturbed} disturbed)") } else { String::new() };
    write!(page, "<tr><td>{}</td><td>{}</td><td>{windows}{disturbed}</td>", Escaped(who), cores.name())?;
    write!(page, "<td>{:.0}</td><td>{:.0} to {:.0}</td>", rate.median, rate.q1, rate.q3)?;
    write!(page, "<td>{:.0} to {:.0}</td>", rate.min, rate.max)?;
    for micros in [figures.p50_us, figures.p99_us, figures.p999_us] {
        let text = micros.map_or_else(|| "-".to_owned(), |micros| format!("{micros:.2}"));
        write!(page, "<td>{text}</td>")?;
    }
    let busy = figures.target_busy.map_or_else(|| "-".to_owned(), |busy| format!("{:.1} %", busy * 100.0));
    write!(page, "<td>{busy}</td>")?;
    let comparison = table::comparison(case, figures);
    let ratios = [comparison.map(|of| of.rate), comparison.and_then(|of| of.p99)];
    for ratio in ratios {
        write!(page, "<td>{}</td>", ratio.map_or_else(String::new, |of| table::ratio(&of)))?;
    }
    page.push_str("</tr>\n");
    Ok(())
}

fn figure(page: &mut String, caption: &str, svg: &str) -> fmt::Result {
    writeln!(page, "<figure>\n<figcaption>{}</figcaption>\n{}</figure>", Escaped(caption), svg.trim_start())
}

/// A text with what is special in HTML written otherwise.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            // XML has no other control characters.
            c if c.is_control() && !matches!(c, '\t' | '\n') => f.write_char('\u{fffd}'),
            c => f.write_char(c),
        })
    }
}

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<title>ringside bench</title>
<style>
body { font: 15px/1.45 sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; color: #222; background: #fff; }
table { border-collapse: collapse; font-size: 13px; margin: 1em 0; }
th, td { text-align: right; padding: 2px 8px; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child, .facts td { text-align: left; }
figure { margin: 1em 0; overflow-x: auto; }
figcaption { font-weight: bold; font-size: 13px; }
.failed { color: #a00; }
</style>
</head>
<body>
<h1>ringside bench</h1>
"#;

const READING: &str = "<h2>How to read this</h2>\n<p>A window is one measurement after a warm-up. Figures are medians over \
    the windows of a case. Cores are near or far by the round trip of a cache line between them, probed before and after each \
    window; mixed windows are those in which that changed. Ratios are those of the medians of windows of the same round, with \
    a 95 % bootstrap interval that draws whole rounds, from five rounds on; an interval that holds 1 shows no difference. In a \
    disturbed window another thread had the client's core for more than a twentieth of the time.</p>\n";

const _: () = assert!(LEAST_PAIRS == 5, "the text above says five");
