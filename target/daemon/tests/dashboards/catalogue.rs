//! Dashboards and rules against the catalogue of metrics: what they ask for is in it, labels included, and everything in it is on a
//! panel. Whether it has data is asked of a running target elsewhere.

use std::collections::BTreeMap;
use std::fs;

use ringside::metrics::catalogue::{self, Kind};

use crate::board::{boards, selectors};
use crate::tools::files;

/// Labels that Prometheus adds.
const SCRAPED: [&str; 2] = ["job", "instance"];

/// The labels of every name that an expression may ask for.
fn known() -> BTreeMap<String, Vec<&'static str>> {
    let mut known = BTreeMap::from([("up".to_owned(), SCRAPED.to_vec())]);
    for metric in catalogue::metrics() {
        let labels = [metric.labels(), &SCRAPED].concat();
        if metric.kind() == Kind::Histogram {
            known.insert(format!("{}_bucket", metric.name()), [&labels[..], &["le"]].concat());
            known.insert(format!("{}_sum", metric.name()), labels.clone());
            known.insert(format!("{}_count", metric.name()), labels);
        } else {
            known.insert(metric.name().to_owned(), labels);
        }
    }
    known
}

/// Where it stands, and each expression of a rule; that of several lines as one.
fn rules() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in files("rules", "yml") {
        let text = fs::read_to_string(&path).unwrap();
        for block in text.split("expr: ").skip(1) {
            let is_next = |line: &&str| {
                ["for:", "labels:", "- record:", "- alert:", "#", "- name:"].iter().any(|key| line.starts_with(key))
            };
            let lines = block.lines().map(str::trim).take_while(|line| !is_next(line));
            found.push((path.display().to_string(), lines.collect::<Vec<_>>().join(" ")));
        }
    }
    found
}

/// Names of the matchers of a selector.
fn matched(selector: &str) -> Vec<&str> {
    let inner = selector.split_once('{').map_or("", |(_, rest)| rest.trim_end_matches('}'));
    let mut names = Vec::new();
    // What is quoted holds no label, whatever is in it.
    for part in inner.split('"').step_by(2) {
        let name = part.trim_start_matches([',', ' ']).trim_end_matches(['=', '~', '!']);
        names.extend((!name.is_empty()).then_some(name));
    }
    names
}

#[test]
fn expressions_ask_for_metrics_and_labels_of_the_catalogue() {
    let known = known();
    let mut expressions = rules();
    assert!(expressions.len() >= 30, "{}", expressions.len());
    for board in boards() {
        expressions
            .extend(board.expressions.into_iter().map(|one| (format!("{}, {:?}", board.name, one.panel), one.text)));
        expressions
            .extend(board.variables.into_iter().map(|one| (format!("{}, ${}", board.name, one.name), one.series)));
    }
    for (place, expression) in &expressions {
        // Recorded series have colons; that they are recorded is seen where the rules run.
        for selector in
            selectors(expression).iter().filter(|selector| !selector.split('{').next().unwrap().contains(':'))
        {
            let name = selector.split('{').next().unwrap();
            let labels = known.get(name).unwrap_or_else(|| panic!("{place}: {name} is not in the catalogue"));
            let mut wrong = matched(selector).into_iter().filter(|label| !labels.contains(label));
            assert_eq!(wrong.next(), None, "{place}: no label of {name}");
        }
    }
}

/// Who adds a metric adds a panel.
#[test]
fn every_metric_of_the_catalogue_is_on_a_panel() {
    let boards = boards();
    let asked: Vec<String> =
        boards.iter().flat_map(|board| &board.expressions).flat_map(|expression| selectors(&expression.text)).collect();
    let is_asked = |name: &str| asked.iter().any(|selector| selector.split('{').next() == Some(name));
    for metric in catalogue::metrics() {
        let on_a_panel = match metric.kind() {
            Kind::Histogram => {
                ["_bucket", "_sum", "_count"].iter().any(|end| is_asked(&format!("{}{end}", metric.name())))
            }
            Kind::Counter | Kind::Gauge | Kind::Info => is_asked(metric.name()),
        };
        assert!(on_a_panel, "{}: on no panel", metric.name());
    }
}

#[test]
fn matchers_are_read_whatever_their_operators_and_values() {
    assert_eq!(matched("x{a=\"1\",b=~\"c=d|e\",f!=\"\",g!~\"h,i\"}"), ["a", "b", "f", "g"]);
    assert_eq!(matched("x"), [""; 0]);
}
