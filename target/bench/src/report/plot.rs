//! Plots as SVG texts. What is in them was chosen by `series` and `summary`.

use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::series::{Line, Scaling, share};
use super::summary::{Case, Class, Comparison};
use super::window::{Cores, Unit, Window};

/// What keeps a plot from being drawn: nothing, in memory.
pub(super) type PlotError = DrawingAreaErrorKind<std::io::Error>;
type Drawn = Result<(), PlotError>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The median rate of each case and target as a bar, and on it a line from quartile to quartile.
pub(super) fn rates(cases: &[&Case], targets: &[&str]) -> Result<String, PlotError> {
    let largest = cases.iter().flat_map(|case| &case.figures).map(|figures| figures.rate.max).fold(1.0, f64::max);
    let rows = cases.len() as f64;
    svg(WIDTH, 52 + LEGEND + ROW * cases.len() as u32 * targets.len().max(1) as u32, |area| {
        let mut chart = frame(area, NAMES).build_cartesian_2d(0.0..largest * 1.05, 0.0..rows)?;
        let unit = cases.first().map_or("", |case| case.unit.name());
        mesh(chart.configure_mesh().disable_y_mesh().y_labels(0).x_desc(unit).x_label_formatter(&|x| rounded(*x)))?;
        for (target, who) in targets.iter().enumerate() {
            let bar = |(row, case): (usize, &&Case)| Some((rows - row as f64, case.of_all(who)?.rate));
            let bars: Vec<_> = cases.iter().enumerate().filter_map(bar).collect();
            let height = 0.8 / targets.len() as f64;
            let top = |row: f64| row - 0.1 - height * target as f64;
            let color = color(target);
            chart.draw_series(bars.iter().map(|(row, rate)| {
                Rectangle::new([(0.0, top(*row)), (rate.median, top(*row) - height * 0.9)], color.mix(0.6).filled())
            }))?;
            chart.draw_series(bars.iter().map(|(row, rate)| {
                let middle = top(*row) - height * 0.45;
                PathElement::new([(rate.q1, middle), (rate.q3, middle)], BLACK.stroke_width(2))
            }))?;
        }
        let name = |(row, case): (usize, &&Case)| name_at((0.0, rows - row as f64 - 0.5), &case.case);
        chart.draw_series(cases.iter().enumerate().map(name))?;
        legend(area, targets)
    })
}

/// The ratio of each case to another target: a point, a line over the interval, and 1 as a line down.
pub(super) fn ratios(cases: &[&Case], targets: &[&str]) -> Result<String, PlotError> {
    let all: Vec<(&Case, &Comparison)> = cases
        .iter()
        .flat_map(|case| case.ratios.iter().map(|ratio| (*case, ratio)))
        .filter(|(_, ratio)| ratio.cores == Class::All)
        .collect();
    let ends = |ratio: &Comparison| ratio.rate.interval.unwrap_or([ratio.rate.ratio; 2]);
    let low = all.iter().map(|(_, ratio)| ends(ratio)[0]).fold(0.9, f64::min) * 0.95;
    let high = all.iter().map(|(_, ratio)| ends(ratio)[1]).fold(1.1, f64::max) * 1.05;
    let rows = all.len() as f64;
    svg(WIDTH, 52 + LEGEND + ROW * all.len() as u32, |area| {
        let mut chart = frame(area, NAMES).build_cartesian_2d((low..high).log_scale(), 0.0..rows)?;
        let what =
            format!("{} by the other: more is better for {0}", all.first().map_or("", |(_, ratio)| ratio.of.as_str()));
        mesh(
            chart.configure_mesh().disable_y_mesh().y_labels(0).x_desc(what).x_label_formatter(&|x| format!("{x:.2}")),
        )?;
        chart.draw_series([PathElement::new([(1.0, 0.0), (1.0, rows)], BLACK.mix(0.5).stroke_width(1))])?;
        for (row, (case, ratio)) in all.iter().enumerate() {
            let y = rows - row as f64 - 0.5;
            let target = targets.iter().position(|who| **who == ratio.to).unwrap_or_default();
            let [from, to] = ends(ratio);
            chart.draw_series([PathElement::new([(from, y), (to, y)], color(target).stroke_width(2))])?;
            chart.draw_series([Circle::new((ratio.rate.ratio, y), 4, color(target).filled())])?;
            chart.draw_series([name_at((low, y), &case.case)])?;
        }
        legend(area, targets)
    })
}

/// Rates over a number, one line a target; both axes grow by factors.
pub(super) fn scaling(scaling: &Scaling, unit: Unit, targets: &[&str]) -> Result<String, PlotError> {
    let points = || scaling.lines.iter().flat_map(|line| &line.points);
    let (x, y) = (bounds(points().map(|point| point.0), 1.1), bounds(points().map(|point| point.1), 1.3));
    svg(WIDTH, HEIGHT, |area| {
        let mut chart = frame(area, RATES)
            .build_cartesian_2d((x.0..x.1).log_scale().base(2.0), (y.0..y.1).log_scale().base(2.0))?;
        mesh(
            chart
                .configure_mesh()
                .x_desc(scaling.axis)
                .y_desc(unit.name())
                .x_label_formatter(&|x| format!("{x:.0}"))
                .y_label_formatter(&|y| rounded(*y)),
        )?;
        for line in &scaling.lines {
            let color = color_of(targets, &line.who);
            chart.draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)))?;
            chart.draw_series(line.points.iter().map(|point| Circle::new(*point, 4, color.filled())))?;
        }
        legend(area, targets)
    })
}

/// The rate of every window, in the order of rounds: what drifts, or falls into two heaps, shows here. Filled points were
/// measured with near cores.
pub(super) fn windows(windows: &[(&str, Vec<&Window>)], unit: Unit, targets: &[&str]) -> Result<String, PlotError> {
    let all = || windows.iter().flat_map(|(_, windows)| windows);
    let last = all().map(|window| window.round).max().unwrap_or(1) as f64;
    let largest = all().map(|window| window.rate).fold(1.0, f64::max);
    svg(WIDTH, HEIGHT, |area| {
        let mut chart = frame(area, RATES).build_cartesian_2d(0.5..last + 0.5, 0.0..largest * 1.1)?;
        mesh(
            chart
                .configure_mesh()
                .disable_x_mesh()
                .x_desc("round")
                .y_desc(unit.name())
                .x_label_formatter(&|x| if x.fract() == 0.0 { format!("{x:.0}") } else { String::new() })
                .y_label_formatter(&|y| rounded(*y)),
        )?;
        for (who, windows) in windows {
            let color = color_of(targets, who);
            chart.draw_series(windows.iter().map(|window| {
                let far = window.cores.is_some_and(|cores| cores != Cores::Near);
                let style = if far { color.stroke_width(2) } else { color.filled() };
                Circle::new((window.round as f64, window.rate), 4, style)
            }))?;
        }
        legend(area, targets)
    })
}

/// Which share of the commands took at most so long: to the right microseconds, by factors; up the number of nines, so that
/// the long ones can be seen.
pub(super) fn latencies(lines: &[Line], targets: &[&str]) -> Result<String, PlotError> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let x = bounds(points().map(|point| point.0), 1.2);
    let top = points().map(|point| point.1).fold(1.0, f64::max);
    svg(WIDTH, HEIGHT, |area| {
        let mut chart = frame(area, RATES).build_cartesian_2d((x.0..x.1).log_scale(), 0.0..top)?;
        mesh(
            chart
                .configure_mesh()
                .x_desc("latency in us")
                .y_desc("of all at most")
                .y_labels(6)
                .x_label_formatter(&|x| if *x < 10.0 { format!("{x:.1}") } else { format!("{x:.0}") })
                .y_label_formatter(&|y| percent(*y)),
        )?;
        for line in lines {
            let color = color_of(targets, &line.who);
            chart.draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)))?;
        }
        legend(area, targets)
    })
}

fn svg(width: u32, height: u32, draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String, PlotError> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (width, height)).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
    }
    Ok(text)
}

/// What is around every plot: the line of the legend, and room for labels, so much of it on the left.
fn frame<'a, 'b>(area: &'a Area<'b>, left: u32) -> ChartBuilder<'a, 'a, SVGBackend<'b>> {
    let mut chart = ChartBuilder::on(area);
    chart.margin(8).margin_top(LEGEND).x_label_area_size(36).y_label_area_size(left);
    chart
}

/// Grid and labels, the same everywhere.
fn mesh<X, Y>(style: &mut MeshStyle<'_, '_, X, Y, SVGBackend<'_>>) -> Drawn
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    style.label_style(FONT).axis_desc_style(FONT).light_line_style(WHITE).bold_line_style(BLACK.mix(0.12)).draw()
}

/// Who has which colour, in a line above the plot.
fn legend(area: &Area<'_>, targets: &[&str]) -> Drawn {
    let style = FONT.into_text_style(area).pos(Pos::new(HPos::Left, VPos::Center));
    let mut x = 84;
    for (target, who) in targets.iter().enumerate() {
        area.draw(&Rectangle::new([(x, 7), (x + 10, 17)], color(target).filled()))?;
        area.draw(&Text::new((*who).to_owned(), (x + 15, 12), style.clone()))?;
        x += 40 + 8 * i32::try_from(who.len()).unwrap_or_default();
    }
    Ok(())
}

/// A name to the left of a point of the axis.
fn name_at(at: (f64, f64), name: &str) -> Text<'static, (f64, f64), String> {
    let style = TextStyle::from(FONT).pos(Pos::new(HPos::Right, VPos::Center));
    // Spaces that do not break keep it away from the axis.
    Text::new(format!("{name}\u{a0}\u{a0}"), at, style)
}

/// From the least to the largest value, and a little more; all values are above 0.
fn bounds(values: impl Iterator<Item = f64>, more: f64) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, 0.0), |(low, high), value| (low.min(value), f64::max(high, value)));
    if low > high { (1.0, 10.0) } else { (low.max(1e-3) / more, high.max(1e-3) * more) }
}

/// `20 M`, `1.5 M`, `250 k`: as many digits as it takes.
fn rounded(rate: f64) -> String {
    match rate {
        1e6.. => format!("{} M", (rate / 1e4).round() / 100.0),
        1e3.. => format!("{} k", (rate / 10.0).round() / 100.0),
        _ => format!("{rate:.0}"),
    }
}

/// `99.9 %` for three nines.
fn percent(nines: f64) -> String {
    let digits = (nines.ceil() - 2.0).max(0.0) as usize;
    format!("{:.digits$} %", share(nines) * 100.0)
}

fn color_of(targets: &[&str], who: &str) -> RGBColor {
    color(targets.iter().position(|target| *target == who).unwrap_or_default())
}

/// Okabe and Ito's colours, which can be told apart by nearly everybody.
fn color(target: usize) -> RGBColor {
    COLORS[target % COLORS.len()]
}

const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
const FONT: (&str, i32) = ("sans-serif", 12);
const WIDTH: u32 = 860;
const HEIGHT: u32 = 300;
/// Height of the line above a plot that says who has which colour.
const LEGEND: u32 = 26;
/// Height of a bar.
const ROW: u32 = 22;
/// Width of rates and shares.
const RATES: u32 = 80;
/// Width of the names of cases.
const NAMES: u32 = 290;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_has_as_many_nines_as_it_says() {
        let texts = [0.0, 1.0, 2.0, 3.0, 5.0].map(percent);
        assert_eq!(texts, ["0 %", "90 %", "99 %", "99.9 %", "99.999 %"]);
    }

    #[test]
    fn rates_at_axes_have_no_more_digits_than_it_takes() {
        let texts = [0.0, 999.0, 1_000.0, 250_000.0, 1_500_000.0, 20_000_000.0].map(rounded);
        assert_eq!(texts, ["0", "999", "1 k", "250 k", "1.5 M", "20 M"]);
    }

    #[test]
    fn bounds_hold_all_values_and_are_never_empty() {
        assert_eq!(bounds([].into_iter(), 1.1), (1.0, 10.0));
        let (low, high) = bounds([5.0].into_iter(), 1.1);
        assert!(low < 5.0 && high > 5.0);
    }
}
