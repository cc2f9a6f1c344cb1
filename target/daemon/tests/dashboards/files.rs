//! The JSON files: they are what their source makes, and what Grafana's schema has. A wrong field anywhere is found.

use std::fs;

use serde_json::{Value, json};

use crate::tools::{files, python, succeeded};

#[test]
fn dashboards_are_what_their_source_makes() {
    let Some(mut generate) = python("dashboards_are_what_their_source_makes", "generate.py") else { return };
    succeeded(&generate.arg("--check").output().unwrap());
}

#[test]
fn dashboards_are_of_grafanas_schema() {
    let Some(mut check) = python("dashboards_are_of_grafanas_schema", "check.py") else { return };
    let said = succeeded(&check.args(files("", "json")).output().unwrap());
    assert_eq!(said, format!("{} dashboards: no problem\n", files("", "json").len()));
}

/// What may be wrong with a dashboard: where, the value that is put there, and what the check says of it.
fn faults() -> Vec<(&'static str, Value, &'static str)> {
    let field = "no such field";
    vec![
        ("/panels/1/fieldConfig/defaults/unitt", json!("s"), field),
        ("/panels/1/fieldConfig/defaults/unit", json!("sekunden"), "no unit"),
        ("/panels/1/fieldConfig/defaults/thresholds/steps/0/value", json!("x"), "is not"),
        ("/panels/1/type", json!("stats"), "no panel type"),
        ("/panels/1/description", json!(""), "does not say what to do"),
        ("/panels/1/gridPos/x", json!("0"), "is not"),
        ("/panels/2/gridPos/x", json!(0), "over"),
        ("/panels/2/id", json!(2), "used twice"),
        ("/panels/1/options/reduceOptions/calcs", json!("mean"), "is not"),
        ("/panels/1/targets/0/range", json!(1), "is not"),
        ("/panels/1/targets/0/legendFormats", json!("x"), field),
        ("/panels/1/targets/0/expr", json!(""), "without an expression"),
        ("/panels/1/targets/0/datasource/type", json!("prometeus"), "data source"),
        ("/panels/8/options/legend/displayMode", json!("lits"), "is not"),
        ("/panels/8/fieldConfig/defaults/custom/lineWidth", json!("1"), "is not"),
        ("/panels/8/fieldConfig/defaults/custom/lineWeight", json!(1), field),
        ("/templating/list/1/multy", json!(true), field),
        ("/templating/list/1/refresh", json!(9), "is not"),
        ("/annotations/list/0/iconColour", json!("red"), field),
        ("/links/0/type", json!("dashbord"), "is not"),
    ]
}

#[test]
fn wrong_field_of_a_dashboard_is_found() {
    let Some(mut check) = python("wrong_field_of_a_dashboard_is_found", "check.py") else { return };
    let dir = tempfile::tempdir().unwrap();
    let good: Value = serde_json::from_slice(&fs::read(crate::tools::dashboards("overview.json")).unwrap()).unwrap();
    for (index, (place, wrong, _)) in faults().into_iter().enumerate() {
        let mut changed = good.clone();
        let (above, key) = place.rsplit_once('/').unwrap();
        changed.pointer_mut(above).unwrap_or_else(|| panic!("no {above}"))[key] = wrong;
        assert_ne!(changed, good, "{place}");
        let path = dir.path().join(format!("{index}.json"));
        fs::write(&path, changed.to_string()).unwrap();
        check.arg(path);
    }
    let output = check.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    for (index, (place, wrong, expected)) in faults().into_iter().enumerate() {
        let mut of_this = said.lines().filter(|line| line.contains(&format!("/{index}.json: ")));
        let problem = of_this.next().unwrap_or_else(|| panic!("{place}: {wrong} is not found"));
        assert!(problem.contains(expected), "{place}: {problem}");
    }
}
