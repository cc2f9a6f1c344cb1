//! The load generator's command line, as far as it needs no target.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn bench(arguments: &[&str], file: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
    command.arg("bench").args(arguments).arg(file).output().expect("it starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn run_with_report_leaves_a_page_and_its_json_is_a_window_of_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("run.html");
    let run = ["scsi", "--null-responder", "--number-ios", "1000", "--json", "--report"];
    let output = bench(&run, &page);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = fs::read_to_string(&page).unwrap();
    assert!(text.contains("<h2>scsi/randread/4k/qd32/split</h2>") && text.contains("<svg"), "{text}");
    let windows = folder.path().join("mine.json");
    fs::write(&windows, &output.stdout).unwrap();
    let report = bench(&["report"], &windows);
    assert!(report.status.success(), "{}", stderr(&report));
    let table = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(table.contains("scsi/randread/4k/qd32/split  mine "), "{table}");
}

#[test]
fn report_of_a_file_without_windows_fails_with_file_line_and_field() {
    let folder = tempfile::tempdir().unwrap();
    let windows = folder.path().join("bad.jsonl");
    fs::write(&windows, "{\"machine\":[]}\n{\"who\":\"a\",\"case\":\"c\",\"round\":1,\"result\":{\"iops\":\"x\"}}\n")
        .unwrap();
    let output = bench(&["report"], &windows);
    assert_eq!(output.status.code(), Some(1));
    let wanted = format!("{}:2: result.iops: must be a number of at least 0, is \"x\"", windows.display());
    assert!(stderr(&output).contains(&wanted), "{}", stderr(&output));
}

#[test]
fn machine_as_json_is_what_a_report_reads() {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(&["machine", "--json", "--fact"], Path::new("peer=1.0"));
    assert!(output.status.success(), "{}", stderr(&output));
    let windows = folder.path().join("windows.jsonl");
    let window = r#"{"who":"a","case":"c","round":1,"result":{"iops":1}}"#;
    fs::write(&windows, [output.stdout.as_slice(), window.as_bytes()].concat()).unwrap();
    let report = bench(&["report"], &windows);
    let text = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(text.contains("\npeer: 1.0\n"), "{text}{}", stderr(&report));
}
