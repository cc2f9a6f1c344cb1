//! What a run comes to, for people and as JSON. Nothing is measured here.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::disk::Range;
use super::load::Report;
use super::{Args, Ring, Rw};
use crate::histogram::LatencyHistogram;
use crate::meter::{Latency, rounded};

/// The result of a run. Its JSON form is one object with these names; `asked` is part of that object.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Commands a second that succeeded.
    pub iops: f64,
    /// Their data, in 2^20 bytes a second.
    pub mib_per_s: f64,
    /// Commands that failed, from the first one on, and blocks that were not as they must be.
    pub errors: u64,
    /// Latency of the commands that succeeded.
    pub lat_us: Latency,
    /// Commands that succeeded while it was measured.
    pub ios: u64,
    /// How long it was measured.
    pub measured_s: f64,
    /// Processor time of the driving thread, of the time measured: below 1 another thread had its core.
    pub cpu: f64,
    /// Time in which the driving thread had something to do, of the time measured: close to 1 it is the bottleneck.
    pub busy: f64,
    /// Block size of the logical unit in bytes.
    pub block_size: u32,
    /// Bytes of the logical unit that were used.
    pub range_bytes: u64,
    /// Blocks that were compared with what was written.
    pub verified_blocks: u64,
    /// How many of them were something else.
    pub mismatched_blocks: u64,
    /// The first of them.
    pub mismatches: Vec<String>,
    /// Failed commands by kind.
    pub error_kinds: Vec<ErrorKind>,
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

/// Commands that failed in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorKind {
    /// Response, status or sense.
    pub kind: String,
    /// How many.
    pub count: u64,
}

/// The arguments of a run.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "each is the argument of the same name")]
pub struct Asked {
    pub socket: Option<PathBuf>,
    pub rw: Rw,
    pub rwmixread: Option<u8>,
    pub bs: u64,
    pub qd: u16,
    pub think_us: u32,
    pub queues: u16,
    pub time_s: f64,
    pub number_ios: Option<u64>,
    pub warmup_s: f64,
    pub target: u8,
    pub lun: u16,
    pub ring: Ring,
    pub queue_size: u16,
    pub indirect: bool,
    pub in_order: bool,
    pub interrupt: bool,
    pub core: Option<usize>,
    pub verify: bool,
    pub seed: u64,
    pub null_responder: bool,
}

impl Outcome {
    pub(super) fn new(args: &Args, seed: u64, range: &Range, report: &Report) -> Outcome {
        let mut outcome = Outcome::empty(args, seed, range);
        if let Some(window) = &report.window {
            let share = |part: Duration| rounded(part.as_secs_f64() / window.length.as_secs_f64(), 1e3);
            let ios = window.meter.count();
            let rate = ios as f64 / window.length.as_secs_f64();
            outcome.iops = rounded(rate, 10.0);
            outcome.mib_per_s = rounded(rate * args.bs as f64 / f64::from(1 << 20), 10.0);
            outcome.lat_us = window.meter.latency();
            outcome.lat_hist_ns = window.meter.export();
            outcome.ios = ios;
            outcome.measured_s = rounded(window.length.as_secs_f64(), 1e6);
            outcome.cpu = share(window.cpu);
            outcome.busy = share(window.busy);
        }
        if let Some(findings) = report.findings.as_ref().filter(|findings| !findings.moved_nothing()) {
            outcome.verified_blocks = findings.checked;
            outcome.mismatched_blocks = findings.mismatched;
            outcome.mismatches = findings.first.iter().map(ToString::to_string).collect();
        }
        outcome.error_kinds = report.tally.kinds().map(|(kind, count)| ErrorKind { kind, count }).collect();
        outcome.errors = report.tally.total() + outcome.mismatched_blocks;
        outcome
    }

    fn empty(args: &Args, seed: u64, range: &Range) -> Outcome {
        Outcome {
            iops: 0.0,
            mib_per_s: 0.0,
            errors: 0,
            lat_us: Latency::default(),
            ios: 0,
            measured_s: 0.0,
            cpu: 0.0,
            busy: 0.0,
            block_size: range.block_size,
            range_bytes: range.bytes(),
            verified_blocks: 0,
            mismatched_blocks: 0,
            mismatches: Vec::new(),
            error_kinds: Vec::new(),
            interrupted: false,
            failure: None,
            lat_hist_ns: None,
            asked: Asked::new(args, seed),
        }
    }

    /// Whether nothing failed: what the exit status says. A verification that was interrupted has not passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.errors == 0 && self.failure.is_none() && !(self.interrupted && self.asked.verify)
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
    fn new(args: &Args, seed: u64) -> Asked {
        let args = args.clone();
        Asked {
            socket: args.socket,
            rw: args.rw,
            rwmixread: (args.rw == Rw::RandRw).then_some(args.rwmixread),
            bs: args.bs,
            qd: args.qd,
            think_us: args.think_us,
            queues: args.queues,
            time_s: args.time.as_secs_f64(),
            number_ios: args.number_ios,
            warmup_s: args.number_ios.map_or(args.warmup, |_| Duration::ZERO).as_secs_f64(),
            target: args.target,
            lun: args.lun,
            ring: args.ring,
            queue_size: args.queue_size,
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
        let Latency { mean, p50, p99, p999, max } = self.lat_us;
        writeln!(f, "{}", self.asked)?;
        let Outcome { block_size, range_bytes, measured_s, .. } = self;
        writeln!(f, "  {measured_s:.2} s on {range_bytes} bytes in blocks of {block_size}")?;
        writeln!(f, "  {:.0} IOPS  {:.1} MiB/s", self.iops, self.mib_per_s)?;
        writeln!(f, "  latency us: mean {mean:.2}  p50 {p50:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2}")?;
        writeln!(f, "  driving thread: {:.1} % of its core, {:.1} % busy", 100.0 * self.cpu, 100.0 * self.busy)?;
        if self.asked.verify {
            writeln!(f, "  verified {} blocks, {} mismatches", self.verified_blocks, self.mismatched_blocks)?;
        }
        for mismatch in &self.mismatches {
            writeln!(f, "    {mismatch}")?;
        }
        let more = self.mismatched_blocks - self.mismatches.len() as u64;
        if more > 0 {
            writeln!(f, "    and {more} more")?;
        }
        writeln!(f, "  errors {}", self.errors)?;
        for ErrorKind { kind, count } in &self.error_kinds {
            writeln!(f, "    {count} x {kind}")?;
        }
        if self.interrupted {
            writeln!(f, "  interrupted")?;
        }
        Ok(())
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rw = serde_json::to_value(self.rw).unwrap_or_default();
        let Asked { bs, qd, queues, target, lun, think_us, .. } = self;
        write!(f, "{} of {bs} bytes, depth {qd} on {queues} queue(s), ", rw.as_str().unwrap_or_default())?;
        if *think_us > 0 {
            write!(f, "{think_us} us between batches, ")?;
        }
        match &self.socket {
            Some(socket) => write!(f, "target {target} LUN {lun} of {}", socket.display()),
            None => f.write_str("null responder"),
        }
    }
}

#[cfg(test)]
mod tests;
