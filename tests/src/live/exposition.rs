//! The Prometheus text format (0.0.4), read more strictly than Prometheus does: what is not well-formed is an error that
//! names the line. Which families there should be is the tests'.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// Everything that one scrape answered.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    /// Families by name.
    pub families: BTreeMap<String, Family>,
}

/// One family: its lines stand together, HELP and TYPE first.
#[derive(Clone, Debug)]
pub struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// Its samples; those of a histogram end in `_bucket`, `_sum` and `_count`.
    pub samples: Vec<Sample>,
}

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The name in that line.
    pub name: String,
    /// Label values by name.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// Fetches and reads `/metrics`.
///
/// # Panics
/// If there is no answer, or not a well-formed one.
#[must_use]
pub fn scrape(addr: SocketAddr) -> Exposition {
    let (head, body) = fetch(addr, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    Exposition::parse(&body).unwrap_or_else(|error| panic!("{error}"))
}

/// One HTTP request; head and body of the answer.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn fetch(addr: SocketAddr, path: &str) -> (String, String) {
    fetch_with(addr, path, &[])
}

/// The same with more lines in the head of the request, such as `Accept: …`.
///
/// # Panics
/// If there is no answer.
#[must_use]
pub fn fetch_with(addr: SocketAddr, path: &str, head: &[&str]) -> (String, String) {
    let stream = TcpStream::connect(addr).expect("the exporter listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    ask(stream, path, head)
}

/// One HTTP request over any stream; head and body of the answer.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn ask(mut stream: impl Read + Write, path: &str, head: &[&str]) -> (String, String) {
    let head: String = head.iter().map(|line| format!("{line}\r\n")).collect();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{head}\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers in UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    (head.to_owned(), body.to_owned())
}

impl Exposition {
    /// Reads a text.
    ///
    /// # Errors
    /// The first line that is wrong, and why.
    pub fn parse(text: &str) -> Result<Exposition, String> {
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut lines = text.split_inclusive('\n').peekable();
        while let Some(line) = lines.next() {
            let (name, _) = comment(line, "HELP")?;
            let (typed, kind) = comment(lines.next().unwrap_or_default(), "TYPE")?;
            if typed != name || !["counter", "gauge", "histogram"].contains(&kind) {
                return Err(format!("HELP of {name} is followed by TYPE {typed} {kind}"));
            }
            let mut samples = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                samples.push(sample(line, name, kind)?);
            }
            check_family(name, kind, &samples)?;
            if families.insert(name.to_owned(), Family { kind: kind.to_owned(), samples }).is_some() {
                return Err(format!("{name}: two families of that name"));
            }
        }
        Ok(Exposition { families })
    }

    /// The sum of the samples of `name` that have these labels, whatever others they have; 0 if there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples(name, labels).map(|sample| sample.value).sum()
    }

    /// The samples of `name` that have these labels. `name` may end in `_bucket`, `_sum` or `_count`.
    pub fn samples<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let family = self.families.get(name).or_else(|| self.families.get(stem?));
        let wanted = move |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|has| has == value))
        };
        family.into_iter().flat_map(|family| &family.samples).filter(wanted)
    }
}

/// `# WORD name rest`; name and rest.
fn comment<'a>(line: &'a str, word: &str) -> Result<(&'a str, &'a str), String> {
    let wrong = || format!("{line:?}: must be a # {word} line that ends");
    let rest = line.strip_suffix('\n').and_then(|line| line.strip_prefix("# ")?.strip_prefix(word)?.strip_prefix(' '));
    let (name, rest) = rest.and_then(|rest| rest.split_once(' ')).ok_or_else(wrong)?;
    if !is_name(name, true) || rest.trim().is_empty() { Err(wrong()) } else { Ok((name, rest)) }
}

fn sample(line: &str, family: &str, kind: &str) -> Result<Sample, String> {
    let wrong = |what: &str| format!("{line:?}: {what}");
    let text = line.strip_suffix('\n').ok_or_else(|| wrong("the line does not end"))?;
    let end = text.find(['{', ' ']).ok_or_else(|| wrong("no value"))?;
    let (name, rest) = text.split_at(end);
    let tail = name.strip_prefix(family).ok_or_else(|| wrong("not of the family above"))?;
    let tails: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
    if !tails.contains(&tail) {
        return Err(wrong("not of the family above"));
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest).map_err(|what| wrong(&what))?,
        None => (BTreeMap::new(), rest),
    };
    let number = rest.strip_prefix(' ').ok_or_else(|| wrong("no blank before the value"))?;
    let value: f64 = number.parse().map_err(|_| wrong("the value is no number"))?;
    if kind != "gauge" && (value < 0.0 || value.is_nan()) {
        return Err(wrong("negative"));
    }
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// `name="value",…}` and what follows.
fn labels(mut text: &str) -> Result<(BTreeMap<String, String>, &str), String> {
    let mut labels = BTreeMap::new();
    loop {
        let (name, rest) = text.split_once("=\"").ok_or("a label without a value")?;
        if !is_name(name, false) {
            return Err(format!("{name:?} is no label name"));
        }
        let (value, rest) = quoted(rest)?;
        if labels.insert(name.to_owned(), value).is_some() {
            return Err(format!("label {name} twice"));
        }
        match rest.split_at_checked(1) {
            Some((",", rest)) => text = rest,
            Some(("}", rest)) => return Ok((labels, rest)),
            _ => return Err("labels do not end".into()),
        }
    }
}

/// The rest of a quoted value, and what follows its quote.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                _ => return Err("an unknown escape".into()),
            },
            char => value.push(char),
        }
    }
    Err("a label value does not end".into())
}

fn is_name(name: &str, colons: bool) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || colons && c == ':';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

fn check_family(name: &str, kind: &str, samples: &[Sample]) -> Result<(), String> {
    if samples.is_empty() {
        return Err(format!("{name}: no sample"));
    }
    if (kind == "counter") != name.ends_with("_total") {
        return Err(format!("{name}: a {kind}; exactly counters end in _total"));
    }
    let mut seen = BTreeSet::new();
    for sample in samples {
        if !seen.insert((&sample.name, &sample.labels)) {
            return Err(format!("{sample:?}: twice"));
        }
    }
    if kind == "histogram" { check_histogram(name, samples) } else { Ok(()) }
}

/// Buckets of each series ascend, in edge and count, up to +Inf, which has as many as `_count`.
fn check_histogram(name: &str, samples: &[Sample]) -> Result<(), String> {
    let mut series: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
    for bucket in samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
        let mut labels = bucket.labels.clone();
        let edge = labels.remove("le").and_then(|le| le.parse().ok()).ok_or(format!("{bucket:?}: no le"))?;
        series.entry(labels).or_default().push((edge, bucket.value));
    }
    let others = samples.iter().filter(|sample| !sample.name.ends_with("_bucket"));
    if others.clone().any(|sample| sample.labels.contains_key("le")) || others.count() != 2 * series.len() {
        return Err(format!("{name}: not one _sum and one _count for each series of buckets"));
    }
    for (labels, buckets) in series {
        let ascending = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let whole = |end: &str| {
            let mut found = samples.iter().filter(|sample| sample.name.ends_with(end) && sample.labels == labels);
            found.next().map(|sample| sample.value)
        };
        let last = buckets.last().copied();
        if !ascending || last.is_none_or(|(edge, _)| edge != f64::INFINITY) {
            return Err(format!("{name}{labels:?}: buckets do not ascend to +Inf"));
        }
        if whole("_count") != last.map(|(_, count)| count) || whole("_sum").is_none() {
            return Err(format!("{name}{labels:?}: _count is not the last bucket, or _sum is missing"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
# HELP a_total Things, \\\\ and more.
# TYPE a_total counter
a_total{x=\"1\",y=\"a\\\"b\\\\c\\nd\"} 3
a_total{x=\"2\",y=\"\"} 4.5
# HELP h H.
# TYPE h histogram
h_bucket{le=\"0.1\"} 1
h_bucket{le=\"+Inf\"} 2
h_sum 7
h_count 2
";

    #[test]
    fn exposition_reads_labels_escapes_and_histograms() {
        let read = Exposition::parse(GOOD).unwrap();
        assert_eq!(read.sum("a_total", &[]), 7.5);
        assert_eq!(read.sum("a_total", &[("y", "a\"b\\c\nd")]), 3.0);
        assert_eq!(read.sum("h_bucket", &[("le", "+Inf")]), 2.0);
        assert_eq!(read.sum("h_count", &[]), 2.0);
        assert_eq!(read.sum("absent", &[]), 0.0);
    }

    #[test]
    fn exposition_refuses_what_is_not_well_formed() {
        for (from, to) in [
            ("# HELP a_total Things, \\\\ and more.\n", ""),
            ("# TYPE a_total counter\n", ""),
            ("TYPE a_total counter", "TYPE b_total counter"),
            ("TYPE a_total counter", "TYPE a_total gauge"),
            ("a_total{x=\"2\",y=\"\"} 4.5", "a_total{x=\"2\",y=\"\"} -4"),
            ("a_total{x=\"2\",y=\"\"} 4.5", "a_total{x=\"2\",y=\"\"}4.5"),
            ("a_total{x=\"2\",y=\"\"} 4.5", "a_total{x=\"2\",x=\"\"} 4.5"),
            ("a_total{x=\"2\",y=\"\"} 4.5", "a_total{1x=\"2\"} 4.5"),
            ("a_total{x=\"2\",y=\"\"} 4.5", "b_total 4"),
            ("a_total{x=\"2\",y=\"\"}", "a_total{x=\"1\",y=\"a\\\"b\\\\c\\nd\"}"),
            ("h_bucket{le=\"0.1\"} 1", "h_bucket{le=\"0.1\"} 3"),
            ("h_bucket{le=\"+Inf\"} 2\n", ""),
            ("h_count 2", "h_count 3"),
            ("h_sum 7\n", ""),
            ("h_count 2\n", "h_count 2"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            assert!(Exposition::parse(&text).is_err(), "{text}");
        }
    }
}
