//! A dashboard as far as Prometheus is concerned: its variables and the expressions of its panels, with values put in for
//! variables as Grafana does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::tools::files;

/// Values of variables by their names.
pub type Values = BTreeMap<String, String>;

/// One dashboard.
pub struct Board {
    /// Its file without the ending.
    pub name: String,
    /// Its variables, in the order in which they depend on each other.
    pub variables: Vec<Variable>,
    /// All expressions of panels and annotations.
    pub expressions: Vec<Expression>,
}

/// A variable whose values are the values of a label.
pub struct Variable {
    pub name: String,
    /// The selector of the series that have the label.
    pub series: String,
    pub label: String,
    /// What it stands for when all values are chosen, if they can be.
    pub all: Option<All>,
}

/// How all values are written.
pub enum All {
    /// As an expression that matches anything.
    Anything,
    /// As a choice of the values.
    Each,
}

impl All {
    /// The regular expression that Grafana puts in.
    pub fn expression(&self, values: &[String]) -> String {
        match self {
            All::Anything => ".*".to_owned(),
            All::Each => format!("({})", values.join("|")),
        }
    }
}

/// One query of a panel.
pub struct Expression {
    /// Title of the panel.
    pub panel: String,
    /// As it stands in the file.
    pub text: String,
}

/// All dashboards.
pub fn boards() -> Vec<Board> {
    files("", "json").iter().map(|path| Board::read(path)).collect()
}

impl Board {
    fn read(path: &Path) -> Board {
        let json: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let list = |place: &str| {
            json.pointer(place).and_then(Value::as_array).unwrap_or_else(|| panic!("{path:?}: {place}")).clone()
        };
        let variables = list("/templating/list");
        let variables = variables.iter().filter(|variable| variable["type"] == "query").map(Variable::read).collect();
        let mut expressions: Vec<Expression> = Vec::new();
        for panel in list("/panels").iter().chain(&list("/annotations/list")) {
            let title = text(panel.get("title").unwrap_or(&panel["name"]));
            let targets = panel.get("targets").and_then(Value::as_array).into_iter().flatten();
            for query in targets.chain(panel.get("expr").map(|_| panel)) {
                expressions.push(Expression { panel: title.clone(), text: text(&query["expr"]) });
            }
        }
        Board { name: path.file_stem().unwrap().to_str().unwrap().to_owned(), variables, expressions }
    }

    /// The expressions of the panel of that title.
    ///
    /// # Panics
    /// If there is no such panel.
    pub fn panel(&self, title: &str) -> Vec<&str> {
        let found: Vec<&str> =
            self.expressions.iter().filter(|one| one.panel == title).map(|one| one.text.as_str()).collect();
        assert!(!found.is_empty(), "{}: no panel {title:?}", self.name);
        found
    }
}

impl Variable {
    fn read(json: &Value) -> Variable {
        let query = text(&json["query"]["query"]);
        let asked =
            query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).expect("label_values(…)");
        let (series, label) = asked.rsplit_once(", ").expect("series and label");
        let all = match json["allValue"].as_str() {
            _ if json["includeAll"] != true => None,
            None => Some(All::Each),
            Some(".*") => Some(All::Anything),
            Some(other) => panic!("all of a variable are {other:?}"),
        };
        Variable { name: text(&json["name"]), series: series.to_owned(), label: label.to_owned(), all }
    }
}

fn text(json: &Value) -> String {
    json.as_str().unwrap_or_else(|| panic!("{json} is no text")).to_owned()
}

/// An expression with these values for variables; rates are over `rate`.
///
/// # Panics
/// If a variable is left.
pub fn substituted(expression: &str, values: &Values, rate: &str) -> String {
    let mut made = expression.replace("$__rate_interval", rate);
    // The longest names first: one may begin with another.
    let mut names: Vec<&String> = values.keys().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in names {
        made = made.replace(&format!("${name}"), &values[name]);
    }
    assert!(!made.contains('$'), "a variable is left in {made}");
    made
}

/// The metrics that an expression asks for, each with its matchers.
pub fn selectors(expression: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        let end = rest[start..].find(|c| !is_name(c)).map_or(rest.len(), |length| start + length);
        let (name, after) = (&rest[start..end], &rest[end..]);
        let matchers = after.strip_prefix('{').map_or("", |_| &after[..=after.find('}').expect("a selector ends")]);
        if name.starts_with("ringside_") || name.starts_with("process_") || name.contains(':') || name == "up" {
            found.push(format!("{name}{matchers}"));
        }
        // Neither labels in parentheses after `by` and `on` nor quoted text begin with these names.
        rest = &after[matchers.len()..];
    }
    found
}

#[test]
fn selectors_are_found_with_their_matchers() {
    let expression = "sum by (job, instance) (rate(ringside_x_total{a=~\"b|c\"}[5m])) / on (job) (instance_a:x:rate5m > 0) or up == 0";
    assert_eq!(selectors(expression), ["ringside_x_total{a=~\"b|c\"}", "instance_a:x:rate5m", "up"]);
}

#[test]
fn variables_are_put_in_longest_name_first() {
    let values = [("a", "1"), ("ab", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(substituted("$a $ab [$__rate_interval]", &values.into(), "4s"), "1 2 [4s]");
}
