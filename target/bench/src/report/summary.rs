//! Windows summed up, by case, target and distance of the cores. Its JSON form is that of `bench report --json`.

use serde::{Serialize, Serializer};

use super::statistics::{Ratio, Spread, median};
use super::window::{Cores, Input, Unit, Window};
use crate::machine::Facts;

/// Everything. Cases and targets are in the order in which they first came.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub machine: Facts,
    pub cases: Vec<Case>,
}

/// One thing that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Case {
    pub case: String,
    pub unit: Unit,
    /// By target, and of a target by distance of the cores, all together last.
    pub figures: Vec<Figures>,
    /// Of the first target of the case to each of its others.
    pub ratios: Vec<Comparison>,
    /// Windows that count for nothing.
    pub failures: Vec<Failure>,
}

/// Which windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Cores(Cores),
    All,
}

/// One target.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub who: String,
    pub cores: Class,
    pub windows: usize,
    /// Of them, those in which the client did not have its core to itself.
    pub disturbed: usize,
    /// By the second.
    pub rate: Spread,
    /// Medians over the windows, in microseconds.
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub p999_us: Option<f64>,
    /// Median of the target's useful share of its core, where it was asked.
    pub target_busy: Option<f64>,
}

/// One target by another. Windows of the same round are a pair, and a pair is of a class if both of its windows are.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    pub of: String,
    pub to: String,
    pub cores: Class,
    pub rate: Ratio,
    /// Below 1 the first one's p99 is lower.
    pub p99: Option<Ratio>,
}

/// A window that failed.
#[derive(Debug, Serialize)]
pub(super) struct Failure {
    pub who: String,
    pub round: u64,
    pub why: String,
}

impl Summary {
    pub(super) fn new(input: &Input) -> Summary {
        let targets = distinct(input.windows.iter().map(|window| window.who.as_str()));
        let names = distinct(input.windows.iter().map(|window| window.case.as_str()));
        let cases = names.into_iter().map(|name| {
            let windows = input.windows.iter().filter(|window| window.case == name).collect();
            Case::new(name, &targets, windows)
        });
        Summary { machine: input.machine.clone(), cases: cases.collect() }
    }

    /// Targets that have figures, in the order of the summary.
    pub(super) fn targets(&self) -> Vec<&str> {
        distinct(self.cases.iter().flat_map(|case| &case.figures).map(|figures| figures.who.as_str()))
    }
}

impl Case {
    fn new(name: &str, targets: &[&str], windows: Vec<&Window>) -> Case {
        let unit = windows[0].unit;
        let (failed, good): (Vec<&Window>, Vec<&Window>) =
            windows.into_iter().partition(|window| window.failed.is_some());
        let classes = classes(&good);
        let each = |who: &&str| classes.iter().filter_map(|class| Figures::new(who, *class, &good)).collect::<Vec<_>>();
        let figures = targets.iter().flat_map(each).collect();
        let own = distinct(good.iter().map(|window| window.who.as_str()));
        let compare = |to: &&str| {
            classes.iter().filter_map(|class| Comparison::new(own[0], to, *class, &good)).collect::<Vec<_>>()
        };
        let ratios = own.iter().skip(1).flat_map(compare).collect();
        let failure = |window: &Window| {
            let why = window.failed.clone()?;
            Some(Failure { who: window.who.clone(), round: window.round, why })
        };
        let failures = failed.into_iter().filter_map(failure).collect();
        Case { case: name.to_owned(), unit, figures, ratios, failures }
    }

    /// What all windows of a target come to.
    pub(super) fn of_all(&self, who: &str) -> Option<&Figures> {
        self.figures.iter().find(|figures| figures.who == who && figures.cores == Class::All)
    }
}

impl Class {
    fn has(self, window: &Window) -> bool {
        match self {
            Class::Cores(cores) => window.cores == Some(cores),
            Class::All => true,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Class::Cores(cores) => cores.name(),
            Class::All => "all",
        }
    }
}

impl Serialize for Class {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Figures {
    fn new(who: &str, class: Class, windows: &[&Window]) -> Option<Figures> {
        let windows: Vec<&Window> =
            windows.iter().copied().filter(|window| window.who == who && class.has(window)).collect();
        let micros = |of: fn(&Window) -> Option<f64>| median(windows.iter().filter_map(|window| of(window)));
        Some(Figures {
            who: who.to_owned(),
            cores: class,
            windows: windows.len(),
            disturbed: windows.iter().filter(|window| window.disturbed).count(),
            rate: Spread::of(windows.iter().map(|window| window.rate))?,
            p50_us: micros(|window| window.latency.p50),
            p99_us: micros(|window| window.latency.p99),
            p999_us: micros(|window| window.latency.p999),
            target_busy: micros(|window| window.target_busy),
        })
    }
}

impl Comparison {
    fn new(of: &str, to: &str, class: Class, windows: &[&Window]) -> Option<Comparison> {
        let one = |who: &str, round: u64| {
            windows.iter().find(|window| window.who == who && window.round == round && class.has(window))
        };
        let mine = windows.iter().filter(|window| window.who == of && class.has(window));
        let pairs: Vec<_> = mine.filter_map(|mine| Some((mine, one(to, mine.round)?))).collect();
        let rates: Vec<_> = pairs.iter().map(|(mine, other)| (mine.rate, other.rate)).collect();
        let p99s: Vec<_> =
            pairs.iter().filter_map(|(mine, other)| Some((mine.latency.p99?, other.latency.p99?))).collect();
        Some(Comparison {
            of: of.to_owned(),
            to: to.to_owned(),
            cores: class,
            rate: Ratio::of(&rates)?,
            p99: Ratio::of(&p99s),
        })
    }
}

/// Those that there are windows of, and all.
fn classes(windows: &[&Window]) -> Vec<Class> {
    let mut cores: Vec<Cores> = windows.iter().filter_map(|window| window.cores).collect();
    cores.sort_unstable();
    cores.dedup();
    cores.into_iter().map(Class::Cores).chain([Class::All]).collect()
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut known = Vec::new();
    for name in names {
        if !known.contains(&name) {
            known.push(name);
        }
    }
    known
}
