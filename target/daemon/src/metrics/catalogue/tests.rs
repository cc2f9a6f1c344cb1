//! The catalogue against its own rules and against `METRICS.md`. That a running target exports it, and nothing else, is tested
//! by `tests/process/metrics.rs`.

use std::collections::BTreeSet;

use super::*;

#[test]
fn metrics_md_is_what_the_catalogue_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../METRICS.md");
    let file = std::fs::read_to_string(path).unwrap();
    assert!(file == markdown(), "METRICS.md is not up to date: ringside metrics >METRICS.md");
}

#[test]
fn names_follow_the_conventions_of_prometheus() {
    let mut families = BTreeSet::new();
    for metric in metrics() {
        let name = metric.name();
        assert!(name.starts_with("ringside_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind() == Kind::Counter, "{name}");
        assert_eq!(name.ends_with("_info"), metric.kind() == Kind::Info, "{name}");
        for suffix in ["_count", "_sum", "_bucket", "_created", "_bits", "_milliseconds", "_us", "_ns", "_ms"] {
            assert!(!name.ends_with(suffix), "{name}");
        }
        // OpenMetrics: a counter and a gauge of one family clash.
        assert!(families.insert(metric.family()), "{name}: two metrics of this family");
    }
}

#[test]
fn labels_are_few_and_their_own() {
    for metric in metrics() {
        let labels: BTreeSet<_> = metric.labels().iter().collect();
        assert_eq!(labels.len(), metric.labels().len(), "{}: a label twice", metric.name());
        assert!(labels.len() <= 4, "{}", metric.name());
        assert!(!labels.contains(&"le") && !labels.contains(&"quantile"), "{}", metric.name());
    }
}

#[test]
fn texts_are_sentences_of_one_line_and_name_metrics_that_there_are() {
    for metric in metrics() {
        let Metric { name, requirement, help, act, .. } = metric;
        for text in [help, act] {
            assert!(text.ends_with('.') && !text.contains('\n') && !text.contains("  "), "{name}: {text:?}");
            for word in text.split('`').skip(1).step_by(2).filter(|word| word.starts_with("ringside_")) {
                let known = |other: &Metric| match word.strip_suffix('…') {
                    Some(stem) => other.name().starts_with(stem),
                    None => other.name() == word,
                };
                assert!(metrics().any(known), "{name} speaks of {word}");
            }
        }
        assert!(requirement.split(", ").all(|one| one.starts_with('R') && one.len() == 3), "{name}: {requirement}");
    }
}

#[test]
fn units_are_those_of_the_names() {
    let unit = |name: &str| metrics().find(|metric| metric.name() == name).unwrap().unit();
    assert_eq!(unit("ringside_poller_seconds_total"), Some("seconds"));
    assert_eq!(unit("ringside_scsi_bytes_total"), Some("bytes"));
    assert_eq!(unit("ringside_port_speed_bytes_per_second"), Some("bytes_per_second"));
    assert_eq!(unit("ringside_scsi_commands_total"), None);
}
