//! One scrape of `/metrics`, and questions to it. Which metrics there are is the target's business.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The samples of one scrape.
pub struct Metrics(Vec<Sample>);

struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Asks the exporter at `address`.
    pub fn scrape(address: SocketAddr) -> Metrics {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        assert!(head.split(' ').nth(1) == Some("200"), "{head}");
        Metrics(text.lines().filter(|line| !line.starts_with('#')).map(Sample::parse).collect())
    }

    /// Sum of the samples of that name with these labels.
    ///
    /// # Panics
    /// If there is none: a misspelt metric must not be a zero.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let mut values = self.select(name, labels).map(|sample| sample.value).peekable();
        assert!(values.peek().is_some(), "no metric {name} with {labels:?}");
        values.sum()
    }

    /// Sum of the samples of that name with these labels, if there are any.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.select(name, labels).map(|sample| sample.value).reduce(|sum, value| sum + value)
    }

    /// Samples of that name whose value is not 0, by the value of `label`: what there is besides the expected.
    pub fn nonzero(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let samples = self.select(name, &[]).filter(|sample| sample.value != 0.0);
        samples.map(|sample| (sample.labels[label].clone(), sample.value)).collect()
    }

    /// No queue has halted, no message was refused, and no command ended up without an answer.
    pub fn assert_no_trouble(&self) {
        self.assert_no_trouble_of_net();
        assert_eq!(self.sum("ringside_scsi_no_response_room_total", &[]), 0.0);
    }

    /// The same where there may be no controller.
    pub fn assert_no_trouble_of_net(&self) {
        for name in
            ["ringside_virtqueue_broken", "ringside_vhost_messages_refused_total", "ringside_poller_panics_total"]
        {
            assert_eq!(self.sum(name, &[]), 0.0, "{name}");
        }
        // A front-end may be going at this moment; nobody waits for as long as the target warns of (R14).
        assert!(self.sum("ringside_quiesce_wait_seconds", &[]) < 1.0, "somebody waits for requests in flight");
        assert!(self.select("ringside_virtqueue_faults_total", &[]).next().is_none(), "a queue has halted");
    }

    fn select<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        let wanted = move |sample: &&Sample| {
            let has = |(key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|label| label == value);
            sample.name == name && labels.iter().all(has)
        };
        self.0.iter().filter(wanted)
    }
}

impl Sample {
    /// `name{key="value",…} number`; our labels hold no quote and no comma.
    fn parse(line: &str) -> Sample {
        let (series, value) = line.rsplit_once(' ').expect(line);
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}').expect(line).split(',').filter(|label| !label.is_empty());
        let label = |label: &str| {
            let (key, value) = label.split_once('=').expect(line);
            (key.to_owned(), value.trim_matches('"').to_owned())
        };
        Sample { name: name.to_owned(), labels: labels.map(label).collect(), value: value.parse().expect(line) }
    }
}
