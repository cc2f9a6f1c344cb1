//! A real Prometheus that scrapes one target and evaluates the rules of `dashboards/`, both far more often than in operation,
//! and its HTTP API.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::Process;
use crate::tools::{dashboards, files};

/// How long starting, or one answer, may take. Only a failing test waits that long.
const BOUND: Duration = Duration::from_secs(30);

/// A running Prometheus. Ended when dropped.
pub struct Prometheus {
    _process: Process,
    address: SocketAddr,
}

/// One element of an instant vector.
#[derive(Clone, Debug)]
pub struct Sample {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// A rule as Prometheus has loaded it.
#[derive(Debug)]
pub struct Rule {
    pub name: String,
    pub expression: String,
    pub is_alert: bool,
    /// `ok` once it was evaluated without an error.
    pub health: String,
}

impl Prometheus {
    /// Starts it in `dir`, with `dashboards/prometheus.yml` as far as the test can have it, and waits until it answers.
    pub fn start(dir: &Path, target: SocketAddr) -> Prometheus {
        let config = dir.join("prometheus.yml");
        fs::write(&config, configuration(dir, target)).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()));
        command
            .args(["--web.listen-address=127.0.0.1:0", "--log.format=logfmt"])
            .env("GOMAXPROCS", "1")
            .current_dir(dir);
        let mut process = Process::start("prometheus", &mut command);
        let line = process.line("its address", BOUND, |line| line.contains("msg=\"Listening on\""));
        let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
        let address = address.trim_matches('"').parse().unwrap();
        process.line("readiness", BOUND, |line| line.contains("ready to receive web requests"));
        Prometheus { _process: process, address }
    }

    /// The value of an expression now.
    ///
    /// # Panics
    /// If it is an error.
    pub fn query(&self, expression: &str) -> Vec<Sample> {
        let data = self.get(&format!("query?query={}", encoded(expression)));
        if data["resultType"] == "scalar" {
            return vec![Sample { labels: BTreeMap::new(), value: number(&data["result"][1]) }];
        }
        let samples = data["result"].as_array().unwrap_or_else(|| panic!("{expression}: {data}"));
        samples.iter().map(|one| Sample { labels: strings(&one["metric"]), value: number(&one["value"][1]) }).collect()
    }

    /// Whether an expression has a value that is a number now: a quotient of zeros is none.
    pub fn has_data(&self, expression: &str) -> bool {
        self.query(expression).iter().any(|sample| sample.value.is_finite())
    }

    /// The values of a label of these series.
    pub fn label_values(&self, series: &str, label: &str) -> Vec<String> {
        let data = self.get(&format!("label/{label}/values?match[]={}", encoded(series)));
        data.as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    }

    /// All rules, in the order of the files.
    pub fn rules(&self) -> Vec<Rule> {
        let data = self.get("rules");
        let groups = data["groups"].as_array().unwrap().iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
        let text = |rule: &Value, field: &str| rule[field].as_str().unwrap_or_default().to_owned();
        rules
            .map(|rule| Rule {
                name: text(rule, "name"),
                expression: text(rule, "query"),
                is_alert: rule["type"] == "alerting",
                health: format!("{}{}", text(rule, "health"), text(rule, "lastError")),
            })
            .collect()
    }

    /// Labels and annotations of the alerts of that name that are firing.
    pub fn firing(&self, name: &str) -> Vec<(BTreeMap<String, String>, BTreeMap<String, String>)> {
        let data = self.get("alerts");
        let alerts = data["alerts"].as_array().unwrap().iter();
        alerts
            .filter(|alert| alert["state"] == "firing" && alert["labels"]["alertname"] == name)
            .map(|alert| (strings(&alert["labels"]), strings(&alert["annotations"])))
            .collect()
    }

    /// One request to the API; HTTP 1.0, so that the answer is whole.
    fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(self.address).expect("Prometheus listens");
        stream.set_read_timeout(Some(BOUND)).unwrap();
        write!(stream, "GET /api/v1/{path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").expect("head and body");
        let mut json: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"));
        assert_eq!(json["status"], "success", "{path}: {json}");
        json["data"].take()
    }
}

/// `dashboards/prometheus.yml` for this target, with rules and intervals of a test.
fn configuration(dir: &Path, target: SocketAddr) -> String {
    let mut text = fs::read_to_string(dashboards("prometheus.yml")).unwrap();
    let mut replace = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    };
    replace("127.0.0.1:9464", &target.to_string());
    replace("scrape_interval: 15s", "scrape_interval: 500ms");
    replace("evaluation_interval: 15s", "evaluation_interval: 500ms");
    for path in files("rules", "yml") {
        let name = path.file_name().unwrap().to_str().unwrap();
        fs::write(dir.join(name), shortened(&fs::read_to_string(&path).unwrap())).unwrap();
        replace(&format!("rules/{name}"), name);
    }
    // Somebody else's target, which is down: nothing of ours shall say so.
    text + "  - job_name: other\n    static_configs:\n      - targets: [\"127.0.0.1:1\"]\n"
}

/// Rules whose windows and waits are seconds.
fn shortened(rules: &str) -> String {
    let mut made = String::new();
    for line in rules.lines() {
        match line.trim_start().starts_with("for: ") {
            true => made += "        for: 1s",
            false => made += &windows(line),
        }
        made.push('\n');
    }
    made
}

/// A line with its ranges cut: minutes to four seconds, more to eight.
fn windows(line: &str) -> String {
    let mut parts = line.split('[');
    let mut made = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_range = |text: &str| {
            let digits = text.trim_end_matches(['s', 'm', 'h', 'd']);
            digits.len() + 1 == text.len() && digits.parse::<u32>().is_ok()
        };
        let range = part.split_once(']').filter(|(range, _)| is_range(range));
        match range {
            Some((range, rest)) if range.ends_with('m') => made += &format!("[4s]{rest}"),
            Some((_, rest)) => made += &format!("[8s]{rest}"),
            None => made += &format!("[{part}"),
        }
    }
    made
}

fn strings(json: &Value) -> BTreeMap<String, String> {
    let object = json.as_object().unwrap().iter();
    object.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

fn number(json: &Value) -> f64 {
    json.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{json} is no number"))
}

/// Percent-encoding (RFC 3986 §2.1) of everything that is not a letter or a digit.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[test]
fn rules_are_shortened_in_every_window_and_wait() {
    let rules = "      - expr: rate(a[5m]) and b[30m] / c{x=\"y\"}[3d]\n        for: 10m\n        runbook: \"pollers = [1, 2]\"\n";
    let expected = "      - expr: rate(a[4s]) and b[4s] / c{x=\"y\"}[8s]\n        for: 1s\n        runbook: \"pollers = [1, 2]\"\n";
    assert_eq!(shortened(rules), expected);
}
