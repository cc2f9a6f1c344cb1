//! What a run comes to, for people and as JSON. Nothing is measured here.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::args::{Args, Mode, Offload, name};
use super::load::Report;
use crate::histogram::LatencyHistogram;
use crate::meter::{Latency, rounded};
use crate::ring::Ring;

/// The result of a run. Its JSON form is one object with these names; `asked` is part of that object.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Millions of frames a second: taken by the device with mode tx, received otherwise.
    pub mpps: f64,
    /// Their bytes (no preamble, no FCS, no gap), in 10^9 bits a second.
    pub gbps: f64,
    /// Frames that the device did not take, and with mode loop those that did not come back, from the first one on.
    pub lost: u64,
    /// Round trips; zeros but with mode loop.
    pub lat_us: Latency,
    /// Frames that the device took while it was measured.
    pub tx_frames: u64,
    /// Frames that came while it was measured.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames given to the device, from the first one on.
    pub sent: u64,
    /// Frames that came, from the first one on.
    pub received: u64,
    /// Frames that came after one that was sent later.
    pub reordered: u64,
    /// Frames that came twice, or never were sent.
    pub duplicated: u64,
    /// Frames that came otherwise than they were sent.
    pub corrupted: u64,
    /// What came and is no frame: buffers with less than a header, or an impossible number of buffers.
    pub malformed: u64,
    /// Frames of somebody else, with mode loop.
    pub foreign: u64,
    /// The first things that were wrong.
    pub complaints: Vec<String>,
    /// How long it was measured.
    pub measured_s: f64,
    /// Processor time of the driving thread, of the time measured: below 1 another thread had its core.
    pub cpu: f64,
    /// Time in which the driving thread had something to do, of the time measured: close to 1 it is the bottleneck.
    pub busy: f64,
    /// The user ended it early.
    pub interrupted: bool,
    /// Why it could not go on, if it could not.
    pub failure: Option<String>,
    /// Histogram of the latencies in nanoseconds: HdrHistogram's V2 encoding, deflated, in base64. `None` without latencies.
    pub lat_hist_ns: Option<LatencyHistogram>,
    /// What was asked for.
    #[serde(flatten)]
    pub asked: Asked,
}

/// The arguments of a run.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "each is the argument of the same name")]
pub struct Asked {
    pub socket: Option<PathBuf>,
    pub server: bool,
    pub mode: Mode,
    pub size: u32,
    pub queues: u16,
    pub time_s: f64,
    pub frames: Option<u64>,
    pub warmup_s: f64,
    pub rate: Option<u64>,
    pub window: u16,
    pub flows: u16,
    pub src_mac: String,
    pub dst_mac: String,
    pub ring: Ring,
    pub queue_size: u16,
    /// Whether it was agreed on.
    pub mrg: bool,
    pub rx_buffer: u32,
    pub offload: Offload,
    pub indirect: bool,
    pub in_order: bool,
    pub interrupt: bool,
    pub core: Option<usize>,
    pub verify: bool,
    pub seed: u64,
    pub null_responder: bool,
}

impl Outcome {
    pub(super) fn new(args: &Args, seed: u64, mrg: bool, report: &Report) -> Outcome {
        let mut outcome = Outcome::empty(args, seed, mrg);
        if let Some(window) = &report.window {
            let seconds = window.length.as_secs_f64();
            let share = |part: Duration| rounded(part.as_secs_f64() / seconds, 1e3);
            let (frames, bytes) = match args.mode {
                Mode::Tx => (window.taken, window.taken * u64::from(args.size)),
                Mode::Rx | Mode::Loop => (window.received, window.bytes),
            };
            outcome.mpps = rounded(frames as f64 / seconds / 1e6, 1e6);
            outcome.gbps = rounded(bytes as f64 * 8.0 / seconds / 1e9, 1e6);
            outcome.lat_us = window.meter.latency();
            outcome.lat_hist_ns = window.meter.export();
            outcome.tx_frames = window.taken;
            outcome.rx_frames = window.received;
            outcome.rx_bytes = window.bytes;
            outcome.measured_s = rounded(seconds, 1e6);
            outcome.cpu = share(window.cpu);
            outcome.busy = share(window.busy);
        }
        let counts = report.counts;
        let outstanding: u64 = report.outstanding.iter().map(|count| u64::from(*count)).sum();
        // What the device has not taken with mode loop is given up as not back, unless the run ended before that.
        outcome.lost = if args.mode == Mode::Loop { report.lost.max(outstanding) } else { outstanding };
        outcome.sent = report.sent;
        outcome.received = counts.received;
        outcome.reordered = counts.reordered;
        outcome.duplicated = counts.duplicated;
        outcome.corrupted = counts.corrupted;
        outcome.malformed = counts.malformed;
        outcome.foreign = counts.foreign;
        outcome.complaints = report.complaints.clone();
        outcome
    }

    fn empty(args: &Args, seed: u64, mrg: bool) -> Outcome {
        Outcome {
            mpps: 0.0,
            gbps: 0.0,
            lost: 0,
            lat_us: Latency::default(),
            tx_frames: 0,
            rx_frames: 0,
            rx_bytes: 0,
            sent: 0,
            received: 0,
            reordered: 0,
            duplicated: 0,
            corrupted: 0,
            malformed: 0,
            foreign: 0,
            complaints: Vec::new(),
            measured_s: 0.0,
            cpu: 0.0,
            busy: 0.0,
            interrupted: false,
            failure: None,
            lat_hist_ns: None,
            asked: Asked::new(args, seed, mrg),
        }
    }

    /// Whether nothing failed: what the exit status says.
    #[must_use]
    pub fn passed(&self) -> bool {
        let Outcome { lost, duplicated, corrupted, malformed, .. } = *self;
        [lost, duplicated, corrupted, malformed] == [0; 4] && self.failure.is_none()
    }

    /// The JSON object, in one line.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers, texts and lists of them")
    }

    /// Prints it on standard output, and why it failed on standard error.
    ///
    /// # Errors
    /// Those of standard output.
    pub(super) fn print(&self, json: bool) -> io::Result<()> {
        crate::print(self, self.failure.as_deref(), json.then(|| self.json()))
    }
}

impl Asked {
    fn new(args: &Args, seed: u64, mrg: bool) -> Asked {
        let args = args.clone();
        Asked {
            window: args.window_or_default(),
            socket: args.socket,
            server: args.server,
            mode: args.mode,
            size: args.size,
            queues: args.queues,
            time_s: args.time.as_secs_f64(),
            frames: args.frames,
            warmup_s: args.frames.map_or(args.warmup, |_| Duration::ZERO).as_secs_f64(),
            rate: args.rate,
            flows: args.flows,
            src_mac: args.src_mac.to_string(),
            dst_mac: args.dst_mac.to_string(),
            ring: args.ring,
            queue_size: args.queue_size,
            mrg,
            rx_buffer: args.rx_buffer,
            offload: args.offload,
            indirect: args.indirect,
            in_order: args.in_order,
            interrupt: args.interrupt,
            core: args.core,
            verify: args.verify,
            seed,
            null_responder: args.null_responder,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.asked)?;
        let Outcome { tx_frames, rx_frames, measured_s, .. } = self;
        writeln!(f, "  {measured_s:.2} s, {tx_frames} frames sent, {rx_frames} received")?;
        writeln!(f, "  {:.3} Mpps  {:.3} Gbit/s", self.mpps, self.gbps)?;
        if self.asked.mode == Mode::Loop {
            let Latency { mean, p50, p99, p999, max } = self.lat_us;
            writeln!(f, "  round trip us: mean {mean:.2}  p50 {p50:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2}")?;
        }
        writeln!(f, "  driving thread: {:.1} % of its core, {:.1} % busy", 100.0 * self.cpu, 100.0 * self.busy)?;
        let Outcome { lost, reordered, duplicated, corrupted, malformed, foreign, .. } = self;
        match self.asked.mode {
            Mode::Tx => writeln!(f, "  lost {lost}")?,
            Mode::Rx => writeln!(f, "  malformed {malformed}")?,
            Mode::Loop => writeln!(
                f,
                "  lost {lost}  reordered {reordered}  duplicated {duplicated}  corrupted {corrupted}  \
                 malformed {malformed}  foreign {foreign}"
            )?,
        }
        for complaint in &self.complaints {
            writeln!(f, "    {complaint}")?;
        }
        if self.interrupted {
            writeln!(f, "  interrupted")?;
        }
        Ok(())
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Asked { size, queues, window, .. } = self;
        write!(f, "{} of {size} bytes, window {window} on {queues} queue pair(s), ", name(self.mode))?;
        match &self.socket {
            Some(socket) => write!(f, "{}", socket.display()),
            None => f.write_str("null responder"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::tests::parse;
    use super::super::judge::Counts;
    use super::super::load::Window;
    use super::*;
    use crate::meter::Meter;

    fn report() -> Report {
        let mut meter = Meter::new();
        (0..1000).for_each(|_| meter.record(reactor::Tsc::ticks(5_000)));
        let window = Window {
            meter,
            taken: 1000,
            received: 500,
            bytes: 32_000,
            length: Duration::from_millis(500),
            busy: Duration::from_millis(250),
            cpu: Duration::from_millis(499),
        };
        Report {
            window: Some(window),
            counts: Counts { received: 600, ..Counts::default() },
            sent: 1200,
            lost: 0,
            complaints: Vec::new(),
            halt: None,
            outstanding: vec![0],
        }
    }

    #[test]
    fn json_is_one_object_with_the_names_of_the_design() {
        let args = parse("--socket /s --core 1 --time 0.5 --mode loop").unwrap();
        let outcome = Outcome::new(&args, 7, true, &report());
        let line = outcome.json();
        assert!(!line.contains('\n'));
        assert!(line.starts_with(r#"{"mpps":0.001,"gbps":0.000512,"lost":0,"lat_us":{"mean":"#), "{line}");
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        for name in ["mean", "p50", "p99", "p999", "max"] {
            let value = json["lat_us"][name].as_f64().unwrap();
            assert!((4.95..=5.05).contains(&value), "{name}: {value}");
        }
        let histogram = LatencyHistogram::decode(json["lat_hist_ns"].as_str().unwrap()).unwrap();
        assert_eq!(histogram.count(), 1000);
        for (name, value) in [
            ("socket", "/s".into()),
            ("server", false.into()),
            ("mode", "loop".into()),
            ("size", 64.into()),
            ("queues", 1.into()),
            ("time_s", 0.5.into()),
            ("ring", "split".into()),
            ("queue_size", 256.into()),
            ("window", 256.into()),
            ("mrg", true.into()),
            ("rx_buffer", 2060.into()),
            ("offload", "none".into()),
            ("src_mac", "52:54:00:be:00:01".into()),
            ("core", 1.into()),
            ("verify", false.into()),
            ("tx_frames", 1000.into()),
            ("rx_frames", 500.into()),
            ("rx_bytes", 32_000.into()),
            ("sent", 1200.into()),
            ("received", 600.into()),
            ("reordered", 0.into()),
            ("cpu", 0.998.into()),
            ("busy", 0.5.into()),
            ("seed", 7.into()),
            ("failure", serde_json::Value::Null),
        ] {
            assert_eq!(json[name], value, "{name}");
        }
        assert!(outcome.passed());
    }

    #[test]
    fn rate_of_mode_tx_counts_what_the_device_took() {
        let args = parse("--socket /s --size 1518").unwrap();
        let outcome = Outcome::new(&args, 7, true, &report());
        assert_eq!((outcome.mpps, outcome.gbps), (0.002, 0.024_288));
    }

    #[test]
    fn outcome_with_anything_lost_or_wrong_has_not_passed() {
        let args = parse("--socket /s --mode loop").unwrap();
        let of = |report: &Report| Outcome::new(&args, 7, true, report);
        assert!(!of(&Report { lost: 1, ..report() }).passed());
        assert_eq!(of(&Report { lost: 1, outstanding: vec![3, 4], ..report() }).lost, 7);
        for counts in [
            Counts { duplicated: 1, ..Counts::default() },
            Counts { corrupted: 1, ..Counts::default() },
            Counts { malformed: 1, ..Counts::default() },
        ] {
            assert!(!of(&Report { counts, ..report() }).passed(), "{counts:?}");
        }
        let harmless = Counts { reordered: 5, foreign: 7, ..Counts::default() };
        assert!(of(&Report { counts: harmless, ..report() }).passed());
        let mut stopped = of(&report());
        stopped.failure = Some("gone".to_owned());
        assert!(!stopped.passed());
    }

    #[test]
    fn text_tells_rates_and_what_was_run() {
        let args = parse("--socket /run/s --mode loop --queues 2").unwrap();
        let mut report = report();
        report.complaints.push("frame 0x1: 63 bytes, sent 64".to_owned());
        let text = Outcome::new(&args, 7, true, &report).to_string();
        assert!(text.starts_with("loop of 64 bytes, window 256 on 2 queue pair(s), /run/s\n"), "{text}");
        assert!(text.contains("  0.001 Mpps  0.001 Gbit/s\n"), "{text}");
        assert!(text.contains("  round trip us: mean "), "{text}");
        assert!(text.contains("  lost 0  reordered 0  duplicated 0  corrupted 0  malformed 0  foreign 0\n"), "{text}");
        assert!(text.contains("    frame 0x1: 63 bytes, sent 64\n"), "{text}");
    }

    #[test]
    fn run_that_never_measured_is_zeros_and_still_json() {
        let args = parse("--null-responder").unwrap();
        let outcome = Outcome::new(&args, 7, false, &Report { window: None, ..report() });
        let json: serde_json::Value = serde_json::from_str(&outcome.json()).unwrap();
        assert_eq!((&json["mpps"], &json["lat_us"]["p99"]), (&0.0.into(), &0.0.into()));
        assert_eq!((&json["socket"], &json["mrg"]), (&serde_json::Value::Null, &false.into()));
    }
}
