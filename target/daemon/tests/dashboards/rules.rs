//! The rules: promtool takes them, its unit tests pass, each alert has a case in which it fires and one in which it does not, and
//! each says what to do.

use std::collections::BTreeMap;
use std::fs;

use crate::tools::{dashboards, files, has, promtool, succeeded};

#[test]
fn rules_and_configuration_are_valid() {
    if !has("rules_and_configuration_are_valid", &["promtool"]) {
        return;
    }
    succeeded(&promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &files("rules", "yml")));
    succeeded(&promtool(&["check", "config"], &[dashboards("prometheus.yml")]));
}

#[test]
fn unit_tests_of_the_rules_pass() {
    if has("unit_tests_of_the_rules_pass", &["promtool"]) {
        succeeded(&promtool(&["test", "rules"], &files("rules/tests", "yml")));
    }
}

/// A rule that never fires, and one that fires too soon: the unit tests see either.
#[test]
fn unit_tests_of_the_rules_fail_with_other_rules() {
    if !has("unit_tests_of_the_rules_fail_with_other_rules", &["promtool"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tests")).unwrap();
    for path in
        [files("rules", "yml"), vec![dashboards("rules/tests/storage.yml"), dashboards("rules/tests/targets.yml")]]
            .concat()
    {
        let name = path.strip_prefix(dashboards("rules")).unwrap();
        fs::copy(&path, dir.path().join(name)).unwrap();
    }
    for (test, from, to) in [
        (
            "storage.yml",
            "instance_lun:ringside_scsi_refused:rate5m > 0",
            "instance_lun:ringside_scsi_refused:rate5m > 1",
        ),
        ("storage.yml", "errors:ratio_rate5m > 0.01", "errors:ratio_rate5m > 0.001"),
        ("targets.yml", "        for: 1m\n", "        for: 0m\n"),
    ] {
        let text = fs::read_to_string(dashboards("rules/alerts.yml")).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(dir.path().join("alerts.yml"), text.replace(from, to)).unwrap();
        let output = promtool(&["test", "rules"], &[dir.path().join("tests").join(test)]);
        assert!(!output.status.success(), "{to}: {output:?}");
    }
}

/// The alerts of `alerts.yml`, as blocks of lines.
fn alerts() -> BTreeMap<String, String> {
    let text = fs::read_to_string(dashboards("rules/alerts.yml")).unwrap();
    let blocks = text.split("      - alert: ").skip(1);
    blocks.map(|block| (block.lines().next().unwrap().to_owned(), block.to_owned())).collect()
}

#[test]
fn every_alert_has_severity_and_says_what_to_do() {
    assert!(alerts().len() >= 15);
    for (name, block) in alerts() {
        assert!(name.starts_with("Ringside"), "{name}");
        assert!(block.contains("labels: {severity: page}") || block.contains("labels: {severity: ticket}"), "{name}");
        for annotation in ["summary", "description", "runbook"] {
            let line = block.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{annotation}: \"")));
            assert!(line.is_some_and(|text| text.len() > 20), "{name}: {annotation}");
        }
    }
}

/// In the unit tests, an expression of `ALERTS` with samples is a case that fires, one without is one that does not.
#[test]
fn every_alert_has_a_unit_test_that_fires_and_one_that_does_not() {
    let texts: Vec<String> = files("rules/tests", "yml").iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let cases: Vec<&str> = texts.iter().flat_map(|text| text.split("      - expr: ").skip(1)).collect();
    for name in alerts().keys() {
        let of_this = |case: &&&str| {
            let asked = case.lines().next().unwrap();
            let names = asked.split('"').nth(1).unwrap_or_default();
            asked.starts_with("ALERTS{") && names.split('|').any(|one| one == name)
        };
        let fires = format!("alertname=\"{name}\", alertstate=\"firing\"");
        let of_this: Vec<&str> = cases.iter().filter(of_this).copied().collect();
        assert!(of_this.iter().any(|case| case.contains(&fires)), "{name} fires in no unit test");
        assert!(of_this.iter().any(|case| case.contains("exp_samples: []")), "{name} is quiet in no unit test");
    }
}

/// promtool takes groups that have no order in any order, which makes a unit test pass now and then.
#[test]
fn every_unit_test_has_an_order_of_all_groups() {
    let groups: Vec<String> = files("rules", "yml")
        .iter()
        .flat_map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| Some(line.strip_prefix("  - name: ")?.to_owned()))
        .collect();
    assert!(groups.len() >= 8, "{groups:?}");
    for path in files("rules/tests", "yml") {
        let text = fs::read_to_string(&path).unwrap();
        let order =
            text.split("group_eval_order: [").nth(1).and_then(|rest| rest.split(']').next()).unwrap_or_default();
        let order: Vec<&str> = order.split(',').map(str::trim).collect();
        let mut missing = groups.iter().filter(|group| !order.contains(&group.as_str()));
        assert_eq!(missing.next(), None, "{path:?}");
    }
}
