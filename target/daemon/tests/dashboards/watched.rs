//! One Prometheus watches one target: first under load, then with a guest in trouble, then killed.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::board::{Board, Expression, Values, boards, selectors, substituted};
use crate::empty::{When, is_never_there, when};
use crate::lab::{BROKEN, Guest, Lab, SLOW};
use crate::prometheus::{Prometheus, Sample};
use crate::tools::has;

/// What rates of panels are over: eight scrapes.
const RATE: &str = "4s";
/// The controller whose guest gets into trouble.
const VM1: (&str, &str) = ("controller", "vm1");

type Labels<'a> = &'a [(&'a str, &'a str)];

#[test]
fn r28_prometheus_sees_a_target_under_load_in_trouble_and_killed() {
    if !has("r28_prometheus_sees_a_target_under_load_in_trouble_and_killed", &["prometheus"]) {
        return;
    }
    let lab = Lab::start();
    let watch = Watch::start(Prometheus::start(&lab.dir(), lab.target.metrics_addr()));
    let mut guest = lab.guest();

    watch.expressions_have_data(&[When::Always], || guest.work());
    watch.expressions_are_empty(&[When::OnlyAfterTrouble, When::Never]);
    watch.rules_have_data(&mut guest);
    watch.shows_that_all_is_well();

    watch.shows_refusals(&mut guest);
    watch.shows_resets(&mut guest);
    watch.shows_errors(&mut guest);
    guest.break_ring();
    watch.shows_the_broken_ring();
    watch.shows_late_transfers(&mut guest);
    watch.expressions_have_data(&[When::AfterTrouble, When::OnlyAfterTrouble], || guest.reset());
    watch.expressions_are_empty(&[When::Never]);
    drop(guest);
    watch.shows_connections(&lab);

    lab.target.signal(Signal::KILL);
    watch.shows_the_end(&lab.target.metrics_addr().to_string());
}

struct Watch {
    prometheus: Prometheus,
    /// With values for their variables.
    boards: Vec<(Board, Values)>,
}

/// What dashboards and rules as a whole say.
impl Watch {
    /// Waits until there are values for the variables of all dashboards.
    fn start(prometheus: Prometheus) -> Watch {
        let mut valued = Vec::new();
        for board in boards() {
            let mut values = None;
            wait(&format!("values for the variables of {}", board.name), || {
                values = chosen(&board, &prometheus);
                values.is_some()
            });
            valued.extend(values.map(|values| (board, values)));
        }
        Watch { prometheus, boards: valued }
    }

    /// Waits until every such expression of every panel has data. `meanwhile` goes on all the time.
    fn expressions_have_data(&self, of: &[When], mut meanwhile: impl FnMut()) {
        for (place, text) in self.expressions(of) {
            wait(&format!("data of {place}: {text}"), || {
                meanwhile();
                self.prometheus.has_data(&text)
            });
        }
    }

    fn expressions_are_empty(&self, of: &[When]) {
        for (place, text) in self.expressions(of) {
            assert!(!self.prometheus.has_data(&text), "{place} is listed as empty: {text}");
        }
    }

    /// Such expressions, with all controllers, LUNs and so on chosen, and where they are.
    fn expressions(&self, of: &[When]) -> Vec<(String, String)> {
        let all = self.boards.iter().flat_map(|(board, values)| {
            let of_it = board.expressions.iter().filter(|expression| of.contains(&when(expression)));
            let place = |expression: &Expression| format!("{}, {:?}", board.name, expression.panel);
            of_it.map(move |expression| (place(expression), substituted(&expression.text, values, RATE)))
        });
        all.collect()
    }

    /// Recording rules have values, and whatever alerts ask for is there: a misspelt metric would never fire.
    fn rules_have_data(&self, guest: &mut Guest) {
        let rules = self.prometheus.rules();
        assert!(rules.len() >= 30, "{} rules", rules.len());
        for rule in &rules {
            let wanted = if rule.is_alert { selectors(&rule.expression) } else { vec![rule.name.clone()] };
            assert!(!wanted.is_empty(), "{rule:?}");
            for selector in wanted.iter().filter(|selector| !is_never_there(selector)) {
                wait(&format!("data of {}: {selector}", rule.name), || {
                    guest.work();
                    self.prometheus.has_data(selector)
                });
            }
        }
        wait("evaluation of every rule", || self.prometheus.rules().iter().all(|rule| rule.health == "ok"));
    }
}

/// What single panels and alerts say.
impl Watch {
    /// What a panel shows with these variables chosen.
    fn panel(&self, board: &str, title: &str, chosen: Labels<'_>) -> Vec<Sample> {
        let (board, values) = self.boards.iter().find(|(one, _)| one.name == board).unwrap();
        let mut values = values.clone();
        values.extend(chosen.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let queries = board.panel(title).into_iter().map(|text| substituted(text, &values, RATE));
        queries.flat_map(|text| self.prometheus.query(&text)).collect()
    }

    /// Whether the one number of a panel of the overview is such.
    fn reads(&self, title: &str, such: impl Fn(f64) -> bool) -> bool {
        matches!(self.panel("overview", title, &[])[..], [ref only] if such(only.value))
    }

    /// Whether a panel shows a value above 0 with these labels when their controller is chosen.
    fn shows(&self, board: &str, title: &str, labels: Labels<'_>) -> bool {
        self.panel(board, title, &[VM1]).iter().any(|sample| sample.value > 0.0 && has_labels(&sample.labels, labels))
    }

    /// The same, and with all controllers chosen none above 0 for another one.
    fn shows_only(&self, board: &str, title: &str, labels: Labels<'_>) -> bool {
        let others = |sample: &Sample| !has_labels(&sample.labels, &[VM1]) && sample.value > 0.0;
        let wrong = self.panel(board, title, &[]).into_iter().find(others);
        assert!(wrong.is_none(), "{title}: {wrong:?}");
        self.shows(board, title, labels)
    }

    /// Whether an alert fires with these labels. Its texts have no gaps.
    fn fires(&self, name: &str, labels: Labels<'_>) -> bool {
        let alerts = self.prometheus.firing(name);
        for (_, annotations) in &alerts {
            let wrong = annotations.values().find(|text| text.contains("<no value>") || text.contains("<error"));
            assert_eq!(wrong, None, "{name}: {annotations:?}");
        }
        alerts.iter().any(|(has, _)| has_labels(has, labels))
    }

    /// The same, and for no other controller.
    fn fires_only(&self, name: &str, labels: Labels<'_>) -> bool {
        let wrong = self.prometheus.firing(name).into_iter().find(|(labels, _)| !has_labels(labels, &[VM1]));
        assert!(wrong.is_none(), "{name}: {wrong:?}");
        self.fires(name, labels)
    }
}

/// What an operator sees of each trouble.
impl Watch {
    fn shows_that_all_is_well(&self) {
        let quiet = [
            "RingsideTargetDown",
            "RingsideCommandsRefused",
            "RingsideTaskManagement",
            "RingsideQueueBroken",
            "RingsideSessionFlapping",
        ];
        // Enough of them for an alert to have been pending and to fire.
        let evaluations = "count_over_time(instance_core:ringside_poller_busy:ratio_rate5m[1m]) >= 6";
        wait("evaluations of the rules", || self.prometheus.has_data(evaluations));
        wait("a well target", || {
            quiet.iter().all(|name| self.prometheus.firing(name).is_empty())
                && self.reads("Targets up", |value| value == 1.0)
                && self.reads("Targets down", |value| value == 0.0)
                && self.reads("Virtqueues halted", |value| value == 0.0)
                && self.reads("Refused by a limit", |value| value == 0.0)
        });
    }

    fn shows_refusals(&self, guest: &mut Guest) {
        let slow = SLOW.to_string();
        let refused = [VM1, ("target", "0"), ("lun", &slow), ("limit", "cmd_per_lun")];
        let unit = &refused[..3];
        wait("refusals by cmd_per_lun", || {
            guest.burst();
            self.fires_only("RingsideCommandsRefused", &refused)
                && self.shows_only("limits", "Refused", &refused)
                && self.shows_only("limits", "Refused of all", unit)
                && self.shows("storage", "Responses other than OK", &[VM1, ("response", "busy")])
                && self.reads("Refused by a limit", |value| value > 0.0)
                && self.reads("Alerts firing", |value| value > 0.0)
        });
        wait("a high-water mark at the limit", || {
            let close = self.panel("limits", "How close to cmd_per_lun", &[VM1, ("lun", &slow)]);
            matches!(close[..], [ref only] if only.value == 1.0)
        });
    }

    fn shows_resets(&self, guest: &mut Guest) {
        let function = [VM1, ("function", "logical_unit_reset"), ("response", "function_complete")];
        guest.reset();
        wait("a single LUN reset", || self.shows_only("limits", "Task management functions", &function));
        wait("LUN resets", || {
            guest.reset();
            self.fires_only("RingsideTaskManagement", &function[..2])
                && self.shows("limits", "Duration of a function, 99th percentile", &[VM1])
        });
    }

    fn shows_errors(&self, guest: &mut Guest) {
        let unit = [VM1, ("target", "0"), ("lun", "0")];
        wait("errors", || {
            guest.ask_too_far();
            self.fires("RingsideLunErrors", &unit)
                && self.shows("storage", "Errors", &unit)
                && self.shows("storage", "Sense keys", &[VM1, ("sense_key", "illegal_request")])
        });
    }

    fn shows_the_broken_ring(&self) {
        let queue = BROKEN.to_string();
        let ring = [VM1, ("queue", queue.as_str())];
        wait("a halted virtqueue", || {
            self.fires_only("RingsideQueueBroken", &ring)
                && self.shows_only("limits", "Halted virtqueues", &ring)
                && self.shows_only("storage", "Halted rings", &ring)
                && self.reads("Virtqueues halted", |value| value == 1.0)
        });
        wait("the reason of the fault", || {
            let faults = self.panel("limits", "Faults", &[]);
            matches!(faults[..], [ref only] if has_labels(&only.labels, &[ring[0], ring[1], ("reason", "avail_index_jump")]))
        });
    }

    /// Commands of 50 ms burn the budget of an objective of 10 ms, in all windows. Others may be late, too, on a busy machine.
    fn shows_late_transfers(&self, guest: &mut Guest) {
        let slow = SLOW.to_string();
        let unit = [VM1, ("target", "0"), ("lun", &slow)];
        wait("late transfers", || {
            guest.burst();
            let within = self.panel("storage", "Within 10 ms", &[VM1, ("lun", &slow)]);
            self.fires("RingsideLatencyBudgetBurnsFast", &unit)
                && self.fires("RingsideLatencyBudgetBurns", &unit)
                && matches!(within[..], [ref only] if only.value == 0.0)
        });
    }

    /// Front-ends come and go.
    fn shows_connections(&self, lab: &Lab) {
        wait("connections", || {
            drop(lab.guest());
            self.fires_only("RingsideSessionFlapping", &[VM1])
                && self.shows("limits", "Resets and memory tables", &[VM1])
        });
    }

    fn shows_the_end(&self, instance: &str) {
        wait("the end of the target", || {
            self.reads("Targets down", |value| value == 1.0)
                && self.reads("Targets up", |value| value == 0.0)
                && self.fires("RingsideTargetDown", &[("instance", instance), ("severity", "page")])
        });
    }
}

/// Values for the variables of a dashboard, as Grafana chooses them at first: all where that is offered, else the first. None
/// until there is one for each.
fn chosen(board: &Board, prometheus: &Prometheus) -> Option<Values> {
    let mut values = Values::new();
    for variable in &board.variables {
        let series = substituted(&variable.series, &values, RATE);
        let found = prometheus.label_values(&series, &variable.label);
        let first = found.first()?.clone();
        values.insert(variable.name.clone(), variable.all.as_ref().map_or(first, |all| all.expression(&found)));
    }
    Some(values)
}

/// Waits until Prometheus shows it.
///
/// # Panics
/// If that takes too long: only a failing test waits for so long.
fn wait(what: &str, mut seen: impl FnMut() -> bool) {
    const BOUND: Duration = Duration::from_secs(60);
    /// Between two questions: the one asked is another process, which itself looks twice a second.
    const PAUSE: Duration = Duration::from_millis(50);
    let end = Instant::now() + BOUND;
    while !seen() {
        assert!(Instant::now() < end, "{what}: not within {BOUND:?}");
        thread::sleep(PAUSE);
    }
}

fn has_labels(all: &Values, wanted: Labels<'_>) -> bool {
    wanted.iter().all(|(name, value)| all.get(*name).is_some_and(|has| has == value))
}
