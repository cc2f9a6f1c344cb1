//! The two forms of an outcome, word by word where others read them.

use super::super::args::tests::parse;
use super::super::load::{Halt, Window};
use super::super::reply::{Failure, Tally};
use super::super::verify::Findings;
use super::*;
use crate::meter::Meter;

const RANGE: Range = Range { block_size: 512, blocks_per_piece: 8, pieces: 131_072 };

fn report() -> Report {
    let mut meter = Meter::new();
    // A value of its own for each quantile, all in the part that a table counts exactly to some nanoseconds.
    (0..1000).for_each(|_| meter.record(reactor::Tsc::ticks(5_000)));
    let window = Window {
        meter,
        length: Duration::from_millis(500),
        busy: Duration::from_millis(250),
        cpu: Duration::from_millis(499),
    };
    Report { window: Some(window), tally: Tally::default(), findings: None, halt: None, outstanding: vec![0] }
}

#[test]
fn json_is_one_object_with_the_names_of_the_design() {
    let args = parse("--socket /s --core 1 --time 0.5").unwrap();
    let outcome = Outcome::new(&args, 7, &RANGE, &report());
    let line = outcome.json();
    assert!(!line.contains('\n'));
    assert!(line.starts_with(r#"{"iops":2000.0,"mib_per_s":7.8,"errors":0,"lat_us":{"mean":"#), "{line}");
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    for name in ["mean", "p50", "p99", "p999", "max"] {
        let value = json["lat_us"][name].as_f64().unwrap();
        assert!((4.95..=5.05).contains(&value), "{name}: {value}");
    }
    let histogram = LatencyHistogram::decode(json["lat_hist_ns"].as_str().unwrap()).unwrap();
    assert_eq!(histogram.count(), 1000);
    assert!((4.95..=5.05).contains(&histogram.micros_at(0.5)), "{}", histogram.micros_at(0.5));
    for (name, value) in [
        ("socket", "/s".into()),
        ("rw", "randread".into()),
        ("bs", 4096.into()),
        ("qd", 32.into()),
        ("queues", 1.into()),
        ("time_s", 0.5.into()),
        ("ring", "split".into()),
        ("target", 0.into()),
        ("lun", 0.into()),
        ("verify", false.into()),
        ("block_size", 512.into()),
        ("range_bytes", (512u64 << 20).into()),
        ("core", 1.into()),
        ("verified_blocks", 0.into()),
        ("ios", 1000.into()),
        ("cpu", 0.998.into()),
        ("busy", 0.5.into()),
        ("seed", 7.into()),
        ("interrupted", false.into()),
        ("failure", serde_json::Value::Null),
    ] {
        assert_eq!(json[name], value, "{name}");
    }
    assert!(outcome.passed());
}

#[test]
fn errors_are_failed_commands_and_mismatched_blocks() {
    let args = parse("--socket /s --verify").unwrap();
    let mut report = report();
    report.tally.count(Failure::Response(5));
    report.tally.count(Failure::Response(5));
    report.findings = Some(Findings { checked: 100, mismatched: 3, untouched: 1, first: Vec::new() });
    let outcome = Outcome::new(&args, 7, &RANGE, &report);
    assert_eq!((outcome.errors, outcome.verified_blocks, outcome.mismatched_blocks), (5, 100, 3));
    assert!(!outcome.passed());
    let text = outcome.to_string();
    for line in ["  verified 100 blocks, 3 mismatches\n", "    and 3 more\n", "  errors 5\n", "    2 x S_BUSY\n"] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn run_that_never_measured_is_zeros_and_still_json() {
    let args = parse("--null-responder").unwrap();
    let report = Report { window: None, halt: Some(Halt::Finished), ..report() };
    let outcome = Outcome::new(&args, 7, &RANGE, &report);
    let json: serde_json::Value = serde_json::from_str(&outcome.json()).unwrap();
    assert_eq!((&json["iops"], &json["lat_us"]["p99"]), (&0.0.into(), &0.0.into()));
    assert_eq!(json["lat_hist_ns"], serde_json::Value::Null);
    assert_eq!((&json["socket"], &json["core"]), (&serde_json::Value::Null, &serde_json::Value::Null));
}

#[test]
fn text_tells_rates_latencies_and_what_was_run() {
    let args = parse("--socket /run/s --rw randwrite --queues 2").unwrap();
    let text = Outcome::new(&args, 7, &RANGE, &report()).to_string();
    assert!(text.starts_with("randwrite of 4096 bytes, depth 32 on 2 queue(s), target 0 LUN 0 of /run/s\n"), "{text}");
    assert!(text.contains("  2000 IOPS  7.8 MiB/s\n"), "{text}");
    assert!(text.contains("  latency us: mean "), "{text}");
    assert!(text.contains("  errors 0\n") && !text.contains("verified") && !text.contains("interrupted"), "{text}");
}
