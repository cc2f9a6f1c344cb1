//! Windows as the files of tests have them.

use std::path::Path;

use super::summary::Summary;
use super::window::{Input, InputError};
use crate::histogram::LatencyHistogram;

/// One line of a file: a case, a target, a round, the distance of the cores, a rate, and its p99.
pub(super) fn line(case: &str, who: &str, round: u32, cores_ns: [u32; 2], iops: u32, p99: u32) -> String {
    let result = format!(r#"{{"iops":{iops}.0,"lat_us":{{"p50":5.5,"p99":{p99},"p999":0}},"errors":0,"cpu":0.999}}"#);
    format!(
        r#"{{"who":"{who}","case":"{case}","round":{round},"cores_ns":[{},{}],"result":{result}}}"#,
        cores_ns[0], cores_ns[1]
    )
}

/// The same text as the histogram of a thousand commands of this many microseconds.
pub(super) fn histogram(micros: u64) -> String {
    let mut histogram = LatencyHistogram::new();
    histogram.record(micros * 1000, 1000);
    histogram.encode()
}

/// Five rounds of a case at two depths by two targets, near but for the last round; only the first target has histograms.
pub(super) fn matrix() -> String {
    let mut text = r#"{"machine":[["processor","Some <CPU> & more"]]}"#.to_owned() + "\n";
    for (case, factor) in [("scsi/null/randread/4k/qd1/split", 1), ("scsi/null/randread/4k/qd32/split", 10)] {
        for round in 1..=5 {
            let cores = if round == 5 { [600, 610] } else { [120, 130] };
            let ours = line(case, "ringside", round, cores, factor * (300 + round), 10);
            let hist = format!(r#""lat_hist_ns":"{}","errors""#, histogram(8));
            text += &ours.replacen(r#""errors""#, &hist, 1);
            text.push('\n');
            text += &line(case, "spdk", round, cores, factor * (150 + round), 20);
            text.push('\n');
        }
    }
    text
}

pub(super) fn read(text: &str) -> Result<Input, InputError> {
    let mut input = Input::default();
    input.read(Path::new("dir/windows.jsonl"), text)?;
    input.check()?;
    Ok(input)
}

pub(super) fn sum_up(text: &str) -> (Input, Summary) {
    let input = read(text).expect("windows");
    let summary = Summary::new(&input);
    (input, summary)
}
